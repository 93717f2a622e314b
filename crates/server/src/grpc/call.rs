//! One gRPC call: from its request headers to its trailers.
//!
//! Order of checks as grpc-go and etcd have it: method and content type, deadline, metadata, then the message, then the
//! service. A client that resets its stream ends the call: the service's future is dropped.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};

use super::body::Body;
use super::encoding::Encoding;
use super::error;
use super::message::{Ended, MessageReader, MessageWriter};
use super::method::{Kind, Method};
use super::status::{Code, Status};
use crate::service::payload::Payload;
use crate::service::stream::{Gone, Outbound};
use crate::service::{Caller, Remote, Services};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const CONTENT_TYPE_GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
/// Largest `grpc-timeout` value: eight digits (gRPC over HTTP/2 specification).
const TIMEOUT_DIGITS_MAX: usize = 8;

/// Takes in a request and returns the rest of its call, or nothing when it is refused at once.
///
/// Of the request only what the call needs is kept. Each kind of call has a future of its own: one that stays open for
/// long must not take the room that others need for a moment.
pub fn begin(
    services: Rc<Services>,
    remote: Remote,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    answered: Rc<Cell<bool>>,
) -> Option<Pin<Box<dyn Future<Output = ()>>>> {
    let started = Instant::now();
    let (head, body) = request.into_parts();
    let body = Body::new(body);
    answered.set(true);
    if let Err(refusal) = check_http(&head) {
        refusal.send(&mut respond);
        return None;
    }
    let method = match Method::from_path(head.uri.path()) {
        Ok(method) => method,
        Err(unknown) => {
            let status = Status::new(Code::Unimplemented, unknown.to_string());
            send_status_only(&mut respond, &status);
            return None;
        }
    };
    services.metrics().grpc.started(method);
    let open = Open::read(&head.headers, remote);
    let mut call = Call { services, method, respond, answered, started };
    let Open { encoding, timeout, caller } = match open {
        Ok(open) => open,
        Err(status) => {
            call.end(Err(status));
            return None;
        }
    };
    let deadline = timeout.map(|timeout| started + timeout);
    let limits = call.services.limits();
    let reader =
        MessageReader::new(body, encoding, limits.message_bytes_max, limits.incomplete.share());
    Some(match method.kind() {
        Kind::Unary => Box::pin(call.unary(deadline, caller, reader)),
        Kind::ServerStream => Box::pin(call.server_stream(deadline, caller, reader)),
        Kind::BidiStream => Box::pin(call.bidi_stream(deadline, caller, reader)),
    })
}

/// Runs `call` until the client's deadline.
async fn within(
    deadline: Option<Instant>,
    call: Pin<&mut impl Future<Output = Result<Code, Status>>>,
) -> Result<Code, Status> {
    match deadline {
        None => call.await,
        Some(deadline) => tokio::time::timeout_at(deadline.into(), call)
            .await
            .unwrap_or(Err(error::DEADLINE_EXCEEDED)),
    }
}

struct Call {
    services: Rc<Services>,
    method: Method,
    respond: SendResponse<Bytes>,
    answered: Rc<Cell<bool>>,
    started: Instant,
}

// Futures are pinned where they are made and lent from there: each move into an `async fn` would double their room.
impl Call {
    async fn unary(mut self, deadline: Option<Instant>, caller: Caller, reader: MessageReader) {
        let result = within(deadline, pin!(self.answer(&caller, reader))).await;
        self.end(result);
    }

    async fn server_stream(
        mut self,
        deadline: Option<Instant>,
        caller: Caller,
        reader: MessageReader,
    ) {
        let result = within(deadline, pin!(self.answer_with_many(&caller, reader))).await;
        self.end(result);
    }

    async fn bidi_stream(
        mut self,
        deadline: Option<Instant>,
        caller: Caller,
        reader: MessageReader,
    ) {
        let result = within(deadline, pin!(self.converse(&caller, reader))).await;
        self.end(result);
    }

    /// Ends a call with the code that was sent in trailers, or with a status for a response without content.
    fn end(&mut self, result: Result<Code, Status>) {
        self.answered.set(true);
        let code = match result {
            Ok(code) => code,
            Err(status) => {
                send_status_only(&mut self.respond, &status);
                status.code
            }
        };
        self.services.metrics().grpc.handled(self.method, code, self.started.elapsed());
    }

    async fn answer(&mut self, caller: &Caller, mut reader: MessageReader) -> Result<Code, Status> {
        let message = reader.only_message().await?;
        self.services.metrics().grpc.received(self.method, message.len());
        let answer = pin!(self.services.unary(self.method, caller, message));
        let payload = unless_reset(&mut self.respond, answer).await?;
        self.services.metrics().grpc.sent(self.method, payload.message_len());
        let stream = send_headers(&mut self.respond)?;
        let mut writer = MessageWriter::new(stream, Rc::clone(&self.answered));
        match writer.send_only(payload).await {
            Ok(()) => {
                writer.finish(trailers(None));
                Ok(Code::Ok)
            }
            Err(Ended::Gone) => Ok(Code::Canceled),
            Err(Ended::Unfinished(status)) => {
                writer.finish(trailers(Some(&status)));
                Ok(status.code)
            }
        }
    }

    async fn answer_with_many(
        &mut self,
        caller: &Caller,
        mut reader: MessageReader,
    ) -> Result<Code, Status> {
        let message = reader.only_message().await?;
        self.services.metrics().grpc.received(self.method, message.len());
        let Self { services, method, respond, answered, .. } = self;
        let mut writer = LazyWriter::new(respond, services, *method, Rc::clone(answered));
        let result = services.server_stream(*method, caller, message, &mut writer).await;
        writer.end(result)
    }

    async fn converse(&mut self, caller: &Caller, reader: MessageReader) -> Result<Code, Status> {
        let Self { services, method, respond, answered, .. } = self;
        let mut writer = LazyWriter::new(respond, services, *method, Rc::clone(answered));
        let result = services.bidi_stream(*method, caller, reader, &mut writer).await;
        writer.end(result)
    }
}

/// Runs `work` until the client resets the stream.
async fn unless_reset<T>(
    respond: &mut SendResponse<Bytes>,
    mut work: Pin<&mut impl Future<Output = Result<T, Status>>>,
) -> Result<T, Status> {
    poll_fn(|context| {
        if let std::task::Poll::Ready(result) = work.as_mut().poll(context) {
            return std::task::Poll::Ready(result);
        }
        respond.poll_reset(context).map(|_reason| Err(error::CANCELED))
    })
    .await
}

/// A writer that sends the response headers with the first message, as grpc-go does: a stream that fails before has a
/// response without content.
#[derive(Debug)]
pub struct LazyWriter<'a> {
    respond: &'a mut SendResponse<Bytes>,
    writer: Option<MessageWriter>,
    services: &'a Rc<Services>,
    method: Method,
    answered: Rc<Cell<bool>>,
}

impl<'a> LazyWriter<'a> {
    fn new(
        respond: &'a mut SendResponse<Bytes>,
        services: &'a Rc<Services>,
        method: Method,
        answered: Rc<Cell<bool>>,
    ) -> Self {
        Self { respond, writer: None, services, method, answered }
    }

    fn begun(&mut self) -> Result<&mut MessageWriter, Gone> {
        match &mut self.writer {
            Some(writer) => Ok(writer),
            empty => {
                let stream = send_headers(self.respond).map_err(|_status| Gone)?;
                Ok(empty.insert(MessageWriter::new(stream, Rc::clone(&self.answered))))
            }
        }
    }

    fn end(self, result: Result<(), Status>) -> Result<Code, Status> {
        let Some(writer) = self.writer else {
            result?;
            let writer = MessageWriter::new(send_headers(self.respond)?, self.answered);
            writer.finish(trailers(None));
            return Ok(Code::Ok);
        };
        let code = result.as_ref().err().map_or(Code::Ok, |status| status.code);
        writer.finish(trailers(result.as_ref().err()));
        Ok(code)
    }
}

impl Outbound for LazyWriter<'_> {
    async fn send(&mut self, payload: Payload) -> Result<(), Gone> {
        self.services.metrics().grpc.sent(self.method, payload.message_len());
        self.begun()?.send(payload).await
    }

    async fn send_all(&mut self, payloads: &mut Vec<Payload>) -> Result<(), Gone> {
        for payload in &*payloads {
            self.services.metrics().grpc.sent(self.method, payload.message_len());
        }
        self.begun()?.send_all(payloads).await
    }

    async fn gone(&mut self) {
        match &mut self.writer {
            Some(writer) => writer.gone().await,
            None => {
                // Whatever ended the stream, the client is gone.
                drop(poll_fn(|context| self.respond.poll_reset(context)).await);
            }
        }
    }
}

/// What the request headers say about a call.
struct Open {
    encoding: Encoding,
    timeout: Option<Duration>,
    caller: Caller,
}

impl Open {
    fn read(headers: &HeaderMap, remote: Remote) -> Result<Self, Status> {
        let encoding = Encoding::of(headers)?;
        let timeout = headers.get("grpc-timeout").map(parse_timeout).transpose()?;
        Ok(Self { encoding, timeout, caller: Caller::from_headers(headers, remote)? })
    }
}

/// Parses `grpc-timeout`: up to eight digits and a unit.
pub fn parse_timeout(value: &HeaderValue) -> Result<Duration, Status> {
    let text = value.to_str().unwrap_or_default();
    let malformed = || Status::new(Code::Internal, format!("malformed grpc-timeout: {text:?}"));
    let (digits, unit) = text.split_at_checked(text.len().wrapping_sub(1)).ok_or_else(malformed)?;
    if digits.is_empty() || digits.len() > TIMEOUT_DIGITS_MAX {
        return Err(malformed());
    }
    let number: u64 = digits.parse().map_err(|_not_a_number| malformed())?;
    match unit {
        "H" => Ok(Duration::from_secs(number * 3600)),
        "M" => Ok(Duration::from_secs(number * 60)),
        "S" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_millis(number)),
        "u" => Ok(Duration::from_micros(number)),
        "n" => Ok(Duration::from_nanos(number)),
        _ => Err(malformed()),
    }
}

/// A request that is not gRPC: refused with an HTTP status.
#[derive(Debug, PartialEq, Eq)]
struct NotGrpc {
    http: StatusCode,
    text: String,
}

impl NotGrpc {
    fn send(&self, respond: &mut SendResponse<Bytes>) {
        let mut response = Response::new(());
        *response.status_mut() = self.http;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, CONTENT_TYPE_GRPC);
        headers.insert(GRPC_STATUS, HeaderValue::from_static(Code::Internal.digits()));
        let status = Status::new(Code::Internal, self.text.clone());
        insert_message(headers, &status);
        // A client that is gone needs no answer.
        drop(respond.send_response(response, true));
    }
}

/// Tells whether the content type is gRPC's.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let subtype = content_type.strip_prefix(b"application/grpc");
    matches!(subtype, Some([] | [b'+' | b';', ..]))
}

fn check_http(head: &http::request::Parts) -> Result<(), NotGrpc> {
    if head.method != http::Method::POST {
        let text = format!(
            "Received a HEADERS frame with :method {:?} which should be POST",
            head.method.as_str()
        );
        return Err(NotGrpc { http: StatusCode::METHOD_NOT_ALLOWED, text });
    }
    if !is_grpc(&head.headers) {
        let content_type = head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let text = format!(
            "invalid gRPC request content-type {:?}",
            String::from_utf8_lossy(content_type)
        );
        return Err(NotGrpc { http: StatusCode::UNSUPPORTED_MEDIA_TYPE, text });
    }
    Ok(())
}

fn send_headers(respond: &mut SendResponse<Bytes>) -> Result<SendStream<Bytes>, Status> {
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, CONTENT_TYPE_GRPC);
    respond.send_response(response, false).map_err(|_closed| error::CANCELED)
}

fn send_status_only(respond: &mut SendResponse<Bytes>, status: &Status) {
    let mut response = Response::new(());
    *response.headers_mut() = trailers(Some(status));
    response.headers_mut().insert(CONTENT_TYPE, CONTENT_TYPE_GRPC);
    // A client that is gone needs no answer.
    drop(respond.send_response(response, true));
}

fn trailers(failure: Option<&Status>) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    let code = failure.map_or(Code::Ok, |status| status.code);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static(code.digits()));
    match failure {
        Some(status) => insert_message(&mut trailers, status),
        None => {
            trailers.insert(GRPC_MESSAGE, HeaderValue::from_static(""));
        }
    }
    trailers
}

fn insert_message(headers: &mut HeaderMap, status: &Status) {
    let message = HeaderValue::from_str(&status.encoded_message())
        .expect("an encoded message is printable ASCII");
    headers.insert(GRPC_MESSAGE, message);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(text: &'static str) -> Option<Duration> {
        parse_timeout(&HeaderValue::from_static(text)).ok()
    }

    #[test]
    fn timeouts_are_read_by_the_protocol() {
        assert_eq!(timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(timeout("60M"), Some(Duration::from_hours(1)));
        assert_eq!(timeout("250m"), Some(Duration::from_millis(250)));
        for malformed in ["", "S", "5", "5s", "123456789S", "-1S", "1.5S"] {
            assert_eq!(timeout(malformed), None, "{malformed}");
        }
    }

    /// Bytes of the future that a kind of call is.
    fn room<F: Future>(
        _call: impl FnOnce(Call, Option<Instant>, Caller, MessageReader) -> F,
    ) -> usize {
        size_of::<F>()
    }

    #[test]
    fn open_calls_take_little_room() {
        let unary = room(Call::unary);
        let many = room(Call::server_stream);
        // Watches and keep-alives: thousands are open at a time.
        let both = room(Call::bidi_stream);
        assert!(unary <= 4100 && many <= 3800 && both <= 2500, "{unary}, {many}, {both}");
    }

    #[test]
    fn only_grpc_posts_pass() {
        let check = |method: &str, content_type: &str| {
            let request = Request::builder()
                .method(method)
                .header(CONTENT_TYPE, content_type)
                .body(())
                .expect("valid");
            check_http(&request.into_parts().0).map_err(|refusal| refusal.http.as_u16())
        };
        assert_eq!(check("POST", "application/grpc"), Ok(()));
        assert_eq!(check("POST", "application/grpc+proto"), Ok(()));
        assert_eq!(check("POST", "application/grpc-web"), Err(415));
        assert_eq!(check("POST", "text/plain"), Err(415));
        assert_eq!(check("GET", "application/grpc"), Err(405));
    }
}
