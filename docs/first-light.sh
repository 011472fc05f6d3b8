#!/usr/bin/env bash
# Paints the README's six pictures with the embedded model and joins them (needs ImageMagick's `montage`).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build --release
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
number=0
while read -r prompt; do
    number=$((number + 1))
    target/release/velatura generate --precision f32 --seed 1 -o "$folder/$number.png" "$prompt"
done <<'PROMPTS'
a red car on a beach at sunset
two penguins in the snow at noon
a flying saucer in space
a cactus in a desert at sunset
a house in the snow at night
a hamburger in a cosy room
PROMPTS
montage "$folder"/[1-6].png -tile 6x1 -geometry +4+4 docs/first-light.png
