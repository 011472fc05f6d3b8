"""AUTOMATIC1111's API through the client that people use: webuiapi. Called with the server's host and port."""

import sys
import threading
import time

import webuiapi
from PIL import Image, ImageDraw

host, port = sys.argv[1], int(sys.argv[2])
api = webuiapi.WebUIApi(host=host, port=port, sampler="DDIM", steps=3)
SIZE = {"width": 64, "height": 64}

assert {"Euler a", "DPM++ 2M", "DDIM"} <= set(api.util_get_sampler_names()), api.util_get_sampler_names()
assert {"automatic", "karras"} <= set(api.util_get_scheduler_names()), api.util_get_scheduler_names()
assert api.util_get_current_model().startswith("sd15"), api.util_get_current_model()
api.util_set_model("sd15")
assert api.get_memory()["ram"]["total"] > 0

# Text to picture, a batch, with everything that this client sends by default.
result = api.txt2img(prompt="a photo of a cat", negative_prompt="dark", seed=7, batch_size=2, cfg_scale=5, **SIZE)
assert [image.size for image in result.images] == [(64, 64)] * 2
info = result.info
assert info["all_seeds"] == [7, 8] and info["seed"] == 7, info
assert info["sampler_name"] == "DDIM" and info["steps"] == 3 and info["cfg_scale"] == 5, info
assert info["negative_prompt"] == "dark" and info["sd_model_name"] == "sd15", info
assert "Seed: 8" in info["infotexts"][1], info
assert result.images[0].text["parameters"] == info["infotexts"][0]

# The recipe is read back from the file.
read = api.png_info(result.images[1])
assert read.info == info["infotexts"][1], read.info
assert read.parameters["Seed"] == "8" and read.parameters["Negative prompt"] == "dark", read.parameters

# The same seed alone is the same picture.
again = api.txt2img(prompt="a photo of a cat", negative_prompt="dark", seed=8, cfg_scale=5, **SIZE)
assert again.image.tobytes() == result.images[1].tobytes()
other = api.txt2img(prompt="a photo of a cat", sampler_name="Euler a", scheduler="karras", seed=8, **SIZE)
assert other.info["sampler_name"] == "Euler a" and other.info["extra_generation_params"] == {"Schedule type": "Karras"}

# Picture to picture, and a part of one.
init = Image.new("RGB", (64, 64), (200, 120, 40))
ImageDraw.Draw(init).ellipse((16, 16, 48, 48), fill=(20, 40, 160))
changed = api.img2img(images=[init], prompt="a blue ball", denoising_strength=0.6, steps=5, seed=1, **SIZE)
assert changed.image.size == (64, 64) and changed.info["denoising_strength"] == 0.6, changed.info
mask = Image.new("L", (64, 64), 0)
ImageDraw.Draw(mask).rectangle((32, 0, 63, 63), fill=255)
part = api.img2img(
    images=[init], mask_image=mask, prompt="a red ball", denoising_strength=1.0, inpaint_full_res=False, seed=1, **SIZE
)
left = (0, 0, 32, 64)
assert part.image.crop(left).tobytes() == init.crop(left).tobytes()
assert part.image.tobytes() != init.tobytes()

# With everything that this client sends by default: the masked part alone, from the colours around it. The picture keeps its
# size, whatever size the part is painted in.
large = init.resize((200, 120))
hole = Image.new("L", large.size, 0)
ImageDraw.Draw(hole).ellipse((120, 30, 170, 90), fill=255)
part = api.img2img(images=[large], mask_image=hole, prompt="a red ball", steps=5, seed=1, **SIZE)
assert part.image.size == large.size, part.image.size
extra = part.info["extra_generation_params"]
assert extra["Inpaint area"] == "Only masked" and extra["Masked content"] == "fill" and extra["Mask blur"] == "4", extra
old, new, white = large.tobytes(), part.image.tobytes(), hole.tobytes()
changed = [white[i] > 127 for i in range(len(white)) if old[3 * i : 3 * i + 3] != new[3 * i : 3 * i + 3]]
assert len(changed) > 500 and all(changed), "everything outside the mask stays to the pixel"
# Each content of the masked part is another picture, and so is another padding.
looks = {part.image.tobytes()}
for wish in [{"inpainting_fill": 1}, {"inpainting_fill": 2}, {"inpainting_fill": 3}, {"inpaint_full_res_padding": 32}]:
    other = api.img2img(images=[large], mask_image=hole, prompt="a red ball", steps=5, seed=1, **wish, **SIZE)
    looks.add(other.image.tobytes())
assert len(looks) == 5, len(looks)


def refused(word, **wish):
    """What cannot be honoured is said, and not ignored."""
    try:
        api.txt2img(prompt="x", **{**SIZE, **wish})
    except RuntimeError as error:
        status, text = error.args
        assert status == 422 and word in text, error
    else:
        raise AssertionError(f"{wish} was taken")


refused("euler", sampler_name="Eular")
refused("enable_hr", enable_hr=True)
refused("width", width=65)
refused("styles", styles=["oil"])
refused("override_settings.sd_model_checkpoint", override_settings={"sd_model_checkpoint": "another"})

# A long one is watched and interrupted.
results = []
thread = threading.Thread(
    target=lambda: results.append(api.txt2img(prompt="long", steps=150, width=256, height=256, seed=1))
)
thread.start()
while api.get_progress()["state"]["sampling_step"] < 2:
    time.sleep(0.02)
progress = api.get_progress()
assert 0 < progress["progress"] < 1 and progress["state"]["sampling_steps"] >= 150, progress
api.interrupt()
thread.join(timeout=60)
assert not thread.is_alive() and results[0].images == [], results
assert api.get_progress()["state"]["job_count"] == 0
print("ok")
