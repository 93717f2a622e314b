//! `/metrics`, negotiated as etcd does: always the text format 0.0.4, compressed for those who take gzip. etcd has the
//! OpenMetrics format switched off, whatever a scraper prefers.

use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use super::body::Answer;
use super::health::text;
use crate::service::Services;

const TEXT_FORMAT: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");

/// Answers a scrape.
pub(super) async fn metrics(services: &Services, headers: &HeaderMap) -> Response<Answer> {
    let shown = match services.metrics().encode(services) {
        Ok(shown) => shown,
        Err(error) => {
            tracing::error!(%error, "could not encode the metrics");
            return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"));
        }
    };
    let is_gzip = takes_gzip(headers);
    let body = if is_gzip { compressed(shown).await } else { Some(shown.into()) };
    let Some(body) = body else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "the member is ending\n");
    };
    let mut response = Response::new(Answer::from(body));
    response.headers_mut().insert(CONTENT_TYPE, TEXT_FORMAT);
    if is_gzip {
        response.headers_mut().insert(CONTENT_ENCODING, GZIP);
    }
    response
}

/// Compresses beside the serving thread. The pool refuses work only while the process is ending.
async fn compressed(shown: String) -> Option<Bytes> {
    let compressed = tokio::task::spawn_blocking(move || gzip(&shown)).await.ok()?;
    Some(compressed.expect("writing to memory does not fail").into())
}

fn gzip(shown: &str) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(shown.len() / 8), Compression::fast());
    encoder.write_all(shown.as_bytes())?;
    encoder.finish()
}

/// Tells whether `Accept-Encoding` names gzip, other than to refuse it.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).into_iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = parameters.trim().strip_prefix("q=").map(str::parse::<f32>);
        name.trim().eq_ignore_ascii_case("gzip")
            && !matches!(weight, Some(Ok(weight)) if weight <= 0.0)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// As recorded from etcd.
    #[test]
    fn gzip_is_for_those_who_name_it() {
        let takes = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
            takes_gzip(&headers)
        };
        for value in ["gzip", "deflate, gzip", "gzip, zstd", "gzip;q=0.5"] {
            assert!(takes(value), "{value}");
        }
        for value in ["", "identity", "*", "zstd", "gzip;q=0", "gzipped"] {
            assert!(!takes(value), "{value}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[test]
    fn what_is_compressed_can_be_read() {
        let shown = "etcd_server_has_leader 1\n".repeat(1000);
        let compressed = gzip(&shown).unwrap();
        assert!(compressed.len() < shown.len() / 10);
        let mut read = String::new();
        flate2::read::GzDecoder::new(&compressed[..]).read_to_string(&mut read).unwrap();
        assert_eq!(read, shown);
    }
}
