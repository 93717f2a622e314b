//! From the backend to a machine: what a restart does.
//!
//! The key bucket is streamed once, in revision order, into the key index; leases come first, so
//! that keys can be attached to them. Reading and building take about as long as each other, and
//! most of a start: a [`Conveyor`] from above may put them side by side. Revisions never go down: the current one is the highest of
//! what the records, and the marks of compactions that may have removed records, say.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use storage::backend::{self, Backend, Op, TableId};

use crate::alarm::Alarms;
use crate::auth::{Auth, ROOT};
use crate::fault::Fault;
use crate::lease::Lessor;
use crate::machine::{Applied, Machine, Options};
use crate::membership::{Downgrade, Membership, Version};
use crate::mvcc::compact::Compaction;
use crate::mvcc::history::decode_key;
use crate::mvcc::key_index::Restored;
use crate::mvcc::range::decode;
use crate::mvcc::record::KeyValue;
use crate::mvcc::revision::Revision;
use crate::mvcc::shared::{Shared, State};
use crate::mvcc::store::stored_bytes;
use crate::schema::{self, ConfState};

/// What the backend holds beside records.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) lessor: Lessor,
    pub(crate) membership: Membership,
    pub(crate) alarms: Alarms,
    pub(crate) conf_state: ConfState,
    pub(crate) applied: Applied,
    pub(crate) pending: Vec<(TableId, Op)>,
    pub(crate) compactions: VecDeque<Compaction>,
    pub(crate) scheduled_compact: Option<i64>,
    pub(crate) finished_compact: Option<i64>,
}

pub(crate) fn recover(backend: Backend, options: Options) -> Result<Machine, Fault> {
    let engine = backend.reader()?;
    let stored = Stored { engine: &engine };
    let (auth, pending) = stored.auth()?;
    let mut lessor = Lessor::new(options.lease.clone());
    let leases = stored.leases()?;
    #[cfg(feature = "planted-faults")]
    let leases = {
        let forgets = crate::fault_hooks::is_planted(crate::fault_hooks::Planted::ForgottenLease);
        leases.into_iter().skip(usize::from(forgets))
    };
    lessor.recover(leases);
    let records = stored.records(&mut lessor, options.convey)?;
    let scheduled_compact = stored.compact_mark(schema::SCHEDULED_COMPACT)?;
    let finished_compact = stored.compact_mark(schema::FINISHED_COMPACT)?;
    let finished = finished_compact.unwrap_or(-1);
    let scheduled = scheduled_compact.unwrap_or(-1);
    let current = records.newest.max(finished).max(scheduled).max(1);
    let mut compactions = VecDeque::new();
    if scheduled > finished {
        compactions.push_back(Compaction::new(scheduled, finished, 0, false));
    }
    let recovered = Recovered {
        lessor,
        membership: stored.membership()?,
        alarms: stored.alarms()?,
        conf_state: stored.conf_state()?,
        applied: stored.applied()?,
        pending,
        compactions,
        scheduled_compact,
        finished_compact,
    };
    drop(engine);
    let shared = Shared::new(backend, records.state, auth, options.cache_bytes);
    shared.set_current(current);
    shared.set_compacted(finished.max(scheduled));
    shared.set_finished_compaction(finished);
    shared.add_live_bytes(records.live_bytes);
    Ok(Machine::new(Arc::new(shared), recovered, options))
}

/// Reads the membership that the backend holds.
pub(crate) fn membership(engine: &backend::Reader) -> Result<Membership, Fault> {
    Stored { engine }.membership()
}

/// Reads which entry was the last that a backend covers, without recovering the rest.
pub fn applied(backend: &Backend) -> Result<Applied, Fault> {
    let engine = backend.reader()?;
    Stored { engine: &engine }.applied()
}

/// The backend at one view.
#[derive(Debug)]
struct Stored<'a> {
    engine: &'a backend::Reader,
}

/// What the key bucket holds.
#[derive(Debug, Default)]
struct Records {
    state: State,
    newest: i64,
    live_bytes: u64,
}

impl Stored<'_> {
    fn pairs(
        &self,
        table: TableId,
    ) -> impl Iterator<Item = Result<(Bytes, Bytes), storage::Fault>> + '_ {
        self.engine.range(table, ..)
    }

    fn number(&self, table: TableId, key: &[u8]) -> Result<Option<u64>, Fault> {
        let Some(value) = self.engine.get(table, key)? else { return Ok(None) };
        let number = schema::decode_number(&value);
        number.map(Some).ok_or_else(|| damaged(table, "a number is not 8 bytes long"))
    }

    fn applied(&self) -> Result<Applied, Fault> {
        let number = |key| Ok::<_, Fault>(self.number(schema::META, key)?.unwrap_or(0));
        Ok(Applied { index: number(schema::CONSISTENT_INDEX)?, term: number(schema::TERM)? })
    }

    /// Refuses a store with authentication, which this release would not enforce. A fresh store
    /// gets its first auth revision.
    fn auth(&self) -> Result<(Auth, Vec<(TableId, Op)>), Fault> {
        if self.engine.get(schema::AUTH, schema::AUTH_ENABLED)?.as_deref() == Some(&[1]) {
            return Err(Fault::AuthUnsupported);
        }
        let has_root = self.engine.get(schema::AUTH_USERS, ROOT)?.is_some();
        if let Some(revision) = self.number(schema::AUTH, schema::AUTH_REVISION)? {
            return Ok((Auth { revision, has_root }, vec![]));
        }
        let auth = Auth { revision: 1, has_root };
        let key = Bytes::from_static(schema::AUTH_REVISION);
        let value = schema::number_value(auth.revision);
        Ok((auth, vec![(schema::AUTH, Op::Put(key, value))]))
    }

    fn leases(&self) -> Result<Vec<proto::leasepb::Lease>, Fault> {
        self.pairs(schema::LEASE)
            .map(|pair| {
                let (_, value) = pair?;
                schema::decode_lease(&value)
                    .ok_or_else(|| damaged(schema::LEASE, "a lease does not decode"))
            })
            .collect()
    }

    fn alarms(&self) -> Result<Alarms, Fault> {
        let mut alarms = Alarms::default();
        for pair in self.pairs(schema::ALARM) {
            let (key, _) = pair?;
            let alarm = schema::decode_alarm(&key)
                .ok_or_else(|| damaged(schema::ALARM, "an alarm does not decode"))?;
            alarms.activate(&alarm);
        }
        Ok(alarms)
    }

    fn conf_state(&self) -> Result<ConfState, Fault> {
        match self.engine.get(schema::META, schema::CONF_STATE)? {
            None => Ok(ConfState::default()),
            Some(value) => schema::decode_conf_state(&value)
                .ok_or_else(|| damaged(schema::META, "confState does not decode")),
        }
    }

    fn membership(&self) -> Result<Membership, Fault> {
        let mut members = BTreeMap::new();
        for pair in self.pairs(schema::MEMBERS) {
            let (_, value) = pair?;
            let member = schema::decode_member(&value)
                .ok_or_else(|| damaged(schema::MEMBERS, "a member does not decode"))?;
            members.insert(member.id, member);
        }
        let mut removed = BTreeSet::new();
        for pair in self.pairs(schema::MEMBERS_REMOVED) {
            let (key, _) = pair?;
            let id = schema::decode_member_key(&key)
                .ok_or_else(|| damaged(schema::MEMBERS_REMOVED, "a key is no member id"))?;
            removed.insert(id);
        }
        let cluster_version = self.cluster_version()?;
        let downgrade = match self.engine.get(schema::CLUSTER, schema::DOWNGRADE)? {
            None => Downgrade::default(),
            Some(value) => schema::decode_downgrade(&value)
                .ok_or_else(|| damaged(schema::CLUSTER, "downgrade info does not decode"))?,
        };
        Ok(Membership::new(members, removed, cluster_version, downgrade))
    }

    fn cluster_version(&self) -> Result<Option<Version>, Fault> {
        let Some(value) = self.engine.get(schema::CLUSTER, schema::CLUSTER_VERSION)? else {
            return Ok(None);
        };
        let version = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
        version.map(Some).ok_or_else(|| damaged(schema::CLUSTER, "the cluster version is none"))
    }

    fn compact_mark(&self, key: &[u8]) -> Result<Option<i64>, Fault> {
        let Some(value) = self.engine.get(schema::META, key)? else { return Ok(None) };
        Ok(Some(decode_key(&value)?.0.main))
    }

    fn records(&self, lessor: &mut Lessor, convey: Conveyor) -> Result<Records, Fault> {
        let mut records = Records::default();
        let (mut scanned, mut built) = (Ok(()), Ok(()));
        let mut build = |changes: Changes| {
            built = records.restore(&changes, lessor);
            proceed_if(built.is_ok())
        };
        convey(&mut |belt| scanned = self.scan(belt), &mut build);
        // What was built comes before what was still to be read.
        built.and(scanned).map(|()| records)
    }

    /// Puts the key bucket onto `belt`, until it breaks.
    fn scan(&self, belt: &mut Belt<'_>) -> Result<(), Fault> {
        let mut changes = Changes::default();
        let mut fault = None;
        let mut go_on = ControlFlow::Continue(());
        let scanned = self.engine.scan(schema::KEY, .., |key, record| {
            if let Err(wrong) = changes.add(key, record) {
                fault = Some(wrong);
                return ControlFlow::Break(());
            }
            if changes.is_full() {
                go_on = belt(std::mem::take(&mut changes));
            }
            go_on
        });
        if go_on.is_continue() {
            // Also after a fault: it must not hide an earlier one.
            let _end = belt(changes);
        }
        scanned?;
        fault.map_or(Ok(()), Err)
    }
}

fn proceed_if(is_well: bool) -> ControlFlow<()> {
    if is_well { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

/// Runs the two halves of a restart's longest part: calls the first with what takes its pieces, and the second with each
/// of them, in order, until either says that it is enough. [`one_by_one`] does; the shell has threads to do better.
pub type Conveyor =
    fn(&mut dyn FnMut(&mut Belt<'_>), &mut (dyn FnMut(Changes) -> ControlFlow<()> + Send));

/// What takes pieces, until it says that it is enough.
pub type Belt<'a> = dyn FnMut(Changes) -> ControlFlow<()> + 'a;

/// The [`Conveyor`] that does everything on the calling thread.
pub fn one_by_one(
    read: &mut dyn FnMut(&mut Belt<'_>),
    build: &mut (dyn FnMut(Changes) -> ControlFlow<()> + Send),
) {
    read(build);
}

/// Some changes of keys as the key bucket has them, in order, without values.
#[derive(Debug, Default)]
pub struct Changes {
    /// All keys, one behind the other.
    keys: Vec<u8>,
    list: Vec<StoredChange>,
    /// What they add to the live bytes.
    live_bytes: u64,
}

#[derive(Debug)]
struct StoredChange {
    key_len: usize,
    revision: Revision,
    created: i64,
    version: i64,
    lease: i64,
    tombstone: bool,
}

impl Changes {
    /// Changes and bytes of keys from which a piece is full: large enough that handing it over costs nothing.
    const CHANGES_MAX: usize = 2048;
    const KEY_BYTES_MAX: usize = 128 << 10;

    fn is_full(&self) -> bool {
        self.list.len() >= Self::CHANGES_MAX || self.keys.len() >= Self::KEY_BYTES_MAX
    }

    fn add(&mut self, key: &[u8], record: &[u8]) -> Result<(), Fault> {
        let (revision, tombstone) = decode_key(key)?;
        let KeyValue { key, create_revision: created, version, lease, .. } = decode(record)?;
        self.keys.extend_from_slice(key);
        let key_len = key.len();
        self.list.push(StoredChange { key_len, revision, created, version, lease, tombstone });
        self.live_bytes += stored_bytes(record, tombstone);
        Ok(())
    }
}

impl Records {
    fn restore(&mut self, changes: &Changes, lessor: &mut Lessor) -> Result<(), Fault> {
        let mut keys = &changes.keys[..];
        for change in &changes.list {
            let StoredChange { key_len, revision, created, version, lease, tombstone } = *change;
            let (key, rest) = keys.split_at(key_len);
            keys = rest;
            self.state
                .index
                .restore(Restored { key, revision, created, version, tombstone })
                .map_err(|error| damaged(schema::KEY, &error.to_string()))?;
            self.newest = revision.main;
            if !lessor.is_empty() {
                attach(lessor, key, lease);
            }
        }
        self.live_bytes += changes.live_bytes;
        Ok(())
    }
}

/// Attaches a key as its record says. The lease of an old record may be gone.
fn attach(lessor: &mut Lessor, key: &[u8], lease: i64) {
    if lease == 0 || lessor.attach(lease, key).is_err() {
        lessor.detach(key);
    }
}

fn damaged(table: TableId, what: &str) -> Fault {
    Fault::Backend { bucket: schema::BUCKETS[usize::from(table.0)], what: what.into() }
}
