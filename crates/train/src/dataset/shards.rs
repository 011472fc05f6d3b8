//! Which files a source of several consists of.
//!
//! People name shards in four ways: one file, a folder, a glob (`data/*.tar`), or a list in braces
//! (`data/{000..127}.tar`, `{cats,dogs}.tar`), which WebDataset has made usual.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use glob::MatchOptions;
use sha2::{Digest, Sha256};

use super::hex;
use crate::error::{Error, Result};

/// More than this in one list is a slip of the hand.
const MOST: u64 = 1_000_000;

/// The files that `pattern` names, in the order of their names or of the list; in folders those with this `ending`.
///
/// # Errors
/// One of a list is missing, nothing fits the pattern, or the pattern cannot be understood.
pub(super) fn find(pattern: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    if pattern.is_file() {
        return Ok(vec![pattern.to_path_buf()]);
    }
    let fault = |message: String| Error::data(pattern.display(), message);
    if pattern.is_dir() {
        let inside = format!(
            "{}/**/*.{ending}",
            glob::Pattern::escape(&pattern.to_string_lossy())
        );
        let files = matches(&inside).map_err(&fault)?;
        return if files.is_empty() {
            Err(fault(format!(
                "expected .{ending} files in the folder, found none; check path"
            )))
        } else {
            Ok(files)
        };
    }
    let mut files = Vec::new();
    for name in expand(&pattern.to_string_lossy()).map_err(|what| fault(format!("path: {what}")))? {
        if name.contains(['*', '?', '[']) {
            let found = matches(&name).map_err(&fault)?;
            if found.is_empty() {
                return Err(fault(format!("no file fits {name}; check path")));
            }
            files.extend(found);
        } else if Path::new(&name).is_file() {
            files.push(name.into());
        } else {
            return Err(fault(format!(
                "expected a file {name}, found none; check path"
            )));
        }
    }
    Ok(files)
}

/// SHA-256 over the contents of files.
///
/// # Errors
/// One cannot be read.
pub(super) fn digest(files: &[PathBuf]) -> Result<String> {
    let mut all = Sha256::new();
    for path in files {
        let mut file = File::open(path).map_err(Error::io("read", path))?;
        let mut one = Sha256::new();
        io::copy(&mut file, &mut one).map_err(Error::io("read", path))?;
        all.update(one.finalize());
    }
    Ok(hex(&all.finalize()))
}

/// Files that fit a glob, sorted.
fn matches(pattern: &str) -> Result<Vec<PathBuf>, String> {
    // Hidden names are the system's.
    let options = MatchOptions {
        require_literal_leading_dot: true,
        ..MatchOptions::new()
    };
    let paths = glob::glob_with(pattern, options).map_err(|error| format!("path: {error}"))?;
    let mut files = Vec::new();
    for path in paths {
        let path = path.map_err(|error| error.to_string())?;
        if path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

/// `a{1,2}b` to `a1b` and `a2b`, `{08..10}` to `08`, `09` and `10`; several lists multiply.
fn expand(pattern: &str) -> Result<Vec<String>, String> {
    let Some((before, rest)) = pattern.split_once('{') else {
        return Ok(vec![pattern.to_owned()]);
    };
    let Some((list, after)) = rest.split_once('}') else {
        return Err(format!("expected a }} after {{{rest}, found none"));
    };
    let middles = match list.split_once("..") {
        Some((first, last)) => count(first, last)?,
        None => list.split(',').map(str::to_owned).collect(),
    };
    let ends = expand(after)?;
    let mut all = Vec::with_capacity(middles.len());
    for middle in &middles {
        all.extend(ends.iter().map(|end| format!("{before}{middle}{end}")));
        if all.len() as u64 > MOST {
            return Err(format!("expected at most {MOST} files, found more"));
        }
    }
    Ok(all)
}

/// The numbers from `first` to `last`, as wide as these are written.
fn count(first: &str, last: &str) -> Result<Vec<String>, String> {
    let (Ok(from), Ok(to)) = (first.parse::<u64>(), last.parse::<u64>()) else {
        return Err(format!(
            "expected two numbers, such as {{000..127}}, found {{{first}..{last}}}"
        ));
    };
    if from > to || to - from >= MOST {
        return Err(format!(
            "expected a range upwards of at most {MOST} numbers, found {{{first}..{last}}}"
        ));
    }
    let width = first
        .len()
        .max(if last.starts_with('0') { last.len() } else { 0 });
    Ok((from..=to)
        .map(|number| format!("{number:0width$}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn lists_in_braces_are_written_out() {
        assert_eq!(expand("a.tar").unwrap(), ["a.tar"]);
        assert_eq!(
            expand("{x,yy}-{08..10}.tar").unwrap(),
            [
                "x-08.tar",
                "x-09.tar",
                "x-10.tar",
                "yy-08.tar",
                "yy-09.tar",
                "yy-10.tar",
            ]
        );
        assert_eq!(expand("{9..11}").unwrap(), ["9", "10", "11"]);
        assert_eq!(expand("{000000..000001}").unwrap(), ["000000", "000001"]);
        for wrong in [
            "{1..",
            "{a..c}",
            "{5..1}",
            "{0..99999999999}",
            "{0..999}{0..99999}",
        ] {
            assert!(expand(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn files_come_from_folders_globs_and_lists_and_missing_ones_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("[odd] name")).unwrap();
        for name in ["b.tar", "a.tar", "c.txt", "._a.tar", "[odd] name/d.tar"] {
            fs::write(at(name), "").unwrap();
        }
        let names = |pattern: &str| -> Vec<String> {
            let files = find(&at(pattern), "tar").unwrap();
            let relative =
                |file: &PathBuf| file.strip_prefix(dir.path()).unwrap().display().to_string();
            files.iter().map(relative).collect()
        };
        assert_eq!(names(""), ["[odd] name/d.tar", "a.tar", "b.tar"]);
        assert_eq!(names("[odd] name"), ["[odd] name/d.tar"]);
        assert_eq!(names("*.tar"), ["a.tar", "b.tar"]);
        assert_eq!(names("{b,a}.tar"), ["b.tar", "a.tar"]);
        assert_eq!(names("c.txt"), ["c.txt"]);
        let message = |pattern: &str| find(&at(pattern), "tar").unwrap_err().to_string();
        assert!(message("{a,x}.tar").contains("x.tar, found none"));
        assert!(message("*.parquet").contains("no file fits"));
        assert!(message("nowhere").contains("nowhere, found none"));
        fs::create_dir(at("empty")).unwrap();
        assert!(message("empty").contains("expected .tar files in the folder"));
    }
}
