//! `downgrade` and what is below it.

use proto::etcdserverpb::downgrade_request::DowngradeAction;

use super::MAINTENANCE;
use super::context::Context;
use crate::command::{Command, Invocation};
use crate::exit::Failure;

/// The command.
pub(super) const DOWNGRADE: Command = Command {
    usage: "downgrade <TARGET_VERSION>",
    short: "Downgrade related commands. Use `etcdctl downgrade --help` to see subcommands",
    long: Some("Downgrade related commands"),
    group: MAINTENANCE,
    children: &[
        Command {
            usage: "cancel",
            short: "Cancel the ongoing downgrade action to cluster",
            run: Some(|invocation| Box::pin(cancel(invocation))),
            ..Command::NONE
        },
        Command {
            usage: "enable <TARGET_VERSION>",
            short: "Start a downgrade action to cluster",
            run: Some(|invocation| Box::pin(enable(invocation))),
            ..Command::NONE
        },
        Command {
            usage: "validate <TARGET_VERSION>",
            short: "Validate downgrade capability before starting downgrade",
            run: Some(|invocation| Box::pin(validate(invocation))),
            ..Command::NONE
        },
    ],
    ..Command::NONE
};

async fn validate(invocation: Invocation) -> Result<(), Failure> {
    let target = target(&invocation)?;
    ask(&invocation, DowngradeAction::Validate, target).await
}

async fn enable(invocation: Invocation) -> Result<(), Failure> {
    let target = target(&invocation)?;
    ask(&invocation, DowngradeAction::Enable, target).await
}

/// Passes over arguments, as etcdctl does.
async fn cancel(invocation: Invocation) -> Result<(), Failure> {
    ask(&invocation, DowngradeAction::Cancel, String::new()).await
}

async fn ask(
    invocation: &Invocation,
    action: DowngradeAction,
    target: String,
) -> Result<(), Failure> {
    let context = Context::new(invocation)?;
    let answer = context.hurried_client().await?.downgrade(action, target).await?;
    context.show(|printer, to| printer.downgrade(to, action, &answer))
}

fn target(invocation: &Invocation) -> Result<String, Failure> {
    match invocation.arguments.as_slice() {
        [] => Err(Failure::bad_arguments("TARGET_VERSION not provided")),
        [target] if target.is_empty() => Err(Failure::bad_arguments("target version not provided")),
        [target] => Ok(target.to_string_lossy().into_owned()),
        _ => Err(Failure::bad_arguments("too many arguments")),
    }
}
