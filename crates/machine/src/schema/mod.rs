//! The backend's layout: bucket names, keys and encodings of etcd's ten buckets. The only place
//! that knows them.
//!
//! Byte for byte what etcd 3.7 keeps in its bbolt file, so that a snapshot of ours is one of
//! etcd's.

mod json;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use proto::etcdserverpb::AlarmMember;
use proto::leasepb;
use storage::backend::TableId;

use crate::Revision;
use crate::membership::{Downgrade, Member};
pub use json::ConfState;

/// The buckets in byte order of their names, which is the order of a bbolt file and of the
/// whole-database hash.
pub static BUCKETS: &[&str] = &[
    "alarm",
    "auth",
    "authRoles",
    "authUsers",
    "cluster",
    "key",
    "lease",
    "members",
    "members_removed",
    "meta",
];

/// Bucket of [`alarm_key`]s with empty values.
pub const ALARM: TableId = TableId(0);
/// Bucket of the auth switch and revision.
pub const AUTH: TableId = TableId(1);
/// Bucket of roles by name.
pub const AUTH_ROLES: TableId = TableId(2);
/// Bucket of users by name.
pub const AUTH_USERS: TableId = TableId(3);
/// Bucket of the cluster version and downgrade info.
pub const CLUSTER: TableId = TableId(4);
/// Bucket of records by revision.
pub const KEY: TableId = TableId(5);
/// Bucket of leases by id.
pub const LEASE: TableId = TableId(6);
/// Bucket of members by hexadecimal id.
pub const MEMBERS: TableId = TableId(7);
/// Bucket of ids that were members once.
pub const MEMBERS_REMOVED: TableId = TableId(8);
/// Bucket of applied index, term, membership of the consensus group, compaction marks.
pub const META: TableId = TableId(9);

/// Key in [`META`]: the applied index, 8 bytes big-endian.
pub const CONSISTENT_INDEX: &[u8] = b"consistent_index";
/// Key in [`META`]: the applied term, 8 bytes big-endian.
pub const TERM: &[u8] = b"term";
/// Key in [`META`]: [`ConfState`] as JSON.
pub const CONF_STATE: &[u8] = b"confState";
/// Key in [`META`]: the version of this layout, as text.
pub const STORAGE_VERSION: &[u8] = b"storageVersion";
/// Key in [`META`]: the revision that the newest compaction asked for.
pub const SCHEDULED_COMPACT: &[u8] = b"scheduledCompactRev";
/// Key in [`META`]: the revision whose compaction has been carried out.
pub const FINISHED_COMPACT: &[u8] = b"finishedCompactRev";
/// Key in [`CLUSTER`]: the cluster version, as text.
pub const CLUSTER_VERSION: &[u8] = b"clusterVersion";
/// Key in [`CLUSTER`]: [`Downgrade`] as JSON.
pub const DOWNGRADE: &[u8] = b"downgrade";
/// Key in [`AUTH`]: the switch, one byte.
pub const AUTH_ENABLED: &[u8] = b"authEnabled";
/// Key in [`AUTH`]: the auth revision, 8 bytes big-endian.
pub const AUTH_REVISION: &[u8] = b"authRevision";
/// Value in [`MEMBERS_REMOVED`].
pub const REMOVED: &[u8] = b"removed";

/// Returns the buckets with their names, in order.
pub fn tables() -> impl Iterator<Item = (TableId, &'static str)> {
    (0..).map(TableId).zip(BUCKETS.iter().copied())
}

/// Tells whether a key of [`META`] differs between members of equal state.
pub fn is_volatile(key: &[u8]) -> bool {
    [CONSISTENT_INDEX, TERM, STORAGE_VERSION].contains(&key)
}

/// Bytes of an encoded revision.
pub const REVISION_BYTES: usize = 17;
/// Bytes of a tombstone's key.
pub const TOMBSTONE_BYTES: usize = 18;
const TOMBSTONE_MARK: u8 = b't';

/// Encodes a revision: main and sub big-endian around an underscore.
///
/// | offset | bytes | content |
/// |---|---|---|
/// | 0 | 8 | main |
/// | 8 | 1 | `_` |
/// | 9 | 8 | sub |
/// | 17 | 1 | `t`, of a tombstone only |
pub fn revision_bytes(revision: Revision) -> [u8; REVISION_BYTES] {
    let mut out = [b'_'; REVISION_BYTES];
    out[..8].copy_from_slice(&revision.main.to_be_bytes());
    out[9..].copy_from_slice(&revision.sub.to_be_bytes());
    out
}

/// Encodes the key of a record in [`KEY`].
pub fn record_key(revision: Revision, is_tombstone: bool) -> Bytes {
    let bytes = revision_bytes(revision);
    if !is_tombstone {
        return Bytes::copy_from_slice(&bytes);
    }
    let mut out = BytesMut::with_capacity(TOMBSTONE_BYTES);
    out.put_slice(&bytes);
    out.put_u8(TOMBSTONE_MARK);
    out.freeze()
}

/// Decodes the key of a record; `None` if it is none.
pub fn decode_record_key(key: &[u8]) -> Option<(Revision, bool)> {
    let is_tombstone = match key {
        [_, .., TOMBSTONE_MARK] if key.len() == TOMBSTONE_BYTES => true,
        _ if key.len() == REVISION_BYTES => false,
        _ => return None,
    };
    let main = i64::from_be_bytes(key.get(..8)?.try_into().ok()?);
    let sub = i64::from_be_bytes(key.get(9..REVISION_BYTES)?.try_into().ok()?);
    (key[8] == b'_').then_some((Revision::new(main, sub), is_tombstone))
}

/// Encodes an unsigned number, as for the applied index.
pub fn number_value(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// Decodes an unsigned number.
pub fn decode_number(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(value.try_into().ok()?))
}

/// Encodes the key of a lease in [`LEASE`].
pub fn lease_key(id: i64) -> Bytes {
    Bytes::copy_from_slice(&id.to_be_bytes())
}

/// Encodes a lease. A remaining ttl of 0 means none was checkpointed.
pub fn lease_value(lease: &leasepb::Lease) -> Bytes {
    lease.encode_to_vec().into()
}

/// Decodes a lease.
pub fn decode_lease(value: &[u8]) -> Option<leasepb::Lease> {
    leasepb::Lease::decode(value).ok()
}

/// Encodes the key of an alarm in [`ALARM`].
pub fn alarm_key(alarm: &AlarmMember) -> Bytes {
    alarm.encode_to_vec().into()
}

/// Decodes the key of an alarm.
pub fn decode_alarm(key: &[u8]) -> Option<AlarmMember> {
    AlarmMember::decode(key).ok()
}

/// Encodes the key of a member in [`MEMBERS`] and [`MEMBERS_REMOVED`].
pub fn member_key(id: u64) -> Bytes {
    format!("{id:x}").into()
}

/// Decodes the key of a member.
pub fn decode_member_key(key: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(key).ok()?, 16).ok()
}

/// Encodes a member.
pub fn member_value(member: &Member) -> Bytes {
    json::encode_member(member).into()
}

/// Decodes a member.
pub fn decode_member(value: &[u8]) -> Option<Member> {
    json::decode_member(value)
}

/// Decodes the member that a conf change carries, and whether it asks for a promotion.
pub fn decode_conf_change_context(value: &[u8]) -> Option<(Member, bool)> {
    json::decode_conf_change_context(value)
}

/// Encodes the member that a conf change carries; peer URLs are absent from a promotion.
pub fn conf_change_context(member: &Member, is_promotion: bool) -> Bytes {
    json::encode_conf_change_context(member, is_promotion).into()
}

/// Decodes the attributes in a legacy entry: name and client URLs.
pub fn decode_attributes(value: &[u8]) -> Option<(String, Vec<String>)> {
    json::decode_attributes(value)
}

/// Encodes the membership of the consensus group.
pub fn conf_state_value(state: &ConfState) -> Bytes {
    json::encode_conf_state(state).into()
}

/// Decodes the membership of the consensus group.
pub fn decode_conf_state(value: &[u8]) -> Option<ConfState> {
    json::decode_conf_state(value)
}

/// Encodes downgrade info.
pub fn downgrade_value(downgrade: &Downgrade) -> Bytes {
    json::encode_downgrade(downgrade).into()
}

/// Decodes downgrade info.
pub fn decode_downgrade(value: &[u8]) -> Option<Downgrade> {
    json::decode_downgrade(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_byte_order() {
        assert!(BUCKETS.is_sorted());
        assert_eq!(BUCKETS[KEY.0 as usize], "key");
        assert_eq!(BUCKETS[META.0 as usize], "meta");
        assert_eq!(BUCKETS[MEMBERS_REMOVED.0 as usize], "members_removed");
    }

    #[test]
    fn record_keys_survive_a_round_trip() {
        for tombstone in [false, true] {
            let revision = Revision::new(0x1122_3344, 7);
            let key = record_key(revision, tombstone);
            assert_eq!(decode_record_key(&key), Some((revision, tombstone)));
        }
        assert_eq!(decode_record_key(b"short"), None);
        assert_eq!(decode_record_key(&[0; 17]), None, "no underscore");
        assert_eq!(decode_record_key(b"12345678_12345678x"), None, "no tombstone mark");
    }
}
