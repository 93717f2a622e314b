//! `member` and what is below it.

use std::ffi::OsString;

use super::MAINTENANCE;
use super::context::Context;
use super::get::is_serializable;
use crate::command::{Command, Flag, Invocation, Kind};
use crate::exit::Failure;
use crate::go;

const CONSISTENCY: Flag =
    Flag::with("consistency", Kind::String, "l", "Linearizable(l) or Serializable(s)");
const LEARNER: Flag = Flag::switch("learner", "indicates if the new member is raft learner");
const NEW_PEER_URLS: Flag =
    Flag::with("peer-urls", Kind::String, "", "comma separated peer URLs for the new member.");
const UPDATED_PEER_URLS: Flag =
    Flag::with("peer-urls", Kind::String, "", "comma separated peer URLs for the updated member.");

/// The command.
pub(super) const MEMBER: Command = Command {
    usage: "member <subcommand>",
    short: "Membership related commands. Use `etcdctl member --help` to see subcommands",
    long: Some("Membership related commands"),
    group: MAINTENANCE,
    children: &[
        Command {
            usage: "add <memberName> [options]",
            short: "Adds a member into the cluster",
            flags: &[LEARNER, NEW_PEER_URLS],
            run: Some(|invocation| Box::pin(add(invocation))),
            ..Command::NONE
        },
        Command {
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
        },
        Command {
            usage: "promote <memberID>",
            short: "Promotes a non-voting member in the cluster",
            long: Some("Promotes a non-voting learner member to a voting one in the cluster.\n"),
            run: Some(|invocation| Box::pin(promote(invocation))),
            ..Command::NONE
        },
        Command {
            usage: "remove <memberID>",
            short: "Removes a member from the cluster",
            run: Some(|invocation| Box::pin(remove(invocation))),
            ..Command::NONE
        },
        Command {
            usage: "update <memberID> [options]",
            short: "Updates a member in the cluster",
            flags: &[UPDATED_PEER_URLS],
            run: Some(|invocation| Box::pin(update(invocation))),
            ..Command::NONE
        },
    ],
    ..Command::NONE
};

async fn list(invocation: Invocation) -> Result<(), Failure> {
    let serializable = is_serializable(invocation.values.text(&CONSISTENCY))?;
    let context = Context::new(&invocation)?;
    let answer = context.hurried_client().await?.member_list(!serializable).await?;
    context.show(|printer, to| printer.member_list(to, &answer))
}

async fn add(invocation: Invocation) -> Result<(), Failure> {
    let name = match invocation.arguments.as_slice() {
        [] => return Err(Failure::bad_arguments("member name not provided")),
        [name] => name.to_string_lossy(),
        several => return Err(Failure::bad_arguments(too_many_arguments(several))),
    };
    let peer_urls = peer_urls(&invocation, &NEW_PEER_URLS)?;
    let is_learner = invocation.values.bool(&LEARNER);
    let context = Context::new(&invocation)?;
    let client = context.hurried_client().await?;
    let answer = client.member_add(split(peer_urls), is_learner).await?;
    context.show(|printer, to| printer.member_add(to, &answer, &name, peer_urls))
}

async fn remove(invocation: Invocation) -> Result<(), Failure> {
    let id = member_id(&invocation)?;
    let context = Context::new(&invocation)?;
    let answer = context.hurried_client().await?.member_remove(id).await?;
    context.show(|printer, to| printer.member_remove(to, id, &answer))
}

async fn update(invocation: Invocation) -> Result<(), Failure> {
    let id = member_id(&invocation)?;
    let peer_urls = split(peer_urls(&invocation, &UPDATED_PEER_URLS)?);
    let context = Context::new(&invocation)?;
    let answer = context.hurried_client().await?.member_update(id, peer_urls).await?;
    context.show(|printer, to| printer.member_update(to, id, &answer))
}

async fn promote(invocation: Invocation) -> Result<(), Failure> {
    let id = member_id(&invocation)?;
    let context = Context::new(&invocation)?;
    let answer = context.hurried_client().await?.member_promote(id).await?;
    context.show(|printer, to| printer.member_promote(to, id, &answer))
}

fn member_id(invocation: &Invocation) -> Result<u64, Failure> {
    let only = invocation.text(0).filter(|_| invocation.arguments.len() == 1);
    let text = only.ok_or_else(|| Failure::bad_arguments("member ID is not provided"))?;
    go::parse_unsigned_hex(&text).map_err(|error| {
        Failure::bad_arguments(format!("bad member ID arg ({error}), expecting ID in Hex"))
    })
}

/// The URLs as they were given; `flag` must not be left out.
fn peer_urls<'a>(invocation: &'a Invocation, flag: &'a Flag) -> Result<&'a str, Failure> {
    let urls = invocation.values.text(flag);
    if urls.is_empty() {
        return Err(Failure::bad_arguments("member peer urls not provided"));
    }
    Ok(urls)
}

fn split(urls: &str) -> Vec<String> {
    urls.split(',').map(str::to_owned).collect()
}

/// Names the option that a URL among the arguments was meant for: etcdctl 2 took it without one.
fn too_many_arguments(arguments: &[OsString]) -> String {
    let texts = arguments.iter().map(|argument| argument.to_string_lossy());
    let urls = texts.filter(|text| text.to_lowercase().starts_with("http"));
    let hints: Vec<_> = urls.map(|url| format!(", did you mean --peer-urls={url}")).collect();
    format!("too many arguments{}", hints.concat())
}
