//! TLS of listeners: certificates that are read anew when their files change, client certificates,
//! revocation lists.
//!
//! Everything is rustls with ring. What etcd does and this does, too: a server certificate that
//! cannot be read fails the handshake, not the process; CAs are read once, at start; the revocation
//! list counts for every handshake. What differs, because rustls refuses it on purpose: no suites
//! without forward secrecy or authenticated encryption (naming them in `--cipher-suites` is a
//! warning, naming only them an error), and no keys on P-521.

mod certificate;
mod generate;
mod suites;
mod verify;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, info, warn};

use crate::config::{Tls, TlsInfo, TlsVersion, Url};
use crate::logging::io_text;

pub use certificate::client_common_name;
pub(crate) use suites::check as check_cipher_suites;

/// A connection that has not finished its handshake by then is closed.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// What cannot be set up; the texts are etcd's where etcd has one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Certificate or key is missing.
    #[error("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]")]
    HalfPair {
        /// The key file.
        key: String,
        /// The certificate file.
        cert: String,
    },
    /// A file that cannot be read.
    #[error("open {}: {}", path.display(), io_text(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that cannot be written.
    #[error("write {}: {}", path.display(), io_text(source))]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that holds something else.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Options that exclude each other.
    #[error(
        "AllowedCNs and AllowedHostnames are mutually exclusive (cns={cns:?}, hostnames={hostnames:?})"
    )]
    AllowedNames {
        /// Common names.
        cns: Vec<String>,
        /// Host names.
        hostnames: Vec<String>,
    },
    /// Cipher suites that do not exist, or none that is left.
    #[error("{0}")]
    Suites(String),
    /// Everything that rustls refuses.
    #[error("{0}")]
    Rustls(#[from] rustls::Error),
    /// A certificate that cannot be generated.
    #[error("cannot generate a certificate: {0}")]
    Generate(#[from] rcgen::Error),
    /// CAs that cannot verify anything.
    #[error("cannot verify client certificates: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// Whose connections a listener takes; for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// Clients'.
    Client,
    /// Peers'.
    Peer,
}

/// The TLS of one kind of listener; clones share it.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    endpoint: Endpoint,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// The certificates of `info`: generated ones where none are given and `--auto-tls` asks for them.
///
/// `listen` are the URLs whose hosts a generated certificate is valid for; it lives under
/// `data_dir`.
pub fn with_generated(
    info: &TlsInfo,
    endpoint: Endpoint,
    data_dir: &Path,
    listen: &[&Url],
    validity_years: u32,
) -> Result<TlsInfo, Error> {
    if !info.auto {
        return Ok(info.clone());
    }
    let kind = match endpoint {
        Endpoint::Client => "client",
        Endpoint::Peer => "peer",
    };
    if !info.is_empty() {
        warn!("ignoring {kind} auto TLS since certs given");
        return Ok(info.clone());
    }
    let directory = data_dir.join("fixtures").join(kind);
    let hosts: Vec<_> = listen.iter().map(|url| url.host()).collect();
    let (cert, key) = generate::self_signed(&directory, &hosts, validity_years)?;
    // As in etcd, generated certificates stand alone: client certificates are not asked for.
    Ok(TlsInfo {
        cert_file: Some(cert.clone()),
        key_file: Some(key.clone()),
        client_cert_file: Some(cert),
        client_key_file: Some(key),
        auto: true,
        ..TlsInfo::default()
    })
}

impl ServerTls {
    /// Reads and checks everything that `info` names.
    pub fn new(info: &TlsInfo, tls: &Tls, endpoint: Endpoint) -> Result<Self, Error> {
        let shown = |path: &Option<PathBuf>| {
            path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
        };
        let (Some(cert), Some(key)) = (&info.cert_file, &info.key_file) else {
            let (key, cert) = (shown(&info.key_file), shown(&info.cert_file));
            return Err(Error::HalfPair { key, cert });
        };
        if !info.allowed_cns.is_empty() && !info.allowed_hostnames.is_empty() {
            return Err(Error::AllowedNames {
                cns: info.allowed_cns.clone(),
                hostnames: info.allowed_hostnames.clone(),
            });
        }
        let provider = Arc::new(suites::provider(&tls.cipher_suites).map_err(Error::Suites)?);
        let versions: Vec<_> = [TlsVersion::V12, TlsVersion::V13]
            .into_iter()
            .filter(|version| (tls.version_min..=tls.version_max).contains(version))
            .map(|version| match version {
                TlsVersion::V12 => &rustls::version::TLS12,
                TlsVersion::V13 => &rustls::version::TLS13,
            })
            .collect();
        let resolver =
            certificate::Reloading::new(cert.clone(), key.clone(), Arc::clone(&provider))?;
        if let (Some(cert), Some(key)) = (&info.client_cert_file, &info.client_key_file) {
            read_pair(cert, key, &provider)?;
        }
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)?;
        let builder = if info.requires_client_certificate() {
            builder.with_client_cert_verifier(verify::ClientVerifier::new(info, provider)?)
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        info!(
            cert_file = shown(&info.cert_file),
            key_file = shown(&info.key_file),
            trusted_ca_file = shown(&info.trusted_ca_file),
            crl_file = shown(&info.crl_file),
            client_cert_auth = info.client_cert_auth,
            "starting with {} TLS",
            match endpoint {
                Endpoint::Client => "client",
                Endpoint::Peer => "peer",
            }
        );
        Ok(Self { config: Arc::new(config), endpoint })
    }

    /// Shakes hands with who connected from `remote`; `None`, after a line in the log, where that
    /// fails or takes too long.
    ///
    /// May read changed certificate files and the revocation list while it does: small files, once
    /// per change.
    pub async fn accept<S>(&self, stream: S, remote: &dyn fmt::Display) -> Option<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut server_name = String::new();
        let handshake = async {
            let hello =
                LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
            let named = hello.client_hello().server_name().map(str::to_owned);
            server_name = named.unwrap_or_default();
            hello.into_stream(Arc::clone(&self.config)).await
        };
        let failure = match tokio::time::timeout(HANDSHAKE_MAX, handshake).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => error,
            Err(_elapsed) => std::io::ErrorKind::TimedOut.into(),
        };
        self.log_rejected(&server_name, remote, &failure);
        None
    }

    /// Who hangs up is no news; everything else is.
    fn log_rejected(&self, server_name: &str, remote: &dyn fmt::Display, error: &std::io::Error) {
        let message = match self.endpoint {
            Endpoint::Client => "rejected connection on client endpoint",
            Endpoint::Peer => "rejected connection on peer endpoint",
        };
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            debug!(remote_addr = %remote, server_name, error = "EOF", "{message}");
        } else {
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
            let text = cause.and_then(verify::refusal).unwrap_or_else(|| io_text(error));
            warn!(remote_addr = %remote, server_name, error = text, "{message}");
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let content = |reason: String| Error::Content { path: path.to_owned(), reason };
    let certificates = CertificateDer::pem_slice_iter(&read_file(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| content(error.to_string()))?;
    if certificates.is_empty() {
        return Err(content("no certificate found".to_owned()));
    }
    Ok(certificates)
}

/// Reads a chain and its key, in any of the usual forms, and checks that they belong together.
fn read_pair(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
    let chain = read_certificates(cert)?;
    let private = PrivateKeyDer::from_pem_slice(&read_file(key)?)
        .map_err(|error| Error::Content { path: key.to_owned(), reason: error.to_string() })?;
    Ok(CertifiedKey::from_der(chain, private, provider)?)
}
