//! The peer port: whatever comes over a connection, as it is or as requests with honest heads, and what is answered.

use server::peer::admission::{Own, hex};
use server::service::Remote;

use crate::http2::Scripted;
use crate::input::Input;
use crate::world::World;

/// Methods and paths, with the ids of this member where they have some.
const PATHS: [&str; 14] = [
    "POST /raft",
    "POST /raft/snapshot",
    "GET /raft/stream/msgapp/",
    "GET /raft/stream/message/",
    "GET /raft/probing",
    "GET /members",
    "GET /members/hashkv",
    "POST /members/promote/",
    "POST /leases",
    "POST /leases/internal",
    "GET /downgrade/enabled",
    "GET /version",
    "PUT /raft",
    "GET /",
];

/// Runs the target.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.byte();
    let piece_bytes = usize::from(input.byte()) + 1;
    let world = World::new();
    let bytes = match mode {
        0 => input.rest().to_vec(),
        _ => requests(&mut input, world.own()),
    };
    let io = Scripted { bytes, at: 0, piece_bytes };
    let door = world.peer_door();
    world.run(async move { door.serve(io, Remote::Local).await });
}

/// Requests of somebody who knows the cluster: which one, what is added to its path and to its head, and a body.
fn requests(input: &mut Input<'_>, own: Own) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !input.is_empty() {
        let path = PATHS[usize::from(input.byte()) % PATHS.len()];
        let flags = input.byte();
        let suffix = if flags & 1 == 0 { input.text() } else { hex(own.member) };
        let extra = if flags & 2 == 0 { String::new() } else { format!("{}\r\n", input.text()) };
        let body = input.piece();
        let chunked = flags & 4 != 0;
        let cluster = if flags & 8 == 0 { own.cluster } else { 1 };
        let length = if chunked {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {}", body.len())
        };
        let head = format!(
            "{path}{suffix} HTTP/1.1\r\nHost: a\r\nX-Server-From: 2\r\nX-Server-Version: 3.7.1\r\n\
             X-Min-Cluster-Version: 3.0.0\r\nX-PeerURLs: http://127.0.0.1:1\r\nX-Raft-To: {}\r\n\
             X-Etcd-Cluster-ID: {}\r\n{extra}{length}\r\n\r\n",
            hex(own.member),
            hex(cluster),
        );
        bytes.extend_from_slice(head.as_bytes());
        if chunked {
            bytes.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(body);
        if chunked {
            bytes.extend_from_slice(b"\r\n0\r\n\r\n");
        }
    }
    bytes
}
