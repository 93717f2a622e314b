//! Who votes, as the log's configuration changes have it.

use std::collections::{BTreeMap, BTreeSet};

use machine::Refusal;
use proto::raftpb::{ConfChange, ConfChangeType};

/// The members of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// By id: whether it is a learner.
    members: BTreeMap<u64, bool>,
    removed: BTreeSet<u64>,
}

/// Learners that may be there at a time, as etcd has it.
const LEARNERS_MAX: usize = 1;

impl Group {
    /// The group that a cluster begins with.
    pub fn new(voters: impl IntoIterator<Item = u64>) -> Self {
        let members = voters.into_iter().map(|id| (id, false)).collect();
        Self { members, removed: BTreeSet::new() }
    }

    /// All members by id, and whether each is a learner.
    pub fn members(&self) -> &BTreeMap<u64, bool> {
        &self.members
    }

    /// Those with a vote.
    pub fn voters(&self) -> impl Iterator<Item = u64> {
        self.members.iter().filter(|(_, is_learner)| !**is_learner).map(|(id, _)| *id)
    }

    /// Tells whether a member was removed.
    pub fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    /// Applies a change; a refused one changes nothing. URLs are always new in a simulated cluster.
    pub fn apply(&mut self, change: &ConfChange) -> Result<(), Refusal> {
        let id = change.node_id;
        if self.removed.contains(&id) {
            return Err(Refusal::MemberIdRemoved);
        }
        let known = self.members.get(&id).copied();
        let promotes = change.context.windows(16).any(|part| part == b"\"isPromote\":true");
        match (change.r#type(), known) {
            (ConfChangeType::ConfChangeAddNode, _) if promotes => match known {
                None => Err(Refusal::MemberIdNotFound),
                Some(false) => Err(Refusal::MemberNotLearner),
                Some(true) => {
                    self.members.insert(id, false);
                    Ok(())
                }
            },
            (
                ConfChangeType::ConfChangeAddNode | ConfChangeType::ConfChangeAddLearnerNode,
                Some(_),
            ) => Err(Refusal::MemberIdExists),
            (ConfChangeType::ConfChangeAddNode, None) => {
                self.members.insert(id, false);
                Ok(())
            }
            (ConfChangeType::ConfChangeAddLearnerNode, None) => {
                if self.members.values().filter(|is_learner| **is_learner).count() >= LEARNERS_MAX {
                    return Err(Refusal::TooManyLearners);
                }
                self.members.insert(id, true);
                Ok(())
            }
            (_, None) => Err(Refusal::MemberIdNotFound),
            (ConfChangeType::ConfChangeUpdateNode, Some(_)) => Ok(()),
            (ConfChangeType::ConfChangeRemoveNode, Some(_)) => {
                self.members.remove(&id);
                self.removed.insert(id);
                Ok(())
            }
        }
    }
}
