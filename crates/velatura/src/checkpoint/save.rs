//! Writing: everything goes to a temporary name beside its place, reaches the disk, and is then renamed. Whoever
//! reads sees the old or the new file, never half of one.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::{Deserialize, Serialize};
use velatura_tensor::Tensor;

use crate::error::{Error, Result};

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FloatType {
    /// 32 bits.
    F32,
    /// IEEE half precision: 11 bits of mantissa, up to 65504.
    F16,
    /// The upper half of an f32: 8 bits of mantissa, the range of f32.
    Bf16,
}

impl FloatType {
    fn dtype(self) -> Dtype {
        match self {
            FloatType::F32 => Dtype::F32,
            FloatType::F16 => Dtype::F16,
            FloatType::Bf16 => Dtype::BF16,
        }
    }

    fn encode(self, value: f32, out: &mut Vec<u8>) {
        match self {
            FloatType::F32 => out.extend(value.to_le_bytes()),
            FloatType::F16 => out.extend(f16::from_f32(value).to_le_bytes()),
            FloatType::Bf16 => out.extend(bf16::from_f32(value).to_le_bytes()),
        }
    }

    /// The largest f32 that stays finite when stored.
    fn max(self) -> f32 {
        match self {
            FloatType::F32 => f32::MAX,
            // Half a step above 65504 rounds to infinity.
            FloatType::F16 => 65519.996,
            FloatType::Bf16 => bf16::MAX.to_f32(),
        }
    }
}

/// Writes a component as diffusers (or, for a config without `_class_name`, transformers) would:
/// `dir/config.json` and `dir/diffusion_pytorch_model.safetensors` (or `model.safetensors`). Makes `dir` if needed.
/// The tensors have their canonical names and PyTorch's shapes.
///
/// # Errors
///
/// A value is not finite or too large for `dtype`; the folder is not writable; the disk is full. Nothing half
/// written remains.
pub fn save_component(
    dir: &Path,
    config: &serde_json::Value,
    tensors: impl IntoIterator<Item = (String, Tensor)>,
    dtype: FloatType,
) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io("make the folder", dir))?;
    let stem = if config.get("_class_name").is_some() {
        "diffusion_pytorch_model"
    } else {
        "model"
    };
    let path = dir.join(format!("{stem}.safetensors"));
    save_tensors(&path, tensors, dtype)?;
    let text = serde_json::to_string_pretty(config)
        .map_err(|error| Error::format(dir.join("config.json"), error.to_string()))?;
    write_atomically(&dir.join("config.json"), |out| writeln!(out, "{text}"))
}

/// Writes one safetensors file.
///
/// # Errors
///
/// As [`save_component`].
pub fn save_tensors(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, Tensor)>,
    dtype: FloatType,
) -> Result<()> {
    let tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
    let mut infos = Vec::with_capacity(tensors.len());
    let mut end = 0;
    for (name, tensor) in &tensors {
        if let Some(value) = tensor
            .as_slice()
            .iter()
            .find(|value| value.is_nan() || value.abs() > dtype.max())
        {
            let expected = format!(
                "finite numbers up to {} to store as {:?}",
                dtype.max(),
                dtype.dtype()
            );
            return Err(Error::tensor(name, expected, value).in_file(path));
        }
        let begin = end;
        end += tensor.len() * dtype.dtype().bitsize() / 8;
        let info = TensorInfo {
            dtype: dtype.dtype(),
            shape: tensor.shape().to_vec(),
            data_offsets: (begin, end),
        };
        infos.push((name.clone(), info));
    }
    // transformers refuses files that do not say that they come from PyTorch's world.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let header = Metadata::new(Some(metadata), infos)
        .map_err(|error| error.to_string())
        .and_then(|metadata| serde_json::to_string(&metadata).map_err(|error| error.to_string()))
        .map_err(|message| Error::format(path, message))?;
    // Padded, so that the data begin at a multiple of eight bytes.
    let padding = header.len().next_multiple_of(8) - header.len();
    write_atomically(path, |out| {
        out.write_all(&((header.len() + padding) as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        out.write_all(&b"       "[..padding])?;
        let mut bytes = Vec::new();
        for tensor in tensors.values() {
            // In pieces, so that a large tensor is not held twice.
            for piece in tensor.as_slice().chunks(1 << 16) {
                bytes.clear();
                piece
                    .iter()
                    .for_each(|&value| dtype.encode(value, &mut bytes));
                out.write_all(&bytes)?;
            }
        }
        Ok(())
    })
}

/// Writes the file at `path` through `write`: to a temporary name in the same folder, onto the disk, and then in one
/// step to its place.
///
/// # Errors
///
/// The folder is not writable or the disk is full. The temporary file is gone then, and what was at `path` is as
/// before.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> Result<()> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    let attempt = || -> io::Result<()> {
        let mut builder = tempfile::Builder::new();
        let prefix = format!(".{name}.");
        builder.prefix(&prefix).suffix(".tmp");
        // The usual permissions, from which the system takes the person's umask; a temporary file has 0600.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let file = builder.tempfile_in(dir)?;
        let mut out = BufWriter::with_capacity(1 << 20, file.as_file());
        write(&mut out)?;
        out.flush()?;
        drop(out);
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync_folder(dir)
    };
    attempt().map_err(Error::io("write the file", path))
}

/// Makes the folder at `path` through `write`, which gets a temporary folder beside it to fill. A folder that was
/// there before is replaced: for an instant there is none, and never half of one.
///
/// # Errors
///
/// Those of `write`; the place is not writable. The temporary folder is gone then.
pub fn write_folder_atomically(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let parent = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(parent).map_err(Error::io("make the folder", parent))?;
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    let prefix = format!(".{name}.");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o777));
    }
    let make = || {
        builder
            .tempdir_in(parent)
            .map_err(Error::io("make a folder beside", path))
    };
    let (new, old) = (make()?, make()?);
    write(new.path())?;
    sync_folder(new.path()).map_err(Error::io("write the folder", path))?;
    let exchange = || -> io::Result<()> {
        if path.symlink_metadata().is_ok() {
            let aside = old.path().join("old");
            std::fs::rename(path, &aside)?;
            if let Err(error) = std::fs::rename(new.path(), path) {
                // Better the old one than none.
                std::fs::rename(&aside, path)?;
                return Err(error);
            }
        } else {
            std::fs::rename(new.path(), path)?;
        }
        sync_folder(parent)
    };
    exchange().map_err(Error::io("put the new folder in its place", path))
}

/// Brings a folder's entries to the disk, so that a rename survives a power cut. Windows has no such call.
fn sync_folder(dir: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(dir)?.sync_all()
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        write_atomically(&path, |out| out.write_all(b"old")).unwrap();
        let error = write_atomically(&path, |out| {
            out.write_all(b"half of the new")?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        })
        .unwrap_err();
        assert!(error.to_string().contains("free some space"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model");
        let write = |text: &'static str| {
            write_folder_atomically(&path, |new| {
                std::fs::write(new.join(text), text).map_err(Error::io("write", new))
            })
        };
        write("first").unwrap();
        write("second").unwrap();
        let failed = write_folder_atomically(&path, |new| {
            std::fs::write(new.join("third"), "").map_err(Error::io("write", new))?;
            Err(Error::Cancelled)
        });
        assert!(failed.is_err());
        assert!(path.join("second").is_file() && !path.join("first").exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
