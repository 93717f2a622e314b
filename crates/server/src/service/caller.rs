//! What a request's metadata says about its sender (`spec/grpc-api.md` §3.2).

use std::fmt;
use std::net::SocketAddr;

use http::HeaderMap;

use crate::grpc::error;
use crate::grpc::status::Status;

/// Where a request comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Remote {
    /// A client over TCP.
    Tcp(SocketAddr),
    /// One on this machine, over a Unix domain socket.
    #[default]
    Local,
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Local => f.write_str("@"),
        }
    }
}

/// The sender of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    requires_leader: bool,
    remote: Remote,
    /// `None` when the client did not say.
    api_version: Option<Box<str>>,
}

impl Caller {
    /// Reads gRPC metadata.
    pub fn from_headers(headers: &HeaderMap, remote: Remote) -> Result<Self, Status> {
        let requires_leader = headers.get("hasleader").is_some_and(|value| value == "true");
        let api_version = match headers.get("client-api-version") {
            None => None,
            Some(value) => {
                let text = std::str::from_utf8(value.as_bytes())
                    .map_err(|_not_utf8| error::INVALID_CLIENT_API_VERSION)?;
                Some(text.into())
            }
        };
        Ok(Self { requires_leader, remote, api_version })
    }

    /// Whether the call must be refused while no leader is known.
    pub fn requires_leader(&self) -> bool {
        self.requires_leader
    }

    /// Where the call comes from.
    pub fn remote(&self) -> Remote {
        self.remote
    }

    /// The client's version, for the metric label.
    pub fn api_version(&self) -> &str {
        self.api_version.as_deref().unwrap_or("unknown")
    }
}
