//! What watch streams are asked.
//!
//! Two kinds of streams: on some, watchers start at the present or in the past, so that the servers can say by a
//! progress answer that all has been delivered; on the others they may start in the future, which keeps progress answers
//! back.

use bytes::Bytes;
use proto::etcdserverpb::WatchCreateRequest;

use super::{View, keys};
use crate::random::Random;

/// How many streams a seed has.
pub(crate) const STREAMS: usize = 4;
/// Streams from this one on may have watchers of the future.
pub(crate) const FIRST_OF_FUTURE: usize = 3;
const WATCHERS_MAX: usize = 12;

/// What happens on the watch streams.
#[derive(Clone, Debug)]
pub(crate) enum WatchStep {
    Create {
        stream: usize,
        request: WatchCreateRequest,
    },
    Cancel {
        stream: usize,
        watch_id: i64,
    },
    /// All events have to be there, on all streams.
    Settle,
}

/// How many watchers were asked for, so that they do not become too many.
#[derive(Default)]
pub(super) struct Watchers {
    created: [usize; STREAMS],
}

impl Watchers {
    pub(super) fn next(&mut self, random: &mut Random, view: View) -> WatchStep {
        let stream = random.below(STREAMS);
        if random.chance(350) {
            return WatchStep::Settle;
        }
        let created = &mut self.created[stream];
        if *created > WATCHERS_MAX || random.chance(150) {
            *created = created.saturating_sub(1);
            let highest = i64::try_from(WATCHERS_MAX).unwrap_or(i64::MAX) + 4;
            return WatchStep::Cancel { stream, watch_id: random.within(-1, highest) };
        }
        *created += 1;
        WatchStep::Create { stream, request: create(random, view, stream >= FIRST_OF_FUTURE) }
    }
}

fn create(random: &mut Random, view: View, future: bool) -> WatchCreateRequest {
    let key = keys::key(random);
    let range_end = keys::range_end(random, &key);
    let mut request = WatchCreateRequest { key, range_end, ..WatchCreateRequest::default() };
    // Watch what is written, more often than not.
    if random.chance(400) {
        (request.key, request.range_end) = (Bytes::from_static(b"k"), Bytes::from_static(b"l"));
    }
    request.start_revision = match random.weighted(&[400, 400, 100, 60]) {
        0 => 0,
        1 if !future => random.within(view.compacted, view.revision),
        2 if !future => view.compacted + random.within(-2, 1),
        3 => random.pick(&[-1, i64::MIN]),
        _ => view.revision + 1 + if future { random.within(0, 200) } else { 0 },
    };
    request.prev_kv = random.chance(400);
    request.progress_notify = random.chance(300);
    request.fragment = random.chance(300);
    if random.chance(200) {
        let count = 1 + random.below(2);
        request.filters = (0..count).map(|_| random.pick(&[0, 0, 1, 1, 2, -1])).collect();
    }
    if random.chance(200) {
        request.watch_id = random.pick(&[1, 2, 3, 7, 100, i64::MAX]);
    } else if random.chance(10) {
        request.watch_id = random.pick(&[-1, -2, i64::MIN]);
    }
    request
}
