//! What befalls members, and how a run ends.

use std::time::Duration;

use node::{Event, StartError};

use super::{Act, Due, Step, World};
use crate::check::{Violation, check, check_equal};
use crate::disk::DiskFault;
use crate::scenario::{self, Mishap};
use crate::serving::{Serving, read_all_history};

/// How long everything is left in peace: longer than any lease lives that ends within a run.
const PEACE: Duration = Duration::from_secs(16);

/// How long the last process has until the judges look.
const LAST: Duration = Duration::from_secs(3);

/// Starts that may fail one after the other: each failure needs a fault, and faults end.
const FAILED_STARTS_MAX: u32 = 30;

impl World {
    pub(super) fn is_disk_damaged(&self) -> bool {
        self.act == Act::LastStart && self.scenario.is_damaged
    }

    pub(super) fn plan_start(&mut self, member: usize) {
        let pause = self.rng.micros(1_000..400_000);
        self.agenda.after(pause, Due::Start { member });
    }

    pub(super) fn start(&mut self, member: usize) -> Result<(), Violation> {
        if self.members[member].process.is_some() {
            return Ok(());
        }
        let now = self.agenda.now();
        let is_working = self.act == Act::Work;
        if !self.is_full || !is_working || self.rng.chance(50) {
            self.is_full = false;
            self.members[member].disk.disarm();
            if is_working && self.rng.chance(self.scenario.bad_starts) {
                let fault = self.start_fault();
                self.members[member].disk.arm(fault);
            }
        }
        let Self { members, subscribers, scenario, .. } = self;
        let serve = |reader| {
            Serving::new(reader, scenario.hub.clone(), scenario.mail_batches_max, subscribers)
        };
        let started = members[member].start(now, serve);
        self.trace.line(now, || format!("start: {:?}", started.as_ref().err()));
        match started {
            Err(error) => self.start_failed(member, &error),
            Ok(effects) => {
                self.judge.start(now);
                self.soon(member, Duration::ZERO, Step::Tick);
                for place in 0..self.subscribers.len() {
                    self.soon(member, Duration::ZERO, Step::Read(place));
                    self.soon(member, Duration::from_millis(5), Step::Request(place));
                }
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
        if self.is_disk_damaged() {
            self.summary.damage_found = Some(true);
            self.act = Act::Over;
            return Ok(());
        }
        let has_reason = self.members[member].disk.faults_struck() > 0;
        check(has_reason, || format!("a start fails on a good disk: {error}"))?;
        self.summary.failed_starts += 1;
        check(self.summary.failed_starts < FAILED_STARTS_MAX, || {
            format!("no start succeeds: {error}")
        })?;
        let crashes = !self.is_full;
        self.lose_process(member, crashes);
        self.plan_start(member);
        Ok(())
    }

    /// Notes that nobody is answered any more by the process of a member.
    pub(super) fn forget_process(&mut self, member: usize) {
        for client in self.history.leave_open(member) {
            self.agenda.after(Duration::from_millis(20), Due::Client { client });
        }
        self.judge.forget_waiting();
    }

    /// Ends a process at once, and with `crashes` the power of its machine.
    pub(super) fn lose_process(&mut self, member: usize, crashes: bool) {
        self.forget_process(member);
        self.members[member].kill();
        if crashes || self.members[member].disk.is_cut() {
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
        if self.act != Act::Work {
            return;
        }
        let member = self.rng.index(self.members.len());
        if self.members[member].process.is_none() {
            self.agenda.after(Duration::from_millis(100), Due::Mishap);
            return;
        }
        let Some(mishap) = self.scenario.mishaps.pop() else { return };
        self.trace.line(self.agenda.now(), || format!("mishap: {mishap:?}"));
        let disk = &self.members[member].disk;
        match mishap {
            Mishap::Kill | Mishap::Crash => {
                self.lose_process(member, mishap == Mishap::Crash);
                self.plan_start(member);
            }
            Mishap::CutAtSync(after) => disk.arm(DiskFault::CutAtSync(after)),
            Mishap::FailSync(after) => disk.arm(DiskFault::FailSync(after)),
            Mishap::FailWrite(after) => disk.arm(DiskFault::FailWrite(after)),
            Mishap::Full(after) => {
                disk.arm(DiskFault::Full(after));
                self.is_full = true;
            }
            Mishap::Stop => self.arrive(member, Event::Stop),
        }
    }

    /// Ends all mishaps.
    pub(super) fn make_peace(&mut self) {
        let now = self.agenda.now();
        self.trace.line(now, || "peace".to_owned());
        self.is_full = false;
        for member in &self.members {
            // A process that has met a fault is about to end; the rest goes on undisturbed.
            if member.disk.faults_struck() == 0 {
                member.disk.disarm();
            }
        }
        self.quiet_since = now;
        self.agenda.after(PEACE, Due::LastStart);
    }

    /// Looks at everything, ends the process, and starts it for the last time.
    pub(super) fn last_start(&mut self) -> Result<(), Violation> {
        let is_ready = self.members.iter().all(|member| {
            member.process.as_ref().is_some_and(|process| {
                let reader = process.node.reader();
                reader.finished_compaction() == reader.compact_revision()
                    && self.agenda.now().saturating_sub(process.started) >= PEACE / 2
            })
        });
        let now = self.agenda.now();
        for process in self.members.iter().filter_map(|member| member.process.as_ref()) {
            let quiet_since = self.quiet_since.max(process.started);
            self.judge.no_lease_is_immortal(now.saturating_sub(quiet_since))?;
        }
        if !is_ready || !self.judge.has_ended_leases() {
            self.agenda.after(Duration::from_secs(1), Due::LastStart);
            return Ok(());
        }
        for member in 0..self.members.len() {
            self.look(member)?;
        }
        let revision = self.judge.model().stand().revision;
        for subscriber in &mut self.subscribers {
            subscriber.has_all(revision, self.judge.model())?;
        }
        self.act = Act::LastStart;
        for member in 0..self.members.len() {
            match self.rng.below(3) {
                0 => self.lose_process(member, true),
                1 => self.lose_process(member, false),
                _ => {
                    self.forget_process(member);
                    self.members[member].exit();
                }
            }
            if self.scenario.is_damaged {
                self.damage(member);
            }
            self.agenda.after(Duration::from_millis(1), Due::Start { member });
        }
        self.agenda.after(LAST, Due::End);
        Ok(())
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
        for member in 0..self.members.len() {
            self.look(member)?;
        }
        self.act = Act::Over;
        Ok(())
    }

    /// Judges everything that can be seen of a member, which has had time to finish all it was asked for.
    fn look(&mut self, member: usize) -> Result<(), Violation> {
        let is_damaged = self.is_disk_damaged();
        let Some(process) = &self.members[member].process else {
            return Err(Violation::new("the member does not run"));
        };
        check_equal("the number of open requests", &self.history.open(), &0)?;
        let gate = process.node.gate();
        let applied = gate.applied_index();
        check_equal("the applied index", &applied, &gate.commit_index())?;
        check_equal("the applied index", &applied, &self.judge.model().applied())?;
        check_equal("the end of the log", &applied, &self.judge.last_index())?;
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
