//! What can be set, and its defaults. The program reads flags, then the environment, then a config file; whatever none
//! of them says is filled in here.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// Everything that a server has to be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address to listen on.
    pub host: IpAddr,
    /// The port; 0 lets the system choose.
    pub port: u16,
    /// The folder for jobs and pictures; none keeps them in memory only.
    pub data: Option<PathBuf>,
    /// Keys of which a client has to present one; empty asks for none.
    pub keys: Vec<String>,
    /// Origins whose pages may call the API from a browser, beside the server's own.
    pub cors_origins: Vec<String>,
    /// Names under which a browser may reach the server, beside addresses and `localhost`.
    pub host_names: Vec<String>,
    /// What a single request may ask for.
    pub limits: Limits,
    /// How long finished jobs are kept.
    pub retention: Retention,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            host: IpAddr::from([127, 0, 0, 1]),
            port: 7860,
            data: None,
            keys: Vec::new(),
            cors_origins: Vec::new(),
            host_names: Vec::new(),
            limits: Limits::default(),
            retention: Retention::default(),
        }
    }
}

/// What a single request may ask for, and how many may wait.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// The larger side of a picture, in pixels.
    pub side: usize,
    /// Steps of one picture.
    pub steps: usize,
    /// Characters of a prompt, and of a negative one.
    pub prompt_chars: usize,
    /// Pictures of one job.
    pub pictures: usize,
    /// Jobs that wait.
    pub queue: usize,
    /// Connections that follow events at once.
    pub followers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            // A picture of 2048×2048 as PNG is some 8 MB, twice that with its mask, four thirds of it in base64.
            body_bytes: 32 << 20,
            side: 2048,
            steps: 150,
            prompt_chars: 10_000,
            pictures: 16,
            queue: 100,
            followers: 256,
        }
    }
}

/// How long finished jobs are kept; whichever comes first. Jobs that wait or run are never removed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Days after the end of a job; 0 is for ever.
    pub days: u32,
    /// Finished jobs; 0 is as many as come.
    pub jobs: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Retention {
            days: 30,
            jobs: 10_000,
        }
    }
}

/// A config file, in TOML. Every field may be missing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// See [`Settings::host`].
    pub host: Option<IpAddr>,
    /// See [`Settings::port`].
    pub port: Option<u16>,
    /// See [`Settings::data`].
    pub data: Option<PathBuf>,
    /// The model's folder.
    pub model: Option<PathBuf>,
    /// A file with one key per line.
    pub api_key_file: Option<PathBuf>,
    /// Listen beyond this machine without a key.
    pub no_auth: Option<bool>,
    /// See [`Settings::cors_origins`].
    #[serde(default)]
    pub cors_origins: Vec<String>,
    /// See [`Settings::host_names`].
    #[serde(default)]
    pub host_names: Vec<String>,
    /// See [`Limits`].
    #[serde(default)]
    pub limits: Limits,
    /// See [`Retention`].
    #[serde(default)]
    pub retention: Retention,
}

impl File {
    /// Reads a config file's text.
    ///
    /// # Errors
    /// What is wrong with it and where, in the words of the TOML reader.
    pub fn parse(text: &str) -> Result<File, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }
}

/// The keys in a key file: one per line; empty lines and those that begin with `#` do not count.
///
/// # Errors
/// A key is too short to be one, or there is none.
pub fn keys_in(text: &str) -> Result<Vec<String>, String> {
    const SHORTEST: usize = 16;
    let lines = text.lines().map(str::trim);
    let keys: Vec<String> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_string)
        .collect();
    if keys.is_empty() {
        return Err("expected one key per line, found none".to_string());
    }
    match keys.iter().position(|key| key.len() < SHORTEST) {
        Some(at) => Err(format!(
            "expected keys of at least {SHORTEST} characters, found {} in key {}; \
             `openssl rand -hex 24` makes a good one",
            keys[at].len(),
            at + 1
        )),
        None => Ok(keys),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_file_may_leave_out_anything_and_add_nothing() {
        let file = File::parse("port = 80\n[limits]\nqueue = 3\n").unwrap();
        assert_eq!(file.port, Some(80));
        assert_eq!(file.limits.queue, 3);
        assert_eq!(file.limits.steps, Limits::default().steps);
        assert_eq!(file.retention, Retention::default());
        let error = File::parse("[limits]\nques = 3\n").unwrap_err();
        assert!(error.contains("ques") && error.contains("queue"), "{error}");
        assert!(File::parse("port = \"x\"").is_err());
    }

    #[test]
    fn keys_are_lines() {
        let keys = keys_in("# for the phone\n0123456789abcdef\n\n  fedcba9876543210  \n");
        assert_eq!(keys.unwrap(), ["0123456789abcdef", "fedcba9876543210"]);
        assert!(keys_in("# nothing\n").unwrap_err().contains("none"));
        assert!(keys_in("short").unwrap_err().contains("16"));
    }
}
