//! Messages from other members: any that decode, to a member of three.
//!
//! A peer may be wrong or lie; it may stop nobody but itself.

use bytes::Bytes;
use node::{Event, Proposal, Token};
use prost::Message;
use proto::raftpb;

use crate::input::Input;
use crate::world::Member;

const STEPS_MAX: usize = 64;
/// Numbers up to this are taken as they are; larger ones are relative to the member's own.
const ABSOLUTE_MAX: u64 = 200;

/// Runs the target.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut member = Member::start(3);
    let ids: Vec<u64> =
        member.node.reader().membership().members().map(|member| member.id).collect();
    let peers = Peers { ids, own: member.node.gate().member() };
    for _ in 0..STEPS_MAX {
        if input.is_empty() || member.has_ended {
            break;
        }
        match input.byte() % 8 {
            0 => {
                if let Ok(message) = raftpb::Message::decode(input.piece()) {
                    member.handle([Event::Step(vec![message])]);
                }
            }
            1 => member.tick(),
            2 => {
                let proposal = Proposal {
                    token: Token(0),
                    id: 1,
                    data: Bytes::copy_from_slice(input.piece()),
                };
                member.handle([Event::Propose(vec![proposal])]);
            }
            3 => member.handle([Event::Read(vec![Token(0)])]),
            4 => answer(&mut member, &mut input),
            _ => {
                let message = peers.message(&member, &mut input);
                member.handle([Event::Step(vec![message])]);
            }
        }
        member.completions.clear();
        member.batches.clear();
    }
}

/// Grants or acknowledges what the member asks for, as a peer without a mind of its own does.
fn answer(member: &mut Member, input: &mut Input<'_>) {
    use raftpb::MessageType as Kind;
    let reject = input.byte() & 1 != 0;
    for request in std::mem::take(&mut member.messages) {
        let kind = match Kind::try_from(request.r#type) {
            Ok(Kind::MsgPreVote) => Kind::MsgPreVoteResp,
            Ok(Kind::MsgVote) => Kind::MsgVoteResp,
            Ok(Kind::MsgApp) => Kind::MsgAppResp,
            Ok(Kind::MsgHeartbeat) => Kind::MsgHeartbeatResp,
            _ => continue,
        };
        let message = raftpb::Message {
            r#type: kind.into(),
            to: request.from,
            from: request.to,
            term: request.term,
            index: request.index + request.entries.len() as u64,
            reject,
            context: request.context,
            ..Default::default()
        };
        member.handle([Event::Step(vec![message])]);
    }
}

/// The other members.
struct Peers {
    ids: Vec<u64>,
    own: u64,
}

impl Peers {
    fn id(&self, byte: u8) -> u64 {
        match self.ids.get(usize::from(byte)) {
            Some(id) => *id,
            None if byte == u8::MAX => self.own,
            None => u64::from(byte),
        }
    }

    /// A message whose numbers are near the member's own.
    fn message(&self, member: &Member, input: &mut Input<'_>) -> raftpb::Message {
        let gate = member.node.gate();
        let near = |number: u64, own: u64| match number {
            0..=ABSOLUTE_MAX => number,
            _ => own.wrapping_add(number).wrapping_sub(228),
        };
        let kind = i32::from(input.byte() % 24);
        let flags = input.byte();
        let (term, commit) = (gate.term(), gate.commit_index());
        let count = input.byte() % 4;
        let entries = (0..count).map(|_| raftpb::Entry {
            r#type: i32::from(input.byte() % 4),
            term: near(input.number(), term),
            index: near(input.number(), commit),
            data: Bytes::copy_from_slice(input.piece()),
        });
        let entries = entries.collect();
        let snapshot = (flags & 1 != 0).then(|| raftpb::Snapshot {
            data: Bytes::copy_from_slice(input.piece()),
            metadata: raftpb::SnapshotMetadata {
                conf_state: raftpb::ConfState {
                    voters: (0..input.byte() % 4).map(|_| self.id(input.byte())).collect(),
                    learners: (0..input.byte() % 4).map(|_| self.id(input.byte())).collect(),
                    ..Default::default()
                },
                index: near(input.number(), commit),
                term: near(input.number(), term),
            },
        });
        raftpb::Message {
            r#type: kind,
            to: if flags & 2 == 0 { self.own } else { self.id(input.byte()) },
            from: self.id(input.byte()),
            term: near(input.number(), term),
            log_term: near(input.number(), term),
            index: near(input.number(), commit),
            entries,
            commit: near(input.number(), commit),
            snapshot,
            reject: flags & 4 != 0,
            reject_hint: near(input.number(), commit),
            context: Bytes::copy_from_slice(input.piece()),
            ..Default::default()
        }
    }
}
