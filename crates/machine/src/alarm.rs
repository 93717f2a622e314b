//! Alarms: what the whole cluster must know about one member's trouble.

use std::collections::BTreeSet;

use proto::etcdserverpb::{AlarmMember, AlarmType};

/// The alarms that are set.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Alarms {
    /// Kind first, so that one kind is a range.
    set: BTreeSet<(i32, u64)>,
}

impl Alarms {
    /// Sets an alarm; tells whether it was not set.
    pub(crate) fn activate(&mut self, alarm: &AlarmMember) -> bool {
        self.set.insert((alarm.alarm, alarm.member_id))
    }

    /// Clears an alarm; tells whether it was set.
    pub(crate) fn deactivate(&mut self, alarm: &AlarmMember) -> bool {
        self.set.remove(&(alarm.alarm, alarm.member_id))
    }

    /// Returns the alarms of a kind; of all kinds for `None` (0).
    pub(crate) fn of_kind(&self, kind: i32) -> Vec<AlarmMember> {
        let wants_all = kind == i32::from(AlarmType::None);
        self.set
            .iter()
            .filter(|(alarm, _)| wants_all || *alarm == kind)
            .map(|&(alarm, member_id)| AlarmMember { member_id, alarm })
            .collect()
    }

    /// Tells whether any member has an alarm of a kind.
    pub(crate) fn has(&self, kind: AlarmType) -> bool {
        let kind = i32::from(kind);
        self.set.range((kind, 0)..=(kind, u64::MAX)).next().is_some()
    }
}
