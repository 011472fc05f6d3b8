#!/usr/bin/env bash
# Paints with the embedded model, by the first seed, the README's six pictures and the 48 of docs/default-model.md (needs ImageMagick's
# `montage`).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build --release

# Paints a picture of each prompt on standard input and joins them: sheet OUT MONTAGE_OPTION...
sheet() {
    local out=$1 folder number=10
    shift
    folder=$(mktemp -d)
    while read -r prompt; do
        number=$((number + 1))
        target/release/velatura generate --precision f32 --seed 1 -o "$folder/$number.png" "$prompt"
    done
    montage "$folder"/*.png "$@" "$out"
    rm -r "$folder"
}

sheet docs/first-light.png -tile 6x1 -geometry +4+4 <<'PROMPTS'
a red car on a beach at sunset
two penguins in the snow at noon
a flying saucer in space
a cactus in a desert at sunset
a house in the snow at night
a hamburger in a cosy room
PROMPTS
sheet docs/default-unet/sheet.jpg -tile 8x6 -geometry +3+3 -quality 85 <docs/default-unet/prompts.txt
