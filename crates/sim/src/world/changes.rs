//! Changes of the membership: one client adds, promotes, moves and removes members, and starts those that were added.

use std::time::Duration;

use bytes::Bytes;
use machine::membership;
use machine::schema::conf_change_context;
use node::{Event, Identity, Proposal};
use prost::Message as _;
use proto::raftpb::{ConfChange, ConfChangeType};

use super::{Act, Due, Step, World};
use crate::cluster::Member;
use crate::history::Open;
use crate::scenario::{self, url_of};
use crate::workload::Ask;

/// Members at a time, at most.
const MEMBERS_MAX: usize = 7;

/// Ids of members that join; those of the beginning are hashes.
const FIRST_ID: u64 = 0x4000_0000_0000_0000;

impl World {
    /// Tells whether a client is the one that changes the membership.
    pub(super) fn is_admin(&self, client: usize) -> bool {
        client == self.scenario.clients
    }

    /// Makes the next change.
    pub(super) fn change(&mut self, client: usize) {
        self.start_added();
        if self.act != Act::Work || self.changes_left == 0 {
            if self.act != Act::Over {
                self.agenda.after(Duration::from_millis(200), Due::Client { client });
            }
            return;
        }
        let asked = self.draw_change().and_then(|(kind, id, context)| {
            let is_promotion = kind == ConfChangeType::ConfChangeAddNode
                && self.judge.model().group().members().contains_key(&id);
            let member = if is_promotion { self.leader() } else { self.running() }?;
            self.changes_left -= 1;
            self.ask_change(member, client, is_promotion, (kind, id, context));
            Some(())
        });
        if asked.is_none() {
            self.agenda.after(Duration::from_millis(100), Due::Client { client });
        }
    }

    fn ask_change(
        &mut self,
        member: usize,
        client: usize,
        is_promotion: bool,
        (kind, node_id, context): (ConfChangeType, u64, Bytes),
    ) {
        let Some(process) = &self.members[member].process else { return };
        let id = process.node.request_ids().next();
        let change = ConfChange { id, r#type: kind.into(), node_id, context };
        let since = self.agenda.now();
        self.trace.line(since, || format!("m{} is asked for {change:?}", member + 1));
        let data: Bytes = change.encode_to_vec().into();
        let ask = Ask::Change;
        let (floor, floor_index) = (self.history.told, self.judge.acknowledged());
        let open = Open { member, client, ask, id, since, floor, floor_index };
        self.judge.propose(id, data.clone());
        let proposal = Proposal { token: self.history.ask(open), id, data };
        let promotes = is_promotion.then_some(node_id);
        let pause = self.rng.micros(1..500);
        let event = Event::ProposeConfChange { proposal, promotes };
        self.soon(member, pause, Step::Arrive(event));
    }

    fn draw_change(&mut self) -> Option<(ConfChangeType, u64, Bytes)> {
        let group = self.judge.model().group();
        let members: Vec<u64> = group.members().keys().copied().collect();
        let voters: Vec<u64> = group.voters().collect();
        let learner =
            group.members().iter().find(|(_, is_learner)| **is_learner).map(|(id, _)| *id);
        // Nobody adds members to a cluster that could not bear it, or takes some from one in need.
        let is_running = |id: &u64| {
            let place = self.place_of(*id);
            place.is_some_and(|place| self.members[place].process.is_some())
        };
        let are_all_running = members.iter().all(is_running);
        let added = FIRST_ID + u64::from(self.changes_left);
        // No two changes have the same.
        let peer_urls = vec![url_of(100 + u64::from(self.changes_left))];
        let as_member = |is_learner| membership::Member {
            id: added,
            peer_urls: peer_urls.clone(),
            is_learner,
            ..membership::Member::default()
        };
        match self.rng.below(8) {
            0 | 1 if members.len() < MEMBERS_MAX && are_all_running => {
                let context = conf_change_context(&as_member(false), false);
                Some((ConfChangeType::ConfChangeAddNode, added, context))
            }
            2 | 3 if members.len() < MEMBERS_MAX && learner.is_none() => {
                let context = conf_change_context(&as_member(true), false);
                Some((ConfChangeType::ConfChangeAddLearnerNode, added, context))
            }
            4 | 5 => {
                let id = learner?;
                let member = membership::Member { id, ..membership::Member::default() };
                let context = conf_change_context(&member, true);
                Some((ConfChangeType::ConfChangeAddNode, id, context))
            }
            // Of two voters, one that removes itself may be gone before the other one learns that it leads alone.
            6 if voters.len() != 2 && are_all_running => {
                let id = self.rng.pick(&members);
                (voters != [id]).then_some((ConfChangeType::ConfChangeRemoveNode, id, Bytes::new()))
            }
            _ => {
                let id = self.rng.pick(&members);
                let member = membership::Member { id, ..as_member(false) };
                let context = conf_change_context(&member, false);
                Some((ConfChangeType::ConfChangeUpdateNode, id, context))
            }
        }
    }

    /// Starts members that are in the cluster and were never started.
    fn start_added(&mut self) {
        let ids: Vec<u64> = self.judge.model().group().members().keys().copied().collect();
        for id in ids {
            if self.place_of(id).is_some() {
                continue;
            }
            let Some(process) = self.members.iter().find_map(|member| member.process.as_ref())
            else {
                return;
            };
            let identity = Identity { member: id, cluster: process.node.gate().cluster() };
            let place = self.members.len();
            let config =
                scenario::for_joining(&self.scenario.configs[0], place as u64 + 1, identity);
            let drift = self.scenario.drifts[place % self.scenario.drifts.len()];
            self.members.push(Member::new(id, config, drift));
            self.trace.line(self.agenda.now(), || format!("m{} joins as {id:x}", place + 1));
            self.plan_start(place);
        }
    }
}
