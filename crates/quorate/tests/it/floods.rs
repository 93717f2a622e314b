//! Floods of HTTP/2 frames: each ends the connection that sends it, or costs next to nothing.

use crate::bystander::unharmed;
use crate::frames::{
    CONTINUATION, Connection, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, PING,
    PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, call, frame, message,
};
use crate::harness::Setup;

/// What a flood may cost the process at most, in resident memory.
const MEMORY_MAX: u64 = 64 << 20;
/// Frames of a flood.
const FLOOD: usize = 200_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ping_flood_ends_its_connection() {
    let server = Setup::new().start();
    unharmed(&server, MEMORY_MAX, async {
        let mut connection = Connection::open(server.address()).await;
        connection.repeat(&frame(PING, 0, 0, &[0; 8]), FLOOD).await;
        connection.closed().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_pings_too_often_is_told_so() {
    let server = Setup::new().start();
    let mut connection = Connection::open(server.address()).await;
    connection.send(&frame(PING, 0, 0, &[0; 8]).repeat(4)).await;
    let heard = connection.closed().await;
    // Clients of grpc-go slow down on exactly this.
    assert_eq!(heard.goaway, Some((ENHANCE_YOUR_CALM, "too_many_pings".to_owned())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settings_flood_ends_its_connection() {
    let server = Setup::new().start();
    unharmed(&server, MEMORY_MAX, async {
        let mut connection = Connection::open(server.address()).await;
        connection.repeat(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]), FLOOD).await;
        connection.closed().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_resets_end_their_connection() {
    let server = Setup::new().start();
    unharmed(&server, MEMORY_MAX, async {
        for path in ["/etcdserverpb.KV/Put", "/etcdserverpb.Watch/Watch", "/no.Such/Method"] {
            let mut connection = Connection::open(server.address()).await;
            let batches = (0..FLOOD as u32 / 4).step_by(64);
            let mut batches = batches.map(|first| opened_and_reset(path, first));
            while let Some(batch) = batches.next()
                && connection.send(&batch).await
            {}
            let is_over = batches.next().is_none();
            let heard = connection.closed().await;
            assert!(!is_over || heard.goaway.is_some(), "{path}: {heard:?}");
        }
    })
    .await;
}

/// Streams number `first` and the next 63, each reset as soon as it is open.
fn opened_and_reset(path: &str, first: u32) -> Vec<u8> {
    let headers = call(path);
    let mut bytes = Vec::new();
    for stream in (first..first + 64).map(|number| 1 + 2 * number) {
        bytes.extend(frame(HEADERS, END_HEADERS, stream, &headers));
        bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn header_blocks_without_end_are_refused() {
    let server = Setup::new().start();
    unharmed(&server, MEMORY_MAX, async {
        // Pieces of one header, and pieces of nothing.
        for piece in [&[b'a'; 1000][..], &[]] {
            let mut connection = Connection::open(server.address()).await;
            connection.send(&frame(HEADERS, 0, 1, &call("/etcdserverpb.KV/Put"))).await;
            connection.repeat(&frame(CONTINUATION, 0, 1, piece), FLOOD / 4).await;
            connection.closed().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_header_lists_are_refused() {
    let server = Setup::new().start();
    unharmed(&server, MEMORY_MAX, async {
        let value = "v".repeat(16_000);
        for round in 0..20 {
            let mut connection = Connection::open(server.address()).await;
            connection.send(&frame(HEADERS, 0, 1, &call("/etcdserverpb.KV/Put"))).await;
            let mut pieces = (0..60).map(|number| {
                let name = format!("name-{round}-{number}");
                frame(CONTINUATION, 0, 1, &block(&[(name.as_str(), value.as_str())]))
            });
            while let Some(piece) = pieces.next()
                && connection.send(&piece).await
            {}
            connection.send(&frame(CONTINUATION, END_HEADERS, 1, &[])).await;
            connection.close().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_mean_nothing_cost_nothing() {
    let server = Setup::new().start();
    let floods = [
        frame(DATA, 0, 1, &[]),
        frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()),
        frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes()),
        frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 7]),
        frame(0xbb, 0, 1, &[1; 100]),
    ];
    unharmed(&server, MEMORY_MAX, async {
        for flood in floods {
            let mut connection = Connection::open(server.address()).await;
            let headers = call("/etcdserverpb.Watch/Watch");
            connection.send(&frame(HEADERS, END_HEADERS, 1, &headers)).await;
            connection.repeat(&flood, FLOOD / 2).await;
            connection.close().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_frames_end_their_connection() {
    let server = Setup::new().start();
    let headers = call("/etcdserverpb.KV/Put");
    let oversized = [0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1];
    let broken = [
        oversized.to_vec(),
        frame(DATA, 0, 0, b"on no stream"),
        frame(DATA, 0, 5, b"on an idle stream"),
        frame(HEADERS, END_HEADERS, 2, &headers),
        frame(CONTINUATION, END_HEADERS, 1, &headers),
        frame(HEADERS, END_HEADERS, 1, &[0xff; 100]),
        frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
        frame(SETTINGS, 0, 0, &[1, 2, 3]),
        frame(PING, 0, 0, &[1, 2, 3]),
        frame(WINDOW_UPDATE, 0, 0, &0_u32.to_be_bytes()),
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
    ];
    unharmed(&server, MEMORY_MAX, async {
        for bytes in broken {
            let mut connection = Connection::open(server.address()).await;
            connection.send(&bytes).await;
            connection.closed().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_open_streams_are_bounded() {
    let server = Setup::new().start();
    unharmed(&server, 4 * MEMORY_MAX, async {
        let mut connection = Connection::open(server.address()).await;
        let headers = call("/etcdserverpb.Watch/Watch");
        let create = message(&[0x0a, 3, 0x0a, 1, b'a']);
        for number in 0..10_000 {
            let stream = 1 + 2 * number;
            let mut bytes = frame(HEADERS, END_HEADERS, stream, &headers);
            bytes.extend(frame(DATA, 0, stream, &create));
            assert!(connection.send(&bytes).await, "closed at stream {number}");
        }
        // Unary calls that never get a message, and some that never get their answer read.
        let headers = call("/etcdserverpb.KV/Range");
        for number in 10_000..15_000 {
            let stream = 1 + 2 * number;
            let mut bytes = frame(HEADERS, END_HEADERS, stream, &headers);
            bytes.extend(frame(DATA, END_STREAM & (number % 2) as u8, stream, &[0, 0, 0]));
            assert!(connection.send(&bytes).await, "closed at stream {number}");
        }
        connection.close().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_never_end_are_bounded() {
    let server = Setup::new().start();
    // The server's bound on incomplete messages, and room for what the flood itself costs.
    unharmed(&server, (256 << 20) + 3 * MEMORY_MAX, async {
        // The frame of a message of 1.5 MB, of which 0.9 MB come.
        let mut part = vec![0, 0, 0x16, 0xe3, 0x60];
        part.resize(16_000, b'x');
        let mut connections = Vec::new();
        for _ in 0..4 {
            let mut connection = Connection::open(server.address()).await;
            let headers = call("/etcdserverpb.KV/Put");
            let mut is_open = true;
            let mut streams = (0..200).map(|number| 1 + 2 * number);
            // A connection that goes on after many refusals is closed in the end.
            while is_open && let Some(stream) = streams.next() {
                is_open = connection.room(56 * part.len() as i64).await;
                let mut bytes = frame(HEADERS, END_HEADERS, stream, &headers);
                bytes.extend(frame(DATA, 0, stream, &part).repeat(56));
                is_open &= connection.send(&bytes).await;
            }
            connections.push(connection);
        }
        // Those that had no room were refused, the others still wait.
        let mut refused = 0;
        for connection in connections {
            refused += connection.close().await.frames[usize::from(HEADERS)];
        }
        assert!((1..800).contains(&refused), "{refused} of 800 refused");
    })
    .await;
}
