"""OpenAI's API through its own client. Called with the server's base URL and a key."""

import base64
import io
import sys
import urllib.request

import openai
from PIL import Image

base_url, key = sys.argv[1], sys.argv[2]
client = openai.OpenAI(base_url=f"{base_url}/v1", api_key=key, max_retries=0)

assert [model.id for model in client.models.list()] == ["sd15"]
assert client.models.retrieve("sd15").owned_by == "velatura"


def picture(data):
    return Image.open(io.BytesIO(data))


answer = client.images.generate(model="sd15", prompt="a cat", size="64x64", n=2, response_format="b64_json")
pictures = [picture(base64.b64decode(item.b64_json)) for item in answer.data]
assert [image.size for image in pictures] == [(64, 64)] * 2 and answer.created > 1_700_000_000
assert "a cat" in pictures[0].text["parameters"]

answer = client.images.generate(prompt="a cat", size="64x64", response_format="url")
with urllib.request.urlopen(answer.data[0].url) as response:
    assert picture(response.read()).size == (64, 64)

# What is transparent is painted anew.
init = Image.new("RGBA", (64, 64), (200, 120, 40, 255))
hole = init.copy()
hole.paste((0, 0, 0, 0), (32, 0, 64, 64))


def file(image):
    data = io.BytesIO()
    image.save(data, "PNG")
    return ("picture.png", data.getvalue(), "image/png")


answer = client.images.edit(
    image=file(init), mask=file(hole), prompt="a house", size="64x64", response_format="b64_json"
)
edited = picture(base64.b64decode(answer.data[0].b64_json))
left = (0, 0, 32, 64)
assert edited.crop(left).tobytes() == init.convert("RGB").crop(left).tobytes()
assert edited.tobytes() != init.convert("RGB").tobytes()

for wish, word in [
    ({"model": "dall-e-3"}, "sd15"),
    ({"size": "65x64"}, "64"),
    ({"style": "vivid"}, "style"),
    ({"n": 1000}, "n: expected"),
]:
    try:
        client.images.generate(**{"prompt": "x", "size": "64x64", **wish})
    except openai.BadRequestError as error:
        assert word in str(error), error
    else:
        raise AssertionError(f"{wish} was taken")
try:
    openai.OpenAI(base_url=f"{base_url}/v1", api_key="wrong", max_retries=0).models.list()
except openai.AuthenticationError:
    pass
else:
    raise AssertionError("a wrong key was taken")
print("ok")
