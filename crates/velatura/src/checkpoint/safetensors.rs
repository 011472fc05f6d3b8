//! Reading one safetensors file (<https://huggingface.co/docs/safetensors>): a memory map, a header that is believed only
//! after it has been checked, and numbers that become f32.

mod header;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::Dtype;
use velatura_kernels::elementwise::all_finite;
use velatura_kernels::pool::parallel_chunks_mut;

use self::header::{Header, TensorInfo};
use crate::error::{Error, Result};

/// Numbers that one thread converts at a time: 256 KiB of f32, which are checked while they are in its cache.
const PIECE: usize = 1 << 16;

/// Bytes of a file that are read at a time before their pages are given back.
const READ: usize = 16 << 20;

/// The bytes of a file: mapped, or compiled into the program.
enum Bytes {
    Mapped(memmap2::Mmap),
    Static(&'static [u8]),
    Empty,
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
            Bytes::Empty => &[],
        }
    }

    /// Gives the pages of a range back that has been read: they would otherwise count as this program's memory
    /// until the file is closed, next to what was made of them.
    fn forget(&self, begin: usize, len: usize) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = self {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // Where the system does not take the advice, nothing is lost.
            // SAFETY: a read-only map of a file; pages that are touched again come from the file again.
            #[allow(unsafe_code)]
            let _ = unsafe { map.unchecked_advise_range(advice, begin, len) };
        }
    }
}

/// An open safetensors file. Cloning is cheap.
#[derive(Clone)]
pub struct TensorFile {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    bytes: Bytes,
    /// Where the data begin.
    data: usize,
    tensors: BTreeMap<String, TensorInfo>,
    metadata: BTreeMap<String, String>,
}

/// One tensor of an open file: its description, and its bytes where they lie.
#[derive(Clone, Copy)]
pub struct TensorView<'a> {
    /// The file it stands in.
    pub file: &'a Path,
    /// Its name there.
    pub name: &'a str,
    /// Its shape there.
    pub shape: &'a [usize],
    /// The type of its numbers.
    pub dtype: Dtype,
    /// Its numbers, little-endian, not aligned to anything.
    pub bytes: &'a [u8],
    /// The whole file, and where in it the numbers begin.
    home: &'a Bytes,
    begin: usize,
}

impl TensorFile {
    /// Maps the file at `path` and checks its header.
    ///
    /// # Errors
    ///
    /// The file is missing, cut short, or its header is not that of a safetensors file.
    pub fn open(path: &Path) -> Result<TensorFile> {
        let file = File::open(path).map_err(Error::io("open the weights", path))?;
        let meta = file
            .metadata()
            .map_err(Error::io("open the weights", path))?;
        if !meta.is_file() {
            return Err(Error::format(
                path,
                "expected a safetensors file, found something that is not a file",
            ));
        }
        // An empty range cannot be mapped on every system; the header check below says what is wrong with it.
        let bytes = if meta.len() == 0 {
            Bytes::Empty
        } else {
            // SAFETY: the map is read-only and private to this type. As with every memory map, another process
            // that shortens the file meanwhile ends this one with a signal; what we write ourselves goes to a new
            // file which is then renamed, so that our own saving never touches a mapped file.
            #[allow(unsafe_code)]
            let map = unsafe { memmap2::Mmap::map(&file) };
            Bytes::Mapped(map.map_err(Error::io("map the weights into memory", path))?)
        };
        TensorFile::new(path.to_path_buf(), bytes)
    }

    /// A file that is compiled into the program; `path` is what errors call it.
    ///
    /// # Errors
    ///
    /// As [`TensorFile::open`].
    pub fn from_static(path: impl Into<PathBuf>, bytes: &'static [u8]) -> Result<TensorFile> {
        TensorFile::new(path.into(), Bytes::Static(bytes))
    }

    fn new(path: PathBuf, bytes: Bytes) -> Result<TensorFile> {
        let (data, Header { tensors, metadata }) =
            Header::read(bytes.as_slice()).map_err(|error| error.in_file(&path))?;
        Ok(TensorFile {
            inner: Arc::new(Inner {
                path,
                bytes,
                data,
                tensors,
                metadata,
            }),
        })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The whole file, header and all, piece by piece.
    pub fn for_each_piece(&self, mut see: impl FnMut(&[u8])) {
        for (i, piece) in self.bytes().chunks(READ).enumerate() {
            see(piece);
            self.inner.bytes.forget(i * READ, piece.len());
        }
    }

    /// What tells the whole file, header and all, from one that was edited: checksums of its pieces. Made on all threads, in a
    /// tenth of the time of a hash that withstands intent.
    pub(crate) fn fingerprint(&self) -> Vec<u8> {
        let pieces: Vec<&[u8]> = self.bytes().chunks(READ).collect();
        let mut sums = vec![0_u32; pieces.len()];
        parallel_chunks_mut(&mut sums, 1, |i, sum| {
            sum[0] = crc32fast::hash(pieces[i]);
            self.inner.bytes.forget(i * READ, pieces[i].len());
        });
        let sums = sums.into_iter().flat_map(u32::to_le_bytes);
        (self.len() as u64)
            .to_le_bytes()
            .into_iter()
            .chain(sums)
            .collect()
    }

    /// Bytes of the whole file.
    pub(crate) fn len(&self) -> usize {
        self.bytes().len()
    }

    fn bytes(&self) -> &[u8] {
        self.inner.bytes.as_slice()
    }

    /// What the header's `__metadata__` says under `key`.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.inner.metadata.get(key).map(String::as_str)
    }

    /// The names in the file, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.inner.tensors.keys().map(String::as_str)
    }

    /// The tensor with this name in the file.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let (name, info) = self.inner.tensors.get_key_value(name)?;
        let (begin, end) = info.data_offsets;
        let begin_in_file = self.inner.data + begin;
        Some(TensorView {
            file: &self.inner.path,
            name,
            shape: &info.shape,
            dtype: info.dtype,
            bytes: self.bytes().get(begin_in_file..self.inner.data + end)?,
            home: &self.inner.bytes,
            begin: begin_in_file,
        })
    }
}

impl TensorView<'_> {
    /// The numbers as f32, in the file's order.
    ///
    /// # Errors
    ///
    /// The numbers are not f32, f16 or bf16, or one of them is NaN or infinite.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.shape.iter().product()];
        self.read_f32(&mut values)?;
        Ok(values)
    }

    /// As [`TensorView::to_f32`], into memory that is there already, on all threads.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// When `values` has not as many places as the tensor has numbers.
    pub fn read_f32(&self, values: &mut [f32]) -> Result<()> {
        let (size, convert): (usize, Convert) = match self.dtype {
            Dtype::F32 => (4, |bytes, values| {
                let (numbers, _) = bytes.as_chunks();
                for (value, &number) in values.iter_mut().zip(numbers) {
                    *value = f32::from_le_bytes(number);
                }
            }),
            Dtype::F16 => (2, |bytes, values| widen(bytes, values, f16::from_le_bytes)),
            Dtype::BF16 => (2, |bytes, values| widen(bytes, values, bf16::from_le_bytes)),
            other => {
                return Err(Error::tensor(
                    self.name,
                    "weights of type F32, F16 or BF16",
                    format!("type {other:?}; convert the checkpoint to one of these"),
                )
                .in_file(self.file));
            }
        };
        assert_eq!(
            self.bytes.len(),
            values.len() * size,
            "room for {}",
            self.name
        );
        let finite = AtomicBool::new(true);
        parallel_chunks_mut(values, PIECE, |i, values| {
            convert(
                &self.bytes[i * PIECE * size..][..values.len() * size],
                values,
            );
            if !all_finite(values) {
                finite.store(false, Ordering::Relaxed);
            }
        });
        if !finite.into_inner() {
            return Err(self.not_finite(values));
        }
        self.home.forget(self.begin, self.bytes.len());
        Ok(())
    }

    /// Says which of the numbers are none.
    fn not_finite(&self, values: &[f32]) -> Error {
        let wrong = || {
            values
                .iter()
                .enumerate()
                .filter(|(_, value)| !value.is_finite())
        };
        let (index, value) = wrong().next().unwrap_or((0, &0.0));
        Error::tensor(
            self.name,
            "finite numbers",
            format!(
                "{value} at index {index} of {} ({} such in all); the checkpoint is damaged or its training diverged",
                values.len(),
                wrong().count()
            ),
        )
        .in_file(self.file)
    }
}

/// From a file's bytes to as many numbers as they are.
type Convert = fn(&[u8], &mut [f32]);

/// Converts numbers of 16 bits a few at a time, which the processor has instructions for.
fn widen<T: Copy + Default>(bytes: &[u8], values: &mut [f32], parse: fn([u8; 2]) -> T)
where
    [T]: HalfFloatSliceExt,
{
    const FEW: usize = 256;
    let mut few = [T::default(); FEW];
    let (numbers, _) = bytes.as_chunks();
    for (numbers, values) in numbers.chunks(FEW).zip(values.chunks_mut(FEW)) {
        let few = &mut few[..numbers.len()];
        for (x, &number) in few.iter_mut().zip(numbers) {
            *x = parse(number);
        }
        few.convert_to_f32_slice(values);
    }
}
