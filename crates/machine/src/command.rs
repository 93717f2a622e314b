//! From the bytes of a log entry to what it commands.
//!
//! A request has one payload; were there several, [`PAYLOADS`] decides by its order. Everything
//! that cannot be understood is a fault: a skipped entry would be a silent divergence. Only the
//! chosen payload is decoded, and its byte strings stay slices of the entry.

use bytes::Bytes;
use prost::Message;
use proto::etcdserverpb as pb;
use proto::membershippb;

use crate::fault::EntryFault;
use crate::mvcc::record::{skip_field, take_bytes, take_varint};
use crate::nesting::decode_txn;
use crate::request_kind::RequestKind;
use crate::schema;

/// What an entry commands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Command {
    /// An entry without effect: the first of a leader's term, or one kept for tests of downgrades.
    NoOp,
    ClusterVersion {
        version: String,
    },
    Attributes {
        id: u64,
        name: String,
        client_urls: Vec<String>,
    },
    Downgrade {
        is_enabled: bool,
        version: String,
    },
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    DeleteRange(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compaction {
        revision: i64,
    },
    LeaseGrant {
        id: i64,
        ttl: i64,
    },
    LeaseRevoke {
        id: i64,
    },
    LeaseCheckpoint(Vec<pb::LeaseCheckpoint>),
    Alarm(pb::AlarmRequest),
}

impl Command {
    pub(crate) fn kind(&self) -> RequestKind {
        match self {
            Self::NoOp => RequestKind::NoOp,
            Self::ClusterVersion { .. } => RequestKind::ClusterVersionSet,
            Self::Attributes { .. } => RequestKind::ClusterMemberAttrSet,
            Self::Downgrade { .. } => RequestKind::DowngradeInfoSet,
            Self::Range(_) => RequestKind::Range,
            Self::Put(_) => RequestKind::Put,
            Self::DeleteRange(_) => RequestKind::DeleteRange,
            Self::Txn(_) => RequestKind::Txn,
            Self::Compaction { .. } => RequestKind::Compaction,
            Self::LeaseGrant { .. } => RequestKind::LeaseGrant,
            Self::LeaseRevoke { .. } => RequestKind::LeaseRevoke,
            Self::LeaseCheckpoint(_) => RequestKind::LeaseCheckpoint,
            Self::Alarm(_) => RequestKind::Alarm,
        }
    }
}

/// A decoded entry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    /// Whom the proposer answers; 0 of a no-op.
    pub(crate) id: u64,
    pub(crate) command: Command,
}

const ID: u64 = 1;
const LEGACY: u64 = 2;
const HEADER: u64 = 100;

/// Payload fields in the order in which they are looked for.
const PAYLOADS: [Payload; 30] = [
    Payload::new(1300, "cluster_version_set", Kind::ClusterVersion),
    Payload::new(1301, "cluster_member_attr_set", Kind::Attributes),
    Payload::new(1302, "downgrade_info_set", Kind::Downgrade),
    Payload::new(9900, "downgrade_version_test", Kind::NoOp),
    Payload::new(3, "range", Kind::Range),
    Payload::new(4, "put", Kind::Put),
    Payload::new(5, "delete_range", Kind::DeleteRange),
    Payload::new(6, "txn", Kind::Txn),
    Payload::new(7, "compaction", Kind::Compaction),
    Payload::new(8, "lease_grant", Kind::LeaseGrant),
    Payload::new(9, "lease_revoke", Kind::LeaseRevoke),
    Payload::new(11, "lease_checkpoint", Kind::LeaseCheckpoint),
    Payload::new(10, "alarm", Kind::Alarm),
    Payload::new(1012, "authenticate", Kind::Auth),
    Payload::new(1000, "auth_enable", Kind::Auth),
    Payload::new(1011, "auth_disable", Kind::Auth),
    Payload::new(1013, "auth_status", Kind::Auth),
    Payload::new(1100, "auth_user_add", Kind::Auth),
    Payload::new(1101, "auth_user_delete", Kind::Auth),
    Payload::new(1103, "auth_user_change_password", Kind::Auth),
    Payload::new(1104, "auth_user_grant_role", Kind::Auth),
    Payload::new(1102, "auth_user_get", Kind::Auth),
    Payload::new(1105, "auth_user_revoke_role", Kind::Auth),
    Payload::new(1200, "auth_role_add", Kind::Auth),
    Payload::new(1203, "auth_role_grant_permission", Kind::Auth),
    Payload::new(1202, "auth_role_get", Kind::Auth),
    Payload::new(1204, "auth_role_revoke_permission", Kind::Auth),
    Payload::new(1201, "auth_role_delete", Kind::Auth),
    Payload::new(1106, "auth_user_list", Kind::Auth),
    Payload::new(1107, "auth_role_list", Kind::Auth),
];

#[derive(Debug, Clone, Copy)]
struct Payload {
    field: u64,
    name: &'static str,
    kind: Kind,
}

impl Payload {
    const fn new(field: u64, name: &'static str, kind: Kind) -> Self {
        Self { field, name, kind }
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    NoOp,
    ClusterVersion,
    Attributes,
    Downgrade,
    Range,
    Put,
    DeleteRange,
    Txn,
    Compaction,
    LeaseGrant,
    LeaseRevoke,
    LeaseCheckpoint,
    Alarm,
    Auth,
}

/// Decodes an entry's data.
pub(crate) fn decode(data: &Bytes) -> Result<Request, EntryFault> {
    if data.is_empty() {
        return Ok(Request { id: 0, command: Command::NoOp });
    }
    let Some(envelope) = Envelope::decode(data) else {
        return legacy(data.clone());
    };
    if let Some(nested) = envelope.legacy {
        // A legacy request's method has the same field number. It is text, so it does not decode as
        // a nested request.
        let is_nested = LegacyRequest::decode(nested.clone()).is_ok_and(|r| !r.method.is_empty());
        return legacy(if is_nested { nested } else { data.clone() });
    }
    let Some((position, bytes)) = envelope.payload else {
        return Err(EntryFault::UnknownRequest { field: envelope.unknown });
    };
    let id = match envelope.id {
        0 => envelope.header_id.ok_or(EntryFault::NoRequestId)?,
        id => id,
    };
    let command = decode_payload(PAYLOADS[position], bytes)?;
    Ok(Request { id, command })
}

/// The outermost fields of a request.
#[derive(Debug, Default)]
struct Envelope {
    id: u64,
    header_id: Option<u64>,
    legacy: Option<Bytes>,
    /// Position in [`PAYLOADS`] and encoded payload.
    payload: Option<(usize, Bytes)>,
    /// A field that is none of the known ones.
    unknown: u64,
}

impl Envelope {
    fn decode(data: &Bytes) -> Option<Self> {
        let mut out = Self::default();
        let mut input: &[u8] = data;
        while !input.is_empty() {
            let tag = take_varint(&mut input)?;
            match (tag >> 3, tag & 7) {
                (ID, 0) => out.id = take_varint(&mut input)?,
                (HEADER, 2) => out.header_id = Some(header_id(take_bytes(&mut input)?)?),
                (LEGACY, 2) => out.legacy = Some(data.slice_ref(take_bytes(&mut input)?)),
                (field, 2) => out.take_payload(field, data.slice_ref(take_bytes(&mut input)?)),
                (field, _) => {
                    out.unknown = field;
                    skip_field(&mut input, tag)?;
                }
            }
        }
        Some(out)
    }

    fn take_payload(&mut self, field: u64, bytes: Bytes) {
        let Some(position) = PAYLOADS.iter().position(|payload| payload.field == field) else {
            self.unknown = field;
            return;
        };
        if self.payload.as_ref().is_none_or(|(present, _)| position <= *present) {
            self.payload = Some((position, bytes));
        }
    }
}

fn header_id(mut header: &[u8]) -> Option<u64> {
    let mut id = 0;
    while !header.is_empty() {
        let tag = take_varint(&mut header)?;
        if tag == ID << 3 {
            id = take_varint(&mut header)?;
        } else {
            skip_field(&mut header, tag)?;
        }
    }
    Some(id)
}

fn decode_payload(payload: Payload, bytes: Bytes) -> Result<Command, EntryFault> {
    fn message<M: Message + Default>(bytes: Bytes) -> Result<M, EntryFault> {
        Ok(M::decode(bytes)?)
    }
    Ok(match payload.kind {
        Kind::NoOp => Command::NoOp,
        Kind::ClusterVersion => {
            let request: membershippb::ClusterVersionSetRequest = message(bytes)?;
            Command::ClusterVersion { version: request.ver }
        }
        Kind::Attributes => {
            let request: membershippb::ClusterMemberAttrSetRequest = message(bytes)?;
            let attributes = request.member_attributes.unwrap_or_default();
            Command::Attributes {
                id: request.member_id,
                name: attributes.name,
                client_urls: attributes.client_urls,
            }
        }
        Kind::Downgrade => {
            let request: membershippb::DowngradeInfoSetRequest = message(bytes)?;
            Command::Downgrade { is_enabled: request.enabled, version: request.ver }
        }
        Kind::Range => Command::Range(message(bytes)?),
        Kind::Put => Command::Put(message(bytes)?),
        Kind::DeleteRange => Command::DeleteRange(message(bytes)?),
        Kind::Txn => Command::Txn(decode_txn(bytes)?),
        Kind::Compaction => {
            let request: pb::CompactionRequest = message(bytes)?;
            Command::Compaction { revision: request.revision }
        }
        Kind::LeaseGrant => {
            let request: pb::LeaseGrantRequest = message(bytes)?;
            Command::LeaseGrant { id: request.id, ttl: request.ttl }
        }
        Kind::LeaseRevoke => {
            let request: pb::LeaseRevokeRequest = message(bytes)?;
            Command::LeaseRevoke { id: request.id }
        }
        Kind::LeaseCheckpoint => {
            let request: pb::LeaseCheckpointRequest = message(bytes)?;
            Command::LeaseCheckpoint(request.checkpoints)
        }
        Kind::Alarm => Command::Alarm(message(bytes)?),
        Kind::Auth => return Err(EntryFault::AuthUnsupported { request: payload.name }),
    })
}

/// The fields of a legacy (v2) request that still occur in logs of 3.5.
#[derive(Clone, PartialEq, prost::Message)]
struct LegacyRequest {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(string, tag = "3")]
    path: String,
    #[prost(string, tag = "4")]
    val: String,
}

fn legacy(data: Bytes) -> Result<Request, EntryFault> {
    let request = LegacyRequest::decode(data)?;
    let refuse =
        || EntryFault::Legacy { method: request.method.clone(), path: request.path.clone() };
    let command = match request.method.as_str() {
        // Left by 2.x: reads and clock entries that change nothing of ours.
        "SYNC" | "QGET" => Command::NoOp,
        "PUT" if request.path == "/0/version" => {
            Command::ClusterVersion { version: request.val.clone() }
        }
        "PUT" => {
            let id = member_of_path(&request.path).ok_or_else(refuse)?;
            let (name, client_urls) =
                schema::decode_attributes(request.val.as_bytes()).ok_or_else(refuse)?;
            Command::Attributes { id, name, client_urls }
        }
        _ => return Err(refuse()),
    };
    Ok(Request { id: request.id, command })
}

fn member_of_path(path: &str) -> Option<u64> {
    let id = path.strip_prefix("/0/members/")?.strip_suffix("/attributes")?;
    u64::from_str_radix(id, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request() -> pb::InternalRaftRequest {
        pb::InternalRaftRequest {
            header: Some(pb::RequestHeader { id: 7, ..Default::default() }),
            ..Default::default()
        }
    }

    fn decode_message(message: &impl Message) -> Result<Request, EntryFault> {
        decode(&message.encode_to_vec().into())
    }

    #[test]
    fn the_id_is_field_one_or_else_the_headers() {
        let put = pb::PutRequest { key: "k".into(), ..Default::default() };
        let mut message = pb::InternalRaftRequest { put: Some(put.clone()), ..request() };
        let expected = Command::Put(put);
        assert_eq!(decode_message(&message), Ok(Request { id: 7, command: expected.clone() }));
        message.id = 9;
        assert_eq!(decode_message(&message), Ok(Request { id: 9, command: expected }));
        message = pb::InternalRaftRequest { id: 0, header: None, ..message };
        assert_eq!(decode_message(&message), Err(EntryFault::NoRequestId));
    }

    #[test]
    fn of_several_payloads_the_first_in_order_counts() {
        let message = pb::InternalRaftRequest {
            put: Some(pb::PutRequest::default()),
            txn: Some(pb::TxnRequest::default()),
            downgrade_info_set: Some(membershippb::DowngradeInfoSetRequest {
                enabled: true,
                ver: "3.6.0".into(),
            }),
            ..request()
        };
        let command = Command::Downgrade { is_enabled: true, version: "3.6.0".into() };
        assert_eq!(decode_message(&message), Ok(Request { id: 7, command }));
    }

    #[test]
    fn unknown_and_auth_payloads_are_faults() {
        assert_eq!(decode_message(&request()), Err(EntryFault::UnknownRequest { field: 0 }));
        // Field 2000, two bytes long.
        let mut data = request().encode_to_vec();
        data.extend_from_slice(b"\x82\x7d\x02hi");
        assert_eq!(decode(&data.into()), Err(EntryFault::UnknownRequest { field: 2000 }));
        let message = pb::InternalRaftRequest {
            auth_enable: Some(pb::AuthEnableRequest::default()),
            ..request()
        };
        assert_eq!(
            decode_message(&message),
            Err(EntryFault::AuthUnsupported { request: "auth_enable" })
        );
    }

    #[test]
    fn legacy_entries_of_the_two_known_shapes_are_read() {
        let version = LegacyRequest {
            id: 3,
            method: "PUT".into(),
            path: "/0/version".into(),
            val: "3.5.0".into(),
        };
        let command = Command::ClusterVersion { version: "3.5.0".into() };
        assert_eq!(decode_message(&version), Ok(Request { id: 3, command }));

        let attributes = LegacyRequest {
            path: "/0/members/8e9e05c52164694d/attributes".into(),
            val: r#"{"name":"m1","clientURLs":["http://c:1"]}"#.into(),
            ..version.clone()
        };
        let command = Command::Attributes {
            id: 0x8e9e_05c5_2164_694d,
            name: "m1".into(),
            client_urls: vec!["http://c:1".into()],
        };
        assert_eq!(decode_message(&attributes), Ok(Request { id: 3, command: command.clone() }));

        // Inside field 2 of a request.
        let mut nested = vec![0x12];
        prost::encoding::encode_varint(attributes.encoded_len() as u64, &mut nested);
        nested.extend(attributes.encode_to_vec());
        assert_eq!(decode(&nested.into()), Ok(Request { id: 3, command }));

        let other = LegacyRequest { path: "/1/key".into(), ..version };
        assert!(matches!(decode_message(&other), Err(EntryFault::Legacy { .. })));
    }

    proptest! {
        #[test]
        fn decoding_survives_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = decode(&bytes.into());
        }
    }
}
