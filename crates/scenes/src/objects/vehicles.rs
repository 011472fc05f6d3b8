//! Things that drive, sail and fly.

use crate::canvas::{Canvas, Look, Rgb, ellipse, path, rect};
use crate::colour::{Ink, ink};

const GLASS: (Rgb, Rgb) = (Rgb(226, 244, 252), Rgb(150, 200, 226));

fn wheel(c: &mut Canvas, cx: f32, cy: f32, r: f32) {
    c.fill(&ellipse(cx, cy, r, r), Look::Flat(Rgb(36, 34, 44)));
    c.fill(
        &ellipse(cx, cy, r * 0.5, r * 0.5),
        Look::Flat(Rgb(196, 200, 210)),
    );
    c.fill(
        &ellipse(cx, cy, r * 0.18, r * 0.18),
        Look::Flat(Rgb(110, 114, 126)),
    );
}

pub(super) fn car(c: &mut Canvas, ink: &Ink) {
    let body = path(
        "M 3 84 Q 1 66 14 63 L 24 61 Q 34 43 48 42 L 62 42 Q 76 43 84 61 \
         Q 97 63 98 75 L 98 84 Q 98 88 93 88 L 8 88 Q 3 88 3 84 Z",
    );
    c.fill(&body, Look::Soft(*ink));
    c.fill(
        &path("M 32 61 Q 39 48 48 47 L 53 47 L 53 61 Z"),
        Look::Down(GLASS.0, GLASS.1),
    );
    c.fill(
        &path("M 58 47 L 62 47 Q 71 48 77 61 L 58 61 Z"),
        Look::Down(GLASS.0, GLASS.1),
    );
    c.stroke(
        &path("M 55.5 63 L 55.5 84"),
        1.4,
        Look::Clear(ink.line, 0.55),
    );
    c.stroke(&path("M 60 68 L 65 68"), 1.8, Look::Clear(ink.line, 0.8));
    c.stroke(
        &path("M 15 66 Q 30 62 50 64"),
        1.8,
        Look::Clear(Rgb(255, 255, 255), 0.5),
    );
    c.fill(
        &ellipse(93.0, 70.0, 3.6, 4.2),
        Look::Flat(Rgb(255, 240, 170)),
    );
    c.fill(&ellipse(5.5, 71.0, 2.6, 3.6), Look::Flat(Rgb(190, 40, 44)));
    for cx in [25.0, 76.0] {
        c.fill(&ellipse(cx, 85.0, 13.0, 12.5), Look::Clear(ink.line, 0.8));
        wheel(c, cx, 86.0, 11.0);
    }
}

pub(super) fn bus(c: &mut Canvas, ink: &Ink) {
    c.fill(&rect(3.0, 32.0, 94.0, 56.0, 8.0), Look::Soft(*ink));
    c.fill(
        &rect(3.0, 66.0, 94.0, 4.0, 0.0),
        Look::Clear(Rgb(255, 255, 255), 0.85),
    );
    for x in [9.0, 28.0, 47.0] {
        c.fill(
            &rect(x, 41.0, 15.0, 17.0, 3.0),
            Look::Down(GLASS.0, GLASS.1),
        );
    }
    c.fill(
        &rect(67.0, 42.0, 11.0, 42.0, 2.5),
        Look::Down(GLASS.0, GLASS.1),
    );
    c.stroke(
        &path("M 72.5 43 L 72.5 83"),
        1.2,
        Look::Clear(ink.line, 0.7),
    );
    c.fill(
        &path("M 83 41 L 94 41 Q 97 41 97 45 L 97 60 L 83 60 Z"),
        Look::Down(GLASS.0, GLASS.1),
    );
    c.fill(
        &ellipse(95.0, 77.0, 2.6, 3.2),
        Look::Flat(Rgb(255, 240, 170)),
    );
    for cx in [24.0, 82.0] {
        wheel(c, cx, 86.5, 10.5);
    }
}

pub(super) fn boat(c: &mut Canvas, ink: &Ink) {
    c.stroke(&path("M 48 6 L 48 76"), 3.0, Look::Flat(Rgb(122, 82, 56)));
    c.fill(&path("M 51 8 Q 86 36 88 69 L 51 69 Z"), Look::Soft(*ink));
    c.fill(
        &path("M 45 18 Q 24 42 14 69 L 45 69 Z"),
        Look::Soft(Ink::new(Rgb(250, 248, 244), 0.14)),
    );
    c.fill(&path("M 48 4 L 62 8 L 48 13 Z"), Look::Flat(ink.base));
    c.fill(
        &path("M 5 74 L 96 74 Q 91 95 76 97 L 26 97 Q 10 94 5 74 Z"),
        Look::Soft(*ink),
    );
    c.stroke(&path("M 6 76 L 95 76"), 3.2, Look::Flat(Rgb(250, 246, 238)));
}

pub(super) fn rocket(c: &mut Canvas, body: &Ink) {
    let flame = ink(255, 176, 40);
    c.fill(
        &path("M 38 74 Q 34 88 50 98 Q 66 88 62 74 Z"),
        Look::Smooth(flame),
    );
    c.fill(
        &path("M 44 74 Q 42 84 50 91 Q 58 84 56 74 Z"),
        Look::Flat(Rgb(255, 240, 160)),
    );
    let fin = Ink::new(body.dark, 0.24);
    c.fill(
        &path("M 32 48 Q 12 58 14 82 Q 24 72 36 72 Z"),
        Look::Soft(fin),
    );
    c.fill(
        &path("M 68 48 Q 88 58 86 82 Q 76 72 64 72 Z"),
        Look::Soft(fin),
    );
    c.fill(
        &path("M 50 2 Q 76 24 69 74 Q 50 80 31 74 Q 24 24 50 2 Z"),
        Look::Soft(*body),
    );
    c.stroke(
        &path("M 31.5 66 Q 50 71 68.5 66"),
        2.4,
        Look::Clear(body.line, 0.5),
    );
    c.fill(
        &ellipse(50.0, 38.0, 11.5, 11.5),
        Look::Flat(Rgb(236, 238, 244)),
    );
    c.fill(
        &ellipse(50.0, 38.0, 8.5, 8.5),
        Look::Down(Rgb(120, 190, 240), Rgb(40, 90, 170)),
    );
    c.fill(
        &ellipse(47.0, 35.0, 2.4, 2.4),
        Look::Flat(Rgb(255, 255, 255)),
    );
    c.gloss(40.0, 26.0, 5.0, 13.0);
}

pub(super) fn airplane(c: &mut Canvas, ink: &Ink) {
    let wing = Ink::new(ink.dark, 0.16);
    c.fill(&path("M 46 48 L 36 18 L 46 18 L 68 48 Z"), Look::Soft(wing));
    c.fill(&path("M 4 20 L 15 20 L 32 46 L 12 50 Z"), Look::Soft(*ink));
    let body =
        path("M 6 46 Q 14 42 36 40 L 74 38 Q 98 41 98 54 Q 96 66 72 67 L 38 67 Q 10 64 6 46 Z");
    c.fill(&body, Look::Soft(*ink));
    c.fill(
        &path("M 79 41 Q 91 43 94 50 L 80 50 Z"),
        Look::Down(GLASS.0, GLASS.1),
    );
    for x in [36.0, 46.0, 56.0, 66.0] {
        c.fill(&ellipse(x, 48.0, 3.0, 3.4), Look::Flat(GLASS.0));
    }
    c.fill(&path("M 40 57 L 66 57 L 40 90 L 27 90 Z"), Look::Soft(wing));
}
