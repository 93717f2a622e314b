//! The hub of one serving thread: its watch streams, their watchers and what is queued for them.
//!
//! Guarantees, per watcher: events in revision order, none twice, none lost unless it is told that they are compacted, and all events of
//! one revision in one answer. The created answer precedes them. Queues are bounded: an answer with events or progress is only
//! queued while the stream is below its bounds, so one answer at most goes beyond. Answers to requests are always queued; the owner
//! stops taking requests while [`Hub::has_room`] says no.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use proto::etcdserverpb::WatchCreateRequest;
use slab::Slab;

use super::answer::{Answer, Body, NO_WATCH, Refused};
use super::deliver::Scratch;
use super::index::Index;
use super::span::Span;
use super::watcher::{Flags, State, Watcher};
use super::{EventBatch, History};

/// The bounds of a hub.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes in a stream's queue, shared records counted in full for each.
    pub queue_bytes_max: usize,
    /// Answers in a stream's queue.
    pub queue_answers_max: usize,
    /// Bytes of recent batches that are kept for watchers that are almost synced.
    pub recent_bytes_max: usize,
    /// Watchers in one reading of history.
    pub catch_up_watchers_max: usize,
    /// Bytes that one reading of history delivers.
    pub catch_up_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue_bytes_max: 4 << 20,
            queue_answers_max: 1 << 15,
            recent_bytes_max: 1 << 20,
            catch_up_watchers_max: 512,
            catch_up_bytes_max: 2 << 20,
        }
    }
}

/// Names a stream of one hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(super) u32);

/// What a hub holds, for metrics.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Streams that are open.
    pub streams: usize,
    /// Watchers that still watch.
    pub watchers: usize,
    /// Those that are not synced.
    pub slow_watchers: usize,
    /// Events queued.
    pub pending_events: usize,
    /// Events queued since the start.
    pub events_total: u64,
}

#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Watch id to watcher.
    watchers: BTreeMap<i64, u32>,
    next_id: i64,
    queue: VecDeque<Answer>,
    queued_bytes: usize,
    /// Watchers that wait for room.
    pub(super) stalled: BTreeSet<u32>,
    /// Whether it is in the hub's list of ready streams.
    announced: bool,
    /// Progress was asked for when the store stood at this revision, which the hub has not reached.
    progress_at: Option<i64>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Hub {
    pub(super) options: Options,
    /// All events through this revision have been published here.
    pub(super) current: i64,
    pub(super) streams: Slab<Stream>,
    pub(super) watchers: Slab<Watcher>,
    /// Synced watchers.
    pub(super) index: Index,
    /// Unsynced watchers by ticket: first come, first served.
    pub(super) unsynced: BTreeMap<u64, u32>,
    /// The last batches without a gap, up to `current`.
    pub(super) recent: VecDeque<Arc<EventBatch>>,
    pub(super) recent_bytes: usize,
    /// Whether a [`super::CatchUp`] is under way.
    pub(super) is_reading: bool,
    ready: Vec<StreamId>,
    waiting_for_progress: BTreeSet<u32>,
    serial: u64,
    pub(super) scratch: Scratch,
    pub(super) stats: Stats,
}

impl Hub {
    /// Makes a hub without streams; the first batch published begins with revision `current` + 1.
    pub fn new(options: Options, current: i64) -> Self {
        Self {
            options,
            current,
            streams: Slab::new(),
            watchers: Slab::new(),
            index: Index::default(),
            unsynced: BTreeMap::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            is_reading: false,
            ready: Vec::new(),
            waiting_for_progress: BTreeSet::new(),
            serial: 0,
            scratch: Scratch::default(),
            stats: Stats::default(),
        }
    }

    /// Returns the revision through which events have been published here.
    pub fn revision(&self) -> i64 {
        self.current
    }

    /// Returns what the hub holds.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Opens a stream. It ends with [`Hub::close_stream`].
    pub fn open_stream(&mut self) -> StreamId {
        self.stats.streams += 1;
        StreamId(slot(self.streams.insert(Stream::default())))
    }

    /// Ends a stream, its watchers and its queue. Its id may name another stream afterwards.
    pub fn close_stream(&mut self, stream: StreamId) {
        let Some(closed) = self.streams.get_mut(stream.0 as usize) else { return };
        for watcher in std::mem::take(&mut closed.watchers).into_values() {
            self.remove_watcher(watcher);
        }
        let closed = self.streams.remove(stream.0 as usize);
        self.waiting_for_progress.remove(&stream.0);
        self.stats.streams -= 1;
        self.stats.pending_events -=
            closed.queue.iter().map(|answer| answer.events().len()).sum::<usize>();
    }

    /// Creates a watcher, or refuses to; either is answered. Whether the caller may read the range has been checked before, unless the
    /// start revision is negative: that is refused first.
    pub fn create(
        &mut self,
        stream: StreamId,
        request: &WatchCreateRequest,
        history: &impl History,
    ) {
        // Taken before the watcher exists: it misses nothing that is not in the store yet.
        let current = history.current();
        match self.try_create(stream, request, current) {
            Ok(watch_id) => self.push(stream, watch_id, current, Body::Created),
            Err(refused) => self.refuse(stream, refused, history),
        }
    }

    /// Answers that a watcher is not created.
    pub fn refuse(&mut self, stream: StreamId, refused: Refused, history: &impl History) {
        self.push(stream, NO_WATCH, history.current(), Body::Refused(refused));
    }

    /// Cancels a watcher and answers so. An unknown id gets no answer.
    pub fn cancel(&mut self, stream: StreamId, watch_id: i64, history: &impl History) {
        let Some(found) = self.streams.get_mut(stream.0 as usize) else { return };
        let Some(watcher) = found.watchers.remove(&watch_id) else { return };
        self.remove_watcher(watcher);
        self.push(stream, watch_id, history.current(), Body::Canceled);
    }

    /// Answers a progress request: once, on behalf of all watchers, if all are synced and none waits for a revision to come. The answer's
    /// revision is at least the store's when it was asked for: if that has not been published here yet, the answer waits.
    pub fn progress(&mut self, stream: StreamId, history: &impl History) {
        let asked_at = history.current();
        if self.current >= asked_at {
            return self.progress_for_all(stream);
        }
        if let Some(asking) = self.streams.get_mut(stream.0 as usize) {
            asking.progress_at = Some(asked_at);
            self.waiting_for_progress.insert(stream.0);
        }
    }

    /// Answers progress to each watcher of the stream that asked to be notified, had no events since the last tick, and is synced. Due
    /// every progress interval.
    pub fn progress_tick(&mut self, stream: StreamId) {
        let Some(ticking) = self.streams.get(stream.0 as usize) else { return };
        let watchers: Vec<u32> = ticking.watchers.values().copied().collect();
        for watcher in watchers {
            let watcher = &mut self.watchers[watcher as usize];
            let was_quiet = watcher.flags.has(Flags::QUIET);
            watcher.flags.set(Flags::QUIET, true);
            let is_due = watcher.flags.has(Flags::PROGRESS)
                && was_quiet
                && watcher.has_progressed_to(self.current);
            let watch_id = watcher.id;
            if is_due && self.has_room(stream) {
                self.push(stream, watch_id, self.current, Body::Progress);
            }
        }
    }

    /// Tells whether the stream's queue is below its bounds. While it is not, take no requests from its client.
    pub fn has_room(&self, stream: StreamId) -> bool {
        self.streams.get(stream.0 as usize).is_some_and(|stream| {
            stream.queued_bytes < self.options.queue_bytes_max
                && stream.queue.len() < self.options.queue_answers_max
        })
    }

    /// Tells whether something is queued for the stream.
    pub fn has_answers(&self, stream: StreamId) -> bool {
        self.streams.get(stream.0 as usize).is_some_and(|stream| !stream.queue.is_empty())
    }

    /// Moves the streams that have got something to send to `out`: each is to be drained with [`Hub::next_answer`] until that returns
    /// `None`, at the client's pace.
    pub fn take_ready(&mut self, out: &mut Vec<StreamId>) {
        for stream in self.ready.drain(..) {
            // A stream that was closed meanwhile is gone, or its slot's new one is not announced.
            let Some(ready) = self.streams.get_mut(stream.0 as usize) else { continue };
            if std::mem::take(&mut ready.announced) {
                out.push(stream);
            }
        }
    }

    /// Takes the next answer to send. Room that this makes lets stalled watchers go on: look for a [`Hub::next_catch_up`] afterwards.
    pub fn next_answer(&mut self, stream: StreamId) -> Option<Answer> {
        let taking = self.streams.get_mut(stream.0 as usize)?;
        let answer = taking.queue.pop_front();
        if let Some(answer) = &answer {
            taking.queued_bytes -= answer.bytes();
            self.stats.pending_events -= answer.events().len();
        } else {
            // Most streams are idle most of the time: they keep no room.
            taking.queue = VecDeque::new();
        }
        let is_low = taking.queued_bytes <= self.options.queue_bytes_max / 2
            && taking.queue.len() <= self.options.queue_answers_max / 2;
        if is_low && !taking.stalled.is_empty() {
            for watcher in std::mem::take(&mut taking.stalled) {
                self.queue_unsynced(watcher);
            }
        }
        answer
    }

    fn try_create(
        &mut self,
        stream: StreamId,
        request: &WatchCreateRequest,
        current: i64,
    ) -> Result<i64, Refused> {
        if request.start_revision < 0 {
            return Err(Refused::Compacted);
        }
        let span = Span::parse(&request.key, &request.range_end)?;
        let Some(owner) = self.streams.get_mut(stream.0 as usize) else {
            return Err(Refused::EmptyRange);
        };
        let id = owner.choose_id(request.watch_id)?;
        // From now on: progress is due at once, but not for less than the created answer's revision.
        let (start, next) = match request.start_revision {
            0 => (current, current + 1),
            start => (start, start),
        };
        let watcher = slot(self.watchers.vacant_key());
        owner.watchers.insert(id, watcher);
        self.serial += 1;
        self.watchers.insert(Watcher {
            stream: stream.0,
            id,
            serial: self.serial,
            span,
            start,
            next,
            flags: Flags::of(request),
            state: State::Stalled,
        });
        self.stats.watchers += 1;
        self.stats.slow_watchers += 1;
        self.settle(watcher);
        Ok(id)
    }

    /// Puts a watcher that is in no list where its next revision belongs.
    pub(super) fn settle(&mut self, slot: u32) {
        let watcher = &self.watchers[slot as usize];
        if watcher.next > self.current {
            self.sync(slot);
        } else {
            self.queue_unsynced(slot);
        }
    }

    /// Lets a watcher that is in no list wait for new events.
    pub(super) fn sync(&mut self, slot: u32) {
        let watcher = &mut self.watchers[slot as usize];
        watcher.state = State::Synced;
        self.index.insert(&self.watchers, slot);
        self.stats.slow_watchers -= 1;
    }

    /// Lets a watcher that is in no list wait for its turn to read history.
    pub(super) fn queue_unsynced(&mut self, slot: u32) {
        self.serial += 1;
        let watcher = &mut self.watchers[slot as usize];
        watcher.serial = self.serial;
        watcher.state = State::Unsynced;
        self.unsynced.insert(self.serial, slot);
    }

    /// Lets a watcher that is in no list wait for room.
    pub(super) fn stall(&mut self, slot: u32) {
        let watcher = &mut self.watchers[slot as usize];
        watcher.state = State::Stalled;
        self.streams[watcher.stream as usize].stalled.insert(slot);
    }

    /// Takes a synced watcher out of the index: `next` is the first revision that it still needs.
    pub(super) fn unsync(&mut self, slot: u32, next: i64) {
        self.index.remove(&self.watchers, slot);
        let watcher = &mut self.watchers[slot as usize];
        watcher.next = watcher.next.max(next);
        self.stats.slow_watchers += 1;
    }

    /// Forgets a watcher that its stream has forgotten.
    fn remove_watcher(&mut self, slot: u32) {
        let watcher = &self.watchers[slot as usize];
        let state = watcher.state;
        match state {
            State::Synced => self.index.remove(&self.watchers, slot),
            State::Unsynced => {
                self.unsynced.remove(&watcher.serial);
            }
            State::Stalled => {
                self.streams[watcher.stream as usize].stalled.remove(&slot);
            }
            State::Reading | State::Compacted => {}
        }
        self.watchers.remove(slot as usize);
        match state {
            State::Compacted => return,
            State::Synced => {}
            State::Unsynced | State::Stalled | State::Reading => {
                self.stats.slow_watchers -= 1;
            }
        }
        self.stats.watchers -= 1;
    }

    /// Answers the progress requests that waited for revisions published meanwhile.
    pub(super) fn answer_waiting_progress(&mut self) {
        if self.waiting_for_progress.is_empty() {
            return;
        }
        for stream in std::mem::take(&mut self.waiting_for_progress) {
            let Some(asking) = self.streams.get_mut(stream as usize) else { continue };
            if asking.progress_at.is_some_and(|at| at > self.current) {
                self.waiting_for_progress.insert(stream);
            } else if asking.progress_at.take().is_some() {
                self.progress_for_all(StreamId(stream));
            }
        }
    }

    fn progress_for_all(&mut self, stream: StreamId) {
        let Some(asking) = self.streams.get(stream.0 as usize) else { return };
        let all_synced = asking
            .watchers
            .values()
            .all(|&watcher| self.watchers[watcher as usize].has_progressed_to(self.current));
        if all_synced && !asking.watchers.is_empty() && self.has_room(stream) {
            self.push(stream, NO_WATCH, self.current, Body::Progress);
        }
    }

    fn push(&mut self, stream: StreamId, watch_id: i64, revision: i64, body: Body) {
        self.push_answer(stream, Answer { watch_id, revision, may_fragment: false, body });
    }

    /// Queues an answer and announces the stream if it had nothing to send.
    pub(super) fn push_answer(&mut self, stream: StreamId, answer: Answer) {
        let Some(to) = self.streams.get_mut(stream.0 as usize) else { return };
        to.queued_bytes += answer.bytes();
        self.stats.pending_events += answer.events().len();
        self.stats.events_total += answer.events().len() as u64;
        if to.queue.is_empty() && !to.announced {
            to.announced = true;
            self.ready.push(stream);
        }
        to.queue.push_back(answer);
    }
}

impl Stream {
    /// Takes the id asked for, or for 0 the least one not below the counter that is free.
    fn choose_id(&mut self, asked: i64) -> Result<i64, Refused> {
        if asked != 0 {
            let is_free = !self.watchers.contains_key(&asked);
            return is_free.then_some(asked).ok_or(Refused::DuplicateId);
        }
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        let id = self.next_id;
        self.next_id += 1;
        Ok(id)
    }
}

/// Slab keys as four bytes.
pub(super) fn slot(key: usize) -> u32 {
    u32::try_from(key).expect("memory ends before 2^32 streams or watchers")
}

#[cfg(test)]
impl Hub {
    /// Checks that every watcher is where its state says, that counts are right and that queues keep their bounds.
    pub(super) fn check(&self) {
        let mut slow = 0;
        let mut live = 0;
        for (key, watcher) in &self.watchers {
            let slot = slot(key);
            let stream = &self.streams[watcher.stream as usize];
            assert_eq!(stream.watchers.get(&watcher.id), Some(&slot));
            let is_stalled = stream.stalled.contains(&slot);
            assert_eq!(is_stalled, watcher.state == State::Stalled);
            let mut is_synced = false;
            let probe = watcher.span.start();
            self.index.find(&self.watchers, probe, |found| is_synced |= found == slot);
            assert_eq!(is_synced, watcher.state == State::Synced);
            if watcher.state == State::Unsynced {
                assert_eq!(self.unsynced.get(&watcher.serial), Some(&slot));
            }
            live += usize::from(watcher.state != State::Compacted);
            slow += usize::from(!matches!(watcher.state, State::Compacted | State::Synced));
        }
        assert_eq!((self.stats.watchers, self.stats.slow_watchers), (live, slow));
        let states = self.watchers.iter().map(|(_, watcher)| watcher.state);
        let unsynced = states.filter(|state| *state == State::Unsynced).count();
        assert_eq!(self.unsynced.len(), unsynced, "nobody else waits");
        for (_, stream) in &self.streams {
            let bytes = stream.queue.iter().map(Answer::bytes);
            assert_eq!(stream.queued_bytes, bytes.sum::<usize>());
            let told = stream.queue.iter().filter(|answer| !answer.events().is_empty());
            let before_last: Vec<usize> = told.map(Answer::bytes).rev().skip(1).collect();
            assert!(before_last.len() < self.options.queue_answers_max);
            assert!(before_last.iter().sum::<usize>() < self.options.queue_bytes_max);
        }
    }
}
