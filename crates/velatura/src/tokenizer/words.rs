//! Small vocabularies: merges that make whole words.

use std::collections::{BTreeSet, HashMap};

use super::vocabulary::{END_OF_WORD, Vocabulary};

/// A vocabulary in which each of `words`, spelled in byte characters, is one token.
///
/// Word by word, in alphabetical order so that words share their beginnings: what the merges so far make of the word
/// is joined from the left until one token is left. Later merges have a higher rank and are applied only where no
/// earlier one can be, so that no word that was whole falls apart again.
pub(super) fn vocabulary(words: Vec<String>) -> Vocabulary {
    let mut merges: Vec<(String, String)> = Vec::new();
    let mut ranks: HashMap<(String, String), usize> = HashMap::new();
    for word in words.into_iter().collect::<BTreeSet<_>>() {
        loop {
            let parts = split(&word, &ranks);
            let [first, second, ..] = &parts[..] else {
                break;
            };
            let pair = (first.clone(), second.clone());
            ranks.insert(pair.clone(), merges.len());
            merges.push(pair);
        }
    }
    Vocabulary::new(merges)
}

/// Byte-pair encoding in its plainest form: the characters of `word`, the last one marked, joined by the merge of the
/// lowest rank until none applies.
pub(super) fn split(word: &str, ranks: &HashMap<(String, String), usize>) -> Vec<String> {
    let mut parts: Vec<String> = word.chars().map(String::from).collect();
    if let Some(last) = parts.last_mut() {
        last.push_str(END_OF_WORD);
    }
    loop {
        let pairs = parts.windows(2).enumerate();
        let best = pairs.filter_map(|(i, pair)| {
            let rank = ranks.get(&(pair[0].clone(), pair[1].clone()))?;
            Some((*rank, i))
        });
        let Some((_, i)) = best.min() else {
            return parts;
        };
        let second = parts.remove(i + 1);
        parts[i].push_str(&second);
    }
}
