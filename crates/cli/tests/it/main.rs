//! What this crate promises to those who run it, apart from a server.

mod command_line;
mod printers;
