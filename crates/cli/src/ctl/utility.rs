//! `help`, `options`, `version`.

use super::{HINT, ROOT, UTILITY, complain, global, print};
use crate::command::{Command, Invocation, Path, flag_usages, help, usage};
use crate::exit::Failure;

/// The release whose behaviour this is.
const VERSION: &str = "3.7.1";
const API_VERSION: &str = "3.7";

pub(super) const HELP: Command = Command {
    usage: "help [command]",
    short: "Help about any command",
    long: Some(
        "Help provides help for any command in the application.\n\
         Simply type etcdctl help [path to command] for full details.",
    ),
    group: UTILITY,
    run: Some(|invocation| Box::pin(async move { show_help(&invocation) })),
    ..Command::NONE
};

pub(super) const OPTIONS: Command = Command {
    usage: "options",
    short: "Show the global command-line flags",
    group: UTILITY,
    run: Some(|_| Box::pin(async { options() })),
    ..Command::NONE
};

pub(super) const VERSION_COMMAND: Command = Command {
    usage: "version",
    short: "Prints the version of etcdctl",
    group: UTILITY,
    run: Some(|_| Box::pin(async { version() })),
    ..Command::NONE
};

fn show_help(invocation: &Invocation) -> Result<(), Failure> {
    let (path, rest) = Path::find(&ROOT, &invocation.arguments);
    if let Some(unknown) = rest.first().filter(|_| path.command().name() == ROOT.name()) {
        let unknown = unknown.to_string_lossy();
        return complain(&format!("Unknown help topic [`{unknown}`]\n{}", usage(&path)));
    }
    print(&format!("{}{HINT}\n", help(&path)))
}

fn options() -> Result<(), Failure> {
    let flags: Vec<_> = global::FLAGS.iter().collect();
    let table = flag_usages(&flags, None);
    print(&format!("The following options can be passed to any command:\n\n{table}"))
}

fn version() -> Result<(), Failure> {
    print(&format!("etcdctl version: {VERSION}\nAPI version: {API_VERSION}\n"))
}
