//! The hub against what it promises: random writes, compactions, snapshots, slow clients, and readings of history that finish late. Every
//! watcher must have received, at any time, a prefix of the events that concern it, ending with a whole revision; and all of them in the
//! end, unless it was told that they are compacted.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proto::mvccpb::event::EventType;

use super::store::Store;
use super::*;
use crate::watch::span::Span;

const STREAMS: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<(u8, bool)>),
    Publish,
    Install,
    Create { stream: usize, id: i64, key: u8, end: u8, start: i64, flags: u8 },
    Cancel { stream: usize, id: i64 },
    Reopen { stream: usize },
    Drain { stream: usize, most: usize },
    StartReading,
    FinishReading,
    Compact(i64),
    CompactWhenRead(i64),
    Progress { stream: usize },
    Tick { stream: usize },
    Cold(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let stream = 0..STREAMS;
    let create = (stream.clone(), -1..4_i64, 0..6_u8, 0..8_u8, -12..5_i64, any::<u8>());
    prop_oneof![
        8 => prop::collection::vec((0..6_u8, any::<bool>()), 1..4).prop_map(Step::Write),
        6 => Just(Step::Publish),
        1 => Just(Step::Install),
        6 => create.prop_map(|(stream, id, key, end, start, flags)| {
            Step::Create { stream, id, key, end, start, flags }
        }),
        1 => (stream.clone(), 0..4_i64).prop_map(|(stream, id)| Step::Cancel { stream, id }),
        1 => stream.clone().prop_map(|stream| Step::Reopen { stream }),
        5 => (stream.clone(), 1..9_usize).prop_map(|(stream, most)| Step::Drain { stream, most }),
        5 => Just(Step::StartReading),
        5 => Just(Step::FinishReading),
        1 => (0..12_i64).prop_map(Step::Compact),
        1 => (0..12_i64).prop_map(Step::CompactWhenRead),
        2 => stream.clone().prop_map(|stream| Step::Progress { stream }),
        2 => stream.prop_map(|stream| Step::Tick { stream }),
        1 => any::<bool>().prop_map(Step::Cold),
    ]
}

fn bounds() -> impl Strategy<Value = Options> {
    (0..1500_usize, 1..6_usize, 0..800_usize, 1..4_usize, 0..600_usize).prop_map(
        |(bytes, answers, recent, watchers, catch_up)| Options {
            queue_bytes_max: bytes + 150,
            queue_answers_max: answers,
            recent_bytes_max: recent,
            catch_up_watchers_max: watchers,
            catch_up_bytes_max: catch_up + 1,
        },
    )
}

/// A watcher as its client sees it.
#[derive(Debug)]
struct Client {
    request: WatchCreateRequest,
    span: Span,
    /// The first revision that it is to be told.
    start: i64,
    received: Vec<(EventType, mvccpb::KeyValue)>,
    /// Everything through this revision has been received.
    through: i64,
    is_compacted: bool,
}

struct World {
    store: Store,
    hub: Hub,
    pending: Option<EventBatch>,
    reading: Option<CatchUpDone>,
    /// Every event ever, with the record of its key one revision before.
    all: Vec<(Event, Option<Bytes>)>,
    streams: [StreamId; STREAMS],
    /// Requests sent and not answered yet.
    asked: [Vec<WatchCreateRequest>; STREAMS],
    clients: [BTreeMap<i64, Client>; STREAMS],
}

impl World {
    fn new(options: Options) -> Self {
        let mut hub = Hub::new(options, 1);
        Self {
            store: Store::default(),
            streams: std::array::from_fn(|_| hub.open_stream()),
            hub,
            pending: None,
            reading: None,
            all: Vec::new(),
            asked: Default::default(),
            clients: Default::default(),
        }
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Write(changes) => self.write(&changes),
            Step::Publish => self.publish(),
            Step::Install => {
                self.pending = None;
                self.hub.restored(self.store.current());
            }
            Step::Create { stream, id, key, end, start, flags } => {
                let start = if start == 0 { 0 } else { (self.store.current() + start).max(0) };
                self.create(stream, request(id, key, end, start, flags));
            }
            Step::Cancel { stream, id } => {
                self.hub.cancel(self.streams[stream], id, &self.store);
            }
            Step::Reopen { stream } => {
                self.hub.close_stream(self.streams[stream]);
                self.streams[stream] = self.hub.open_stream();
                self.asked[stream].clear();
                self.clients[stream].clear();
            }
            Step::Drain { stream, most } => self.drain(stream, most),
            Step::StartReading => self.start_reading(),
            Step::FinishReading => self.finish_reading(),
            Step::Compact(behind) => {
                let revision = self.store.current() - behind;
                if revision > self.store.compacted().max(0) {
                    self.store.compact(revision);
                }
            }
            Step::CompactWhenRead(behind) => {
                let revision = self.store.current() - behind;
                if revision > self.store.compacted().max(0) {
                    self.store.compact_when_read.set(Some(revision));
                }
            }
            Step::Progress { stream } => self.hub.progress(self.streams[stream], &self.store),
            Step::Tick { stream } => self.hub.progress_tick(self.streams[stream]),
            Step::Cold(is_cold) => self.store.is_cold = is_cold,
        }
    }

    fn write(&mut self, changes: &[(u8, bool)]) {
        let first = self.store.current() + 1;
        let value = format!("value of revision {first}");
        let changes: Vec<(String, Option<&str>)> = changes
            .iter()
            .map(|&(key, is_put)| (name(key), is_put.then_some(value.as_str())))
            .collect();
        let events = self.store.write(changes.iter().map(|(key, value)| (key.as_str(), *value)));
        for event in events {
            let is_cold = std::mem::take(&mut self.store.is_cold);
            let previous = event.previous.and_then(|at| self.store.resident(at));
            self.store.is_cold = is_cold;
            self.pending.get_or_insert_with(|| EventBatch::new(first)).push(event.clone());
            self.all.push((event, previous));
        }
    }

    fn publish(&mut self) {
        if let Some(batch) = self.pending.take() {
            self.hub.publish(&Arc::new(batch), &self.store);
        }
    }

    fn create(&mut self, stream: usize, request: WatchCreateRequest) {
        // As a service does: no requests are taken from a client that does not read.
        if self.hub.has_room(self.streams[stream]) {
            self.hub.create(self.streams[stream], &request, &self.store);
            self.asked[stream].push(request);
        }
    }

    fn start_reading(&mut self) {
        if self.reading.is_none()
            && let Some(piece) = self.hub.next_catch_up()
        {
            assert!(self.hub.next_catch_up().is_none(), "one piece at a time");
            self.reading = Some(piece.run(&self.store));
        }
    }

    fn finish_reading(&mut self) {
        if let Some(done) = self.reading.take() {
            self.hub.finish_catch_up(done, &self.store).expect("the naive store has no faults");
        }
    }

    fn drain(&mut self, stream: usize, most: usize) {
        for _ in 0..most {
            let Some(answer) = self.hub.next_answer(self.streams[stream]) else { break };
            let mut parts = responses(&answer, if answer.revision % 2 == 0 { 120 } else { 9999 });
            let mut response = parts.remove(0);
            for part in parts {
                assert!(response.fragment, "all parts but the last are marked");
                response.fragment = part.fragment;
                response.events.extend(part.events);
            }
            assert!(!response.fragment, "the last part is not");
            self.receive(stream, response);
        }
    }

    fn receive(&mut self, stream: usize, response: WatchResponse) {
        let id = response.watch_id;
        let revision = response.header.as_ref().expect("always there").revision;
        if response.created {
            let request = self.asked[stream].remove(0);
            if !response.canceled {
                let before = self.clients[stream].insert(id, Client::new(request, revision));
                assert!(before.is_none(), "ids in use are not given away");
            }
        } else if response.compact_revision != 0 {
            assert_eq!((revision, response.canceled), (0, true));
            assert!(response.compact_revision <= self.store.compacted());
            let client = self.clients[stream].get_mut(&id).expect("created before");
            client.check(&self.all, true);
            client.is_compacted = true;
        } else if response.canceled {
            self.clients[stream].remove(&id).expect("created before");
        } else if !response.events.is_empty() {
            let client = self.clients[stream].get_mut(&id).expect("created before");
            client.receive(response, revision);
            client.check(&self.all, true);
        } else if id == NO_WATCH && !self.clients[stream].contains_key(&id) {
            for client in self.clients[stream].values_mut() {
                client.progress(&self.all, revision);
            }
        } else {
            let client = self.clients[stream].get_mut(&id).expect("created before");
            assert!(client.request.progress_notify);
            client.progress(&self.all, revision);
        }
    }

    /// Lets everything come to rest: all that is due must have arrived then.
    fn settle(&mut self) {
        self.publish();
        for _ in 0..10_000 {
            self.finish_reading();
            self.start_reading();
            for stream in 0..STREAMS {
                self.drain(stream, usize::MAX);
            }
            let Stats { slow_watchers, pending_events, .. } = self.hub.stats();
            if slow_watchers == 0 && pending_events == 0 {
                return self.check_all();
            }
        }
        panic!("the hub does not come to rest: {:?}", self.hub.stats());
    }

    fn check_all(&self) {
        let mut watching = 0;
        for client in self.clients.iter().flat_map(BTreeMap::values) {
            client.check(&self.all, client.is_compacted);
            watching += usize::from(!client.is_compacted);
            client.check_previous(&self.all, self.store.compacted());
        }
        assert_eq!(self.hub.stats().watchers, watching);
    }
}

impl Client {
    fn new(request: WatchCreateRequest, revision: i64) -> Self {
        let span = Span::parse(&request.key, &request.range_end).expect("it was not refused");
        let start = if request.start_revision == 0 { revision + 1 } else { request.start_revision };
        Self { request, span, start, received: Vec::new(), through: 0, is_compacted: false }
    }

    fn receive(&mut self, response: WatchResponse, revision: i64) {
        assert!(!self.is_compacted, "nothing follows a cancellation");
        for (place, event) in response.events.into_iter().enumerate() {
            let kind = event.r#type();
            let mut kv = event.kv.expect("always there");
            assert!(kv.mod_revision <= revision, "the header covers its events");
            if place == 0 {
                assert!(kv.mod_revision > self.through, "revisions are whole and unique");
            }
            self.through = kv.mod_revision;
            // The record before travels in the value's place, for the check at the end.
            if let Some(previous) = event.prev_kv {
                assert!(self.request.prev_kv, "nobody asked for it");
                kv.value = previous.encode_to_vec().into();
            } else if self.request.prev_kv {
                kv.value = Bytes::new();
            }
            self.received.push((kind, kv));
        }
    }

    fn progress(&mut self, all: &[(Event, Option<Bytes>)], revision: i64) {
        assert!(!self.is_compacted, "nothing follows a cancellation");
        let least = self.start - i64::from(self.request.start_revision == 0);
        assert!(revision >= least, "a future watcher has no progress");
        let due = self.due(all).take_while(|(event, _)| event.revision.main <= revision);
        assert_eq!(due.count(), self.received.len(), "progress never runs ahead of events");
        self.through = self.through.max(revision);
    }

    /// Lists the events that it is to receive.
    fn due<'a>(
        &self,
        all: &'a [(Event, Option<Bytes>)],
    ) -> impl Iterator<Item = &'a (Event, Option<Bytes>)> {
        all.iter().filter(|(event, _)| {
            let filter = match event.kind {
                EventKind::Delete => FilterType::Nodelete,
                EventKind::Create | EventKind::Put => FilterType::Noput,
            };
            event.revision.main >= self.start
                && self.span.contains(&event.key)
                && !self.request.filters.contains(&(filter as i32))
        })
    }

    /// Checks that exactly the due events were received, or the first of them if there may be more to come.
    fn check(&self, all: &[(Event, Option<Bytes>)], is_partial: bool) {
        let mut due = self.due(all);
        for (kind, kv) in &self.received {
            let (event, _) = due.next().expect("nothing is made up");
            assert_eq!((&event.key, event.revision.main), (&kv.key, kv.mod_revision));
            assert_eq!(event.kind == EventKind::Delete, *kind == EventType::Delete);
        }
        let next = due.next().map(|(event, _)| event.revision.main);
        assert!(is_partial || next.is_none(), "events are missing: {next:?}, {self:?}");
        assert!(next.is_none_or(|next| next > self.through), "a revision came in part");
    }

    fn check_previous(&self, all: &[(Event, Option<Bytes>)], compacted: i64) {
        for ((event, previous), (_, kv)) in self.due(all).zip(&self.received) {
            if !self.request.prev_kv {
                continue;
            }
            if kv.value.is_empty() {
                let may_lack = previous.is_none() || event.revision.main - 1 < compacted;
                assert!(may_lack, "the record before {event:?} is missing");
            } else {
                assert_eq!(Some(&kv.value), previous.as_ref());
            }
        }
    }
}

fn request(id: i64, key: u8, end: u8, start: i64, flags: u8) -> WatchCreateRequest {
    let mut filters = Vec::new();
    if flags & 0b11_0000 == 0 {
        filters.push(if flags & 1 == 0 { FilterType::Noput } else { FilterType::Nodelete } as i32);
    }
    let range_end = match end {
        0 => Bytes::from_static(b"\0"),
        1..=3 => Bytes::new(),
        _ => Bytes::from(name(end)),
    };
    WatchCreateRequest {
        key: Bytes::from(name(key)),
        range_end,
        start_revision: start,
        progress_notify: flags & 2 != 0,
        filters,
        prev_kv: flags & 4 != 0,
        watch_id: id.max(0),
        fragment: flags & 8 != 0,
    }
}

fn name(key: u8) -> String {
    char::from(b'a' + key).to_string()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn watchers_get_all_their_events_in_order_once_and_whole(
        options in bounds(),
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut world = World::new(options);
        for step in steps {
            world.run(step);
            world.hub.check();
        }
        world.settle();
    }
}
