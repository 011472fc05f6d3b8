//! Animals.

use crate::canvas::{Canvas, Look, Rgb, ellipse, path};
use crate::colour::{Ink, ink};

pub(super) fn fish(c: &mut Canvas, skin: &Ink) {
    let fin = Ink::new(skin.dark, 0.16);
    c.fill(
        &path("M 66 52 Q 84 30 98 28 Q 90 52 98 78 Q 84 74 66 54 Z"),
        Look::Soft(fin),
    );
    c.fill(
        &path("M 32 34 Q 44 10 70 18 Q 62 26 64 38 Z"),
        Look::Soft(fin),
    );
    c.fill(
        &path("M 40 72 Q 46 90 62 88 Q 58 80 58 70 Z"),
        Look::Soft(fin),
    );
    c.fill(
        &path("M 3 54 C 10 28 44 20 76 50 C 80 53 80 55 76 57 C 46 86 12 80 3 54 Z"),
        Look::Soft(*skin),
    );
    for x in [40.0, 54.0] {
        c.stroke(
            &path(&format!("M {x} 35 Q {} 53 {x} 71", x + 8.0)),
            3.2,
            Look::Clear(skin.light, 0.85),
        );
    }
    c.fill(
        &path("M 34 56 Q 46 52 50 62 Q 42 68 34 56 Z"),
        Look::Flat(fin.base),
    );
    c.fill(
        &ellipse(20.0, 47.0, 7.5, 8.0),
        Look::Flat(Rgb(255, 255, 255)),
    );
    c.eye(19.0, 47.5, 4.4);
    c.stroke(
        &path("M 6 60 Q 10 64 16 62"),
        2.0,
        Look::Clear(skin.line, 0.9),
    );
}

pub(super) fn bird(c: &mut Canvas, feathers: &Ink) {
    let wing = Ink::new(feathers.dark, 0.14);
    c.fill(
        &path("M 46 50 Q 44 16 74 6 Q 78 30 62 54 Z"),
        Look::Soft(wing),
    );
    c.fill(
        &path("M 28 58 Q 10 52 2 60 L 12 66 L 4 74 Q 20 80 32 70 Z"),
        Look::Soft(wing),
    );
    c.fill(
        &path("M 22 66 C 26 44 56 48 66 40 C 84 34 94 60 78 74 C 62 92 30 90 22 66 Z"),
        Look::Soft(*feathers),
    );
    c.fill(&ellipse(75.0, 44.0, 16.0, 15.0), Look::Soft(*feathers));
    c.fill(&ellipse(68.0, 55.0, 12.0, 8.0), Look::Smooth(*feathers));
    c.fill(
        &path("M 89 40 L 99 46 L 88 51 Z"),
        Look::Soft(ink(252, 176, 40)),
    );
    c.eye(79.0, 41.0, 3.4);
    c.fill(
        &path("M 58 58 Q 34 44 14 18 Q 8 52 30 70 Q 48 78 58 58 Z"),
        Look::Soft(wing),
    );
    c.stroke(
        &path("M 22 36 Q 30 54 44 62"),
        1.6,
        Look::Clear(feathers.light, 0.6),
    );
}

pub(super) fn duck(c: &mut Canvas, feathers: &Ink) {
    c.fill(
        &path("M 4 54 Q 16 62 28 60 L 74 58 Q 96 66 88 84 Q 80 97 50 97 Q 12 97 4 54 Z"),
        Look::Soft(*feathers),
    );
    c.fill(&ellipse(70.0, 34.0, 21.0, 21.0), Look::Soft(*feathers));
    c.fill(&ellipse(68.0, 58.0, 19.0, 14.0), Look::Smooth(*feathers));
    c.fill(
        &path("M 88 32 Q 100 34 98 40 Q 96 46 86 44 Z"),
        Look::Soft(ink(250, 140, 34)),
    );
    c.eye(76.0, 29.0, 3.8);
    let wing = Ink::new(feathers.dark, 0.12);
    c.fill(
        &path("M 22 66 Q 40 60 60 70 Q 56 88 38 88 Q 22 84 22 66 Z"),
        Look::Soft(wing),
    );
}

pub(super) fn cat(c: &mut Canvas, fur: &Ink) {
    c.stroke(
        &path("M 66 90 Q 94 92 88 66 Q 86 56 92 50"),
        8.0,
        Look::Flat(fur.dark),
    );
    c.fill(
        &path("M 28 97 C 20 70 34 52 50 52 C 66 52 80 70 72 97 Z"),
        Look::Soft(*fur),
    );
    let pale = fur.light.mix(Rgb(255, 250, 244), 0.5);
    c.fill(&ellipse(50.0, 78.0, 11.0, 16.0), Look::Clear(pale, 0.8));
    for x in [40.0, 60.0] {
        c.fill(&ellipse(x, 94.0, 8.0, 4.5), Look::Soft(*fur));
    }
    c.fill(&path("M 22 38 L 20 5 Q 34 8 44 20 Z"), Look::Soft(*fur));
    c.fill(&path("M 78 38 L 80 5 Q 66 8 56 20 Z"), Look::Soft(*fur));
    c.fill(
        &path("M 26 28 L 24 12 Q 32 14 37 21 Z"),
        Look::Flat(Rgb(244, 160, 170)),
    );
    c.fill(
        &path("M 74 28 L 76 12 Q 68 14 63 21 Z"),
        Look::Flat(Rgb(244, 160, 170)),
    );
    c.fill(&ellipse(50.0, 37.0, 32.0, 24.0), Look::Soft(*fur));
    for x in [38.0, 62.0] {
        c.fill(&ellipse(x, 35.0, 6.4, 7.2), Look::Flat(Rgb(196, 226, 92)));
        c.fill(&ellipse(x, 35.0, 2.8, 6.2), Look::Flat(Rgb(24, 22, 30)));
        c.fill(
            &ellipse(x - 1.6, 32.0, 1.6, 1.8),
            Look::Flat(Rgb(255, 255, 255)),
        );
    }
    c.fill(
        &path("M 46 45 L 54 45 L 50 49.5 Z"),
        Look::Flat(Rgb(232, 116, 134)),
    );
    c.stroke(
        &path("M 50 49 Q 46 55 41 52"),
        1.5,
        Look::Clear(fur.line, 0.9),
    );
    c.stroke(
        &path("M 50 49 Q 54 55 59 52"),
        1.5,
        Look::Clear(fur.line, 0.9),
    );
    let whisker = Look::Clear(Rgb(255, 255, 255), 0.7);
    for d in [
        "M 30 46 L 10 42",
        "M 30 49 L 11 51",
        "M 70 46 L 90 42",
        "M 70 49 L 89 51",
    ] {
        c.stroke(&path(d), 1.1, whisker);
    }
}

pub(super) fn rabbit(c: &mut Canvas, fur: &Ink) {
    c.fill(
        &ellipse(76.0, 86.0, 9.0, 8.5),
        Look::Soft(Ink::new(Rgb(252, 250, 248), 0.14)),
    );
    c.fill(
        &path("M 26 97 C 18 72 34 58 50 58 C 66 58 84 72 76 97 Z"),
        Look::Soft(*fur),
    );
    for x in [38.0, 62.0] {
        c.fill(&ellipse(x, 93.0, 9.0, 4.8), Look::Soft(*fur));
    }
    for (x, lean) in [(38.0, -5.0), (62.0, 5.0)] {
        let ear = |w: f32, top: f32, foot: f32| {
            path(&format!(
                "M {} {foot} Q {} {top} {} {top} Q {} {top} {} {foot} Z",
                x - w,
                x + lean - w * 1.3,
                x + lean,
                x + lean + w * 1.3,
                x + w
            ))
        };
        c.fill(&ear(8.5, 2.0, 42.0), Look::Soft(*fur));
        c.fill(&ear(4.2, 9.0, 38.0), Look::Flat(Rgb(246, 172, 182)));
    }
    c.fill(&ellipse(50.0, 50.0, 25.0, 20.0), Look::Soft(*fur));
    c.eye(40.0, 47.0, 4.0);
    c.eye(60.0, 47.0, 4.0);
    c.fill(
        &ellipse(50.0, 54.0, 3.2, 2.3),
        Look::Flat(Rgb(232, 116, 134)),
    );
    c.stroke(
        &path("M 50 56 Q 47 61 43 59"),
        1.4,
        Look::Clear(fur.line, 0.9),
    );
    c.stroke(
        &path("M 50 56 Q 53 61 57 59"),
        1.4,
        Look::Clear(fur.line, 0.9),
    );
}

pub(super) fn butterfly(c: &mut Canvas, wing: &Ink) {
    let lower = Ink::new(wing.dark, 0.14);
    c.fill(
        &path("M 48 54 C 34 56 14 62 18 80 C 22 98 44 88 49 62 Z"),
        Look::Soft(lower),
    );
    c.fill(
        &path("M 52 54 C 66 56 86 62 82 80 C 78 98 56 88 51 62 Z"),
        Look::Soft(lower),
    );
    c.fill(
        &path("M 48 56 C 40 20 10 4 3 20 C -2 40 20 62 48 56 Z"),
        Look::Soft(*wing),
    );
    c.fill(
        &path("M 52 56 C 60 20 90 4 97 20 C 102 40 80 62 52 56 Z"),
        Look::Soft(*wing),
    );
    for (x, y, r) in [
        (18.0, 26.0, 6.5),
        (82.0, 26.0, 6.5),
        (30.0, 76.0, 4.5),
        (70.0, 76.0, 4.5),
    ] {
        c.fill(&ellipse(x, y, r, r), Look::Clear(Rgb(255, 250, 236), 0.9));
    }
    c.fill(&ellipse(50.0, 58.0, 4.2, 24.0), Look::Flat(Rgb(52, 38, 52)));
    c.fill(&ellipse(50.0, 33.0, 5.2, 5.2), Look::Flat(Rgb(52, 38, 52)));
    c.stroke(
        &path("M 48 30 Q 44 16 36 12"),
        1.8,
        Look::Flat(Rgb(52, 38, 52)),
    );
    c.stroke(
        &path("M 52 30 Q 56 16 64 12"),
        1.8,
        Look::Flat(Rgb(52, 38, 52)),
    );
}
