//! What befalls members, and how a run ends.

use std::time::Duration;

use node::{Event, StartError};

use super::{Act, Due, Step, World};
use crate::check::{Violation, check, check_equal};
use crate::cluster::Written;
use crate::disk::DiskFault;
use crate::scenario::{self, Mishap};
use crate::serving::{Serving, read_all_history};

/// How long everything is left in peace: longer than any lease lives that ends within a run.
const PEACE: Duration = Duration::from_secs(16);

/// How long the last process has until the judges look.
const LAST: Duration = Duration::from_secs(3);

/// How long the last processes have if they have to elect a leader.
const LAST_OF_MANY: Duration = Duration::from_secs(12);

/// How long members may take to come to rest.
const REST_MAX: Duration = Duration::from_mins(4);

/// Starts that may fail one after the other: each failure needs a fault, and faults end.
const FAILED_STARTS_MAX: u32 = 30;

impl World {
    /// Tells whether bits were flipped on a member's disk.
    pub(super) fn is_damaged(&self, member: usize) -> bool {
        self.damaged == Some(member)
    }

    pub(super) fn plan_start(&mut self, member: usize) {
        let pause = self.rng.micros(1_000..400_000);
        self.agenda.after(pause, Due::Start { member });
    }

    pub(super) fn start(&mut self, member: usize) -> Result<(), Violation> {
        if self.members[member].process.is_some() || self.members[member].is_removed {
            return Ok(());
        }
        let now = self.agenda.now();
        let is_full = self.full == Some(member);
        if !is_full || !self.is_working() || self.rng.chance(50) {
            self.full = self.full.filter(|full| *full != member);
            self.members[member].disk.disarm();
            if self.is_working() && self.rng.chance(self.scenario.bad_starts) {
                let fault = self.start_fault();
                self.members[member].disk.arm(fault);
            }
        }
        let hub = self.scenario.hub.clone();
        let batches_max = self.scenario.mail_batches_max;
        let started =
            self.members[member].start(now, |reader| Serving::new(reader, hub, batches_max));
        self.trace.line(now, || format!("m{} start: {:?}", member + 1, started.as_ref().err()));
        match started {
            Err(error) => self.start_failed(member, &error),
            Ok(effects) => {
                self.judge.start(self.members[member].id);
                self.soon(member, Duration::ZERO, Step::Tick);
                self.carry_out(member, effects)?;
                self.pump(member);
                self.see_to_power(member);
                Ok(())
            }
        }
    }

    fn start_fault(&mut self) -> DiskFault {
        match self.rng.below(4) {
            0 => DiskFault::FailRead(scenario::count(&mut self.rng, 60)),
            1 => DiskFault::FailSync(scenario::count(&mut self.rng, 12)),
            _ => DiskFault::CutAtSync(scenario::count(&mut self.rng, 16)),
        }
    }

    fn start_failed(&mut self, member: usize, error: &StartError) -> Result<(), Violation> {
        if self.is_damaged(member) {
            self.summary.damage_found = Some(true);
            return Ok(());
        }
        let has_reason = self.members[member].disk.faults_struck() > 0;
        check(has_reason, || format!("a start fails on a good disk: {error}"))?;
        self.summary.failed_starts += 1;
        check(self.summary.failed_starts < FAILED_STARTS_MAX, || {
            format!("no start succeeds: {error}")
        })?;
        let crashes = self.full != Some(member);
        self.lose_process(member, crashes);
        self.plan_start(member);
        Ok(())
    }

    /// Notes that nobody is answered any more by the process of a member.
    pub(super) fn forget_process(&mut self, member: usize) {
        for client in self.history.leave_open(member) {
            self.agenda.after(Duration::from_millis(20), Due::Client { client });
        }
        self.lose_homes(member);
        self.cut_transfer(member);
    }

    /// Lets a process end in order.
    pub(super) fn exit(&mut self, member: usize) {
        self.forget_process(member);
        let id = self.members[member].id;
        let durability = self.judge.durability();
        for Written { entries, mark } in self.members[member].exit() {
            durability.write(id, &entries, mark);
        }
        durability.sync(id);
    }

    /// Ends a process at once, and with `crashes` the power of its machine.
    pub(super) fn lose_process(&mut self, member: usize, crashes: bool) {
        let loses_power = crashes || self.members[member].disk.is_cut();
        if !loses_power {
            self.notice_end(member);
        }
        self.forget_process(member);
        self.members[member].kill();
        if loses_power || self.members[member].disk.is_cut() {
            let loss = scenario::loss(&mut self.rng);
            self.trace.line(self.agenda.now(), || format!("power goes: {loss:?}"));
            self.members[member].disk.crash(loss);
        } else {
            self.trace.line(self.agenda.now(), || "the process is gone".to_owned());
        }
        self.summary.mishaps += 1;
    }

    /// Ends the process of a member whose disk has lost power.
    pub(super) fn see_to_power(&mut self, member: usize) {
        if self.members[member].disk.is_cut() {
            self.lose_process(member, true);
            self.plan_start(member);
        }
    }

    pub(super) fn mishap(&mut self) {
        if !self.is_working() {
            return;
        }
        let leader = self.leader().filter(|_| self.rng.chance(50));
        let Some(member) = leader.or_else(|| self.running()) else {
            self.agenda.after(Duration::from_millis(100), Due::Mishap);
            return;
        };
        let Some(mishap) = self.scenario.mishaps.pop() else { return };
        self.trace.line(self.agenda.now(), || format!("mishap: m{} {mishap:?}", member + 1));
        self.strike(member, mishap);
    }

    fn strike(&mut self, member: usize, mishap: Mishap) {
        let now = self.agenda.now();
        let disk = &self.members[member].disk;
        match mishap {
            Mishap::Kill | Mishap::Crash => {
                self.lose_process(member, mishap == Mishap::Crash);
                self.plan_start(member);
            }
            Mishap::CrashAll => {
                for each in 0..self.members.len() {
                    if self.members[each].process.is_some() {
                        self.lose_process(each, true);
                        self.plan_start(each);
                    }
                }
            }
            Mishap::CutAtSync(after) => disk.arm(DiskFault::CutAtSync(after)),
            Mishap::FailSync(after) => disk.arm(DiskFault::FailSync(after)),
            Mishap::FailWrite(after) => disk.arm(DiskFault::FailWrite(after)),
            Mishap::Full(after) => {
                disk.arm(DiskFault::Full(after));
                self.full = Some(member);
            }
            Mishap::Stop => self.arrive(member, Event::Stop),
            Mishap::Pause(time) => self.members[member].paused_until = now + time,
            Mishap::SlowDisk(time) => self.members[member].slow_until = now + time,
            Mishap::Isolate(isolation, time) => self.isolate(member, isolation, time),
            Mishap::Split(time) => self.split(time),
            Mishap::MoveLeader => self.move_leader(),
        }
    }

    /// Ends all mishaps.
    pub(super) fn make_peace(&mut self) {
        let now = self.agenda.now();
        self.trace.line(now, || "peace".to_owned());
        self.full = None;
        self.ways.open_all();
        for member in &mut self.members {
            member.slow_until = now;
            member.paused_until = member.paused_until.min(now + Duration::from_secs(1));
            // A process that has met a fault may be about to end because of it.
            member.disk.ease();
        }
        self.quiet_since = now;
        self.agenda.after(PEACE, Due::LastStart);
    }

    /// Returns the places of all who are members.
    fn present(&self) -> Vec<usize> {
        let group = self.judge.model().group();
        group.members().keys().filter_map(|id| self.place_of(*id)).collect()
    }

    /// Tells whether all members have had time to finish what they were asked for.
    fn is_at_rest(&self) -> bool {
        let are_all_there = self.present().len() == self.judge.model().group().members().len();
        are_all_there
            && self.homes.iter().all(Option::is_some)
            && self.present().into_iter().all(|member| {
                self.members[member].process.as_ref().is_some_and(|process| {
                    let reader = process.node.reader();
                    reader.finished_compaction() == reader.compact_revision()
                        && self.agenda.now().saturating_sub(process.started) >= PEACE / 2
                })
            })
    }

    /// Looks at everything, ends all processes, and starts them for the last time.
    pub(super) fn last_start(&mut self) -> Result<(), Violation> {
        let now = self.agenda.now();
        for process in self.members.iter().filter_map(|member| member.process.as_ref()) {
            let quiet_since = self.quiet_since.max(process.started);
            self.judge.no_lease_is_immortal(now.saturating_sub(quiet_since))?;
        }
        if !self.is_at_rest() || !self.judge.has_ended_leases() {
            check(now.saturating_sub(self.quiet_since) < REST_MAX, || {
                "members do not come to rest".to_owned()
            })?;
            self.agenda.after(Duration::from_secs(1), Due::LastStart);
            return Ok(());
        }
        for member in self.present() {
            self.look(member)?;
        }
        let revision = self.judge.model().stand().revision;
        for subscriber in &mut self.subscribers {
            subscriber.has_all(revision, self.judge.model())?;
        }
        self.act = Act::LastStart;
        // With one of two or less gone, nobody could tell what is true.
        let present = self.present();
        if self.scenario.is_damaged && present.len() != 2 {
            self.damaged = Some(self.rng.pick(&present));
        }
        for member in 0..self.members.len() {
            self.end_process(member);
            if self.is_damaged(member) {
                self.damage(member);
            }
            if present.contains(&member) {
                self.agenda.after(Duration::from_millis(1), Due::Start { member });
            }
        }
        let last = if present.len() == 1 { LAST } else { LAST_OF_MANY };
        self.agenda.after(last, Due::End);
        Ok(())
    }

    fn end_process(&mut self, member: usize) {
        if self.members[member].process.is_none() {
            return;
        }
        match self.rng.below(3) {
            0 => self.lose_process(member, true),
            1 => self.lose_process(member, false),
            _ => self.exit(member),
        }
    }

    /// Flips bits of what is durable.
    fn damage(&mut self, member: usize) {
        self.summary.damage_found = Some(false);
        for _ in 0..=self.rng.below(2) {
            let seed = self.rng.word();
            let place = self.members[member].disk.flip_bit(seed);
            self.trace.line(self.agenda.now(), || format!("damage: {place:?}"));
        }
    }

    pub(super) fn end(&mut self) -> Result<(), Violation> {
        for member in self.present() {
            self.look(member)?;
        }
        self.act = Act::Over;
        Ok(())
    }

    /// Judges everything that can be seen of a member, which has had time to finish all it was asked for.
    fn look(&mut self, member: usize) -> Result<(), Violation> {
        let is_damaged = self.is_damaged(member);
        let Some(process) = &self.members[member].process else {
            return check(is_damaged, || format!("m{} does not run", member + 1));
        };
        check_equal("the number of open requests", &self.history.open(), &0)?;
        let gate = process.node.gate();
        let applied = gate.applied_index();
        check_equal("the applied index", &applied, &gate.commit_index())?;
        check_equal("the applied index", &applied, &self.judge.model().applied())?;
        self.judge.group(&process.node.reader())?;
        let reader = process.node.reader();
        let mut has_fault = self.judge.everything(&reader, applied)?;
        has_fault |= read_all_history(&reader, self.judge.model())?;
        check(is_damaged || !has_fault, || "a read meets a fault on a good disk".to_owned())?;
        if has_fault {
            self.summary.damage_found = Some(true);
        }
        self.judge.leases(process.node.machine().lessor())
    }
}
