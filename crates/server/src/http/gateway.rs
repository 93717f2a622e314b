//! The JSON gateway: the gRPC methods as `POST /v3/…` (`spec/http-api.md` §2). Messages are transcoded by their
//! descriptors; the calls are those that the gRPC door makes.

use std::io;
use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{Method as HttpMethod, Response, StatusCode};
use tokio::sync::{mpsc, oneshot};

use super::body::{Answer, Broken, Chunks};
use super::boundary::Boundary;
use super::json::Shape;
use super::list::List;
use crate::grpc::call::parse_timeout;
use crate::grpc::error;
use crate::grpc::method::{Kind, Method};
use crate::grpc::status::{Code, Status};
use crate::incomplete::Share;
use crate::room::{FREE_BYTES, Room};
use crate::service::payload::{PIECE_BYTES, Payload};
use crate::service::stream::{Gone, Inbound, Outbound};
use crate::service::{Caller, Limits, Remote, Services};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const GRPC_CONTENT_TYPE: HeaderName = HeaderName::from_static("grpc-metadata-content-type");
/// Lines of a streamed answer that wait for the client.
const LINES_AHEAD_MAX: usize = 4;
/// A list whose message is longer becomes JSON piece by piece, as fast as the client takes it.
const WHOLE_LIST_BYTES_MAX: usize = PIECE_BYTES;
/// Room for the text of a list's pieces: one that is made, those that wait, one that is sent.
const LIST_ROOM_BYTES: usize = 8 * PIECE_BYTES;
/// Bytes that one byte of a message takes on its way to JSON: as a message of its descriptor, and as text.
const JSON_BYTES: usize = 4;
/// Pieces of a list that wait for the client.
const PIECES_AHEAD_MAX: usize = 1;

/// Finds the method behind a path, without its `/v3` prefix.
fn route(path: &str) -> Option<Method> {
    Some(match path {
        "/kv/range" => Method::Range,
        "/kv/put" => Method::Put,
        "/kv/deleterange" => Method::DeleteRange,
        "/kv/txn" => Method::Txn,
        "/kv/compaction" => Method::Compact,
        "/watch" => Method::Watch,
        "/lease/grant" => Method::LeaseGrant,
        "/lease/revoke" | "/kv/lease/revoke" => Method::LeaseRevoke,
        "/lease/keepalive" => Method::LeaseKeepAlive,
        "/lease/timetolive" | "/kv/lease/timetolive" => Method::LeaseTimeToLive,
        "/lease/leases" | "/kv/lease/leases" => Method::LeaseLeases,
        "/cluster/member/add" => Method::MemberAdd,
        "/cluster/member/remove" => Method::MemberRemove,
        "/cluster/member/update" => Method::MemberUpdate,
        "/cluster/member/list" => Method::MemberList,
        "/cluster/member/promote" => Method::MemberPromote,
        "/maintenance/alarm" => Method::Alarm,
        "/maintenance/status" => Method::StatusOf,
        "/maintenance/defragment" => Method::Defragment,
        "/maintenance/hash" => Method::Hash,
        "/maintenance/hashkv" => Method::HashKv,
        "/maintenance/snapshot" => Method::Snapshot,
        "/maintenance/transfer-leadership" => Method::MoveLeader,
        "/maintenance/downgrade" => Method::Downgrade,
        "/auth/enable" => Method::AuthEnable,
        "/auth/disable" => Method::AuthDisable,
        "/auth/status" => Method::AuthStatus,
        "/auth/authenticate" => Method::Authenticate,
        "/auth/user/add" => Method::UserAdd,
        "/auth/user/get" => Method::UserGet,
        "/auth/user/list" => Method::UserList,
        "/auth/user/delete" => Method::UserDelete,
        "/auth/user/changepw" => Method::UserChangePassword,
        "/auth/user/grant" => Method::UserGrantRole,
        "/auth/user/revoke" => Method::UserRevokeRole,
        "/auth/role/add" => Method::RoleAdd,
        "/auth/role/get" => Method::RoleGet,
        "/auth/role/list" => Method::RoleList,
        "/auth/role/delete" => Method::RoleDelete,
        "/auth/role/grant" => Method::RoleGrantPermission,
        "/auth/role/revoke" => Method::RoleRevokePermission,
        "/lock/lock" => Method::Lock,
        "/lock/unlock" => Method::Unlock,
        "/election/campaign" => Method::Campaign,
        "/election/proclaim" => Method::Proclaim,
        "/election/leader" => Method::Leader,
        "/election/observe" => Method::Observe,
        "/election/resign" => Method::Resign,
        _ => return None,
    })
}

/// Answers a request below `/v3`; `path` is what follows.
pub(super) async fn respond(
    services: Rc<Services>,
    path: &str,
    head: &http::request::Parts,
    body: Chunks,
) -> Response<Answer> {
    let Some(method) = route(path) else {
        return failure(StatusCode::NOT_FOUND, &Status::fixed(Code::NotFound, "Not Found"));
    };
    if head.method != HttpMethod::POST {
        let status = Status::fixed(Code::Unimplemented, "Method Not Allowed");
        return failure(StatusCode::NOT_IMPLEMENTED, &status);
    }
    let answered = match method.kind() {
        Kind::Unary => unary(&services, method, head, body).await,
        Kind::ServerStream | Kind::BidiStream => streaming(services, method, head, body).await,
    };
    answered.unwrap_or_else(|status| failure(http_status(status.code), &status))
}

async fn unary(
    services: &Rc<Services>,
    method: Method,
    head: &http::request::Parts,
    body: Chunks,
) -> Result<Response<Answer>, Status> {
    let shape = Shape::of(method);
    let message = decode(services, &shape, body).await?;
    let caller = caller(head)?;
    let call = async {
        let payload = services.unary(method, &caller, message).await?;
        let room = &services.limits().answers;
        let len = payload.message_len();
        if method == Method::Range && len > WHOLE_LIST_BYTES_MAX {
            return list(payload, room).await;
        }
        if len <= FREE_BYTES {
            return Ok(Bytes::from(shape.encode(payload.into_message().await?)?).into());
        }
        // What has been done is told, if there is room or not.
        let held = room.hold(JSON_BYTES * len).await.ok();
        let json = Bytes::from(shape.encode(payload.into_message().await?)?);
        let Some(mut held) = held else { return Ok(json.into()) };
        held.shrink_to(json.len());
        Ok(held.around(json).into())
    };
    let answer = match head.headers.get("grpc-timeout") {
        None => call.await?,
        Some(timeout) => tokio::time::timeout(parse_timeout(timeout)?, call)
            .await
            .unwrap_or(Err(error::DEADLINE_EXCEEDED))?,
    };
    Ok(success(answer))
}

/// Begins the answer of a list that is too large to be whole. What fails later breaks it off.
async fn list(mut payload: Payload, room: &Room) -> Result<Answer, Status> {
    let held = room.hold(LIST_ROOM_BYTES).await?;
    // What fails at once still is an answer of its own.
    let first = payload.next_piece().await?;
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD_MAX);
    tokio::task::spawn_local(async move {
        if let Err(broken) = feed(payload, first, &sender).await {
            let _gone = sender.send(Err(broken)).await;
        }
        drop(held);
    });
    Ok(Answer::Stream(receiver))
}

async fn feed(
    mut payload: Payload,
    mut next: Option<Bytes>,
    sender: &mpsc::Sender<Result<Bytes, Broken>>,
) -> Result<(), Broken> {
    let mut list = List::new();
    while let Some(piece) = next {
        let text = list.push(piece)?;
        if sender.send(Ok(text.into())).await.is_err() {
            // The client is gone.
            return Ok(());
        }
        next = payload.next_piece().await.map_err(|status| {
            tracing::warn!(%status, "a list of the gateway broke off");
            Broken
        })?;
    }
    let text = list.end()?;
    let _gone = sender.send(Ok(text.into())).await;
    Ok(())
}

/// Reads the one message of a request, which as a message has the bound of the gRPC door.
async fn decode(services: &Services, shape: &Shape, body: Chunks) -> Result<Bytes, Status> {
    let message = shape.decode(&collect(services, body).await?)?;
    let bytes_max = services.limits().message_bytes_max;
    if message.len() > bytes_max {
        return Err(error::message_too_large(message.len(), bytes_max));
    }
    Ok(message)
}

/// Base64 makes a message a third longer; names and quotes are little beside it.
async fn collect(services: &Services, body: Chunks) -> Result<Bytes, Status> {
    let bytes_max = services.limits().message_bytes_max * 2;
    let share = services.limits().incomplete.share();
    body.collect(bytes_max, share).await.map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => Status::new(
            Code::ResourceExhausted,
            format!("grpc: received message larger than max ({bytes_max} bytes of JSON)"),
        ),
        io::ErrorKind::QuotaExceeded => error::TOO_MANY_INCOMPLETE,
        _ => error::CANCELED,
    })
}

/// Runs a streaming call as a task that feeds the response body. A failure before the first message is a response of
/// its own.
async fn streaming(
    services: Rc<Services>,
    method: Method,
    head: &http::request::Parts,
    body: Chunks,
) -> Result<Response<Answer>, Status> {
    let caller = caller(head)?;
    let shape = Shape::of(method);
    let (sender, receiver) = mpsc::channel(LINES_AHEAD_MAX);
    let (begun, has_begun) = oneshot::channel();
    let mut out = Lines { shape: shape.clone(), sender, begun: Some(begun) };
    tokio::task::spawn_local(async move {
        let result = if method.kind() == Kind::ServerStream {
            match decode(&services, &shape, body).await {
                Ok(message) => services.server_stream(method, &caller, message, &mut out).await,
                Err(status) => Err(status),
            }
        } else {
            let documents = Documents::new(shape, body, services.limits());
            services.bidi_stream(method, &caller, documents, &mut out).await
        };
        out.end(result).await;
    });
    match has_begun.await {
        Ok(Err(status)) => Err(status),
        Ok(Ok(())) | Err(_) => Ok(success(Answer::Stream(receiver))),
    }
}

/// The client's end of a streamed answer: one JSON document per line.
struct Lines {
    shape: Shape,
    sender: mpsc::Sender<Result<Bytes, Broken>>,
    /// Told how the call begins: with a message, or with a failure.
    begun: Option<oneshot::Sender<Result<(), Status>>>,
}

impl Lines {
    fn begin(&mut self, how: Result<(), Status>) {
        if let Some(begun) = self.begun.take() {
            // A client that is gone is noticed when its lines are not taken.
            drop(begun.send(how));
        }
    }

    async fn line(&mut self, name: &str, document: &[u8]) -> Result<(), Gone> {
        let line = [b"{\"", name.as_bytes(), b"\":", document, b"}\n"].concat();
        self.sender.send(Ok(line.into())).await.map_err(|_closed| Gone)
    }

    async fn end(mut self, result: Result<(), Status>) {
        let Err(status) = result else { return self.begin(Ok(())) };
        if self.begun.is_some() {
            return self.begin(Err(status));
        }
        // A client that is gone needs no farewell.
        let _gone = self.line("error", &error_document(&status)).await;
    }
}

impl Outbound for Lines {
    async fn send(&mut self, payload: Payload) -> Result<(), Gone> {
        self.begin(Ok(()));
        let document = self
            .shape
            .encode(payload.into_message().await.map_err(|_status| Gone)?)
            .map_err(|_status| Gone)?;
        self.line("result", &document).await
    }

    async fn gone(&mut self) {
        self.sender.closed().await;
    }
}

/// The client's requests of a bidirectional call: JSON documents one after another.
struct Documents {
    shape: Shape,
    body: Chunks,
    buffer: BytesMut,
    boundary: Boundary,
    bytes_max: usize,
    share: Share,
}

impl Documents {
    fn new(shape: Shape, body: Chunks, limits: &Limits) -> Self {
        Self {
            shape,
            body,
            buffer: BytesMut::new(),
            boundary: Boundary::default(),
            bytes_max: limits.message_bytes_max * 2,
            share: limits.incomplete.share(),
        }
    }

    /// Takes the first document off the buffer, if it is complete.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(len) = self.boundary.find(&self.buffer) else { return Ok(None) };
        self.boundary = Boundary::default();
        let document = self.buffer.split_to(len);
        self.shape.decode(&document).map(Some)
    }
}

impl Inbound for Documents {
    async fn message(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            if self.buffer.len() > self.bytes_max {
                return Err(error::REQUEST_TOO_LARGE);
            }
            if !self.share.hold(self.buffer.capacity()) {
                return Err(error::TOO_MANY_INCOMPLETE);
            }
            match self.body.next().await {
                Some(Ok(chunk)) => self.buffer.extend_from_slice(&chunk),
                Some(Err(_broken)) => return Err(error::CANCELED),
                None if self.buffer.chunk().iter().all(u8::is_ascii_whitespace) => return Ok(None),
                None => {
                    return Err(Status::fixed(Code::InvalidArgument, "proto: unexpected EOF"));
                }
            }
        }
    }
}

/// Who calls.
fn caller(head: &http::request::Parts) -> Result<Caller, Status> {
    let remote = head.extensions.get::<Remote>().copied().unwrap_or_default();
    Caller::from_headers(&metadata(&head.headers), remote)
}

/// The gRPC metadata that a gateway request stands for.
fn metadata(headers: &HeaderMap) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    for (name, value) in headers {
        if let Some(name) = name.as_str().strip_prefix("grpc-metadata-")
            && let Ok(name) = name.parse::<HeaderName>()
        {
            metadata.append(name, value.clone());
        }
    }
    metadata
}

fn success(answer: Answer) -> Response<Answer> {
    let mut response = Response::new(answer);
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response.headers_mut().insert(GRPC_CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn failure(http: StatusCode, status: &Status) -> Response<Answer> {
    let mut response = Response::new(Answer::from(Bytes::from(error_document(status))));
    *response.status_mut() = http;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    if http == StatusCode::UNAUTHORIZED
        && let Ok(message) = HeaderValue::from_str(&status.message)
    {
        response.headers_mut().insert(WWW_AUTHENTICATE, message);
    }
    response
}

fn error_document(status: &Status) -> Vec<u8> {
    let message = serde_json::Value::from(&*status.message);
    format!("{{\"code\":{},\"message\":{message}}}", status.code.number()).into()
}

fn http_status(code: Code) -> StatusCode {
    let number = match code {
        Code::Ok => 200,
        Code::Canceled => 499,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::DeadlineExceeded => 504,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::PermissionDenied => 403,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::Unauthenticated => 401,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
    };
    StatusCode::from_u16(number).expect("a valid status")
}
