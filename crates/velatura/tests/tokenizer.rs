//! The same ids as transformers' CLIPTokenizer for every fixture string (`fixtures/make_tokenizer.py`).

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use velatura::tokenizer::Tokenizer;

#[derive(Deserialize)]
struct Strings {
    strings: Vec<String>,
}

#[derive(Deserialize)]
struct Expected {
    max_length: usize,
    pad: u32,
    ids: Vec<Vec<u32>>,
}

#[derive(Deserialize)]
struct ClipCase {
    sha256: String,
    files: BTreeMap<String, serde_json::Value>,
    #[serde(flatten)]
    expected: Expected,
}

#[derive(Deserialize)]
struct Words {
    folder: String,
    words: Vec<String>,
    merges: Vec<String>,
}

fn json<T: DeserializeOwned>(path: &Path) -> T {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What is in a folder, sorted.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn check(case: &str, tokenizer: &Tokenizer, strings: &[String], expected: &Expected) {
    assert_eq!(tokenizer.max_length(), expected.max_length, "{case}");
    assert_eq!(tokenizer.pad_id(), expected.pad, "{case}");
    assert_eq!(strings.len(), expected.ids.len(), "{case}");
    let mut wrong = Vec::new();
    for (text, ids) in strings.iter().zip(&expected.ids) {
        let mut ids = ids.clone();
        ids.resize(expected.max_length, expected.pad);
        let found = tokenizer.encode(text).unwrap();
        if found.ids != ids {
            wrong.push(format!(
                "{:?}\n  expected {ids:?}\n  found    {:?}",
                shorten(text),
                found.ids
            ));
        }
        assert_eq!(
            found.truncated.is_empty(),
            found.length + 2 <= expected.max_length,
            "{case}: {text:?}"
        );
    }
    assert!(
        wrong.is_empty(),
        "{case}: {} of {} differ:\n{}",
        wrong.len(),
        strings.len(),
        wrong.join("\n")
    );
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

#[test]
fn clip_ids_are_those_of_transformers() {
    let Some(folder) = support::topic("tokenizer") else {
        return;
    };
    let Strings { strings } = json(&folder.join("strings.json"));
    let clip = Tokenizer::clip().unwrap();
    let mut cases = 0;
    for path in entries(&folder.join("clip")) {
        let name = path.display().to_string();
        let case: ClipCase = json(&path);
        let dir = tempfile::tempdir().unwrap();
        clip.save(dir.path()).unwrap();
        let merges = fs::read_to_string(dir.path().join("merges.txt")).unwrap();
        let merges = merges.strip_prefix("#version: 0.2\n").unwrap();
        let sha256 = Sha256::digest(merges)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        assert_eq!(sha256, case.sha256, "the built-in merge list is OpenAI's");
        for settings in ["tokenizer_config.json", "special_tokens_map.json"] {
            fs::remove_file(dir.path().join(settings)).unwrap();
        }
        for (file, content) in &case.files {
            fs::write(dir.path().join(file), content.to_string()).unwrap();
        }
        check(
            &name,
            &Tokenizer::from_folder(dir.path()).unwrap(),
            &strings,
            &case.expected,
        );
        if case.files.is_empty() {
            check("built in", &clip, &strings, &case.expected);
        }
        cases += 1;
    }
    assert!(cases > 0, "no cases in {}", folder.display());
}

#[test]
fn folders_give_the_ids_of_transformers() {
    let Some(folder) = support::topic("tokenizer") else {
        return;
    };
    let mut cases = 0;
    for path in entries(&folder.join("folders")) {
        let Strings { strings } = json(&path.join("expected.json"));
        let expected: Expected = json(&path.join("expected.json"));
        let tokenizer = Tokenizer::from_folder(&path).unwrap();
        check(&path.display().to_string(), &tokenizer, &strings, &expected);
        // What we write is read as the same.
        let dir = tempfile::tempdir().unwrap();
        tokenizer.save(dir.path()).unwrap();
        check(
            "saved again",
            &Tokenizer::from_folder(dir.path()).unwrap(),
            &strings,
            &expected,
        );
        cases += 1;
    }
    assert!(cases > 0, "no cases in {}", folder.display());
}

#[test]
fn every_word_of_a_new_vocabulary_is_one_token() {
    let Some(folder) = support::topic("tokenizer") else {
        return;
    };
    let case: Words = json(&folder.join("words.json"));
    let tokenizer = Tokenizer::train_words(case.words.iter().map(String::as_str)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    tokenizer.save(dir.path()).unwrap();
    let merges = fs::read_to_string(dir.path().join("merges.txt")).unwrap();
    assert_eq!(merges.lines().skip(1).collect::<Vec<_>>(), case.merges);
    // transformers has read a folder with these very contents.
    let of = |dir: &Path| json::<BTreeMap<String, u32>>(&dir.join("vocab.json"));
    assert_eq!(
        of(dir.path()),
        of(&folder.join("folders").join(&case.folder))
    );
    assert_eq!(tokenizer.vocab_size(), 512 + case.merges.len() + 2);
    for word in &case.words {
        let pieces = if word.contains(['-', '\'']) || word == "42" {
            2..=3
        } else {
            1..=1
        };
        let encoding = tokenizer.encode(word).unwrap();
        assert!(pieces.contains(&encoding.length), "{word}: {encoding:?}");
    }
}

#[test]
fn the_words_that_were_cut_are_told() {
    let tokenizer = Tokenizer::clip().unwrap();
    let mut words: Vec<String> = (0..74).map(|_| "cat".to_owned()).collect();
    words.extend([
        "Photosynthetically".to_owned(),
        "grown,".to_owned(),
        "Café".to_owned(),
    ]);
    let encoding = tokenizer.encode(&words.join("  ")).unwrap();
    assert_eq!(encoding.ids.len(), 77);
    assert!(encoding.length > 77);
    assert_eq!(encoding.truncated, ["Photosynthetically", "grown,", "Café"]);
    // Without spaces there are no words; then what is shown begins at the cut, and never within a character.
    let encoding = tokenizer.encode(&"🦜漢".repeat(400)).unwrap();
    assert!(encoding.truncated[0].chars().count() < 800);
    assert_eq!(
        tokenizer.encode("").unwrap().truncated,
        Vec::<String>::new()
    );
}

/// The files of a folder, and what the error says.
type Broken<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);

#[test]
fn broken_tokenizers_are_explained() {
    let good = [
        (
            "vocab.json",
            r#"{"a": 0, "b</w>": 1, "ab</w>": 2, "<|startoftext|>": 3, "<|endoftext|>": 4}"#,
        ),
        ("merges.txt", "#version: 0.2\na b</w>\n"),
    ];
    let tokenizer = Tokenizer::from_static("good", &good).unwrap();
    assert_eq!(tokenizer.encode("ab").unwrap().ids[..4], [3, 2, 4, 4]);
    let broken: &[Broken] = &[
        (&[], &["vocab.json", "nothing of the kind"]),
        (&[good[0]], &["merges.txt", "found vocab.json"]),
        (&[("vocab.json", "{"), good[1]], &["vocab.json", "not JSON"]),
        (
            &[("vocab.json", r#"{"a": "x"}"#), good[1]],
            &["vocab.json", "`a`", "u32"],
        ),
        (
            &[("vocab.json", r#"{"a": 1, "b": 1}"#), good[1]],
            &["vocab.json", "one id for each token"],
        ),
        (
            &[("vocab.json", "{}"), ("merges.txt", "")],
            &["vocab.json", "none"],
        ),
        (
            &[good[0], ("merges.txt", "a b</w>\na")],
            &["merges.txt", "line 2", "two tokens"],
        ),
        (
            &[good[0], ("merges.txt", "a c")],
            &["merges.txt", "merge 1", "`c`"],
        ),
        (
            &[("tokenizer.json", r#"{"added_tokens": []}"#)],
            &["tokenizer.json", "`model`", "missing"],
        ),
        (
            &[(
                "tokenizer.json",
                r#"{"model": {"type": "WordPiece", "vocab": {}}}"#,
            )],
            &["model.type", "BPE", "WordPiece"],
        ),
        (
            &[(
                "tokenizer.json",
                r#"{"model": {"type": "BPE", "vocab": [1]}}"#,
            )],
            &["model.vocab"],
        ),
        (
            &[
                good[0],
                good[1],
                ("tokenizer_config.json", r#"{"model_max_length": 2}"#),
            ],
            &[
                "tokenizer_config.json",
                "model_max_length",
                "at least 3",
                "found 2",
            ],
        ),
        (
            &[
                good[0],
                good[1],
                ("tokenizer_config.json", r#"{"pad_token": 7}"#),
            ],
            &["tokenizer_config.json", "pad_token", "found 7"],
        ),
        (
            &[good[0], good[1], ("special_tokens_map.json", "[]")],
            &["special_tokens_map.json"],
        ),
    ];
    for (files, expected) in broken {
        let message = Tokenizer::from_static("broken", files)
            .unwrap_err()
            .to_string();
        for part in *expected {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    }
    // A vocabulary that cannot spell everything takes what is unknown for the unknown token.
    assert_eq!(tokenizer.encode("z").unwrap().ids[..3], [3, 4, 4]);
    let missing = Tokenizer::from_folder(Path::new("no/such/folder"))
        .unwrap_err()
        .to_string();
    assert!(missing.contains("no/such/folder"), "{missing}");
}
