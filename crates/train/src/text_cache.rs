//! What a frozen text encoder makes of each text, computed once and kept on disk.
//!
//! A folder named by a digest of the encoder's config and weights holds a file for each text, named by a digest of its
//! tokens; so whatever the text encoder or the tokenizer, nothing stale is ever read. Texts are encoded one at a time:
//! what comes out for a text then does not depend, not even in its last bits, on those that stand beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};
use velatura::checkpoint::{Component, FloatType, TensorFile, save_tensors};
use velatura::clip::ClipTextModel;
use velatura_tensor::Tensor;
use velatura_tensor::tape::no_grad;

use crate::dataset::hex;
use crate::error::{Error, Result};
use crate::live::say;

/// Of what is in the files; to be raised when the text encoder comes to compute something else.
const FORMAT: u32 = 1;
/// The tensor in a file: `[S, D]`.
const CONTEXT: &str = "context";

/// An open cache.
pub struct TextCache {
    dir: PathBuf,
    /// Whether a failure to write has been mentioned.
    complained: AtomicBool,
}

impl TextCache {
    /// Opens the cache in `caches` for the text encoder that lies in `component`.
    ///
    /// # Errors
    /// The folder cannot be made; the encoder's config cannot be read.
    pub fn open(caches: &Path, component: &Component) -> Result<TextCache> {
        let mut all = Sha256::new();
        all.update(format!("{FORMAT} "));
        let config = component.config_path();
        all.update(fs::read(&config).map_err(Error::io("read", &config))?);
        for file in component.files() {
            let mut hash = Sha256::new();
            file.for_each_piece(|piece| hash.update(piece));
            all.update(hash.finalize());
        }
        let dir = caches.join(format!("text-{}", &hex(&all.finalize())[..32]));
        fs::create_dir_all(&dir).map_err(Error::io("make the folder", &dir))?;
        Ok(TextCache {
            dir,
            complained: AtomicBool::new(false),
        })
    }

    /// What `encoder` makes of texts of `length` tokens: `ids: [B, S]` to `[B, S, D]`.
    pub fn context(&self, ids: &[u32], encoder: &ClipTextModel, length: usize) -> Tensor {
        let width = encoder.config().hidden_size;
        let mut values = Vec::with_capacity(ids.len() * width);
        for ids in ids.chunks_exact(length) {
            let path = self.path(ids);
            match read(&path, [length, width]) {
                Some(context) => values.extend(context),
                None => {
                    let context = no_grad(|| encoder.forward(ids, 1));
                    values.extend_from_slice(context.as_slice());
                    self.write(&path, context.reshape(&[length, width]));
                }
            }
        }
        Tensor::from_vec(values, &[ids.len() / length, length, width])
    }

    fn path(&self, ids: &[u32]) -> PathBuf {
        let mut all = Sha256::new();
        ids.iter().for_each(|id| all.update(id.to_le_bytes()));
        self.dir
            .join(format!("{}.safetensors", &hex(&all.finalize())[..32]))
    }

    /// A cache that cannot be written makes training slower, not wrong.
    fn write(&self, path: &Path, context: Tensor) {
        let written = save_tensors(path, [(CONTEXT.to_owned(), context)], FloatType::F32);
        if let Err(error) = written
            && !self.complained.swap(true, Ordering::Relaxed)
        {
            say(&format!("note: encoded texts are not kept: {error}"));
        }
    }
}

/// A text's context if it is there and whole.
fn read(path: &Path, shape: [usize; 2]) -> Option<Vec<f32>> {
    let file = TensorFile::open(path).ok()?;
    let view = file.tensor(CONTEXT).filter(|view| view.shape == shape)?;
    view.to_f32().ok()
}
