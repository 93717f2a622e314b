//! From the backend to a machine: what a restart does.
//!
//! The key bucket is streamed once, in revision order, into the key index; leases come first, so
//! that keys can be attached to them. Revisions never go down: the current one is the highest of
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
    let records = stored.records(&mut lessor)?;
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

    fn records(&self, lessor: &mut Lessor) -> Result<Records, Fault> {
        let mut records = Records::default();
        let mut result = Ok(());
        self.engine.scan(schema::KEY, .., |key, record| {
            result = records.restore(key, record, lessor);
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result.map(|()| records)
    }
}

impl Records {
    fn restore(&mut self, key: &[u8], record: &[u8], lessor: &mut Lessor) -> Result<(), Fault> {
        let (revision, tombstone) = decode_key(key)?;
        let fields = decode(record)?;
        let KeyValue { key, create_revision: created, version, .. } = fields;
        self.state
            .index
            .restore(Restored { key, revision, created, version, tombstone })
            .map_err(|error| damaged(schema::KEY, &error.to_string()))?;
        self.newest = revision.main;
        self.live_bytes += stored_bytes(record, tombstone);
        if !lessor.is_empty() {
            attach(lessor, &fields);
        }
        Ok(())
    }
}

/// Attaches a key as its record says. The lease of an old record may be gone.
fn attach(lessor: &mut Lessor, fields: &KeyValue<'_>) {
    if fields.lease == 0 || lessor.attach(fields.lease, fields.key).is_err() {
        lessor.detach(fields.key);
    }
}

fn damaged(table: TableId, what: &str) -> Fault {
    Fault::Backend { bucket: schema::BUCKETS[usize::from(table.0)], what: what.into() }
}
