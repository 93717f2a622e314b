//! `alarm` and what is below it.

use super::MAINTENANCE;
use super::context::Context;
use crate::command::{Command, Invocation};
use crate::exit::Failure;

/// The command.
pub(super) const ALARM: Command = Command {
    usage: "alarm <subcommand>",
    short: "Alarm related commands. Use `etcdctl alarm --help` to see subcommands",
    long: Some("Alarm related commands"),
    group: MAINTENANCE,
    children: &[
        Command {
            usage: "disarm",
            short: "Disarms all alarms",
            run: Some(|invocation| Box::pin(disarm(invocation))),
            ..Command::NONE
        },
        Command {
            usage: "list",
            short: "Lists all alarms",
            run: Some(|invocation| Box::pin(list(invocation))),
            ..Command::NONE
        },
    ],
    ..Command::NONE
};

async fn disarm(invocation: Invocation) -> Result<(), Failure> {
    no_arguments(&invocation, "alarm disarm command accepts no arguments")?;
    let context = Context::new(&invocation)?;
    let answer = context.hurried_client().await?.alarm_disarm_all().await?;
    context.show(|printer, to| printer.alarm(to, &answer))
}

async fn list(invocation: Invocation) -> Result<(), Failure> {
    no_arguments(&invocation, "alarm list command accepts no arguments")?;
    let context = Context::new(&invocation)?;
    let answer = context.hurried_client().await?.alarm_list().await?;
    context.show(|printer, to| printer.alarm(to, &answer))
}

fn no_arguments(invocation: &Invocation, text: &str) -> Result<(), Failure> {
    if invocation.arguments.is_empty() { Ok(()) } else { Err(Failure::bad_arguments(text)) }
}
