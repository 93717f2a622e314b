//! Opens the byte stream under one connection: TCP or a Unix socket, with TLS or without.

use std::io;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::endpoint::Address;

/// A connection's bytes, both ways.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Everything that connecting to one endpoint takes.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    pub(crate) address: Address,
    pub(crate) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Connector {
    pub(crate) async fn connect(self) -> io::Result<TokioIo<Box<dyn Duplex>>> {
        let stream: Box<dyn Duplex> = match &self.address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address.as_str()).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        };
        let Some((config, name)) = self.tls else { return Ok(TokioIo::new(stream)) };
        let secured = TlsConnector::from(config).connect(name, stream).await?;
        Ok(TokioIo::new(Box::new(secured)))
    }
}
