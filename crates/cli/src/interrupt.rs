//! Ctrl-C. Every file is written under a temporary name, which the program removes when it ends by itself; so the
//! first Ctrl-C only asks the work to end, and a second one ends the program at once.

use std::sync::atomic::{AtomicBool, Ordering};

/// The exit status of a program that was interrupted, as shells have it: 128 + SIGINT.
pub const STATUS: i32 = 130;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Catches Ctrl-C (and the signals that ask a program to end) from now on.
pub fn install() {
    let handler = || {
        if ASKED.swap(true, Ordering::Relaxed) {
            std::process::exit(STATUS);
        }
        eprintln!("stopping after this step; once more to stop at once");
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        eprintln!("note: Ctrl-C will not be caught: {error}");
    }
}

/// Whether someone has asked the program to stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
