//! The ears of a shell that has a clock: the node has none, and says when what it does begins and ends.

use std::fmt::Debug;

use bytes::Bytes;
use machine::{Outcome, RequestKind};

/// Is told of each entry that is applied, on the node's thread. The node goes the same way whatever it hears of it.
pub trait Meter: Debug + Send {
    /// An entry is about to be applied: `content` is an encoded `InternalRaftRequest` or `raftpb.ConfChange`, or empty.
    fn begins(&mut self, index: u64, term: u64, content: &Bytes);

    /// It was, and held a request or nothing: `data` is the encoded request.
    fn applied(&mut self, kind: RequestKind, data: &Bytes, outcome: &Outcome);

    /// A request of the member's own was proposed.
    fn own_proposed(&mut self, id: u64);

    /// The entry just applied was a request of the member's own. One that times out is never said to be.
    fn own_answered(&mut self, id: u64);
}
