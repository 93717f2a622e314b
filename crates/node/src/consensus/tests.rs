//! Members in one process, with message passing and disks that take their time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use prost::Message as _;

use super::*;

const ELECTION_TICKS: usize = 10;

/// A member with a disk that confirms when it is told to.
struct Member {
    consensus: Consensus,
    durable: Vec<raftpb::Entry>,
    hard_state: raftpb::HardState,
    disk: VecDeque<(u64, Persist)>,
    job: u64,
    applied: Vec<Committed>,
    reads: Vec<(u64, u64)>,
    fresh: u64,
}

impl Member {
    fn start(id: u64, hard_state: raftpb::HardState, entries: Vec<raftpb::Entry>) -> Self {
        let options = Options { id, election_ticks: ELECTION_TICKS, pre_vote: true, seed: 42 };
        let durable = Durable {
            hard_state,
            conf_state: raftpb::ConfState::default(),
            start: Position { index: 0, term: 0 },
            entries: entries.clone(),
            applied: 0,
        };
        let consensus = Consensus::new(options, durable).expect("a sound log");
        Self {
            consensus,
            durable: entries,
            hard_state,
            disk: VecDeque::new(),
            job: 0,
            applied: Vec::new(),
            reads: Vec::new(),
            fresh: id << 32,
        }
    }

    fn fresh(&mut self) -> u64 {
        self.fresh += 1;
        self.fresh
    }

    /// Carries out what raft asks for, but the disk's part.
    fn work(&mut self) -> Vec<raftpb::Message> {
        let mut messages = Vec::new();
        loop {
            let output = self.consensus.advance(self.job + 1);
            if let Some(persist) = output.persist {
                self.job += 1;
                self.disk.push_back((self.job, persist));
            }
            messages.extend(output.messages);
            self.reads.extend(output.reads);
            if output.committed.is_empty() {
                return messages;
            }
            for entry in output.committed {
                if let Payload::ConfChange(bytes) = &entry.payload {
                    let change = raftpb::ConfChange::decode(bytes.clone()).expect("a conf change");
                    self.consensus.apply_conf_change(&change).expect("a possible change");
                }
                self.consensus.applied_to(entry.index);
                self.applied.push(entry);
            }
        }
    }

    /// Lets the disk finish its oldest job.
    fn sync(&mut self) -> Vec<raftpb::Message> {
        let Some((job, persist)) = self.disk.pop_front() else { return Vec::new() };
        for entry in persist.entries {
            self.durable.truncate(usize::try_from(entry.index).expect("small") - 1);
            self.durable.push(entry);
        }
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = hard_state;
        }
        self.consensus.persisted(job)
    }

    fn requests(&self) -> Vec<String> {
        self.applied
            .iter()
            .filter_map(|entry| match &entry.payload {
                Payload::Request(data) if !data.is_empty() => {
                    Some(String::from_utf8_lossy(data).into_owned())
                }
                Payload::Request(_) | Payload::ConfChange(_) => None,
            })
            .collect()
    }
}

struct Cluster {
    members: BTreeMap<u64, Member>,
    cut: BTreeSet<u64>,
    /// Every heartbeat context that a leader sent.
    contexts: Vec<Bytes>,
    /// Everything that was sent.
    sent: u64,
}

fn conf_change(kind: raftpb::ConfChangeType, node_id: u64) -> Bytes {
    raftpb::ConfChange { id: 77, r#type: kind.into(), node_id, context: "{}".into() }
        .encode_to_vec()
        .into()
}

impl Cluster {
    fn new(size: u64) -> Self {
        let entries: Vec<raftpb::Entry> = (1..=size)
            .map(|id| raftpb::Entry {
                r#type: raftpb::EntryType::EntryConfChange.into(),
                term: 1,
                index: id,
                data: conf_change(raftpb::ConfChangeType::ConfChangeAddNode, id),
            })
            .collect();
        let hard_state = raftpb::HardState { term: 1, vote: 0, commit: size };
        let members =
            (1..=size).map(|id| (id, Member::start(id, hard_state, entries.clone()))).collect();
        Self { members, cut: BTreeSet::new(), contexts: Vec::new(), sent: 0 }
    }

    /// Works, syncs and delivers until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..1000 {
            let mut messages = Vec::new();
            for member in self.members.values_mut() {
                messages.extend(member.work());
                messages.extend(member.sync());
                messages.extend(member.work());
            }
            let is_idle = messages.is_empty() && self.members.values().all(|m| m.disk.is_empty());
            if is_idle {
                return;
            }
            self.deliver(messages);
        }
        panic!("the cluster does not settle");
    }

    fn deliver(&mut self, messages: Vec<raftpb::Message>) {
        for message in messages {
            self.sent += 1;
            if message.r#type() == raftpb::MessageType::MsgHeartbeat && !message.context.is_empty()
            {
                self.contexts.push(message.context.clone());
            }
            if self.cut.contains(&message.from) || self.cut.contains(&message.to) {
                continue;
            }
            // What is on the wire is bytes.
            let message =
                raftpb::Message::decode(message.encode_to_vec().as_slice()).expect("decodes");
            if let Some(member) = self.members.get_mut(&message.to) {
                let fresh = member.fresh();
                member.consensus.step(message, fresh).expect("an honest message");
            }
        }
    }

    fn tick(&mut self) {
        for member in self.members.values_mut() {
            member.consensus.tick();
        }
        self.settle();
    }

    fn leader(&self) -> Option<u64> {
        let leaders: Vec<u64> = self
            .members
            .iter()
            .filter(|(id, member)| !self.cut.contains(id) && member.consensus.status().is_leader())
            .map(|(id, _)| *id)
            .collect();
        assert!(leaders.len() <= 1, "two leaders: {leaders:?}");
        leaders.first().copied()
    }

    fn elect(&mut self) -> u64 {
        self.settle();
        for _ in 0..10 * ELECTION_TICKS {
            if let Some(leader) = self.leader() {
                return leader;
            }
            self.tick();
        }
        panic!("no leader");
    }

    fn member(&mut self, id: u64) -> &mut Member {
        self.members.get_mut(&id).expect("a member")
    }

    fn propose(&mut self, id: u64, requests: &[&'static str]) {
        let requests = requests.iter().map(|request| Bytes::from_static(request.as_bytes()));
        self.member(id).consensus.propose(requests).expect("a leader is known");
        self.settle();
    }
}

#[test]
fn a_lone_voter_elects_itself_at_once_and_commits_only_what_is_durable() {
    let mut cluster = Cluster::new(1);
    let member = cluster.member(1);
    assert!(member.work().is_empty());
    member.consensus.campaign();
    member.work();
    assert!(member.consensus.status().is_leader());
    assert!(!member.consensus.status().has_committed_in_term);
    member.consensus.propose([Bytes::from_static(b"a")]).expect("leads");
    member.work();
    assert!(member.requests().is_empty());
    assert_eq!(member.disk.len(), 2);
    member.sync();
    member.work();
    assert!(member.consensus.status().has_committed_in_term);
    assert!(member.requests().is_empty());
    member.sync();
    member.work();
    assert_eq!(member.requests(), ["a"]);
}

/// Shown by seed 300923: a learner had heard of a term that the lone voter forgot in a crash and began again.
#[test]
fn a_lone_voter_sends_nothing_before_its_vote_is_durable() {
    let entries: Vec<raftpb::Entry> = [
        (1, raftpb::ConfChangeType::ConfChangeAddNode),
        (2, raftpb::ConfChangeType::ConfChangeAddLearnerNode),
    ]
    .map(|(id, kind)| raftpb::Entry {
        r#type: raftpb::EntryType::EntryConfChange.into(),
        term: 1,
        index: id,
        data: conf_change(kind, id),
    })
    .into();
    let hard_state = raftpb::HardState { term: 1, vote: 0, commit: 2 };
    let mut voter = Member::start(1, hard_state, entries);
    let mut early = voter.work();
    voter.consensus.campaign();
    early.append(&mut voter.work());
    assert!(voter.consensus.status().is_leader());
    voter.consensus.propose([Bytes::from_static(b"request")]).expect("it leads");
    voter.consensus.tick();
    early.append(&mut voter.work());
    assert_eq!(early, []);
    let mut sent = voter.sync();
    assert!(sent.iter().any(|message| message.term == 2 && message.to == 2), "{sent:?}");
    while !voter.disk.is_empty() {
        sent.append(&mut voter.sync());
    }
    voter.consensus.propose([Bytes::from_static(b"another")]).expect("it leads");
    voter.consensus.tick();
    assert!(!voter.work().is_empty(), "from now on its disk is not waited for");
}

#[test]
fn three_members_elect_a_leader_and_apply_the_same() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let follower = 1 + leader % 3;
    cluster.propose(leader, &["a", "b"]);
    cluster.propose(follower, &["c"]);
    cluster.tick();
    let applied = cluster.member(leader).applied.clone();
    for member in cluster.members.values() {
        assert_eq!(member.requests(), ["a", "b", "c"]);
        assert_eq!(member.applied, applied);
        assert_eq!(member.durable.len(), applied.len());
    }
}

#[test]
fn equal_seeds_give_equal_runs() {
    let run = || {
        let mut cluster = Cluster::new(3);
        let first = cluster.elect();
        cluster.cut.insert(first);
        let second = cluster.elect();
        cluster.propose(second, &["x"]);
        (first, second, cluster.sent, cluster.member(second).consensus.status())
    };
    assert_eq!(run(), run());
}

#[test]
fn a_follower_acknowledges_only_what_is_durable() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let follower = 1 + leader % 3;
    let member = cluster.member(leader);
    member.consensus.propose([Bytes::from_static(b"a")]).expect("leads");
    let messages = member.work();
    assert!(!messages.is_empty(), "a leader's entries leave before its own disk is done");
    assert_eq!(member.disk.len(), 1);
    let append = messages.into_iter().find(|message| message.to == follower).expect("sent to all");
    let member = cluster.member(follower);
    member.consensus.step(append, 1).expect("honest");
    assert_eq!(member.work(), []);
    let messages = member.sync();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].r#type(), raftpb::MessageType::MsgAppResp);
    assert_eq!(messages[0].index, u64::try_from(member.durable.len()).expect("small"));
}

#[test]
fn a_new_leader_keeps_what_was_committed_and_an_old_one_loses_the_rest() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    cluster.propose(old, &["kept"]);
    cluster.cut.insert(old);
    cluster.propose(old, &["lost"]);
    let new = cluster.elect();
    assert_ne!(new, old);
    cluster.propose(new, &["after"]);
    cluster.cut.clear();
    for _ in 0..3 * ELECTION_TICKS {
        cluster.tick();
    }
    let leader = cluster.leader().expect("a leader");
    let durable = cluster.member(leader).durable.clone();
    for member in cluster.members.values() {
        assert_eq!(member.requests(), ["kept", "after"]);
        assert_eq!(member.durable, durable);
    }
}

/// A removal of the leader that it proposes itself, or that a follower forwards.
fn part(cluster: &mut Cluster, leader: u64, proposer: u64) {
    let removal = conf_change(raftpb::ConfChangeType::ConfChangeRemoveNode, leader);
    let result = cluster.member(proposer).consensus.propose_conf_change(removal.clone());
    assert_eq!(result.is_err(), proposer == leader, "the leader gives up its office first");
    if proposer != leader {
        // Without waiting for the forwarded one, there is this one; and nothing is lost of what comes while leadership moves.
        let other = cluster.members.keys().copied().find(|id| ![leader, proposer].contains(id));
        let requests = [Bytes::from_static(b"meanwhile")];
        cluster.member(other.expect("three")).consensus.propose(requests).expect("a leader");
    }
    cluster.settle();
    let heir = cluster.leader().expect("a leader, without one tick");
    assert_ne!(heir, leader);
    if proposer == leader {
        cluster.member(leader).consensus.propose_conf_change(removal).expect("it is forwarded");
        cluster.settle();
    }
    assert_eq!(cluster.member(heir).consensus.conf_state().voters.len(), 2);
    assert!(!cluster.member(leader).consensus.has_unsent());
    assert!(!cluster.member(leader).consensus.has_farewell(), "it did not lead");
    cluster.propose(heir, &["after"]);
    let requests = cluster.member(heir).requests();
    assert_eq!(requests.contains(&"meanwhile".to_owned()), proposer != leader, "{requests:?}");
    assert_eq!(requests.last().map(String::as_str), Some("after"));
}

#[test]
fn a_leader_that_is_to_be_removed_gives_its_office_away_first() {
    for own in [true, false] {
        let mut cluster = Cluster::new(3);
        let leader = cluster.elect();
        let follower = cluster.members.keys().copied().find(|id| *id != leader).expect("three");
        part(&mut cluster, leader, if own { leader } else { follower });
    }
}

#[test]
fn a_leader_whom_nobody_follows_proposes_its_removal_after_a_while() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    cluster.cut.extend(cluster.members.keys().copied().filter(|id| *id != leader));
    let last = cluster.member(leader).consensus.last();
    let removal = conf_change(raftpb::ConfChangeType::ConfChangeRemoveNode, leader);
    assert!(cluster.member(leader).consensus.propose_conf_change(removal.clone()).is_err());
    let mut tries = 0;
    while cluster.member(leader).consensus.propose_conf_change(removal.clone()).is_err() {
        tries += 1;
        assert!(tries <= ELECTION_TICKS, "the hand-over does not end");
        cluster.member(leader).consensus.tick();
    }
    assert_eq!(cluster.member(leader).consensus.last(), last + 1);
}

#[test]
fn what_peers_propose_to_a_member_that_knows_no_leader_waits_for_one() {
    let mut cluster = Cluster::new(3);
    cluster.settle();
    let entry = raftpb::Entry { data: "early".into(), ..Default::default() };
    let message = raftpb::Message {
        r#type: raftpb::MessageType::MsgProp.into(),
        to: 1,
        from: 2,
        entries: vec![entry],
        ..Default::default()
    };
    cluster.member(1).consensus.step(message, 1).expect("an honest message");
    let leader = cluster.elect();
    assert_eq!(cluster.member(leader).requests(), ["early"]);
}

#[test]
fn a_restarted_member_goes_on_from_its_disk() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let follower = 1 + leader % 3;
    cluster.propose(leader, &["a"]);
    let before = cluster.member(follower);
    let again = Member::start(follower, before.hard_state, before.durable.clone());
    cluster.members.insert(follower, again);
    cluster.propose(leader, &["b"]);
    cluster.tick();
    assert_eq!(cluster.member(follower).requests(), ["a", "b"]);
}

#[test]
fn update_node_changes_nothing_in_raft_and_blocks_nothing() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let update = conf_change(raftpb::ConfChangeType::ConfChangeUpdateNode, 2);
    cluster.member(leader).consensus.propose_conf_change(update.clone()).expect("leads");
    cluster.settle();
    cluster.tick();
    for member in cluster.members.values() {
        let last = member.applied.last().expect("applied");
        assert_eq!(last.payload, Payload::ConfChange(update.clone()));
        assert_eq!(member.durable.last().expect("durable").data, update);
        assert_eq!(member.consensus.conf_state().voters, [1, 2, 3]);
    }
    // A learner, whose number in raft-rs is the one that etcd gives to UpdateNode.
    let learner = conf_change(raftpb::ConfChangeType::ConfChangeAddLearnerNode, 4);
    cluster.member(leader).consensus.propose_conf_change(learner).expect("leads");
    cluster.settle();
    cluster.tick();
    assert_eq!(cluster.member(leader).consensus.conf_state().learners, [4]);
    let remove = conf_change(raftpb::ConfChangeType::ConfChangeRemoveNode, 4);
    cluster.member(leader).consensus.propose_conf_change(remove).expect("leads");
    cluster.settle();
    cluster.tick();
    for member in cluster.members.values() {
        assert_eq!(member.consensus.conf_state().voters, [1, 2, 3]);
        assert_eq!(member.consensus.conf_state().learners, [0; 0]);
    }
}

#[test]
fn a_learner_never_campaigns() {
    let mut cluster = Cluster::new(2);
    let leader = cluster.elect();
    let learner = conf_change(raftpb::ConfChangeType::ConfChangeAddLearnerNode, 3);
    cluster.member(leader).consensus.propose_conf_change(learner).expect("leads");
    cluster.settle();
    let durable = cluster.member(leader).durable.clone();
    let commit = durable.len() as u64;
    let mut member = Member::start(3, raftpb::HardState { term: 5, vote: 0, commit }, durable);
    member.work();
    assert_eq!(member.consensus.status().role, Role::Learner);
    member.consensus.campaign();
    for _ in 0..5 * ELECTION_TICKS {
        member.consensus.tick();
        assert_eq!(member.work(), []);
    }
}

#[test]
fn read_contexts_are_never_used_twice_even_if_followers_repeat_theirs() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let follower = 1 + leader % 3;
    cluster.propose(leader, &["a"]);
    let repeated = 0xabcd;
    for round in 1..=3 {
        cluster.member(follower).consensus.read_index(repeated);
        cluster.settle();
        let commit = cluster.member(leader).consensus.status().commit;
        assert_eq!(cluster.member(follower).reads.len(), round);
        assert_eq!(cluster.member(follower).reads.last(), Some(&(repeated, commit)));
        cluster.propose(leader, &["b"]);
    }
    let fresh = cluster.member(leader).fresh();
    cluster.member(leader).consensus.read_index(fresh);
    cluster.settle();
    assert_eq!(cluster.member(leader).reads.len(), 1);
    let contexts: BTreeSet<Bytes> = cluster.contexts.iter().cloned().collect();
    assert_eq!(contexts.len(), 4, "one context for each of the four rounds");
    assert!(!contexts.contains(&Bytes::copy_from_slice(&u64::to_be_bytes(repeated))));
}

#[test]
fn a_deposed_leader_confirms_no_read() {
    let mut cluster = Cluster::new(3);
    let old = cluster.elect();
    cluster.cut.insert(old);
    let fresh = cluster.member(old).fresh();
    cluster.member(old).consensus.read_index(fresh);
    let new = cluster.elect();
    cluster.propose(new, &["newer"]);
    cluster.cut.clear();
    for _ in 0..2 * ELECTION_TICKS {
        cluster.tick();
    }
    assert_eq!(cluster.member(old).reads, []);
}

#[test]
fn reads_before_the_terms_first_commit_are_not_answered() {
    let mut cluster = Cluster::new(1);
    let member = cluster.member(1);
    member.work();
    member.consensus.campaign();
    member.consensus.read_index(5);
    member.work();
    assert_eq!(member.reads, []);
    member.sync();
    member.work();
    member.consensus.read_index(6);
    member.work();
    assert_eq!(member.reads, [(6, 2)]);
}

#[test]
fn a_commit_index_alone_is_not_worth_a_write() {
    let mut cluster = Cluster::new(1);
    let member = cluster.member(1);
    member.work();
    member.consensus.campaign();
    member.work();
    member.sync();
    member.work();
    assert!(member.disk.is_empty());
    assert_eq!(member.consensus.take_lazy_commit().map(|state| state.commit), Some(2));
    assert_eq!(member.consensus.take_lazy_commit(), None);
}

#[test]
fn entries_in_memory_are_trimmed_and_followers_still_catch_up() {
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect();
    let follower = 1 + leader % 3;
    cluster.cut.insert(follower);
    for _ in 0..20 {
        cluster.propose(leader, &["x"]);
    }
    cluster.member(leader).consensus.trim(30, usize::MAX);
    cluster.cut.clear();
    for _ in 0..2 * ELECTION_TICKS {
        cluster.tick();
    }
    assert_eq!(cluster.member(follower).requests().len(), 20);
    cluster.member(leader).consensus.trim(3, usize::MAX);
    assert_eq!(cluster.member(leader).consensus.in_memory().0, 3);
}

#[test]
fn what_does_not_fit_together_is_told_at_start() {
    let options = Options { id: 1, election_ticks: 10, pre_vote: true, seed: 1 };
    let durable = |applied, commit, index| Durable {
        hard_state: raftpb::HardState { term: 1, vote: 0, commit },
        conf_state: raftpb::ConfState { voters: vec![1], ..Default::default() },
        start: Position { index: 0, term: 0 },
        entries: vec![raftpb::Entry { term: 1, index, ..Default::default() }],
        applied,
    };
    assert!(Consensus::new(options, durable(1, 0, 1)).is_ok());
    assert!(Consensus::new(options, durable(2, 0, 1)).is_err());
    assert!(Consensus::new(options, durable(0, 2, 1)).is_err());
    assert!(Consensus::new(options, durable(0, 0, 2)).is_err());
}

/// A sequence of numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A number that is likely to be near an edge of something.
    fn index(&mut self, near: u64) -> u64 {
        match self.below(48) {
            0 => 0,
            1 => u64::MAX - self.below(3),
            2 => 1 << (self.below(64)),
            _ => near.saturating_add(self.below(6)).saturating_sub(3),
        }
    }

    fn message(&mut self, near: u64, term: u64) -> raftpb::Message {
        let index = self.index(near);
        let term =
            if self.below(500) == 0 { self.index(term) } else { term.wrapping_add(self.below(2)) };
        let count = self.below(4);
        let entries = (1..=count)
            .map(|step| {
                let index =
                    if self.below(8) == 0 { self.index(near) } else { index.wrapping_add(step) };
                let kind = if self.below(8) == 0 { self.below(4) } else { 0 };
                let r#type = i32::try_from(kind).expect("small");
                let data =
                    if self.below(2) == 0 { Bytes::from_static(b"12345678") } else { Bytes::new() };
                let term = if self.below(4) == 0 { term.saturating_sub(1) } else { term };
                raftpb::Entry { r#type, term, index, data }
            })
            .collect();
        raftpb::Message {
            r#type: i32::try_from(if self.below(8) == 0 {
                self.below(25)
            } else {
                2 + self.below(17)
            })
            .expect("small"),
            to: if self.below(16) == 0 { self.below(5) } else { 1 },
            from: if self.below(16) == 0 { self.below(5) } else { 2 + self.below(2) },
            term: if self.below(8) == 0 { 0 } else { term },
            log_term: if self.below(8) == 0 {
                self.index(term)
            } else {
                u64::from(index > 0) * term.saturating_sub(self.below(3))
            },
            index,
            entries,
            commit: self.index(near),
            reject: self.below(2) == 0,
            reject_hint: self.index(near),
            context: if self.below(2) == 0 {
                Bytes::new()
            } else {
                Bytes::from_static(b"context!")
            },
            ..Default::default()
        }
    }
}

#[test]
fn no_message_of_a_peer_panics_a_member() {
    let mut taken = 0;
    for seed in 0..60 {
        let mut numbers = Numbers(seed);
        let mut cluster = Cluster::new(3);
        if seed % 2 == 0 {
            let leader = cluster.elect();
            cluster.propose(leader, &["a", "b", "c"]);
        }
        let member = cluster.member(1);
        for round in 0..1500 {
            let status = member.consensus.status();
            let near = if round % 2 == 0 { status.commit } else { member.consensus.last() };
            let message = numbers.message(near, status.term);
            let fresh = member.fresh();
            taken += u32::from(member.consensus.step(message, fresh).is_ok());
            match numbers.below(6) {
                0 => member.consensus.tick(),
                1 => drop(member.work()),
                2 => drop(member.sync()),
                3 => {
                    let fresh = member.fresh();
                    member.consensus.read_index(fresh);
                }
                _ => {}
            }
        }
    }
    assert!(taken > 60 * 200, "almost nothing passed validation: {taken}");
}

/// A leader's message with a snapshot for member 2 of three.
fn snapshot(term: u64, index: u64) -> raftpb::Message {
    let conf_state = raftpb::ConfState { voters: vec![1, 2, 3], ..Default::default() };
    let metadata = raftpb::SnapshotMetadata { conf_state, index, term };
    raftpb::Message {
        r#type: raftpb::MessageType::MsgSnap.into(),
        from: 1,
        to: 2,
        term,
        snapshot: Some(raftpb::Snapshot { data: Bytes::new(), metadata }),
        ..raftpb::Message::default()
    }
}

#[test]
fn a_snapshot_takes_the_place_of_the_log_and_nobody_campaigns_before_its_state_is_there() {
    let mut cluster = Cluster::new(3);
    cluster.settle();
    let member = cluster.member(2);
    member.consensus.step_snapshot(snapshot(5, 80)).expect("a sound snapshot");
    let output = member.consensus.advance(1);
    let restored = output.restored.expect("it is further than the log");
    assert_eq!(restored, Position { index: 80, term: 5 });
    let hard_state = output.persist.and_then(|persist| persist.hard_state).expect("it commits");
    assert_eq!((hard_state.term, hard_state.commit), (5, 80));
    assert!(output.messages.is_empty(), "nothing is promised before it is durable");
    // Raft would look for the entries in between.
    member.consensus.campaign();
    for _ in 0..3 * ELECTION_TICKS {
        member.consensus.tick();
    }
    let now = raftpb::Message {
        r#type: raftpb::MessageType::MsgTimeoutNow.into(),
        from: 1,
        to: 2,
        term: 5,
        ..raftpb::Message::default()
    };
    assert_eq!(member.consensus.step(now, 1), Err(Unusable::Early));
    let answers = member.consensus.persisted(1);
    assert_eq!(answers.iter().map(|answer| answer.index).collect::<Vec<_>>(), [80]);
    member.consensus.applied_to(80);
    member.consensus.campaign();
    assert!(!member.consensus.advance(2).messages.is_empty(), "now it may");
}

#[test]
fn a_snapshot_counts_even_if_the_entries_behind_it_are_being_replaced() {
    let mut cluster = Cluster::new(3);
    cluster.settle();
    let member = cluster.member(2);
    let append = |term: u64, index: u64, log_term: u64, count: u64| raftpb::Message {
        r#type: raftpb::MessageType::MsgApp.into(),
        from: 1,
        to: 2,
        term,
        log_term,
        index,
        entries: (index + 1..=index + count)
            .map(|index| raftpb::Entry { r#type: 0, term, index, data: Bytes::new() })
            .collect(),
        ..raftpb::Message::default()
    };
    member.consensus.step(append(2, 3, 1, 97), 1).expect("entries 4 to 100");
    assert!(member.consensus.advance(1).persist.is_some());
    member.consensus.step_snapshot(snapshot(5, 80)).expect("a sound snapshot");
    assert!(member.consensus.advance(2).restored.is_some());
    member.consensus.step(append(5, 80, 5, 1), 1).expect("entry 81 of another history");
    assert!(member.consensus.advance(3).persist.is_some());
    // One report for the first two jobs, while the third is under way.
    member.consensus.persisted(2);
    member.consensus.applied_to(80);
    member.consensus.persisted(3);
}

#[test]
fn what_contradicts_a_committed_entry_is_refused() {
    let mut cluster = Cluster::new(3);
    cluster.settle();
    let member = cluster.member(2);
    let message = raftpb::Message {
        r#type: raftpb::MessageType::MsgApp.into(),
        from: 1,
        to: 2,
        term: 9,
        log_term: 1,
        index: 1,
        entries: vec![raftpb::Entry { r#type: 0, term: 9, index: 2, data: Bytes::new() }],
        ..raftpb::Message::default()
    };
    let refused = Err(Unusable::OutOfRange("term of a committed entry"));
    assert_eq!(member.consensus.step(message, 1), refused);
    for (term, index, voters) in [
        (5, 0, vec![1, 2]),
        (0, 80, vec![1, 2]),
        (5, 80, vec![]),
        (5, 80, vec![0, 2]),
        (5, 80, vec![2, 2]),
    ] {
        let mut message = snapshot(term, index);
        let conf_state = raftpb::ConfState { voters, ..Default::default() };
        message.term = 5;
        if let Some(snapshot) = &mut message.snapshot {
            snapshot.metadata.conf_state = conf_state;
        }
        assert!(member.consensus.step_snapshot(message.clone()).is_err(), "{message:?}");
    }
}
