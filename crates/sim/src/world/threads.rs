//! The threads of a process, as they take their turns.

use std::time::Duration;

use machine::watch::CatchUpDone;
use node::{Answer, Completion, Effects, Event, Failure, LeaseRequestKind, Now, Stop, Token};

use super::{Step, World};
use crate::check::{Violation, check};
use crate::cluster::{Member, Written};
use crate::rng::Rng;
use crate::scenario::TICK;
use crate::workload::Ask;

/// A request that is not answered after this, although its member runs, never will be.
const PATIENCE: Duration = Duration::from_secs(30);

impl World {
    pub(super) fn step(&mut self, member: usize, step: Step) -> Result<(), Violation> {
        match step {
            Step::Tick => self.tick(member),
            Step::Turn => self.turn(member),
            Step::WalWrite | Step::WalSync => {
                self.wal(member, matches!(step, Step::WalWrite));
                Ok(())
            }
            Step::LogRead(read) => {
                let pause = self.disk_pause_of(member);
                let event = self.process(member).map(|process| process.read_log(read));
                if let Some(event) = event {
                    if let Event::LogRead { result: Ok(entries), .. } = &event {
                        self.summary.read_back += entries.len() as u64;
                    }
                    self.trace.line(self.agenda.now(), || format!("m{} {event:?}", member + 1));
                    self.soon(member, pause, Step::Arrive(event));
                }
                Ok(())
            }
            Step::Backend => {
                self.trace.line(self.agenda.now(), || "backend job".to_owned());
                let pause = self.disk_pause_of(member);
                let done = self.process(member).and_then(|process| process.backend.run());
                if let Some(done) = done {
                    self.soon(member, pause, Step::BackendDone(done));
                }
                Ok(())
            }
            Step::BackendDone(done) => {
                if let Some(process) = self.process(member) {
                    process.backend.end();
                }
                self.arrive(member, Event::BackendDone(done));
                self.begin_backend(member);
                Ok(())
            }
            Step::Arrive(event) => {
                self.arrive(member, event);
                Ok(())
            }
            Step::Serve => self.serve(member),
            Step::CatchUp => {
                let pause = self.disk_pause_of(member);
                let done = self.process(member).and_then(|process| process.serving.catch_up());
                if let Some(done) = done {
                    self.soon(member, pause, Step::CaughtUp(done));
                }
                Ok(())
            }
            Step::CaughtUp(done) => self.caught_up(member, done),
            Step::Read(place) => self.read(member, place),
            Step::Request(place) => {
                self.request(member, place);
                Ok(())
            }
            Step::MakeSnapshot { to, message } => self.make_snapshot(member, to, message),
            Step::StoreSnapshot(transfer) => {
                self.store_snapshot(member, transfer);
                Ok(())
            }
            Step::PrepareSnapshot(transfer) => self.prepare_snapshot(member, transfer),
        }
    }

    // The node thread.

    pub(super) fn arrive(&mut self, member: usize, event: Event) {
        let pause = self.rng.micros(1..300);
        let Some(process) = self.process(member) else { return };
        process.inbox.push_back(event);
        if !std::mem::replace(&mut process.is_turn_due, true) {
            self.soon(member, pause, Step::Turn);
        }
    }

    fn tick(&mut self, member: usize) -> Result<(), Violation> {
        let now = self.agenda.now();
        if let Some(open) = self.history.oldest()
            && now.saturating_sub(open.since) > PATIENCE
        {
            let ask = &open.ask;
            return Err(Violation(format!("no answer since {:?} to {ask:?}", open.since)));
        }
        let Some(process) = self.process(member) else { return Ok(()) };
        process.is_tick_due = true;
        if !std::mem::replace(&mut process.is_turn_due, true) {
            self.soon(member, Duration::from_micros(10), Step::Turn);
        }
        self.ask_versions(member);
        self.dial(member);
        let late = if self.rng.chance(5) { self.rng.micros(0..400_000) } else { Duration::ZERO };
        let drift = TICK / 1000 * self.members[member].drift.unsigned_abs();
        let tick =
            if self.members[member].drift < 0 { TICK + drift } else { TICK.saturating_sub(drift) };
        self.soon(member, tick + late, Step::Tick);
        Ok(())
    }

    fn turn(&mut self, member: usize) -> Result<(), Violation> {
        let draw = self.rng.word();
        let since = self.members[member].clock(self.agenda.now());
        let Some(process) = self.process(member) else { return Ok(()) };
        process.is_turn_due = false;
        let burst = Rng::new(draw).index(process.inbox.len()) + 1;
        let mut effects = Effects::default();
        // As in the driver, time comes before what came in it.
        if std::mem::take(&mut process.is_tick_due) || since >= process.ticked + TICK {
            process.ticked = since;
            effects.append(process.node.handle(Event::Tick { now: Now(since) }));
        }
        for event in process.inbox.drain(..burst.min(process.inbox.len())) {
            effects.append(process.node.handle(event));
        }
        effects.append(process.node.end_of_burst());
        if !process.inbox.is_empty() {
            process.is_turn_due = true;
            self.soon(member, Duration::from_micros(20), Step::Turn);
        }
        self.carry_out(member, effects)
    }

    pub(super) fn carry_out(&mut self, member: usize, effects: Effects) -> Result<(), Violation> {
        let Effects { wal, backend, log_reads, messages, completions, events, events_lost, stop } =
            effects;
        let now = self.agenda.now();
        let id = self.members[member].id;
        let mut is_wal_due = false;
        for job in wal {
            self.trace.line(now, || {
                format!("m{} wal job {} of {}", member + 1, job.job, job.entries.len())
            });
            self.judge.write(id, &job.entries, now)?;
            if let Some(process) = self.process(member) {
                is_wal_due |= process.wal.push(job);
            }
        }
        if is_wal_due {
            let pause = self.disk_pause_of(member);
            self.soon(member, pause, Step::WalWrite);
        }
        let before = self.judge.model().applied();
        let Some(process) = self.members[member].process.as_mut() else { return Ok(()) };
        let gate = process.node.gate();
        let applied = gate.applied_index();
        let reader = process.node.reader();
        let heard = process.heard.take();
        // After a fault, what was applied in memory is gone.
        if !matches!(stop, Some(Stop::Fault(_))) {
            self.judge.apply(id, &heard, applied, events_lost)?;
            self.judge.stand(&reader, applied)?;
            if gate.is_leader() && gate.applied_term() == gate.term() {
                self.judge.promote(gate.term(), now);
            }
        }
        self.summary.term = self.summary.term.max(gate.term());
        // While a log is replayed, the model is ahead.
        let is_exact = applied == before && self.judge.model().applied() == before;
        self.trace.line(now, || {
            format!(
                "m{} turn: term {}, leader {:x}, committed {}, applied {applied} of {}, revision {}",
                member + 1,
                gate.term(),
                gate.leader(),
                gate.commit_index(),
                self.judge.last_index(),
                reader.revision(),
            )
        });
        for batch in events {
            self.judge.events(&batch)?;
            process.serving.publish(batch);
        }
        if events_lost {
            process.serving.lose_events();
        }
        for message in messages {
            self.send(member, message);
        }
        self.complete(member, completions, is_exact)?;
        self.wake_serving(member);
        if let Some(process) = self.process(member) {
            for job in backend {
                process.backend.push(job);
            }
        }
        self.begin_backend(member);
        for read in log_reads {
            let pause = self.disk_pause_of(member);
            self.soon(member, pause, Step::LogRead(read));
        }
        stop.map_or(Ok(()), |stop| self.stopped(member, &stop))
    }

    fn complete(
        &mut self,
        member: usize,
        completions: Vec<Completion>,
        is_exact: bool,
    ) -> Result<(), Violation> {
        for Completion { token, answer } in completions {
            if self.installed(token, &answer) {
                continue;
            }
            self.judge_answer(token, &answer, is_exact)?;
            if let Some(process) = self.process(member) {
                process.serving.reply(token, answer);
            }
        }
        Ok(())
    }

    fn wake_serving(&mut self, member: usize) {
        let pause = self.rng.micros(1..3_000);
        if let Some(process) = self.process(member)
            && !std::mem::replace(&mut process.serving.is_due, true)
        {
            self.soon(member, pause, Step::Serve);
        }
    }

    /// Judges an answer when it leaves the node: nothing more can be acknowledged than that.
    fn judge_answer(
        &mut self,
        token: Token,
        answer: &Answer,
        is_exact: bool,
    ) -> Result<(), Violation> {
        self.trace.line(self.agenda.now(), || format!("{token:?}: {answer:?}"));
        let Some(open) = self.history.get(token) else {
            return Err(Violation(format!("{token:?} is answered, but does not wait")));
        };
        match (&open.ask, answer) {
            (Ask::Change, Answer::Applied(outcome)) => {
                let revision = self.judge.answer(open.id, open.floor_index, outcome)?;
                self.history.told = self.history.told.max(revision);
                Ok(())
            }
            (Ask::Propose(request), Answer::Applied(outcome)) => {
                let revision = self.judge.answer(open.id, open.floor_index, outcome)?;
                if let (Some(grant), Ok(_)) = (&request.lease_grant, &outcome.result) {
                    self.judge.renew(grant.id, open.since);
                }
                self.history.told = self.history.told.max(revision);
                Ok(())
            }
            (
                Ask::Propose(_) | Ask::Change,
                Answer::Failed(Failure::TooManyRequests | Failure::LearnerNotReady),
            ) => self.judge.refuse(open.id),
            (Ask::Lease(kind), answer) => {
                let id = match kind {
                    LeaseRequestKind::KeepAlive { id }
                    | LeaseRequestKind::TimeToLive { id, .. } => *id,
                    LeaseRequestKind::Leases => 0,
                };
                self.judge.lease_answer(id, open.since, is_exact, answer)
            }
            (Ask::Range(_), Answer::ReadReady) => {
                let revision = self.members[open.member]
                    .process
                    .as_ref()
                    .map_or(0, |process| process.node.reader().revision());
                check(revision >= open.floor, || {
                    format!("a read may go ahead at {revision}, but {} was told", open.floor)
                })
            }
            (Ask::MoveLeader, Answer::LeaderMoved)
            | (Ask::Defragment, Answer::Defragmented)
            | (_, Answer::Failed(_)) => Ok(()),
            (ask, answer) => Err(Violation(format!("{answer:?} is no answer to {ask:?}"))),
        }
    }

    fn stopped(&mut self, member: usize, stop: &Stop) -> Result<(), Violation> {
        self.trace.line(self.agenda.now(), || format!("stop: {stop:?}"));
        match stop {
            Stop::Asked => {
                self.notice_end(member);
                self.exit(member);
            }
            Stop::Fault(fault) => {
                if self.members[member].disk.faults_struck() == 0 {
                    return Err(Violation(format!("the member stops without a fault: {fault}")));
                }
                self.lose_process(member, true);
            }
            Stop::Removed => {
                let id = self.members[member].id;
                let is_due = self.judge.model().group().is_removed(id);
                check(is_due, || format!("{id:x} ends as removed, but is a member"))?;
                self.exit(member);
                self.members[member].is_removed = true;
                return Ok(());
            }
        }
        self.plan_start(member);
        Ok(())
    }

    // The threads of the disk.

    fn wal(&mut self, member: usize, is_write: bool) {
        let pause = self.disk_pause_of(member);
        let rng = &mut self.rng;
        let Member { id, process, .. } = &mut self.members[member];
        let Some(process) = process.as_mut() else { return };
        let report = if is_write { process.wal.write(rng) } else { process.wal.sync() };
        let durability = self.judge.durability();
        for Written { entries, mark } in process.wal.take_written() {
            durability.write(*id, &entries, mark);
        }
        if matches!(&report, Some(Event::WalDone { result: Ok(()), .. })) {
            durability.sync(*id);
        }
        self.trace.line(self.agenda.now(), || format!("m{} wal thread: {report:?}", member + 1));
        match report {
            None => self.soon(member, pause, Step::WalSync),
            Some(report) => {
                if process.wal.is_due() {
                    let pause = self.disk_pause_of(member);
                    self.soon(member, pause, Step::WalWrite);
                }
                self.soon(member, pause / 2, Step::Arrive(report));
            }
        }
    }

    fn begin_backend(&mut self, member: usize) {
        let pause = self.disk_pause_of(member);
        if self.process(member).is_some_and(|process| process.backend.begin()) {
            self.soon(member, pause, Step::Backend);
        }
    }

    // The serving thread.

    fn serve(&mut self, member: usize) -> Result<(), Violation> {
        let Some(process) = self.process(member) else { return Ok(()) };
        process.serving.is_due = false;
        let replies = process.serving.take_mail();
        self.pump(member);
        for (token, answer) in replies {
            let Some(open) = self.history.answer(token) else { continue };
            self.answered(&open, &answer)?;
            self.next_ask(open.client);
        }
        Ok(())
    }

    pub(super) fn pump(&mut self, member: usize) {
        let pause = self.disk_pause_of(member);
        if self.process(member).is_some_and(|process| process.serving.pump()) {
            self.soon(member, pause, Step::CatchUp);
        }
    }

    fn caught_up(&mut self, member: usize, done: CatchUpDone) -> Result<(), Violation> {
        let Some(process) = self.members[member].process.as_mut() else { return Ok(()) };
        if let Err(fault) = process.serving.caught_up(done)
            && self.members[member].disk.faults_struck() == 0
        {
            return Err(Violation(format!("history cannot be read: {fault}")));
        }
        self.pump(member);
        Ok(())
    }
}
