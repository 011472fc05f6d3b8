// The recipe in a PNG file: our own JSON, or the text that AUTOMATIC1111's web UI writes.

/** The text chunks of a PNG file, as a map; empty for anything else. */
export async function textChunks(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const view = new DataView(bytes.buffer);
  const found = new Map();
  if (bytes.length < 8 || view.getUint32(0) !== 0x89504e47) return found;
  const latin1 = new TextDecoder("latin1");
  const utf8 = new TextDecoder();
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = view.getUint32(at);
    const kind = latin1.decode(bytes.subarray(at + 4, at + 8));
    const data = bytes.subarray(at + 8, at + 8 + length);
    if (at + 12 + length > bytes.length) break;
    const zero = data.indexOf(0);
    if (kind === "tEXt" && zero > 0) {
      found.set(latin1.decode(data.subarray(0, zero)), latin1.decode(data.subarray(zero + 1)));
    } else if (kind === "iTXt" && zero > 0 && data[zero + 1] === 0) {
      // Keyword, two flags, language, translated keyword, text.
      const language = data.indexOf(0, zero + 3);
      const translated = data.indexOf(0, language + 1);
      found.set(utf8.decode(data.subarray(0, zero)), utf8.decode(data.subarray(translated + 1)));
    }
    at += 12 + length;
  }
  return found;
}

/** A recipe in the words of our API; null where the file has none. */
export async function readRecipe(blob) {
  const chunks = await textChunks(blob);
  if (chunks.has("velatura")) {
    try {
      return JSON.parse(chunks.get("velatura"));
    } catch { /* then perhaps the other one */ }
  }
  return chunks.has("parameters") ? parseParameters(chunks.get("parameters")) : null;
}

/** AUTOMATIC1111's text: the prompt, `Negative prompt: …`, and a line of `Key: value` pairs. */
export function parseParameters(text) {
  const lines = text.trim().split("\n");
  const last = lines.at(-1).startsWith("Steps: ") ? lines.pop() : "";
  const [prompt, ...negative] = lines.join("\n").split("\nNegative prompt: ");
  const pairs = new Map();
  for (const [, name, quoted, plain] of last.matchAll(/([\w ]+): (?:("(?:\\.|[^"\\])*")|([^,]*))(?:, |$)/g)) {
    pairs.set(name, quoted ? JSON.parse(quoted) : plain);
  }
  const number = (name) => (pairs.has(name) ? Number(pairs.get(name)) : undefined);
  const [width, height] = (pairs.get("Size") ?? "").split("x").map(Number);
  return {
    prompt,
    negative_prompt: negative.join("\nNegative prompt: "),
    steps: number("Steps"),
    guidance_scale: number("CFG scale"),
    seed: number("Seed"),
    sampler: pairs.get("Sampler"),
    schedule: pairs.get("Schedule type"),
    strength: number("Denoising strength"),
    width: width || undefined,
    height: height || undefined,
  };
}
