//! `move-leader`.

use super::MAINTENANCE;
use super::context::Context;
use crate::command::{Command, Invocation};
use crate::exit::{BAD_CONNECTION, Failure};
use crate::go;

/// The command.
pub(super) const MOVE_LEADER: Command = Command {
    usage: "move-leader <transferee-member-id>",
    short: "Transfers leadership to another etcd cluster member.",
    group: MAINTENANCE,
    run: Some(|invocation| Box::pin(run(invocation))),
    ..Command::NONE
};

async fn run(invocation: Invocation) -> Result<(), Failure> {
    let target = invocation.text(0).filter(|_| invocation.arguments.len() == 1);
    let target =
        target.ok_or_else(|| Failure::bad_arguments("move-leader command needs 1 argument"))?;
    let target = go::parse_unsigned_hex(&target).map_err(Failure::bad_arguments)?;
    let context = Context::new(&invocation)?;
    // The search for the leader and the transfer share one deadline.
    let client = context.hurried_client().await?;
    for endpoint in client.endpoints() {
        let member = client.at(endpoint).await;
        let member = member.map_err(|error| Failure::new(BAD_CONNECTION, error))?;
        let status = member.status().await?;
        let id = status.header.unwrap_or_default().member_id;
        if id == status.leader {
            let answer = member.move_leader(target).await?;
            return context.show(|printer, to| printer.move_leader(to, id, target, &answer));
        }
    }
    let endpoints = client.endpoints().join(" ");
    Err(Failure::bad_arguments(format!("no leader endpoint given at [{endpoints}]")))
}
