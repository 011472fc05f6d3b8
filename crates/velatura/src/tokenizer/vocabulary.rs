//! Tokens with their ids, merges in the order of their rank, and the files that hold them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::special::{BEGIN, END, Token};
use crate::checkpoint::parse_config;
use crate::error::{Error, Result};

/// What CLIP appends to the last token of a word.
pub(super) const END_OF_WORD: &str = "</w>";

/// A byte-level BPE vocabulary.
#[derive(Clone)]
pub(super) struct Vocabulary {
    ids: HashMap<String, u32>,
    merges: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct TokenizerJson {
    model: Model,
    #[serde(default)]
    added_tokens: Vec<Token>,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    vocab: Value,
    #[serde(default)]
    merges: Vec<Merge>,
}

/// `"a b"` in older files, `["a", "b"]` in newer ones.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Line(String),
    Pair(String, String),
}

impl Vocabulary {
    /// CLIP's layout: the bytes, the bytes at the end of a word, one token for each merge, the two marks.
    pub fn new(merges: Vec<(String, String)>) -> Vocabulary {
        let tokens = byte_tokens()
            .chain(merges.iter().map(|(a, b)| format!("{a}{b}")))
            .chain([BEGIN.to_owned(), END.to_owned()]);
        Vocabulary {
            ids: tokens.zip(0..).collect(),
            merges,
        }
    }

    /// Reads `tokenizer.json`, or `vocab.json` and `merges.txt`; also returns the tokens that the file has added.
    pub fn read(dir: &Path, files: &BTreeMap<&str, String>) -> Result<(Vocabulary, Vec<Token>)> {
        if let Some(text) = files.get("tokenizer.json") {
            return read_json(&dir.join("tokenizer.json"), text);
        }
        let (Some(vocab), Some(merges)) = (files.get("vocab.json"), files.get("merges.txt")) else {
            let found = files.keys().copied().collect::<Vec<_>>().join(", ");
            return Err(Error::format(
                dir,
                format!(
                    "expected a vocabulary (tokenizer.json, or vocab.json and merges.txt), found {}",
                    if found.is_empty() {
                        "nothing of the kind"
                    } else {
                        &found
                    }
                ),
            ));
        };
        let ids: HashMap<String, u32> = parse_config(&dir.join("vocab.json"), vocab)?;
        check_ids(&ids, &dir.join("vocab.json"), "")?;
        let path = dir.join("merges.txt");
        let lines = merges
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.starts_with("#version") && !line.is_empty());
        let merges = lines
            .map(|(i, line)| {
                split_merge(line).ok_or_else(|| {
                    Error::format(
                        &path,
                        format!("line {}: expected two tokens, found `{line}`", i + 1),
                    )
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let vocabulary = Vocabulary { ids, merges };
        vocabulary.check_merges(&path)?;
        Ok((vocabulary, Vec::new()))
    }

    /// Tokens and ids.
    pub fn ids(&self) -> impl Iterator<Item = (&str, u32)> {
        self.ids.iter().map(|(token, &id)| (token.as_str(), id))
    }

    /// The merges, the earliest first.
    pub fn merges(&self) -> &[(String, String)] {
        &self.merges
    }

    /// `vocab.json` and `merges.txt`.
    pub fn files(&self) -> [(&'static str, String); 2] {
        let mut tokens: Vec<(&str, u32)> = self.ids().collect();
        tokens.sort_by_key(|&(_, id)| id);
        let vocab: serde_json::Map<String, Value> = tokens
            .into_iter()
            .map(|(token, id)| (token.to_owned(), id.into()))
            .collect();
        let mut merges = String::from("#version: 0.2\n");
        for (a, b) in &self.merges {
            merges.extend([a, " ", b, "\n"]);
        }
        [
            ("vocab.json", Value::Object(vocab).to_string() + "\n"),
            ("merges.txt", merges),
        ]
    }

    /// Both halves of every merge, and what it makes, are tokens.
    fn check_merges(&self, path: &Path) -> Result<()> {
        for (rank, (a, b)) in self.merges.iter().enumerate() {
            let made = format!("{a}{b}");
            if let Some(missing) = [a, b, &made]
                .into_iter()
                .find(|token| !self.ids.contains_key(*token))
            {
                return Err(Error::format(
                    path,
                    format!(
                        "merge {} (`{a} {b}`): expected tokens of the vocabulary, found `{missing}`, which is not; \
                         the two do not belong together",
                        rank + 1
                    ),
                ));
            }
        }
        Ok(())
    }
}

fn read_json(path: &Path, text: &str) -> Result<(Vocabulary, Vec<Token>)> {
    let TokenizerJson {
        model,
        added_tokens,
    } = parse_config(path, text)?;
    if let Some(kind) = model.kind.filter(|kind| kind != "BPE") {
        return Err(Error::config("model.type", "BPE, which CLIP uses", kind).in_file(path));
    }
    let ids: HashMap<String, u32> = serde_json::from_value(model.vocab).map_err(|error| {
        Error::config("model.vocab", "an object of tokens and their ids", error).in_file(path)
    })?;
    check_ids(&ids, path, "model.vocab")?;
    let merges = model
        .merges
        .into_iter()
        .map(|merge| match merge {
            Merge::Pair(a, b) => Ok((a, b)),
            Merge::Line(line) => split_merge(&line).ok_or_else(|| {
                Error::config("model.merges", "pairs of tokens", format!("`{line}`")).in_file(path)
            }),
        })
        .collect::<Result<Vec<_>>>()?;
    let vocabulary = Vocabulary { ids, merges };
    vocabulary.check_merges(path)?;
    Ok((vocabulary, added_tokens))
}

/// `"a b"` → (a, b).
fn split_merge(line: &str) -> Option<(String, String)> {
    let (a, b) = line.trim_end().split_once(' ')?;
    (!a.is_empty() && !b.is_empty() && !b.contains(' ')).then(|| (a.to_owned(), b.to_owned()))
}

/// No two tokens share an id, and there is at least one.
fn check_ids(ids: &HashMap<String, u32>, path: &Path, field: &str) -> Result<()> {
    let mut seen: HashMap<u32, &str> = HashMap::with_capacity(ids.len());
    for (token, &id) in ids {
        if let Some(other) = seen.insert(id, token) {
            let found = format!("{id} for both `{token}` and `{other}`");
            return Err(Error::config(field, "one id for each token", found).in_file(path));
        }
    }
    if ids.is_empty() {
        return Err(Error::config(field, "tokens and their ids", "none").in_file(path));
    }
    Ok(())
}

/// The tokens before the first merge: each byte, and each byte at the end of a word.
pub(super) fn byte_tokens() -> impl Iterator<Item = String> {
    let plain = byte_characters().map(|(_, character)| character.to_string());
    plain.chain(byte_characters().map(|(_, character)| format!("{character}{END_OF_WORD}")))
}

/// The bytes in the order of CLIP's vocabulary, each with its printable stand-in: the bytes that Latin-1 can print
/// stand for themselves and come first, the others are the characters from U+0100 on.
pub(super) fn byte_characters() -> impl Iterator<Item = (u8, char)> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let plain = (0..=u8::MAX)
        .filter(printable)
        .map(|byte| (byte, char::from(byte)));
    let others = (0..=u8::MAX).filter(move |byte| !printable(byte));
    plain.chain(others.zip('\u{100}'..))
}
