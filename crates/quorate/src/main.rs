//! The one binary. What it is depends on how it is called:
//!
//! | called as, or with | it is |
//! |---|---|
//! | no subcommand, or only flags; by the name `etcd` | the server |
//! | `ctl …`; by the name `etcdctl` | the client |

use std::ffi::OsString;
use std::process::ExitCode;

/// Returns memory early and takes a fifth less CPU than the system's under this load (design §7).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    serve(&arguments)
}

fn serve(arguments: &[OsString]) -> ExitCode {
    let text = |value: &OsString| value.to_string_lossy().into_owned();
    let arguments: Vec<String> = arguments.iter().map(text).collect();
    let environment = std::env::vars_os().map(|(name, value)| (text(&name), text(&value))).collect();
    server::assemble::run(&arguments, &environment)
}
