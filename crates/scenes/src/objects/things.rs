//! Things people make.

use crate::canvas::{Canvas, Look, Rgb, ellipse, path, polygon, rect};
use crate::colour::{Ink, ink};

pub(super) fn ball(c: &mut Canvas, skin: &Ink) {
    c.fill(&ellipse(50.0, 50.0, 46.0, 46.0), Look::Soft(*skin));
    let band = if skin.base.0.min(skin.base.1).min(skin.base.2) > 230 {
        Rgb(214, 60, 60)
    } else {
        Rgb(252, 250, 246)
    };
    c.fill(
        &path("M 5 42 Q 50 66 95 42 L 96 53 Q 50 79 4 53 Z"),
        Look::Clear(band, 0.95),
    );
    c.gloss(34.0, 24.0, 14.0, 9.0);
}

pub(super) fn balloon(c: &mut Canvas, skin: &Ink) {
    c.stroke(
        &path("M 50 74 Q 42 82 50 88 Q 56 93 51 98"),
        1.5,
        Look::Flat(Rgb(240, 236, 230)),
    );
    c.fill(&path("M 50 66 L 57 76 L 43 76 Z"), Look::Soft(*skin));
    c.fill(
        &path(
            "M 50 2 C 76 2 84 24 80 40 C 75 58 60 70 50 71 C 40 70 25 58 20 40 C 16 24 24 2 50 2 Z",
        ),
        Look::Soft(*skin),
    );
    c.gloss(37.0, 21.0, 8.0, 12.0);
}

pub(super) fn star(c: &mut Canvas, skin: &Ink) {
    // Outer and inner radius 50 and 25 around (50, 53), from the top, clockwise.
    let points = [
        (50.0, 5.0),
        (63.5, 34.0),
        (96.0, 38.0),
        (72.0, 60.0),
        (78.5, 92.0),
        (50.0, 76.0),
        (21.5, 92.0),
        (28.0, 60.0),
        (4.0, 38.0),
        (36.5, 34.0),
    ];
    c.stroke(&polygon(&points), 8.0, Look::Flat(skin.dark));
    c.stroke(&polygon(&points), 5.0, Look::Flat(skin.base));
    c.fill(&polygon(&points), Look::Smooth(*skin));
    c.eye(41.0, 50.0, 3.6);
    c.eye(59.0, 50.0, 3.6);
    c.stroke(&path("M 43 60 Q 50 67 57 60"), 2.4, Look::Flat(skin.line));
}

pub(super) fn heart(c: &mut Canvas, skin: &Ink) {
    let shape =
        path("M 50 95 C 18 70 2 48 4 29 C 6 4 40 2 50 26 C 60 2 94 4 96 29 C 98 48 82 70 50 95 Z");
    c.fill(&shape, Look::Soft(*skin));
    c.gloss(27.0, 27.0, 10.0, 8.0);
}

pub(super) fn umbrella(c: &mut Canvas, cloth: &Ink) {
    c.stroke(
        &path("M 50 6 L 50 86 Q 50 96 60 96 Q 69 96 69 87"),
        4.0,
        Look::Flat(Rgb(112, 76, 52)),
    );
    c.fill(&path("M 2 56 C 4 24 24 8 50 8 C 76 8 96 24 98 56 Q 86 46 74 56 Q 62 46 50 56 Q 38 46 26 56 Q 14 46 2 56 Z"), Look::Soft(*cloth));
    for d in [
        "M 50 9 Q 28 22 26 55",
        "M 50 9 L 50 55",
        "M 50 9 Q 72 22 74 55",
    ] {
        c.stroke(&path(d), 1.4, Look::Clear(cloth.line, 0.5));
    }
}

pub(super) fn cup(c: &mut Canvas, glaze: &Ink) {
    for d in [
        "M 36 22 Q 30 14 36 8 Q 41 3 37 0",
        "M 54 22 Q 48 14 54 8 Q 59 3 55 0",
    ] {
        c.stroke(&path(d), 2.4, Look::Clear(Rgb(255, 255, 255), 0.6));
    }
    c.stroke(
        &path("M 74 46 Q 98 42 95 60 Q 92 76 70 76"),
        8.0,
        Look::Flat(glaze.dark),
    );
    c.fill(
        &path("M 10 34 L 80 34 Q 82 84 68 97 L 22 97 Q 8 84 10 34 Z"),
        Look::Soft(*glaze),
    );
    c.fill(&ellipse(45.0, 34.0, 35.0, 8.5), Look::Soft(*glaze));
    c.fill(&ellipse(45.0, 35.0, 29.0, 5.8), Look::Flat(Rgb(92, 54, 36)));
    c.gloss(23.0, 62.0, 5.0, 18.0);
}

pub(super) fn snowman(c: &mut Canvas, snow: &Ink) {
    c.stroke(
        &path("M 30 54 L 8 40 M 14 44 L 8 50"),
        2.6,
        Look::Flat(Rgb(104, 70, 48)),
    );
    c.stroke(
        &path("M 70 54 L 92 40 M 86 44 L 92 50"),
        2.6,
        Look::Flat(Rgb(104, 70, 48)),
    );
    c.fill(&ellipse(50.0, 77.0, 28.0, 21.0), Look::Soft(*snow));
    c.fill(&ellipse(50.0, 53.0, 22.0, 17.0), Look::Soft(*snow));
    c.fill(&ellipse(50.0, 32.0, 17.0, 15.5), Look::Soft(*snow));
    c.fill(
        &path("M 33 43 Q 50 52 67 43 L 67 49 Q 50 58 33 49 Z"),
        Look::Soft(ink(222, 52, 52)),
    );
    c.fill(
        &path("M 60 48 L 69 50 L 67 66 L 60 64 Z"),
        Look::Soft(ink(222, 52, 52)),
    );
    c.fill(
        &rect(38.0, 2.0, 24.0, 17.0, 2.0),
        Look::Soft(ink(52, 50, 64)),
    );
    c.fill(
        &rect(30.0, 17.0, 40.0, 4.6, 2.0),
        Look::Soft(ink(52, 50, 64)),
    );
    c.eye(44.0, 29.0, 2.4);
    c.eye(56.0, 29.0, 2.4);
    c.fill(
        &path("M 48 33 L 70 37 L 49 39 Z"),
        Look::Soft(ink(250, 140, 40)),
    );
    for y in [60.0, 72.0, 82.0] {
        c.fill(&ellipse(50.0, y, 2.2, 2.2), Look::Flat(Rgb(52, 50, 64)));
    }
}

pub(super) fn kite(c: &mut Canvas, cloth: &Ink) {
    c.stroke(
        &path("M 50 70 Q 36 78 50 86 Q 62 92 52 99"),
        1.8,
        Look::Flat(Rgb(250, 246, 238)),
    );
    c.fill(
        &polygon(&[(50.0, 2.0), (84.0, 32.0), (50.0, 72.0), (16.0, 32.0)]),
        Look::Soft(*cloth),
    );
    let pale = cloth.light;
    c.fill(
        &polygon(&[(50.0, 2.0), (84.0, 32.0), (50.0, 32.0)]),
        Look::Clear(pale, 0.8),
    );
    c.fill(
        &polygon(&[(50.0, 32.0), (50.0, 72.0), (16.0, 32.0)]),
        Look::Clear(cloth.dark, 0.6),
    );
    c.stroke(
        &path("M 50 2 L 50 72 M 16 32 L 84 32"),
        1.6,
        Look::Clear(cloth.line, 0.7),
    );
    for (x, y) in [(43.0, 78.0), (56.0, 90.0)] {
        let bow = [
            (x - 8.0, y - 4.0),
            (x, y),
            (x + 8.0, y - 4.0),
            (x + 8.0, y + 4.0),
            (x, y),
            (x - 8.0, y + 4.0),
        ];
        c.fill(&polygon(&bow), Look::Flat(cloth.base));
    }
}
