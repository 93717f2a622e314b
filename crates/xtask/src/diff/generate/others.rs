//! Leases, locks, elections, maintenance, and what no server should understand.

use bytes::Bytes;
use prost::Message as _;
use proto::etcdserverpb::{
    AlarmRequest, DefragmentRequest, DowngradeRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, MemberListRequest,
    MoveLeaderRequest, PutRequest, StatusRequest, TxnRequest,
};
use proto::health::HealthCheckRequest;
use proto::v3electionpb::{
    CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
};
use proto::v3lockpb::{LockRequest, UnlockRequest};

use super::{Call, Generator, Step, View, keys};
use crate::diff::known::WRONG_WIRE_TYPE;
use crate::diff::method;

const NOSPACE: i32 = 1;
const CORRUPT: i32 = 2;
const GET: i32 = 0;
const ACTIVATE: i32 = 1;
const DEACTIVATE: i32 = 2;

/// Bodies that are wrong in one way each, for a gateway route.
const BAD_JSON: [(&str, &str); 10] = [
    ("/v3/kv/put", "{"),
    ("/v3/kv/put", "[]"),
    ("/v3/kv/put", "null"),
    ("/v3/kv/put", r#"{"key":"%%%"}"#),
    ("/v3/kv/put", r#"{"key":1}"#),
    ("/v3/kv/range", r#"{"key":"YQ==","limit":"x"}"#),
    ("/v3/kv/range", r#"{"key":"YQ==","sort_order":"UP"}"#),
    ("/v3/kv/range", r#"{"key":"YQ==","no_such_field":1}"#),
    ("/v3/kv/range", r#"{"key":"YQ==","limit":"1","limit":"2"}"#),
    ("/v3/kv/txn", r#"{"success":[{"request_put":{},"request_range":{}}]}"#),
];

impl Generator {
    pub(super) fn lease(&mut self) -> Step {
        let random = &mut self.random;
        let id = keys::lease(random);
        // Far apart, and far from expiring while the seed runs.
        let ttl = 1000 * random.within(1, 50);
        Step::Call(match random.weighted(&[300, 60, 120, 120, 250, 100, 20]) {
            0 if id == 0 => return Step::AnonymousLease { ttl },
            0 => Call::of(&method::GRANT, &LeaseGrantRequest { ttl, id }),
            1 => {
                let ttl = random.pick(&[9_000_000_000, 9_000_000_001, i64::MAX]);
                Call::of(&method::GRANT, &LeaseGrantRequest { ttl, id: id.max(1) })
            }
            2 => Call::of(&method::REVOKE, &LeaseRevokeRequest { id }),
            3 => Call::of(&method::KEEP_ALIVE, &LeaseKeepAliveRequest { id }),
            4 => {
                let keys = random.chance(500);
                Call::of(&method::TIME_TO_LIVE, &LeaseTimeToLiveRequest { id, keys })
            }
            5 => Call::of(&method::LEASES, &LeaseLeasesRequest {}),
            _ => return self.short_lease(),
        })
    }

    /// A lease with less than the minimum: gone again before it could expire.
    fn short_lease(&mut self) -> Step {
        const ID: i64 = 77;
        let ttl = self.random.pick(&[0, 1, 2, -1, i64::MIN]);
        let look = LeaseTimeToLiveRequest { id: ID, keys: true };
        self.queue.push_back(Step::Call(Call::of(&method::TIME_TO_LIVE, &look)));
        self.queue.push_back(Step::Call(Call::of(&method::REVOKE, &LeaseRevokeRequest { id: ID })));
        Step::Call(Call::of(&method::GRANT, &LeaseGrantRequest { ttl, id: ID }))
    }

    /// Every wait has a deadline: who holds a lock does not matter.
    pub(super) fn lock(&mut self) -> Step {
        let random = &mut self.random;
        // Id 0 would make the server choose one, which then is in the key.
        let lease = 1 + random.within(0, 3);
        let name = random.pick(&[&b"lock"[..], b"mutex/a", b""]);
        let name = Bytes::from_static(name);
        let key = format!("lock/{lease:x}");
        let value = keys::value(random);
        let leader = random.chance(900).then(|| LeaderKey {
            name: Bytes::from_static(b"election"),
            key: format!("election/{lease:x}").into(),
            rev: random.within(1, 300),
            lease,
        });
        let mut call = match random.below(8) {
            0 | 1 => Call::of(&method::LOCK, &LockRequest { name, lease }),
            2 => Call::of(&method::UNLOCK, &UnlockRequest { key: key.into() }),
            3 => {
                let name = Bytes::from_static(b"election");
                Call::of(&method::CAMPAIGN, &CampaignRequest { name, lease, value })
            }
            4 => Call::of(&method::PROCLAIM, &ProclaimRequest { leader, value }),
            5 => Call::of(&method::RESIGN, &ResignRequest { leader }),
            6 => {
                // Frees what others wait for.
                let request = LeaseRevokeRequest { id: lease };
                Call::of(&method::REVOKE, &request)
            }
            _ => {
                let name = random.pick(&[&b"election"[..], b"nobody"]);
                let name = Bytes::from_static(name);
                Call::of(&method::LEADER, &LeaderRequest { name })
            }
        };
        if call.method.name == "Lock" || call.method.name == "Campaign" {
            call.timeout = Some("200m");
        }
        Step::Call(call)
    }

    pub(super) fn other(&mut self, view: View) -> Step {
        let random = &mut self.random;
        let id = random.pick(&[0, 1, view.member_id, u64::MAX]);
        Step::Call(match random.weighted(&[60, 250, 200, 3, 30, 60, 40, 60, 200, 40]) {
            0 => return self.alarm(view),
            1 => {
                let linearizable = random.chance(500);
                Call::of(&method::MEMBER_LIST, &MemberListRequest { linearizable })
            }
            2 => Call::of(&method::STATUS, &StatusRequest {}),
            3 => Call::of(&method::DEFRAGMENT, &DefragmentRequest {}),
            4 => Call::of(&method::MOVE_LEADER, &MoveLeaderRequest { target_id: id }),
            5 => {
                // Never one that would begin a downgrade.
                let action = random.pick(&[0, 0, 2, 3, -1]);
                let version = random.pick(&["", "3.6", "3.6.0", "3.5.0", "3.7", "4", "x.y", "-1"]);
                Call::of(&method::DOWNGRADE, &DowngradeRequest { action, version: version.into() })
            }
            6 => {
                let service = random.pick(&["", "etcdserverpb.KV", "x"]).into();
                Call::of(&method::HEALTH, &HealthCheckRequest { service })
            }
            7 => {
                let unknown = [&method::NO_METHOD, &method::NO_SERVICE];
                Call::of(random.pick(&unknown), &StatusRequest {})
            }
            8 => self.malformed(view),
            _ => {
                let (route, body) = random.pick(&BAD_JSON);
                return Step::BadJson { route, body };
            }
        })
    }

    /// An alarm, what is refused meanwhile, and the end of the alarm.
    fn alarm(&mut self, view: View) -> Step {
        let random = &mut self.random;
        let member_id = random.pick(&[0, 7, view.member_id]);
        let alarm = random.pick(&[NOSPACE, NOSPACE, NOSPACE, CORRUPT, 0, 3, -1]);
        let request = |action, alarm| AlarmRequest { action, member_id, alarm };
        let get = |alarm| {
            Step::Call(Call::of(&method::ALARM, &AlarmRequest { alarm, ..AlarmRequest::default() }))
        };
        // etcd dies of any other action.
        let first = random.pick(&[ACTIVATE, ACTIVATE, ACTIVATE, GET, DEACTIVATE]);
        let first = Step::Call(Call::of(&method::ALARM, &request(first, alarm)));
        let shown = random.pick(&[0, NOSPACE, CORRUPT, 9]);
        let mut steps = vec![get(0), get(shown)];
        steps.push(Step::Call(Call::of(&method::STATUS, &StatusRequest {})));
        for _ in 0..4 {
            steps.push(Step::Call(Call::of(&method::PUT, &self.put())));
            steps.push(Step::Call(Call::of(&method::TXN, &self.txn(view))));
            steps.push(Step::Call(Call::of(&method::RANGE, &self.range(view))));
        }
        steps.push(Step::Call(Call::of(&method::DELETE, &self.delete())));
        steps.push(Step::Call(Call::of(&method::COMPACT, &self.compaction(view))));
        steps.push(self.lease());
        steps.append(&mut self.queue.drain(..).collect());
        for alarm in [NOSPACE, CORRUPT, alarm] {
            let end = request(DEACTIVATE, alarm);
            steps.push(Step::Call(Call::of(&method::ALARM, &end)));
        }
        steps.push(get(0));
        self.queue.extend(steps);
        first
    }

    /// A message with some bytes changed, cut or added.
    fn malformed(&mut self, view: View) -> Call {
        let mut call = match self.random.below(4) {
            0 => Call::of(&method::RANGE, &self.range(view)),
            1 => Call::of(&method::PUT, &self.put()),
            2 => Call::of(&method::TXN, &self.txn(view)),
            _ => Call::of(&method::TIME_TO_LIVE, &LeaseTimeToLiveRequest { id: 1, keys: true }),
        };
        call.malformed = true;
        let damaged = self.damage(&call.message);
        // etcd passes over a field of another wire type, ours refuses it: that is known. A write must not be carried
        // out on one side only, or nothing would be equal after it.
        let is_refused = |error: prost::DecodeError| error.to_string().contains(WRONG_WIRE_TYPE);
        let splits = match call.method.name {
            "Put" => PutRequest::decode(damaged.clone()).is_err_and(is_refused),
            "Txn" => TxnRequest::decode(damaged.clone()).is_err_and(is_refused),
            _ => false,
        };
        if !splits {
            call.message = damaged;
        }
        call
    }

    fn damage(&mut self, message: &[u8]) -> Bytes {
        let mut bytes = message.to_vec();
        for _ in 0..=self.random.below(3) {
            let at = self.random.below(bytes.len());
            match self.random.below(3) {
                0 if !bytes.is_empty() => bytes[at] = self.random.next().to_le_bytes()[0],
                1 => bytes.truncate(at),
                _ => {
                    let length = 1 + self.random.below(4);
                    bytes.extend(self.random.bytes(length));
                }
            }
        }
        bytes.into()
    }
}
