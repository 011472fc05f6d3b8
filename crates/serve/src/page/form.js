// The form: from the model's defaults to a request, and from a recipe back to the form.

import { maskUrl, paintMask } from "./paint.js";

const $ = (id) => document.getElementById(id);
const SHAPES = [["Square", 1, 1], ["Portrait", 3, 4], ["Landscape", 4, 3]];

let model = null;
let init = null;
let mask = null;

const roll = () => crypto.getRandomValues(new Uint32Array(1))[0];
const pressed = (button) => button.getAttribute("aria-pressed") === "true";

/** Fills the form from what the server says of its model. */
export function setUp(body) {
  model = body;
  const { defaults, limits } = body;
  $("steps").max = Math.min(100, limits.steps);
  $("count").max = limits.pictures;
  for (const id of ["width", "height"]) {
    Object.assign($(id), { min: body.multiple, max: limits.side, step: body.multiple });
  }
  $("seed").max = limits.seed;
  $("sampler").replaceChildren(...body.samplers.map(({ name, label }) => new Option(label, name)));
  $("prompt").maxLength = $("negative").maxLength = limits.prompt_chars;
  offerSchedules(defaults.sampler);
  apply({ ...defaults, seed: undefined });
  drawShapes(defaults);
}

function offerSchedules(sampler) {
  const known = model.samplers.find(({ name }) => name === sampler)?.schedules ?? [];
  const before = $("schedule").value;
  const options = model.schedules.filter(({ name }) => known.includes(name));
  $("schedule").replaceChildren(...options.map(({ name, label }) => new Option(label, name)));
  if (known.includes(before)) $("schedule").value = before;
}

/** Three shapes of about the model's own area. */
function drawShapes({ width, height }) {
  const side = Math.sqrt(width * height);
  const fit = (value) => Math.max(model.multiple, Math.round(value / model.multiple) * model.multiple);
  $("shapes").replaceChildren(...SHAPES.map(([name, across, down]) => {
    const button = document.createElement("button");
    button.type = "button";
    const [w, h] = across === down ? [12, 12] : across > down ? [15, 11] : [11, 15];
    button.innerHTML = `<svg width="18" height="18" viewBox="0 0 18 18" aria-hidden="true"><rect x="${(18 - w) / 2}" y="${(18 - h) / 2}" width="${w}" height="${h}" rx="2"/></svg>`;
    button.append(name);
    const ratio = Math.sqrt(across / down);
    button.onclick = () => {
      $("width").value = fit(side * ratio);
      $("height").value = fit(side / ratio);
      markShape();
    };
    button.dataset.width = fit(side * ratio);
    button.dataset.height = fit(side / ratio);
    return button;
  }));
  markShape();
}

function markShape() {
  for (const button of $("shapes").children) {
    const own = button.dataset.width === $("width").value && button.dataset.height === $("height").value;
    button.setAttribute("aria-pressed", String(own));
  }
}

/** Puts a recipe into the form; what it does not say stays. */
export function apply(recipe) {
  const set = (id, value) => {
    if (value === undefined || value === null || value === "") return;
    $(id).value = value;
    $(id).dispatchEvent(new Event("input"));
  };
  if (recipe.prompt !== undefined) $("prompt").value = recipe.prompt;
  if (recipe.negative_prompt !== undefined) $("negative").value = recipe.negative_prompt;
  if (recipe.steps > Number($("steps").max)) $("steps").max = recipe.steps;
  if (recipe.guidance_scale > Number($("guidance").max)) $("guidance").max = Math.ceil(recipe.guidance_scale);
  set("steps", recipe.steps);
  set("guidance", recipe.guidance_scale);
  // A guidance between the slider's steps is kept exactly.
  $("guidance").step = Number.isInteger((recipe.guidance_scale ?? 1) * 2) ? 0.5 : "any";
  set("guidance", recipe.guidance_scale);
  const named = (list, value) => list.find(({ name, label }) => [name, label].includes(value))?.name;
  const sampler = named(model.samplers, recipe.sampler);
  if (sampler) $("sampler").value = sampler;
  offerSchedules($("sampler").value);
  set("schedule", named(model.schedules, recipe.schedule));
  set("width", recipe.width);
  set("height", recipe.height);
  if (recipe.strength) set("strength", recipe.strength);
  if (recipe.seed !== undefined) {
    $("seed").value = recipe.seed;
    setLock(true);
  }
  markShape();
}

function setLock(on) {
  $("lock").setAttribute("aria-pressed", String(on));
  const label = on ? "Take a new seed each time" : "Keep this seed";
  $("lock").title = label;
  $("lock").setAttribute("aria-label", label);
}

/** The request that the form describes. */
export function read() {
  if (!pressed($("lock")) || $("seed").value === "") $("seed").value = roll();
  const body = {
    prompt: $("prompt").value,
    negative_prompt: $("negative").value,
    steps: Number($("steps").value),
    guidance_scale: Number($("guidance").value),
    seed: Number($("seed").value),
    count: Number($("count").value),
    sampler: $("sampler").value,
    schedule: $("schedule").value,
    width: Number($("width").value),
    height: Number($("height").value),
  };
  if (init) {
    body.init_image = init;
    body.strength = Number($("strength").value);
    if (mask) {
      body.mask = maskUrl(mask);
      // A soft edge of about a latent's width hides the seam.
      body.mask_blur = 4;
      body.masked_content = $("masked-content").value;
      // As much of what is around it as AUTOMATIC1111's page shows by default.
      if ($("only-masked").checked) body.padding_mask_crop = 32;
    }
  }
  return body;
}

/** Begins with a picture: a blob of any kind that the browser reads. */
export async function beginWith(blob) {
  const bitmap = await createImageBitmap(blob);
  // As large as the model paints, and in steps that it can.
  const { multiple, limits, defaults } = model;
  const most = Math.min(limits.side, Math.max(defaults.width, defaults.height) * 1.5);
  const scale = Math.min(1, most / Math.max(bitmap.width, bitmap.height));
  const fit = (value) => Math.max(multiple, Math.round((value * scale) / multiple) * multiple);
  const canvas = document.createElement("canvas");
  canvas.width = fit(bitmap.width);
  canvas.height = fit(bitmap.height);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  init = canvas.toDataURL("image/png");
  mask = null;
  $("init-image").src = init;
  await $("init-image").decode();
  $("width").value = canvas.width;
  $("height").value = canvas.height;
  markShape();
  $("init").hidden = false;
  $("pick").hidden = true;
  setStrength(0.6);
  showMask();
}

function setStrength(value) {
  $("strength").value = value;
  $("strength").dispatchEvent(new Event("input"));
}

export function withoutPicture() {
  init = mask = null;
  $("init").hidden = true;
  $("pick").hidden = false;
  $("file").value = "";
}

function showMask() {
  const canvas = $("init-mask");
  canvas.width = $("init-image").naturalWidth;
  canvas.height = $("init-image").naturalHeight;
  if (mask) canvas.getContext("2d").drawImage(mask, 0, 0);
  $("mask-more").hidden = mask === null;
  $("mask-open").textContent = mask ? "Change the mask" : "Paint over a part";
}

$("steps").addEventListener("input", () => { $("steps-out").value = $("steps").value; });
$("guidance").addEventListener("input", () => { $("guidance-out").value = Number($("guidance").value); });
$("strength").addEventListener("input", () => {
  $("strength-out").value = `${Math.round(Number($("strength").value) * 100)} %`;
});
$("sampler").addEventListener("change", () => offerSchedules($("sampler").value));
for (const id of ["width", "height"]) $(id).addEventListener("input", markShape);
$("seed").addEventListener("change", () => setLock($("seed").value !== ""));
$("lock").addEventListener("click", () => setLock(!pressed($("lock"))));
$("dice").addEventListener("click", () => {
  $("seed").value = roll();
  setLock(true);
});
$("init-drop").addEventListener("click", withoutPicture);
$("mask-open").addEventListener("click", async () => {
  const had = mask !== null;
  mask = await paintMask($("init-image"), mask);
  if (mask && !had) setStrength(1);
  showMask();
});
