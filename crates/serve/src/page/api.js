// Talking to the server: fetch with the key, problems as errors, events as an async iterator.

let key = localStorage.getItem("velatura-key") ?? "";
let asking = null;

/** What the server said no to. */
export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail ?? `The server answered ${status}.`);
    this.status = status;
    this.field = body?.field;
  }
}

/** Asks the person for a key, once for all requests that wait for it. */
function askForKey() {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("key-dialog");
    dialog.addEventListener("close", () => {
      key = document.getElementById("key").value.trim();
      localStorage.setItem("velatura-key", key);
      asking = null;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

/** fetch with the key; asks for one where the server does. */
export async function request(path, options = {}) {
  for (;;) {
    const headers = { ...options.headers };
    if (key) headers["X-Api-Key"] = key;
    const response = await fetch(path, { ...options, headers });
    if (response.status === 401) {
      await askForKey();
      continue;
    }
    if (!response.ok) throw new Problem(response.status, await response.json().catch(() => null));
    return response;
  }
}

export const get = async (path) => (await request(path)).json();

export async function post(path, body, headers = {}) {
  const response = await request(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
  return response.json();
}

/** A picture as an address that an <img> can show; fetched, because an <img> cannot send a key. */
const pictures = new Map();
export function picture(path) {
  if (!pictures.has(path)) {
    const url = request(path).then((response) => response.blob()).then((blob) => URL.createObjectURL(blob));
    url.catch(() => pictures.delete(path));
    pictures.set(path, url);
  }
  return pictures.get(path);
}

/** The events of a job, in order; goes on where it was when the connection breaks. */
export async function* events(id) {
  let last = null;
  for (let failures = 0; failures < 30; failures++) {
    try {
      const headers = last === null ? {} : { "Last-Event-ID": last };
      const response = await request(`/v1/jobs/${id}/events`, { headers });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        text += value;
        const blocks = text.split("\n\n");
        text = blocks.pop();
        for (const block of blocks) {
          let data = "";
          for (const line of block.split("\n")) {
            if (line.startsWith("id:")) last = line.slice(3).trim();
            if (line.startsWith("data:")) data += line.slice(5);
          }
          if (!data) continue;
          failures = 0;
          const event = JSON.parse(data);
          yield event;
          if (["done", "failed", "cancelled"].includes(event.event)) return;
        }
      }
    } catch (error) {
      if (error instanceof Problem && error.status === 404) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, Math.min(500 * 2 ** failures, 5000)));
  }
}
