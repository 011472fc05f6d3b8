//! Runs the real program in a folder of its own, on the tiny models among the fixtures.

#![allow(dead_code)] // Each test file uses a part of this.

pub mod server;
pub mod tools;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// The folder with the tiny models.
pub fn models() -> PathBuf {
    let data = match std::env::var_os("VELATURA_FIXTURES") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/data"),
    };
    data.join("models")
}

/// An empty folder in which the program runs, and what it said.
pub struct Bench {
    pub dir: TempDir,
}

pub struct Said {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Bench {
    pub fn new() -> Bench {
        Bench {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_velatura"));
        command.current_dir(self.dir.path());
        command
    }

    pub fn run(&self, args: &[&str]) -> Said {
        said(self.command().args(args).output().unwrap())
    }

    /// `generate` with a tiny model, few steps and `args`.
    pub fn generate(&self, args: &[&str]) -> Said {
        let model = models().join("sd15");
        let model = model.to_str().unwrap();
        let fixed = [
            "generate",
            "-m",
            model,
            "--width",
            "64",
            "--height",
            "64",
            "--precision",
            "f32",
        ];
        self.run(&[&fixed, args].concat())
    }

    /// The names of the files in the folder, hidden and temporary ones included.
    pub fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// A copy of a tiny model in this folder, to be damaged.
    pub fn copy_model(&self, name: &str) -> PathBuf {
        let copy = self.path("model");
        copy_folder(&models().join(name), &copy);
        copy
    }
}

pub fn said(output: Output) -> Said {
    Said {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Said {
    /// Success; returns what stood on standard output, which must be JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.status, 0, "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// Failure with this status, in one paragraph that has all of `parts`, without a panic.
    #[track_caller]
    pub fn fails(&self, status: i32, parts: &[&str]) {
        assert_eq!(self.status, status, "{}{}", self.stdout, self.stderr);
        assert_eq!(self.stdout, "");
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        for part in parts {
            assert!(
                self.stderr.contains(part),
                "{part:?} is not in: {}",
                self.stderr
            );
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            if entry.file_name() != "expected" {
                copy_folder(&entry.path(), &target);
            }
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
