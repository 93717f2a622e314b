//! Verification of client certificates: the chain, then names, then the revocation list.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore,
    SignatureScheme,
};
use tracing::info;

use super::certificate::{common_name, revoked_serials, serial};
use super::{Error, read_certificates};
use crate::config::TlsInfo;

/// Requires a certificate that one of the CAs has signed, and what else is asked for.
pub(super) struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    allowed_cns: Vec<String>,
    allowed_hostnames: Vec<String>,
    crl_file: Option<PathBuf>,
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier").field("crl_file", &self.crl_file).finish_non_exhaustive()
    }
}

impl ClientVerifier {
    /// Reads the CAs: the given file, or the system's.
    pub(super) fn new(info: &TlsInfo, provider: Arc<CryptoProvider>) -> Result<Arc<Self>, Error> {
        let mut roots = RootCertStore::empty();
        let certificates = match &info.trusted_ca_file {
            Some(path) => {
                info!(trusted_ca_file = %path.display(), "Loading cert pool");
                read_certificates(path)?
            }
            None => rustls_native_certs::load_native_certs().certs,
        };
        roots.add_parsable_certificates(certificates);
        let chain =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Arc::new(Self {
            chain,
            allowed_cns: info.allowed_cns.clone(),
            allowed_hostnames: info.allowed_hostnames.clone(),
            crl_file: info.crl_file.clone(),
        }))
    }

    fn check_names(&self, leaf: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let allowed = if !self.allowed_cns.is_empty() {
            common_name(leaf).is_some_and(|name| self.allowed_cns.contains(&name))
        } else if !self.allowed_hostnames.is_empty() {
            let parsed = ParsedCertificate::try_from(leaf)?;
            self.allowed_hostnames.iter().any(|host| {
                ServerName::try_from(host.as_str())
                    .is_ok_and(|name| verify_server_name(&parsed, &name).is_ok())
            })
        } else {
            true
        };
        if allowed {
            return Ok(());
        }
        Err(refused("client certificate authentication failed".to_owned()))
    }

    /// Refuses a chain of which any certificate is revoked, and everybody while the list cannot be
    /// read.
    fn check_revocation(&self, chain: &[&CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let Some(path) = &self.crl_file else { return Ok(()) };
        let list = super::read_file(path).map_err(|error| refused(error.to_string()))?;
        let revoked = revoked_serials(&list).map_err(refused)?;
        for certificate in chain {
            let serial = serial(certificate).map_err(refused)?;
            if revoked.contains(&serial) {
                let digits: Vec<_> = serial.iter().map(|byte| format!("{byte:02x}")).collect();
                let digits = digits.concat();
                return Err(refused(format!("transport: certificate serial {digits} revoked")));
            }
        }
        Ok(())
    }
}

/// Why a certificate is refused that is valid in itself.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

fn refused(reason: String) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(Refused(reason)))).into()
}

/// The reason alone, where a handshake failed for one of ours.
pub(super) fn refusal(error: &rustls::Error) -> Option<String> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(reason))) => {
            Some(reason.to_string())
        }
        _ => None,
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        self.check_names(end_entity)?;
        let chain: Vec<_> = std::iter::once(end_entity).chain(intermediates).collect();
        self.check_revocation(&chain)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
