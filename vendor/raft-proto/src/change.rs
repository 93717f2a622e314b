//! What raft asks about configurations and their changes.

use std::borrow::Cow;

use crate::eraftpb::{
    ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState,
};

/// Makes a change of one member.
pub fn new_conf_change_single(node_id: u64, change_type: ConfChangeType) -> ConfChangeSingle {
    ConfChangeSingle { change_type: change_type.into(), node_id }
}

/// A configuration change of either form.
pub trait ConfChangeI {
    /// Turns the change into the general form.
    fn into_v2(self) -> ConfChangeV2;

    /// Shows the change in the general form.
    fn as_v2(&self) -> Cow<'_, ConfChangeV2>;

    /// Shows the change in the simple form, if it has that form.
    fn as_v1(&self) -> Option<&ConfChange>;
}

impl ConfChangeI for ConfChange {
    fn into_v2(self) -> ConfChangeV2 {
        let single = ConfChangeSingle { change_type: self.change_type, node_id: self.node_id };
        ConfChangeV2 { transition: 0, changes: vec![single], context: self.context }
    }

    fn as_v2(&self) -> Cow<'_, ConfChangeV2> {
        Cow::Owned(self.clone().into_v2())
    }

    fn as_v1(&self) -> Option<&ConfChange> {
        Some(self)
    }
}

impl ConfChangeI for ConfChangeV2 {
    fn into_v2(self) -> ConfChangeV2 {
        self
    }

    fn as_v2(&self) -> Cow<'_, ConfChangeV2> {
        Cow::Borrowed(self)
    }

    fn as_v1(&self) -> Option<&ConfChange> {
        None
    }
}

impl ConfChangeV2 {
    /// Tells whether the change needs a joint configuration, and if so whether raft leaves it by itself.
    pub fn enter_joint(&self) -> Option<bool> {
        match self.transition() {
            ConfChangeTransition::Auto if self.changes.len() <= 1 => None,
            ConfChangeTransition::Auto | ConfChangeTransition::Implicit => Some(true),
            ConfChangeTransition::Explicit => Some(false),
        }
    }

    /// Tells whether the change leaves a joint configuration: one that changes nothing.
    pub fn leave_joint(&self) -> bool {
        self.changes.is_empty() && self.transition() == ConfChangeTransition::Auto
    }
}

/// Tells whether two configurations have the same members in the same roles, in any order.
pub fn conf_state_eq(left: &ConfState, right: &ConfState) -> bool {
    let same = |a: &[u64], b: &[u64]| {
        a.iter().all(|id| b.contains(id)) && b.iter().all(|id| a.contains(id))
    };
    same(&left.voters, &right.voters)
        && same(&left.learners, &right.learners)
        && same(&left.voters_outgoing, &right.voters_outgoing)
        && same(&left.learners_next, &right.learners_next)
        && left.auto_leave == right.auto_leave
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_change_needs_no_joint_configuration() {
        let change = ConfChange { node_id: 3, ..ConfChange::default() }.into_v2();
        assert_eq!(change.changes, [new_conf_change_single(3, ConfChangeType::AddNode)]);
        assert_eq!(change.enter_joint(), None);
        assert!(!change.leave_joint());
        assert!(ConfChangeV2::default().leave_joint());
    }

    #[test]
    fn configurations_compare_without_order() {
        let make = |voters: &[u64]| ConfState { voters: voters.to_vec(), ..ConfState::default() };
        assert!(conf_state_eq(&make(&[1, 2]), &make(&[2, 1])));
        assert!(!conf_state_eq(&make(&[1, 2]), &make(&[1])));
        assert!(!conf_state_eq(&make(&[1]), &make(&[1, 2])));
    }
}
