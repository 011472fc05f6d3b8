//! The addresses of pictures. Where clients need a key, a link that is handed to someone else carries a signature and an
//! end: whoever has the link may fetch that picture until then, and nothing else.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// How long a signed link is good for, in seconds: an hour, as OpenAI's are.
pub const LIFETIME: i64 = 3600;

/// Where a picture is.
pub fn picture_path(job: Uuid, number: usize) -> String {
    format!("/v1/jobs/{job}/pictures/{number}")
}

/// Makes and checks signed links.
pub struct Links {
    secret: Vec<u8>,
}

impl Links {
    /// With a secret of 32 random bytes.
    pub fn new(secret: Vec<u8>) -> Links {
        Links { secret }
    }

    /// The link to a picture, good until `until` (seconds since 1970).
    pub fn sign(&self, job: Uuid, number: usize, until: i64) -> String {
        let path = picture_path(job, number);
        let signature = self.signature(&path, until);
        format!("{path}?until={until}&signature={signature}")
    }

    /// Whether `query` is a signature of `path` that is still good at `now`.
    pub fn check(&self, path: &str, query: &str, now: i64) -> bool {
        let value = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|pair| pair.0 == name).map(|pair| pair.1)
        };
        let until = value("until").and_then(|until| until.parse::<i64>().ok());
        match (until, value("signature")) {
            (Some(until), Some(signature)) if until >= now => {
                let expected = self.signature(path, until);
                expected.as_bytes().ct_eq(signature.as_bytes()).into()
            }
            _ => false,
        }
    }

    /// The secret stands before and behind the message, so that nothing can be appended to it.
    fn signature(&self, path: &str, until: i64) -> String {
        let digest = Sha256::new()
            .chain_update(&self.secret)
            .chain_update(format!("{path}?{until}"))
            .chain_update(&self.secret)
            .finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_opens_one_picture_until_its_end() {
        let links = Links::new(vec![7; 32]);
        let job = Uuid::now_v7();
        let link = links.sign(job, 2, 1000);
        let (path, query) = link.split_once('?').unwrap();
        assert_eq!(path, picture_path(job, 2));
        assert!(links.check(path, query, 1000));
        assert!(!links.check(path, query, 1001));
        assert!(!links.check(&picture_path(job, 1), query, 1000));
        assert!(!links.check(path, &query.replace("until=1000", "until=2000"), 1000));
        assert!(!links.check(path, "", 0));
        assert!(!Links::new(vec![8; 32]).check(path, query, 1000));
    }
}
