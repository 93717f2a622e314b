//! The one binary. What it is depends on how it is called:
//!
//! | called as, or with | it is |
//! |---|---|
//! | no subcommand, or only flags; by the name `etcd` | the server |
//! | `ctl …`; by the name `etcdctl` | the client |

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Returns memory early and takes a fifth less CPU than the system's under this load (design §7).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Freed memory goes back to the system within a second, by a thread of the allocator's own; one arena per thread that
/// allocates much is enough.
#[expect(unsafe_code, reason = "the allocator reads its configuration from this symbol")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static MALLOC_CONF: Option<&'static std::ffi::c_char> =
    // SAFETY: the pointer is to a string literal, which lives for ever and is never written.
    Some(unsafe {
        &*c"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0,narenas:4".as_ptr()
    });

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let name = arguments.first().map(Path::new).and_then(Path::file_name);
    let is_ctl_by_name = name.is_some_and(|name| name == "etcdctl");
    let is_server_by_name = name.is_some_and(|name| name == "etcd");
    match arguments.get(1).and_then(|first| first.to_str()) {
        _ if is_ctl_by_name => cli::ctl::main(arguments.into_iter().skip(1)),
        Some("ctl") if !is_server_by_name => cli::ctl::main(arguments.into_iter().skip(2)),
        _ => serve(&arguments),
    }
}

fn serve(arguments: &[OsString]) -> ExitCode {
    let text = |value: &OsString| value.to_string_lossy().into_owned();
    let arguments: Vec<String> = arguments.iter().map(text).collect();
    let environment =
        std::env::vars_os().map(|(name, value)| (text(&name), text(&value))).collect();
    server::assemble::run(&arguments, &environment)
}
