//! Lines that operators and scripts look for, read as JSON. With etcd as `QUORATE_BINARY` the same texts are asked of it.

use serde_json::{Value, json};

use crate::harness::{Server, Setup};
use crate::http1;

const APPLY: &str = "apply request took too long";
const STATS: &str = "request stats";
const SECRET: &str = "c2VjcmV0";

/// A server to which everything is slow.
fn impatient() -> Server {
    let setup = Setup::new().flag("--warning-apply-duration=1ns");
    setup.flag("--warning-unary-request-duration=1ns").start()
}

async fn call(server: &Server, path: &str, body: &str) -> u16 {
    http1::post(server.address(), path, body).await.status
}

/// The fields of the first line with `message` that contains `text`.
fn line(server: &Server, message: &str, text: &str) -> Value {
    let find = || {
        let log = server.log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["msg"] == message && line.to_string().contains(text))
    };
    crate::harness::eventually("a line", || find().is_some());
    find().expect("it was there")
}

/// The names of a line's own fields, in order.
fn names(line: &Value) -> Vec<&str> {
    let common = ["level", "ts", "caller", "msg"];
    let fields = line.as_object().expect("an object").keys().map(String::as_str);
    fields.filter(|name| !common.contains(name)).collect()
}

#[tokio::test]
async fn a_slow_put_is_told_of_without_its_value() {
    let server = impatient();
    let put = format!(r#"{{"key":"YQ==","value":"{SECRET}"}}"#);
    assert_eq!(call(&server, "/v3/kv/put", &put).await, 200);
    let apply = line(&server, APPLY, "put:<");
    assert_eq!(names(&apply), ["took", "expected-duration", "prefix", "request", "response"]);
    assert_eq!((&apply["level"], &apply["expected-duration"]), (&json!("warn"), &json!("1ns")));
    assert_eq!((&apply["prefix"], &apply["response"]), (&json!(""), &json!("size:4")));
    let request = apply["request"].as_str().expect("a text");
    assert!(request.starts_with("header:<ID:"), "{request}");
    assert!(request.ends_with(r#"> put:<key:"a" value_size:6 >"#), "{request}");
    let stats = line(&server, STATS, "/etcdserverpb.KV/Put");
    let expected = [
        "start time",
        "time spent",
        "remote",
        "response type",
        "request count",
        "request size",
        "response count",
        "response size",
        "request content",
    ];
    assert_eq!(names(&stats), expected);
    assert_eq!((&stats["level"], &stats["request count"]), (&json!("warn"), &json!(1)));
    assert_eq!((&stats["request size"], &stats["response count"]), (&json!(11), &json!(0)));
    assert_eq!(stats["request content"], r#"key:"a" value_size:6 "#);
    let remote = stats["remote"].as_str().expect("a text");
    assert!(remote.starts_with("127.0.0.1:"), "{remote}");
    assert!(!server.log().contains("secret") && !server.log().contains(SECRET));
}

#[tokio::test]
async fn slow_reads_are_told_of_with_what_they_gave() {
    let server = impatient();
    assert_eq!(call(&server, "/v3/kv/put", r#"{"key":"YQ==","value":"Yg=="}"#).await, 200);
    assert_eq!(call(&server, "/v3/kv/range", r#"{"key":"YQ==","limit":"3"}"#).await, 200);
    let apply = line(&server, APPLY, "read-only range");
    assert_eq!(apply["prefix"], "read-only range ");
    assert_eq!(apply["request"], r#"key:"a"  limit:3"#);
    assert_eq!(apply["response"], "range_response_count:1 size:20");
    let stats = line(&server, STATS, "/etcdserverpb.KV/Range");
    assert_eq!((&stats["request count"], &stats["request size"]), (&json!(0), &json!(5)));
    assert_eq!(stats["response count"], 1);
    let txn = r#"{"success":[{"request_range":{"key":"YQ=="}},{"request_range":{"key":"Yg=="}}]}"#;
    assert_eq!(call(&server, "/v3/kv/txn", txn).await, 200);
    let apply = line(&server, APPLY, "read-only txn");
    assert_eq!(apply["prefix"], "read-only txn ");
    let request =
        r#"compare:<> success:<request_range:{key:"a"} request_range:{key:"b"}> failure:<>"#;
    assert_eq!(apply["request"], request);
    let response = "responses:<range_response_count:1 range_response_count:0> size:38";
    assert_eq!(apply["response"], response);
    let stats = line(&server, STATS, "/etcdserverpb.KV/Txn");
    assert_eq!((&stats["request count"], &stats["request size"]), (&json!(2), &json!(10)));
}

#[tokio::test]
async fn a_slow_refusal_is_told_of_with_its_reason() {
    let server = impatient();
    let put = r#"{"key":"YQ==","value":"Yg==","lease":"4660"}"#;
    assert_eq!(call(&server, "/v3/kv/put", put).await, 404);
    let apply = line(&server, APPLY, "lease:4660");
    assert_eq!(apply["response"], "");
    assert!(apply["error"].as_str().is_some_and(|error| error.contains("lease not found")));
    let txn = format!(
        r#"{{"compare":[{{"key":"YQ==","target":"VALUE","value":"{SECRET}"}}],
            "success":[{{"request_put":{{"key":"YQ==","value":"{SECRET}"}}}}]}}"#
    );
    assert_eq!(call(&server, "/v3/kv/txn", &txn).await, 200);
    let request = line(&server, APPLY, "txn:<");
    let request = request["request"].as_str().expect("a text");
    let expected = concat!(
        r#"> txn:<compare:<target:VALUE key:"a" value_size:6 > "#,
        r#"success:<request_put:<key:"a" value_size:6 >> failure:<>>"#
    );
    assert!(request.ends_with(expected), "{request}");
    assert!(!server.log().contains("secret") && !server.log().contains(SECRET));
    assert_eq!(call(&server, "/v3/kv/deleterange", r#"{"key":"YQ=="}"#).await, 200);
    let stats = line(&server, STATS, "/etcdserverpb.KV/DeleteRange");
    assert_eq!(stats["request content"], r#"key:"a""#);
    assert_eq!(call(&server, "/v3/maintenance/status", "{}").await, 200);
    let stats = line(&server, STATS, "Maintenance/Status");
    assert_eq!((&stats["request count"], &stats["response size"]), (&json!(-1), &json!(-1)));
}

#[tokio::test]
async fn nothing_is_told_of_what_is_quick() {
    let patient = Setup::new().flag("--warning-apply-duration=1h");
    let server = patient.flag("--warning-unary-request-duration=1h").start();
    assert_eq!(call(&server, "/v3/kv/put", r#"{"key":"YQ==","value":"Yg=="}"#).await, 200);
    assert_eq!(call(&server, "/v3/kv/range", r#"{"key":"YQ=="}"#).await, 200);
    assert!(!server.log().contains(APPLY) && !server.log().contains(STATS));
}

#[tokio::test]
async fn starts_snapshots_and_compactions_are_told_of_in_etcds_words() {
    let server = Setup::new().flag("--snapshot-count=5").start();
    let start = line(&server, "starting an etcd server", "");
    let told = ["member-initialized", "snapshot-count", "v2-deprecation"].map(|name| &start[name]);
    assert_eq!(told, [&json!(false), &json!(5), &json!("write-only")]);
    for _ in 0..8 {
        assert_eq!(call(&server, "/v3/kv/put", r#"{"key":"YQ==","value":"YQ=="}"#).await, 200);
    }
    let saved = line(&server, "saved snapshot to disk", "");
    assert!(saved["snapshot-index"].as_u64() > Some(5), "{saved}");
    assert_eq!(call(&server, "/v3/kv/compaction", r#"{"revision":"4"}"#).await, 200);
    let compacted = line(&server, "finished scheduled compaction", "");
    assert_eq!(compacted["compact-revision"], json!(4));
}
