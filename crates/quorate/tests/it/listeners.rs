//! What listeners serve, over what, and for whom.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Channel, Endpoint};

use crate::client::{Client, in_time};
use crate::harness::{Setup, free_port};
use crate::http1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_port_serves_grpc_and_http() {
    let server = Setup::new().start();
    let client = Client::connect(&server).await;
    client.put("foo", "bar").await.expect("acknowledged");
    let health = http1::get(server.address(), "/health").await;
    assert_eq!((health.status, &*health.body), (200, r#"{"health":"true","reason":""}"#));
    let range = http1::post(server.address(), "/v3/kv/range", r#"{"key":"Zm9v"}"#).await;
    assert_eq!(range.json()["kvs"][0]["value"], "YmFy");
    assert_eq!(range.header("content-type"), Some("application/json"));
    let old = http1::post(server.address(), "/v3beta/kv/range", r#"{"key":"Zm9v"}"#).await;
    assert_eq!(old.json()["count"], "1");
    let missing = http1::get(server.address(), "/nothing").await;
    assert_eq!((missing.status, &*missing.body), (404, "404 page not found\n"));
    let wrong = http1::post(server.address(), "/health", "").await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET")));
    let unknown = http1::post(server.address(), "/v3/nothing", "").await;
    assert_eq!((unknown.status, &unknown.json()["message"]), (404, &"Not Found".into()));
    let method = http1::get(server.address(), "/v3/kv/put").await;
    assert_eq!((method.status, &method.json()["code"]), (501, &12.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_listener_serves_metrics_and_health_only() {
    let address: SocketAddr = format!("127.0.0.1:{}", free_port()).parse().expect("valid");
    let server = Setup::new()
        .flag(format!("--listen-metrics-urls=http://{address}"))
        .flag("--host-whitelist=nobody")
        .start();
    let metrics = http1::get(address, "/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.body.contains("etcd_server_has_leader 1"), "{}", metrics.body);
    for path in ["/health", "/livez", "/readyz", "/readyz/linearizable_read"] {
        assert_eq!(http1::get(address, path).await.status, 200, "{path}");
    }
    for path in ["/version", "/debug/vars", "/v3/kv/range", "/"] {
        assert_eq!(http1::get(address, path).await.status, 404, "{path}");
    }
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_and_http_can_have_ports_of_their_own() {
    let http: SocketAddr = format!("127.0.0.1:{}", free_port()).parse().expect("valid");
    let server = Setup::new().flag(format!("--listen-client-http-urls=http://{http}")).start();
    let client = Client::connect(&server).await;
    client.put("foo", "bar").await.expect("acknowledged");
    assert_eq!(http1::get(http, "/health").await.status, 200);
    let range = http1::post(http, "/v3/kv/range", r#"{"key":"Zm9v"}"#).await;
    assert_eq!(range.json()["count"], "1");
    let stream = TcpStream::connect(server.address()).await.expect("it listens");
    let answer = http1::raw(stream, b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.is_none(), "the gRPC port has no pages: {answer:?}");
    let endpoint = Endpoint::from_shared(format!("http://{http}")).expect("a URL");
    let refused = match endpoint.connect().await {
        Ok(channel) => Client::over(channel).put("a", "b").await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "the HTTP port has no gRPC");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_address_for_grpc_and_http_is_refused() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let setup = Setup::new().client_url(&url).flag(format!("--listen-client-http-urls={url}"));
    let mut server = setup.spawn();
    assert_eq!(server.wait_code(), 1, "{}", server.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_and_origins_are_checked() {
    let server = Setup::new()
        .flag("--host-whitelist=good.example,127.0.0.1")
        .flag("--cors=http://page.example:80")
        .start();
    let ask = async |host: &str, origin: &str, method: &str| {
        let head = format!("{method} /version HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}");
        http1::request(server.address(), &head, "").await
    };
    let good = ask("good.example:2379", "http://page.example:80", "GET").await;
    assert_eq!(good.status, 200);
    assert_eq!(good.header("access-control-allow-origin"), Some("http://page.example:80"));
    let preflight = ask("good.example", "http://page.example:80", "OPTIONS").await;
    assert_eq!((preflight.status, &*preflight.body), (200, ""));
    assert_eq!(
        preflight.header("access-control-allow-methods"),
        Some("POST, GET, OPTIONS, PUT, DELETE")
    );
    let stranger = ask("127.0.0.1", "http://stranger.example", "GET").await;
    assert_eq!((stranger.status, stranger.header("access-control-allow-origin")), (200, None));
    let rebound = ask("evil.example", "http://page.example:80", "GET").await;
    assert_eq!(rebound.status, 421);
    assert!(rebound.body.contains("--host-whitelist \"evil.example\""), "{}", rebound.body);
    // gRPC on a plain port is not looked at.
    Client::connect(&server).await.put("a", "1").await.expect("acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unix_sockets_serve_and_outlive_a_crash() {
    let directory = TempDir::new().expect("a temporary directory");
    let path = directory.path().join("client.sock:1");
    let setup = Setup::new()
        .client_url(format!("unix://{}", path.display()))
        .data_dir(&directory.path().join("data"));
    for round in 0..2 {
        let mut server = setup.start();
        let client = Client::over(unix_channel(&path).await);
        client.put("a", round.to_string()).await.expect("acknowledged");
        let stream = UnixStream::connect(&path).await.expect("it listens");
        let health = http1::exchange(stream, "GET /health HTTP/1.1\r\nHost: a", "").await;
        assert_eq!(health.status, 200);
        // The socket file stays in the way of the next start.
        server.kill();
        assert!(path.exists());
    }
}

async fn unix_channel(path: &Path) -> Channel {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_: http::Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://unix");
    in_time("a connection", endpoint.connect_with_connector(connector)).await.expect("it serves")
}

/// A certificate authority and what it has signed, as files.
pub(crate) struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

/// A certificate and its key.
pub(crate) struct Pair {
    certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        let issuer = Issuer::new(params, key);
        let authority =
            Self { directory: TempDir::new().expect("a directory"), issuer, certificate };
        authority.write("ca.pem", &authority.certificate.pem());
        authority
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn sign(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> Pair {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("valid names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        Pair { certificate, key }
    }

    /// A member with TLS and, if `mutual`, client certificates.
    pub(crate) fn setup(&self, mutual: bool) -> Setup {
        let pair = self.sign("server", ExtendedKeyUsagePurpose::ServerAuth);
        self.write("server.pem", &pair.certificate.pem());
        self.write("server.key", &pair.key.serialize_pem());
        let setup = Setup::new()
            .client_url(format!("https://127.0.0.1:{}", free_port()))
            .flag(format!("--cert-file={}", self.path("server.pem").display()))
            .flag(format!("--key-file={}", self.path("server.key").display()));
        if !mutual {
            return setup;
        }
        setup
            .flag("--client-cert-auth")
            .flag(format!("--trusted-ca-file={}", self.path("ca.pem").display()))
    }

    /// Connects, trusting this authority, with or without a certificate.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        pair: Option<&Pair>,
        protocols: &[&str],
    ) -> io::Result<Box<TlsStream<TcpStream>>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).expect("a certificate");
        let config = ClientConfig::builder().with_root_certificates(roots);
        let mut config = match pair {
            None => config.with_no_client_auth(),
            Some(pair) => {
                let key = PrivateKeyDer::try_from(pair.key.serialize_der()).expect("a key");
                let chain = vec![pair.certificate.der().clone()];
                config.with_client_auth_cert(chain, key).expect("a pair")
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
        Box::pin(connecting).await.map(Box::new)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_serves_grpc_and_http_by_what_the_client_offers() {
    let authority = Authority::new();
    let server = authority.setup(false).start();
    let stream = authority.connect(server.address(), None, &["h2"]).await.expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let client = Client::over(channel_over(stream).await);
    client.put("foo", "bar").await.expect("acknowledged");
    for protocols in [&["http/1.1"][..], &[]] {
        let stream =
            authority.connect(server.address(), None, protocols).await.expect("a handshake");
        let head = "GET /health HTTP/1.1\r\nHost: localhost";
        assert_eq!(http1::exchange(stream, head, "").await.status, 200);
    }
    // Plain text on a TLS port gets no answer of HTTP.
    let stream = TcpStream::connect(server.address()).await.expect("it listens");
    let answer = http1::raw(stream, b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.is_none(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_speaks_tls_and_plain_text_if_both_are_asked_for() {
    let authority = Authority::new();
    let address: SocketAddr = format!("127.0.0.1:{}", free_port()).parse().expect("valid");
    for urls in [
        format!("http://{address},https://{address}"),
        format!("https://{address},http://{address}"),
    ] {
        let _server = authority.setup(false).client_url(urls).start();
        let stream = authority.connect(address, None, &["h2"]).await.expect("a handshake");
        let secured = Client::over(channel_over(stream).await);
        secured.put("foo", "tls").await.expect("acknowledged");
        let plain = Client::connect_to(&format!("http://{address}")).await;
        assert_eq!(plain.get("foo").await.expect("readable").as_deref(), Some(&b"tls"[..]));
        let stream = authority.connect(address, None, &["http/1.1"]).await.expect("a handshake");
        let head = "GET /health HTTP/1.1\r\nHost: localhost";
        assert_eq!(http1::exchange(stream, head, "").await.status, 200);
        assert_eq!(http1::get(address, "/health").await.status, 200);
        // Who says nothing is in nobody's way, and who is gone leaves no trace.
        let silent = TcpStream::connect(address).await.expect("it listens");
        drop(TcpStream::connect(address).await.expect("it listens"));
        plain.put("foo", "plain").await.expect("acknowledged");
        drop(silent);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutual_tls_lets_known_clients_in_only() {
    let authority = Authority::new();
    let server = authority.setup(true).start();
    let known = authority.sign("alice", ExtendedKeyUsagePurpose::ClientAuth);
    let stream = authority.connect(server.address(), Some(&known), &["h2"]).await;
    let client = Client::over(channel_over(stream.expect("a handshake")).await);
    client.put("foo", "bar").await.expect("acknowledged");
    let stranger = Authority::new().sign("alice", ExtendedKeyUsagePurpose::ClientAuth);
    let misused = authority.sign("alice", ExtendedKeyUsagePurpose::ServerAuth);
    for pair in [None, Some(&stranger), Some(&misused)] {
        // With TLS 1.3 the refusal arrives after the client's side of the handshake.
        let Ok(stream) = authority.connect(server.address(), pair, &["http/1.1"]).await else {
            continue;
        };
        let answer = http1::raw(stream, b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(answer.is_none(), "{answer:?}");
    }
    client.put("foo", "baz").await.expect("the known one is not disturbed");
}

/// Speaks gRPC over a stream that is there already.
async fn channel_over(stream: Box<TlsStream<TcpStream>>) -> Channel {
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = stream.take().ok_or(io::ErrorKind::NotConnected);
        async move { stream.map_err(io::Error::from) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    in_time("a connection", endpoint.connect_with_connector(connector)).await.expect("it serves")
}
