// The page: submits jobs, follows them, and shows what comes of them.

import { Problem, events, get, picture, post } from "./api.js";
import * as form from "./form.js";
import * as gallery from "./gallery.js";
import { readRecipe } from "./recipe.js";

const $ = (id) => document.getElementById(id);
const open = new Map();
let current = null;

/** What a screen reader says. */
const say = (text) => { $("live").textContent = text; };

function complain(error) {
  $("complaint").textContent = error instanceof Error ? error.message : error;
  $("complaint").hidden = false;
}

// Colours: as the system has them, light, or dark.
const THEMES = ["system", "light", "dark"];
function showTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  const words = { system: "as the system has them", light: "light", dark: "dark" };
  $("theme").setAttribute("aria-label", `Colours: ${words[theme]}`);
  $("theme").title = `Colours: ${words[theme]}`;
  $("theme").textContent = { system: "◐", light: "☀", dark: "☾" }[theme];
}
$("theme").addEventListener("click", () => {
  const now = localStorage.getItem("velatura-theme") ?? "system";
  const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
  localStorage.setItem("velatura-theme", next);
  showTheme(next);
});
showTheme(localStorage.getItem("velatura-theme") ?? "system");

/** Shows a picture on the stage; a vague one while it is being painted. */
function show(url, vague, alt, size) {
  const image = $("current");
  image.src = url;
  image.alt = alt;
  image.classList.toggle("vague", vague);
  if (size) image.style.aspectRatio = `${size.width} / ${size.height}`;
  image.hidden = false;
  $("hint").hidden = true;
  $("stage").classList.remove("empty");
}

function left(seconds) {
  if (seconds < 1) return "a moment left";
  if (seconds < 90) return `${Math.round(seconds)} s left`;
  return `${Math.round(seconds / 60)} min left`;
}

/** The list of jobs beside the one on the stage. A row lives as long as its job waits, so that it keeps the focus. */
const rows = new Map();
function drawQueue() {
  const beside = [...open.values()].filter((job) => job.id !== current);
  for (const [id, row] of rows) {
    if (!beside.some((job) => job.id === id)) {
      row.remove();
      rows.delete(id);
    }
  }
  for (const job of beside) {
    if (!rows.has(job.id)) rows.set(job.id, row(job));
    const far = job.state === "running" ? `${Math.round(100 * (job.done ?? 0))} %` : "waits";
    rows.get(job.id).querySelector(".far").textContent = far;
  }
  $("queue").hidden = rows.size === 0;
}

function row(job) {
  const li = document.createElement("li");
  const words = document.createElement("span");
  words.textContent = job.order.prompt || "(no prompt)";
  const far = document.createElement("span");
  far.className = "far quiet";
  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain";
  button.textContent = "Cancel";
  button.setAttribute("aria-label", `Cancel: ${words.textContent}`);
  button.onclick = () => cancel(job.id);
  li.append(words, far, button);
  $("queue").append(li);
  return li;
}

async function cancel(id) {
  try {
    await post(`/v1/jobs/${id}/cancel`, {});
  } catch (error) {
    complain(error);
  }
}
$("cancel").addEventListener("click", () => {
  if (!current) return;
  $("status").textContent = "Stopping after this step …";
  cancel(current);
});

/** A job gets the stage. */
function take(job) {
  current = job.id;
  $("doing").hidden = false;
  $("bar").removeAttribute("value");
  $("status").textContent = "Beginning …";
  drawQueue();
}

function leave(job) {
  open.delete(job.id);
  if (current === job.id) {
    current = null;
    $("current").classList.remove("vague");
    // Of those that were painted beside it, the oldest comes to the front.
    const next = [...open.values()].find((other) => other.state === "running");
    if (next) take(next);
  }
  $("doing").hidden = open.size === 0;
  if (open.size > 0 && !current) $("status").textContent = "Waiting …";
  if (open.size === 0) document.title = "Velatura";
  drawQueue();
}

/** A job has gone a step further. */
function advance(job, event) {
  job.done = event.progress;
  if (!current) take(job);
  if (current !== job.id) return drawQueue();
  $("bar").value = event.progress;
  const where = event.pictures > 1
    ? `${job.finished.size} of ${event.pictures} pictures finished`
    : `Step ${event.step} of ${event.steps}`;
  $("status").textContent = `${where} · ${left(event.seconds_left)}`;
  document.title = `${Math.round(100 * event.progress)} % · Velatura`;
  // Pictures of one job are painted at once; the stage has room for the first that is not finished.
  let first = 0;
  while (job.finished.has(first)) first += 1;
  if (event.preview && event.picture === first) show(event.preview, true, "How far the picture is", job.order);
}

/** Follows a job to its end. */
async function follow(job) {
  if (open.has(job.id)) return;
  open.set(job.id, job);
  job.finished = new Set(job.pictures.map(({ number }) => number));
  drawQueue();
  if (!current) {
    $("doing").hidden = false;
    $("status").textContent = "Waiting …";
    $("bar").value = 0;
  }
  try {
    for await (const event of events(job.id)) {
      if (event.event === "started") {
        job.state = "running";
        if (current) drawQueue();
        else take(job);
      }
      if (event.event === "step") advance(job, event);
      if (event.event === "picture") {
        job.finished.add(event.number);
        const url = await picture(event.url);
        if (current === job.id) show(url, false, job.order.prompt, job.order);
        const now = await get(`/v1/jobs/${job.id}`);
        for (const item of now.pictures) gallery.add(item, now);
      }
      if (event.event === "done") say("The picture is finished.");
      if (event.event === "cancelled") say("Cancelled.");
      if (event.event === "failed") complain(`This could not be painted: ${event.error}`);
    }
  } catch (error) {
    complain(error);
  }
  leave(job);
}

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("complaint").hidden = true;
  $("paint").disabled = true;
  try {
    // The same click is one job, however often the network makes us send it.
    const job = await post("/v1/jobs", form.read(), { "Idempotency-Key": crypto.randomUUID?.() ?? String(Math.random()) });
    say("Accepted.");
    $("stage").scrollIntoView({ block: "nearest", behavior: "smooth" });
    follow(job);
  } catch (error) {
    complain(error);
    if (error instanceof Problem && error.field) document.getElementsByName(error.field)[0]?.focus();
  }
  $("paint").disabled = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !document.querySelector("dialog[open]")) {
    event.preventDefault();
    $("form").requestSubmit();
  }
});

// A dropped or chosen file: on the form's lower part a picture to begin with, elsewhere a recipe to read.
async function takeFile(file, toBegin) {
  $("complaint").hidden = true;
  try {
    const recipe = toBegin ? null : await readRecipe(file);
    if (recipe) {
      form.apply(recipe);
      say("The recipe of this picture is in the form now.");
      show(URL.createObjectURL(file), false, recipe.prompt, recipe.width ? recipe : null);
    } else {
      await form.beginWith(file);
    }
  } catch {
    complain(`${file.name} is no picture that this browser can read.`);
  }
}
$("file").addEventListener("change", () => $("file").files[0] && takeFile($("file").files[0], true));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("begin").classList.toggle("over", $("begin").contains(event.target));
});
document.addEventListener("dragleave", () => $("begin").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("begin").classList.remove("over");
  const file = event.dataTransfer.files[0];
  if (file) takeFile(file, $("begin").contains(event.target));
});

async function start() {
  const body = await get("/v1/model");
  form.setUp(body);
  $("model").textContent = body.ready ? `${body.name}, ${body.precision}` : `${body.name}, being loaded`;
  await gallery.setUp({
    recipe(recipe) {
      form.apply(recipe);
      $("prompt").focus();
      say("The recipe is in the form now.");
    },
    begin: form.beginWith,
  });
  // What was going on before the reload goes on.
  const [running, queued] = await Promise.all([get("/v1/jobs?state=running"), get("/v1/jobs?state=queued&limit=200")]);
  for (const job of [...running.jobs, ...queued.jobs.reverse()]) follow(job);
  for (let ready = body.ready; !ready;) {
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const now = await get("/v1/model");
    ready = now.ready;
    if (ready) $("model").textContent = `${now.name}, ${now.precision}`;
  }
}
start().catch(complain);
