//! `ctl`: what etcdctl does, one file per family of commands.

mod alarm;
mod check;
mod compaction;
mod completion;
mod context;
mod defrag;
mod del;
mod downgrade;
mod elect;
mod endpoint;
mod get;
mod global;
mod lease;
mod lock;
mod log;
mod make_mirror;
mod member;
mod move_leader;
mod prompt;
mod put;
mod signal;
mod snapshot;
mod txn;
mod utility;
mod watch;
mod words;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use crate::command::{Command, Misuse, Request, help, understand};
use crate::exit::{ERROR, Failure};

const KEY_VALUE: &str = "Key-value commands";
const MAINTENANCE: &str = "Cluster maintenance commands";
const CONCURRENCY: &str = "Concurrency commands";
const UTILITY: &str = "Utility commands";

/// The headings of the root's help, in their order.
pub(crate) const GROUPS: &[&str] = &[KEY_VALUE, MAINTENANCE, CONCURRENCY, UTILITY];

/// Follows every help text.
const HINT: &str = "Use \"etcdctl options\" for a list of global command-line options \
                    (applies to all commands).";

/// Everything that `ctl` can do.
pub(crate) static ROOT: Command = Command {
    usage: "etcdctl",
    short: "A simple command line client for etcd3.",
    inherited: global::FLAGS,
    // Sorted by name, as help lists them.
    children: &[
        alarm::ALARM,
        check::CHECK,
        compaction::COMPACTION,
        completion::COMPLETION,
        defrag::DEFRAG,
        del::DEL,
        downgrade::DOWNGRADE,
        elect::ELECT,
        endpoint::ENDPOINT,
        get::GET,
        utility::HELP,
        lease::LEASE,
        lock::LOCK,
        make_mirror::MAKE_MIRROR,
        member::MEMBER,
        move_leader::MOVE_LEADER,
        utility::OPTIONS,
        put::PUT,
        snapshot::SNAPSHOT,
        txn::TXN,
        utility::VERSION_COMMAND,
        watch::WATCH,
    ],
    ..Command::NONE
};

/// Carries out one command line, given without the program's name.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let outcome = match understand(&ROOT, &arguments) {
        Ok(Request::Help(path)) => print(&format!("{}{HINT}\n", help(&path))),
        Ok(Request::Run(run, invocation)) => run_to_end(run(invocation)),
        Err(Misuse(text)) => complain(&text).and_then(|()| Err(Failure::silent(ERROR))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, message }) => {
            if let Some(message) = message {
                // Nothing is left to do if this fails too: the code still tells.
                drop(complain(&format!("Error: {message}\n")));
            }
            ExitCode::from(code)
        }
    }
}

fn run_to_end(command: crate::command::Running) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(command);
    // A read of standard input may never return: it must not keep the process.
    runtime.shutdown_background();
    outcome
}

/// Writes to standard output.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Writes to standard error.
fn complain(text: &str) -> Result<(), Failure> {
    Ok(std::io::stderr().lock().write_all(text.as_bytes())?)
}
