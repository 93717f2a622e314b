//! Every format shows the answers of a real member as etcdctl 3.7.1 did when they were recorded.
//!
//! `testdata/printer/record.sh`, `record_members.sh` and `record_downgrade.sh` record. A message is read back from its own bytes, or, where no format
//! has all of them, from JSON.

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cli::printer::{Error, Format, Health, Output, Printer, si_bytes};
use prost::Message;
use proto::etcdserverpb::downgrade_request::DowngradeAction;
use proto::etcdserverpb::{
    AlarmMember, AlarmResponse, AlarmType, DeleteRangeResponse, DowngradeResponse, HashKvResponse,
    LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseStatus, LeaseTimeToLiveResponse,
    MemberAddResponse, MemberListResponse, MemberPromoteResponse, MemberRemoveResponse,
    MemberUpdateResponse, MoveLeaderResponse, PutResponse, RangeResponse, ResponseHeader,
    StatusResponse, TxnResponse, WatchResponse,
};
use serde_json::Value;

const FORMATS: [(&str, Format, bool); 8] = [
    ("simple", Format::Simple, false),
    ("fields", Format::Fields, false),
    ("json", Format::Json, false),
    ("protobuf", Format::Protobuf, false),
    ("table", Format::Table, false),
    ("hex-simple", Format::Simple, true),
    ("hex-fields", Format::Fields, true),
    ("hex-json", Format::Json, true),
];

fn recorded(name: &str, format: &str) -> Option<Vec<u8>> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/printer");
    fs::read(directory.join(format!("{name}.{format}"))).ok()
}

fn message<T: Message + Default>(name: &str) -> T {
    T::decode(recorded(name, "protobuf").unwrap().as_slice()).unwrap()
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&recorded(name, "json").unwrap()).unwrap()
}

fn header(value: &Value) -> Option<ResponseHeader> {
    Some(ResponseHeader {
        cluster_id: value["cluster_id"].as_u64()?,
        member_id: value["member_id"].as_u64()?,
        revision: value["revision"].as_i64()?,
        raft_term: value["raft_term"].as_u64()?,
    })
}

fn shown(
    printer: Printer,
    show: impl Fn(Printer, &mut Output<'_>) -> Result<(), Error>,
) -> Result<(Vec<u8>, String), Error> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    show(printer, &mut Output { out: &mut out, err: &mut err })?;
    Ok((out, String::from_utf8(err).unwrap()))
}

/// Shows in all formats and compares with what was recorded; what was not must be refused.
#[track_caller]
fn check(name: &str, show: impl Fn(Printer, &mut Output<'_>) -> Result<(), Error>) {
    for (suffix, format, is_hex) in FORMATS {
        let printer = Printer { format, is_hex, values_only: false };
        match (shown(printer, &show), recorded(name, suffix)) {
            (Ok((out, _)), Some(expected)) => assert_eq!(
                String::from_utf8_lossy(&out),
                String::from_utf8_lossy(&expected),
                "{name} as {suffix}"
            ),
            (Err(Error::Unsupported(text)), None) => {
                let format = suffix.trim_start_matches("hex-");
                assert_eq!(text, format!("{format} not supported as output format"));
            }
            (outcome, expected) => {
                panic!("{name} as {suffix}: {outcome:?}, recorded is {:?}", expected.is_some());
            }
        }
    }
}

#[test]
fn answers_of_the_key_value_service() {
    for name in ["range", "range_absent"] {
        let answer: RangeResponse = message(name);
        check(name, |printer, to| printer.range(to, &answer));
    }
    for name in ["put", "put_prev"] {
        let answer: PutResponse = message(name);
        check(name, |printer, to| printer.put(to, &answer));
    }
    let answer: DeleteRangeResponse = message("delete_prev");
    check("delete_prev", |printer, to| printer.delete_range(to, &answer));
    for name in ["txn", "txn_failed"] {
        let answer: TxnResponse = message(name);
        check(name, |printer, to| printer.txn(to, &answer));
    }
    let answer: WatchResponse = message("watch");
    check("watch", |printer, to| printer.watch(to, &answer));
}

#[test]
fn values_alone_are_shown_on_demand() {
    let answer: RangeResponse = message("range");
    let printer = Printer { format: Format::Simple, is_hex: false, values_only: true };
    let (out, _) = shown(printer, |printer, to| printer.range(to, &answer)).unwrap();
    assert_eq!(out, b"line\none\t\"quoted\" <&> \xff\nother\n\n");
}

#[test]
fn answers_about_leases() {
    for name in ["lease_timetolive", "lease_expired"] {
        let value = json(name);
        let keys = value["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
        let answer = LeaseTimeToLiveResponse {
            header: header(&value),
            id: value["id"].as_i64().unwrap(),
            ttl: value["ttl"].as_i64().unwrap(),
            granted_ttl: value["granted-ttl"].as_i64().unwrap(),
            keys: keys
                .iter()
                .map(|k| STANDARD.decode(k.as_str().unwrap()).unwrap().into())
                .collect(),
        };
        check(name, |printer, to| printer.time_to_live(to, &answer, name == "lease_timetolive"));
    }
    let value = json("leases");
    let leases = value["leases"].as_array().unwrap();
    let answer = LeaseLeasesResponse {
        header: header(&value),
        leases: leases.iter().map(|l| LeaseStatus { id: l["id"].as_i64().unwrap() }).collect(),
    };
    check("leases", |printer, to| printer.leases(to, &answer));
    let value = json("lease_keepalive");
    let answer = LeaseKeepAliveResponse {
        header: header(&value),
        id: value["ID"].as_i64().unwrap(),
        ttl: value["TTL"].as_i64().unwrap(),
    };
    check("lease_keepalive", |printer, to| printer.keep_alive(to, &answer));
}

#[test]
fn answers_about_members() {
    let answer: MemberListResponse = message("member_list");
    check("member_list", |printer, to| printer.member_list(to, &answer));
    let answer: AlarmResponse = message("alarm");
    check("alarm", |printer, to| printer.alarm(to, &answer));
}

#[test]
fn answers_to_changes_of_membership() {
    let learner: MemberAddResponse = message("member_add_learner");
    check("member_add_learner", |printer, to| {
        printer.member_add(to, &learner, "second", "http://127.0.0.1:23722")
    });
    let leader = learner.header.unwrap().member_id;
    let learner = learner.member.unwrap().id;
    let answer: MemberPromoteResponse = message("member_promote");
    check("member_promote", |printer, to| printer.member_promote(to, learner, &answer));
    let added: MemberAddResponse = message("member_add");
    check("member_add", |printer, to| {
        printer.member_add(to, &added, "thi\"rd", "http://127.0.0.1:23732,http://127.0.0.1:23733")
    });
    let added = added.member.unwrap().id;
    let answer: MemberUpdateResponse = message("member_update");
    check("member_update", |printer, to| printer.member_update(to, added, &answer));
    let answer: MemberRemoveResponse = message("member_remove");
    check("member_remove", |printer, to| printer.member_remove(to, added, &answer));
    let answer: MoveLeaderResponse = message("move_leader");
    check("move_leader", |printer, to| printer.move_leader(to, leader, learner, &answer));
}

#[test]
fn answers_about_downgrades() {
    for (name, action) in [
        ("downgrade_validate", DowngradeAction::Validate),
        ("downgrade_enable", DowngradeAction::Enable),
        ("downgrade_cancel", DowngradeAction::Cancel),
    ] {
        let answer: DowngradeResponse = message(name);
        check(name, |printer, to| printer.downgrade(to, action, &answer));
    }
}

#[test]
fn short_ids_are_padded_where_members_change() {
    let answer = MemberRemoveResponse::default();
    let show = |format, is_hex| {
        let printer = Printer { format, is_hex, values_only: false };
        let (out, _) = shown(printer, |printer, to| printer.member_remove(to, 7, &answer)).unwrap();
        String::from_utf8(out).unwrap()
    };
    let simple = "Member                7 removed from cluster                0\n";
    assert_eq!(show(Format::Simple, false), simple);
    assert_eq!(show(Format::Json, false), "{}\n");
    assert_eq!(show(Format::Json, true), "{\"header\":null,\"members\":[]}\n");
}

#[test]
fn answers_of_endpoints() {
    let value = &json("status")[0];
    let status = &value["Status"];
    let text = |name: &str| status[name].as_str().unwrap().to_owned();
    let number = |name: &str| status[name].as_i64().unwrap();
    let answer = StatusResponse {
        header: header(&status["header"]),
        version: text("version"),
        db_size: number("dbSize"),
        leader: status["leader"].as_u64().unwrap(),
        raft_index: status["raftIndex"].as_u64().unwrap(),
        raft_term: status["raftTerm"].as_u64().unwrap(),
        raft_applied_index: status["raftAppliedIndex"].as_u64().unwrap(),
        db_size_in_use: number("dbSizeInUse"),
        storage_version: text("storageVersion"),
        db_size_quota: number("dbSizeQuota"),
        downgrade_info: Some(proto::etcdserverpb::DowngradeInfo::default()),
        ..StatusResponse::default()
    };
    let list = [(value["Endpoint"].as_str().unwrap().to_owned(), answer)];
    check("status", |printer, to| printer.endpoint_status(to, &list));

    let value = &json("hashkv")[0];
    let hash = &value["HashKV"];
    let answer = HashKvResponse {
        header: header(&hash["header"]),
        hash: u32::try_from(hash["hash"].as_u64().unwrap()).unwrap(),
        compact_revision: hash["compact_revision"].as_i64().unwrap(),
        hash_revision: hash["hash_revision"].as_i64().unwrap(),
    };
    let list = [(value["Endpoint"].as_str().unwrap().to_owned(), answer)];
    check("hashkv", |printer, to| printer.endpoint_hash_kv(to, &list));
}

#[test]
fn health_complains_on_standard_error() {
    let health = |endpoint: &str, error: &str| Health {
        endpoint: endpoint.to_owned(),
        is_healthy: error.is_empty(),
        took: "1.5ms".to_owned(),
        error: error.to_owned(),
    };
    let list = [health("a:1", ""), health("b:2", "Active Alarm(s): NOSPACE ")];
    let show = |format| {
        let printer = Printer { format, is_hex: false, values_only: false };
        let (out, err) = shown(printer, |printer, to| printer.endpoint_health(to, &list)).unwrap();
        (String::from_utf8(out).unwrap(), err)
    };
    let (out, err) = show(Format::Simple);
    assert_eq!(out, "a:1 is healthy: successfully committed proposal: took = 1.5ms\n");
    assert_eq!(err, "b:2 is unhealthy: failed to commit proposal: Active Alarm(s): NOSPACE \n");
    assert_eq!(
        show(Format::Json).0,
        "[{\"endpoint\":\"a:1\",\"health\":true,\"took\":\"1.5ms\"},\
         {\"endpoint\":\"b:2\",\"health\":false,\"took\":\"1.5ms\",\
         \"error\":\"Active Alarm(s): NOSPACE \"}]\n"
    );
}

#[test]
fn alarms_are_named() {
    let alarm = AlarmMember { member_id: 7, alarm: AlarmType::Nospace.into() };
    let answer = AlarmResponse { header: None, alarms: vec![alarm] };
    let show = |format, is_hex| {
        let printer = Printer { format, is_hex, values_only: false };
        let (out, _) = shown(printer, |printer, to| printer.alarm(to, &answer)).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert_eq!(show(Format::Simple, false), "memberID:7 alarm:NOSPACE\n");
    assert_eq!(show(Format::Json, false), "{\"alarms\":[{\"memberID\":7,\"alarm\":1}]}\n");
    let fields = "\"ClusterID\" : 0\n\"MemberID\" : 0\n\"RaftTerm\" : 0\n\
                  \"MemberID\" : 7\n\"AlarmType\" : NOSPACE\n\n";
    assert_eq!(show(Format::Fields, true), fields);
}

#[test]
fn sizes_have_two_digits_below_ten() {
    let cases = [
        (0, "0 B"),
        (9, "9 B"),
        (10, "10 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (20_480, "20 kB"),
        (9_949, "9.9 kB"),
        (9_951, "10 kB"),
        (999_999, "1000 kB"),
        (1_000_000, "1.0 MB"),
        (2_147_483_648, "2.1 GB"),
        (u64::MAX, "18 EB"),
    ];
    for (size, text) in cases {
        assert_eq!(si_bytes(size), text, "{size}");
    }
}
