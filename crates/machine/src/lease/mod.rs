//! Leases: keys live as long as somebody keeps their lease alive.
//!
//! The [`Lessor`] has a replicated part, changed only by applied entries and equal on all members: which leases exist, and which keys
//! are attached to them. On the leader it is also *primary*: it lets time pass for leases, renews them from memory and names those that
//! have to be revoked. A revocation takes effect only when its entry is applied, on every member alike.
//!
//! There is no clock here: `now` is an argument, and a time that stands still or goes back is taken as the latest one seen. Granting
//! happens in apply, which knows no time, and counts from the latest time given. Since that may lag behind by [`Options::clock_step`], every
//! lease lives that much longer: never shorter than its ttl.
//!
//! For that promise the caller lets the time given move by [`Options::clock_step`] at most from one burst of work to the next. When more has
//! passed, since the process was paused or busy with long work, the rest does not count: nobody was heard in it who kept a lease alive.
//! A lease lives longer by such pauses.

mod primary;
mod table;
mod wheel;

#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use proto::leasepb;

use self::primary::Primary;
use self::table::Table;
use crate::Refusal;

/// Time since the process started.
pub type Now = Duration;

/// The longest ttl in seconds that is granted.
pub const TTL_MAX: i64 = 9_000_000_000;

/// Revocations of expired leases that are proposed and not yet applied, at most.
pub const REVOKES_IN_FLIGHT_MAX: usize = 16;

/// Revocations of expired leases that are proposed within half a second, at most.
pub const EXPIRED_PER_WINDOW_MAX: usize = 500;
const EXPIRED_WINDOW_MS: u64 = 500;

/// From so many leases on, a new primary spreads their expiries.
const PILE_UP_MIN: usize = 1000;
/// Spread expiries in any second, at most: fewer than can be revoked, so that others get their turn.
const SPREAD_PER_SECOND: usize = 750;

/// Checkpoints in one entry, at most.
pub const CHECKPOINTS_MAX: usize = 1000;
/// Leases with more time left than this are checkpointed this often.
const CHECKPOINT_INTERVAL_MS: u64 = 5 * 60 * 1000;

/// What a lessor needs to know about its member.
#[derive(Debug, Clone)]
pub struct Options {
    /// Shorter ttls, in seconds, are raised to this.
    pub ttl_min: i64,
    /// How far the time given may lag behind the time, and moves at most at once.
    pub clock_step: Duration,
    /// A revocation that was proposed this long ago and not applied is proposed again.
    pub revoke_retry: Duration,
    /// Whether the primary writes remaining ttls through the log.
    pub checkpoints: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ttl_min: 2,
            clock_step: Duration::from_millis(100),
            revoke_retry: Duration::from_secs(7),
            checkpoints: false,
        }
    }
}

/// What became of a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The lease lives for another `ttl` seconds, its granted ttl.
    Renewed {
        /// The granted ttl.
        ttl: i64,
        /// Whether a checkpoint with 0 has to be proposed, lest a new primary goes back to the time left before this renewal.
        clear_checkpoint: bool,
    },
    /// There is no such lease.
    Unknown,
    /// It has expired and waits for its revocation. The caller waits until the revocation is applied (answer: unknown) or the
    /// lessor is demoted.
    Expired,
    /// This lessor is not primary.
    NotPrimary,
}

/// The times of a lease, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeToLive {
    /// Whole seconds that remain, 0 or negative while it waits for its revocation; `None` if this lessor is not primary.
    pub remaining: Option<i64>,
    /// The granted ttl.
    pub granted: i64,
}

/// Counters since the start, for metrics.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Leases granted.
    pub granted: u64,
    /// Leases revoked, for whatever reason.
    pub revoked: u64,
    /// Renewals by this lessor as primary.
    pub renewed: u64,
    /// Revocations proposed because of expiry.
    pub expired: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Lessor {
    options: Options,
    table: Table,
    primary: Option<Primary>,
    /// Promotions and demotions so far.
    reign: u64,
    /// The latest time given, in milliseconds.
    now: u64,
    stats: Stats,
}

impl Lessor {
    /// Makes a lessor without leases that is not primary.
    pub fn new(mut options: Options) -> Self {
        options.ttl_min = options.ttl_min.clamp(1, TTL_MAX);
        let (table, stats) = (Table::default(), Stats::default());
        Self { options, table, primary: None, reign: 0, now: 0, stats }
    }

    /// Forgets everything and takes in stored leases; the lessor is not primary. Attachments follow, one [`Lessor::attach`] per key
    /// whose newest record names a lease. Short ttls are raised as in a grant; of a repeated id the last one counts.
    pub fn recover(&mut self, leases: impl IntoIterator<Item = leasepb::Lease>) {
        self.table = Table::default();
        self.demote();
        for lease in leases {
            let ttl = lease.ttl.clamp(self.options.ttl_min, TTL_MAX);
            let remaining = lease.remaining_ttl.clamp(0, ttl);
            if let Some(slot) = self.table.find(lease.id) {
                self.table.remove(slot);
            }
            self.table.insert(lease.id, ttl, remaining);
        }
    }

    /// Grants lease `id`, any number but 0, and returns its effective ttl. [`Lessor::stored`] is what to persist.
    pub fn grant(&mut self, id: i64, ttl: i64) -> Result<i64, Refusal> {
        if id == 0 {
            return Err(Refusal::LeaseNotFound);
        }
        if ttl > TTL_MAX {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if self.table.find(id).is_some() {
            return Err(Refusal::LeaseExists);
        }
        let ttl = ttl.max(self.options.ttl_min);
        let slot = self.table.insert(id, ttl, 0);
        self.stats.granted += 1;
        let expiry = self.table.lease(slot).full_expiry(self.now, self.clock_step());
        if let Some(primary) = &mut self.primary {
            primary.add(slot, expiry, &self.options, self.now);
        }
        Ok(ttl)
    }

    /// Removes lease `id` and returns its keys in ascending byte order, for deletion in one revision together with the lease's record.
    pub fn revoke(&mut self, id: i64) -> Result<Vec<Bytes>, Refusal> {
        let slot = self.table.find(id).ok_or(Refusal::LeaseNotFound)?;
        if let Some(primary) = &mut self.primary {
            primary.remove(slot, id, self.now);
        }
        self.stats.revoked += 1;
        Ok(self.table.remove(slot))
    }

    /// Notes the remaining ttl of a lease and returns what to persist if the cluster persists checkpoints; an unknown id is passed over.
    pub fn checkpoint(&mut self, id: i64, remaining_ttl: i64) -> Option<leasepb::Lease> {
        let slot = self.table.find(id)?;
        self.table.lease_mut(slot).remaining_ttl = remaining_ttl;
        self.stored(id)
    }

    /// Returns the stored form of a lease.
    pub fn stored(&self, id: i64) -> Option<leasepb::Lease> {
        let lease = self.table.lease(self.table.find(id)?);
        Some(leasepb::Lease { id: lease.id, ttl: lease.ttl, remaining_ttl: lease.remaining_ttl })
    }

    /// Attaches `key` to lease `id`, and detaches it from the lease it is attached to.
    pub fn attach(&mut self, id: i64, key: &[u8]) -> Result<(), Refusal> {
        let slot = self.table.find(id).ok_or(Refusal::LeaseNotFound)?;
        self.table.attach(slot, key);
        Ok(())
    }

    /// Detaches `key` and returns the lease that had it.
    pub fn detach(&mut self, key: &[u8]) -> Option<i64> {
        let slot = self.table.detach(key)?;
        Some(self.table.lease(slot).id)
    }

    /// Returns the lease that `key` is attached to.
    pub fn lease_of(&self, key: &[u8]) -> Option<i64> {
        self.table.lease_of(key).map(|slot| self.table.lease(slot).id)
    }

    /// Tells whether lease `id` exists.
    pub fn contains(&self, id: i64) -> bool {
        self.table.find(id).is_some()
    }

    /// Iterates over the keys attached to a lease, unordered; nothing for an unknown one.
    pub fn keys(&self, id: i64) -> impl Iterator<Item = &[u8]> {
        self.table.find(id).into_iter().flat_map(|slot| self.table.keys(slot))
    }

    /// Counts the leases.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Tells whether there are no leases.
    pub fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    /// Counts the attached keys.
    pub fn attached(&self) -> usize {
        self.table.attached()
    }

    /// Returns the counters.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Notes the time, so that grants count from it. Cheap: call it before applying.
    pub fn tick(&mut self, now: Now) {
        self.now = self.now.max(to_millis(now));
    }

    /// Becomes primary: every lease gets its remaining ttl from now on and `extend`. From 1,000 leases on, expiries are spread so that
    /// at most 750 fall into any second.
    pub fn promote(&mut self, now: Now, extend: Duration) {
        self.tick(now);
        let extend = to_millis(extend) + self.clock_step();
        self.reign += 1;
        self.primary = Some(Primary::start(&self.table, &self.options, self.now, extend));
    }

    /// Is primary no more: leases do not expire, and whoever waits for a revocation has to be told.
    pub fn demote(&mut self) {
        self.reign += 1;
        self.primary = None;
    }

    /// Tells whether this lessor is primary.
    pub fn is_primary(&self) -> bool {
        self.primary.is_some()
    }

    /// Renews lease `id` for its whole granted ttl.
    pub fn renew(&mut self, now: Now, id: i64) -> Renewal {
        self.tick(now);
        let clock_step = self.clock_step();
        let Some(primary) = &mut self.primary else { return Renewal::NotPrimary };
        let Some(slot) = self.table.find(id) else { return Renewal::Unknown };
        let expiry = primary.expiry(slot);
        if expiry <= self.now {
            return Renewal::Expired;
        }
        let lease = self.table.lease(slot);
        // A lease that was extended at promotion may already live longer.
        primary.renew(slot, expiry.max(lease.full_expiry(self.now, clock_step)));
        self.stats.renewed += 1;
        let clear_checkpoint = self.options.checkpoints && lease.remaining_ttl > 0;
        Renewal::Renewed { ttl: lease.ttl, clear_checkpoint }
    }

    /// Takes up to `max` expired leases whose revocation is to be proposed now. At most [`REVOKES_IN_FLIGHT_MAX`] are under way and
    /// [`EXPIRED_PER_WINDOW_MAX`] taken in half a second; the rest waits. Call it at each tick and after revocations were applied.
    pub fn expired(&mut self, now: Now, max: usize) -> Vec<i64> {
        self.tick(now);
        let retry = to_millis(self.options.revoke_retry);
        let Some(primary) = &mut self.primary else { return Vec::new() };
        let expired = primary.take_expired(&self.table, retry, self.now, max);
        self.stats.expired += expired.len() as u64;
        expired
    }

    /// Takes back what [`Lessor::expired`] gave and found no room among proposals: it is given again as soon as the time given is a
    /// later one, and counts as under way until then.
    pub fn put_off(&mut self, ids: &[i64]) {
        let Some(primary) = &mut self.primary else { return };
        for slot in ids.iter().filter_map(|&id| self.table.find(id)) {
            primary.put_off(slot, self.now);
            self.stats.expired -= 1;
        }
    }

    /// Takes the ids of leases that had expired and were revoked since the last call, and since the promotion: whoever waits for such a
    /// revocation ([`Renewal::Expired`]) is to ask again. Call it after applying; nothing if this lessor is not primary.
    pub fn take_revoked(&mut self) -> Vec<i64> {
        self.primary.as_mut().map_or_else(Vec::new, Primary::take_revoked)
    }

    /// Counts promotions and demotions: when it changes, everyone who waits for a revocation is to ask again.
    pub fn reign(&self) -> u64 {
        self.reign
    }

    /// Takes up to `max` leases (at most [`CHECKPOINTS_MAX`]) whose remaining ttl, in seconds, is to be written through the log now.
    pub fn checkpoints(&mut self, now: Now, max: usize) -> Vec<(i64, i64)> {
        self.tick(now);
        let Some(primary) = &mut self.primary else { return Vec::new() };
        primary.take_checkpoints(&self.table, self.now, max.min(CHECKPOINTS_MAX))
    }

    /// Tells the times of a lease; `None` if there is no such lease.
    pub fn time_to_live(&mut self, now: Now, id: i64) -> Option<TimeToLive> {
        self.tick(now);
        let slot = self.table.find(id)?;
        let granted = self.table.lease(slot).ttl;
        // The clock may lag: what is told is the least that remains.
        let elapsed = (self.now + self.clock_step()).cast_signed();
        let remaining = |primary: &Primary| (primary.expiry(slot).cast_signed() - elapsed) / 1000;
        Some(TimeToLive { remaining: self.primary.as_ref().map(remaining), granted })
    }

    /// Lists all leases, on the primary by expiry, else by id.
    pub fn list(&self) -> Vec<i64> {
        let mut order: Vec<(u64, i64)> = self
            .table
            .iter()
            .map(|(slot, lease)| {
                (self.primary.as_ref().map_or(0, |primary| primary.expiry(slot)), lease.id)
            })
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(_, id)| id).collect()
    }

    fn clock_step(&self) -> u64 {
        to_millis(self.options.clock_step)
    }
}

impl Default for Lessor {
    fn default() -> Self {
        Self::new(Options::default())
    }
}

/// Whole milliseconds; longer than four thousand years is as long as that.
fn to_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(1 << 47)
}

const _: () = assert!(SPREAD_PER_SECOND < PILE_UP_MIN, "a spread leaves room for others");
const _: () = assert!(TTL_MAX as u64 * 1000 < 1 << 44, "expiries fit the wheel");
