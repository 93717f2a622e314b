//! `del`.

use std::time::Duration;

use proto::etcdserverpb::DeleteRangeRequest;

use super::context::Context;
use super::get::{BOTH, TOO_MANY, range};
use super::{KEY_VALUE, complain};
use crate::command::{Command, Flag, Invocation};
use crate::exit::Failure;
use crate::go::quote;

const FROM_KEY: Flag = Flag::switch(
    "from-key",
    "delete keys that are greater than or equal to the given key using byte compare",
);
const PREFIX: Flag = Flag::switch("prefix", "delete keys with matching prefix");
const PREV_KV: Flag = Flag::switch("prev-kv", "return deleted key-value pairs");
const RANGE: Flag = Flag::switch("range", "delete range of keys");

/// How long the user may think again.
const GRACE: Duration = Duration::from_secs(2);

/// The command.
pub(super) const DEL: Command = Command {
    usage: "del [options] <key> [range_end]",
    short: "Removes the specified key or range of keys [key, range_end)",
    group: KEY_VALUE,
    flags: &[FROM_KEY, PREFIX, PREV_KV, RANGE],
    run: Some(|invocation| Box::pin(run(invocation))),
    ..Command::NONE
};

async fn run(invocation: Invocation) -> Result<(), Failure> {
    let request = request(&invocation).await?;
    let context = Context::new(&invocation)?;
    let answer = context.hurried_client().await?.delete_range(request).await?;
    context.show(|printer, to| printer.delete_range(to, &answer))
}

/// The request that options and arguments make; waits a while before a range that is not confirmed.
pub(super) async fn request(invocation: &Invocation) -> Result<DeleteRangeRequest, Failure> {
    let values = &invocation.values;
    let (prefix, from_key) = (values.bool(&PREFIX), values.bool(&FROM_KEY));
    let key = invocation.bytes(0).filter(|_| invocation.arguments.len() <= 2).ok_or_else(|| {
        Failure::bad_arguments(
            "del command needs one argument as key and an optional argument as range_end",
        )
    })?;
    if prefix && from_key {
        return Err(Failure::bad_arguments(BOTH));
    }
    let end = invocation.bytes(1);
    if let Some(end) = &end {
        if prefix || from_key {
            return Err(Failure::bad_arguments(TOO_MANY));
        }
        if !values.bool(&RANGE) {
            let (key, end) = (quote(&key), quote(end));
            complain(&format!(
                "Warning: Keys between {key} and {end} will be deleted. Please interrupt the \
                 command within next 2 seconds to cancel. You can provide `--range` flag to avoid \
                 the delay.\n"
            ))?;
            tokio::time::sleep(GRACE).await;
        }
    }
    let (key, range_end) = range(key, end, prefix, from_key);
    Ok(DeleteRangeRequest { key, range_end, prev_kv: values.bool(&PREV_KV) })
}
