//! Corruption checks: members that have applied the same entries have equal hashes, and who has another one is told of
//! (`spec/raft-log.md` §8.5).
//!
//! There are three. One at the start ([`check_at_start`]) keeps a member with other data from serving. While a member
//! leads, it compares its hash with those of all others from time to time (`--corrupt-check-time`), and the hashes that
//! were stored with compactions (`CompactHashCheck`). What these two find becomes a CORRUPT alarm in the log. Who is to
//! be blamed is decided in `judge`.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use machine::membership::Membership;
use machine::{KeyValueHash, Reader};
use proto::etcdserverpb::AlarmType;
use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;

use super::admission::{CLUSTER_ID, Own, hex, value};
use super::requests::{Asked, Requests};
use super::urls::Urls;
use crate::config::{Config, GoDuration};
use crate::grpc::error;
use crate::grpc::status::Status;
use crate::incomplete::{Budget, INCOMPLETE_BYTES_MAX};
use crate::service::Services;

mod judge;

/// Where members tell their hash.
pub const PATH: &str = "/members/hashkv";

/// How often a check looks at the clock.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// When the leader checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Time between two comparisons of all data; `None` for never.
    pub all: Option<Duration>,
    /// Time between two comparisons of the hashes of compactions; `None` for never.
    pub compactions: Option<Duration>,
    /// Time for one answer.
    pub patience: Duration,
}

/// What one other member answers.
#[derive(Debug)]
struct Peer {
    id: u64,
    urls: String,
    told: Result<Told, Untold>,
}

/// A member's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    /// Its current revision.
    current: i64,
    hash: KeyValueHash,
}

/// Why a member does not tell its hash.
#[derive(Debug, thiserror::Error)]
enum Untold {
    #[error("{}", error::COMPACTED.message)]
    Compacted,
    #[error("{}", error::FUTURE_REVISION.message)]
    FutureRevision,
    #[error("cluster ID mismatch")]
    ClusterMismatch,
    #[error("unknown error: {0}")]
    Refused(String),
    #[error(transparent)]
    Connection(#[from] io::Error),
}

/// The question; a revision of 0 is left out, as etcd does.
#[derive(Serialize)]
struct Question {
    #[serde(skip_serializing_if = "is_current")]
    revision: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_current(revision: &i64) -> bool {
    *revision == 0
}

/// The answer; numbers that are 0 are left out.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    header: Header,
    hash: u32,
    compact_revision: i64,
    hash_revision: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Header {
    revision: i64,
}

/// Why a member does not begin to serve.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Others at the same revision have other data.
    #[error("{0} found data inconsistency with peers")]
    Inconsistent(String),
    /// The own data cannot be read.
    #[error("{member} failed to fetch hash ({source})")]
    Unreadable {
        /// This member.
        member: String,
        /// Why.
        source: machine::ReadError,
    },
    /// There is no runtime to ask with.
    #[error("cannot ask the members: {0}")]
    Runtime(#[source] io::Error),
}

/// Compares the data of a member that is about to start with that of the others, as far as they answer. Blocks until they
/// have.
pub fn check_at_start(config: &Config, own: Own, reader: &Reader) -> Result<(), StartError> {
    let patience = config.raft.request_timeout();
    let member = hex(own.member);
    tracing::info!(
        local_member_id = member,
        timeout = %GoDuration::from(patience),
        "starting initial corruption check"
    );
    let (hash, _) = reader
        .hash_kv(0)
        .map_err(|source| StartError::Unreadable { member: member.clone(), source })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    let peers = LocalSet::new().block_on(&runtime, async {
        let incomplete = Arc::new(Budget::new(INCOMPLETE_BYTES_MAX));
        let requests = Requests::new(config.raft.election_timeout, incomplete);
        ask_all(&requests, own, &reader.membership(), hash.revision, patience).await
    });
    if judge::differing(own.member, hash, &peers) > 0 {
        return Err(StartError::Inconsistent(member));
    }
    tracing::info!(local_member_id = member, "initial corruption checking passed; no corruption");
    Ok(())
}

/// Asks all other members for their hash at `revision`, one after the other: each has to read all its data for it.
async fn ask_all(
    requests: &Requests,
    own: Own,
    membership: &Membership,
    revision: i64,
    patience: Duration,
) -> Vec<Peer> {
    let mut peers = Vec::new();
    for member in membership.members().filter(|member| member.id != own.member) {
        let mut last = None;
        for url in Urls::parse(&member.peer_urls) {
            let told = requests.ask(&url, question(own, revision), patience).await;
            let told = told.map_err(Untold::from).and_then(|(status, body)| parse(status, &body));
            let is_told = told.is_ok();
            if let Err(error) = &told {
                tracing::warn!(
                    local_member_id = hex(own.member),
                    requested_revision = revision,
                    remote_peer_endpoint = url.as_str(),
                    %error,
                    "failed hash kv request"
                );
            }
            last = Some(told);
            if is_told {
                break;
            }
        }
        if let Some(told) = last {
            peers.push(Peer { id: member.id, urls: member.peer_urls.join(","), told });
        }
    }
    peers
}

fn question(own: Own, revision: i64) -> Asked {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CLUSTER_ID, value(&hex(own.cluster)));
    let body = serde_json::to_vec(&Question { revision }).unwrap_or_default().into();
    Asked { method: Method::GET, path: PATH.to_owned(), headers, body }
}

/// Reads an answer; members of all releases say why they have none by the same texts.
fn parse(status: StatusCode, body: &Bytes) -> Result<Told, Untold> {
    let text = || String::from_utf8_lossy(body);
    match status {
        StatusCode::OK => {
            let answer: Answer = serde_json::from_slice(body).map_err(io::Error::from)?;
            let Answer { header, hash, compact_revision, hash_revision } = answer;
            let hash = KeyValueHash { hash, compact_revision, revision: hash_revision };
            Ok(Told { current: header.revision, hash })
        }
        StatusCode::BAD_REQUEST if text().contains("required revision has been compacted") => {
            Err(Untold::Compacted)
        }
        StatusCode::BAD_REQUEST if text().contains("required revision is a future revision") => {
            Err(Untold::FutureRevision)
        }
        StatusCode::PRECONDITION_FAILED if text().contains("cluster ID mismatch") => {
            Err(Untold::ClusterMismatch)
        }
        _ => Err(Untold::Refused(text().trim_end().to_owned())),
    }
}

/// The checks of a member that runs.
#[derive(Debug)]
pub struct Checker {
    own: Own,
    services: Rc<Services>,
    settings: Settings,
}

impl Checker {
    /// Makes the checks of a member.
    pub fn new(own: Own, services: Rc<Services>, settings: Settings) -> Self {
        Self { own, services, settings }
    }

    /// Checks when it is time, while this member leads. Runs as a task of the peer thread.
    pub async fn run(self) {
        let Settings { all, compactions, .. } = self.settings;
        if let Some(interval) = all {
            tracing::info!(
                local_member_id = hex(self.own.member),
                interval = %GoDuration::from(interval),
                "enabled corruption checking"
            );
        }
        let (mut all, mut compactions) = (all.map(Clock::new), compactions.map(Clock::new));
        // The newest revision at which all members were found equal.
        let mut checked = 0;
        while all.is_some() || compactions.is_some() {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let now = Instant::now();
            let is_leader = self.services.handle().gate().is_leader();
            if all.as_mut().is_some_and(|clock| clock.is_due(now))
                && is_leader
                && let Err(status) = self.check_all().await
            {
                tracing::warn!(error = %status.message, "failed to check hash KV");
            }
            if compactions.as_mut().is_some_and(|clock| clock.is_due(now)) && is_leader {
                self.check_compactions(&mut checked).await;
            }
        }
    }

    async fn ask_all(&self, revision: i64) -> Vec<Peer> {
        let membership = self.services.cluster();
        let patience = self.settings.patience;
        ask_all(self.services.requests(), self.own, &membership, revision, patience).await
    }

    /// Compares all data at the current revision.
    async fn check_all(&self) -> Result<(), Status> {
        let (first, _) = self.services.hash_at(0).await?;
        let peers = self.ask_all(first.revision).await;
        // Whatever the others have applied is applied here, too, from then on.
        self.services.read_index().await?;
        let (second, current) = self.services.hash_at(0).await?;
        let leader = judge::Leader { id: self.own.member, first, second, current };
        if let Some(member) = judge::ahead_or_different(&leader, &peers) {
            self.raise(member);
        }
        let number_of_peers_checked = peers.iter().filter(|peer| peer.told.is_ok()).count();
        tracing::info!(number_of_peers_checked, "finished peer corruption check");
        Ok(())
    }

    /// Compares the hashes of compactions, the newest first, until all members have told one.
    async fn check_compactions(&self, checked: &mut i64) {
        tracing::info!(
            local_member_id = hex(self.own.member),
            timeout = %GoDuration::from(self.settings.patience),
            "starting compact hash check"
        );
        let mut hashes = self.services.handle().reader().stored_hashes();
        hashes.retain(|hash| hash.revision > *checked);
        let mut number_of_hashes_checked = 0;
        for hash in hashes.into_iter().rev() {
            number_of_hashes_checked += 1;
            let peers = self.ask_all(hash.revision).await;
            if peers.is_empty() {
                continue;
            }
            match judge::outvoted(self.own.member, hash, &peers) {
                judge::Compared::Equal => {
                    *checked = hash.revision.max(*checked);
                    break;
                }
                judge::Compared::Different(members) => {
                    for member in members {
                        self.raise(member);
                    }
                    break;
                }
                judge::Compared::Partly => {}
            }
        }
        tracing::info!(number_of_hashes_checked, "finished compaction hash check");
    }

    /// Tells the whole cluster that a member's data is not that of the others; 0 when it is not known whose.
    fn raise(&self, member: u64) {
        let services = Rc::clone(&self.services);
        tokio::task::spawn_local(async move {
            services.raise_alarm(AlarmType::Corrupt, member).await;
        });
    }
}

/// Tells when something is due that is done again and again.
#[derive(Debug)]
struct Clock {
    interval: Duration,
    last: Instant,
}

impl Clock {
    fn new(interval: Duration) -> Self {
        Self { interval, last: Instant::now() }
    }

    /// Tells whether the interval has passed since it had the last time.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = now.duration_since(self.last) >= self.interval;
        if is_due {
            self.last = now;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_all_releases_are_read() {
        let read = |status, text: &'static str| parse(status, &Bytes::from_static(text.as_bytes()));
        let of_3_7 =
            r#"{"header":{"revision":5},"hash":123,"compact_revision":-1,"hash_revision":4}"#;
        let told = read(StatusCode::OK, of_3_7).expect("a hash");
        assert_eq!(told.current, 5);
        assert_eq!(told.hash, KeyValueHash { hash: 123, compact_revision: -1, revision: 4 });
        let of_3_5 = r#"{"header":{"revision":5},"hash":7}"#;
        let told = read(StatusCode::OK, of_3_5).expect("a hash");
        assert_eq!(told.hash, KeyValueHash { hash: 7, compact_revision: 0, revision: 0 });
        assert!(matches!(read(StatusCode::OK, "ok"), Err(Untold::Connection(_))));
        let bad = StatusCode::BAD_REQUEST;
        let compacted = "mvcc: required revision has been compacted\n";
        assert!(matches!(read(bad, compacted), Err(Untold::Compacted)));
        let future = "mvcc: required revision is a future revision\n";
        assert!(matches!(read(bad, future), Err(Untold::FutureRevision)));
        let mismatch = read(StatusCode::PRECONDITION_FAILED, "cluster ID mismatch\n");
        assert!(matches!(mismatch, Err(Untold::ClusterMismatch)));
        let other = read(bad, "error reading body\n").expect_err("no hash");
        assert_eq!(other.to_string(), "unknown error: error reading body");
    }

    #[test]
    fn the_question_is_the_one_that_etcd_asks() {
        let own = Own { member: 0xa1, cluster: 0xc0 };
        let asked = question(own, 0);
        assert_eq!((&asked.body[..], &asked.path[..]), (&b"{}"[..], "/members/hashkv"));
        assert_eq!(asked.headers.get(&CLUSTER_ID).expect("always"), "c0");
        assert_eq!(&question(own, 7).body[..], br#"{"revision":7}"#);
    }

    #[test]
    fn a_clock_is_due_once_in_each_interval() {
        let mut clock = Clock::new(Duration::from_secs(2));
        let start = clock.last;
        let at = |seconds| start + Duration::from_secs(seconds);
        let due: Vec<bool> = [1, 2, 3, 4, 5].map(|seconds| clock.is_due(at(seconds))).into();
        assert_eq!(due, [false, true, false, true, false]);
    }
}
