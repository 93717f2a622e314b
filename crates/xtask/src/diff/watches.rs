//! The watch streams of one seed, on both servers.
//!
//! Answers that the order of requests determines are compared at once; events are collected per watcher and compared when
//! everything has to be there. How events are spread over responses depends on time and is not compared, but each side
//! must keep etcd's promises: revisions in order, none split over two responses unless marked as a fragment, none above
//! the header's revision, nothing before `created`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use h2::client::ResponseFuture;
use prost::Message as _;
use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use proto::mvccpb::Event;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::grpc::{Connection, Frames, Sender};

const PATH: &str = "/etcdserverpb.Watch/Watch";
/// A watcher that is never told anything keeps progress answers coming.
const ANCHOR: i64 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(10);
/// When nobody answers a cancel for this long, nobody will.
const SILENCE: Duration = Duration::from_millis(300);
const PROGRESS_PERIOD: Duration = Duration::from_millis(60);
/// Long enough for events of the present to arrive.
const QUIET: Duration = Duration::from_millis(25);

/// What one side has said.
#[derive(Default)]
struct Log {
    created: Vec<WatchResponse>,
    canceled: Vec<WatchResponse>,
    events: BTreeMap<i64, Vec<Event>>,
    /// Last revision that was delivered, and whether it may go on.
    delivered: BTreeMap<i64, (i64, bool)>,
    progress: i64,
    breaches: Vec<String>,
    ended: Option<String>,
}

impl Log {
    fn take(&mut self, mut response: WatchResponse) {
        let id = response.watch_id;
        let events = std::mem::take(&mut response.events);
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        if response.created {
            self.delivered.insert(id, (0, false));
            self.created.push(response);
        } else if response.canceled {
            self.canceled.push(response);
        } else if !events.is_empty() {
            self.check(id, &events, revision, response.fragment);
            self.events.entry(id).or_default().extend(events);
        } else if id == -1 {
            self.progress = self.progress.max(revision);
        }
    }

    fn check(&mut self, id: i64, events: &[Event], header: i64, fragment: bool) {
        let Some((last, open)) = self.delivered.get_mut(&id) else {
            self.breaches.push(format!("watcher {id}: events before it was created"));
            return;
        };
        for (index, event) in events.iter().enumerate() {
            let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            let begins = index == 0 && !*open;
            if revision < *last || (begins && revision == *last) || revision > header {
                let text = format!(
                    "watcher {id}: revision {revision} after {last}, header {header}, fragment {open}"
                );
                self.breaches.push(text);
            }
            *last = revision;
        }
        *open = fragment;
    }
}

struct Side {
    sender: Sender,
    log: Rc<RefCell<Log>>,
}

/// One stream on each server.
pub(crate) struct Stream {
    reference: Side,
    subject: Side,
    changed: Rc<Notify>,
    /// Watchers that a cancel would be answered for.
    live: BTreeSet<i64>,
    /// Watchers may start in the future: then progress is not answered.
    future: bool,
}

impl Stream {
    pub(crate) async fn open(
        reference: &Connection,
        subject: &Connection,
        future: bool,
    ) -> Result<Self> {
        let changed = Rc::new(Notify::new());
        let reference = Side::open(reference, &changed).await?;
        let subject = Side::open(subject, &changed).await?;
        let mut stream = Self { reference, subject, changed, live: BTreeSet::new(), future };
        if !future {
            let request = WatchCreateRequest {
                key: "~anchor".into(),
                watch_id: ANCHOR,
                ..WatchCreateRequest::default()
            };
            stream.create(&request).await?;
        }
        Ok(stream)
    }

    fn send(&mut self, union: RequestUnion) -> Result<()> {
        let message = WatchRequest { request_union: Some(union) }.encode_to_vec();
        self.reference.sender.send(&message)?;
        self.subject.sender.send(&message)
    }

    /// Waits until `done` holds on both sides; returns whether it does.
    async fn wait(&self, patience: Duration, done: impl Fn(&Log) -> bool) -> bool {
        let both = || done(&self.reference.log.borrow()) && done(&self.subject.log.borrow());
        self.wait_for(patience, both).await
    }

    async fn wait_for(&self, patience: Duration, done: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            if done() {
                return true;
            }
            if timeout_at(deadline, self.changed.notified()).await.is_err() {
                return done();
            }
        }
    }

    /// Creates a watcher; the difference, if there is one, is the error.
    pub(crate) async fn create(&mut self, request: &WatchCreateRequest) -> Result<()> {
        let counts = self.counts(|log| log.created.len());
        self.send(RequestUnion::CreateRequest(request.clone()))?;
        self.wait_for(PATIENCE, || {
            let (reference, subject) = self.counts(|log| log.created.len());
            reference > counts.0 && subject > counts.1
        })
        .await;
        let answer = |log: &Log| log.created.last().cloned();
        let (reference, subject) =
            (answer(&self.reference.log.borrow()), answer(&self.subject.log.borrow()));
        let counted = self.counts(|log| log.created.len());
        if counted != (counts.0 + 1, counts.1 + 1) || reference != subject {
            anyhow::bail!(
                "watch create {request:?}\n  reference: {reference:?}\n  subject:   {subject:?}\n  \
                 created answers: {counted:?} after {counts:?}"
            );
        }
        if let Some(created) = reference.filter(|created| !created.canceled) {
            self.live.insert(created.watch_id);
        }
        Ok(())
    }

    /// Cancels a watcher. `revision` is the store's.
    pub(crate) async fn cancel(&mut self, watch_id: i64, revision: i64) -> Result<()> {
        self.settle(revision).await?;
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }))?;
        if self.live.remove(&watch_id) {
            self.wait(SILENCE, |log| log.canceled.iter().any(|each| each.watch_id == watch_id))
                .await;
        }
        self.compare(QUIET).await
    }

    /// Waits until all events up to `revision` are there on both sides, and compares.
    pub(crate) async fn settle(&mut self, revision: i64) -> Result<()> {
        if !self.future {
            self.progress(revision).await?;
        }
        self.compare(if self.future { QUIET } else { Duration::ZERO }).await
    }

    /// Asks for progress until both sides say that all watchers have everything.
    async fn progress(&mut self, revision: i64) -> Result<()> {
        // An answer from before says nothing of watchers that have been created since.
        for side in [&self.reference, &self.subject] {
            side.log.borrow_mut().progress = 0;
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            self.drop_compacted()?;
            self.send(RequestUnion::ProgressRequest(WatchProgressRequest {}))?;
            if self.wait(PROGRESS_PERIOD, |log| log.progress >= revision).await {
                break;
            }
        }
        let (reference, subject) = self.counts(|log| log.progress);
        if (reference, subject) != (revision, revision) {
            let (canceled_there, canceled_here) = self.counts(|log| by_watcher(&log.canceled));
            let (told_there, told_here) = self.counts(|log| log.delivered.clone());
            anyhow::bail!(
                "watch progress at revision {revision}: reference {reference}, subject {subject}; \
                 live watchers {:?}; canceled by the reference: {canceled_there:?}, by the subject: \
                 {canceled_here:?}; told by the reference: {told_there:?}, by the subject: {told_here:?}",
                self.live
            );
        }
        Ok(())
    }

    /// Cancels the watchers that a compaction has ended on both sides: until then they keep progress back.
    fn drop_compacted(&mut self) -> Result<()> {
        let is_over = |log: &Log, id: i64| {
            log.canceled.iter().any(|each| each.watch_id == id && each.compact_revision != 0)
        };
        let over = |id: &i64| {
            is_over(&self.reference.log.borrow(), *id) && is_over(&self.subject.log.borrow(), *id)
        };
        let over: Vec<i64> = self.live.iter().copied().filter(over).collect();
        for watch_id in over {
            self.live.remove(&watch_id);
            self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }))?;
        }
        Ok(())
    }

    /// Compares what has come since the last time, once it is equal or patience ends, and forgets it.
    async fn compare(&mut self, quiet: Duration) -> Result<()> {
        let same = || {
            let (reference, subject) = (self.reference.log.borrow(), self.subject.log.borrow());
            reference.events == subject.events
                && by_watcher(&reference.canceled) == by_watcher(&subject.canceled)
        };
        loop {
            let is_same = self.wait_for(PATIENCE, same).await;
            let noise = || self.counts(|log| log.events.values().map(Vec::len).sum::<usize>());
            let before = noise();
            tokio::time::sleep(quiet).await;
            if !is_same || (same() && before == noise()) {
                break;
            }
        }
        let (mut reference, mut subject) =
            (self.reference.log.borrow_mut(), self.subject.log.borrow_mut());
        let (one, two) = (by_watcher(&reference.canceled), by_watcher(&subject.canceled));
        if one != two {
            anyhow::bail!("watch canceled\n  reference: {one:?}\n  subject:   {two:?}");
        }
        describe_events(&reference.events, &subject.events)?;
        for (name, log) in [("reference", &mut *reference), ("subject", &mut *subject)] {
            if let Some(breach) = log.breaches.first() {
                anyhow::bail!("watch, {name}: {breach}");
            }
            if let Some(end) = &log.ended {
                anyhow::bail!("watch, {name}: the stream ended: {end}");
            }
            log.events.clear();
            log.canceled.clear();
        }
        Ok(())
    }

    fn counts<T>(&self, of: impl Fn(&Log) -> T) -> (T, T) {
        (of(&self.reference.log.borrow()), of(&self.subject.log.borrow()))
    }
}

impl Side {
    async fn open(connection: &Connection, changed: &Rc<Notify>) -> Result<Self> {
        let (sender, response) = connection.stream(PATH).await?;
        let log = Rc::new(RefCell::new(Log::default()));
        let (written, changed) = (Rc::clone(&log), Rc::clone(changed));
        tokio::task::spawn_local(async move {
            let end = match read(response, &written, &changed).await {
                Ok(status) => status,
                Err(error) => format!("{error:#}"),
            };
            written.borrow_mut().ended = Some(end);
            changed.notify_one();
        });
        Ok(Self { sender, log })
    }
}

async fn read(response: ResponseFuture, log: &RefCell<Log>, changed: &Notify) -> Result<String> {
    let mut frames = Frames::new(response.await?.into_body());
    while let Some(message) = frames.next().await? {
        let response = WatchResponse::decode(message)?;
        log.borrow_mut().take(response);
        changed.notify_one();
    }
    let status = frames.status().await?;
    Ok(format!("code {} {:?}", status.code, status.text))
}

/// Watchers of one stream are not ordered among each other.
fn by_watcher(responses: &[WatchResponse]) -> Vec<WatchResponse> {
    let mut sorted = responses.to_vec();
    sorted.sort_by_key(|response| response.watch_id);
    sorted
}

/// Names the first event that differs.
fn describe_events(
    reference: &BTreeMap<i64, Vec<Event>>,
    subject: &BTreeMap<i64, Vec<Event>>,
) -> Result<()> {
    let ids: BTreeSet<&i64> = reference.keys().chain(subject.keys()).collect();
    for id in ids {
        let events = |side: &BTreeMap<i64, Vec<Event>>| side.get(id).cloned().unwrap_or_default();
        let (one, two) = (events(reference), events(subject));
        if one != two {
            let first = one.iter().zip(&two).position(|(one, two)| one != two);
            let first = first.unwrap_or_else(|| one.len().min(two.len()));
            anyhow::bail!(
                "watch events of watcher {id}, event {first}\n  reference ({}): {:?}\n  subject ({}):   {:?}",
                one.len(),
                one.get(first),
                two.len(),
                two.get(first)
            );
        }
    }
    Ok(())
}
