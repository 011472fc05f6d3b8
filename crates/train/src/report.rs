//! The report at the end of a run: one HTML file with everything in it, to be looked at or passed on as it is.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use velatura::checkpoint::write_atomically;

use crate::error::{Error, Result};
use crate::first_batches::{CAPTIONS, SHEET};
use crate::progress::{Row, duration, short};

/// Sample grids shown, spread over the run.
const GRIDS: usize = 12;

/// Writes `report.html` into the run folder: the figures of `rows` as plots, the sample grids, and the config.
///
/// # Errors
/// The samples cannot be read, the file not written.
pub(crate) fn write(run: &Path, rows: &[Row]) -> Result<()> {
    let mut page = String::from(HEAD);
    let name = run.file_name().unwrap_or_default().to_string_lossy();
    // Writing to a string cannot fail.
    let _ = writeln!(page, "<title>{0}</title>\n<h1>{0}</h1>", escape(&name));
    if let Some(last) = rows.last() {
        let _ = writeln!(
            page,
            "<p>{} steps, the last ones with a loss of {:.4} and {:.1} images a second; {} of training in the last \
             call.</p>",
            last.step,
            last.loss,
            last.images_per_second,
            duration(f64::from(last.seconds))
        );
    }
    page += "<section>";
    let series = |value: fn(&Row) -> f64| -> Vec<(u64, f64)> {
        rows.iter().map(|row| (row.step, value(row))).collect()
    };
    page += &plot("loss", &series(|row| f64::from(row.loss)), true);
    for name in rows.last().into_iter().flat_map(|row| row.parts.keys()) {
        let values: Vec<(u64, f64)> = rows
            .iter()
            .filter_map(|row| Some((row.step, row.parts.get(name)?.as_f64()?)))
            .collect();
        page += &plot(name, &values, true);
    }
    let norms = series(|row| f64::from(row.gradient_norm));
    page += &plot("gradient norm", &norms, true);
    page += &plot("learning rate", &series(|row| row.learning_rate), false);
    page += "</section>\n";
    page += &first_batches(run)?;
    page += &samples(run)?;
    let config = run.join("config.toml");
    let text = fs::read_to_string(&config).map_err(Error::io("read", &config))?;
    let _ = writeln!(page, "<h2>Config</h2>\n<pre>{}</pre>", escape(&text));
    write_atomically(&run.join("report.html"), |out| {
        std::io::Write::write_all(out, page.as_bytes())
    })?;
    Ok(())
}

/// No scripts, no fonts, nothing from elsewhere; light or dark as the reader's system is.
pub(crate) const HEAD: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
section { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1.5rem; }
figure { margin: 0; }
figcaption { font-size: 0.9rem; }
svg, img { width: 100%; height: auto; }
img { image-rendering: auto; border-radius: 4px; }
pre { white-space: pre-wrap; padding: 1rem; border: 1px solid #8888; border-radius: 4px; }
.axis { stroke: #8888; fill: none; }
.raw { stroke: #8888; fill: none; }
.mean { stroke: #c8281e; stroke-width: 2; fill: none; }
text { fill: currentColor; font-size: 11px; }
</style>
";

/// A plot as SVG: values in grey, their running mean in red; of positive values on a logarithmic scale if wished.
fn plot(name: &str, values: &[(u64, f64)], logarithmic: bool) -> String {
    const WIDTH: f64 = 480.0;
    const HEIGHT: f64 = 240.0;
    const LEFT: f64 = 56.0;
    const BOTTOM: f64 = 22.0;
    const TOP: f64 = 8.0;
    let usable: Vec<(u64, f64)> = values
        .iter()
        .copied()
        .filter(|(_, value)| value.is_finite() && (!logarithmic || *value > 0.0))
        .collect();
    let (Some(first), Some(last)) = (usable.first(), usable.last()) else {
        return String::new();
    };
    let scaled = |value: f64| if logarithmic { value.ln() } else { value };
    let heights: Vec<f64> = usable.iter().map(|&(_, value)| scaled(value)).collect();
    let low = heights.iter().copied().fold(f64::INFINITY, f64::min);
    let high = heights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // What never changes is a line in the middle, with one number beside it.
    let flat = high <= low;
    let (low, high) = if flat {
        (low - 1.0, high + 1.0)
    } else {
        (low, high)
    };
    let span = high - low;
    let length = (last.0 - first.0).max(1) as f64;
    let x = |step: u64| LEFT + (WIDTH - LEFT - 8.0) * (step - first.0) as f64 / length;
    let y = |height: f64| TOP + (HEIGHT - TOP - BOTTOM) * (high - height) / span;
    let path = |heights: &[f64]| {
        let mut path = String::new();
        for (&(step, _), &height) in usable.iter().zip(heights) {
            let _ = write!(path, "{:.1},{:.1} ", x(step), y(height));
        }
        path
    };
    let mean = running_mean(&heights, heights.len() / 50 + 1);
    let mut svg = format!("<figure><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
    let marks = match flat {
        true => vec![heights[0]],
        false => vec![low, (low + high) / 2.0, high],
    };
    for height in marks {
        let value = if logarithmic { height.exp() } else { height };
        let _ = write!(
            svg,
            "<path class=\"axis\" d=\"M{LEFT},{0:.1} H{1}\"/><text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{4}</text>",
            y(height),
            WIDTH - 8.0,
            LEFT - 6.0,
            y(height) + 4.0,
            short(value)
        );
    }
    for (step, anchor) in [(first.0, "start"), (last.0, "end")] {
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{step}</text>",
            x(step),
            HEIGHT - 6.0
        );
    }
    let _ = writeln!(
        svg,
        "<polyline class=\"raw\" points=\"{}\"/><polyline class=\"mean\" points=\"{}\"/></svg>\
         <figcaption>{} by step{}</figcaption></figure>",
        path(&heights),
        path(&mean),
        escape(name),
        if logarithmic { ", logarithmic" } else { "" }
    );
    svg
}

/// The sample grids, the last one first in size and place.
fn samples(run: &Path) -> Result<String> {
    let dir = run.join("samples");
    let mut files = match fs::read_dir(&dir) {
        Ok(entries) => entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "png"))
            .collect::<Vec<_>>(),
        Err(_) => Vec::new(),
    };
    files.sort();
    let Some(last) = files.pop() else {
        return Ok(String::new());
    };
    let shown = GRIDS.min(files.len());
    let spread = (0..shown).map(|i| &files[i * files.len() / shown]);
    let mut html = format!("<h2>Samples</h2>\n{}<section>", figure(&last)?);
    for file in spread {
        html += &figure(file)?;
    }
    html += "</section>\n";
    Ok(html)
}

/// What the first steps were fed, and its captions.
fn first_batches(run: &Path) -> Result<String> {
    let sheet = run.join(SHEET);
    if !sheet.is_file() {
        return Ok(String::new());
    }
    let mut html = format!(
        "<h2>What the first steps were fed</h2>\n{}",
        figure(&sheet)?
    );
    if let Ok(text) = fs::read_to_string(run.join(CAPTIONS)) {
        let _ = writeln!(html, "<pre>{}</pre>", escape(text.trim_end()));
    }
    Ok(html)
}

fn figure(file: &Path) -> Result<String> {
    let bytes = fs::read(file).map_err(Error::io("read", file))?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    Ok(format!(
        "<figure><img alt=\"\" src=\"data:image/png;base64,{}\"><figcaption>{}</figcaption></figure>\n",
        BASE64_STANDARD.encode(bytes),
        escape(&name)
    ))
}

/// Means over the `width` values before and at each place.
fn running_mean(values: &[f64], width: usize) -> Vec<f64> {
    (0..values.len())
        .map(|end| {
            let window = &values[(end + 1).saturating_sub(width)..=end];
            window.iter().sum::<f64>() / window.len() as f64
        })
        .collect()
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_falling_loss_is_drawn_from_the_upper_left_to_the_lower_right() {
        let values: Vec<(u64, f64)> = (1..=100).map(|step| (step, 100.0 / step as f64)).collect();
        let svg = plot("loss", &values, true);
        let points = svg.split("class=\"raw\" points=\"").nth(1).unwrap();
        let points: Vec<(f64, f64)> = points[..points.find('"').unwrap()]
            .split_whitespace()
            .map(|point| {
                let (x, y) = point.split_once(',').unwrap();
                (x.parse().unwrap(), y.parse().unwrap())
            })
            .collect();
        assert_eq!(points.len(), 100);
        assert!(points[0].0 < 60.0 && points[0].1 < 10.0);
        assert!(points[99].0 > 460.0 && points[99].1 > 210.0);
        assert!(
            points
                .windows(2)
                .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1)
        );
        // What stays the same has one number beside it, in the middle.
        let flat = plot("rate", &[(1, 1e-4), (9, 1e-4)], false);
        assert_eq!(flat.matches("1.0e-4").count(), 1);
        assert!(flat.contains("M56,113.0 H472"), "{flat}");
        // What cannot be drawn is left out.
        assert_eq!(plot("nothing", &[(1, f64::NAN)], false), "");
    }

    #[test]
    fn everything_is_in_the_one_file() {
        let run = tempfile::tempdir().unwrap();
        fs::create_dir(run.path().join("samples")).unwrap();
        let grid = image::RgbImage::new(2, 2);
        for step in 1..=20 {
            let name = format!("samples/step-{step:06}.png");
            grid.save(run.path().join(name)).unwrap();
        }
        fs::write(run.path().join("config.toml"), "x = \"<b>\"").unwrap();
        grid.save(run.path().join(SHEET)).unwrap();
        fs::write(run.path().join(CAPTIONS), "step 1: a <cat>\n").unwrap();
        write(run.path(), &[]).unwrap();
        let page = fs::read_to_string(run.path().join("report.html")).unwrap();
        assert_eq!(
            page.matches("data:image/png;base64,iVBOR").count(),
            2 + GRIDS
        );
        assert!(page.contains("step 1: a &lt;cat&gt;"));
        assert!(page.contains("step-000020") && page.contains("x = &quot;&lt;b&gt;&quot;"));
        assert!(!page.contains("http"));
    }
}
