use crate::config::Config;
use crate::error::Result;
use crate::{Options, Outcome};
use crate::run_folder::RunFolder;
pub fn train(_c: &Config, _r: &RunFolder, _o: &Options) -> Result<Outcome> { todo!() }
