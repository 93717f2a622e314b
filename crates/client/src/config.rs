//! What a client is told: endpoints, limits, transport security, credentials.

use std::path::PathBuf;
use std::time::Duration;

/// Bytes of a request when nothing else is said: etcd's client has the same.
const REQUEST_BYTES_MAX: usize = 2 << 20;
/// Bytes of a response when nothing else is said.
const RESPONSE_BYTES_MAX: usize = i32::MAX as usize;

/// How to reach a cluster.
#[derive(Debug, Clone)]
pub struct Config {
    /// `host:port`, `http(s)://host:port`, `unix(s)://path`; at least one.
    pub endpoints: Vec<String>,
    /// Bounds fetching a token, and the first renewal of a lease. Zero is no bound.
    pub dial_timeout: Duration,
    /// After how much silence a connection with open calls is probed; at least ten seconds, since
    /// servers close connections that probe more often.
    pub keepalive_time: Duration,
    /// How long the answer to a probe may take.
    pub keepalive_timeout: Duration,
    /// Encoded bytes of one request.
    pub request_bytes_max: usize,
    /// Encoded bytes of one response.
    pub response_bytes_max: usize,
    /// Transport security for endpoints that do not say `http://`.
    pub tls: Option<Tls>,
    /// Who the client is.
    pub credentials: Option<Credentials>,
}

impl Config {
    /// A configuration with etcd's defaults.
    pub fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            dial_timeout: Duration::from_secs(2),
            keepalive_time: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(6),
            request_bytes_max: REQUEST_BYTES_MAX,
            response_bytes_max: RESPONSE_BYTES_MAX,
            tls: None,
            credentials: None,
        }
    }
}

/// Files and rules of transport security.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// The client's certificate chain, PEM.
    pub cert: Option<PathBuf>,
    /// The key of `cert`, PEM.
    pub key: Option<PathBuf>,
    /// Authorities that may sign a server's certificate, PEM; the system's when absent.
    pub cacert: Option<PathBuf>,
    /// The name a server's certificate must have, instead of the endpoint's host.
    pub server_name: Option<String>,
    /// Accept any certificate.
    pub skip_verify: bool,
}

/// How a client proves who it is.
#[derive(Clone)]
pub enum Credentials {
    /// A user, exchanged for a token that is renewed when the server no longer knows it.
    Password {
        /// The user's name.
        user: String,
        /// The user's password.
        password: String,
    },
    /// A ready-made token, never renewed.
    Token(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password({user})"),
            Self::Token(_) => f.write_str("Token"),
        }
    }
}
