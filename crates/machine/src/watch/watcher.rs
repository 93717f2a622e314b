//! One watcher.

use proto::etcdserverpb::WatchCreateRequest;
use proto::etcdserverpb::watch_create_request::FilterType;

use super::span::Span;

/// Yes-or-no properties of a watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flags(u8);

impl Flags {
    pub(super) const NO_PUT: Self = Self(1);
    pub(super) const NO_DELETE: Self = Self(2);
    pub(super) const PREVIOUS: Self = Self(4);
    pub(super) const FRAGMENT: Self = Self(8);
    pub(super) const PROGRESS: Self = Self(16);
    /// No event was sent since the last tick of periodic progress.
    pub(super) const QUIET: Self = Self(32);

    /// Reads the flags of a request. Filters that are unknown filter nothing.
    pub(super) fn of(request: &WatchCreateRequest) -> Self {
        let mut flags = Self::QUIET;
        let filters = |filter: FilterType| request.filters.contains(&(filter as i32));
        flags.set(Self::NO_PUT, filters(FilterType::Noput));
        flags.set(Self::NO_DELETE, filters(FilterType::Nodelete));
        flags.set(Self::PREVIOUS, request.prev_kv);
        flags.set(Self::FRAGMENT, request.fragment);
        flags.set(Self::PROGRESS, request.progress_notify);
        flags
    }

    pub(super) fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    pub(super) fn set(&mut self, flag: Self, on: bool) {
        if on {
            self.0 |= flag.0;
        } else {
            self.0 &= !flag.0;
        }
    }

    /// Tells whether events of this kind are wanted.
    pub(super) fn pass(self, is_delete: bool) -> bool {
        !self.has(if is_delete { Self::NO_DELETE } else { Self::NO_PUT })
    }
}

/// Where a watcher gets its next events from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// From batches; it is in the index. Everything from `next` through the hub's revision has been delivered or concerns others.
    Synced,
    /// From history; it waits for its turn, with its serial as the ticket.
    Unsynced,
    /// From history, once its stream's queue has room.
    Stalled,
    /// From history, which is being read.
    Reading,
    /// Nothing any more: what it needs is compacted. Only its id is still taken.
    Compacted,
}

/// There are very many: what it takes is a matter of the member's memory.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) stream: u32,
    pub(super) id: i64,
    /// Never used twice in a hub, so that what was read for a watcher does not reach another one in its slot. It gets a new one
    /// whenever it has to wait for a reading.
    pub(super) serial: u64,
    pub(super) span: Span,
    /// No progress is told below this: the revision asked for, or the store's at creation.
    pub(super) start: i64,
    /// The first revision whose events may still be due; a synced watcher's may lag behind the hub's revision.
    pub(super) next: i64,
    pub(super) flags: Flags,
    pub(super) state: State,
}

const _: () = assert!(size_of::<Watcher>() <= 56);

impl Watcher {
    /// Tells whether it has been sent everything through `revision`, the hub's, and nothing beyond. It may have read events from history
    /// that are still to be published.
    pub(super) fn has_progressed_to(&self, revision: i64) -> bool {
        self.state == State::Synced && self.start <= revision && self.next <= revision + 1
    }
}
