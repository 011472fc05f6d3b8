//! The header of a safetensors file: eight bytes with its length N, little-endian; N bytes of JSON
//! `{name: {dtype, shape, data_offsets: [begin, end]}}` with an optional `__metadata__`; then the data, without gaps.
//!
//! It is parsed here and not by the `safetensors` crate, because its sums of hostile offsets can overflow, because it
//! overlooks names which occur twice, and because its errors do not name the tensor.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use safetensors::Dtype;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::error::{Error, Result};

/// The specification's limit on the header, in bytes.
const MAX_HEADER: u64 = 100_000_000;

/// The header, in which a name may occur only once.
pub(super) struct Header {
    pub tensors: BTreeMap<String, TensorInfo>,
    pub metadata: BTreeMap<String, String>,
}

/// What the header says of one tensor; the range has been checked against the file.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct TensorInfo {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub data_offsets: (usize, usize),
}

impl Header {
    /// Checks everything that is believed later. Returns where the data begin, and what the header says.
    pub fn read(bytes: &[u8]) -> Result<(usize, Header)> {
        let wrong = |message: String| Error::Format {
            file: PathBuf::new(),
            message,
        };
        let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
            return Err(wrong(format!(
                "expected a safetensors file, found only {} bytes; the file was cut short, fetch or write it again",
                bytes.len()
            )));
        };
        let length = u64::from_le_bytes(*length);
        if length > MAX_HEADER {
            return Err(wrong(format!(
                "this is not a safetensors file: its first eight bytes announce a header of {length} bytes \
                 (at most {MAX_HEADER} are allowed); if it is a .ckpt or .bin under another name, convert it"
            )));
        }
        let Some(header) = rest.get(..length as usize) else {
            return Err(wrong(format!(
                "the header announces {length} bytes, and the file ends after {}; it was cut short \
                 (or is no safetensors file), fetch or write it again",
                rest.len()
            )));
        };
        let header_length = header.len();
        let header: Header = serde_json::from_slice(header)
            .map_err(|error| wrong(format!("the safetensors header cannot be read: {error}")))?;
        check_ranges(&header.tensors, rest.len() - header_length)?;
        Ok((8 + header_length, header))
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object with one entry per tensor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                use serde::de::Error as _;
                let mut tensors = BTreeMap::new();
                let mut metadata = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        // Other people's notes, of which only texts are of use here.
                        let notes: serde_json::Value = map.next_value()?;
                        metadata = notes
                            .as_object()
                            .into_iter()
                            .flatten()
                            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.into())))
                            .collect();
                    } else {
                        let info = map.next_value().map_err(|error| {
                            A::Error::custom(format!("tensor `{name}`: {error}"))
                        })?;
                        if tensors.insert(name.clone(), info).is_some() {
                            return Err(A::Error::custom(format!("tensor `{name}` occurs twice")));
                        }
                    }
                }
                Ok(Header { tensors, metadata })
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Every tensor has as many bytes as its shape needs, and together they fill the `available` bytes without gap or
/// overlap.
fn check_ranges(tensors: &BTreeMap<String, TensorInfo>, available: usize) -> Result<()> {
    let mut in_order: Vec<(&String, &TensorInfo)> = tensors.iter().collect();
    in_order.sort_by_key(|(_, info)| info.data_offsets);
    let mut reached = 0;
    for (name, info) in in_order {
        let (begin, end) = info.data_offsets;
        let bits = info
            .shape
            .iter()
            .try_fold(info.dtype.bitsize(), |product, &dim| {
                product.checked_mul(dim)
            })
            .filter(|bits| bits % 8 == 0);
        let Some(size) = bits.map(|bits| bits / 8) else {
            return Err(Error::tensor(
                name,
                "a shape that fits into memory",
                format!("{:?}", info.shape),
            ));
        };
        if end.checked_sub(begin) != Some(size) {
            return Err(Error::tensor(
                name,
                format!("{size} bytes for {:?} of type {:?}", info.shape, info.dtype),
                format!("the byte range {begin}..{end}; the file's header is damaged"),
            ));
        }
        if begin != reached {
            return Err(Error::tensor(
                name,
                format!("data from byte {reached} on, where the tensor before it ends"),
                format!("data from byte {begin} on; the file's header is damaged"),
            ));
        }
        if end > available {
            return Err(Error::tensor(
                name,
                format!("data up to byte {end}"),
                format!(
                    "a file that ends after {available} bytes of data; it was cut short, fetch or write it again"
                ),
            ));
        }
        reached = end;
    }
    if reached != available {
        return Err(Error::Format {
            file: PathBuf::new(),
            message: format!(
                "the header describes {reached} bytes of data, and the file has {available}; it is damaged"
            ),
        });
    }
    Ok(())
}
