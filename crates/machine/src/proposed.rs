//! What another member may put into the log through this one. An entry that cannot be applied stops every member that
//! has it, so the leader judges it before it is there.

use prost::Message as _;
use proto::raftpb::{self, EntryType};

use crate::command::{self, Command};
use crate::fault::EntryFault;
use crate::machine::Machine;
use crate::membership::{Membership, Version};

impl Machine {
    /// Tells why an entry that another member proposes could not be applied. The membership may change before it is: a
    /// member that was removed meanwhile is known as such, and one that is not known here yet has to ask again.
    pub fn check_proposed(&self, entry: &raftpb::Entry) -> Result<(), EntryFault> {
        match entry.r#type() {
            EntryType::EntryNormal => self.check_request(entry),
            EntryType::EntryConfChange => {
                let change = raftpb::ConfChange::decode(entry.data.clone())?;
                Membership::decode(&change).map(|_change| ())
            }
            EntryType::EntryConfChangeV2 => Err(EntryFault::ConfChangeType(entry.r#type)),
        }
    }

    fn check_request(&self, entry: &raftpb::Entry) -> Result<(), EntryFault> {
        // Only who leads begins its term with an empty entry.
        if entry.data.is_empty() {
            return Err(EntryFault::NoRequestId);
        }
        match command::decode(&entry.data)?.command {
            Command::Attributes { id, .. } => {
                let membership = self.membership();
                if membership.member(id).is_none() && !membership.is_removed(id) {
                    return Err(EntryFault::UnknownMember { id });
                }
            }
            Command::ClusterVersion { version } => {
                let parsed = version.parse::<Version>();
                if !parsed.is_ok_and(|parsed| parsed <= self.options.server_version) {
                    return Err(EntryFault::ClusterVersion { version });
                }
            }
            Command::NoOp
            | Command::Downgrade { .. }
            | Command::Range(_)
            | Command::Put(_)
            | Command::DeleteRange(_)
            | Command::Txn(_)
            | Command::Compaction { .. }
            | Command::LeaseGrant { .. }
            | Command::LeaseRevoke { .. }
            | Command::LeaseCheckpoint(_)
            | Command::Alarm(_) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proto::etcdserverpb::{InternalRaftRequest, PutRequest};
    use proto::membershippb::{Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest};

    use super::*;
    use crate::Options;
    use crate::tests::lab::Lab;

    fn request(fill: impl FnOnce(&mut InternalRaftRequest)) -> raftpb::Entry {
        let mut request = InternalRaftRequest { id: 1, ..InternalRaftRequest::default() };
        fill(&mut request);
        raftpb::Entry { data: request.encode_to_vec().into(), ..raftpb::Entry::default() }
    }

    fn version(text: &str) -> raftpb::Entry {
        request(|request| {
            let set = ClusterVersionSetRequest { ver: text.to_owned() };
            request.cluster_version_set = Some(set);
        })
    }

    #[test]
    fn what_no_member_could_apply_is_not_proposed() {
        let lab = Lab::new(Options { server_version: Version::new(3, 7, 1), ..Options::default() });
        let check = |entry: &raftpb::Entry| lab.machine.check_proposed(entry);
        let put = request(|request| request.put = Some(PutRequest::default()));
        assert_eq!(check(&put), Ok(()));
        assert_eq!(check(&version("3.6.0")), Ok(()));
        for text in ["3.99.0", "new"] {
            let version_fault = EntryFault::ClusterVersion { version: text.to_owned() };
            assert_eq!(check(&version(text)), Err(version_fault));
        }
        let attributes = request(|request| {
            request.cluster_member_attr_set = Some(ClusterMemberAttrSetRequest {
                member_id: 0xbad,
                member_attributes: Some(Attributes::default()),
            });
        });
        assert_eq!(check(&attributes), Err(EntryFault::UnknownMember { id: 0xbad }));
        assert_eq!(check(&request(|_| {})), Err(EntryFault::UnknownRequest { field: 0 }));
        for data in [&b""[..], b"\xff\xff\xff", b"garbage"] {
            let data = Bytes::from_static(data);
            check(&raftpb::Entry { data, ..raftpb::Entry::default() }).expect_err("no request");
        }
        for (kind, data) in [(1, &b"\xff"[..]), (1, b"\x10\x00"), (2, b"")] {
            let data = Bytes::from_static(data);
            let change = raftpb::Entry { r#type: kind, data, ..raftpb::Entry::default() };
            check(&change).expect_err("no conf change");
        }
    }
}
