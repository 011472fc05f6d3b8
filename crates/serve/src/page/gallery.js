// The gallery: what the server has kept. Nothing is stored in the browser, so a reload loses nothing.

import { get, picture, request } from "./api.js";

const $ = (id) => document.getElementById(id);
let hooks = {};
let next = null;
let comparing = null;
const shown = new Set();

/** `hooks.recipe(recipe)` puts a recipe into the form, `hooks.begin(blob)` begins with a picture. */
export async function setUp(given) {
  hooks = given;
  await older();
}

/** The next page of finished jobs. */
async function older() {
  const page = await get(`/v1/jobs?limit=40${next ? `&before=${next}` : ""}`);
  for (const job of page.jobs) for (const item of job.pictures) add(item, job, false);
  next = page.next;
  $("older").hidden = !next;
  bare();
}

const bare = () => { $("bare").hidden = $("gallery").children.length > 0; };

/** Hangs a picture; new ones come first. */
export function add(item, job, first = true) {
  if (shown.has(item.url)) return;
  shown.add(item.url);
  const li = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  const image = document.createElement("img");
  image.alt = item.recipe.prompt || "A picture without a prompt";
  image.loading = "lazy";
  button.append(image);
  button.onclick = () => (comparing ? choose(button, item) : view(item, job, li));
  li.append(button);
  if (first) $("gallery").prepend(li);
  else $("gallery").append(li);
  bare();
  picture(item.url).then((url) => { image.src = url; }, () => li.remove());
}

/** One picture, large, with its recipe. */
async function view(item, job, li) {
  const url = await picture(item.url);
  const recipe = item.recipe;
  $("view-image").src = url;
  $("view-image").alt = recipe.prompt;
  $("view-prompt").textContent = recipe.prompt || "(no prompt)";
  const facts = [
    ["Without", recipe.negative_prompt],
    ["Seed", recipe.seed],
    ["Steps", recipe.steps],
    ["Guidance", recipe.guidance_scale],
    ["Sampler", `${recipe.sampler}, ${recipe.schedule}`],
    ["Size", `${recipe.width} × ${recipe.height}`],
    ["Change", recipe.strength && `${Math.round(recipe.strength * 100)} %${recipe.mode === "inpaint" ? " of a part" : ""}`],
    ["Model", recipe.model?.name],
    ["Painted", new Date(job.finished ?? job.created).toLocaleString()],
  ];
  $("view-facts").replaceChildren(...facts.filter(([, value]) => value !== undefined && value !== "" && value !== null)
    .flatMap(([name, value]) => {
      const dt = document.createElement("dt");
      const dd = document.createElement("dd");
      dt.textContent = name;
      dd.textContent = value;
      return [dt, dd];
    }));
  const words = (recipe.prompt || "picture").toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? ["picture"];
  $("view-save").href = url;
  $("view-save").download = `${words.slice(0, 8).join("-")}-${recipe.seed}.png`;
  $("view-recipe").onclick = () => {
    hooks.recipe(recipe);
    $("viewer").close();
  };
  $("view-init").onclick = async () => {
    $("viewer").close();
    await hooks.begin(await (await request(item.url)).blob());
  };
  $("view-forget").hidden = ["queued", "running"].includes(job.state);
  $("view-forget").textContent = job.pictures.length > 1 ? `Delete all ${job.pictures.length} of this job` : "Delete";
  $("view-forget").onclick = async () => {
    await request(`/v1/jobs/${job.id}`, { method: "DELETE" });
    $("viewer").close();
    li.remove();
    for (const other of job.pictures) shown.delete(other.url);
    if (job.pictures.length > 1) await reload();
    bare();
  };
  $("viewer").showModal();
}

async function reload() {
  $("gallery").replaceChildren();
  shown.clear();
  next = null;
  await older();
}

function choose(button, item) {
  button.classList.toggle("chosen");
  const at = comparing.findIndex(([chosen]) => chosen === button);
  if (at >= 0) comparing.splice(at, 1);
  else comparing.push([button, item]);
  if (comparing.length === 2) versus(comparing.map(([, chosen]) => chosen));
}

async function versus([a, b]) {
  [$("versus-a").src, $("versus-b").src] = await Promise.all([picture(a.url), picture(b.url)]);
  $("versus-a").alt = a.recipe.prompt;
  $("versus-b").alt = b.recipe.prompt;
  $("versus-at").value = 50;
  divide();
  compare(false);
  $("versus").showModal();
}

const divide = () => { $("versus-b").style.clipPath = `inset(0 0 0 ${$("versus-at").value}%)`; };

function compare(on) {
  for (const button of $("gallery").querySelectorAll(".chosen")) button.classList.remove("chosen");
  comparing = on ? [] : null;
  $("compare").setAttribute("aria-pressed", String(on));
  $("compare-hint").hidden = !on;
}

$("compare").addEventListener("click", () => compare(comparing === null));
$("versus-at").addEventListener("input", divide);
$("older").addEventListener("click", older);
