//! The gRPC door: gRPC over HTTP/2 on the `h2` crate's frames and flow control.
//!
//! Messages are read and written here without an intermediate service stack: a call costs one future, answers are encoded
//! once into the bytes that go to the socket (`docs/decisions/0003`). Nothing outside this folder names a type of the HTTP/2 library.

pub mod body;
pub mod call;
pub mod coalesce;
pub mod connection;
pub mod encoding;
pub mod error;
pub mod guard;
pub mod message;
pub mod method;
pub mod pages;
pub mod status;
