#!/usr/bin/env python3
"""Makes a folder of sprites for scenes from a checkout of Microsoft's Fluent emoji (MIT licence).

    git clone https://github.com/microsoft/fluentui-emoji
    pip install pillow numpy
    python configs/make_sprites.py fluentui-emoji sprites

Which pictures, under which names, stands in sprites.csv beside this script.
"""

import argparse
import csv
import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 256
# Pixels that are nearly grey have no hue to speak of.
LEAST_SATURATION = 0.25
# A picture is of a single hue as far as its pixels lie within this many degrees of the dominant one.
NEAR = 22
BINS = 72


def picture_of(folder: Path) -> Path | None:
    """The picture in the 3D style: emoji with several skin tones keep theirs one folder deeper."""
    for below in ("3D", "Default/3D"):
        found = sorted((folder / below).glob("*.png"))
        if found:
            return found[-1]
    return None


def hue(picture: Image.Image) -> tuple[int, float]:
    """The dominant hue in degrees, and the share of the opaque pixels near it."""
    rgba = np.asarray(picture, dtype=np.float64) / 255
    rgb = rgba[..., :3][rgba[..., 3] > 0.5]
    most, chroma = rgb.max(1), np.ptp(rgb, axis=1)
    red, green, blue = rgb.T
    safe = np.where(chroma > 0, chroma, 1)
    sector = np.where(
        most == red,
        (green - blue) / safe % 6,
        np.where(most == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    degrees = 60 * sector
    saturation = np.where(most > 0, chroma / np.where(most > 0, most, 1), 0)
    coloured = saturation > LEAST_SATURATION
    if not coloured.any():
        return 0, 0.0
    counts, _ = np.histogram(degrees[coloured], BINS, (0, 360), weights=saturation[coloured])
    dominant = (counts.argmax() + 0.5) * 360 / BINS
    away = np.abs((degrees[coloured] - dominant + 180) % 360 - 180)
    return round(dominant), round(float((away <= NEAR).sum()) / len(rgb), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkout", type=Path, help="a clone of microsoft/fluentui-emoji")
    parser.add_argument("out", type=Path, help="the folder to make")
    arguments = parser.parse_args()
    folders = {}
    for metadata in arguments.checkout.glob("assets/*/metadata.json"):
        folders[json.loads(metadata.read_text(encoding="utf-8"))["cldr"]] = metadata.parent
    if not folders:
        parser.error(f"{arguments.checkout}: expected assets/*/metadata.json in it, found none")
    (arguments.out / "images").mkdir(parents=True)
    lines = []
    with open(Path(__file__).with_name("sprites.csv"), encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            source = picture_of(folders[row["cldr"]]) if row["cldr"] in folders else None
            if source is None:
                parser.error(f"{arguments.checkout}: no picture in the 3D style of {row['cldr']!r}")
            picture = Image.open(source).convert("RGBA").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            file = f"images/{row['cldr'].replace(' ', '_').replace(':', '')}.webp"
            picture.save(arguments.out / file, quality=90)
            degrees, share = hue(picture)
            lines.append(
                {
                    "file": file,
                    "core": True,
                    "name": row["name"],
                    "plural": row["plural"],
                    "place": row["place"],
                    "hue_degrees": degrees,
                    "single_hue_fraction": share,
                }
            )
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (arguments.out / "sprites.jsonl").write_text(text, encoding="utf-8")
    shutil.copy(arguments.checkout / "LICENSE", arguments.out / "LICENSE.txt")
    print(f"{len(lines)} sprites in {arguments.out}")


if __name__ == "__main__":
    main()
