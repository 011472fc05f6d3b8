//! Reading JSON configs so that an error names file and field.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Reads the JSON file at `path` into `T`.
///
/// # Errors
///
/// The file cannot be read, is not JSON, lacks a field, or a field has the wrong type: with file and field.
pub fn read_config<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = read_text(path, "read the config")?;
    parse_config(path, &text)
}

/// Reads `text`, which came from the file at `path`, into `T`.
///
/// # Errors
///
/// As [`read_config`], but for the reading.
pub fn parse_config<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let field = error.path().to_string();
        explain(path, &field, error.inner())
    })?;
    deserializer
        .end()
        .map_err(|error| explain(path, ".", &error))?;
    Ok(value)
}

/// Reads a text file; anything but UTF-8 is an error of format.
pub(crate) fn read_text(path: &Path, action: &'static str) -> Result<String> {
    let bytes = std::fs::read(path).map_err(Error::io(action, path))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::format(
            path,
            format!("expected text in UTF-8, found other bytes from byte {at} on"),
        )
    })
}

/// Puts serde's message into the words that all our messages use.
fn explain(path: &Path, field: &str, error: &serde_json::Error) -> Error {
    if !error.is_data() {
        return Error::format(path, format!("this is not JSON: {error}"));
    }
    let message = error.to_string();
    // serde_json ends its messages with the position, which adds nothing to the field's path.
    let message = message
        .rsplit_once(" at line ")
        .map_or(message.as_str(), |(before, _)| before);
    let below = |name: &str| {
        if field == "." {
            name.to_owned()
        } else {
            format!("{field}.{name}")
        }
    };
    let error = if let Some(name) = message
        .strip_prefix("missing field `")
        .and_then(|m| m.strip_suffix('`'))
    {
        Error::config(below(name), "a value", "nothing: the field is missing")
    } else if let Some((found, expected)) = message.split_once(", expected ") {
        Error::config(field, expected, found)
    } else {
        Error::config(field, "a value that the model can have", message)
    };
    error.in_file(path)
}
