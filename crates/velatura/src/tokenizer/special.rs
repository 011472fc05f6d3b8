//! The tokens with a meaning of their own, and the files that name them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokenizers::AddedToken;

use crate::checkpoint::parse_config;
use crate::error::{Error, Result};

/// CLIP's mark before every text.
pub(super) const BEGIN: &str = "<|startoftext|>";
/// CLIP's mark after every text.
pub(super) const END: &str = "<|endoftext|>";

/// CLIP's text length, marks included.
const LENGTH: usize = 77;

/// Longer is not a length but `transformers`' way of saying that none was given (1e30).
const LONGEST: f64 = 65_536.0;

/// The named tokens in the order in which `transformers` adds them; where two share a content, the later one counts.
const NAMES: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// Which tokens have which role, and how long an encoded text is.
#[derive(Clone, Debug)]
pub(super) struct Special {
    pub begin: String,
    pub end: String,
    pub pad: String,
    pub unknown: String,
    pub max_length: usize,
    added: Vec<Token>,
}

/// A token that is looked for in the text before anything else happens to it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Token {
    #[serde(default)]
    id: Option<u32>,
    content: String,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
    /// Whether it is looked for in the normalised text, so that case does not matter.
    #[serde(default)]
    normalized: bool,
    #[serde(default = "yes")]
    special: bool,
}

fn yes() -> bool {
    true
}

/// A token by its content alone, or with all its properties.
#[derive(Deserialize)]
#[serde(untagged)]
enum Spelled {
    Content(String),
    Full(Token),
}

impl From<Spelled> for Token {
    fn from(spelled: Spelled) -> Token {
        match spelled {
            Spelled::Full(token) => token,
            Spelled::Content(content) => Token {
                id: None,
                content,
                lstrip: false,
                rstrip: false,
                single_word: false,
                normalized: false,
                special: true,
            },
        }
    }
}

impl Default for Special {
    fn default() -> Special {
        Special::new(&BTreeMap::new(), Vec::new(), LENGTH)
    }
}

impl Special {
    /// Reads `tokenizer_config.json` and `special_tokens_map.json` the way `transformers` does. `added` are the
    /// tokens that `tokenizer.json` has.
    pub fn read(
        dir: &Path,
        files: &BTreeMap<&str, String>,
        mut added: Vec<Token>,
    ) -> Result<Special> {
        let object = |name: &str| -> Result<Map<String, Value>> {
            files
                .get(name)
                .map_or(Ok(Map::new()), |text| parse_config(&dir.join(name), text))
        };
        let config_path = dir.join("tokenizer_config.json");
        let mut fields = object("tokenizer_config.json")?;
        let max_length = max_length(fields.get("model_max_length"))
            .map_err(|error| error.in_file(&config_path))?;
        if let Some(Value::Object(decoder)) = fields.remove("added_tokens_decoder") {
            added.clear();
            for (id, token) in decoder {
                let mut token = parse_token("added_tokens_decoder", token)
                    .map_err(|e| e.in_file(&config_path))?;
                token.id = id.parse().ok();
                added.push(token);
            }
        } else {
            // Older files: this one has the last word (Stable Diffusion 2 says only here that it pads with "!").
            fields.extend(object("special_tokens_map.json")?);
            for (content, id) in object("added_tokens.json")? {
                let mut token = Token::from(Spelled::Content(content));
                token.id = id.as_u64().and_then(|id| u32::try_from(id).ok());
                let named = NAMES
                    .iter()
                    .any(|name| content_of(fields.get(*name)) == Some(&token.content));
                (token.special, token.normalized) = (named, !named);
                added.push(token);
            }
        }
        added.sort_by_key(|token| token.id);
        let mut named = BTreeMap::new();
        for name in NAMES {
            match fields.remove(name) {
                None | Some(Value::Null) => {}
                Some(value) => {
                    let token =
                        parse_token(name, value).map_err(|error| error.in_file(&config_path))?;
                    named.insert(name, token);
                }
            }
        }
        let mut special = Special::new(&named, added, max_length);
        for name in ["extra_special_tokens", "additional_special_tokens"] {
            if let Some(Value::Array(values)) = fields.remove(name) {
                for value in values {
                    let token =
                        parse_token(name, value).map_err(|error| error.in_file(&config_path))?;
                    if !special
                        .added
                        .iter()
                        .any(|other| other.content == token.content)
                    {
                        special.added.push(token);
                    }
                }
            }
        }
        Ok(special)
    }

    /// `added` first, then the named ones, CLIP's where none is given. A named token that has been added already has
    /// the properties it has there.
    fn new(named: &BTreeMap<&str, Token>, mut added: Vec<Token>, max_length: usize) -> Special {
        let known = added.len();
        let token = |name: &str, default: &str| {
            named
                .get(name)
                .cloned()
                .unwrap_or_else(|| Spelled::Content(default.to_owned()).into())
        };
        let [begin, end] = [token("bos_token", BEGIN), token("eos_token", END)];
        let [unknown, pad] = [token("unk_token", END), token("pad_token", END)];
        let others = ["sep_token", "cls_token", "mask_token"].map(|name| named.get(name).cloned());
        let [sep, cls, mask] = others;
        let contents = [&begin, &end, &pad, &unknown].map(|token| token.content.clone());
        let in_order = [
            Some(begin),
            Some(end),
            Some(unknown),
            sep,
            Some(pad),
            cls,
            mask,
        ];
        for token in in_order.into_iter().flatten() {
            if !added[..known]
                .iter()
                .any(|other| other.content == token.content)
            {
                added.push(Token {
                    special: true,
                    ..token
                });
            }
        }
        let [begin, end, pad, unknown] = contents;
        Special {
            begin,
            end,
            pad,
            unknown,
            max_length,
            added,
        }
    }

    /// In the order in which they are to be added.
    pub fn added(&self) -> Vec<AddedToken> {
        let convert = |token: &Token| {
            AddedToken::from(token.content.clone(), token.special)
                .lstrip(token.lstrip)
                .rstrip(token.rstrip)
                .single_word(token.single_word)
                .normalized(token.normalized)
        };
        self.added.iter().map(convert).collect()
    }

    /// `special_tokens_map.json` and `tokenizer_config.json`.
    pub fn files(&self) -> [(&'static str, String); 2] {
        let mut map = Map::new();
        let named = [&self.begin, &self.end, &self.pad, &self.unknown];
        for (name, content) in ["bos_token", "eos_token", "pad_token", "unk_token"]
            .into_iter()
            .zip(named)
        {
            map.insert(name.to_owned(), json!(content));
        }
        let extra: Vec<&str> = self
            .added
            .iter()
            .map(|token| token.content.as_str())
            .filter(|c| !named.iter().any(|n| n == c))
            .collect();
        if !extra.is_empty() {
            map.insert("extra_special_tokens".to_owned(), json!(extra));
        }
        let mut config = map.clone();
        config.insert("do_lower_case".to_owned(), json!(true));
        config.insert("model_max_length".to_owned(), json!(self.max_length));
        config.insert("tokenizer_class".to_owned(), json!("CLIPTokenizer"));
        [
            (
                "special_tokens_map.json",
                format!("{:#}\n", Value::Object(map)),
            ),
            (
                "tokenizer_config.json",
                format!("{:#}\n", Value::Object(config)),
            ),
        ]
    }
}

fn content_of(value: Option<&Value>) -> Option<&str> {
    let value = value?;
    value.as_str().or_else(|| value.get("content")?.as_str())
}

fn parse_token(field: &str, value: Value) -> Result<Token> {
    let found = value.to_string();
    let spelled: Spelled = serde_json::from_value(value)
        .map_err(|_| Error::config(field, "a token, or an object with `content`", found))?;
    Ok(spelled.into())
}

/// The field `model_max_length`, or CLIP's 77.
fn max_length(value: Option<&Value>) -> Result<usize> {
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return Ok(LENGTH);
    };
    match value.as_f64() {
        Some(length) if length > LONGEST => Ok(LENGTH),
        Some(length) if length >= 3.0 => Ok(length as usize),
        _ => Err(Error::config(
            "model_max_length",
            "a number of at least 3",
            value,
        )),
    }
}
