//! What the fuzzer runs: one function from bytes to nothing per decoder that reads what others wrote.
//!
//! Whatever the bytes are, a target returns: refusals and faults are fine, a panic is a bug, and so is an answer that
//! contradicts another one (each module says which it compares). `fuzz/` builds them for libFuzzer, and the tests here
//! run the kept corpora in `fuzz/corpus/` on every build.

pub mod answer;
pub mod apply;
pub mod backend;
pub mod bolt;
pub mod dns;
pub mod door;
pub mod flags;
pub mod gateway;
pub mod grpc;
pub mod http2;
pub mod input;
pub mod peer;
pub mod snap;
pub mod snapshot;
pub mod stream;
pub mod wal;
pub mod world;

/// One thing to fuzz.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name of its binary and of its corpus.
    pub name: &'static str,
    /// Runs it with one input.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "wal_recover", run: wal::run },
    Target { name: "snap_load", run: snap::run },
    Target { name: "bolt_image", run: bolt::run },
    Target { name: "backend_open", run: backend::open },
    Target { name: "backend_records", run: backend::records },
    Target { name: "apply_entry", run: apply::run },
    Target { name: "peer_step", run: peer::run },
    Target { name: "peer_stream", run: stream::run },
    Target { name: "peer_door", run: door::run },
    Target { name: "peer_snapshot", run: snapshot::run },
    Target { name: "peer_answer", run: answer::run },
    Target { name: "dns_answer", run: dns::run },
    Target { name: "grpc_payload", run: grpc::run },
    Target { name: "http2_frames", run: http2::run },
    Target { name: "gateway_json", run: gateway::run },
    Target { name: "flags", run: flags::run },
];
