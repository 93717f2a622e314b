//! Whether two answers are the same, field by field.
//!
//! Equal bytes are equal. What is left is brought into a normal form first, and only where an answer depends on
//! more than the sequence of requests:
//!
//! | answer | normal form | why |
//! |---|---|---|
//! | `LeaseTimeToLive` | `TTL` within a minute, keys sorted | time passes; etcd gives the keys in the order of a hash map |
//! | `Status` | without `dbSize` and `dbSizeInUse`; spaces in alarm texts squeezed | two storage engines; etcd varies the spaces |
//! | `Status` | `raftAppliedIndex` may be one behind `raftIndex` | etcd answers a request before it counts it as applied |
//! | `LeaseLeases` | in any order | the order is by remaining time, and leases may end within the same tick of a clock |
//! | after the client's deadline | `DeadlineExceeded`, without text | nobody reads it: etcd resets the stream, or says that the context was canceled |
//! | `Range` in an order other than by key | elements that are equal in that order, in any order | etcd's sort is not stable |

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::DynamicMessage;
use proto::etcdserverpb::{
    LeaseLeasesResponse, LeaseTimeToLiveResponse, RangeRequest, RangeResponse, StatusResponse,
};
use proto::mvccpb::KeyValue;

use super::gateway;
use super::generate::Call;
use super::method::Descriptors;
use crate::grpc;

/// One request with both answers.
pub(crate) enum Exchange<'a> {
    Grpc { call: &'a Call, reference: &'a grpc::Answer, subject: &'a grpc::Answer },
    Gateway { route: &'a str, reference: &'a gateway::Answer, subject: &'a gateway::Answer },
}

/// A busy machine may hold up one side. Leases are granted for thousands of seconds.
const TTL_SLACK_SECONDS: u64 = 60;
const SHOWN_MAX: usize = 3000;

impl Exchange<'_> {
    pub(crate) fn is_equal(&self) -> bool {
        match self {
            Exchange::Grpc { call, reference, subject } => {
                reference == subject
                    || (call.timeout.is_some() && reference.is_late() && subject.is_late())
                    || (reference.code == subject.code
                        && reference.text == subject.text
                        && reference.messages.len() == subject.messages.len()
                        && reference
                            .messages
                            .iter()
                            .zip(&subject.messages)
                            .all(|(one, two)| one == two || same_message(call, one, two)))
            }
            Exchange::Gateway { reference, subject, .. } => reference == subject,
        }
    }

    /// Writes the exchange for people.
    pub(crate) fn describe(&self, descriptors: &Descriptors) -> String {
        match self {
            Exchange::Grpc { call, reference, subject } => {
                let types = descriptors.of(call.method);
                let answer = |answer: &grpc::Answer| {
                    let output = types.as_ref().map(|types| &types.1);
                    let mut text = format!("code {} {:?}", answer.code, answer.text);
                    for message in &answer.messages {
                        text.push_str("\n    ");
                        text.push_str(&show(output, message));
                    }
                    text
                };
                let request = describe_request(call, descriptors);
                let (reference, subject) = (answer(reference), answer(subject));
                format!("{request}\n  reference: {reference}\n  subject:   {subject}")
            }
            Exchange::Gateway { route, reference, subject } => {
                format!("POST {route}\n  reference: {reference:?}\n  subject:   {subject:?}")
            }
        }
    }
}

/// Writes a request for people.
pub(crate) fn describe_request(call: &Call, descriptors: &Descriptors) -> String {
    let types = descriptors.of(call.method);
    let request = if call.malformed {
        format!("{:02x?}", &call.message[..])
    } else {
        show(types.as_ref().map(|types| &types.0), &call.message)
    };
    format!("{} {request}", call.method.path())
}

fn show(descriptor: Option<&prost_reflect::MessageDescriptor>, message: &[u8]) -> String {
    let decoded = descriptor.map(|descriptor| DynamicMessage::decode(descriptor.clone(), message));
    let mut text = match decoded {
        Some(Ok(message)) => message.to_string(),
        Some(Err(_)) | None => format!("{message:02x?}"),
    };
    if text.len() > SHOWN_MAX {
        let cut = (0..=SHOWN_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    text
}

fn same_message(call: &Call, one: &[u8], two: &[u8]) -> bool {
    match call.method.name {
        "LeaseTimeToLive" => both(one, two, same_time_to_live),
        "LeaseLeases" => both(one, two, |one, two| sorted_leases(one) == sorted_leases(two)),
        "Status" => both(one, two, |one, two| stable_status(one) == stable_status(two)),
        "Range" => match RangeRequest::decode(call.message.as_ref()) {
            Ok(request) => both(one, two, |one, two| same_range(&request, &one, &two)),
            Err(_) => false,
        },
        _ => false,
    }
}

fn both<M: prost::Message + Default>(
    one: &[u8],
    two: &[u8],
    compare: impl Fn(M, M) -> bool,
) -> bool {
    match (M::decode(one), M::decode(two)) {
        (Ok(one), Ok(two)) => compare(one, two),
        _ => false,
    }
}

fn same_time_to_live(mut one: LeaseTimeToLiveResponse, mut two: LeaseTimeToLiveResponse) -> bool {
    if one.ttl.abs_diff(two.ttl) <= TTL_SLACK_SECONDS && (one.ttl == -1) == (two.ttl == -1) {
        two.ttl = one.ttl;
    }
    one.keys.sort();
    two.keys.sort();
    one == two
}

fn sorted_leases(mut answer: LeaseLeasesResponse) -> LeaseLeasesResponse {
    answer.leases.sort_by_key(|lease| lease.id);
    answer
}

fn stable_status(mut status: StatusResponse) -> StatusResponse {
    (status.db_size, status.db_size_in_use) = (0, 0);
    if status.raft_applied_index + 1 == status.raft_index {
        status.raft_applied_index = status.raft_index;
    }
    for error in &mut status.errors {
        *error = error.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    status
}

/// Equal elements may change places, and when the limit cuts them, either may be the one that is left.
fn same_range(request: &RangeRequest, one: &RangeResponse, two: &RangeResponse) -> bool {
    if request.sort_target == 0 {
        return one == two;
    }
    let order = |kv: &KeyValue| match request.sort_target {
        1 => (kv.version, Bytes::new()),
        2 => (kv.create_revision, Bytes::new()),
        3 => (kv.mod_revision, Bytes::new()),
        _ => (0, kv.value.clone()),
    };
    let heads = one.header == two.header && one.count == two.count && one.more == two.more;
    let same_order = one.kvs.iter().map(order).eq(two.kvs.iter().map(order));
    // Only the last group of equal elements can have been cut.
    let last = one.kvs.last().map(order);
    let whole = |response: &RangeResponse| {
        let kept = |kv: &&KeyValue| !one.more || Some(order(kv)) != last;
        let mut kvs: Vec<KeyValue> = response.kvs.iter().filter(kept).cloned().collect();
        kvs.sort_by(|one, two| one.key.cmp(&two.key));
        kvs
    };
    heads && same_order && whole(one) == whole(two)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &'static str, version: i64) -> KeyValue {
        KeyValue { key: key.into(), version, ..KeyValue::default() }
    }

    fn range(kvs: &[KeyValue], more: bool) -> RangeResponse {
        RangeResponse { kvs: kvs.to_vec(), more, ..RangeResponse::default() }
    }

    #[test]
    fn only_equal_elements_may_change_places() {
        let by_version = RangeRequest { sort_target: 1, ..RangeRequest::default() };
        let one = range(&[kv("a", 1), kv("b", 1), kv("c", 2)], false);
        let two = range(&[kv("b", 1), kv("a", 1), kv("c", 2)], false);
        let three = range(&[kv("a", 1), kv("c", 2), kv("b", 1)], false);
        let four = range(&[kv("a", 1), kv("x", 1), kv("c", 2)], false);
        assert!(same_range(&by_version, &one, &two));
        assert!(!same_range(&RangeRequest::default(), &one, &two));
        assert!(!same_range(&by_version, &one, &three));
        assert!(!same_range(&by_version, &one, &four));
    }

    #[test]
    fn only_the_last_group_may_be_cut() {
        let by_version = RangeRequest { sort_target: 1, ..RangeRequest::default() };
        let one = range(&[kv("a", 1), kv("b", 2)], true);
        assert!(same_range(&by_version, &one, &range(&[kv("a", 1), kv("c", 2)], true)));
        assert!(!same_range(&by_version, &one, &range(&[kv("c", 1), kv("b", 2)], true)));
        assert!(!same_range(&by_version, &one, &range(&[kv("a", 1), kv("c", 2)], false)));
    }

    #[test]
    fn time_passes_but_a_lease_is_there_or_not() {
        let lease = |ttl| LeaseTimeToLiveResponse { ttl, ..LeaseTimeToLiveResponse::default() };
        assert!(same_time_to_live(lease(1000), lease(998)));
        assert!(!same_time_to_live(lease(2000), lease(1000)));
        assert!(!same_time_to_live(lease(1), lease(-1)));
    }
}
