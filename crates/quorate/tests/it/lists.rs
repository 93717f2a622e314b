//! Lists of all sizes and orders: what they answer, and what they cost while nobody reads them.

use crate::bystander::unharmed;
use crate::client::Client;
use crate::harness::Setup;
use crate::http1;
use crate::slow::{MIB, fill, silent};

/// `list/` to `list0`.
const GATEWAY_LIST: &str = r#"{"key":"bGlzdC8=","range_end":"bGlzdDA="}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_the_gateway_come_as_they_are_read() {
    let server = Setup::new().start();
    let client = Client::connect(&server).await;
    let few = http1::post(server.address(), "/v3/kv/range", GATEWAY_LIST).await;
    assert!(few.header("content-length").is_some() && few.json()["kvs"].is_null(), "{few:?}");
    fill(&client, "list/", 40_000, 500).await;
    unharmed(&server, 150 * MIB, async {
        let request = format!(
            "POST /v3/kv/range HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{GATEWAY_LIST}",
            GATEWAY_LIST.len()
        );
        let held = silent(server.address(), 20, request.as_bytes()).await;
        let list = http1::post(server.address(), "/v3/kv/range", GATEWAY_LIST).await;
        assert_eq!(list.header("transfer-encoding"), Some("chunked"));
        let list: serde_json::Value =
            serde_json::from_str(&list.unchunked().expect("to its end")).expect("JSON");
        assert_eq!(list["count"], "40000");
        let kvs = list["kvs"].as_array().expect("a list");
        assert_eq!(kvs.len(), 40_000);
        assert!(kvs.iter().all(|kv| kv["version"] == "1"));
        held
    })
    .await;
}
