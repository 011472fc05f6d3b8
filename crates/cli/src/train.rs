//! `velatura train`.

use anyhow::Result;
use velatura_train::{Ending, Options};

use crate::args::TrainArgs;
use crate::interrupt;

pub fn run(args: &TrainArgs) -> Result<()> {
    interrupt::end_when_asked_twice();
    let options = Options {
        resume: args.resume,
        threads: args.threads.map(usize::from),
        stop: &interrupt::asked,
    };
    let outcome = velatura_train::train(&args.config, &options)?;
    match outcome.ending {
        Ending::Finished => eprintln!("done: {}", outcome.run.display()),
        Ending::Stopped => eprintln!(
            "stopped after step {} and saved; go on with: velatura train {} --resume",
            outcome.step,
            args.config.display()
        ),
    }
    Ok(())
}
