//! What other members answer: any bytes as an HTTP answer, and its body as each of the things that members are asked for.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use server::config::Url;
use server::peer::admission::{self, CLUSTER_ID};
use server::peer::{dial, join, versions};
use server::service::lease;

use crate::http2::Scripted;
use crate::input::Input;

/// Bytes of an answer.
const BYTES_MAX: usize = 1 << 16;
/// Everything is there at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the target: the first byte tells whether a head comes before the body.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    if input.byte() == 0 {
        return read(&input.rest().to_vec().into());
    }
    let piece_bytes = usize::from(input.byte()) + 1;
    let io = Scripted { bytes: input.rest().to_vec(), at: 0, piece_bytes };
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
    }
    RUNTIME.with(|runtime| {
        tokio::task::LocalSet::new().block_on(runtime, async move {
            // Whatever is no answer is an error.
            if let Ok(body) = asked(io).await {
                read(&body);
            }
        });
    });
}

async fn asked(io: Scripted) -> std::io::Result<Bytes> {
    let url = Url::parse("http://127.0.0.1:2380").expect("a URL");
    let mut connection = dial::shake_hands(io).await?;
    let request = dial::request(Method::GET, &url, "/members", HeaderMap::new(), Bytes::new());
    let answer = dial::send(&mut connection, request, PATIENCE).await?;
    let _cluster = admission::text(answer.headers(), &CLUSTER_ID).and_then(admission::id);
    let body = dial::collect(answer.into_body(), BYTES_MAX, PATIENCE).await?;
    assert!(body.len() <= BYTES_MAX, "it is bounded");
    Ok(body)
}

fn read(body: &Bytes) {
    // Each may be none of these.
    drop(versions::parse(body));
    let _version = join::parse_cluster_version(body);
    drop(lease::read_times(body.clone()));
    let _ttl = lease::read_renewed(body.clone());
    if let Ok(told) = join::parse_members(body) {
        let url = Url::parse("http://127.0.0.1:2380").expect("a URL");
        let members = [("m0".to_owned(), vec![url])].into();
        drop(join::matched(&told, &members, "m0"));
    }
}
