//! Errors as HTTP answers: problem documents (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use velatura::Error;

/// What went wrong, for programs and people. `field`, `expected` and `found` are there where a single field is to blame.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Problem {
    /// `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The status in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong and what would be right.
    pub detail: String,
    /// The field to blame, as the request spells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What the field may be, and what it is.
    #[serde(flatten)]
    pub values: Option<Box<Values>>,
    /// Seconds after which to try again.
    #[serde(skip)]
    pub retry_after: Option<u64>,
}

/// What a field may be, and what it is.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Values {
    /// What it may be.
    pub expected: String,
    /// What it is.
    pub found: String,
}

impl Problem {
    /// A problem with words of its own.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            field: None,
            values: None,
            retry_after: None,
        }
    }

    /// A field that cannot be as it is: 422.
    pub fn field(field: &str, expected: impl ToString, found: impl ToString) -> Problem {
        let (expected, found) = (expected.to_string(), found.to_string());
        Problem {
            field: Some(field.to_string()),
            detail: format!("{field}: expected {expected}, found {found}"),
            values: Some(Box::new(Values { expected, found })),
            ..Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "")
        }
    }

    /// The same problem with its field as another API calls it: pairs of the library's name and that one.
    pub fn renamed(mut self, names: &[(&str, &str)]) -> Problem {
        let field = self.field.as_deref();
        if let Some(&(from, to)) = names.iter().find(|pair| field == Some(pair.0)) {
            if let Some(rest) = self.detail.strip_prefix(from) {
                self.detail = format!("{to}{rest}");
            }
            self.field = Some(to.to_string());
        }
        self
    }

    /// Nothing there: 404.
    pub fn not_found(what: impl std::fmt::Display) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, format!("there is no {what}"))
    }

    /// Try again later: 503.
    pub fn unavailable(detail: impl Into<String>, after: u64) -> Problem {
        Problem {
            retry_after: Some(after),
            ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        }
    }

    /// Our own fault. The cause goes to the log, not to the client.
    pub fn internal(cause: impl std::fmt::Display) -> Problem {
        tracing::error!(%cause, "internal error");
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the server failed; its log says why",
        )
    }

    /// The status as a type.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// An answer with another body, as other APIs have it, and this problem's status and headers.
    pub fn with_body(&self, body: impl Serialize) -> Response {
        let mut response = (self.status(), axum::Json(body)).into_response();
        self.add_headers(&mut response);
        response
    }

    fn add_headers(&self, response: &mut Response) {
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            let schemes = HeaderValue::from_static("Bearer, Basic realm=\"velatura\"");
            headers.insert(header::WWW_AUTHENTICATE, schemes);
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        match error {
            Error::Request {
                field,
                expected,
                found,
            } => Problem::field(&field, expected, found),
            other => Problem::internal(other),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.with_body(&self);
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}
