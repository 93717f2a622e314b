//! Clients: each asks, waits for the answer, and asks again.

use std::time::Duration;

use bytes::Bytes;
use machine::Outcome;
use node::{Answer, Event, LeaseRequest, Proposal};
use prost::Message as _;
use proto::etcdserverpb::{InternalRaftRequest, RangeRequest, RequestHeader};

use super::{Act, Due, Step, World};
use crate::check::{Found, Violation};
use crate::history::Open;
use crate::workload::Ask;

/// When a client without a member looks for one again.
const RETRY: Duration = Duration::from_millis(50);

impl World {
    pub(super) fn next_ask(&mut self, client: usize) {
        if client > self.scenario.clients {
            return;
        }
        let pause =
            if self.is_admin(client) { self.rng.micros(20_000..1_500_000) } else { self.pause() };
        self.agenda.after(pause, Due::Client { client });
    }

    pub(super) fn client(&mut self, client: usize) -> Result<(), Violation> {
        if self.is_admin(client) {
            self.change(client);
            return Ok(());
        }
        if self.act != Act::Work {
            return Ok(());
        }
        if self.asked >= self.scenario.asks {
            self.act = Act::Peace;
            self.agenda.after(Duration::ZERO, Due::Peace);
            return Ok(());
        }
        let Some(member) = self.running() else {
            self.agenda.after(RETRY, Due::Client { client });
            return Ok(());
        };
        self.asked += 1;
        let until_mishap = self.scenario.asks / (self.scenario.mishaps.len() as u64 + 1);
        if self.asked.is_multiple_of(until_mishap.max(1)) {
            let pause = self.rng.micros(0..200_000);
            self.agenda.after(pause, Due::Mishap);
        }
        let ask = self.workload.next(self.judge.model());
        // A member passes on to the leader what only that can tell.
        let member = if matches!(ask, Ask::Lease(_)) { self.leader_of(member) } else { member };
        self.ask(member, client, ask)
    }

    /// Returns the member that `member` takes for the leader, if that one runs.
    fn leader_of(&self, member: usize) -> usize {
        let leader =
            self.members[member].process.as_ref().map(|process| process.node.gate().leader());
        let place = leader.and_then(|leader| self.place_of(leader));
        place.filter(|place| self.members[*place].process.is_some()).unwrap_or(member)
    }

    /// Asks a member to let another one lead.
    pub(super) fn move_leader(&mut self) {
        let Some(member) = self.leader() else { return };
        let to = self.rng.index(self.members.len());
        let to = self.members[to].id;
        let since = self.agenda.now();
        let (floor, floor_index) = (0, 0);
        let ask = Ask::MoveLeader;
        let open = Open { member, client: usize::MAX, ask, id: 0, since, floor, floor_index };
        let token = self.history.ask(open);
        self.soon(member, Duration::from_micros(50), Step::Arrive(Event::MoveLeader { token, to }));
    }

    fn ask(&mut self, member: usize, client: usize, ask: Ask) -> Result<(), Violation> {
        let since = self.agenda.now();
        let Some(process) = &self.members[member].process else { return Ok(()) };
        let id = process.node.request_ids().next();
        let reads_at_once = process.node.gate().reads_need_no_round();
        self.trace.line(since, || format!("client {client} asks {id:x} {ask:?}"));
        let kind = ask.clone();
        let (floor, floor_index) = (self.history.told, self.judge.acknowledged());
        let open = Open { member, client, ask, id, since, floor, floor_index };
        let event = match kind {
            Ask::Propose(request) => {
                let data = encode(id, &request);
                self.judge.propose(id, data.clone());
                Event::Propose(vec![Proposal { token: self.history.ask(open), id, data }])
            }
            Ask::Range(_) if !reads_at_once => Event::Read(vec![self.history.ask(open)]),
            Ask::Range(range) => return self.read_at_once(&open, Some(&range)),
            Ask::Serializable(range) => {
                return self.read_at_once(&Open { floor: 0, ..open }, Some(&range));
            }
            Ask::Hash(_) => return self.read_at_once(&Open { floor: 0, ..open }, None),
            Ask::Lease(kind) => {
                Event::Lease(vec![LeaseRequest { token: self.history.ask(open), kind }])
            }
            Ask::Defragment => Event::Defragment(self.history.ask(open)),
            Ask::Change | Ask::MoveLeader => return Ok(()),
        };
        let pause = self.rng.micros(1..500);
        self.soon(member, pause, Step::Arrive(event));
        Ok(())
    }

    fn read_at_once(&mut self, open: &Open, range: Option<&RangeRequest>) -> Result<(), Violation> {
        self.read_for(open, range)?;
        self.next_ask(open.client);
        Ok(())
    }

    /// Reads a range, or without one the hash that `open` asks for, and judges what comes.
    fn read_for(&mut self, open: &Open, range: Option<&RangeRequest>) -> Result<(), Violation> {
        let member = &self.members[open.member];
        let Some(process) = &member.process else { return Ok(()) };
        let reader = process.node.reader();
        let applied = process.node.gate().applied_index();
        let found = match (range, &open.ask) {
            (Some(range), _) => self.judge.range(&reader, applied, range)?,
            (None, Ask::Hash(revision)) => self.judge.hash(&reader, applied, *revision)?,
            (None, _) => return Ok(()),
        };
        self.trace.line(self.agenda.now(), || format!("client {} reads {found:?}", open.client));
        match found {
            Found::Answer(revision) => {
                self.history.counts.answered += 1;
                self.history.told = self.history.told.max(revision);
                if revision < open.floor {
                    let floor = open.floor;
                    return Err(Violation(format!("a read at {revision} after {floor} was told")));
                }
            }
            Found::Refusal => self.history.counts.refused += 1,
            Found::Fault if member.disk.faults_struck() == 0 && !self.is_damaged(open.member) => {
                return Err(Violation::new("a read meets a fault on a good disk"));
            }
            Found::Fault => self.history.counts.failed += 1,
        }
        Ok(())
    }

    /// Takes in an answer that was judged when it left the node.
    pub(super) fn answered(&mut self, open: &Open, answer: &Answer) -> Result<(), Violation> {
        let counts = &mut self.history.counts;
        match (&open.ask, answer) {
            (Ask::Range(range), Answer::ReadReady) => {
                let range = range.clone();
                return self.read_for(open, Some(&range));
            }
            (_, Answer::Failed(_)) => counts.failed += 1,
            (_, Answer::Applied(Outcome { result: Err(_), .. })) => counts.refused += 1,
            (_, _) => counts.answered += 1,
        }
        Ok(())
    }
}

fn encode(id: u64, request: &InternalRaftRequest) -> Bytes {
    let header = RequestHeader { id, ..RequestHeader::default() };
    let request = InternalRaftRequest { header: Some(header), ..request.clone() };
    request.encode_to_vec().into()
}
