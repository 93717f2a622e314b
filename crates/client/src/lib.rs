//! A typed client of the etcd API, version 3.
//!
//! [`Client`] holds one connection to each endpoint and spreads its calls over those that stand. A call
//! waits for a connection until its deadline; reads are tried again when a member is unavailable,
//! writes only if they were certainly never sent. [`WatchStream`] and [`KeepAlive`] survive a lost
//! connection; [`Session`], [`Mutex`] and [`Election`] are the client-side recipes on leases.

mod call;
mod client;
mod cluster;
mod config;
mod connector;
pub mod dns;
mod election;
mod endpoint;
mod error;
mod keep_alive;
mod kv;
mod lease;
mod link;
mod maintenance;
mod mutex;
mod peer_url;
mod session;
mod snapshot;
mod tls;
mod wait;
mod watch;

pub use client::Client;
pub use config::{Config, Credentials, Tls};
pub use election::{Election, Observer};
pub use error::Error;
pub use keep_alive::KeepAlive;
pub use kv::prefix_end;
pub use mutex::Mutex;
pub use session::Session;
pub use snapshot::{Checksum, Snapshot, Verdict};
pub use tonic::Code;
pub use watch::{WatchStream, Watcher};
