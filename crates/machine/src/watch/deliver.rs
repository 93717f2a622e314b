//! New events, from apply to the queues of synced watchers.

use std::sync::Arc;

use super::answer::{Answer, Body, Delivered, Events};
use super::hub::{Hub, StreamId, slot};
use super::watcher::{Flags, State};
use super::{Event, EventBatch, EventKind, History};
use crate::Record;

/// Events looked through for one watcher that is almost synced.
const REPLAYED_EVENTS_MAX: usize = 256;

/// Buffers that publishing uses again and again.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Which watcher is concerned by which event of the revision.
    hits: Vec<(u32, u32)>,
    /// The previous records of the revision's events, as far as they were asked for.
    previous: Vec<Previous>,
}

#[derive(Debug, Clone)]
enum Previous {
    Unasked,
    None,
    Known(Record),
    /// It would have to be read from disk.
    Away,
}

/// One revision's events.
struct Occasion<'a, H> {
    revision: i64,
    events: &'a [Event],
    history: &'a H,
}

impl Hub {
    /// Queues the events of a batch for the synced watchers that they concern. Batches come in order; one that leaves a gap (after a
    /// snapshot was installed) makes all watchers read history, and what was published before is passed over.
    pub fn publish(&mut self, batch: &Arc<EventBatch>, history: &impl History) {
        if batch.last() <= self.current {
            return;
        }
        if batch.first() > self.current + 1 {
            self.restored(batch.first() - 1);
        }
        for (revision, events) in batch.revisions() {
            if revision > self.current {
                self.deliver(&Occasion { revision, events, history });
                self.current = revision;
            }
        }
        self.current = batch.last();
        self.remember(batch);
        self.answer_waiting_progress();
    }

    /// The store was replaced by one at `revision`, whose events were not published: all watchers go on by reading history.
    pub fn restored(&mut self, revision: i64) {
        let behind = self.current + 1;
        self.current = self.current.max(revision);
        self.recent.clear();
        self.recent_bytes = 0;
        let synced: Vec<u32> = self
            .watchers
            .iter()
            .filter(|(_, watcher)| watcher.state == State::Synced)
            .map(|(key, _)| slot(key))
            .collect();
        for slot in synced {
            self.unsync(slot, behind);
            #[cfg(feature = "planted-faults")]
            if crate::fault_hooks::is_planted(crate::fault_hooks::Planted::EventsOfThePast) {
                self.watchers[slot as usize].next = 1;
            }
            self.settle(slot);
        }
        self.answer_waiting_progress();
    }

    fn deliver(&mut self, occasion: &Occasion<'_, impl History>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let Scratch { hits, previous } = &mut scratch;
        for (place, event) in (0..).zip(occasion.events) {
            self.index.find(&self.watchers, &event.key, |watcher| hits.push((watcher, place)));
        }
        if occasion.events.len() > 1 {
            hits.sort_unstable();
        }
        previous.resize(occasion.events.len(), Previous::Unasked);
        for hits in hits.chunk_by(|one, other| one.0 == other.0) {
            self.deliver_to(hits[0].0, hits, occasion, previous);
        }
        hits.clear();
        previous.clear();
        self.scratch = scratch;
    }

    /// Queues those events of a revision that concern one watcher, all or none: what cannot be delivered now is read later.
    fn deliver_to(
        &mut self,
        slot: u32,
        hits: &[(u32, u32)],
        occasion: &Occasion<'_, impl History>,
        previous: &mut [Previous],
    ) {
        let watcher = &self.watchers[slot as usize];
        let is_known = watcher.next > occasion.revision;
        #[cfg(feature = "planted-faults")]
        let is_known = is_known
            && !crate::fault_hooks::is_planted(crate::fault_hooks::Planted::DuplicateEvent);
        if is_known {
            return;
        }
        let flags = watcher.flags;
        let stream = StreamId(watcher.stream);
        let mut events: Option<Events> = None;
        for &(_, place) in hits {
            let place = place as usize;
            if !flags.pass(occasion.events[place].kind == EventKind::Delete) {
                continue;
            }
            if events.is_none() && !self.has_room(stream) {
                self.unsync(slot, occasion.revision);
                return self.stall(slot);
            }
            let Some(event) = occasion.event(place, flags, &mut previous[place]) else {
                self.unsync(slot, occasion.revision);
                return self.queue_unsynced(slot);
            };
            events = Some(match events {
                None => Events::One(event),
                Some(events) => events.add(event),
            });
        }
        if let Some(events) = events {
            self.push_events(slot, occasion.revision, events);
        }
    }

    /// Queues events for a watcher whose stream has room.
    pub(super) fn push_events(&mut self, slot: u32, revision: i64, events: Events) {
        let watcher = &mut self.watchers[slot as usize];
        watcher.flags.set(Flags::QUIET, false);
        let answer = Answer {
            watch_id: watcher.id,
            revision,
            may_fragment: watcher.flags.has(Flags::FRAGMENT),
            body: Body::Events(events),
        };
        let stream = StreamId(watcher.stream);
        self.push_answer(stream, answer);
    }

    /// Feeds a watcher in no list from recent batches, if few events separate it from the present. Otherwise, under steady load, it
    /// would be behind again whenever a piece of history has been read.
    pub(super) fn replay_recent(&mut self, slot: u32, history: &impl History) {
        let next = self.watchers[slot as usize].next;
        let is_covered = self.recent.front().is_some_and(|oldest| oldest.first() <= next);
        let batches: Vec<Arc<EventBatch>> =
            self.recent.iter().filter(|batch| batch.last() >= next).cloned().collect();
        let events: usize = batches.iter().map(|batch| batch.events().len()).sum();
        if !is_covered || events > REPLAYED_EVENTS_MAX {
            return self.queue_unsynced(slot);
        }
        self.sync(slot);
        let mut previous = Vec::new();
        for (revision, events) in batches.iter().flat_map(|batch| batch.revisions()) {
            let span = &self.watchers[slot as usize].span;
            let hits: Vec<(u32, u32)> = (0..)
                .zip(events)
                .filter(|(_, event)| span.contains(&event.key))
                .map(|(place, _)| (slot, place))
                .collect();
            previous.clear();
            previous.resize(events.len(), Previous::Unasked);
            self.deliver_to(slot, &hits, &Occasion { revision, events, history }, &mut previous);
            if self.watchers[slot as usize].state != State::Synced {
                return;
            }
        }
    }

    fn remember(&mut self, batch: &Arc<EventBatch>) {
        self.recent.push_back(Arc::clone(batch));
        self.recent_bytes += batch.bytes();
        while self.recent_bytes > self.options.recent_bytes_max {
            let Some(oldest) = self.recent.pop_front() else { break };
            self.recent_bytes -= oldest.bytes();
        }
    }
}

impl<H: History> Occasion<'_, H> {
    /// Makes what a watcher gets of one event; `None` if that needs the disk.
    fn event(&self, place: usize, flags: Flags, previous: &mut Previous) -> Option<Delivered> {
        let event = &self.events[place];
        let mut delivered = Delivered {
            is_delete: event.kind == EventKind::Delete,
            record: event.record.clone(),
            previous: None,
        };
        if flags.has(Flags::PREVIOUS) {
            if matches!(previous, Previous::Unasked) {
                *previous = self.previous(event);
            }
            match previous {
                Previous::Unasked | Previous::None => {}
                Previous::Known(record) => delivered.previous = Some(record.clone()),
                Previous::Away => return None,
            }
        }
        Some(delivered)
    }

    fn previous(&self, event: &Event) -> Previous {
        let Some(at) = event.previous else { return Previous::None };
        if event.kind == EventKind::Create || self.revision - 1 < self.history.compacted() {
            return Previous::None;
        }
        self.history.resident(at).map_or(Previous::Away, Previous::Known)
    }
}
