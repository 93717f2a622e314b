//! Pages and gateway calls that arrive on an HTTP/2 connection, beside gRPC.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::Request;
use http_body::Body as _;

use super::body::Body;
use crate::http::body::{Answer, Chunks};
use crate::http::{Pages, respond};
use crate::service::Services;

/// Answers one request on its stream.
pub async fn serve(
    services: Rc<Services>,
    pages: &Pages,
    request: Request<RecvStream>,
    mut stream: SendResponse<Bytes>,
) {
    let (head, body) = request.into_parts();
    let response = respond(services, pages, head, Chunks::Http2(Body::new(body))).await;
    let (head, mut answer) = response.into_parts();
    let is_empty = answer.is_end_stream();
    // A client that is gone needs no answer, here and below.
    let Ok(stream) = stream.send_response(http::Response::from_parts(head, ()), is_empty) else {
        return;
    };
    if !is_empty {
        send(&mut answer, stream).await;
    }
}

async fn send(answer: &mut Answer, mut stream: SendStream<Bytes>) {
    while let Some(frame) = poll_fn(|context| Pin::new(&mut *answer).poll_frame(context)).await {
        let Ok(frame) = frame else { return stream.send_reset(Reason::INTERNAL_ERROR) };
        let Ok(mut data) = frame.into_data() else { continue };
        while !data.is_empty() {
            stream.reserve_capacity(data.len());
            let Some(Ok(capacity)) = poll_fn(|context| stream.poll_capacity(context)).await else {
                return;
            };
            let piece = data.split_to(capacity.min(data.len()));
            if stream.send_data(piece, false).is_err() {
                return;
            }
        }
    }
    drop(stream.send_data(Bytes::new(), true));
}
