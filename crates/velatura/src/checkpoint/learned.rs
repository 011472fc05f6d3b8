//! Words that a text encoder was taught (textual inversion: Gal et al. 2022, arXiv:2208.01618), as the files in which
//! they are passed on.

use std::path::Path;

use velatura_tensor::Tensor;

use super::{FloatType, TensorFile, save_tensors};
use crate::error::{Error, Result};

/// The tensor's name in web UIs' files, where the word is the file's name.
const NAMELESS: &str = "emb_params";

/// A word and its rows for the table of tokens.
#[derive(Clone, Debug)]
pub struct LearnedWord {
    /// How prompts spell it.
    pub word: String,
    /// `[n, D]`: one row for each of its tokens.
    pub rows: Tensor,
}

impl LearnedWord {
    /// Reads a file of diffusers (`learned_embeds.safetensors`, one tensor with the word as its name) or of a web UI.
    ///
    /// # Errors
    /// The file is missing, damaged, or holds something else.
    pub fn open(path: &Path) -> Result<LearnedWord> {
        let file = TensorFile::open(path)?;
        let names: Vec<&str> = file.names().collect();
        let wrong = |found: String| {
            Error::format(
                path,
                format!(
                    "expected one tensor, which is a learned word, of shape [D] or [n, D]; found {found}"
                ),
            )
        };
        let [name] = names[..] else {
            return Err(wrong(format!("{} tensors", names.len())));
        };
        let Some(view) = file.tensor(name) else {
            return Err(wrong("none".into()));
        };
        let shape = match *view.shape {
            [width] if width > 0 => [1, width],
            [count, width] if count > 0 && width > 0 => [count, width],
            ref other => return Err(wrong(format!("{name} of shape {other:?}"))),
        };
        let word = if name == NAMELESS {
            path.file_stem().unwrap_or_default().to_string_lossy()
        } else {
            name.into()
        };
        Ok(LearnedWord {
            word: word.into_owned(),
            rows: Tensor::from_vec(view.to_f32()?, &shape),
        })
    }

    /// Writes the file as diffusers does.
    ///
    /// # Errors
    /// A value is not finite or too large for `dtype`; the place is not writable; the disk is full.
    pub fn save(&self, path: &Path, dtype: FloatType) -> Result<()> {
        save_tensors(path, [(self.word.clone(), self.rows.clone())], dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_and_other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("style.safetensors");
        let word = LearnedWord {
            word: "<toy>".into(),
            rows: Tensor::from_vec(vec![1.0, 2.0], &[1, 2]),
        };
        word.save(&path, FloatType::F32).unwrap();
        let read = LearnedWord::open(&path).unwrap();
        assert_eq!(
            (read.word.as_str(), read.rows.shape()),
            ("<toy>", &[1, 2][..])
        );

        let write = |tensors: &[(&str, &[usize])]| {
            let tensors = tensors
                .iter()
                .map(|(name, shape)| ((*name).to_owned(), Tensor::zeros(shape)));
            save_tensors(&path, tensors, FloatType::F32).unwrap();
            LearnedWord::open(&path)
        };
        assert_eq!(write(&[("emb_params", &[3, 4])]).unwrap().word, "style");
        assert_eq!(write(&[("<a>", &[4])]).unwrap().rows.shape(), [1, 4]);
        assert!(write(&[("a", &[4]), ("b", &[4])]).is_err());
        assert!(write(&[("a", &[1, 2, 3])]).is_err());
    }
}
