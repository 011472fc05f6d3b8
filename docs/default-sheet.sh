#!/usr/bin/env bash
# Paints the sheet of docs/default-model.md with the embedded model: 48 prompts, the first seed (needs ImageMagick's `montage`).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build --release
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
number=10
while read -r prompt; do
    number=$((number + 1))
    target/release/velatura generate --precision f32 --seed 1 -o "$folder/$number.png" "$prompt"
done <docs/default-unet/prompts.txt
montage "$folder"/*.png -tile 8x6 -geometry +3+3 -quality 85 docs/default-unet/sheet.jpg
