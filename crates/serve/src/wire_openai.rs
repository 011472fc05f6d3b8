//! How OpenAI's image API spells requests and answers.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use velatura::pipeline::Request;

use crate::order::Wish;
use crate::problem::Problem;

/// What the library calls otherwise than OpenAI.
pub const NAMES: &[(&str, &str)] = &[
    ("count", "n"),
    ("width", "size"),
    ("height", "size"),
    ("init", "image"),
];

/// How a client wants its pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Links that are good for an hour.
    Url,
    /// In the answer.
    Base64,
    /// Both, for a client that did not say: older ones read the one, newer ones the other.
    Both,
}

/// What both requests have in common.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    pub prompt: String,
    pub model: Option<String>,
    pub n: Option<usize>,
    pub size: Option<String>,
    pub response_format: Option<String>,
    pub output_format: Option<String>,
    pub background: Option<String>,
    pub quality: Option<String>,
    pub style: Option<String>,
    pub moderation: Option<String>,
    #[serde(rename = "user")]
    _user: Option<IgnoredAny>,
    pub stream: Option<bool>,
    pub partial_images: Option<usize>,
    /// A PNG file loses nothing at any compression.
    #[serde(rename = "output_compression")]
    _output_compression: Option<IgnoredAny>,
    pub input_fidelity: Option<String>,
}

impl Body {
    /// The wish, and how the answer is to look. `model` is the one that is loaded.
    ///
    /// # Errors
    /// 422 with the field that is wrong, or that this server cannot honour.
    pub fn wish(self, model: &str) -> Result<(Wish, Format), Problem> {
        if let Some(name) = self.model.filter(|name| name != model) {
            let expected = format!("{model}, the one model that is loaded, or nothing");
            return Err(Problem::field("model", expected, name));
        }
        let one_of = |field: &str, value: &Option<String>, known: &[&str]| match value {
            Some(value) if !known.contains(&value.as_str()) => {
                Err(Problem::field(field, known.join(" or "), value))
            }
            _ => Ok(()),
        };
        one_of("output_format", &self.output_format, &["png"])?;
        one_of("background", &self.background, &["auto", "opaque"])?;
        one_of("quality", &self.quality, &["auto", "standard"])?;
        one_of("moderation", &self.moderation, &["auto", "low"])?;
        one_of("input_fidelity", &self.input_fidelity, &["low"])?;
        if let Some(style) = self.style {
            return Err(Problem::field(
                "style",
                "nothing; say it in the prompt",
                style,
            ));
        }
        if self.stream == Some(true) {
            let expected = "false; GET /v1/jobs/{id}/events tells of every step";
            return Err(Problem::field("stream", expected, true));
        }
        if let Some(images) = self.partial_images.filter(|&images| images > 0) {
            return Err(Problem::field("partial_images", 0, images));
        }
        let (width, height) = size(self.size.as_deref())?.unzip();
        let format = match self.response_format.as_deref() {
            None => Format::Both,
            Some("url") => Format::Url,
            Some("b64_json") => Format::Base64,
            Some(other) => {
                return Err(Problem::field("response_format", "url or b64_json", other));
            }
        };
        let request = Request {
            prompt: self.prompt,
            width,
            height,
            ..Request::default()
        };
        let wish = Wish {
            request,
            count: self.n,
            ..Wish::default()
        };
        Ok((wish, format))
    }
}

/// `512x768`; nothing for `auto`.
fn size(text: Option<&str>) -> Result<Option<(usize, usize)>, Problem> {
    match text {
        None | Some("auto" | "") => Ok(None),
        Some(text) => {
            let sides = text.split_once('x');
            let sides =
                sides.and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
            match sides {
                Some(sides) => Ok(Some(sides)),
                None => Err(Problem::field(
                    "size",
                    "auto, or width x height such as 512x512",
                    text,
                )),
            }
        }
    }
}

/// A finished picture in an answer.
pub fn image(
    format: Format,
    url: String,
    base64: impl FnOnce() -> Result<String, Problem>,
) -> Result<Value, Problem> {
    Ok(match format {
        Format::Url => json!({"url": url}),
        Format::Base64 => json!({"b64_json": base64()?}),
        Format::Both => json!({"url": url, "b64_json": base64()?}),
    })
}

/// A model in a list.
pub fn model(name: &str) -> Value {
    json!({"id": name, "object": "model", "created": 0, "owned_by": "velatura"})
}

/// A problem in OpenAI's shape.
pub fn error(problem: &Problem) -> Value {
    let kind = match problem.status {
        401 => "authentication_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    json!({"error": {"message": problem.detail, "type": kind, "param": problem.field, "code": null}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_honoured_is_refused_by_name() {
        let wish = |body: Value| serde_json::from_value::<Body>(body).unwrap().wish("tiny");
        let field = |body| wish(body).err().unwrap().field.unwrap();
        for (name, value) in [
            ("model", json!("dall-e-3")),
            ("style", json!("vivid")),
            ("stream", json!(true)),
            ("background", json!("transparent")),
            ("quality", json!("hd")),
            ("output_format", json!("webp")),
            ("size", json!("large")),
            ("response_format", json!("jpeg")),
        ] {
            let mut body = json!({"prompt": "x"});
            body[name] = value;
            assert_eq!(field(body), name);
        }
        let body = json!({"prompt": "x", "model": "tiny", "size": "64x72", "n": 2, "quality": "auto", "user": "me"});
        let (wish, format) = wish(body).unwrap();
        assert_eq!(
            (wish.request.width, wish.request.height),
            (Some(64), Some(72))
        );
        assert_eq!((wish.count, format), (Some(2), Format::Both));
    }
}
