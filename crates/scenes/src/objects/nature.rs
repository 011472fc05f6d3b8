//! Things that grow, and a house for them to grow around.

use crate::canvas::{Canvas, Look, Rgb, ellipse, path, rect};
use crate::colour::{Ink, ink};

pub(super) fn house(c: &mut Canvas, wall: &Ink) {
    c.fill(
        &rect(68.0, 10.0, 11.0, 26.0, 1.0),
        Look::Soft(ink(150, 96, 84)),
    );
    // A gable: the wall reaches up under the roof, so that most of what one sees is wall.
    c.fill(
        &path("M 10 44 L 50 14 L 90 44 L 90 97 L 10 97 Z"),
        Look::Soft(*wall),
    );
    let roof = path("M 50 5 L 98 42 L 92 50 L 50 18 L 8 50 L 2 42 Z");
    c.fill(&roof, Look::Soft(ink(112, 74, 70)));
    c.fill(
        &rect(41.0, 64.0, 18.0, 33.0, 4.0),
        Look::Soft(ink(124, 78, 50)),
    );
    c.fill(
        &ellipse(55.0, 82.0, 1.5, 1.5),
        Look::Flat(Rgb(250, 214, 110)),
    );
    window(c, 18.0, 58.0);
    window(c, 67.0, 58.0);
    c.fill(
        &ellipse(50.0, 38.0, 8.0, 8.0),
        Look::Flat(Rgb(252, 250, 244)),
    );
    c.fill(
        &ellipse(50.0, 38.0, 6.0, 6.0),
        Look::Down(Rgb(255, 240, 180), Rgb(250, 206, 110)),
    );
}

/// A lit window of four panes.
fn window(c: &mut Canvas, x: f32, y: f32) {
    let frame = Look::Flat(Rgb(252, 250, 244));
    c.fill(&rect(x, y, 15.0, 15.0, 1.0), frame);
    let pane = rect(x + 1.8, y + 1.8, 11.4, 11.4, 0.5);
    c.fill(&pane, Look::Down(Rgb(255, 240, 180), Rgb(250, 206, 110)));
    c.fill(&rect(x + 6.7, y + 2.0, 1.6, 11.0, 0.0), frame);
    c.fill(&rect(x + 2.0, y + 6.7, 11.0, 1.6, 0.0), frame);
}

pub(super) fn tree(c: &mut Canvas, leaves: &Ink) {
    let trunk = path("M 36 97 Q 44 88 45 58 L 55 58 Q 56 88 64 97 Z");
    c.fill(&trunk, Look::Soft(ink(122, 78, 50)));
    c.stroke(
        &path("M 50 70 Q 60 62 66 54"),
        4.0,
        Look::Flat(Rgb(112, 70, 46)),
    );
    for (cx, cy, rx, ry) in [
        (25.0, 50.0, 21.0, 18.0),
        (75.0, 50.0, 21.0, 18.0),
        (50.0, 26.0, 27.0, 23.0),
    ] {
        c.fill(&ellipse(cx, cy, rx, ry), Look::Soft(*leaves));
    }
    c.fill(&ellipse(50.0, 46.0, 31.0, 24.0), Look::Smooth(*leaves));
    for (x, y) in [
        (34.0, 30.0),
        (54.0, 20.0),
        (28.0, 48.0),
        (52.0, 42.0),
        (68.0, 36.0),
    ] {
        c.fill(&ellipse(x, y, 5.0, 3.2), Look::Clear(leaves.light, 0.9));
    }
    for (x, y) in [(44.0, 58.0), (66.0, 58.0), (80.0, 52.0), (60.0, 50.0)] {
        c.fill(&ellipse(x, y, 4.5, 2.8), Look::Clear(leaves.dark, 0.8));
    }
}

pub(super) fn mushroom(c: &mut Canvas, cap: &Ink) {
    let stem = path("M 37 56 Q 42 78 32 92 Q 50 102 68 92 Q 58 78 63 56 Z");
    c.fill(&stem, Look::Soft(ink(246, 232, 210)));
    c.fill(
        &path("M 34 63 Q 50 70 66 63 Q 62 74 50 74 Q 38 74 34 63 Z"),
        Look::Flat(Rgb(226, 206, 182)),
    );
    c.fill(
        &path("M 3 58 C 3 22 26 6 50 6 C 74 6 97 22 97 58 Q 74 67 50 67 Q 26 67 3 58 Z"),
        Look::Soft(*cap),
    );
    for (x, y, r) in [
        (32.0, 28.0, 7.5),
        (60.0, 20.0, 6.0),
        (76.0, 42.0, 7.0),
        (50.0, 46.0, 8.0),
        (18.0, 50.0, 5.0),
    ] {
        c.fill(&ellipse(x, y, r, r * 0.86), Look::Flat(Rgb(255, 250, 244)));
    }
}

pub(super) fn flower(c: &mut Canvas, petals: &Ink) {
    c.stroke(
        &path("M 50 40 Q 53 70 50 97"),
        4.6,
        Look::Flat(Rgb(60, 142, 62)),
    );
    c.fill(
        &path("M 51 92 Q 58 70 82 68 Q 80 90 51 92 Z"),
        Look::Soft(ink(84, 172, 74)),
    );
    c.fill(
        &path("M 50 84 Q 40 66 20 66 Q 24 84 50 84 Z"),
        Look::Soft(ink(84, 172, 74)),
    );
    // Eight directions a turn: (cos, sin) of multiples of 45°.
    const D: f32 = 0.707;
    let turn = [
        (1.0, 0.0),
        (0.0, 1.0),
        (-1.0, 0.0),
        (0.0, -1.0),
        (D, D),
        (-D, D),
        (-D, -D),
        (D, -D),
    ];
    for (x, y) in turn {
        c.fill(
            &ellipse(50.0 + x * 21.0, 35.0 + y * 21.0, 12.5, 12.5),
            Look::Soft(*petals),
        );
    }
    let centre = if petals.base.0 > 240 && petals.base.2 < 100 {
        ink(132, 78, 40)
    } else {
        ink(252, 200, 50)
    };
    c.fill(&ellipse(50.0, 35.0, 13.0, 13.0), Look::Soft(centre));
}

pub(super) fn apple(c: &mut Canvas, skin: &Ink) {
    let body = path(
        "M 50 30 C 34 14 4 22 6 56 C 8 84 28 98 40 96 Q 46 93 50 94 Q 54 93 60 96 \
         C 72 98 92 84 94 56 C 96 22 66 14 50 30 Z",
    );
    c.fill(&body, Look::Soft(*skin));
    c.fill(
        &path("M 38 27 Q 50 36 62 27 Q 56 39 50 39 Q 44 39 38 27 Z"),
        Look::Clear(skin.line, 0.55),
    );
    c.stroke(
        &path("M 50 33 Q 49 18 55 8"),
        4.4,
        Look::Flat(Rgb(104, 66, 40)),
    );
    c.fill(
        &path("M 54 20 Q 62 2 86 8 Q 78 26 54 20 Z"),
        Look::Soft(ink(92, 178, 70)),
    );
    c.gloss(27.0, 46.0, 8.0, 14.0);
}
