//! Streams between members: whatever a peer sends, however the network cuts it.
//!
//! Compared: the same bytes in one piece and in small ones; and, for whole messages, what is decoded with what is decoded
//! of its encoding.

use bytes::{Bytes, BytesMut};
use proto::raftpb;
use server::peer::codec::{Decoder, Encoder, Kind, Malformed};

/// The member that sends, and the one that reads.
const FROM: u64 = 2;
const TO: u64 = 1;

/// Decodes what follows two bytes: one for the kind of stream, one for the size of pieces.
pub fn run(data: &[u8]) {
    let [kind, piece, stream @ ..] = data else { return };
    let kind = Kind::ALL[usize::from(kind % 2)];
    let (whole, ended) = decoded(kind, stream, stream.len().max(1));
    let (pieces, broken) = decoded(kind, stream, usize::from(*piece) + 1);
    assert_eq!((&whole, &ended), (&pieces, &broken), "it depends on how it is cut");
    if kind == Kind::Message {
        let mut encoder = Encoder::new(kind);
        let mut bytes = BytesMut::new();
        for message in &whole {
            encoder.encode(message, &mut bytes);
        }
        let (again, ended) = decoded(kind, &bytes, bytes.len().max(1));
        assert_eq!((again, ended), (whole, None), "an encoding is read differently");
    }
}

fn decoded(kind: Kind, stream: &[u8], piece: usize) -> (Vec<raftpb::Message>, Option<Malformed>) {
    let mut decoder = Decoder::new(kind, FROM, TO);
    let mut messages = Vec::new();
    for piece in stream.chunks(piece) {
        if let Err(malformed) = decoder.decode(Bytes::copy_from_slice(piece), &mut messages) {
            return (messages, Some(malformed));
        }
    }
    (messages, None)
}
