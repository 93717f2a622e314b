//! The random requests: what is asked next, from a seed and from what the reference answered before.
//!
//! Mostly plain use of a few keys, so that requests meet; the rest are the odd corners: empty keys, ranges
//! that end before they begin, revisions of the past and the future, enums out of range, too much of anything.

mod keys;
mod others;
mod txn;
mod watch;

use std::collections::VecDeque;

use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, HashKvRequest, PutRequest, RangeRequest,
};

use super::method::{self, Method};
use crate::random::Random;
pub(crate) use watch::{FIRST_OF_FUTURE, STREAMS, WatchStep};

/// One request to both servers.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: &'static Method,
    pub(crate) message: Bytes,
    /// As in the header `grpc-timeout`.
    pub(crate) timeout: Option<&'static str>,
    /// Not for the gateway: bytes that are no message.
    pub(crate) malformed: bool,
}

impl Call {
    pub(crate) fn of(method: &'static Method, message: &impl Message) -> Self {
        let message = message.encode_to_vec().into();
        Self { method, message, timeout: None, malformed: false }
    }
}

/// What happens next.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Call(Call),
    /// A lease whose id the server chooses: granted, looked at and revoked on each side under its own id.
    AnonymousLease {
        ttl: i64,
    },
    /// A body for the gateway that is not JSON, or not JSON of the message.
    BadJson {
        route: &'static str,
        body: &'static str,
    },
    Watch(WatchStep),
}

/// What is known of the store, from the reference's answers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct View {
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
    pub(crate) member_id: u64,
}

/// The sequence of one seed.
pub(crate) struct Generator {
    random: Random,
    /// Steps that belong together and come next.
    queue: VecDeque<Step>,
    watchers: watch::Watchers,
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        let random = Random::new(seed);
        Self { random, queue: VecDeque::new(), watchers: watch::Watchers::default() }
    }

    /// Returns the next step, given what is known before it.
    pub(crate) fn next(&mut self, view: View) -> Step {
        if let Some(step) = self.queue.pop_front() {
            return step;
        }
        let weights = [340, 260, 50, 180, 8, 10, 70, 20, 12, 30, 20];
        match self.random.weighted(&weights) {
            0 => Step::Call(Call::of(&method::RANGE, &self.range(view))),
            1 => Step::Call(Call::of(&method::PUT, &self.put())),
            2 => Step::Call(Call::of(&method::DELETE, &self.delete())),
            3 => Step::Call(Call::of(&method::TXN, &self.txn(view))),
            4 => Step::Call(Call::of(&method::COMPACT, &self.compaction(view))),
            5 => {
                let revision = self.revision(view);
                Step::Call(Call::of(&method::HASH_KV, &HashKvRequest { revision }))
            }
            6 => self.lease(),
            7 => {
                let mut request = self.range(view);
                // Without order, etcd sorts each chunk by itself and then goes on from a wrong key.
                if request.sort_order == 0 && request.sort_target < 5 {
                    request.sort_target = 0;
                }
                // Nearly all would be refused otherwise.
                if self.random.chance(800) {
                    (request.sort_order, request.sort_target) = (0, 0);
                    (request.min_mod_revision, request.max_mod_revision) = (0, 0);
                    (request.min_create_revision, request.max_create_revision) = (0, 0);
                }
                Step::Call(Call::of(&method::RANGE_STREAM, &request))
            }
            8 => self.lock(),
            9 => self.other(view),
            _ => Step::Watch(self.watchers.next(&mut self.random, view)),
        }
    }

    fn range(&mut self, view: View) -> RangeRequest {
        let random = &mut self.random;
        let key = keys::key(random);
        let range_end = keys::range_end(random, &key);
        let mut request = RangeRequest { key, range_end, ..RangeRequest::default() };
        request.serializable = random.chance(400);
        request.keys_only = random.chance(100);
        request.count_only = random.chance(60);
        if random.chance(300) {
            request.limit = random.pick(&[1, 2, 3, 5, 10, 20, 1000, -1, i64::MAX, i64::MIN]);
        }
        if random.chance(300) {
            request.sort_order = random.pick(&[0, 1, 1, 2, 2]);
            request.sort_target = random.pick(&[0, 1, 2, 3, 4]);
        } else if random.chance(10) {
            request.sort_order = random.pick(&[0, 3, -1, i32::MAX]);
            request.sort_target = random.pick(&[0, 5, -1, i32::MIN]);
        }
        let newest = view.revision + 2;
        match random.weighted(&[800, 100, 100]) {
            0 => {}
            1 => {
                request.min_mod_revision = random.within(-2, newest);
                request.max_create_revision = random.within(0, newest);
            }
            _ => {
                request.max_mod_revision = random.within(-2, newest);
                request.min_create_revision = random.within(0, newest);
            }
        }
        request.revision = self.revision(view);
        request
    }

    /// Mostly now, often in the past, sometimes compacted or in the future.
    fn revision(&mut self, view: View) -> i64 {
        let random = &mut self.random;
        match random.weighted(&[650, 250, 50, 30, 15, 5]) {
            0 => 0,
            1 => random.within(view.compacted, view.revision),
            2 => view.compacted + random.within(-2, 1),
            3 => view.revision + random.within(-1, 3),
            4 => random.pick(&[-1, -2, -1000]),
            _ => random.pick(&[i64::MIN, i64::MAX]),
        }
    }

    fn put(&mut self) -> PutRequest {
        let random = &mut self.random;
        let mut request = PutRequest {
            key: keys::key(random),
            value: keys::value(random),
            prev_kv: random.chance(300),
            ..PutRequest::default()
        };
        if random.chance(150) {
            request.lease = keys::lease(random);
        }
        if random.chance(60) {
            request.ignore_value = true;
            if random.chance(800) {
                request.value = Bytes::new();
            }
        }
        if random.chance(60) {
            request.ignore_lease = true;
            if random.chance(800) {
                request.lease = 0;
            }
        }
        request
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let random = &mut self.random;
        let key = keys::key(random);
        let range_end = match random.weighted(&[700, 280, 20]) {
            0 => Bytes::new(),
            1 => keys::nearby_end(random, &key),
            _ => keys::range_end(random, &key),
        };
        DeleteRangeRequest { key, range_end, prev_kv: random.chance(400) }
    }

    fn compaction(&mut self, view: View) -> CompactionRequest {
        let random = &mut self.random;
        let revision = match random.weighted(&[700, 60, 60, 60, 60, 60]) {
            0 => random.within(view.compacted + 1, view.revision),
            1 => view.revision,
            2 => view.revision + random.within(1, 3),
            3 => random.within(0, view.compacted),
            4 => view.compacted,
            _ => random.pick(&[0, -1, i64::MIN, i64::MAX]),
        };
        CompactionRequest { revision, physical: random.chance(300) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_sequence() {
        let view = View { revision: 100, compacted: 10, member_id: 1 };
        let (mut one, mut two, mut other) =
            (Generator::new(3), Generator::new(3), Generator::new(4));
        let mut differs = false;
        for _ in 0..3000 {
            let step = format!("{:?}", one.next(view));
            assert_eq!(step, format!("{:?}", two.next(view)));
            differs |= step != format!("{:?}", other.next(view));
        }
        assert!(differs);
    }
}
