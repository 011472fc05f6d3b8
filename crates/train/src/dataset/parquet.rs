//! Parquet: tables with a column of pictures and one of captions, as Hugging Face's data sets are stored.
//!
//! A picture is the bytes of its file, either plain or in a struct `{bytes, path}`; a caption is a string, or a list of
//! strings. Of a file only its footer is kept in memory. To read a row, the pages before it are stepped over without
//! being unpacked, so a picture costs about one page, however large its row group is.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::Type;
use parquet::column::reader::ColumnReader;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::serialized_reader::SerializedRowGroupReader;
use parquet::schema::types::SchemaDescriptor;
use sha2::{Digest, Sha256};

use super::{Item, Pictures, Skipped, captions, hex, shards};
use crate::config::Source;
use crate::error::{Error, Result};
use crate::picture;

/// Pictures in Parquet files.
pub struct ParquetDataset {
    /// As the config names them.
    pattern: PathBuf,
    paths: Vec<PathBuf>,
    tables: Vec<Table>,
    groups: Vec<Group>,
    /// Rows in all.
    rows: u64,
    columns: [String; 2],
    captions_needed: bool,
}

/// What is kept of a file.
struct Table {
    footer: ParquetMetaData,
    /// The number of the column that holds the pictures' bytes.
    pictures: usize,
    /// The number of the column that holds the captions, where there is one.
    captions: Option<usize>,
}

/// A row group.
struct Group {
    table: u32,
    number: u32,
    /// Rows before it, of all files.
    first: u64,
}

impl ParquetDataset {
    /// Reads the footers of all files. The columns are those that `source` names, "image" and "text" if it does not.
    ///
    /// # Errors
    /// A file is missing, cut short or no Parquet; a column is missing or holds something else; there are no rows.
    pub fn open(pattern: &Path, source: &Source, captions_needed: bool) -> Result<ParquetDataset> {
        let name = |given: &Option<String>, usual: &str| given.clone().unwrap_or(usual.to_owned());
        let columns = [
            name(&source.image_column, "image"),
            name(&source.caption_column, "text"),
        ];
        let mut dataset = ParquetDataset {
            pattern: pattern.to_path_buf(),
            paths: shards::find(pattern, "parquet")?,
            tables: Vec::new(),
            groups: Vec::new(),
            rows: 0,
            columns,
            captions_needed,
        };
        // Captions that nobody needs are read where they are: flips go by them.
        let expected = captions_needed || source.caption_column.is_some();
        for (table, path) in dataset.paths.iter().enumerate() {
            let fault = |message: String| Error::data(path.display(), message);
            let file = File::open(path).map_err(Error::io("read", path))?;
            let footer = guarded(|| Ok(SerializedFileReader::new(file)?.metadata().clone()));
            let footer = footer.map_err(|error| {
                fault(format!(
                    "expected a whole Parquet file, found one that cannot be read: {error}"
                ))
            })?;
            let schema = footer.file_metadata().schema_descr();
            let [pictures, texts] = &dataset.columns;
            let captions = match column(schema, texts) {
                Err(_) if !expected => None,
                found => Some(found.map_err(|what| {
                    fault(what.message("caption_column", texts, "strings or lists of strings"))
                })?),
            };
            let pictures = column(schema, pictures).map_err(|what| {
                let content = "the bytes of picture files, or structs {bytes, path} of them";
                fault(what.message("image_column", pictures, content))
            })?;
            for (number, group) in footer.row_groups().iter().enumerate() {
                dataset.groups.push(Group {
                    table: table as u32,
                    number: number as u32,
                    first: dataset.rows,
                });
                let rows = group.num_rows().max(0) as u64;
                dataset.rows = dataset.rows.saturating_add(rows);
            }
            dataset.tables.push(Table {
                footer,
                pictures,
                captions,
            });
        }
        if !(1..=u64::from(u32::MAX)).contains(&dataset.rows) {
            let message = format!("expected 1 to {} rows, found {}", u32::MAX, dataset.rows);
            return Err(Error::data(dataset.place(), message));
        }
        Ok(dataset)
    }

    /// The row group of row `index`.
    fn group(&self, index: u64) -> &Group {
        // Of groups without rows, which begin where the next one does, the last is meant.
        &self.groups[self.groups.partition_point(|group| group.first <= index) - 1]
    }

    fn read(&self, index: u64) -> Result<Item, String> {
        let group = self.group(index);
        let table = &self.tables[group.table as usize];
        let path = &self.paths[group.table as usize];
        // Opened anew each time: threads that share an open file share its position.
        let file = Arc::new(File::open(path).map_err(|error| error.to_string())?);
        let row = (index - group.first) as usize;
        let cells = |column: usize| {
            guarded(|| cells(&file, &table.footer, group.number as usize, column, row))
        };
        let mut captions = Vec::new();
        if let Some(column) = table.captions {
            for cell in cells(column)? {
                captions.extend(captions::lines(cell.data().to_vec())?);
            }
        }
        if captions.is_empty() && self.captions_needed {
            return Err("its caption is empty".into());
        }
        match &cells(table.pictures)?[..] {
            [cell] => Ok(Item {
                picture: picture::decode_bytes(cell.data())?,
                captions,
            }),
            // Hugging Face's library writes a path without bytes where pictures stay in files of their own.
            _ => Err(format!("column {}: no bytes of a picture", self.columns[0])),
        }
    }
}

impl Pictures for ParquetDataset {
    fn len(&self) -> Option<u64> {
        Some(self.rows)
    }

    fn item(&self, index: u64) -> Result<Item, Skipped> {
        self.read(index).map_err(|reason| {
            let table = self.group(index).table;
            let before = self.groups.iter().find(|group| group.table == table);
            let row = index - before.map_or(0, |group| group.first);
            Skipped {
                file: format!("{}, row {row}", self.paths[table as usize].display()),
                reason,
            }
        })
    }

    fn place(&self) -> String {
        self.pattern.display().to_string()
    }

    fn fingerprint(&self) -> Result<String> {
        let mut all = Sha256::new();
        all.update(shards::digest(&self.paths)?);
        all.update(self.columns.join("\0"));
        Ok(hex(&all.finalize()))
    }
}

/// Runs `read`, and makes an error of a panic as well: the crate believes the lengths that a page states, and panics where
/// damage has changed them.
fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("its pages are damaged".into()),
    }
}

/// The values of a row in a column of bytes: none for a null, several for a list.
fn cells(
    file: &Arc<File>,
    footer: &ParquetMetaData,
    group: usize,
    column: usize,
    row: usize,
) -> Result<Vec<ByteArray>, ParquetError> {
    let properties = Arc::new(ReaderProperties::builder().build());
    let group = SerializedRowGroupReader::new(
        Arc::clone(file),
        footer.row_group(group),
        footer.page_index_for_row_group(group),
        properties,
    )?;
    let ColumnReader::ByteArrayColumnReader(mut reader) = group.get_column_reader(column)? else {
        return Err(ParquetError::General(
            "the column does not hold bytes".into(),
        ));
    };
    reader.skip_records(row)?;
    let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
    reader.read_records(
        1,
        Some(&mut definitions),
        Some(&mut repetitions),
        &mut values,
    )?;
    Ok(values)
}

/// Why a column cannot be used.
enum Fault {
    /// These are there.
    Missing(Vec<String>),
    /// It holds this.
    Type(String),
}

impl Fault {
    fn message(self, field: &str, column: &str, content: &str) -> String {
        match self {
            Fault::Missing(there) => format!(
                "{field}: expected a column {column:?}, found {}; name the right one by {field}",
                there.join(", ")
            ),
            Fault::Type(found) => {
                format!("{field}: expected {content} in the column {column:?}, found {found}")
            }
        }
    }
}

/// The number of the column of bytes that is, or is in, the field `name` of a row.
fn column(schema: &SchemaDescriptor, name: &str) -> Result<usize, Fault> {
    let parts = |column: usize| schema.column(column).path().parts().to_vec();
    let inside: Vec<usize> = (0..schema.num_columns())
        .filter(|&column| parts(column)[0] == name)
        .collect();
    if inside.is_empty() {
        let mut names: Vec<String> = (0..schema.num_columns())
            .map(|column| parts(column)[0].clone())
            .collect();
        names.dedup();
        return Err(Fault::Missing(names));
    }
    let holds_bytes = |column: usize| schema.column(column).physical_type() == Type::BYTE_ARRAY;
    let found = match inside[..] {
        [only] => Some(only),
        _ => inside
            .iter()
            .copied()
            .find(|&column| parts(column)[1..] == ["bytes"]),
    };
    found.filter(|&column| holds_bytes(column)).ok_or_else(|| {
        let types = inside.iter().map(|&column| {
            format!(
                "{} {}",
                parts(column).join("."),
                schema.column(column).physical_type()
            )
        });
        Fault::Type(types.collect::<Vec<_>>().join(", "))
    })
}
