//! Raft snapshots on disk: marks in the WAL that let a start skip what the backend holds, and old segments go.
//!
//! A mark at index *i* is written only when a backend commit that covers *i* is durable, so that whoever starts from the
//! mark finds a backend that is at least as far. The `.snap` file beside it holds no data of ours but the membership,
//! in the form in which etcd 3.5 and 3.6 read it.

use bytes::Bytes;
use machine::membership::{Member, Membership};
use proto::{raftpb, walpb};
use serde::Serialize;

use crate::consensus::Position;

/// What a raft snapshot is made of, fixed when its index is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Captured {
    pub(crate) position: Position,
    pub(crate) conf_state: raftpb::ConfState,
    pub(crate) data: Bytes,
}

impl Captured {
    /// Returns the `.snap` file's content and the WAL's mark.
    pub(crate) fn into_files(self) -> (raftpb::Snapshot, walpb::Snapshot) {
        let Self { position: Position { index, term }, conf_state, data } = self;
        let mark = walpb::Snapshot { index, term, conf_state: Some(conf_state.clone()) };
        let metadata = raftpb::SnapshotMetadata { conf_state, index, term };
        (raftpb::Snapshot { data, metadata }, mark)
    }
}

/// Bytes of entries after which a mark is due whatever their number: a start reads all behind the newest mark into
/// memory.
const BYTES_MAX: usize = 256 << 20;

/// Decides when a mark is due.
#[derive(Debug)]
pub(crate) struct Snapshots {
    /// Entries between marks.
    count: u64,
    /// The newest mark.
    last: u64,
    /// Bytes applied since then.
    bytes: usize,
    /// Whether one is due regardless of the count.
    is_forced: bool,
    /// Captured, waiting for the backend.
    waiting: Option<Captured>,
    /// The newest mark that the WAL has not confirmed, and the WAL job that writes it.
    being_saved: Option<(u64, u64)>,
}

impl Snapshots {
    /// Starts with the newest mark on the disk at `last`.
    pub(crate) fn new(count: u64, last: u64) -> Self {
        Self { count, last, bytes: 0, is_forced: false, waiting: None, being_saved: None }
    }

    /// Notes that an entry with so many bytes was applied.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Makes a mark due, whatever the count.
    pub(crate) fn force(&mut self) {
        self.is_forced = true;
    }

    /// Tells whether a snapshot has to be captured now that `applied` is applied.
    pub(crate) fn is_due(&self, applied: u64) -> bool {
        self.waiting.is_none()
            && applied > self.last
            && (self.is_forced || self.bytes > BYTES_MAX || applied - self.last > self.count)
    }

    /// Takes a captured snapshot, to be handed out once the backend is as far.
    pub(crate) fn capture(&mut self, captured: Captured) {
        self.is_forced = false;
        self.bytes = 0;
        self.last = captured.position.index;
        self.waiting = Some(captured);
    }

    /// Hands out the captured snapshot if the backend has made `durable` durable.
    pub(crate) fn ready(&mut self, durable: u64) -> Option<Captured> {
        self.waiting.take_if(|captured| captured.position.index <= durable)
    }

    /// Notes that WAL job `job` writes the mark at `index`.
    pub(crate) fn save(&mut self, job: u64, index: u64) {
        self.being_saved = Some((index, job));
    }

    /// Returns the index of the mark that is on the disk now that `job` is.
    pub(crate) fn saved(&mut self, job: u64) -> Option<u64> {
        self.being_saved.take_if(|(_, saving)| *saving <= job).map(|(index, _)| index)
    }
}

/// Slots for events in a snapshot of etcd's v2 store; its readers index into them.
const EVENT_SLOTS: usize = 1000;
const VERSION_OF_FORMAT: u64 = 2;
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Encodes the membership as etcd's v2 store: JSON with one node per key, as `spec` has it in raft-log §10.3.
///
/// A follower of etcd 3.5 takes its membership from here; there must be nothing outside of `/0`.
pub fn membership_document(membership: &Membership) -> Bytes {
    let mut index = 0;
    let mut members = Directory::new("/0/members", 1);
    for member in membership.members() {
        index += 1;
        members
            .children
            .insert(hex(member.id), Node::Directory(member_directory(member, &mut index)));
    }
    let mut removed = Directory::new("/0/removed_members", index + 1);
    for id in membership.removed() {
        index += 1;
        let name = hex(id);
        let path = format!("{}/{name}", removed.path);
        removed.children.insert(name, Node::leaf(path, String::new(), index));
    }
    let mut cluster = Directory::new("/0", 0);
    cluster.children.insert("members".into(), Node::Directory(members));
    if !removed.children.is_empty() {
        cluster.children.insert("removed_members".into(), Node::Directory(removed));
    }
    if let Some(version) = membership.cluster_version {
        index += 1;
        let leaf = Node::leaf("/0/version".into(), version.to_string(), index);
        cluster.children.insert("version".into(), leaf);
    }
    let mut root = Directory::new("/", 0);
    root.children.insert("0".into(), Node::Directory(cluster));
    root.children.insert("1".into(), Node::Directory(Directory::new("/1", 0)));
    let document = Document {
        root: &Node::Directory(root),
        watcher_hub: WatcherHub::empty(index),
        current_index: index,
        stats: Stats::default(),
        current_version: VERSION_OF_FORMAT,
    };
    go_json(&document).into()
}

fn member_directory(member: &Member, index: &mut u64) -> Directory {
    let mut directory = Directory::new(&format!("/0/members/{}", hex(member.id)), *index);
    let raft = RaftAttributes { peer_urls: &member.peer_urls, is_learner: member.is_learner };
    let path = format!("{}/raftAttributes", directory.path);
    directory.children.insert("raftAttributes".into(), Node::leaf(path, go_json(&raft), *index));
    if !member.name.is_empty() || !member.client_urls.is_empty() {
        *index += 1;
        let attributes = Attributes { name: &member.name, client_urls: &member.client_urls };
        let path = format!("{}/attributes", directory.path);
        let leaf = Node::leaf(path, go_json(&attributes), *index);
        directory.children.insert("attributes".into(), leaf);
    }
    directory
}

fn hex(id: u64) -> String {
    format!("{id:x}")
}

/// Encodes as Go does: `<`, `>`, `&` and two line separators are escaped.
pub(crate) fn go_json(value: &impl Serialize) -> String {
    // Maps with string keys, strings and numbers only: this cannot fail, and an empty text would be refused by readers.
    let text = serde_json::to_string(value).unwrap_or_default();
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Document<'a> {
    root: &'a Node,
    watcher_hub: WatcherHub,
    current_index: u64,
    stats: Stats,
    current_version: u64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Node {
    Directory(Directory),
    Leaf(Leaf),
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Directory {
    path: String,
    created_index: u64,
    modified_index: u64,
    expire_time: &'static str,
    value: &'static str,
    children: std::collections::BTreeMap<String, Node>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Leaf {
    path: String,
    created_index: u64,
    modified_index: u64,
    expire_time: &'static str,
    value: String,
    children: Option<()>,
}

impl Directory {
    fn new(path: &str, index: u64) -> Self {
        Self {
            path: path.to_owned(),
            created_index: index,
            modified_index: index,
            expire_time: NEVER,
            value: "",
            children: std::collections::BTreeMap::new(),
        }
    }
}

impl Node {
    fn leaf(path: String, value: String, index: u64) -> Self {
        Self::Leaf(Leaf {
            path,
            created_index: index,
            modified_index: index,
            expire_time: NEVER,
            value,
            children: None,
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WatcherHub {
    event_history: EventHistory,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct EventHistory {
    queue: EventQueue,
    start_index: u64,
    last_index: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct EventQueue {
    events: Vec<Option<()>>,
    size: u64,
    front: u64,
    back: u64,
    capacity: usize,
}

impl WatcherHub {
    fn empty(index: u64) -> Self {
        let events = vec![None; EVENT_SLOTS];
        let queue = EventQueue { events, size: 0, front: 0, back: 0, capacity: EVENT_SLOTS };
        Self { event_history: EventHistory { queue, start_index: index, last_index: index } }
    }
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    gets_success: u64,
    gets_fail: u64,
    sets_success: u64,
    sets_fail: u64,
    delete_success: u64,
    delete_fail: u64,
    update_success: u64,
    update_fail: u64,
    create_success: u64,
    create_fail: u64,
    compare_and_swap_success: u64,
    compare_and_swap_fail: u64,
    compare_and_delete_success: u64,
    compare_and_delete_fail: u64,
    expire_count: u64,
    watchers: u64,
}

#[derive(Serialize)]
struct RaftAttributes<'a> {
    #[serde(rename = "peerURLs")]
    peer_urls: &'a [String],
    #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
}

#[derive(Serialize)]
struct Attributes<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(rename = "clientURLs", skip_serializing_if = "<[String]>::is_empty")]
    client_urls: &'a [String],
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(index: u64) -> Captured {
        Captured {
            position: Position { index, term: 1 },
            conf_state: raftpb::ConfState::default(),
            data: Bytes::new(),
        }
    }

    #[test]
    fn a_mark_is_due_after_so_many_entries_and_waits_for_the_backend() {
        let mut snapshots = Snapshots::new(10, 5);
        assert!(!snapshots.is_due(15));
        assert!(snapshots.is_due(16));
        snapshots.capture(captured(16));
        assert!(!snapshots.is_due(100), "one at a time");
        assert_eq!(snapshots.ready(15), None);
        assert_eq!(snapshots.ready(16), Some(captured(16)));
        assert_eq!(snapshots.ready(16), None);
        assert!(!snapshots.is_due(26));
        snapshots.force();
        assert!(snapshots.is_due(17));
        assert!(!snapshots.is_due(16), "nothing new to mark");
        snapshots.capture(captured(17));
        assert_eq!(snapshots.ready(17), Some(captured(17)));
        snapshots.add(BYTES_MAX + 1);
        assert!(snapshots.is_due(18));
    }

    #[test]
    fn json_is_escaped_as_go_does() {
        assert_eq!(go_json(&"a<b>&\u{2028}\"é"), r#""a\u003cb\u003e\u0026\u2028\"é""#);
    }
}
