//! What the member offers to clients, as plain functions from requests to answers.
//!
//! Services know no transport: doors hand them encoded messages and take payloads back, one at a time
//! ([`Services::unary`]) or over the two ends of a stream ([`stream`]). One [`Services`] belongs to each serving thread.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use machine::TxnDecodeError;
use prost::Message;
use proto::etcdserverpb::{RangeRequest, ResponseHeader, TxnRequest};
use tokio::sync::Notify;

use crate::grpc::error;
use crate::grpc::method::Method;
use crate::grpc::status::{Code, Status};
use crate::handle::Handle;
use crate::incomplete::Budget;
use crate::metrics::{KnownClients, Metrics, RequestFigures};
use crate::peer::requests::Requests;
use crate::room::Room;
use crate::serve::BLOCKING_THREADS_MAX;
use crate::workers::Workers;
use cold::ColdGets;
use payload::Payload;
use slow::{Call, Content};
use stream::{Inbound, Outbound};

pub mod answer;
mod auth;
mod caller;
pub mod check;
pub mod cluster;
mod cold;
mod election;
mod forward;
mod health;
mod kv;
mod leader;
pub mod lease;
mod lock;
mod maintenance;
mod paged;
pub mod payload;
mod propose;
mod range_stream;
pub mod slow;
mod snapshot;
pub mod stream;
mod sync;
mod watch;

pub use caller::{Caller, Remote};
pub use maintenance::storage_version;
pub use watch::Watches;

/// Bounds on what clients may ask for; nearly all are flags.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest encoded log request (`--max-request-bytes`).
    pub request_bytes_max: usize,
    /// Largest message a door takes: `request_bytes_max` and 512 KiB.
    pub message_bytes_max: usize,
    /// Operations in a transaction (`--max-txn-ops`).
    pub txn_ops_max: usize,
    /// Streams per connection (`--max-concurrent-streams`).
    pub concurrent_streams_max: u32,
    /// Shortest time between a client's pings, zero for any (`--grpc-keepalive-min-time`).
    pub ping_interval_min: Duration,
    /// Idle time after which the server pings, zero for never (`--grpc-keepalive-interval`).
    pub keepalive_interval: Duration,
    /// Time a client has to answer that ping (`--grpc-keepalive-timeout`).
    pub keepalive_timeout: Duration,
    /// Bytes of undelivered answers per watch stream (`--watch-buffer-bytes`).
    pub watch_buffer_bytes: usize,
    /// Time between periodic progress notifications (`--watch-progress-notify-interval`).
    pub watch_progress_interval: Duration,
    /// Time without a leader before an election (`--election-timeout`).
    pub election_timeout: Duration,
    /// Bytes of messages that have not arrived whole, of all connections together.
    pub incomplete: Arc<Budget>,
    /// Bytes of answers that are held until clients take them, of all connections together (`--answer-memory-bytes`).
    pub answers: Room,
    /// An apply or a read that takes longer is logged (`--warning-apply-duration`).
    pub apply_patience: Duration,
    /// A unary call that takes longer is logged (`--warning-unary-request-duration`).
    pub unary_patience: Duration,
    /// Whether changes of the membership that would endanger the quorum are refused (`--strict-reconfig-check`).
    pub strict_reconfig_check: bool,
    /// Time after which a request without an outcome fails.
    pub request_timeout: Duration,
    /// Bytes of live data the store may hold, as `Status` reports it (`--quota-backend-bytes`; 0 became 2 GiB).
    pub quota_bytes: i64,
}

/// Who we are; fixed for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster's id.
    pub cluster_id: u64,
    /// This member's id.
    pub member_id: u64,
}

/// All services of one serving thread.
#[derive(Debug)]
pub struct Services {
    handle: Handle,
    identity: Identity,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    known_clients: KnownClients,
    watches: RefCell<Watches>,
    /// Reads of a few cold values.
    short_work: Workers,
    /// Gets of a cold value each.
    cold: ColdGets,
    /// Requests to other members.
    requests: Requests,
    /// Wakes streams that require a leader when there has been none for long.
    leader_lost: Notify,
}

impl Services {
    /// Makes the services of the thread that owns `handle`.
    pub fn new(
        handle: Handle,
        identity: Identity,
        limits: Arc<Limits>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let watches = RefCell::new(Watches::new(handle.reader().clone(), &limits));
        let short_work = Workers::own(BLOCKING_THREADS_MAX);
        let cold = ColdGets::new(handle.reader().clone(), short_work.clone());
        let known_clients = KnownClients::default();
        let requests = Requests::new(limits.election_timeout, Arc::clone(&limits.incomplete));
        Self {
            handle,
            identity,
            limits,
            metrics,
            known_clients,
            watches,
            short_work,
            cold,
            requests,
            leader_lost: Notify::new(),
        }
    }

    /// The bounds in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The process's metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The way to other members.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// What this thread counts in.
    fn figures(&self) -> &RequestFigures {
        self.metrics.thread(self.handle.thread())
    }

    /// The way to the node.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// What the member knows of its cluster.
    pub fn cluster(&self) -> Arc<machine::membership::Membership> {
        self.handle.reader().membership()
    }

    /// Tells of a read that failed for a reason of our own, and returns what the client is told.
    fn read_fault(&self, fault: &machine::Fault) -> Status {
        tracing::error!(error = %fault, "a read of the backend failed");
        self.metrics.read_failed();
        fault_status(fault)
    }

    /// Fills a response header for an answer at `revision`.
    fn header(&self, revision: i64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.identity.cluster_id,
            member_id: self.identity.member_id,
            revision,
            raft_term: self.handle.gate().term(),
        }
    }

    /// Serves a unary method.
    pub async fn unary(
        self: &Rc<Self>,
        method: Method,
        caller: &Caller,
        message: Bytes,
    ) -> Result<Payload, Status> {
        self.admit(method, caller)?;
        let call = Call { method, caller, started: Instant::now() };
        match method {
            Method::Range => self.unary_range(&call, self.range_request(message)?).await,
            Method::Put => self.put(&call, decode(message)?).await,
            Method::Txn => self.txn(&call, decode_txn(message)?).await,
            Method::DeleteRange => Box::pin(self.delete_range(&call, decode(message)?)).await,
            _ => {
                let answer = Box::pin(self.rarer_unary(method, message)).await;
                self.tell(&call, Content::unknown);
                answer
            }
        }
    }

    /// Decodes a range, and refuses one that a member without a vote does not serve.
    fn range_request(&self, message: Bytes) -> Result<RangeRequest, Status> {
        let request: RangeRequest = decode(message)?;
        if !request.serializable && self.handle.gate().is_learner() {
            return Err(error::NOT_SUPPORTED_FOR_LEARNER);
        }
        Ok(request)
    }

    /// Tells of a call that was slow.
    fn tell(&self, call: &Call<'_>, content: impl FnOnce() -> Content) {
        slow::tell(call, call.started.elapsed(), self.limits.unary_patience, content);
    }

    /// The methods whose futures are boxed, so that those of gets and puts stay small.
    async fn rarer_unary(
        self: &Rc<Self>,
        method: Method,
        message: Bytes,
    ) -> Result<Payload, Status> {
        match method {
            Method::Compact => self.compact(decode(message)?).await,
            Method::LeaseGrant => self.lease_grant(decode(message)?).await,
            Method::LeaseRevoke => self.lease_revoke(decode(message)?).await,
            Method::LeaseTimeToLive => self.lease_time_to_live(decode(message)?).await,
            Method::LeaseLeases => self.lease_leases().await,
            Method::MemberList => self.member_list(decode(message)?).await,
            Method::MemberAdd => self.member_add(decode(message)?).await,
            Method::MemberRemove => self.member_remove(decode(message)?).await,
            Method::MemberUpdate => self.member_update(decode(message)?).await,
            Method::MemberPromote => self.member_promote(decode(message)?).await,
            Method::Alarm => self.alarm(decode(message)?).await,
            Method::StatusOf => Ok(self.status()),
            Method::Defragment => self.defragment().await,
            Method::Hash => self.hash().await,
            Method::HashKv => self.hash_kv(decode(message)?).await,
            Method::MoveLeader => self.move_leader(decode(message)?).await,
            Method::Downgrade => self.downgrade(decode(message)?).await,
            Method::Lock => self.lock(decode(message)?).await,
            Method::Unlock => self.unlock(decode(message)?).await,
            Method::Campaign => self.campaign(decode(message)?).await,
            Method::Proclaim => self.proclaim(decode(message)?).await,
            Method::Leader => self.leader(decode(message)?).await,
            Method::Resign => self.resign(decode(message)?).await,
            Method::AuthEnable => self.auth_enable(decode(message)?).await,
            Method::AuthDisable => self.auth_disable(decode(message)?).await,
            Method::AuthStatus => self.auth_status(decode(message)?).await,
            Method::Authenticate => self.authenticate(decode(message)?).await,
            Method::HealthCheck => health::check(&decode(message)?),
            Method::HealthList => Ok(health::list()),
            Method::UserAdd
            | Method::UserGet
            | Method::UserList
            | Method::UserDelete
            | Method::UserChangePassword
            | Method::UserGrantRole
            | Method::UserRevokeRole
            | Method::RoleAdd
            | Method::RoleGet
            | Method::RoleList
            | Method::RoleDelete
            | Method::RoleGrantPermission
            | Method::RoleRevokePermission => Err(not_built(method)),
            Method::Range
            | Method::Put
            | Method::DeleteRange
            | Method::Txn
            | Method::RangeStream
            | Method::Watch
            | Method::LeaseKeepAlive
            | Method::Snapshot
            | Method::Observe
            | Method::HealthWatch => unreachable!("{} is served elsewhere", method.path()),
        }
    }

    /// Serves a method that answers one request with many messages.
    pub async fn server_stream(
        self: &Rc<Self>,
        method: Method,
        caller: &Caller,
        message: Bytes,
        out: &mut impl Outbound,
    ) -> Result<(), Status> {
        self.admit(method, caller)?;
        match method {
            Method::RangeStream => self.range_stream(decode(message)?, out).await,
            Method::Snapshot => self.snapshot(out).await,
            Method::Observe => {
                let observed = Box::pin(self.observe(decode(message)?, out));
                self.while_led(caller, observed).await
            }
            Method::HealthWatch => {
                let request = decode(message)?;
                self.while_led(caller, Box::pin(self.health_watch(&request, out))).await
            }
            _ => unreachable!("{} is no server-streaming method", method.path()),
        }
    }

    /// Serves a method with messages both ways.
    pub async fn bidi_stream(
        self: &Rc<Self>,
        method: Method,
        caller: &Caller,
        inbound: impl Inbound,
        out: &mut impl Outbound,
    ) -> Result<(), Status> {
        self.admit(method, caller)?;
        match method {
            Method::Watch => self.watch(caller, inbound, out).await,
            Method::LeaseKeepAlive if caller.requires_leader() => {
                let renewed = Box::pin(self.lease_keep_alive(inbound, out));
                self.while_led(caller, renewed).await
            }
            Method::LeaseKeepAlive => self.lease_keep_alive(inbound, out).await,
            _ => unreachable!("{} is no bidirectional method", method.path()),
        }
    }

    /// The gates that every call passes (`spec/grpc-api.md` §3.3).
    fn admit(&self, method: Method, caller: &Caller) -> Result<(), Status> {
        if self.handle.gate().is_learner() && !is_for_learners(method) {
            return Err(error::NOT_SUPPORTED_FOR_LEARNER);
        }
        self.known_clients.count(&self.metrics.clients, method.kind(), caller.api_version());
        if caller.requires_leader() && self.handle.gate().leader() == 0 {
            return Err(error::NO_LEADER);
        }
        Ok(())
    }
}

/// What a member without a vote serves. Ranges only if they are serializable, which their requests say.
fn is_for_learners(method: Method) -> bool {
    matches!(method, Method::StatusOf | Method::Range | Method::Snapshot)
}

/// What a client is told of a fault of our own.
fn fault_status(fault: &machine::Fault) -> Status {
    Status::new(Code::Internal, format!("etcdserver: {fault}"))
}

/// Methods whose feature is not built yet say so.
fn not_built(method: Method) -> Status {
    Status::new(
        Code::Unimplemented,
        format!("method {} of service {} is not built yet", method.name(), method.service()),
    )
}

/// Decodes a request; the text of a failure is grpc-go's up to the decoder's own words.
fn decode<M: Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message).map_err(|error| malformed(&error))
}

/// Decodes a transaction. One that is nested too deep has more operations than any bound allows.
fn decode_txn(message: Bytes) -> Result<TxnRequest, Status> {
    machine::decode_txn(message).map_err(|error| match error {
        TxnDecodeError::Malformed(error) => malformed(&error),
        TxnDecodeError::TooDeep => error::TOO_MANY_OPS,
    })
}

fn malformed(error: &prost::DecodeError) -> Status {
    Status::new(Code::Internal, format!("grpc: error unmarshalling request: proto: {error}"))
}
