//! The JSON gateway, over HTTP/1.1.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use prost_reflect::{DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::Value;
use tokio::net::TcpStream;

use crate::grpc::PATIENCE;

/// What the gateway said to one call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) kind: String,
    /// The JSON values of the body, in order: streams have several.
    pub(crate) values: Vec<Value>,
}

/// One connection to one server.
pub(crate) struct Gateway {
    sender: SendRequest<Full<Bytes>>,
    port: u16,
}

impl Gateway {
    pub(crate) async fn open(port: u16) -> Result<Self> {
        let socket = TcpStream::connect(("127.0.0.1", port)).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(socket)).await?;
        // Ends when the server or the sender goes.
        tokio::task::spawn_local(connection);
        Ok(Self { sender, port })
    }

    /// Posts `body` and returns the answer; opens the connection again when the server has closed it.
    pub(crate) async fn post(&mut self, route: &str, body: &str) -> Result<Answer> {
        if self.sender.is_closed() {
            *self = Self::open(self.port).await?;
        }
        let request = Request::post(route)
            .header("host", format!("127.0.0.1:{}", self.port))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?;
        let exchange = async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let (parts, body) = response.into_parts();
            Ok::<_, anyhow::Error>((parts, body.collect().await?.to_bytes()))
        };
        let (parts, body) =
            tokio::time::timeout(PATIENCE, exchange).await.context("no answer in time")??;
        let kind = parts.headers.get("content-type").map(|kind| kind.as_bytes());
        let kind = String::from_utf8_lossy(kind.unwrap_or_default()).into_owned();
        let values: Result<Vec<Value>, _> =
            serde_json::Deserializer::from_slice(&body).into_iter().collect();
        let text = String::from_utf8_lossy(&body);
        let values = values.with_context(|| format!("not JSON: {text}"))?;
        Ok(Answer { status: parts.status.as_u16(), kind, values })
    }
}

/// Writes an encoded message as the gateway's clients do.
pub(crate) fn to_json(descriptor: &MessageDescriptor, message: &[u8]) -> Result<String> {
    let message = DynamicMessage::decode(descriptor.clone(), message)?;
    let mut json = Vec::new();
    let options = SerializeOptions::new().use_proto_field_name(true);
    let mut serializer = serde_json::Serializer::new(&mut json);
    message.serialize_with_options(&mut serializer, &options)?;
    Ok(String::from_utf8(json)?)
}
