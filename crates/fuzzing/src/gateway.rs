//! The JSON gateway: any document for any method, alone and through the HTTP door, and any message back to JSON.
//!
//! Compared: what a document becomes is read again from its own JSON as the same message.

use std::rc::Rc;

use bytes::Bytes;
use server::grpc::method::Method;
use server::http::json::Shape;
use server::service::Remote;

use crate::http2::Scripted;
use crate::input::Input;
use crate::world::World;

const PATHS: [&str; 12] = [
    "/v3/kv/range",
    "/v3/kv/put",
    "/v3/kv/txn",
    "/v3/watch",
    "/v3/lease/keepalive",
    "/v3/lease/grant",
    "/v3/maintenance/snapshot",
    "/v3/election/observe",
    "/v3/cluster/member/list",
    "/health?serializable=true&exclude=NOSPACE",
    "/version",
    "/metrics",
];

/// Runs the target.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.byte();
    let method = Method::ALL[usize::from(input.byte()) % Method::ALL.len()];
    match mode {
        0 => http(input.rest().to_vec()),
        1 => posted(usize::from(input.byte()), input.rest()),
        2 => {
            let shape = Shape::of(method);
            // A message that does not decode is refused.
            drop(shape.encode(Bytes::copy_from_slice(input.rest())));
        }
        _ => {
            let shape = Shape::of(method);
            let json = input.rest();
            if let Ok(message) = shape.decode(json) {
                assert_eq!(
                    shape.decode(json).ok(),
                    Some(message.clone()),
                    "decoding is a function"
                );
                drop(shape.encode(message));
            }
        }
    }
}

/// Sends a document to a path.
fn posted(path: usize, body: &[u8]) {
    let path = PATHS[path % PATHS.len()];
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    http([head.as_bytes(), body].concat());
}

/// Sends bytes to the HTTP/1.1 door.
fn http(bytes: Vec<u8>) {
    let io = Scripted { bytes, at: 0, piece_bytes: 100 };
    let world = World::new();
    let services = Rc::clone(&world.services);
    let draining = world.draining.clone();
    world.run(async move {
        // A connection that breaks the protocol ends with an error.
        drop(server::http::serve(io, Remote::Local, services, World::pages(), draining).await);
    });
}
