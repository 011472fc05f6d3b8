//! Under water: light from above, rocks and plants, sand.

use super::Layout;
use super::land::ridge;
use crate::canvas::{Canvas, Look, Rgb, ellipse, path, polygon, rect};
use crate::random::Random;

pub(super) fn seabed(canvas: &mut Canvas, layout: Layout, random: &mut Random) {
    let h = layout.horizon;
    let (top, middle, deep) = (Rgb(96, 206, 226), Rgb(38, 142, 200), Rgb(22, 92, 158));
    let water = rect(0.0, 0.0, 100.0, 102.0, 0.0);
    canvas.fill_stops(
        &water,
        &[(0.0, top, 1.0), (0.35, middle, 1.0), (0.8, deep, 1.0)],
    );
    // Shafts of light.
    for i in 0..4 {
        let x = 25.0 * i as f32 + random.range(0.0, 22.0);
        let (width, slant) = (random.range(4.0, 9.0), random.range(-14.0, -6.0));
        let foot = h + random.range(6.0, 18.0);
        let shaft = [
            (x, -1.0),
            (x + width, -1.0),
            (x + width * 1.6 + slant, foot),
            (x + slant, foot),
        ];
        canvas.fill_stops(
            &polygon(&shaft),
            &[
                (0.0, Rgb(214, 250, 255), 0.3),
                (1.0, Rgb(214, 250, 255), 0.0),
            ],
        );
    }
    // Hills of rock in the distance, then weed, then sand.
    canvas.fill(
        &ridge(random, h + 1.0, 6.0, 4),
        Look::Down(Rgb(30, 112, 170), Rgb(24, 94, 150)),
    );
    canvas.fill(
        &ridge(random, h + 9.0, 4.0, 3),
        Look::Down(Rgb(34, 104, 148), Rgb(30, 86, 126)),
    );
    for _ in 0..5 {
        let x = if random.chance(0.5) {
            random.range(0.0, 24.0)
        } else {
            random.range(76.0, 100.0)
        };
        weed(canvas, x, h + random.range(14.0, 22.0), random);
    }
    canvas.fill(
        &ridge(random, h + 17.0, 2.5, 4),
        Look::Down(Rgb(214, 204, 160), Rgb(160, 152, 132)),
    );
    for _ in 0..12 {
        let (x, y) = (random.range(0.0, 100.0), random.range(h + 22.0, 99.0));
        let r = random.range(0.6, 1.8);
        let stone = *random.pick(&[Rgb(130, 136, 142), Rgb(188, 130, 122), Rgb(230, 222, 196)]);
        canvas.fill(
            &ellipse(x, y, r * 1.4, r * 0.8),
            Look::Down(stone, stone.mix(Rgb(20, 50, 90), 0.3)),
        );
    }
    for _ in 0..14 {
        let (x, y, r) = (
            random.range(2.0, 98.0),
            random.range(3.0, h + 14.0),
            random.range(0.5, 1.5),
        );
        canvas.fill(&ellipse(x, y, r, r), Look::Clear(Rgb(220, 248, 255), 0.45));
    }
}

/// A waving ribbon of weed, its foot at (x, y).
fn weed(canvas: &mut Canvas, x: f32, y: f32, random: &mut Random) {
    let colour = *random.pick(&[Rgb(40, 148, 92), Rgb(28, 120, 96), Rgb(86, 160, 70)]);
    for lean in [-2.5, 0.0, 2.8] {
        let height = random.range(16.0, 28.0);
        let sway = random.range(-5.0, 5.0);
        let (tip_x, tip_y) = (x + lean * 2.0 + sway, y - height);
        let ribbon = path(&format!(
            "M {} {} C {} {} {} {} {tip_x} {tip_y}",
            x + lean,
            y + 6.0,
            x + lean - sway,
            y - height * 0.3,
            x + lean + sway * 1.4,
            y - height * 0.6
        ));
        canvas.stroke(&ribbon, 1.7, Look::Flat(colour));
    }
}
