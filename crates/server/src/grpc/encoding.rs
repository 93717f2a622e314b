//! How a client has compressed its messages (`grpc-encoding`): not at all, or with gzip, as with grpc-go. Answers are never
//! compressed, which the protocol leaves to the server.

use std::io::Read as _;

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use http::HeaderMap;

use super::status::{Code, Status};

/// What a message whose frame says that it is compressed is compressed with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Nothing: no message may be compressed.
    #[default]
    Identity,
    /// RFC 1952.
    Gzip,
}

/// How every gzip stream begins.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

impl Encoding {
    /// Reads it off a call's headers.
    pub fn of(headers: &HeaderMap) -> Result<Self, Status> {
        match headers.get("grpc-encoding").map(http::HeaderValue::as_bytes) {
            None | Some(b"" | b"identity") => Ok(Self::Identity),
            Some(b"gzip") => Ok(Self::Gzip),
            Some(other) => Err(Status::new(
                Code::Unimplemented,
                format!(
                    "grpc: Decompressor is not installed for grpc-encoding {:?}",
                    String::from_utf8_lossy(other)
                ),
            )),
        }
    }

    /// Takes a compressed message apart; one of more than `bytes_max` is refused as soon as that much of it is known.
    pub fn decode(self, compressed: &[u8], bytes_max: usize) -> Result<Bytes, Status> {
        if self == Self::Identity {
            let text = "grpc: compressed flag set with identity or empty encoding";
            return Err(Status::fixed(Code::Internal, text));
        }
        if !compressed.starts_with(&GZIP_MAGIC) {
            let text = "grpc: failed to decompress the message: gzip: invalid header";
            return Err(Status::fixed(Code::Internal, text));
        }
        let mut message = Vec::new();
        let one_more = (bytes_max as u64).saturating_add(1);
        MultiGzDecoder::new(compressed).take(one_more).read_to_end(&mut message).map_err(
            |error| {
                let text = format!("grpc: failed to read decompressed data: {error}");
                Status::new(Code::Internal, text)
            },
        )?;
        if message.len() > bytes_max {
            let text =
                format!("grpc: received message after decompression larger than max {bytes_max}");
            return Err(Status::new(Code::ResourceExhausted, text));
        }
        Ok(message.into())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(message: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(message).expect("a vector takes all");
        encoder.finish().expect("a vector takes all")
    }

    #[test]
    fn gzip_is_taken_apart_up_to_the_bound() {
        let message = vec![7; 100_000];
        let compressed = gzip(&message);
        assert_eq!(Encoding::Gzip.decode(&compressed, 100_000), Ok(message.into()));
        let refused = Encoding::Gzip.decode(&compressed, 99_999).expect_err("too large");
        assert_eq!(refused.code, Code::ResourceExhausted);
        let text = "grpc: received message after decompression larger than max 99999";
        assert_eq!(refused.message, text);
        let both = [gzip(b"a"), gzip(b"b")].concat();
        assert_eq!(Encoding::Gzip.decode(&both, 2), Ok(Bytes::from("ab")), "as Go's reader");
    }

    #[test]
    fn what_is_no_gzip_is_refused() {
        let whole = gzip(b"some message");
        let cut = (1..whole.len()).map(|len| &whole[..len]);
        for broken in cut.chain([&b""[..], b"plain", &[whole.clone(), vec![1]].concat()]) {
            let refused = Encoding::Gzip.decode(broken, 1000).expect_err("broken");
            assert_eq!(refused.code, Code::Internal, "{broken:?}");
        }
        let refused = Encoding::Identity.decode(&whole, 1000).expect_err("not announced");
        assert_eq!(refused.code, Code::Internal);
    }
}
