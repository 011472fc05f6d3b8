//! TensorBoard's event files: the figures of `metrics.jsonl` and the samples, for who likes to see them there.
//!
//! The format is a sequence of records (length, its CRC, data, their CRC), each with one `Event` of TensorFlow's
//! `event.proto` in protocol buffers, of which six fields are needed here.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{Error, Result};
use crate::progress::Row;

/// An event file that is being written.
pub(crate) struct Events {
    file: File,
    path: PathBuf,
}

impl Events {
    /// Begins the file of the run in `run` anew, with the `rows` that it goes on from.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn start(run: &Path, rows: &[Row]) -> Result<Events> {
        let dir = run.join("tensorboard");
        fs::create_dir_all(&dir).map_err(Error::io("make the folder", &dir))?;
        // TensorBoard takes every file whose name has "tfevents" in it. One name, so that steps which a killed run
        // did and a resumed one does again are not there twice.
        let path = dir.join("events.out.tfevents.0.velatura");
        let file = File::create(&path).map_err(Error::io("make", &path))?;
        let mut events = Events { file, path };
        events.record(0, &text(3, "brain.Event:2"))?;
        for row in rows {
            events.row(row)?;
        }
        Ok(events)
    }

    /// Writes the figures of a row.
    ///
    /// # Errors
    /// The disk is full.
    pub fn row(&mut self, row: &Row) -> Result<()> {
        let parts = row
            .parts
            .iter()
            .filter_map(|(name, value)| Some((format!("loss/{name}"), value.as_f64()? as f32)));
        let figures = [
            ("loss/total".to_owned(), row.loss),
            ("gradient_norm".to_owned(), row.gradient_norm),
            ("learning_rate".to_owned(), row.learning_rate as f32),
            ("images_per_second".to_owned(), row.images_per_second),
        ];
        let mut summary = Vec::new();
        for (tag, value) in figures.into_iter().chain(parts) {
            let mut entry = text(1, &tag);
            entry.push(field(2, FIXED32));
            entry.extend(value.to_le_bytes());
            summary.extend(bytes(1, &entry));
        }
        self.record(row.step, &bytes(5, &summary))
    }

    /// Writes the samples of a step: a PNG file's bytes and its size in pixels.
    ///
    /// # Errors
    /// The disk is full.
    pub fn picture(&mut self, step: u64, png: &[u8], size: (u32, u32)) -> Result<()> {
        let (width, height) = size;
        let mut image = number(1, u64::from(height));
        image.extend(number(2, u64::from(width)));
        // RGB
        image.extend(number(3, 3));
        image.extend(bytes(4, png));
        let mut entry = text(1, "samples");
        entry.extend(bytes(4, &image));
        self.record(step, &bytes(5, &bytes(1, &entry)))
    }

    /// Writes an event: time and step, and what it says.
    fn record(&mut self, step: u64, what: &[u8]) -> Result<()> {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let mut event = vec![field(1, FIXED64)];
        event.extend(now.as_secs_f64().to_le_bytes());
        event.extend(number(2, step));
        event.extend(what);
        let length = (event.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(&event);
        record.extend(masked_crc(&event).to_le_bytes());
        self.file
            .write_all(&record)
            .map_err(Error::io("write", &self.path))
    }
}

/// How a field's value is laid out, in protocol buffers' numbers.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

/// The byte before a field's value; field numbers are below 16 here.
fn field(number: u8, layout: u8) -> u8 {
    number << 3 | layout
}

fn number(which: u8, value: u64) -> Vec<u8> {
    let mut out = vec![field(which, VARINT)];
    push_varint(&mut out, value);
    out
}

fn bytes(which: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![field(which, BYTES)];
    push_varint(&mut out, value.len() as u64);
    out.extend(value);
    out
}

fn text(which: u8, value: &str) -> Vec<u8> {
    bytes(which, value.as_bytes())
}

/// Seven bits a byte, the lowest first; all but the last have their highest bit set.
fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// TensorFlow's disguise of a CRC, so that a CRC of data with CRCs in it is no trouble.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32 with Castagnoli's polynomial (RFC 3720, appendix B.4), bit by bit: a few hundred bytes a step.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            let carry = crc & 1 == 1;
            (crc >> 1) ^ if carry { 0x82f6_3b78 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_is_castagnolis() {
        // The check value of the CRC catalogue.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn records_are_whole_and_say_what_was_given() {
        let run = tempfile::tempdir().unwrap();
        let row = Row {
            step: 300,
            loss: 0.5,
            parts: serde_json::Map::from_iter([("kl".to_owned(), 2.0.into())]),
            gradient_norm: 1.5,
            learning_rate: 1e-3,
            images_per_second: 3.0,
            seconds: 1.0,
        };
        let mut events = Events::start(run.path(), &[row]).unwrap();
        events.picture(300, b"no picture", (2, 1)).unwrap();
        let all = fs::read(&events.path).unwrap();
        let mut rest = &all[..];
        let mut found = Vec::new();
        while !rest.is_empty() {
            let (length, after) = rest.split_at(8);
            let size = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            assert_eq!(after[..4], masked_crc(length).to_le_bytes());
            let event = &after[4..4 + size];
            assert_eq!(after[4 + size..][..4], masked_crc(event).to_le_bytes());
            found.push(event);
            rest = &after[8 + size..];
        }
        let holds = |event: &[u8], part: &[u8]| event.windows(part.len()).any(|w| w == part);
        assert_eq!(found.len(), 3);
        assert!(holds(found[0], b"brain.Event:2"));
        // Step 300 is 0b10_0101100.
        assert_eq!(found[1][9..12], [field(2, VARINT), 0xac, 0x02]);
        assert!(holds(found[1], b"\x0a\x07loss/kl\x15\x00\x00\x00\x40"));
        assert!(holds(found[2], b"no picture"));
    }
}
