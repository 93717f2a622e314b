//! Watching keys: whoever watches is told every change, in order, once, and whole revisions at a time.
//!
//! Each serving thread owns a [`Hub`] with the watch streams of its connections. Apply makes one shared [`EventBatch`] of what it has
//! changed; every hub is given it and finds the watchers concerned through an index. A watcher that starts in the past, or whose client
//! reads too slowly, is not fed from batches: it reads history in bounded pieces ([`CatchUp`], run on any thread) until it has
//! caught up. So a stream's queue is bounded, and nothing is lost.
//!
//! etcd's words: a *synced* watcher waits for new events, an *unsynced* one has to read history first, a *victim* (here: stalled) waits
//! for room in its stream's queue.

mod answer;
mod batch;
mod catch_up;
mod deliver;
mod history;
mod hub;
mod index;
mod interval;
mod span;
mod watcher;

#[cfg(test)]
mod tests;

pub use answer::{Answer, Body, Delivered, Events, Header, NO_WATCH, Part, Refused};
pub use batch::{Event, EventBatch, EventKind};
pub use catch_up::{CatchUp, CatchUpDone};
pub use history::{History, HistoryBounds};
pub use hub::{Hub, Options, Stats, StreamId};
