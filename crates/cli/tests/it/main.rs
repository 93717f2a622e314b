//! What this crate promises to those who run it, apart from a server.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod command_line;
mod printers;
