//! The server: etcd's flags, ports and protocols around one synchronous member (`docs/architecture.md`).
//!
//! Everything asynchronous is here: sockets, TLS, gRPC, HTTP, signals, threads. What is replicated and stored is below
//! [`node`], which is reached through [`handle::Handle`] only.

pub mod assemble;
pub mod config;
pub mod discovery;
pub mod drain;
pub mod driver;
pub mod grpc;
pub mod handle;
pub mod http;
pub mod incomplete;
pub mod listen;
pub mod logging;
pub mod mailbox;
mod meter;
pub mod metrics;
pub mod peer;
pub mod priority;
pub mod process;
mod redact;
mod restart;
pub mod room;
pub mod serve;
pub mod service;
pub mod settings;
pub mod shutdown;
pub mod socket;
pub mod tls;
pub mod workers;

pub use config::ETCD_VERSION;
