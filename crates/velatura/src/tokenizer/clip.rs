//! CLIP's own vocabulary, from the crate that carries it.
//!
//! `instant-clip-tokenizer` has OpenAI's merge list compiled in, but shows only what it encodes and decodes. Both can
//! be had back exactly. A token's bytes are what it decodes to. Its merge is what the earlier merges leave of those
//! bytes: a token came into being by joining two earlier ones, and applying all merges of lower rank ends at these
//! two. (That the result is OpenAI's list, line by line, is tested against the hash of the original.)
//!
//! We do not let that crate encode, because it differs from `transformers`: it does not bring text to NFC and spells
//! the marks otherwise.

use std::collections::HashMap;

use instant_clip_tokenizer::{Token, Tokenizer};

use super::vocabulary::{Vocabulary, byte_characters, byte_tokens};
use crate::error::{Error, Result};

/// Tokens before the first merge: the bytes, and the bytes at the end of a word.
const BYTES: u32 = 512;

/// Bytes that complete a character of which a token has only the rest: one, two or three continuation bytes.
const BEFORE: [&[u8]; 4] = [b"", b"\xc3", b"\xe1", b"\xf1"];

/// Bytes that complete a character which a token begins. What may follow depends on the first byte: E0 wants A0–BF,
/// ED wants 80–9F, F0 wants 90–BF, F4 wants 80–8F.
const AFTER: [&[u8]; 7] = [
    b"",
    b"\x80",
    b"\x80\x80",
    b"\xa0\x80",
    b"\x80\x80\x80",
    b"\x90\x80\x80",
    b"\x90\x80",
];

/// The 48894 merges, in order.
pub(super) fn vocabulary() -> Result<Vocabulary> {
    let source = Tokenizer::new();
    let end = u32::from(source.start_of_text().to_u16());
    let byte_ids = byte_ids();
    // The merging is done on ids; this is their text.
    let mut names: Vec<String> = byte_tokens().collect();
    let mut ranks: HashMap<(u32, u32), u32> = HashMap::with_capacity(end as usize);
    let mut merges = Vec::with_capacity(end as usize);
    for id in BYTES..end {
        let (bytes, ends_word) = bytes_of(&source, id, &byte_ids).ok_or_else(|| unreadable(id))?;
        let mut parts: Vec<u32> = bytes
            .iter()
            .map(|&byte| byte_ids[usize::from(byte)])
            .collect();
        if let Some(last) = parts.last_mut().filter(|_| ends_word) {
            *last += BYTES / 2;
        }
        join(&mut parts, &ranks);
        let [a, b] = parts[..] else {
            return Err(unreadable(id));
        };
        ranks.insert((a, b), id);
        merges.push((names[a as usize].clone(), names[b as usize].clone()));
        names.push(format!("{}{}", names[a as usize], names[b as usize]));
    }
    Ok(Vocabulary::new(merges))
}

fn unreadable(id: u32) -> Error {
    Error::format(
        "CLIP's built-in vocabulary",
        format!("token {id} cannot be had back"),
    )
}

/// The id of every byte's token.
fn byte_ids() -> [u32; 256] {
    let mut ids = [0; 256];
    for ((byte, _), id) in byte_characters().zip(0..) {
        ids[usize::from(byte)] = id;
    }
    ids
}

/// The bytes of a token, and whether it ends a word. A token can begin or end within a character; then it is decoded
/// between bytes that make the text whole, which are taken off again.
fn bytes_of(source: &Tokenizer, id: u32, byte_ids: &[u32; 256]) -> Option<(Vec<u8>, bool)> {
    let token = |id: u32| Token::from_u16(u16::try_from(id).ok()?, source);
    let decode = |before: &[u8], after: &[u8]| {
        let id_of = |byte: &u8| byte_ids[usize::from(*byte)];
        let ids = before
            .iter()
            .map(id_of)
            .chain([id])
            .chain(after.iter().map(id_of));
        let text = source.decode(ids.map(token).collect::<Option<Vec<_>>>()?);
        Some(
            text.as_bytes()
                .strip_prefix(before)?
                .strip_suffix(after)?
                .to_vec(),
        )
    };
    let replacement = "\u{fffd}".as_bytes();
    let broken = |bytes: &Vec<u8>| {
        bytes
            .windows(replacement.len())
            .any(|window| window == replacement)
    };
    let mut neighbours = BEFORE
        .iter()
        .flat_map(|before| AFTER.map(|after| (before, after)));
    // What nothing makes whole is the replacement character itself, which is a token too.
    let mut bytes = neighbours
        .find_map(|(before, after)| decode(before, after).filter(|bytes| !broken(bytes)))
        .or_else(|| decode(b"", b""))?;
    // The mark of a word's end is decoded as a space, and no token has a space of its own.
    let ends_word = bytes.pop_if(|last| *last == b' ').is_some();
    Some((bytes, ends_word))
}

/// Byte-pair encoding over ids.
fn join(parts: &mut Vec<u32>, ranks: &HashMap<(u32, u32), u32>) {
    loop {
        let pairs = parts.windows(2).enumerate();
        let best = pairs
            .filter_map(|(i, pair)| Some((*ranks.get(&(pair[0], pair[1]))?, i)))
            .min();
        let Some((made, i)) = best else { return };
        parts[i] = made;
        parts.remove(i + 1);
    }
}
