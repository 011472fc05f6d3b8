//! Ctrl-C. Files appear whole or not at all, but the temporary ones must not stay behind: so the program is never
//! ended while it writes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The exit status of a program that was interrupted, as shells have it: 128 + SIGINT.
pub const STATUS: i32 = 130;

static ASKED: AtomicBool = AtomicBool::new(false);
static WRITING: Mutex<()> = Mutex::new(());

/// From now on Ctrl-C ends the program at once, or when the file being written is whole.
pub fn end_at_once() {
    install(|| end("cancelled; nothing was written"));
}

/// From now on the first Ctrl-C is only remembered, for [`asked`], and `told` says what becomes of it; the second ends the
/// program.
pub fn end_when_asked_twice(told: &'static str) {
    install(move || {
        if ASKED.swap(true, Ordering::Relaxed) {
            end("stopped");
        }
        velatura_train::say(told);
    });
}

/// Whether someone has asked the program to stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// While the result lives, Ctrl-C waits.
pub fn writing() -> MutexGuard<'static, ()> {
    WRITING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn install(handler: impl FnMut() + Send + 'static) {
    if let Err(error) = ctrlc::set_handler(handler) {
        eprintln!("note: Ctrl-C cannot be caught here: {error}");
    }
}

fn end(message: &str) -> ! {
    let _guard = writing();
    eprintln!("\n{message}");
    std::process::exit(STATUS)
}
