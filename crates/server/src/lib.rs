//! See `docs/architecture.md`.

pub mod config;
pub mod logging;
pub mod shutdown;
pub mod tls;
