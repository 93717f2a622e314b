//! `member list`.

use super::MAINTENANCE;
use super::context::Context;
use super::get::is_serializable;
use crate::command::{Command, Flag, Invocation, Kind};
use crate::exit::Failure;

const CONSISTENCY: Flag =
    Flag::with("consistency", Kind::String, "l", "Linearizable(l) or Serializable(s)");

/// The command.
pub(super) const MEMBER: Command = Command {
    usage: "member <subcommand>",
    short: "Membership related commands. Use `etcdctl member --help` to see subcommands",
    long: Some("Membership related commands"),
    group: MAINTENANCE,
    children: &[Command {
        usage: "list",
        short: "Lists all members in the cluster",
        long: Some(
            "When --write-out is set to simple, this command prints out comma-separated member \
             lists for each endpoint.\nThe items in the lists are ID, Status, Name, Peer Addrs, \
             Client Addrs, Is Learner.\n",
        ),
        flags: &[CONSISTENCY],
        run: Some(|invocation| Box::pin(list(invocation))),
        ..Command::NONE
    }],
    ..Command::NONE
};

async fn list(invocation: Invocation) -> Result<(), Failure> {
    let serializable = is_serializable(invocation.values.text(&CONSISTENCY))?;
    let context = Context::new(&invocation)?;
    let answer = context.hurried_client().await?.member_list(!serializable).await?;
    context.show(|printer, to| printer.member_list(to, &answer))
}
