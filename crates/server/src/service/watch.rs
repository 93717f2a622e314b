//! The Watch service (`spec/grpc-api.md` §5) on the thread's watch hub.
//!
//! The hub is fed with the node's event batches ([`super::sync`]) and wakes the streams that have something to send.
//! History for watchers that lag behind is read on the blocking pool, one piece at a time.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use machine::watch::{Answer, Body, CatchUp, Header, Hub, Options, StreamId};
use machine::{EventBatch, Reader};
use proto::etcdserverpb::{WatchCreateRequest, WatchRequest, watch_request};
use proto::mvccpb::KeyValue;
use proto::mvccpb::event::EventType;
use tokio::time::Instant;

use super::payload::Payload;
use super::stream::{Gone, Inbound, Outbound};
use super::{Caller, Limits, Services, decode};
use crate::grpc::error;
use crate::grpc::status::Status;

/// Added to `--max-request-bytes` before a response is split, if the watcher allows it.
const FRAGMENT_MARGIN_BYTES: usize = 512 << 10;
/// Pause after a failed read of history.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of answers that leave together.
const TURN_BYTES: usize = 64 << 10;

/// The thread's watch hub and who waits for it.
#[derive(Debug)]
pub struct Watches {
    hub: Hub,
    reader: Reader,
    /// Open streams; a waker where the stream's task waits for answers.
    streams: BTreeMap<StreamId, Option<Waker>>,
    ready: Vec<StreamId>,
}

impl Watches {
    /// Makes a hub that stands where the store stands now.
    pub(super) fn new(reader: Reader, limits: &Limits) -> Self {
        let options = Options { queue_bytes_max: limits.watch_buffer_bytes, ..Options::default() };
        let hub = Hub::new(options, reader.revision());
        Self { hub, reader, streams: BTreeMap::new(), ready: Vec::new() }
    }

    /// Takes in event batches; `lost` tells that more were dropped after them.
    pub(super) fn publish(&mut self, batches: &[Arc<EventBatch>], lost: bool) {
        for batch in batches {
            self.hub.publish(batch, &self.reader);
        }
        if lost {
            self.hub.restored(self.reader.revision());
        }
    }

    /// Wakes the streams that have something to send.
    fn wake_ready(&mut self) {
        self.hub.take_ready(&mut self.ready);
        for stream in self.ready.drain(..) {
            if let Some(waker) = self.streams.get_mut(&stream).and_then(Option::take) {
                waker.wake();
            }
        }
    }
}

impl Services {
    /// Shows the metrics what the thread's hub holds.
    fn note_watches(&self, watches: &Watches) {
        self.figures().watch.set(&watches.hub.stats());
    }

    /// Lets the hub go on after it was changed: wakes streams, starts the next read of history.
    pub(super) fn pump_watches(self: &Rc<Self>) {
        let catch_up = {
            let mut watches = self.watches.borrow_mut();
            watches.wake_ready();
            self.note_watches(&watches);
            watches.hub.next_catch_up()
        };
        if let Some(catch_up) = catch_up {
            let services = Rc::clone(self);
            tokio::task::spawn_local(async move { services.catch_up(catch_up).await });
        }
    }

    async fn catch_up(self: Rc<Self>, catch_up: CatchUp) {
        let reader = self.handle.reader().clone();
        let done = tokio::task::spawn_blocking({
            let reader = reader.clone();
            move || catch_up.run(&reader)
        });
        // The pool refuses work only while the process is ending.
        let Ok(done) = done.await else { return };
        let finished = self.watches.borrow_mut().hub.finish_catch_up(done, &reader);
        if let Err(fault) = finished {
            self.read_fault(&fault);
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        self.pump_watches();
    }

    /// Serves one watch stream until its client is gone. That the client has finished sending does not end it.
    pub(super) async fn watch(
        self: &Rc<Self>,
        caller: &Caller,
        mut inbound: impl Inbound,
        out: &mut impl Outbound,
    ) -> Result<(), Status> {
        let stream = OpenStream::new(self);
        let mut is_inbound_open = true;
        let mut progress = ProgressTimer::new(self.limits.watch_progress_interval);
        loop {
            tokio::select! {
                () = stream.has_answers() => {
                    stream.send_answers(out).await.map_err(|Gone| error::WATCH_CANCELED)?;
                }
                message = inbound.message(), if is_inbound_open && stream.has_room() => {
                    let message = message.map_err(|broken| {
                        self.figures().watch_broken(&broken);
                        error::WATCH_CANCELED
                    })?;
                    match message {
                        Some(message) => stream.request(message, &mut progress)?,
                        None => is_inbound_open = false,
                    }
                }
                () = out.gone() => return Err(error::WATCH_CANCELED),
                () = progress.due() => {
                    let started = Instant::now();
                    stream.change(|watches, id| watches.hub.progress_tick(id));
                    self.figures().watch.progressed(started.elapsed());
                }
                lost = self.leader_lost(caller) => return Err(lost),
            }
        }
    }

    /// Watches a key or range for the member itself, from a revision on.
    pub(super) fn subscribe(
        self: &Rc<Self>,
        key: Bytes,
        range_end: Bytes,
        start_revision: i64,
    ) -> Subscription {
        let stream = OpenStream::new(self);
        let request =
            WatchCreateRequest { key, range_end, start_revision, ..WatchCreateRequest::default() };
        stream.change(|watches, id| watches.hub.create(id, &request, &watches.reader));
        Subscription { stream }
    }
}

/// A stream of the hub; dropping it cancels its watchers.
#[derive(Debug)]
struct OpenStream {
    services: Rc<Services>,
    id: StreamId,
}

impl OpenStream {
    fn new(services: &Rc<Services>) -> Self {
        let mut watches = services.watches.borrow_mut();
        let id = watches.hub.open_stream();
        watches.streams.insert(id, None);
        services.note_watches(&watches);
        Self { services: Rc::clone(services), id }
    }

    fn change(&self, change: impl FnOnce(&mut Watches, StreamId)) {
        change(&mut self.services.watches.borrow_mut(), self.id);
        self.services.pump_watches();
    }

    fn has_room(&self) -> bool {
        self.services.watches.borrow().hub.has_room(self.id)
    }

    /// Waits until the hub has something for the stream.
    async fn has_answers(&self) {
        poll_fn(|context| {
            let mut watches = self.services.watches.borrow_mut();
            if watches.hub.has_answers(self.id) {
                return Poll::Ready(());
            }
            watches.streams.insert(self.id, Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    fn request(&self, message: Bytes, progress: &mut ProgressTimer) -> Result<(), Status> {
        let request: WatchRequest =
            decode(message).inspect_err(|status| self.services.figures().watch_broken(status))?;
        match request.request_union {
            Some(watch_request::RequestUnion::CreateRequest(create)) => {
                if create.progress_notify {
                    progress.start();
                }
                self.change(|watches, id| watches.hub.create(id, &create, &watches.reader));
            }
            Some(watch_request::RequestUnion::CancelRequest(cancel)) => {
                self.change(|watches, id| watches.hub.cancel(id, cancel.watch_id, &watches.reader));
            }
            Some(watch_request::RequestUnion::ProgressRequest(_)) => {
                self.change(|watches, id| watches.hub.progress(id, &watches.reader));
            }
            // A kind of a later release: passed over, as etcd does.
            None => {}
        }
        Ok(())
    }

    /// Sends what the hub has, as fast as the client takes it.
    async fn send_answers(&self, out: &mut impl Outbound) -> Result<(), Gone> {
        let header = self.services.watch_header();
        let bytes_max = self.services.limits.request_bytes_max + FRAGMENT_MARGIN_BYTES;
        let mut turn = Vec::new();
        loop {
            let started = Instant::now();
            let (mut bytes, mut events) = (0, 0);
            while bytes < TURN_BYTES
                && let Some(answer) = self.next_answer()
            {
                events += answer.events().len();
                for part in answer.parts(&header, bytes_max) {
                    let payload = Payload::build(part.encoded_len(), |buffer| part.encode(buffer));
                    bytes += payload.message_len();
                    turn.push(payload);
                }
            }
            if turn.is_empty() {
                // Room may let stalled watchers go on.
                self.services.pump_watches();
                return Ok(());
            }
            out.send_all(&mut turn).await?;
            // What etcd does for one response, a turn does for those that leave together.
            self.services.figures().watch.sent(events, started.elapsed());
        }
    }

    fn next_answer(&self) -> Option<Answer> {
        self.services.watches.borrow_mut().hub.next_answer(self.id)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut watches = self.services.watches.borrow_mut();
        watches.streams.remove(&self.id);
        watches.hub.close_stream(self.id);
        self.services.note_watches(&watches);
    }
}

impl Services {
    fn watch_header(&self) -> Header {
        Header {
            cluster_id: self.identity.cluster_id,
            member_id: self.identity.member_id,
            raft_term: self.handle.gate().term(),
        }
    }
}

/// Changes of a key or range, for the member itself.
#[derive(Debug)]
pub(super) struct Subscription {
    stream: OpenStream,
}

impl Subscription {
    /// Waits for changes; `None` when the watch has ended, because what it needs is compacted.
    pub(super) async fn next(&mut self) -> Option<Vec<(EventType, KeyValue)>> {
        loop {
            self.stream.has_answers().await;
            let Some(answer) = self.stream.next_answer() else { continue };
            match &answer.body {
                Body::Created | Body::Progress => {}
                Body::Refused(_) | Body::Canceled | Body::Compacted { .. } => return None,
                Body::Events(events) => {
                    return events.as_slice().iter().map(event).collect();
                }
            }
        }
    }
}

/// Decodes an event; `None` for a damaged record, which the store would have refused to read.
fn event(event: &machine::watch::Delivered) -> Option<(EventType, KeyValue)> {
    let kind = if event.is_delete { EventType::Delete } else { EventType::Put };
    Some((kind, prost::Message::decode(event.record.clone()).ok()?))
}

impl Services {
    /// Waits until `key`, which existed before revision `from`, is deleted.
    pub(super) async fn wait_for_delete(
        self: &Rc<Self>,
        key: Bytes,
        from: i64,
    ) -> Result<(), Status> {
        let mut subscription = self.subscribe(key, Bytes::new(), from);
        loop {
            let events = subscription.next().await.ok_or(error::LOST_WATCHER)?;
            if events.iter().any(|(kind, _)| *kind == EventType::Delete) {
                return Ok(());
            }
        }
    }
}

/// Ticks for periodic progress, once a watcher has asked for it.
#[derive(Debug)]
struct ProgressTimer {
    interval: Duration,
    next: Option<Instant>,
}

impl ProgressTimer {
    fn new(interval: Duration) -> Self {
        Self { interval, next: None }
    }

    fn start(&mut self) {
        self.next.get_or_insert_with(|| Instant::now() + self.interval);
    }

    async fn due(&mut self) {
        let Some(next) = self.next else { return std::future::pending().await };
        tokio::time::sleep_until(next).await;
        self.next = Some(next + self.interval);
    }
}
