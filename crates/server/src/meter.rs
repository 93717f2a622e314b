//! The clock beside the node: how long each request takes to be applied.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use machine::{Outcome, RequestKind};

use crate::metrics::ApplyFigures;

/// Requests of the member's own that are timed at once.
const OWN_MAX: usize = 1024;

/// Times what the node applies.
#[derive(Debug)]
pub(crate) struct ApplyMeter {
    figures: Arc<ApplyFigures>,
    made: Instant,
    began: Instant,
    last: RequestKind,
    /// When requests of the member's own were proposed. Those that have timed out stay, up to [`OWN_MAX`].
    own: BTreeMap<u64, Instant>,
}

impl ApplyMeter {
    /// Makes one that counts in `figures`.
    pub(crate) fn new(figures: Arc<ApplyFigures>) -> Self {
        let now = Instant::now();
        Self { figures, made: now, began: now, last: RequestKind::NoOp, own: BTreeMap::new() }
    }
}

impl node::Meter for ApplyMeter {
    fn begins(&mut self) {
        self.began = Instant::now();
    }

    fn applied(&mut self, kind: RequestKind, _data: &Bytes, outcome: &Outcome) {
        self.last = kind;
        self.figures.applied(kind, outcome, self.began.elapsed());
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
