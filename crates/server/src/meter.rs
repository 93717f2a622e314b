//! The clock beside the node: how long each request takes to be applied.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use machine::{Outcome, RequestKind};
use prost::Message as _;
use proto::etcdserverpb::InternalRaftRequest;

use crate::metrics::ApplyFigures;
use crate::redact;
use crate::service::slow::{self, SlowApply};

/// Requests of the member's own that are timed at once.
const OWN_MAX: usize = 1024;

/// Times what the node applies.
#[derive(Debug)]
pub(crate) struct ApplyMeter {
    figures: Arc<ApplyFigures>,
    /// An apply that takes longer is told of (`--warning-apply-duration`).
    patience: Duration,
    made: Instant,
    began: Instant,
    last: RequestKind,
    /// When requests of the member's own were proposed. Those that have timed out stay, up to [`OWN_MAX`].
    own: BTreeMap<u64, Instant>,
}

impl ApplyMeter {
    /// Makes one that counts in `figures`.
    pub(crate) fn new(figures: Arc<ApplyFigures>, patience: Duration) -> Self {
        let now = Instant::now();
        Self {
            figures,
            patience,
            made: now,
            began: now,
            last: RequestKind::NoOp,
            own: BTreeMap::new(),
        }
    }

    #[cold]
    fn tell(&self, took: Duration, data: &Bytes, outcome: &Outcome) {
        self.figures.slow();
        let request = InternalRaftRequest::decode(data.clone()).unwrap_or_default();
        let response = match &outcome.result {
            Ok(reply) => format!("size:{}", slow::reply_size(outcome.revision, reply)),
            Err(_refusal) => String::new(),
        };
        let error = outcome.result.as_ref().err().map(ToString::to_string);
        let line = SlowApply {
            took,
            expected: self.patience,
            prefix: "",
            request: &redact::entry(&request),
            response: &response,
            error: error.as_deref(),
        };
        line.tell();
    }
}

impl node::Meter for ApplyMeter {
    fn begins(&mut self, _index: u64, _term: u64, _content: &Bytes) {
        self.began = Instant::now();
    }

    fn applied(&mut self, kind: RequestKind, data: &Bytes, outcome: &Outcome) {
        let took = self.began.elapsed();
        self.last = kind;
        self.figures.applied(kind, outcome, took);
        if took > self.patience && kind != RequestKind::NoOp {
            self.tell(took, data, outcome);
        }
    }

    fn own_proposed(&mut self, id: u64) {
        if self.own.len() == OWN_MAX {
            self.own.pop_first();
        }
        self.own.insert(id, Instant::now());
    }

    fn own_answered(&mut self, id: u64) {
        // What was proposed while the node started was proposed before this meter was there.
        let proposed = self.own.remove(&id).unwrap_or(self.made);
        self.figures.own_answered(self.last, proposed.elapsed());
    }
}
