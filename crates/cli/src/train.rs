//! `velatura train`.

use anyhow::Result;
use velatura_train::{Ending, Options};

use crate::args::TrainArgs;
use crate::{interrupt, show};

pub fn run(args: &TrainArgs) -> Result<()> {
    if args.plan {
        interrupt::end_at_once();
    } else {
        interrupt::end_when_asked_twice(
            "stopping: this step is finished and saved; Ctrl-C once more to stop without saving",
        );
    }
    let options = Options {
        resume: args.resume,
        threads: args.threads.map(usize::from),
        stop: &interrupt::asked,
        show: &show::on_standard_error,
    };
    if args.plan {
        let plan = velatura_train::plan(&args.config, &options)?;
        if args.json {
            println!("{}", serde_json::to_string_pretty(&plan)?);
        } else {
            println!("{plan}");
        }
        return Ok(());
    }
    let outcome = velatura_train::train(&args.config, &options)?;
    match outcome.ending {
        // Where the model is has been said.
        Ending::Finished => {
            let report = outcome.run.join("report.html");
            eprintln!("its course, samples and config: {}", report.display());
        }
        Ending::Stopped => {
            let done = match outcome.step {
                0 => "stopped before the first step".to_owned(),
                step => format!("stopped after step {step} and saved"),
            };
            let config = args.config.display();
            eprintln!("{done}; go on with: velatura train {config} --resume");
        }
    }
    Ok(())
}
