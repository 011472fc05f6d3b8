//! `velatura serve`: settings from flags, environment and config file, in this order, then the server.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use velatura::Error;
use velatura_serve::settings::{File, keys_in};
use velatura_serve::{Settings, logs, serve};

use crate::args::{LogFormat, ModelArgs, ServeArgs};
use crate::model;

pub fn run(args: &ServeArgs) -> Result<()> {
    logs::start(args.log == LogFormat::Json);
    let file = match &args.config {
        Some(path) => File::parse(&read(path, "read the config")?)
            .map_err(|error| Error::format(path, error))?,
        None => File::default(),
    };
    let trusted = args.no_auth || file.no_auth.unwrap_or(false);
    let model = model::open(&ModelArgs {
        model: args.model.model.clone().or_else(|| file.model.clone()),
        ..args.model.clone()
    })?;
    let settings = settings(args, file)?;
    let kept = match &settings.data {
        Some(folder) => format!("jobs are kept in {}", folder.display()),
        None => "jobs are kept in memory only".to_string(),
    };
    let precision = args.model.precision.into();
    serve(settings, trusted, model, precision, |address| {
        eprintln!("listening on http://{address}; {kept}");
    })?;
    Ok(())
}

/// Flags and environment before the file, the file before the defaults.
fn settings(args: &ServeArgs, file: File) -> Result<Settings> {
    let defaults = Settings::default();
    let keys = match args.api_key_file.as_ref().or(file.api_key_file.as_ref()) {
        Some(path) => {
            keys_in(&read(path, "read the keys")?).map_err(|error| Error::format(path, error))?
        }
        None => Vec::new(),
    };
    let data = match args.data.clone().or(file.data) {
        Some(folder) if folder.as_os_str() == "none" => None,
        Some(folder) => Some(folder),
        None => Some(data_folder()?),
    };
    let or = |given: &[String], file: Vec<String>| {
        if given.is_empty() {
            file
        } else {
            given.to_vec()
        }
    };
    Ok(Settings {
        host: args.host.or(file.host).unwrap_or(defaults.host),
        port: args.port.or(file.port).unwrap_or(defaults.port),
        data,
        keys,
        cors_origins: or(&args.cors_origin, file.cors_origins),
        host_names: or(&args.host_name, file.host_names),
        limits: file.limits,
        retention: file.retention,
    })
}

fn read(path: &Path, action: &'static str) -> Result<String> {
    Ok(fs::read_to_string(path).map_err(Error::io(action, path))?)
}

/// Where a person's programs keep what they make.
fn data_folder() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = variable("XDG_DATA_HOME")
        .or_else(|| variable("LOCALAPPDATA"))
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".local/share")));
    match base {
        Some(base) => Ok(base.join("velatura")),
        None => bail!(
            "there is no home folder to keep jobs in; name a folder with --data, or `--data none`"
        ),
    }
}

/// Reads an address; `localhost` is the one that everyone knows by name.
pub fn parse_host(text: &str) -> Result<IpAddr, String> {
    match text {
        "localhost" => Ok(IpAddr::from([127, 0, 0, 1])),
        _ => text
            .parse()
            .map_err(|_| "expected an address such as 127.0.0.1, 0.0.0.0 or ::1".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn flags_count_before_the_file_and_the_file_before_the_defaults() {
        let args = |list: &[&str]| match Cli::parse_from([&["velatura", "serve"], list].concat())
            .command
        {
            Command::Serve(args) => args,
            other => panic!("{other:?}"),
        };
        let file = || {
            File::parse("port = 81\nhost = \"::1\"\ndata = \"jobs\"\n[limits]\nqueue = 3").unwrap()
        };
        let from_file = settings(&args(&[]), file()).unwrap();
        assert_eq!((from_file.port, from_file.limits.queue), (81, 3));
        assert!(from_file.host.is_ipv6());
        let from_flags = settings(
            &args(&["--port", "82", "--host", "localhost", "--data", "none"]),
            file(),
        )
        .unwrap();
        assert_eq!((from_flags.port, from_flags.data), (82, None));
        assert!(from_flags.host.is_ipv4());
        let bare = settings(&args(&["--data", "x"]), File::default()).unwrap();
        assert_eq!(
            (bare.port, bare.limits),
            (7860, velatura_serve::settings::Limits::default())
        );
        assert!(parse_host("everywhere").is_err());
    }
}
