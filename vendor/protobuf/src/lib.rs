//! A stand-in for `protobuf` 2: the one trait and the one error type that raft 0.7 names.
//!
//! raft 0.7 asks messages for their size, and encodes and decodes configuration changes. Nothing else of the real
//! crate is reachable from it, and the real crate carries an advisory. See
//! `docs/decisions/0004-raft-dependency-stand-ins.md`.

use std::fmt;

/// Bytes that are no valid message, or a message that cannot be encoded.
#[derive(Debug)]
pub struct ProtobufError {
    /// What went wrong.
    pub message: String,
}

impl fmt::Display for ProtobufError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ProtobufError {}

/// The result of encoding or decoding.
pub type ProtobufResult<T> = Result<T, ProtobufError>;

/// What raft asks of a message.
pub trait Message {
    /// Returns the encoded length in bytes.
    fn compute_size(&self) -> u32;

    /// Encodes the message.
    fn write_to_bytes(&self) -> ProtobufResult<Vec<u8>>;

    /// Decodes `bytes` into this message, on top of what it holds.
    fn merge_from_bytes(&mut self, bytes: &[u8]) -> ProtobufResult<()>;
}
