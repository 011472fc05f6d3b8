//! The finished picture in the terminal, for those that can show one.
//!
//! What a terminal can do is read from the environment. Asking it would be surer, but one that does not answer (a log, a
//! recorder, a test) would have the program wait for ever.

use std::io::{IsTerminal, Write, stderr, stdout};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use velatura::image::Image;

/// The most text rows that a picture takes, so that the command above it stays in sight.
const ROWS: usize = 20;
/// The most characters of a row that it takes; every terminal has as many.
const COLUMNS: usize = 80;
/// Kitty takes its data in pieces of at most this many characters.
const KITTY_PIECE: usize = 4096;

/// How a terminal wants its pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    /// Kitty's graphics protocol, which Ghostty and Konsole speak too.
    Kitty,
    /// iTerm2's inline images, which WezTerm and mintty speak too.
    Iterm,
    /// Two pixels per character, by its colour and its background's.
    HalfBlocks,
}

/// Shows `image` on standard output where that is a terminal that can. A picture that cannot be shown is no reason to
/// fail: it has been saved already.
pub fn on_terminal(image: &Image) {
    if !stdout().is_terminal() {
        return;
    }
    if let Some(text) = in_terminal(image) {
        let _ = writeln!(stdout(), "{text}");
    }
}

/// What shows `image` on standard error; nothing where that is no terminal or one that cannot.
pub fn on_standard_error(image: &Image) -> Option<String> {
    stderr().is_terminal().then(|| in_terminal(image)).flatten()
}

/// What shows `image` in this terminal; nothing in one that cannot.
fn in_terminal(image: &Image) -> Option<String> {
    let rows = rows(image);
    match protocol(|name| std::env::var(name).ok())? {
        Protocol::HalfBlocks => Some(half_blocks(image)),
        Protocol::Kitty => Some(kitty(&image.encode_png(&[]).ok()?, rows)),
        Protocol::Iterm => Some(iterm(&image.encode_png(&[]).ok()?, rows)),
    }
}

/// The rows that the picture takes: [`ROWS`], or fewer where it would be wider than [`COLUMNS`]. A character is about
/// twice as high as it is wide.
fn rows(image: &Image) -> usize {
    let rows = (COLUMNS * image.height()).div_ceil(2 * image.width());
    rows.clamp(1, ROWS)
}

/// What the environment says of the terminal; none for one that shows no colours, or a person who wants none
/// (<https://no-color.org>).
fn protocol(variable: impl Fn(&str) -> Option<String>) -> Option<Protocol> {
    let value = |name| variable(name).unwrap_or_default();
    let (term, program) = (value("TERM"), value("TERM_PROGRAM"));
    if term.is_empty() || term == "dumb" || !value("NO_COLOR").is_empty() {
        return None;
    }
    // Multiplexers swallow what they do not know, but pass colours on.
    let inside =
        !value("TMUX").is_empty() || term.starts_with("screen") || term.starts_with("tmux");
    if !inside {
        let kitty = ["xterm-kitty", "xterm-ghostty"].contains(&term.as_str())
            || program == "ghostty"
            || !value("KITTY_WINDOW_ID").is_empty();
        if kitty {
            return Some(Protocol::Kitty);
        }
        let iterm = ["iTerm.app", "WezTerm", "mintty"].contains(&program.as_str());
        if iterm {
            return Some(Protocol::Iterm);
        }
    }
    ["truecolor", "24bit"]
        .contains(&value("COLORTERM").as_str())
        .then_some(Protocol::HalfBlocks)
}

/// Kitty's escape codes for a PNG file (<https://sw.kovidgoyal.net/kitty/graphics-protocol/>): transmit and display,
/// scaled to as many rows.
fn kitty(png: &[u8], rows: usize) -> String {
    let data = BASE64.encode(png);
    let pieces = data.as_bytes().chunks(KITTY_PIECE);
    let last = pieces.len().saturating_sub(1);
    let mut text = String::new();
    for (i, piece) in pieces.enumerate() {
        let control = if i == 0 {
            format!("a=T,f=100,q=2,r={rows},")
        } else {
            String::new()
        };
        let more = u8::from(i != last);
        text.push_str(&format!(
            "\x1b_G{control}m={more};{}\x1b\\",
            String::from_utf8_lossy(piece)
        ));
    }
    text
}

/// iTerm2's escape code for a picture file (<https://iterm2.com/documentation-images.html>).
fn iterm(png: &[u8], rows: usize) -> String {
    format!(
        "\x1b]1337;File=inline=1;size={};height={rows}:{}\x07",
        png.len(),
        BASE64.encode(png)
    )
}

/// Upper half blocks: the upper pixel is the character's colour, the lower one its background's.
fn half_blocks(image: &Image) -> String {
    let scale = (COLUMNS as f64 / image.width() as f64)
        .min(2.0 * rows(image) as f64 / image.height() as f64)
        .min(1.0);
    let side = |side: usize| ((side as f64 * scale).round() as usize).max(1);
    let small = image.resized(
        side(image.width()),
        side(image.height()).next_multiple_of(2),
    );
    let row = 3 * small.width();
    let mut text = String::new();
    for pair in small.pixels().chunks_exact(2 * row) {
        let (upper, lower) = pair.split_at(row);
        for (above, below) in upper.chunks_exact(3).zip(lower.chunks_exact(3)) {
            text.push_str(&format!(
                "\x1b[38;2;{};{};{};48;2;{};{};{}m▀",
                above[0], above[1], above[2], below[0], below[1], below[2]
            ));
        }
        text.push_str("\x1b[0m\n");
    }
    text.pop();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_says_what_a_terminal_can() {
        let found = |pairs: &'static [(&str, &str)]| {
            protocol(move |name| {
                let pair = pairs.iter().find(|pair| pair.0 == name);
                pair.map(|pair| pair.1.to_string())
            })
        };
        assert_eq!(found(&[("TERM", "xterm-kitty")]), Some(Protocol::Kitty));
        let wezterm = &[("TERM", "xterm-256color"), ("TERM_PROGRAM", "WezTerm")];
        assert_eq!(found(wezterm), Some(Protocol::Iterm));
        let colours = &[("TERM", "xterm-256color"), ("COLORTERM", "truecolor")];
        assert_eq!(found(colours), Some(Protocol::HalfBlocks));
        let inside = &[
            ("TERM", "tmux-256color"),
            ("KITTY_WINDOW_ID", "1"),
            ("COLORTERM", "truecolor"),
        ];
        assert_eq!(found(inside), Some(Protocol::HalfBlocks));
        assert_eq!(found(&[("TERM", "xterm")]), None);
        assert_eq!(found(&[("TERM", "dumb"), ("COLORTERM", "truecolor")]), None);
        assert_eq!(found(&[("TERM", "xterm-kitty"), ("NO_COLOR", "1")]), None);
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn every_protocol_carries_the_picture() {
        let image = Image::new(2, 2, vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(
            half_blocks(&image),
            "\x1b[38;2;1;2;3;48;2;7;8;9m▀\x1b[38;2;4;5;6;48;2;10;11;12m▀\x1b[0m"
        );
        let large = half_blocks(&Image::new(512, 768, vec![0; 512 * 768 * 3]));
        assert_eq!(large.lines().count(), ROWS);
        // A wide grid stays within the columns.
        let wide = half_blocks(&Image::new(1038, 258, vec![0; 1038 * 258 * 3]));
        let row = wide.lines().next().unwrap();
        assert_eq!(row.matches('▀').count(), COLUMNS);

        // Joined again, the pieces are the file, and only the last says so.
        let file: Vec<u8> = (0..10_000u32).map(|i| (i * 7) as u8).collect();
        let text = kitty(&file, ROWS);
        let pieces: Vec<&str> = text.split_terminator("\x1b\\").collect();
        assert_eq!(pieces.len(), 4);
        let data: String = pieces
            .iter()
            .filter_map(|p| Some(p.split_once(';')?.1))
            .collect();
        assert_eq!(BASE64.decode(data).unwrap(), file);
        assert!(pieces[0].starts_with("\x1b_Ga=T,") && pieces[0].contains("m=1;"));
        assert!(pieces[3].starts_with("\x1b_Gm=0;"));
        assert!(iterm(&file, ROWS).contains(&BASE64.encode(&file)));
    }
}
