//! Certificates: the server's, read anew when the files change, and what is written in a client's.

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ServerConnection;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tracing::warn;
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::{Tag, Tagged as _};

use super::{Error, read_pair};

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The server's certificate and key. Each handshake looks whether the files have changed; what they
/// hold is parsed once per change.
pub(super) struct Reloading {
    cert: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    stamps: (Stamp, Stamp),
    pair: Arc<CertifiedKey>,
}

/// What changes when a file does.
#[derive(PartialEq, Eq, Clone, Copy)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl fmt::Debug for Reloading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloading")
            .field("cert", &self.cert)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl Reloading {
    /// Reads the pair for the first time.
    pub(super) fn new(
        cert: PathBuf,
        key: PathBuf,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        // Stamps first: a change between the two is then seen again, not missed.
        let stamps = stamps(&cert, &key)?;
        let pair = Arc::new(read_pair(&cert, &key, &provider)?);
        Ok(Self { cert, key, provider, loaded: Mutex::new(Loaded { stamps, pair }) })
    }

    fn current(&self) -> Result<Arc<CertifiedKey>, Error> {
        let stamps = stamps(&self.cert, &self.key)?;
        let mut loaded = self.loaded.lock();
        if loaded.stamps != stamps {
            loaded.pair = Arc::new(read_pair(&self.cert, &self.key, &self.provider)?);
            loaded.stamps = stamps;
        }
        Ok(Arc::clone(&loaded.pair))
    }
}

fn stamps(cert: &PathBuf, key: &PathBuf) -> Result<(Stamp, Stamp), Error> {
    let stamp = |path: &PathBuf| match std::fs::metadata(path) {
        Ok(metadata) => Ok(Stamp::from(&metadata)),
        Err(source) => Err(Error::Read { path: path.clone(), source }),
    };
    Ok((stamp(cert)?, stamp(key)?))
}

impl ResolvesServerCert for Reloading {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match self.current() {
            Ok(pair) => Some(pair),
            Err(error) => {
                let message = match &error {
                    Error::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                        "failed to find peer cert files"
                    }
                    _ => "failed to create peer certificate",
                };
                let (cert, key) = (self.cert.display(), self.key.display());
                warn!(cert_file = %cert, key_file = %key, error = %error, "{message}");
                None
            }
        }
    }
}

/// The common name of the certificate that a client has shown and that was verified; `None` without
/// one.
pub fn client_common_name(connection: &ServerConnection) -> Option<String> {
    let leaf = connection.peer_certificates()?.first()?;
    common_name(leaf).filter(|name| !name.is_empty())
}

/// The last common name in a certificate's subject, which is the one Go takes.
pub(super) fn common_name(der: &[u8]) -> Option<String> {
    let certificate = Certificate::from_der(der).ok()?;
    let subject = certificate.tbs_certificate().subject();
    let attribute = subject.iter().filter(|attribute| attribute.oid == COMMON_NAME).last()?;
    let value = AnyRef::from(&attribute.value);
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::TeletexString => {
            Some(String::from_utf8_lossy(value.value()).into_owned())
        }
        Tag::BmpString => {
            let units =
                value.value().chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            Some(String::from_utf16_lossy(&units.collect::<Vec<_>>()))
        }
        _ => None,
    }
}

/// The serial number of a certificate, big endian.
pub(super) fn serial(der: &[u8]) -> Result<Vec<u8>, String> {
    let certificate = Certificate::from_der(der).map_err(|error| error.to_string())?;
    Ok(certificate.tbs_certificate().serial_number().as_bytes().to_vec())
}

/// The serial numbers that a revocation list (DER) names.
pub(super) fn revoked_serials(der: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let list: CertificateList =
        CertificateList::from_der(der).map_err(|error| error.to_string())?;
    let revoked = list.tbs_cert_list.revoked_certificates.unwrap_or_default();
    Ok(revoked.iter().map(|entry| entry.serial_number.as_bytes().to_vec()).collect())
}
