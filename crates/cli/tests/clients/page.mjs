// A person on the page: types a prompt, watches previews, cancels, reloads, uses a recipe again, paints a mask, compares.
// Called with the server's address, a browser and a folder for screenshots.

import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const [url, executablePath, shots] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
const page = await context.newPage();
page.setDefaultTimeout(90_000);
const wrong = [];
page.on("pageerror", (error) => wrong.push(`error: ${error.message}`));
page.on("console", (message) => message.type() === "error" && wrong.push(`console: ${message.text()}`));
// Nothing is asked of anyone else.
page.on("request", (request) => {
  if (!request.url().startsWith(url) && !/^(data|blob):/.test(request.url())) wrong.push(`asked ${request.url()}`);
});
const shot = (name) => page.screenshot({ path: `${shots}/${name}.png`, fullPage: true });
const pictures = () => page.locator("#gallery img");

await page.goto(url);
await page.getByText("sd15, f32").waitFor();
await shot("empty");

// A prompt, painted with previews on the way.
const size = async (side) => {
  await page.getByLabel("Width in pixels").fill(side);
  await page.getByLabel("Height in pixels").fill(side);
};
await size("64");
await page.getByRole("textbox", { name: "Prompt" }).fill("a photo of a red house beside the sea");
await page.evaluate(() => {
  Object.assign(window, { seen: [], said: [] });
  const [current, status] = ["current", "status"].map((id) => document.getElementById(id));
  new MutationObserver(() => window.seen.push(current.src)).observe(current, { attributes: true, attributeFilter: ["src"] });
  new MutationObserver(() => window.said.push(status.textContent)).observe(status, { childList: true });
});
await page.locator("#steps").fill("60");
await page.locator("#paint").click();
await pictures().first().waitFor();
await page.locator("#doing").waitFor({ state: "hidden" });
const { seen, said } = await page.evaluate(() => ({ seen: window.seen, said: window.said }));
assert(said.some((text) => /^Step \d+ of \d+ · .* left$/.test(text)), `steps and time left were told: ${said}`);
assert(seen.some((src) => src.startsWith("data:image/png")), "previews were shown");
assert(seen.at(-1).startsWith("blob:"), "the finished picture was shown");
const seed = await page.locator("#seed").inputValue();
await shot("painted");

// The keyboard alone paints too; a second one is cancelled.
await page.locator("#steps").fill("60");
await size("512");
await page.getByRole("textbox", { name: "Prompt" }).focus();
await page.keyboard.press("Control+Enter");
await page.getByText(/Step \d+ of \d+ · /).waitFor();
// Another one stands in the list beside it, and can be cancelled there.
await page.getByRole("textbox", { name: "Prompt" }).fill("one that waits");
await page.locator("#paint").click();
await page.locator("#queue li").getByText("one that waits").waitFor();
await shot("painting");
await page.getByRole("button", { name: "Cancel: one that waits" }).click();
await page.locator("#queue").waitFor({ state: "hidden" });
await page.getByRole("button", { name: "Cancel", exact: true }).click();
await page.locator("#doing").waitFor({ state: "hidden" });
assert.equal(await pictures().count(), 1);

// After a reload the gallery is there, and its recipe can be used again.
await page.reload();
await pictures().first().waitFor();
assert.equal(await pictures().count(), 1);
await page.locator("#gallery button").first().click();
await page.getByRole("button", { name: "Use this recipe" }).waitFor();
await shot("viewer");
await page.getByRole("button", { name: "Use this recipe" }).click();
assert.equal(await page.getByRole("textbox", { name: "Prompt" }).inputValue(), "a photo of a red house beside the sea");
assert.equal(await page.locator("#seed").inputValue(), seed);
assert.equal(await page.locator("#lock").getAttribute("aria-pressed"), "true");
await page.locator("#paint").click();
await page.waitForFunction(() => document.querySelectorAll("#gallery img").length === 2);
const files = await page.evaluate(async () => {
  const { jobs } = await (await fetch("/v1/jobs?state=done")).json();
  const urls = jobs.flatMap((job) => job.pictures.map((picture) => picture.url));
  return Promise.all(urls.map(async (url) => [...new Uint8Array(await (await fetch(url)).arrayBuffer())]));
});
assert.deepEqual(files[0], files[1], "the same recipe is the same picture");

// A dropped file brings its recipe.
await page.getByRole("textbox", { name: "Prompt" }).fill("something else");
await page.evaluate((bytes) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}, files[0]);
await page.waitForFunction(() => document.getElementById("prompt").value.startsWith("a photo of a red house"));

// A mask is painted, and only what is under it changes.
await page.locator("#gallery button").first().click();
await page.getByRole("button", { name: "Begin with this picture" }).click();
await page.getByRole("button", { name: "Paint over a part" }).click();
const canvas = page.locator("#mask-canvas");
const box = await canvas.boundingBox();
await page.mouse.move(box.x + box.width * 0.75, box.y + box.height * 0.2);
await page.mouse.down();
await page.mouse.move(box.x + box.width * 0.75, box.y + box.height * 0.8, { steps: 12 });
await page.mouse.up();
await shot("mask");
await page.locator("#mask-done").click();
await page.getByRole("button", { name: "Change the mask" }).waitFor();
await page.getByRole("textbox", { name: "Prompt" }).fill("a black cat");
await page.locator("#steps").fill("10");
await page.getByLabel("The painted part begins as").selectOption("noise");
await page.getByLabel("Paint only the field around it").check();
await shot("mask-more");
const [sent] = await Promise.all([
  page.waitForRequest((request) => request.method() === "POST" && request.url().endsWith("/v1/jobs")),
  page.locator("#paint").click(),
]);
const { masked_content: content, padding_mask_crop: padding } = sent.postDataJSON();
assert.deepEqual([content, padding], ["latent-noise", 32], "the choices for the mask are sent");
await page.waitForFunction(() => document.querySelectorAll("#gallery img").length === 3);
await page.waitForFunction(() => [...document.querySelectorAll("#gallery img")].every((image) => image.naturalWidth > 0));
const halves = await page.evaluate(() => {
  const pixels = (image) => {
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, canvas.width, canvas.height);
  };
  const [repainted, original] = [...document.querySelectorAll("#gallery img")].map(pixels);
  const changed = { left: 0, right: 0 };
  for (let i = 0; i < original.data.length; i += 4) {
    const x = (i / 4) % original.width;
    const other = [0, 1, 2].some((c) => repainted.data[i + c] !== original.data[i + c]);
    if (other) changed[x < original.width / 3 ? "left" : "right"] += 1;
  }
  return changed;
});
assert.equal(halves.left, 0, "what was not painted over stays to the pixel");
assert(halves.right > 50, "what was painted over changes");

// Two pictures are compared.
await page.getByRole("button", { name: "Compare two" }).click();
await page.locator("#gallery button").nth(0).click();
await page.locator("#gallery button").nth(1).click();
await page.locator("#versus[open]").waitFor();
await page.locator("#versus-at").fill("30");
await shot("compare");
await page.keyboard.press("Escape");

// A wrong wish is answered where it was made.
await page.getByLabel("Width in pixels").fill("64");
await page.evaluate(() => { document.getElementById("form").noValidate = true; });
await page.getByLabel("Height in pixels").fill("65");
await page.locator("#paint").click();
await page.getByRole("alert").getByText(/height/).waitFor();
wrong.splice(0, wrong.length, ...wrong.filter((line) => !line.includes("422")));

// Three widths, two colours.
for (const colorScheme of ["light", "dark"]) {
  for (const [name, width, height] of [["desk", 1440, 900], ["tablet", 820, 1100], ["phone", 390, 844]]) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize({ width, height });
    await page.reload();
    await pictures().first().waitFor();
    const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
    assert(!wide, `${name} does not scroll sideways`);
    await shot(`${name}-${colorScheme}`);
  }
}
await page.goto(`${url}/docs`);
await page.getByText("POST /v1/jobs", { exact: true }).waitFor();
await shot("docs");

// Every control has a name.
await page.goto(url);
const nameless = await page.evaluate(() => [...document.querySelectorAll("button, input, select, textarea, a")]
  .filter((control) => !(control.textContent.trim() || control.ariaLabel || control.labels?.length || control.title
    || control.querySelector("img")?.alt))
  .map((control) => control.outerHTML));
assert.deepEqual(nameless, []);
assert.deepEqual(wrong, []);
await browser.close();
console.log("ok");
