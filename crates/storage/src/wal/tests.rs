//! The log's tests: scripts, damage at every place, random records, and a log that etcd wrote.

mod damage;
mod etcd;
mod faults;
mod script;

use std::sync::Arc;

use bytes::Bytes;
use proto::etcdserverpb::Metadata;
use proto::raftpb;

use super::Options;
use crate::os::OsDisk;

const IDENTITY: Metadata = Metadata { node_id: 0x11, cluster_id: 0x22 };
const SMALL: Options = Options { segment_bytes: 16 << 10, segments_max: 2 };

fn disk() -> Arc<OsDisk> {
    Arc::new(OsDisk)
}

fn entry(index: u64, term: u64, data: impl Into<Bytes>) -> raftpb::Entry {
    raftpb::Entry { r#type: 0, term, index, data: data.into() }
}
