//! Watchers that lag behind: reading history for them, in bounded pieces, away from the serving thread.
//!
//! One piece serves many watchers that need about the same revisions. It ends where a watcher has got as many revisions as one answer may hold,
//! where enough bytes have been collected, or where enough history has been looked through; always at the end of a revision.

use super::answer::{Answer, Body, Delivered, Events};
use super::hub::{Hub, StreamId};
use super::index::{Index, Spans};
use super::span::Span;
use super::watcher::{Flags, State};
use super::{Event, EventKind, History, HistoryBounds};
use crate::{Fault, ReadError, Record, Refusal};

/// Distinct revisions in one answer, at most; watchers whose next revisions are within so many share a piece.
const ANSWER_REVISIONS_MAX: i64 = 1000;
/// Distinct revisions in one read of the store.
const READ_REVISIONS_MAX: usize = 1000;
/// Bytes in one read of the store.
const READ_BYTES_MAX: usize = 1 << 20;
/// Reads of the store in one piece: what concerns none of its watchers is skipped faster.
const READS_MAX: usize = 16;
/// Unsynced watchers looked at to make up a piece.
const LOOKED_AT_MAX: usize = 4096;

/// A piece of history to be read for some watchers; [`CatchUp::run`] may happen on any thread. Each is to be given back by
/// [`Hub::finish_catch_up`]: the hub makes no other meanwhile.
#[derive(Debug)]
pub struct CatchUp {
    wants: Vec<Want>,
    bytes_max: usize,
}

/// What was read.
#[derive(Debug)]
pub struct CatchUpDone {
    wants: Vec<Want>,
    /// The store's revision when it was read.
    current: i64,
    compacted: i64,
    fault: Option<Fault>,
}

/// One watcher's part.
#[derive(Debug)]
struct Want {
    slot: u32,
    serial: u64,
    span: Span,
    flags: Flags,
    /// The first revision needed; after reading, the first one not read.
    next: i64,
    /// What was found.
    found: Option<Events>,
    /// Main revisions in `found`.
    revisions: i64,
    /// The last of them.
    last: i64,
}

impl Hub {
    /// Makes up the next piece of history to read, if a watcher waits for one and none is being read. The piece is for
    /// nobody if all watchers looked at wait for room: whoever gives it back and asks again gets to those behind them.
    pub fn next_catch_up(&mut self) -> Option<CatchUp> {
        if self.is_reading || self.unsynced.is_empty() {
            return None;
        }
        let mut from = None;
        let mut chosen = Vec::new();
        let mut full = Vec::new();
        for (&ticket, &slot) in self.unsynced.iter().take(LOOKED_AT_MAX) {
            let watcher = &self.watchers[slot as usize];
            if !self.has_room(StreamId(watcher.stream)) {
                full.push((ticket, slot));
                continue;
            }
            let from = *from.get_or_insert(watcher.next);
            if (from..from.saturating_add(ANSWER_REVISIONS_MAX)).contains(&watcher.next) {
                chosen.push((ticket, slot));
            }
            if chosen.len() >= self.options.catch_up_watchers_max {
                break;
            }
        }
        for (ticket, slot) in full {
            self.unsynced.remove(&ticket);
            self.stall(slot);
        }
        let wants: Vec<Want> =
            chosen.into_iter().map(|(ticket, slot)| self.start_reading(ticket, slot)).collect();
        self.is_reading = !wants.is_empty() || !self.unsynced.is_empty();
        self.is_reading.then_some(CatchUp { wants, bytes_max: self.options.catch_up_bytes_max })
    }

    /// Delivers what was read. A fault leaves the watchers waiting: the caller decides whether the member goes on.
    pub fn finish_catch_up(
        &mut self,
        done: CatchUpDone,
        history: &impl History,
    ) -> Result<(), Fault> {
        self.is_reading = false;
        for want in done.wants {
            // It may have been canceled meanwhile.
            let is_same = self
                .watchers
                .get(want.slot as usize)
                .is_some_and(|watcher| watcher.serial == want.serial);
            if is_same && done.fault.is_some() {
                // What was found may end within a revision.
                self.queue_unsynced(want.slot);
            } else if is_same {
                self.finish_one(want, done.current, done.compacted, history);
            }
        }
        done.fault.map_or(Ok(()), Err)
    }

    fn start_reading(&mut self, ticket: u64, slot: u32) -> Want {
        self.unsynced.remove(&ticket);
        let watcher = &mut self.watchers[slot as usize];
        watcher.state = State::Reading;
        Want {
            slot,
            serial: watcher.serial,
            span: watcher.span.clone(),
            flags: watcher.flags,
            next: watcher.next,
            found: None,
            revisions: 0,
            last: 0,
        }
    }

    fn finish_one(&mut self, want: Want, current: i64, compacted: i64, history: &impl History) {
        let slot = want.slot;
        let watcher = &self.watchers[slot as usize];
        let is_compacted = watcher.next < compacted;
        let stream = StreamId(watcher.stream);
        if (is_compacted || want.found.is_some()) && !self.has_room(stream) {
            return self.stall(slot);
        }
        if is_compacted {
            return self.cancel_compacted(slot, compacted);
        }
        if let Some(found) = want.found {
            self.push_events(slot, current, found);
        }
        self.watchers[slot as usize].next = want.next;
        if want.next <= self.current {
            self.replay_recent(slot, history);
        } else {
            self.settle(slot);
        }
    }

    /// Tells a watcher that what it needs is gone. Its id stays taken until its client cancels it.
    fn cancel_compacted(&mut self, slot: u32, compacted: i64) {
        let watcher = &mut self.watchers[slot as usize];
        watcher.state = State::Compacted;
        let answer = Answer {
            watch_id: watcher.id,
            revision: 0,
            may_fragment: false,
            body: Body::Compacted { revision: compacted },
        };
        let stream = StreamId(watcher.stream);
        self.stats.watchers -= 1;
        self.stats.slow_watchers -= 1;
        self.push_answer(stream, answer);
    }
}

impl CatchUp {
    /// Reads. May touch the disk, and blocks.
    pub fn run(self, history: &impl History) -> CatchUpDone {
        let Self { mut wants, bytes_max } = self;
        let current = history.current();
        let mut compacted = history.compacted();
        let mut reading = Reading { index: Index::default(), bytes_left: bytes_max };
        let mut from = i64::MAX;
        for (place, want) in (0..).zip(&wants) {
            if want.next >= compacted {
                from = from.min(want.next);
                reading.index.insert(&wants[..], place);
            }
        }
        let mut fault = None;
        let mut reads = 0;
        while from <= current && reads < READS_MAX && reading.bytes_left > 0 {
            reads += 1;
            match reading.read(&mut wants, from, current, history) {
                Ok(next) => from = next,
                // Told by the compacted revision below.
                Err(ReadError::Refused(Refusal::Compacted)) => break,
                Err(ReadError::Refused(refusal)) => {
                    unreachable!("revisions up to the current one are {refusal}")
                }
                Err(ReadError::NoRoom) => unreachable!("reads of history ask for no room"),
                Err(ReadError::Fault(error)) => {
                    fault = Some(error);
                    break;
                }
            }
        }
        // What was read is complete only from the compacted revision on, as it is after the last read.
        compacted = compacted.max(history.compacted());
        CatchUpDone { wants, current, compacted, fault }
    }
}

impl Spans for [Want] {
    fn span(&self, member: u32) -> &Span {
        &self[member as usize].span
    }
}

/// The state of one run.
struct Reading {
    index: Index,
    bytes_left: usize,
}

impl Reading {
    /// Reads once, shares out what was found, and returns the first revision not dealt with.
    fn read(
        &mut self,
        wants: &mut [Want],
        from: i64,
        to: i64,
        history: &impl History,
    ) -> Result<i64, ReadError> {
        let bounds = HistoryBounds { revisions_max: READ_REVISIONS_MAX, bytes_max: READ_BYTES_MAX };
        let batch = history.read(from, to, bounds)?;
        let mut next = batch.last() + 1;
        for (revision, events) in batch.revisions() {
            let is_full = self.share_out(wants, events, history)?;
            if is_full || self.bytes_left == 0 {
                self.bytes_left = 0;
                next = revision + 1;
                break;
            }
        }
        for want in wants {
            want.next = want.next.max(next);
        }
        Ok(next)
    }

    /// Gives one revision's events to the watchers concerned; tells whether one of them has got enough.
    fn share_out(
        &mut self,
        wants: &mut [Want],
        events: &[Event],
        history: &impl History,
    ) -> Result<bool, ReadError> {
        let mut is_full = false;
        for event in events {
            let main = event.revision.main;
            #[cfg(feature = "planted-faults")]
            if main % 16 == 7
                && crate::fault_hooks::is_planted(crate::fault_hooks::Planted::SkippedEvent)
            {
                continue;
            }
            let is_delete = event.kind == EventKind::Delete;
            let mut takers = Vec::new();
            self.index.find(&*wants, &event.key, |place| {
                let want = &wants[place as usize];
                if want.next <= main && want.flags.pass(is_delete) {
                    takers.push(place as usize);
                }
            });
            let asked = takers.iter().any(|&place| wants[place].flags.has(Flags::PREVIOUS));
            let previous = if asked { previous(event, history)? } else { None };
            for place in takers {
                let want = &mut wants[place];
                want.revisions += i64::from(want.last != main);
                want.last = main;
                is_full |= want.revisions >= ANSWER_REVISIONS_MAX;
                let previous =
                    previous.as_ref().filter(|_| want.flags.has(Flags::PREVIOUS)).cloned();
                let delivered = Delivered { is_delete, record: event.record.clone(), previous };
                self.bytes_left = self.bytes_left.saturating_sub(delivered.bytes());
                want.found = Some(match want.found.take() {
                    None => Events::One(delivered),
                    Some(found) => found.add(delivered),
                });
            }
        }
        Ok(is_full)
    }
}

fn previous(event: &Event, history: &impl History) -> Result<Option<Record>, ReadError> {
    if event.kind == EventKind::Create {
        return Ok(None);
    }
    match history.before(&event.key, event.revision.main) {
        Err(ReadError::Refused(Refusal::Compacted)) => Ok(None),
        found => found,
    }
}
