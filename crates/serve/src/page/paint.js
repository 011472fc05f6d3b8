// The inpainting brush: a canvas of the picture's size, opaque where it is to be painted anew. Its colour is one that is
// seen on any picture; the server gets black and white.

const $ = (id) => document.getElementById(id);
const STEP = 8;
const COLOUR = "#e2572b";

/** Lets a person paint a mask over `image` (an <img> that has been loaded), beginning with `mask` (a canvas or null).
 *  Resolves to a canvas, or to null when nothing is painted. */
export function paintMask(image, mask) {
  const dialog = $("masker");
  const canvas = $("mask-canvas");
  const brush = canvas.getContext("2d", { willReadFrequently: true });
  $("mask-image").src = image.src;
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  // Wide pictures are as wide as the easel, high ones as high.
  canvas.style.aspectRatio = `${canvas.width} / ${canvas.height}`;
  $("mask-image").style.aspectRatio = canvas.style.aspectRatio;
  if (mask) brush.drawImage(mask, 0, 0, canvas.width, canvas.height);
  const undo = [];
  let last = null;
  let cursor = { x: canvas.width / 2, y: canvas.height / 2 };
  let erasing = false;
  $("erase").setAttribute("aria-pressed", "false");

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) / box.width) * canvas.width,
      y: ((event.clientY - box.top) / box.height) * canvas.height,
    };
  };
  const remember = () => {
    undo.push(brush.getImageData(0, 0, canvas.width, canvas.height));
    if (undo.length > 30) undo.shift();
  };
  const stroke = (from, to) => {
    // The brush has one size on the screen, whatever the picture's.
    const scale = canvas.width / canvas.getBoundingClientRect().width;
    brush.globalCompositeOperation = erasing ? "destination-out" : "source-over";
    brush.strokeStyle = COLOUR;
    brush.lineCap = "round";
    brush.lineWidth = Number($("brush").value) * scale;
    brush.beginPath();
    brush.moveTo(from.x, from.y);
    brush.lineTo(to.x + 0.01, to.y);
    brush.stroke();
  };
  const handlers = {
    pointerdown(event) {
      canvas.setPointerCapture(event.pointerId);
      remember();
      last = place(event);
      stroke(last, last);
    },
    pointermove(event) {
      if (!last) return;
      const next = place(event);
      stroke(last, next);
      last = next;
    },
    pointerup() { last = null; },
    pointercancel() { last = null; },
    keydown(event) {
      const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      const move = moves[event.key];
      if (move) {
        const next = { x: cursor.x + move[0] * STEP, y: cursor.y + move[1] * STEP };
        if (event.shiftKey) { remember(); stroke(cursor, next); }
        cursor = next;
      } else if (event.key === " ") {
        remember();
        stroke(cursor, cursor);
      } else {
        return;
      }
      event.preventDefault();
    },
  };
  for (const [name, handler] of Object.entries(handlers)) canvas.addEventListener(name, handler);
  $("erase").onclick = () => {
    erasing = !erasing;
    $("erase").setAttribute("aria-pressed", String(erasing));
  };
  $("undo").onclick = () => {
    const before = undo.pop();
    if (before) brush.putImageData(before, 0, 0);
  };
  $("clear").onclick = () => {
    remember();
    brush.clearRect(0, 0, canvas.width, canvas.height);
  };
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      for (const [name, handler] of Object.entries(handlers)) canvas.removeEventListener(name, handler);
      const { data } = brush.getImageData(0, 0, canvas.width, canvas.height);
      let painted = false;
      for (let i = 3; i < data.length && !painted; i += 4) painted = data[i] > 127;
      if (!painted) return resolve(null);
      const copy = document.createElement("canvas");
      copy.width = canvas.width;
      copy.height = canvas.height;
      copy.getContext("2d").drawImage(canvas, 0, 0);
      resolve(copy);
    }, { once: true });
  });
}

/** The mask as the server wants it: white on black, in a data URL. */
export function maskUrl(mask) {
  const canvas = document.createElement("canvas");
  canvas.width = mask.width;
  canvas.height = mask.height;
  const context = canvas.getContext("2d");
  context.drawImage(mask, 0, 0);
  for (const [operation, colour] of [["source-in", "#fff"], ["destination-over", "#000"]]) {
    context.globalCompositeOperation = operation;
    context.fillStyle = colour;
    context.fillRect(0, 0, canvas.width, canvas.height);
  }
  return canvas.toDataURL("image/png");
}
