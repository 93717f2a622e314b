//! What passes between members: messages that may be late, lost, doubled or in another order, or that cannot pass at all.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use machine::membership::Version;
use node::Event;
use prost::Message as _;
use proto::raftpb::{self, MessageType};

use super::{Due, Step, World};
use crate::check::Violation;
use crate::scenario::{Isolation, Network};

/// The release that all members speak.
const RELEASE: Version = Version::new(3, 7, 0);

/// How often a leader asks the others for their release.
const VERSIONS_INTERVAL: Duration = Duration::from_secs(4);

/// Ways that are closed.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// From, to: until when nothing passes.
    closed: BTreeMap<(usize, usize), Duration>,
}

impl Ways {
    fn close(&mut self, from: usize, to: usize, until: Duration) {
        let closed = self.closed.entry((from, to)).or_default();
        *closed = until.max(*closed);
    }

    /// Tells whether something that leaves `from` at `now` can reach `to`.
    pub(super) fn is_open(&self, from: usize, to: usize, now: Duration) -> bool {
        self.closed.get(&(from, to)).is_none_or(|until| *until <= now)
    }

    /// Opens all.
    pub(super) fn open_all(&mut self) {
        self.closed.clear();
    }
}

impl World {
    /// Returns the place of a member.
    pub(super) fn place_of(&self, id: u64) -> Option<usize> {
        self.members.iter().position(|member| member.id == id)
    }

    fn network(&self) -> Network {
        if self.is_working() {
            self.scenario.network
        } else {
            Network { lost_permille: 0, late_permille: 0, ..self.scenario.network }
        }
    }

    /// Returns how long something is on its way.
    pub(super) fn delay(&mut self) -> Duration {
        let network = self.network();
        let factor = if self.rng.below(1000) < network.late_permille { 100 } else { 1 };
        self.rng.micros(50..network.delay_max) * factor
    }

    /// Sends a message of a member.
    pub(super) fn send(&mut self, from: usize, message: raftpb::Message) {
        let Some(to) = self.place_of(message.to) else { return };
        if message.r#type() == MessageType::MsgSnap {
            self.send_snapshot(from, to, message);
            return;
        }
        let network = self.network();
        let is_open = self.ways.is_open(from, to, self.agenda.now());
        let is_lost = self.rng.below(1000) < network.lost_permille;
        if !is_open || is_lost || self.members[to].process.is_none() {
            if self.rng.chance(20) {
                self.report(from, Event::PeerUnreachable { peer: message.to });
            }
            return;
        }
        // A proposal that is passed on twice would be made twice: connections do not double what they carry.
        let may_double = message.r#type() != MessageType::MsgProp;
        let is_doubled = may_double && self.rng.below(1000) < network.doubled_permille;
        let copies = if is_doubled { 2 } else { 1 };
        let bytes: Bytes = message.encode_to_vec().into();
        for _ in 0..copies {
            let delay = self.delay();
            self.agenda.after(delay, Due::Message { from, to, bytes: bytes.clone() });
        }
    }

    /// Tells a member something about another one, a little later.
    pub(super) fn report(&mut self, member: usize, event: Event) {
        let pause = self.rng.micros(100..5_000);
        self.soon(member, pause, Step::Arrive(event));
    }

    /// A message arrives, if its way is still open and somebody is there.
    pub(super) fn message(
        &mut self,
        from: usize,
        to: usize,
        bytes: Bytes,
    ) -> Result<(), Violation> {
        if !self.ways.is_open(from, to, self.agenda.now()) || !self.admits(from, to) {
            return Ok(());
        }
        let message = raftpb::Message::decode(bytes)
            .map_err(|error| Violation(format!("a message does not decode: {error}")))?;
        if message.to == self.members[to].id {
            self.arrive(to, Event::Step(vec![message]));
        }
        Ok(())
    }

    /// Lets a member ask the others for their streams, as it does all the time: one that was removed and has nothing to send, such
    /// as a learner without a leader, is told so in the answer.
    pub(super) fn dial(&mut self, member: usize) {
        let now = self.agenda.now();
        for other in (0..self.members.len()).filter(|other| *other != member) {
            if self.ways.is_open(member, other, now) {
                self.admits(member, other);
            }
        }
    }

    /// Tells whether `to` runs and takes what `from` sends; one that was removed is told so.
    pub(super) fn admits(&mut self, from: usize, to: usize) -> bool {
        let by = self.members[to].id;
        let Some(process) = &self.members[to].process else { return false };
        if !process.node.reader().membership().is_removed(self.members[from].id) {
            return true;
        }
        if self.ways.is_open(to, from, self.agenda.now()) {
            self.report(from, Event::ToldRemoved { by });
        }
        false
    }

    /// The others notice that a process is gone whose machine still answers for it.
    pub(super) fn notice_end(&mut self, member: usize) {
        let now = self.agenda.now();
        let peer = self.members[member].id;
        for other in 0..self.members.len() {
            let is_open =
                self.ways.is_open(member, other, now) && self.ways.is_open(other, member, now);
            if other != member && is_open && self.members[other].process.is_some() {
                let delay = self.delay();
                self.soon(other, delay, Step::Arrive(Event::PeerLost { peer }));
            }
        }
    }

    /// Closes ways around a member, or between two groups without one.
    pub(super) fn isolate(&mut self, member: usize, isolation: Isolation, time: Duration) {
        let until = self.agenda.now() + time;
        for other in (0..self.members.len()).filter(|other| *other != member) {
            if isolation != Isolation::Mute {
                self.ways.close(other, member, until);
            }
            if isolation != Isolation::Deaf {
                self.ways.close(member, other, until);
            }
        }
    }

    /// Closes all ways between two groups.
    pub(super) fn split(&mut self, time: Duration) {
        let until = self.agenda.now() + time;
        let sides: Vec<bool> = self.members.iter().map(|_| self.rng.chance(50)).collect();
        for (from, side) in sides.iter().enumerate() {
            for to in (0..sides.len()).filter(|to| sides[*to] != *side) {
                self.ways.close(from, to, until);
            }
        }
    }

    /// A leader asks the others for their release from time to time.
    pub(super) fn ask_versions(&mut self, member: usize) {
        let now = self.agenda.now();
        let Some(process) = self.members[member].process.as_mut() else { return };
        let gate = process.node.gate();
        let is_due = now.saturating_sub(process.versions_asked) >= VERSIONS_INTERVAL;
        if !is_due || !gate.is_leader() || gate.applied_term() != gate.term() {
            return;
        }
        process.versions_asked = now;
        let membership = process.node.reader().membership();
        let is_reachable = |id: u64| {
            self.place_of(id).is_some_and(|other| {
                let is_open =
                    self.ways.is_open(member, other, now) && self.ways.is_open(other, member, now);
                is_open && self.members[other].process.is_some()
            })
        };
        let own = self.members[member].id;
        let are_all = membership.members().all(|each| each.id == own || is_reachable(each.id));
        let lowest = are_all.then_some(RELEASE);
        self.report(member, Event::PeerVersions { lowest });
    }
}
