//! Handshakes over real connections, with certificates made for the test.

use std::fs;
use std::net::SocketAddr;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::*;

/// A certificate authority and a directory for what it signs.
struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(directory.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { directory, issuer: Issuer::new(params, key) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Signs a certificate for localhost and writes it and its key into files of that name.
    fn sign(&self, file: &str, common_name: &str, serial: u64) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let paths = (self.path(&format!("{file}.pem")), self.path(&format!("{file}.key")));
        fs::write(&paths.0, certificate.pem()).unwrap();
        fs::write(&paths.1, key.serialize_pem()).unwrap();
        paths
    }

    fn revoke(&self, serial: u64) -> PathBuf {
        let time = rcgen::date_time_ymd(2026, 1, 1);
        let list = CertificateRevocationListParams {
            this_update: time,
            next_update: rcgen::date_time_ymd(2096, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: time,
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.path("revoked.crl");
        fs::write(&path, list.signed_by(&self.issuer).unwrap().der()).unwrap();
        path
    }

    fn info(&self) -> TlsInfo {
        let (cert, key) = self.sign("server", "server", 2);
        TlsInfo { cert_file: Some(cert), key_file: Some(key), ..TlsInfo::default() }
    }
}

fn options(suites: &[&str], min: TlsVersion, max: TlsVersion) -> Tls {
    Tls {
        client: TlsInfo::default(),
        peer: TlsInfo::default(),
        cipher_suites: suites.iter().map(|name| (*name).to_owned()).collect(),
        version_min: min,
        version_max: max,
        self_signed_validity_years: 1,
    }
}

fn any() -> Tls {
    options(&[], TlsVersion::V12, TlsVersion::V13)
}

/// Trusts everybody and remembers nothing: these tests look at the server.
#[derive(Debug)]
struct Trusting(Arc<CryptoProvider>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let supported = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, supported)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let supported = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, supported)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What both sides know after a handshake.
struct Met {
    client_name: Option<String>,
    server_certificate: Vec<u8>,
    protocol: Option<Vec<u8>>,
    version: rustls::ProtocolVersion,
}

/// Connects to `server`, with a client certificate where one is given; `None` where the handshake
/// fails.
fn meet(server: &ServerTls, client: Option<&(PathBuf, PathBuf)>) -> Option<Met> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let accepted = async {
            let (stream, remote) = listener.accept().await.unwrap();
            let mut stream = server.accept(stream, &remote).await?;
            stream.write_all(b"x").await.ok()?;
            let (_io, connection) = stream.get_ref();
            Some((client_common_name(connection), connection.alpn_protocol().map(<[u8]>::to_vec)))
        };
        let connected = async {
            let provider = Arc::new(suites::provider(&[]).unwrap());
            let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Trusting(provider)));
            let mut config = match client {
                Some((cert, key)) => builder
                    .with_client_auth_cert(
                        read_certificates(cert).unwrap(),
                        PrivateKeyDer::from_pem_file(key).unwrap(),
                    )
                    .unwrap(),
                None => builder.with_no_client_auth(),
            };
            config.alpn_protocols = vec![b"h2".to_vec()];
            let stream = TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream =
                TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
            // With TLS 1.3 the client is done before the server has looked at its certificate.
            stream.read_u8().await.ok()?;
            let (_io, connection) = stream.get_ref();
            let certificate = connection.peer_certificates()?.first()?.to_vec();
            Some((certificate, connection.protocol_version()?))
        };
        let (server_side, client_side) = tokio::join!(accepted, connected);
        let ((client_name, protocol), (server_certificate, version)) =
            server_side.zip(client_side)?;
        Some(Met { client_name, server_certificate, protocol, version })
    })
}

fn server(info: &TlsInfo, tls: &Tls) -> ServerTls {
    ServerTls::new(info, tls, Endpoint::Client).unwrap()
}

#[test]
fn versions_and_protocols_are_negotiated() {
    let authority = Authority::new();
    let info = authority.info();
    let met = meet(&server(&info, &any()), None).expect("a handshake");
    assert_eq!(met.protocol.as_deref(), Some(b"h2".as_slice()));
    assert_eq!(met.version, rustls::ProtocolVersion::TLSv1_3);
    assert_eq!(met.client_name, None);
    let suite = ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_128_CBC_SHA"];
    let old = options(&suite, TlsVersion::V12, TlsVersion::V12);
    let met = meet(&server(&info, &old), None).expect("a handshake");
    assert_eq!(met.version, rustls::ProtocolVersion::TLSv1_2);
}

#[test]
fn changed_files_are_used_at_the_next_handshake() {
    let authority = Authority::new();
    let info = authority.info();
    let server = server(&info, &any());
    let before = meet(&server, None).expect("a handshake").server_certificate;
    assert_eq!(before, meet(&server, None).expect("another").server_certificate);
    authority.sign("server", "server", 3);
    let after = meet(&server, None).expect("a handshake").server_certificate;
    assert_ne!(before, after);
    let key = info.key_file.as_ref().unwrap();
    let hidden = authority.path("hidden");
    fs::rename(key, &hidden).unwrap();
    assert!(meet(&server, None).is_none(), "no key, no handshake");
    fs::rename(&hidden, key).unwrap();
    assert!(meet(&server, None).is_some(), "it is back");
}

#[test]
fn client_certificates_are_required_and_verified() {
    let authority = Authority::new();
    let info = TlsInfo { trusted_ca_file: Some(authority.path("ca.pem")), ..authority.info() };
    let server = server(&info, &any());
    let client = authority.sign("client", "alice", 7);
    let met = meet(&server, Some(&client)).expect("a handshake");
    assert_eq!(met.client_name.as_deref(), Some("alice"));
    assert!(meet(&server, None).is_none(), "none is shown");
    let other = Authority::new();
    let stranger = other.sign("client", "alice", 7);
    assert!(meet(&server, Some(&stranger)).is_none(), "nobody here signed it");
}

#[test]
fn revoked_certificates_are_refused() {
    let authority = Authority::new();
    let info = TlsInfo {
        trusted_ca_file: Some(authority.path("ca.pem")),
        crl_file: Some(authority.revoke(7)),
        ..authority.info()
    };
    let server = server(&info, &any());
    let (good, revoked) = (authority.sign("good", "a", 8), authority.sign("revoked", "a", 7));
    assert!(meet(&server, Some(&good)).is_some());
    assert!(meet(&server, Some(&revoked)).is_none());
    // The list is read for every handshake; without it nobody is let in.
    authority.revoke(8);
    assert!(meet(&server, Some(&good)).is_none());
    assert!(meet(&server, Some(&revoked)).is_some());
    fs::write(authority.path("revoked.crl"), "no list").unwrap();
    assert!(meet(&server, Some(&revoked)).is_none());
}

#[test]
fn names_can_be_demanded() {
    let authority = Authority::new();
    let ca = TlsInfo { trusted_ca_file: Some(authority.path("ca.pem")), ..authority.info() };
    let client = authority.sign("client", "alice", 7);
    let names = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    for (cns, hostnames, met) in [
        (names(&["bob", "alice"]), vec![], true),
        (names(&["bob"]), vec![], false),
        (vec![], names(&["example.com", "localhost"]), true),
        (vec![], names(&["example.com"]), false),
    ] {
        let info = TlsInfo { allowed_cns: cns, allowed_hostnames: hostnames, ..ca.clone() };
        assert_eq!(meet(&server(&info, &any()), Some(&client)).is_some(), met, "{info:?}");
    }
}

#[test]
fn generated_certificates_are_kept_and_unusable_ones_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let url = Url::parse("https://127.0.0.1:2379").unwrap();
    let auto = TlsInfo { auto: true, ..TlsInfo::default() };
    let generated = || {
        let info = with_generated(&auto, Endpoint::Client, directory.path(), &[&url], 1).unwrap();
        let certificate = fs::read(info.cert_file.as_ref().unwrap()).unwrap();
        (info, certificate)
    };
    let (info, first) = generated();
    assert!(meet(&server(&info, &any()), None).is_some());
    assert_eq!(info.cert_file, Some(directory.path().join("fixtures/client/cert.pem")));
    assert_eq!(generated().1, first);
    fs::write(info.key_file.as_ref().unwrap(), "no key").unwrap();
    let (info, second) = generated();
    assert_ne!(second, first);
    assert!(meet(&server(&info, &any()), None).is_some());
}

#[test]
fn what_cannot_be_set_up_is_refused() {
    let authority = Authority::new();
    let info = authority.info();
    let refusal = |info: &TlsInfo, tls: &Tls| {
        ServerTls::new(info, tls, Endpoint::Client).expect_err("a refusal").to_string()
    };
    let half = TlsInfo { cert_file: Some("a".into()), ..TlsInfo::default() };
    assert_eq!(refusal(&half, &any()), "KeyFile and CertFile must both be present[key: , cert: a]");
    let missing = TlsInfo { cert_file: Some("a".into()), ..info.clone() };
    assert_eq!(refusal(&missing, &any()), "open a: no such file or directory");
    let foreign = TlsInfo { key_file: Some(authority.sign("other", "x", 9).1), ..info.clone() };
    assert!(!refusal(&foreign, &any()).is_empty());
    let only_bad = options(&["TLS_RSA_WITH_RC4_128_SHA"], TlsVersion::V12, TlsVersion::V13);
    assert_eq!(
        refusal(&info, &only_bad),
        "none of the cipher suites TLS_RSA_WITH_RC4_128_SHA is supported"
    );
    let no_authority = TlsInfo { trusted_ca_file: info.key_file.clone(), ..info };
    assert!(refusal(&no_authority, &any()).ends_with("no certificate found"));
}
