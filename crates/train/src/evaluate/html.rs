//! The figures and every picture with its verdict on one page, to be looked at: a scorer's word is not the last.

use std::fmt::Write as _;
use std::io::Cursor;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::{ImageFormat, RgbImage};
use velatura::checkpoint::write_atomically;

use super::prompts::{Prompts, Verdict};
use crate::error::{Error, Result};
use crate::report::{HEAD, escape};

/// Writes the page: the table, and `pictures` with what was asked and found.
///
/// # Errors
/// A picture cannot be encoded, the file not written.
pub fn write_html(file: &Path, prompts: &Prompts, pictures: &[(Verdict, RgbImage)]) -> Result<()> {
    let mut page = String::from(HEAD);
    page += STYLE;
    let name = escape(&prompts.model);
    // Writing to a string cannot fail.
    let _ = writeln!(page, "<title>{name}</title>\n<h1>{name}</h1>");
    let _ = writeln!(page, "<pre>{}</pre>", escape(&prompts.to_string()));
    page += "<div class=\"grid\">\n";
    for (verdict, picture) in pictures {
        let mut png = Cursor::new(Vec::new());
        picture
            .write_to(&mut png, ImageFormat::Png)
            .map_err(|error| Error::run(file, format!("cannot encode a picture: {error}")))?;
        let data = BASE64_STANDARD.encode(png.into_inner());
        let said: Vec<String> = verdict
            .verdicts
            .iter()
            .map(|(aspect, yes)| {
                let (class, mark) = if *yes { ("yes", '✓') } else { ("no", '✗') };
                format!("<span class=\"{class}\">{mark} {}</span>", aspect.name())
            })
            .collect();
        let _ = writeln!(
            page,
            "<figure><img alt=\"\" src=\"data:image/png;base64,{data}\"><figcaption>{}{}, seed {}<br>{}</figcaption></figure>",
            escape(&verdict.prompt),
            if verdict.unseen { " (unseen)" } else { "" },
            verdict.seed,
            said.join(" ")
        );
    }
    page += "</div>\n</html>\n";
    Ok(write_atomically(file, |out| {
        std::io::Write::write_all(out, page.as_bytes())
    })?)
}

const STYLE: &str = "<style>
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(12rem, 1fr)); gap: 1rem; }
.yes { color: #2a7d2e; white-space: nowrap; }
.no { color: #c8281e; white-space: nowrap; font-weight: bold; }
</style>
";
