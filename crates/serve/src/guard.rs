//! Who may ask: keys, and the protection of a server without keys from pages of other origins.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::app::App;
use crate::problem::Problem;
use crate::routes::page::is_file;
use crate::settings::Settings;
use crate::store::now;

/// What anyone may ask: whether the server lives.
const OPEN: &[&str] = &["/healthz", "/readyz"];

/// The rules.
pub(crate) struct Guard {
    /// The keys' hashes: of one length, so that comparing takes the same time for all.
    keys: Vec<[u8; 32]>,
    origins: Vec<String>,
    host_names: Vec<String>,
}

impl Guard {
    pub fn new(settings: &Settings) -> Guard {
        Guard {
            keys: settings
                .keys
                .iter()
                .map(|key| Sha256::digest(key).into())
                .collect(),
            origins: settings.cors_origins.clone(),
            host_names: settings.host_names.clone(),
        }
    }

    /// Whether clients need a key.
    pub fn needs_key(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Compares with every key, and always with all of them.
    fn knows(&self, key: &str) -> bool {
        let hash: [u8; 32] = Sha256::digest(key).into();
        self.keys
            .iter()
            .fold(Choice::from(0), |found, known| found | known.ct_eq(&hash))
            .into()
    }

    fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(header::HOST).unwrap_or("");
        // A page elsewhere can have its own name point here, and would then be of this server's origin. It cannot have
        // an address or a foreign name in the address bar. With keys there is nothing to steal.
        if !self.needs_key() && !self.is_own_name(host) {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                format!(
                    "Host: expected an address or localhost, found {host:?}; name it with --host-name to allow it"
                ),
            ));
        }
        let changes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        if changes && let Some(origin) = text(header::ORIGIN) {
            let own = origin
                .split_once("://")
                .is_some_and(|(_, name)| name == host);
            if !own && !self.origins.iter().any(|known| known == origin) {
                return Err(Problem::new(
                    StatusCode::FORBIDDEN,
                    format!(
                        "Origin: {origin:?} may not ask this server; name it with --cors-origin to allow it"
                    ),
                ));
            }
        }
        Ok(())
    }

    fn is_own_name(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
            _ => host,
        };
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        // Programs of HTTP/1.0 send no name.
        host.is_empty()
            || bare.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.host_names.iter().any(|known| known == name)
    }
}

/// The key that a request presents: as a bearer token, as the password of basic authentication (AUTOMATIC1111's
/// clients), or in `X-Api-Key`.
fn presented(headers: &HeaderMap) -> Option<String> {
    if let Some(key) = headers.get("x-api-key") {
        return key.to_str().ok().map(str::to_string);
    }
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(rest.trim().to_string()),
        "basic" => {
            let pair = String::from_utf8(BASE64.decode(rest.trim()).ok()?).ok()?;
            Some(pair.split_once(':')?.1.to_string())
        }
        _ => None,
    }
}

/// Lets through what may pass.
pub(crate) async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    if let Err(problem) = app.guard.check(request.method(), request.headers()) {
        return problem.into_response();
    }
    let uri = request.uri();
    let open = !app.guard.needs_key()
        || OPEN.contains(&uri.path())
        || is_file(uri.path())
        || (request.method() == Method::GET
            && app
                .links
                .check(uri.path(), uri.query().unwrap_or(""), now() / 1000));
    if open || presented(request.headers()).is_some_and(|key| app.guard.knows(&key)) {
        return next.run(request).await;
    }
    let detail = "expected a key of this server: `Authorization: Bearer …`, `X-Api-Key: …`, or as the password of \
                  basic authentication";
    Problem::new(StatusCode::UNAUTHORIZED, detail).into_response()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn guard(keys: &[&str]) -> Guard {
        Guard::new(&Settings {
            keys: keys.iter().map(|key| key.to_string()).collect(),
            cors_origins: vec!["https://good.example".into()],
            host_names: vec!["paint.example".into()],
            ..Settings::default()
        })
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                let name = axum::http::HeaderName::from_static(name);
                (name, HeaderValue::from_str(value).unwrap())
            })
            .collect()
    }

    #[test]
    fn keys_come_in_three_ways() {
        let basic = format!("Basic {}", BASE64.encode("anyone:the key"));
        for pair in [
            ("authorization", "Bearer the key"),
            ("authorization", basic.as_str()),
            ("x-api-key", "the key"),
        ] {
            assert_eq!(presented(&headers(&[pair])).unwrap(), "the key", "{pair:?}");
        }
        for pair in [("authorization", "Bearer"), ("authorization", "Basic *")] {
            assert_eq!(presented(&headers(&[pair])), None, "{pair:?}");
        }
        let guard = guard(&["the key", "another"]);
        assert!(guard.knows("the key") && guard.knows("another"));
        assert!(!guard.knows("") && !guard.knows("the kex") && !guard.knows("the key "));
    }

    #[test]
    fn other_origins_and_foreign_names_are_refused() {
        let open = guard(&[]);
        fn check(guard: &Guard, method: Method, pairs: &[(&'static str, &str)]) -> bool {
            guard.check(&method, &headers(pairs)).is_ok()
        }
        for name in [
            "127.0.0.1:7860",
            "[::1]:7860",
            "localhost:80",
            "paint.example",
        ] {
            assert!(check(&open, Method::GET, &[("host", name)]), "{name}");
        }
        let evil = [("host", "evil.example:7860")];
        assert!(!check(&open, Method::GET, &evil));
        assert!(check(&guard(&["key"]), Method::GET, &evil));
        let from = |origin| [("host", "localhost:7860"), ("origin", origin)];
        assert!(check(&open, Method::POST, &from("http://localhost:7860")));
        assert!(check(&open, Method::POST, &from("https://good.example")));
        assert!(!check(&open, Method::POST, &from("https://evil.example")));
        assert!(!check(&open, Method::POST, &from("null")));
        assert!(!check(
            &guard(&["key"]),
            Method::DELETE,
            &from("https://evil.example")
        ));
    }
}
