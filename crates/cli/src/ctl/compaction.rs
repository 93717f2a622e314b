//! `compaction`.

use proto::etcdserverpb::CompactionRequest;

use super::context::Context;
use super::{KEY_VALUE, print};
use crate::command::{Command, Flag, Invocation};
use crate::exit::{ERROR, Failure};
use crate::go;

const PHYSICAL: Flag = Flag::switch(
    "physical",
    "'true' to wait for compaction to physically remove all old revisions",
);

/// The command.
pub(super) const COMPACTION: Command = Command {
    usage: "compaction [options] <revision>",
    short: "Compacts the event history in etcd",
    group: KEY_VALUE,
    flags: &[PHYSICAL],
    run: Some(|invocation| Box::pin(run(invocation))),
    ..Command::NONE
};

async fn run(invocation: Invocation) -> Result<(), Failure> {
    let revision = invocation.text(0).filter(|_| invocation.arguments.len() == 1);
    let revision =
        revision.ok_or_else(|| Failure::bad_arguments("compaction command needs 1 argument"))?;
    let revision = go::parse_int(&revision).map_err(|error| Failure::new(ERROR, error))?;
    let physical = invocation.values.bool(&PHYSICAL);
    let context = Context::new(&invocation)?;
    let client = context.hurried_client().await?;
    client.compact(CompactionRequest { revision, physical }).await?;
    print(&format!("compacted revision {revision}\n"))
}
