//! Where a folder's captions stand: in lists as Hugging Face's image folders have them, or beside the pictures.
//!
//! `metadata.jsonl` has `{"file_name": "a.png", "text": "…"}` a line, where `text` may also be a list; `metadata.csv` has
//! a header with the columns `file_name` and `text`. `name.txt` beside `name.png` holds a caption in each line that is not
//! blank.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};

/// Captions by file.
pub(super) type Listed = BTreeMap<PathBuf, Vec<String>>;

/// A line of a list; other fields are other people's business.
#[derive(Deserialize)]
struct Line {
    file_name: String,
    text: Text,
}

/// The same of a table, in which a text that looks like a number is still a text.
#[derive(Deserialize)]
struct Row {
    file_name: String,
    text: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    One(String),
    Many(Vec<String>),
}

/// Whether a file of this name is a list of captions.
pub(super) fn is_list(name: &OsStr) -> bool {
    name == "metadata.jsonl" || name == "metadata.csv"
}

/// Adds what the list at `path`, which stands in the folder `below`, says.
///
/// # Errors
/// It cannot be read, or a line cannot be understood: with its number.
pub(super) fn read_list(path: &Path, below: &Path, listed: &mut Listed) -> Result<()> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let text = utf8(bytes).map_err(|what| Error::data(path.display(), what))?;
    if path.extension() == Some(OsStr::new("csv")) {
        let mut lines = csv::Reader::from_reader(text.as_bytes());
        let header = lines.headers().cloned().unwrap_or_default();
        if let Some(missing) = ["file_name", "text"]
            .iter()
            .find(|column| !header.iter().any(|found| found == **column))
        {
            let found: Vec<&str> = header.iter().collect();
            let message = format!(
                "expected the columns file_name and text in its first line, found no {missing} among: {}",
                found.join(", ")
            );
            return Err(Error::data(path.display(), message));
        }
        let rows = lines.deserialize::<Row>().enumerate();
        for (index, row) in rows {
            // The header is line 1; a text may go over several lines, so only the row is certain.
            let fault =
                |what: String| Error::data(format!("{}, row {}", path.display(), index + 2), what);
            let row = row.map_err(|error| {
                fault(format!(
                    "expected as many fields as its first line names, found {error}"
                ))
            })?;
            let line = Line {
                file_name: row.file_name,
                text: Text::One(row.text),
            };
            add(line, below, listed).map_err(fault)?;
        }
        return Ok(());
    }
    let lines = text.lines().enumerate();
    for (index, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let fault =
            |what: String| Error::data(format!("{}, line {}", path.display(), index + 1), what);
        let line: Line = serde_json::from_str(line).map_err(|error| {
            fault(format!(
                "expected {{\"file_name\": \"…\", \"text\": \"…\"}} (text may be a list), found {error}"
            ))
        })?;
        add(line, below, listed).map_err(fault)?;
    }
    Ok(())
}

fn add(line: Line, below: &Path, listed: &mut Listed) -> Result<(), String> {
    let file = Path::new(&line.file_name);
    if !file
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
    {
        return Err(format!(
            "file_name: expected a path inside the folder, found {:?}",
            line.file_name
        ));
    }
    let captions = match &line.text {
        Text::One(caption) => trimmed([caption.as_str()]),
        Text::Many(captions) => trimmed(captions.iter().map(String::as_str)),
    };
    let file: PathBuf = below
        .join(file)
        .components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect();
    // A second line for the same picture is one more caption.
    listed.entry(file).or_default().extend(captions);
    Ok(())
}

/// The captions in `name.txt` beside a picture; none where the file is missing or blank.
///
/// # Errors
/// It cannot be read, or is not UTF-8.
pub(super) fn beside(picture: &Path) -> Result<Vec<String>, String> {
    let path = picture.with_extension("txt");
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let read = fs::read(&path).map_err(|error| error.to_string());
    read.and_then(lines).map_err(|what| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        format!("{name}: {what}")
    })
}

/// The captions of a text: one in each line that is not blank.
///
/// # Errors
/// It is not UTF-8.
pub(super) fn lines(bytes: Vec<u8>) -> Result<Vec<String>, String> {
    Ok(trimmed(utf8(bytes)?.lines()))
}

/// The text of a file, without the mark that some editors put before it.
fn utf8(bytes: Vec<u8>) -> Result<String, String> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        format!(
            "expected text in UTF-8, found other bytes from byte {place} on; save the file as UTF-8"
        )
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

/// Captions without the space round them, and without those that are nothing but space.
pub(super) fn trimmed<'a>(captions: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let captions = captions.into_iter().map(str::trim);
    captions
        .filter(|caption| !caption.is_empty())
        .map(String::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Listed> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        let mut listed = Listed::new();
        read_list(&path, Path::new("deep"), &mut listed)?;
        Ok(listed)
    }

    #[test]
    fn both_kinds_of_lists_say_the_same() {
        let lines = "{\"file_name\": \"a.png\", \"text\": \"one, \\\"two\\\"\", \"n\": 1}\n\n{\"file_name\": \"./b.png\", \"text\": \"7\"}\n";
        let table = "n,file_name,text\n1,a.png,\"one, \"\"two\"\"\"\n2,./b.png, 7 \n";
        let listed = read("metadata.jsonl", lines).unwrap();
        assert_eq!(listed[Path::new("deep/a.png")], ["one, \"two\""]);
        assert_eq!(listed[Path::new("deep/b.png")], ["7"]);
        assert_eq!(read("metadata.csv", table).unwrap(), listed);
    }

    #[test]
    fn what_cannot_be_understood_is_said_by_row() {
        let message = |name: &str, text: &str| read(name, text).unwrap_err().to_string();
        let error = message("metadata.csv", "file,text\na.png,x\n");
        assert!(error.contains("no file_name among: file, text"), "{error}");
        // As spreadsheets save it.
        let marked = "\u{feff}file_name,text\na.png,x\n";
        assert_eq!(read("metadata.csv", marked).unwrap().len(), 1);
        let outside = "file_name,text\na.png,x\n../b.png,x\n";
        let error = message("metadata.csv", outside);
        assert!(
            error.contains("row 3") && error.contains("inside the folder"),
            "{error}"
        );
        assert!(message("metadata.csv", "file_name,text\na.png\n").contains("row 2"));
    }
}
