//! What only the primary (the leader's lessor) knows: when leases expire, which ones are being revoked, and when to checkpoint them.
//!
//! Times are milliseconds. A renewal only writes the lease's expiry; the wheel finds the lease at its old time and lays it anew.

use std::collections::VecDeque;

use super::table::{Lease, Table};
use super::wheel::{Due, Wheel};
use super::{
    CHECKPOINT_INTERVAL_MS, EXPIRED_PER_WINDOW_MAX, EXPIRED_WINDOW_MS, Options, PILE_UP_MIN,
    REVOKES_IN_FLIGHT_MAX, SPREAD_PER_SECOND,
};

/// The state of a primary lessor, by lease slot.
#[derive(Debug)]
pub(super) struct Primary {
    /// When each lease expires. The slot of a lease that is gone holds garbage.
    expiry: Vec<u64>,
    /// When each lease is to be checkpointed, `u64::MAX` for never; empty when checkpointing is off.
    checkpoint_at: Vec<u64>,
    wheel: Wheel,
    /// Leases whose revocation was proposed, and when to propose it again.
    in_flight: Vec<(u32, u64)>,
    /// Ids of leases that had expired and were revoked since they were last taken.
    revoked: Vec<i64>,
    /// Ids of leases whose checkpoint is due. One that is gone meanwhile is skipped.
    checkpoints_due: VecDeque<i64>,
    window_began: u64,
    window_used: usize,
}

impl Primary {
    /// Starts all clocks: each lease gets its remaining ttl and `extend`, spread if too many would expire together.
    pub(super) fn start(table: &Table, options: &Options, now: u64, extend: u64) -> Self {
        let mut primary = Self {
            expiry: Vec::new(),
            checkpoint_at: Vec::new(),
            wheel: Wheel::new(now),
            in_flight: Vec::new(),
            revoked: Vec::new(),
            checkpoints_due: VecDeque::new(),
            window_began: now,
            window_used: 0,
        };
        let mut order: Vec<(u64, i64, u32)> = table
            .iter()
            .map(|(slot, lease)| (now + extend + millis(lease.seconds_left()), lease.id, slot))
            .collect();
        if order.len() >= PILE_UP_MIN {
            order.sort_unstable();
            spread(&mut order);
        }
        for (expiry, _, slot) in order {
            primary.add(slot, expiry, options, now);
        }
        primary
    }

    /// Takes in a lease that expires at `expiry`.
    pub(super) fn add(&mut self, slot: u32, expiry: u64, options: &Options, now: u64) {
        put(&mut self.expiry, slot, expiry);
        let mut wake = expiry;
        if options.checkpoints {
            let at = next_checkpoint(expiry, now);
            put(&mut self.checkpoint_at, slot, at);
            wake = wake.min(at);
        }
        self.wheel.insert(slot, wake);
    }

    /// Forgets lease `id`, which is revoked.
    pub(super) fn remove(&mut self, slot: u32, id: i64, now: u64) {
        if self.expiry(slot) <= now {
            self.revoked.push(id);
        }
        self.wheel.remove(slot);
        self.in_flight.retain(|&(other, _)| other != slot);
    }

    /// Takes the ids of leases that were revoked after they had expired.
    pub(super) fn take_revoked(&mut self) -> Vec<i64> {
        std::mem::take(&mut self.revoked)
    }

    /// Tells when a lease expires, or expired.
    pub(super) fn expiry(&self, slot: u32) -> u64 {
        self.expiry[slot as usize]
    }

    /// Puts the expiry of a lease that has not expired off.
    pub(super) fn renew(&mut self, slot: u32, expiry: u64) {
        debug_assert!(expiry >= self.expiry[slot as usize], "a renewal never shortens");
        self.expiry[slot as usize] = expiry;
    }

    /// Takes up to `max` expired leases for revocation, within the bounds of rate and flight.
    pub(super) fn take_expired(
        &mut self,
        table: &Table,
        retry: u64,
        now: u64,
        max: usize,
    ) -> Vec<i64> {
        self.advance(table, now);
        let Self { in_flight, wheel, .. } = self;
        in_flight.retain(|&(slot, again_at)| {
            let waits = again_at > now;
            if !waits {
                wheel.make_ready(slot);
            }
            waits
        });
        if now - self.window_began >= EXPIRED_WINDOW_MS {
            self.window_began = now;
            self.window_used = 0;
        }
        let mut out = Vec::new();
        while out.len() < max
            && self.window_used < EXPIRED_PER_WINDOW_MAX
            && self.in_flight.len() < REVOKES_IN_FLIGHT_MAX
        {
            let Some(slot) = self.wheel.take_ready() else { break };
            out.push(table.lease(slot).id);
            self.in_flight.push((slot, now + retry));
            self.window_used += 1;
        }
        out
    }

    /// Lets a revocation that was just taken and could not be proposed be taken again as soon as time has passed.
    pub(super) fn put_off(&mut self, slot: u32, now: u64) {
        let taken = self.in_flight.iter_mut().find(|(other, _)| *other == slot);
        if let Some((_, again_at)) = taken {
            *again_at = now + 1;
            self.window_used = self.window_used.saturating_sub(1);
        }
    }

    /// Takes up to `max` checkpoints that are due: ids and remaining seconds, rounded up.
    pub(super) fn take_checkpoints(
        &mut self,
        table: &Table,
        now: u64,
        max: usize,
    ) -> Vec<(i64, i64)> {
        self.advance(table, now);
        let mut out = Vec::new();
        while out.len() < max {
            let Some(id) = self.checkpoints_due.pop_front() else { break };
            let Some(slot) = table.find(id) else { continue };
            let seconds = self.expiry[slot as usize].saturating_sub(now).div_ceil(1000);
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            // An expired lease is about to go, and one that was just renewed has nothing to remember.
            if seconds > 0 && seconds < table.lease(slot).ttl {
                out.push((id, seconds));
            }
        }
        out
    }

    fn advance(&mut self, table: &Table, now: u64) {
        let Self { expiry, checkpoint_at, wheel, checkpoints_due, .. } = self;
        wheel.advance(now, |slot| {
            let expiry = expiry[slot as usize];
            if expiry <= now {
                return Due::Now;
            }
            let Some(at) = checkpoint_at.get_mut(slot as usize) else { return Due::At(expiry) };
            if *at <= now {
                checkpoints_due.push_back(table.lease(slot).id);
            }
            // Renewed since, a lease that had little time left may be worth a checkpoint again.
            if *at <= now || *at == u64::MAX {
                *at = next_checkpoint(expiry, now);
            }
            Due::At(expiry.min(*at))
        });
    }
}

/// Makes sure that no second sees more than [`SPREAD_PER_SECOND`] expiries: each is put off to a second after the one that many
/// places before it. The order stays; nothing is hastened.
fn spread(order: &mut [(u64, i64, u32)]) {
    for place in SPREAD_PER_SECOND..order.len() {
        let earliest = order[place - SPREAD_PER_SECOND].0 + 1000;
        let expiry = &mut order[place].0;
        *expiry = earliest.max(*expiry);
    }
}

fn next_checkpoint(expiry: u64, now: u64) -> u64 {
    let is_long = expiry.saturating_sub(now) > CHECKPOINT_INTERVAL_MS;
    if is_long { now + CHECKPOINT_INTERVAL_MS } else { u64::MAX }
}

fn put(column: &mut Vec<u64>, slot: u32, value: u64) {
    let index = slot as usize;
    if index >= column.len() {
        column.resize(index + 1, u64::MAX);
    }
    column[index] = value;
}

/// Seconds as milliseconds; leases live shorter than 2^44 ms.
pub(super) fn millis(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1000)
}

impl Lease {
    /// When a lease that is granted or renewed in full at `now` expires.
    pub(super) fn full_expiry(&self, now: u64, clock_step: u64) -> u64 {
        now + clock_step + millis(self.ttl)
    }
}
