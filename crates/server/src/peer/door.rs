//! What the peer port serves (`spec/peer-protocol.md` §1): HTTP/1.1 with bodies that are bounded, and streams that never
//! end by themselves.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{ALLOW, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use machine::membership::Membership;
use prost::Message as _;
use proto::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveResponse, ResponseHeader,
};
use proto::leasepb::{LeaseInternalRequest, LeaseInternalResponse};
use proto::raftpb;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use super::admission::{
    self, CLUSTER_ID, FROM, Refused, SERVER_VERSION, Standing, check_compatible, check_stream, hex,
};
use super::complaints::Complaints;
use super::corruption;
use super::crowd::{CONNECTIONS_MAX, Crowd, Place};
use super::join;
use super::probe;
use super::receive::{self, Receiver};
use super::stream;
use super::transport::Transport;
use super::unpack;
use crate::config::ETCD_VERSION;
use crate::grpc::error;
use crate::http::version_text;
use crate::incomplete::{Budget, Share};
use crate::metrics::NetworkFigures;
use crate::service::cluster::PROMOTE_PATH;
use crate::service::lease;
use crate::service::{Remote, Services};

/// Time a member has to send the head of a request, and each further piece, as etcd has it.
const PIECE_PATIENCE: Duration = Duration::from_secs(5);

/// Time a member has to send a whole message.
const BODY_PATIENCE: Duration = Duration::from_mins(1);

/// Bytes of the head of a request, and of anything else that is read at a time.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Bytes of one message: what is longer comes on a stream.
const MESSAGE_BYTES_MAX: usize = 128 << 20;

/// Bytes of all messages that have not arrived whole, or wait for the node.
const INCOMPLETE_BYTES_MAX: usize = 256 << 20;

/// Characters of a path, or of a reason, in a line of the log.
const LOGGED_CHARS_MAX: usize = 200;

/// What the connections of the peer port share.
#[derive(Debug)]
pub struct Door {
    transport: Rc<Transport>,
    services: Rc<Services>,
    snapshots: Rc<Receiver>,
    incomplete: Arc<Budget>,
    crowd: Rc<Crowd>,
    complaints: Complaints,
}

/// One connection, as its requests see it.
#[derive(Debug)]
struct Visitor {
    remote: Remote,
    /// Ends the connection.
    cut: Rc<Notify>,
    place: Place,
    /// Requests so far.
    requests: Cell<u64>,
}

/// A body, with the room that it takes.
#[derive(Debug)]
struct Held {
    bytes: Bytes,
    _share: Share,
}

/// The body of an answer.
#[derive(Debug)]
enum Body {
    Whole(Option<Bytes>),
    Stream(stream::Body),
}

type Answer = Response<Body>;

impl Door {
    /// Makes the door of a transport.
    pub fn new(
        transport: Rc<Transport>,
        services: Rc<Services>,
        snapshots: receive::Settings,
        network: Arc<NetworkFigures>,
    ) -> Self {
        let incomplete = Arc::new(Budget::new(INCOMPLETE_BYTES_MAX));
        let handle = services.handle().clone();
        let receiver = Receiver::new(snapshots, handle, Arc::clone(&incomplete), network);
        let snapshots = Rc::new(receiver);
        let crowd = Crowd::new(CONNECTIONS_MAX);
        let complaints = Complaints::default();
        Self { transport, services, snapshots, incomplete, crowd, complaints }
    }

    /// Serves one connection to its end.
    pub async fn serve<T>(self: Rc<Self>, io: T, remote: Remote)
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let cut = Rc::new(Notify::new());
        let Some(place) = self.crowd.enter(Rc::clone(&cut)) else {
            if self.complaints.may_tell(Instant::now()) {
                tracing::warn!(%remote, "refused a connection to the peer port: too many are in use");
            }
            return;
        };
        let requests = Cell::default();
        let visitor = Rc::new(Visitor { remote, cut: Rc::clone(&cut), place, requests });
        let service = {
            let (door, visitor) = (Rc::clone(&self), Rc::clone(&visitor));
            service_fn(move |request: Request<Incoming>| {
                let (door, visitor) = (Rc::clone(&door), Rc::clone(&visitor));
                async move { Ok::<_, Infallible>(door.answer(request, &visitor).await) }
            })
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PIECE_PATIENCE)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(io), service);
        tokio::select! {
            served = connection => {
                if let Err(error) = served {
                    visitor.tell(&error, &self.complaints);
                }
            }
            () = cut.notified() => if self.complaints.may_tell(Instant::now()) {
                tracing::warn!(%remote, "cut a connection of the peer port that was idle or not read from for long");
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>, visitor: &Visitor) -> Answer {
        visitor.place.refresh();
        visitor.requests.set(visitor.requests.get() + 1);
        let (head, body) = request.into_parts();
        let answer = self.routed(&head, body, visitor).await;
        // A lease that is gone and a learner that is behind are no mistakes of who asks.
        let path = head.uri.path();
        let is_ordinary = path.starts_with(lease::PATH) || path.starts_with(PROMOTE_PATH);
        if answer.status().is_client_error()
            && !is_ordinary
            && self.complaints.may_tell(Instant::now())
        {
            let reason = match answer.body() {
                Body::Whole(Some(text)) => String::from_utf8_lossy(text).into_owned(),
                Body::Whole(None) | Body::Stream(_) => String::new(),
            };
            tracing::warn!(
                remote = %visitor.remote,
                method = %head.method,
                path = shortened(path),
                status = answer.status().as_u16(),
                reason = shortened(reason.trim_end()),
                "refused a request at the peer port"
            );
        }
        answer
    }

    async fn routed(&self, head: &Parts, body: Incoming, visitor: &Visitor) -> Answer {
        let path = head.uri.path();
        let mut answer = if let Some(stream) = path.strip_prefix("/raft/stream/") {
            self.stream(&head.method, stream, &head.headers, visitor)
        } else if let Some(id) = path.strip_prefix(PROMOTE_PATH) {
            self.promote(&head.method, id).await
        } else {
            match path {
                "/raft" => self.message(&head.method, &head.headers, body).await,
                "/raft/snapshot" => self.snapshot(head, body, visitor).await,
                probe::PATH => probed(),
                "/members" => self.members(&head.method),
                corruption::PATH => self.hash_kv(&head.method, &head.headers, body).await,
                lease::PATH => self.keep_alive(&head.method, body).await,
                lease::INTERNAL_PATH => self.times(&head.method, body).await,
                join::DOWNGRADE_PATH => self.downgrade_enabled(&head.method).await,
                "/version" => version(&head.method, &self.transport.membership()),
                _ => text(StatusCode::NOT_FOUND, "404 page not found"),
            }
        };
        if ["/raft", "/members", "/downgrade"].iter().any(|begin| path.starts_with(begin)) {
            let cluster = admission::value(&hex(self.transport.own().cluster));
            answer.headers_mut().insert(CLUSTER_ID, cluster);
        }
        answer
    }

    /// Begins a stream to the member that asks for it.
    fn stream(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        visitor: &Visitor,
    ) -> Answer {
        let begun = || {
            let transport = &self.transport;
            check_compatible(headers, transport.own())?;
            let standing = |id| transport.standing(id);
            let checked = check_stream(path, headers, transport.own(), standing);
            if checked.is_err_and(|refused| refused.text == UNKNOWN_SENDER) {
                self.introduce(headers);
            }
            let (kind, from) = checked?;
            let body = transport.attach(from, kind, Rc::clone(&visitor.cut));
            if body.is_some() {
                visitor.place.keep();
            }
            body.ok_or(Refused { status: StatusCode::NOT_FOUND, text: UNKNOWN_SENDER })
        };
        let mut answer = if method == Method::GET {
            begun().map_or_else(refused, |body| Response::new(Body::Stream(body)))
        } else {
            not_allowed("GET")
        };
        answer.headers_mut().insert(SERVER_VERSION, HeaderValue::from_static(ETCD_VERSION));
        answer
    }

    fn introduce(&self, headers: &HeaderMap) {
        if let Some(introduced) = admission::introduced(headers) {
            self.transport.introduce(introduced);
        }
    }

    /// Takes one posted message.
    async fn message(&self, method: &Method, headers: &HeaderMap, body: Incoming) -> Answer {
        if method != Method::POST {
            return not_allowed("POST");
        }
        if let Err(why) = check_compatible(headers, self.transport.own()) {
            return refused(why);
        }
        self.introduce(headers);
        let sender = admission::text(headers, &FROM).and_then(admission::id);
        let figures = sender.and_then(|id| self.transport.inflow().network().known(id));
        let failed = |why| {
            if let Some(figures) = &figures {
                figures.receive_failed();
            }
            text(StatusCode::BAD_REQUEST, why)
        };
        let Some(body) = self.collect(body, MESSAGE_BYTES_MAX).await else {
            return failed("error reading raft message");
        };
        let Held { bytes, _share } = body;
        let size = bytes.len();
        let Ok(message) = unpack::message(bytes) else {
            return failed("error unmarshalling raft message");
        };
        if let Some(figures) = &figures {
            figures.received(size);
        }
        if let Err(answer) = self.check_ends(&message) {
            return *answer;
        }
        self.transport.inflow().step(vec![message]).await;
        no_content()
    }

    /// Refuses messages of removed members, and those for others. Both make the sender stop for good: see `admission`.
    fn check_ends(&self, message: &raftpb::Message) -> Result<(), Box<Answer>> {
        if self.transport.standing(message.from) == Standing::Removed {
            return Err(Box::new(forbidden("cannot process message from removed member")));
        }
        if message.to != self.transport.own().member {
            return Err(Box::new(forbidden(admission::WRONG_RECEIVER)));
        }
        Ok(())
    }

    /// Takes a snapshot of the leader.
    async fn snapshot(&self, head: &Parts, body: Incoming, visitor: &Visitor) -> Answer {
        let Parts { method, headers, .. } = head;
        if method != Method::POST {
            return not_allowed("POST");
        }
        if let Err(why) = check_compatible(headers, self.transport.own()) {
            return refused(why);
        }
        self.introduce(headers);
        let check = |message: &raftpb::Message| {
            self.check_ends(message)?;
            visitor.place.keep();
            Ok::<(), Box<Answer>>(())
        };
        match self.snapshots.receive(body, check).await {
            Ok(()) => no_content(),
            Err(answer) => *answer,
        }
    }

    /// Collects a body of at most `bytes_max`, if it comes in time and there is room.
    async fn collect(&self, body: Incoming, bytes_max: usize) -> Option<Held> {
        let collected = self.collected(body, bytes_max);
        tokio::time::timeout(BODY_PATIENCE, collected).await.ok().flatten()
    }

    async fn collected(&self, mut body: Incoming, bytes_max: usize) -> Option<Held> {
        let mut share = self.incomplete.share();
        let mut all = BytesMut::new();
        loop {
            let piece = tokio::time::timeout(PIECE_PATIENCE, body.frame()).await.ok()?;
            let Some(piece) = piece.transpose().ok()? else {
                return Some(Held { bytes: all.freeze(), _share: share });
            };
            let piece = piece.into_data().unwrap_or_default();
            if all.len() + piece.len() > bytes_max {
                return None;
            }
            all.extend_from_slice(&piece);
            if !share.hold(all.capacity()) {
                return None;
            }
        }
    }

    /// Lists the members as they are known here.
    fn members(&self, method: &Method) -> Answer {
        if method != Method::GET {
            return not_allowed("GET");
        }
        self.listed()
    }

    fn listed(&self) -> Answer {
        let membership = self.transport.membership();
        let members: Vec<_> = membership.members().map(Listed::new).collect();
        let mut listed = serde_json::to_string(&members).unwrap_or_default();
        listed.push('\n');
        json(listed)
    }

    /// Gives a learner a vote, if this member leads.
    async fn promote(&self, method: &Method, id: &str) -> Answer {
        if method != Method::POST {
            return not_allowed("POST");
        }
        let Ok(id) = id.parse() else {
            return text(StatusCode::NOT_FOUND, &format!("failed to parse member ID \"{id}\""));
        };
        match self.services.promote_here(id).await {
            Ok(()) => self.listed(),
            Err(status) if status == error::MEMBER_NOT_FOUND => {
                text(StatusCode::NOT_FOUND, "membership: ID not found")
            }
            Err(status) if status == error::MEMBER_NOT_LEARNER => text(
                StatusCode::PRECONDITION_FAILED,
                "membership: can only promote a learner member",
            ),
            Err(status) if status == error::LEARNER_NOT_READY => {
                text(StatusCode::PRECONDITION_FAILED, &status.message)
            }
            Err(status) => text(StatusCode::INTERNAL_SERVER_ERROR, &status.message),
        }
    }

    /// Renews a lease for a member that does not lead.
    async fn keep_alive(&self, method: &Method, body: Incoming) -> Answer {
        if method != Method::POST {
            return not_allowed("POST");
        }
        let Some(body) = self.collect(body, QUESTION_BYTES_MAX).await else {
            return text(StatusCode::BAD_REQUEST, "error reading body");
        };
        let Ok(LeaseKeepAliveRequest { id }) = LeaseKeepAliveRequest::decode(body.bytes) else {
            return text(StatusCode::BAD_REQUEST, "error unmarshalling request");
        };
        match self.services.renew_here(id).await {
            Ok((0, _)) => text(StatusCode::NOT_FOUND, LEASE_NOT_FOUND),
            Ok((ttl, _)) => protobuf(&LeaseKeepAliveResponse { header: None, id, ttl }),
            Err(status) => text(StatusCode::BAD_REQUEST, &status.message),
        }
    }

    /// Tells a lease's times to a member that does not lead.
    async fn times(&self, method: &Method, body: Incoming) -> Answer {
        if method != Method::POST {
            return not_allowed("POST");
        }
        let Some(body) = self.collect(body, QUESTION_BYTES_MAX).await else {
            return text(StatusCode::BAD_REQUEST, "error reading body");
        };
        let asked = LeaseInternalRequest::decode(body.bytes).ok();
        let Some(asked) = asked.and_then(|asked| asked.lease_time_to_live_request) else {
            return text(StatusCode::BAD_REQUEST, "error unmarshalling request");
        };
        match self.services.times_here(asked).await {
            Ok(times) if times.ttl == -1 && times.granted_ttl == 0 => {
                text(StatusCode::NOT_FOUND, LEASE_NOT_FOUND)
            }
            Ok(times) => protobuf(&LeaseInternalResponse {
                lease_time_to_live_response: Some(LeaseTimeToLiveResponse {
                    header: Some(ResponseHeader::default()),
                    ..times
                }),
            }),
            Err(status) => text(StatusCode::INTERNAL_SERVER_ERROR, &status.message),
        }
    }

    /// Tells the hash of the store at a revision: others compare it with theirs.
    async fn hash_kv(&self, method: &Method, headers: &HeaderMap, body: Incoming) -> Answer {
        if method != Method::GET {
            return not_allowed("GET");
        }
        let cluster = hex(self.transport.own().cluster);
        if admission::text(headers, &CLUSTER_ID).is_some_and(|theirs| theirs != cluster) {
            return text(StatusCode::PRECONDITION_FAILED, "cluster ID mismatch");
        }
        let Some(body) = self.collect(body, QUESTION_BYTES_MAX).await else {
            return text(StatusCode::BAD_REQUEST, "error reading body");
        };
        let Ok(HashAsked { revision }) = serde_json::from_slice(&body.bytes) else {
            return text(StatusCode::BAD_REQUEST, "error unmarshalling request");
        };
        match self.services.hash_at(revision).await {
            Ok((found, revision)) => {
                let told = HashTold {
                    header: HashHeader { revision },
                    hash: found.hash,
                    compact_revision: found.compact_revision,
                    hash_revision: found.revision,
                };
                json(serde_json::to_string(&told).unwrap_or_default())
            }
            Err(status) => {
                let why = status.message.strip_prefix("etcdserver: ").unwrap_or(&status.message);
                text(StatusCode::BAD_REQUEST, why)
            }
        }
    }

    /// Tells whether the cluster is about to be downgraded: who joins has to know.
    async fn downgrade_enabled(&self, method: &Method) -> Answer {
        if method != Method::GET {
            return not_allowed("GET");
        }
        if let Err(status) = self.services.read_index().await {
            let why = format!("failed linearized read: {}", status.message);
            return text(StatusCode::INTERNAL_SERVER_ERROR, &why);
        }
        let is_enabled = self.transport.membership().downgrade.is_enabled;
        let mut answer = Response::new(Body::Whole(Some(is_enabled.to_string().into())));
        let plain = HeaderValue::from_static("text/plain");
        answer.headers_mut().insert(CONTENT_TYPE, plain);
        answer
    }
}

impl Visitor {
    /// Tells why a connection ended early, if that is news.
    fn tell(&self, error: &hyper::Error, complaints: &Complaints) {
        let remote = self.remote;
        // Connections that members keep for later end in this way, too.
        let was_silent = error.is_timeout() && self.requests.get() == 0;
        if error.is_parse() || was_silent {
            if complaints.may_tell(Instant::now()) {
                tracing::warn!(%remote, %error, "refused a connection to the peer port");
            }
        } else {
            tracing::debug!(%remote, %error, "a connection of a member ended early");
        }
    }
}

/// What of a text goes into a line of the log.
fn shortened(text: &str) -> &str {
    text.char_indices().nth(LOGGED_CHARS_MAX).map_or(text, |(end, _)| &text[..end])
}

/// Bytes of a question that is no message of raft, as etcd has it.
const QUESTION_BYTES_MAX: usize = 64 << 10;

/// The text by which a member knows that a lease is not there.
const LEASE_NOT_FOUND: &str = "lease not found";

/// What `/members/hashkv` is asked.
#[derive(Deserialize)]
struct HashAsked {
    #[serde(default)]
    revision: i64,
}

/// What it answers; numbers that are zero are left out.
#[derive(Serialize)]
struct HashTold {
    header: HashHeader,
    #[serde(skip_serializing_if = "is_zero")]
    hash: u32,
    #[serde(skip_serializing_if = "is_zero")]
    compact_revision: i64,
    #[serde(skip_serializing_if = "is_zero")]
    hash_revision: i64,
}

#[derive(Serialize)]
struct HashHeader {
    #[serde(skip_serializing_if = "is_zero")]
    revision: i64,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

impl From<receive::Refused> for Box<Answer> {
    fn from(refused: receive::Refused) -> Self {
        Self::new(text(refused.status, &refused.text))
    }
}

fn no_content() -> Answer {
    let mut answer = Response::new(Body::Whole(None));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

fn protobuf(message: &impl prost::Message) -> Answer {
    let mut answer = Response::new(Body::Whole(Some(message.encode_to_vec().into())));
    let protobuf = HeaderValue::from_static("application/protobuf");
    answer.headers_mut().insert(CONTENT_TYPE, protobuf);
    answer
}

/// The text by which a member knows that it is not known yet.
const UNKNOWN_SENDER: &str = "error sender not found";

/// A member as `/members` has it.
#[derive(Serialize)]
struct Listed<'a> {
    id: u64,
    #[serde(rename = "peerURLs")]
    peer_urls: &'a [String],
    #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(rename = "clientURLs", skip_serializing_if = "<[String]>::is_empty")]
    client_urls: &'a [String],
}

impl<'a> Listed<'a> {
    fn new(member: &'a machine::membership::Member) -> Self {
        Self {
            id: member.id,
            peer_urls: &member.peer_urls,
            is_learner: member.is_learner,
            name: &member.name,
            client_urls: &member.client_urls,
        }
    }
}

/// Answers a probe: others measure the way here, and how far the clocks are apart.
fn probed() -> Answer {
    json(format!("{{\"OK\":true,\"Now\":\"{}\"}}\n", Timestamp::now()))
}

fn version(method: &Method, membership: &Membership) -> Answer {
    if method != Method::GET {
        return not_allowed("GET");
    }
    json(version_text(membership))
}

fn json(body: String) -> Answer {
    let mut answer = Response::new(Body::Whole(Some(body.into())));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn text(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(Body::Whole(Some(format!("{text}\n").into())));
    *answer.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, plain);
    answer.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    answer
}

fn refused(refused: Refused) -> Answer {
    text(refused.status, refused.text)
}

fn forbidden(why: &str) -> Answer {
    let mut answer = json(format!("{{\"message\":\"{why}\"}}"));
    *answer.status_mut() = StatusCode::FORBIDDEN;
    answer
}

fn not_allowed(allowed: &'static str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Whole(bytes) => {
                http_body::SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64)
            }
            Self::Stream(_) => http_body::SizeHint::default(),
        }
    }
}
