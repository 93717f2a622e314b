//! `lease` and what is below it.

use super::context::Context;
use super::{KEY_VALUE, print};
use crate::command::{Command, Flag, Invocation};
use crate::exit::{BAD_CONNECTION, ERROR, Failure};
use crate::go;
use crate::printer::Format;

const KEYS: Flag = Flag::switch("keys", "Get keys attached to this lease");
const ONCE: Flag = Flag::switch(
    "once",
    "Resets the keep-alive time to its original value and cobrautl.Exits immediately",
);

/// The command.
pub(super) const LEASE: Command = Command {
    usage: "lease <subcommand>",
    short: "Lease related commands. Use `etcdctl lease --help` to see subcommands",
    long: Some("Lease related commands"),
    group: KEY_VALUE,
    children: &[
        Command {
            usage: "grant <ttl>",
            short: "Creates leases",
            run: Some(|invocation| Box::pin(grant(invocation))),
            ..Command::NONE
        },
        Command {
            usage: "keep-alive [options] <leaseID>",
            short: "Keeps leases alive (renew)",
            flags: &[ONCE],
            run: Some(|invocation| Box::pin(keep_alive(invocation))),
            ..Command::NONE
        },
        Command {
            usage: "list",
            short: "List all active leases",
            run: Some(|invocation| Box::pin(list(invocation))),
            ..Command::NONE
        },
        Command {
            usage: "revoke <leaseID>",
            short: "Revokes leases",
            run: Some(|invocation| Box::pin(revoke(invocation))),
            ..Command::NONE
        },
        Command {
            usage: "timetolive <leaseID> [options]",
            short: "Get lease information",
            flags: &[KEYS],
            run: Some(|invocation| Box::pin(time_to_live(invocation))),
            ..Command::NONE
        },
    ],
    ..Command::NONE
};

async fn grant(invocation: Invocation) -> Result<(), Failure> {
    let ttl = only_argument(&invocation, "lease grant command needs TTL argument")?;
    let ttl = go::parse_int(&ttl)
        .map_err(|error| Failure::bad_arguments(format!("bad TTL ({error})")))?;
    let context = Context::new(&invocation)?;
    let answer = context.hurried_client().await?.lease_grant(ttl).await;
    let answer =
        answer.map_err(|error| Failure::new(ERROR, format!("failed to grant lease ({error})")))?;
    context.show(|printer, to| printer.lease_grant(to, &answer))
}

async fn revoke(invocation: Invocation) -> Result<(), Failure> {
    let id = lease_id(&invocation, "lease revoke command needs 1 argument")?;
    let context = Context::new(&invocation)?;
    let answer = context.hurried_client().await?.lease_revoke(id).await;
    let answer =
        answer.map_err(|error| Failure::new(ERROR, format!("failed to revoke lease ({error})")))?;
    context.show(|printer, to| printer.lease_revoke(to, id, &answer))
}

async fn time_to_live(invocation: Invocation) -> Result<(), Failure> {
    let text = "lease timetolive command needs lease ID as argument";
    let (id, keys) = (lease_id(&invocation, text)?, invocation.values.bool(&KEYS));
    let context = Context::new(&invocation)?;
    let answer = context.client().await?.lease_time_to_live(id, keys).await;
    let answer = answer.map_err(|error| Failure::new(BAD_CONNECTION, error))?;
    context.show(|printer, to| printer.time_to_live(to, &answer, keys))
}

async fn list(invocation: Invocation) -> Result<(), Failure> {
    let context = Context::new(&invocation)?;
    let answer = context.client().await?.lease_leases().await;
    let answer = answer.map_err(|error| Failure::new(BAD_CONNECTION, error))?;
    context.show(|printer, to| printer.leases(to, &answer))
}

async fn keep_alive(invocation: Invocation) -> Result<(), Failure> {
    let id = lease_id(&invocation, "lease keep-alive command needs lease ID as argument")?;
    let context = Context::new(&invocation)?;
    let client = context.client().await?;
    if invocation.values.bool(&ONCE) {
        let answer = client.lease_keep_alive_once(id).await;
        let answer = answer.map_err(|error| Failure::new(BAD_CONNECTION, error))?;
        return context.show(|printer, to| printer.keep_alive(to, &answer));
    }
    let mut keep_alive = client.lease_keep_alive(id);
    while let Some(answer) = keep_alive.next().await {
        context.show(|printer, to| printer.keep_alive(to, &answer))?;
    }
    if context.printer.format == Format::Simple {
        print(&format!("lease {id:016x} expired or revoked.\n"))?;
    }
    Ok(())
}

fn only_argument(invocation: &Invocation, missing: &str) -> Result<String, Failure> {
    let only = invocation.text(0).filter(|_| invocation.arguments.len() == 1);
    only.ok_or_else(|| Failure::bad_arguments(missing))
}

fn lease_id(invocation: &Invocation, missing: &str) -> Result<i64, Failure> {
    let text = only_argument(invocation, missing)?;
    go::parse_hex(&text).map_err(|error| {
        Failure::bad_arguments(format!("bad lease ID arg ({error}), expecting ID in Hex"))
    })
}
