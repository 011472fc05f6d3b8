//! Small data sets: pictures, archives and tables, whole ones and such with flaws.

use std::fs::{self, File};
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use image::{ImageFormat, Rgb, RgbImage};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

/// A picture that no other number has.
pub fn noisy(number: u32, width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([
            (x * y * (number + 1)) as u8,
            (x * 7 + number) as u8,
            (y * (number + 3)) as u8,
        ])
    })
}

/// As a PNG file.
pub fn png(picture: &RgbImage) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

/// A tar archive of these members.
pub fn write_tar(path: &Path, members: &[(&str, &[u8])]) {
    let mut archive = tar::Builder::new(File::create(path).unwrap());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *bytes).unwrap();
    }
    archive.into_inner().unwrap();
}

/// A Parquet file as Hugging Face writes it: the columns `image`, of structs {bytes, path}, and `text`; `group` rows in a
/// row group, three in a page. What is none becomes null.
pub fn write_parquet(path: &Path, rows: &[(Option<Vec<u8>>, Option<&str>)], group: usize) {
    let schema = "message schema {
        optional group image { optional binary bytes; optional binary path (UTF8); }
        optional binary text (UTF8);
    }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_data_page_row_count_limit(3)
        .set_write_batch_size(3)
        .build();
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    for rows in rows.chunks(group) {
        let mut group = writer.next_row_group().unwrap();
        let mut column = |values: Vec<ByteArray>, definitions: Vec<i16>| {
            let mut column = group.next_column().unwrap().unwrap();
            let typed = column.typed::<ByteArrayType>();
            typed
                .write_batch(&values, Some(&definitions), None)
                .unwrap();
            column.close().unwrap();
        };
        let bytes = rows
            .iter()
            .filter_map(|(bytes, _)| bytes.clone().map(ByteArray::from));
        let present = rows
            .iter()
            .map(|(bytes, _)| if bytes.is_some() { 2 } else { 1 });
        column(bytes.collect(), present.collect());
        column(Vec::new(), vec![1; rows.len()]);
        let texts = rows
            .iter()
            .filter_map(|(_, text)| text.map(ByteArray::from));
        let present = rows.iter().map(|(_, text)| i16::from(text.is_some()));
        column(texts.collect(), present.collect());
        group.close().unwrap();
    }
    writer.close().unwrap();
}

/// A Parquet file of one column of numbers.
pub fn write_numbers(path: &Path, column: &str) {
    let schema = parse_message_type(&format!("message schema {{ required int64 {column}; }}"));
    let file = File::create(path).unwrap();
    let mut writer =
        SerializedFileWriter::new(file, Arc::new(schema.unwrap()), Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut numbers = group.next_column().unwrap().unwrap();
    let typed = numbers.typed::<parquet::data_type::Int64Type>();
    typed.write_batch(&[1, 2], None, None).unwrap();
    numbers.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

/// The first part of a file, as an interrupted copy leaves it.
pub fn cut(path: &Path, length: usize) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..length]).unwrap();
}

/// `count` captioned pictures of different shapes in `dir`, once as a folder, once as archives and once as tables:
/// `pictures/`, `shards-0.tar` and `-1.tar`, `table.parquet`.
pub fn all_kinds(dir: &Path, count: u32) {
    let shapes = [(40, 40), (60, 30), (33, 35), (30, 64)];
    let files: Vec<(String, Vec<u8>, String)> = (0..count)
        .map(|n| {
            let (width, height) = shapes[n as usize % 4];
            let side = if n % 3 == 0 { " on the left" } else { "" };
            (
                format!("{n:03}"),
                png(&noisy(n, width, height)),
                format!("noise of kind {n}{side}"),
            )
        })
        .collect();
    fs::create_dir(dir.join("pictures")).unwrap();
    for (name, bytes, caption) in &files {
        fs::write(dir.join(format!("pictures/{name}.png")), bytes).unwrap();
        fs::write(dir.join(format!("pictures/{name}.txt")), caption).unwrap();
    }
    for (shard, files) in files.chunks(count.div_ceil(2) as usize).enumerate() {
        let names: Vec<[String; 2]> = files
            .iter()
            .map(|(name, ..)| [format!("{name}.png"), format!("{name}.txt")])
            .collect();
        let mut members = Vec::new();
        for (names, (_, bytes, caption)) in names.iter().zip(files) {
            members.push((names[0].as_str(), bytes.as_slice()));
            members.push((names[1].as_str(), caption.as_bytes()));
        }
        write_tar(&dir.join(format!("shards-{shard}.tar")), &members);
    }
    let rows: Vec<_> = files
        .iter()
        .map(|(_, bytes, caption)| (Some(bytes.clone()), Some(caption.as_str())))
        .collect();
    write_parquet(&dir.join("table.parquet"), &rows, 4);
}
