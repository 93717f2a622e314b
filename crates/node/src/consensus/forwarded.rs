//! Reads that followers forward to this leader.
//!
//! A follower may repeat a context, on purpose or after a restart; raft-rs would then take an old round's heartbeats
//! for the new one's. So each forwarded read gets a context of ours, and its answer gets the follower's back.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::raftpb;
use raft::eraftpb::{self, MessageType};

use super::convert::{self, Unusable};

/// Forwarded reads without an answer. A read beyond is dropped, and its follower asks again.
const FORWARDED_MAX: usize = 4096;

/// Contexts of ours, with the ones they stand for.
#[derive(Debug, Default)]
pub(super) struct ForwardedReads {
    term: u64,
    contexts: BTreeMap<u64, Bytes>,
}

impl ForwardedReads {
    /// Puts `fresh` in place of the context of `message`, a read for the leader of `term`.
    pub(super) fn admit(
        &mut self,
        message: &mut raftpb::Message,
        fresh: u64,
        term: u64,
    ) -> Result<(), Unusable> {
        if self.term != term {
            // Raft has forgotten the reads of former terms.
            self.term = term;
            self.contexts.clear();
        }
        if self.contexts.len() >= FORWARDED_MAX {
            return Err(Unusable::OutOfRange("number of reads"));
        }
        let Some(entry) = message.entries.first_mut() else {
            return Err(Unusable::OutOfRange("number of entries"));
        };
        let theirs =
            std::mem::replace(&mut entry.data, Bytes::copy_from_slice(&fresh.to_be_bytes()));
        self.contexts.insert(fresh, theirs);
        Ok(())
    }

    /// Gives messages to the wire, answers to reads with the contexts that were asked with.
    pub(super) fn answer(&mut self, messages: Vec<eraftpb::Message>) -> Vec<raftpb::Message> {
        messages.into_iter().filter_map(|message| self.answer_one(message)).collect()
    }

    fn answer_one(&mut self, mut message: eraftpb::Message) -> Option<raftpb::Message> {
        if message.msg_type() == MessageType::MsgReadIndexResp {
            let entry = message.entries.first_mut()?;
            let context = u64::from_be_bytes(entry.data.as_ref().try_into().ok()?);
            entry.data = self.contexts.remove(&context)?;
        }
        Some(convert::message_out(message))
    }
}
