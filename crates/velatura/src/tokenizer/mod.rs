//! CLIP's tokenizer: text → the numbers that a text encoder reads.
//!
//! Byte-level byte-pair encoding (Sennrich et al. 2016, with CLIP's end-of-word marks): the text is brought to
//! Unicode's NFC and to lower case, runs of white space become one space, a pattern cuts it into words, numbers and
//! punctuation, and within each of them the pairs of the merge list are joined, the earliest first. The ids are
//! those of `transformers`' `CLIPTokenizer`.

mod clip;
mod special;
mod vocabulary;
mod words;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{
    Lowercase, NFC, NormalizerWrapper, Replace, Sequence as Normalizers,
};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, Encoding as Pieces, SplitDelimiterBehavior};

use self::special::Special;
use self::vocabulary::Vocabulary;
use crate::checkpoint::{read_text, write_atomically};
use crate::error::{Error, Result};

/// What CLIP cuts text into: its marks, English contractions, runs of letters, single digits, runs of anything else
/// but space.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// The files that a tokenizer's folder may have.
const FILES: [&str; 6] = [
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
];

/// A longer word is not shown as a whole when the cut falls into it (some scripts have no spaces).
const LONGEST_WORD: usize = 40;

/// Text → ids.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    vocabulary: Vocabulary,
    special: Special,
    ids: SpecialIds,
    /// Words of several tokens that were added, and how they are spelled out.
    expansions: Vec<(String, String)>,
}

/// The ids of the marks around a text.
#[derive(Clone, Copy, Debug)]
struct SpecialIds {
    begin: u32,
    end: u32,
    pad: u32,
}

/// An encoded text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Begin mark, text, end mark, padding: [`Tokenizer::max_length`] ids.
    pub ids: Vec<u32>,
    /// How many ids the text itself has, marks and padding not counted, those that were cut included.
    pub length: usize,
    /// The words at the end of the text for which there was no room, as the text has them. A word of which only a
    /// part had room is the first.
    pub truncated: Vec<String>,
}

impl Tokenizer {
    /// The tokenizer of a checkpoint: `tokenizer.json`, or `vocab.json` and `merges.txt`, with the special tokens of
    /// `tokenizer_config.json` and `special_tokens_map.json`.
    ///
    /// # Errors
    ///
    /// The folder or the vocabulary is missing, or a file is damaged.
    pub fn from_folder(dir: &Path) -> Result<Tokenizer> {
        if !dir.is_dir() {
            return Err(Error::format(
                dir,
                "expected a tokenizer's folder, found nothing; check the path",
            ));
        }
        let mut files = BTreeMap::new();
        for name in FILES {
            let path = dir.join(name);
            if path.is_file() {
                files.insert(name, read_text(&path, "read the tokenizer")?);
            }
        }
        Tokenizer::from_files(dir, &files)
    }

    /// As [`Tokenizer::from_folder`], for files that are compiled into the program. `label` is what errors call the
    /// folder; `files` are names and contents.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::from_folder`].
    pub fn from_static(label: &str, files: &[(&str, &str)]) -> Result<Tokenizer> {
        let files = files
            .iter()
            .map(|&(name, text)| (name, text.to_owned()))
            .collect();
        Tokenizer::from_files(Path::new(label), &files)
    }

    /// CLIP's own vocabulary of 49408 tokens, for checkpoints that come without one. Padded as Stable Diffusion 1.x
    /// does, with the end mark.
    ///
    /// # Errors
    ///
    /// None in practice: the vocabulary is part of the program.
    pub fn clip() -> Result<Tokenizer> {
        Tokenizer::new(
            Path::new("CLIP's built-in vocabulary"),
            clip::vocabulary()?,
            Special::default(),
        )
    }

    /// A small vocabulary of its own for a new text encoder, in CLIP's form: the 512 byte tokens, so that any text can
    /// be encoded, and merges which make each of `words` one token (or, where CLIP's pattern cuts a word, as in
    /// `t-shirt`, one token for each part).
    ///
    /// # Errors
    ///
    /// None in practice.
    pub fn train_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Tokenizer> {
        let label = Path::new("the new vocabulary");
        let bytes = Tokenizer::new(label, Vocabulary::new(Vec::new()), Special::default())?;
        let mut pieces = Vec::new();
        for word in words {
            pieces.extend(bytes.pieces(word)?);
        }
        Tokenizer::new(label, words::vocabulary(pieces), Special::default())
    }

    fn from_files(dir: &Path, files: &BTreeMap<&str, String>) -> Result<Tokenizer> {
        let (vocabulary, added) = Vocabulary::read(dir, files)?;
        let special = Special::read(dir, files, added)?;
        Tokenizer::new(dir, vocabulary, special)
    }

    fn new(dir: &Path, vocabulary: Vocabulary, special: Special) -> Result<Tokenizer> {
        let inner = build(&vocabulary, &special).map_err(|error| {
            Error::format(dir, format!("this vocabulary cannot be used: {error}"))
        })?;
        let id = |field: &str, token: &str| {
            inner.token_to_id(token).ok_or_else(|| {
                Error::config(field, "a token of the vocabulary", format!("`{token}`"))
                    .in_file(dir.join("tokenizer_config.json"))
            })
        };
        let ids = SpecialIds {
            begin: id("bos_token", &special.begin)?,
            end: id("eos_token", &special.end)?,
            pad: id("pad_token", &special.pad)?,
        };
        Ok(Tokenizer {
            inner,
            vocabulary,
            special,
            ids,
            expansions: Vec::new(),
        })
    }

    /// Adds a word of `count` tokens, as textual inversion does, and returns the first one's id; the others follow.
    /// In a text it is found whatever its case. [`Tokenizer::save`] leaves it out, as it belongs to no vocabulary.
    ///
    /// # Errors
    ///
    /// The word is blank, or the vocabulary has it.
    pub fn add_word(&mut self, word: &str, count: usize) -> Result<u32> {
        // diffusers calls the second token `word_1`, and so on.
        let tokens: Vec<String> = (0..count)
            .map(|i| match i {
                0 => word.to_owned(),
                _ => format!("{word}_{i}"),
            })
            .collect();
        let known = tokens
            .iter()
            .find(|token| self.inner.token_to_id(token).is_some());
        if word.trim().is_empty() || known.is_some() {
            return Err(Error::request(
                "word",
                "a word that the vocabulary does not have yet, such as <my-thing>",
                format!("{:?}", known.map_or(word, String::as_str)),
            ));
        }
        let added = tokens
            .iter()
            .map(|token| AddedToken::from(token.clone(), false).normalized(true));
        let unusable = |error: tokenizers::Error| Error::format("", error.to_string());
        self.inner
            .add_tokens(added.collect::<Vec<_>>())
            .map_err(unusable)?;
        if count > 1 {
            self.expansions.push((word.to_owned(), tokens.join(" ")));
        }
        let first = self.inner.token_to_id(word);
        first.ok_or_else(|| Error::format("", format!("the word {word:?} cannot be added")))
    }

    /// Encodes a text of any length, cutting what does not fit.
    ///
    /// # Errors
    ///
    /// The vocabulary lacks single bytes and a token for what is unknown, and the text needs them.
    pub fn encode(&self, text: &str) -> Result<Encoding> {
        let mut spelled = Cow::Borrowed(text);
        for (word, tokens) in &self.expansions {
            if spelled.contains(word.as_str()) {
                spelled = Cow::Owned(spelled.replace(word.as_str(), tokens));
            }
        }
        let text = spelled.as_ref();
        let pieces = self.inner.encode_fast(text, false).and_then(|short| {
            // Offsets into the text are only needed where something is cut.
            if short.len() <= self.room() {
                Ok(short)
            } else {
                self.inner.encode(text, false)
            }
        });
        let pieces = pieces.map_err(|error| {
            Error::request(
                "prompt",
                "text that the model's vocabulary can spell",
                error,
            )
        })?;
        let kept = pieces.len().min(self.room());
        let mut ids = Vec::with_capacity(self.max_length());
        ids.push(self.ids.begin);
        ids.extend_from_slice(&pieces.get_ids()[..kept]);
        ids.push(self.ids.end);
        ids.resize(self.max_length(), self.ids.pad);
        Ok(Encoding {
            ids,
            length: pieces.len(),
            truncated: cut_words(text, &pieces, kept),
        })
    }

    /// How many ids an encoded text has, marks and padding included: 77 for CLIP.
    pub fn max_length(&self) -> usize {
        self.special.max_length
    }

    /// One more than the largest id: what a text encoder's `vocab_size` must be at least.
    pub fn vocab_size(&self) -> usize {
        self.inner
            .get_vocab(true)
            .values()
            .max()
            .map_or(0, |&id| id as usize + 1)
    }

    /// The tokens of the vocabulary with their ids, as `vocab.json` has them, in no order.
    pub fn tokens(&self) -> impl Iterator<Item = (&str, u32)> {
        self.vocabulary.ids()
    }

    /// The id of a token, spelled as `vocab.json` has it: `car</w>`.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The id before every text.
    pub fn begin_id(&self) -> u32 {
        self.ids.begin
    }

    /// The id after every text.
    pub fn end_id(&self) -> u32 {
        self.ids.end
    }

    /// The id that fills the rest.
    pub fn pad_id(&self) -> u32 {
        self.ids.pad
    }

    /// Writes the folder `dir` as `transformers` reads it: `vocab.json`, `merges.txt`, `special_tokens_map.json`,
    /// `tokenizer_config.json`.
    ///
    /// # Errors
    ///
    /// The folder is not writable or the disk is full.
    pub fn save(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).map_err(Error::io("make the folder", dir))?;
        for (name, text) in self
            .vocabulary
            .files()
            .into_iter()
            .chain(self.special.files())
        {
            write_atomically(&dir.join(name), |out| {
                std::io::Write::write_all(out, text.as_bytes())
            })?;
        }
        Ok(())
    }

    /// How many ids there are for the text between its two marks.
    fn room(&self) -> usize {
        self.special.max_length - 2
    }

    /// What the pattern cuts `text` into, spelled in byte characters.
    fn pieces(&self, text: &str) -> Result<Vec<String>> {
        // Not `encode_fast`, which leaves out the words.
        let encoded = self.inner.encode(text, false);
        let encoded = encoded.map_err(|error| Error::format("", error.to_string()))?;
        // Every token is a byte here; those with the same word belong together.
        let mut pieces: Vec<(Option<u32>, String)> = Vec::new();
        for (token, &word) in encoded.get_tokens().iter().zip(encoded.get_word_ids()) {
            let token = token.strip_suffix(vocabulary::END_OF_WORD).unwrap_or(token);
            match pieces.last_mut() {
                Some((last, piece)) if *last == word => piece.push_str(token),
                _ => pieces.push((word, token.to_owned())),
            }
        }
        Ok(pieces.into_iter().map(|(_, piece)| piece).collect())
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "Tokenizer({} tokens, {:?})",
            self.vocab_size(),
            self.special
        )
    }
}

/// The words from the first one on that has not all its tokens among the first `kept`.
fn cut_words(text: &str, pieces: &Pieces, kept: usize) -> Vec<String> {
    let (Some(&(cut, _)), Some(&word)) = (
        pieces.get_offsets().get(kept),
        pieces.get_word_ids().get(kept),
    ) else {
        return Vec::new();
    };
    let offsets = pieces.get_offsets()[..kept].iter().rev();
    let whole = offsets
        .zip(pieces.get_word_ids()[..kept].iter().rev())
        .take_while(|&(&(start, end), &other)| {
            word.is_some() && other == word && start <= end && end <= cut
        })
        .last()
        .map_or(cut, |(&(start, _), _)| start);
    let start = if cut - whole <= LONGEST_WORD {
        whole
    } else {
        cut
    };
    let start = text.floor_char_boundary(start);
    text[start..]
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// Puts the parts together as `CLIPTokenizer` does.
fn build(vocabulary: &Vocabulary, special: &Special) -> tokenizers::Result<tokenizers::Tokenizer> {
    let ids: Vocab = vocabulary
        .ids()
        .map(|(token, id)| (token.to_owned(), id))
        .collect();
    let model = BPE::builder()
        .vocab_and_merges(ids, vocabulary.merges().to_vec())
        .unk_token(special.unknown.clone())
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix(vocabulary::END_OF_WORD.to_owned())
        .build()?;
    let mut inner = tokenizers::Tokenizer::new(model);
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ")?;
    inner.with_normalizer(Some(Normalizers::new(vec![
        NormalizerWrapper::NFC(NFC),
        NormalizerWrapper::Replace(spaces),
        NormalizerWrapper::Lowercase(Lowercase),
    ])))?;
    let pattern = SplitPattern::Regex(WORDS.to_owned());
    inner.with_pre_tokenizer(Some(PreTokenizers::new(vec![
        PreTokenizerWrapper::Split(Split::new(pattern, SplitDelimiterBehavior::Removed, true)?),
        PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true)),
    ])));
    inner.add_tokens(special.added())?;
    Ok(inner)
}
