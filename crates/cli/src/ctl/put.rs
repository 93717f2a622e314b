//! `put`.

use std::io::Read as _;

use bytes::Bytes;
use proto::etcdserverpb::PutRequest;

use super::KEY_VALUE;
use super::context::Context;
use crate::command::{Command, Flag, Invocation, Kind};
use crate::exit::Failure;
use crate::go;

const IGNORE_LEASE: Flag = Flag::switch("ignore-lease", "updates the key using its current lease");
const IGNORE_VALUE: Flag = Flag::switch("ignore-value", "updates the key using its current value");
const LEASE: Flag =
    Flag::with("lease", Kind::String, "0", "lease ID (in hexadecimal) to attach to the key");
const PREV_KV: Flag =
    Flag::switch("prev-kv", "return the previous key-value pair before modification");

/// The command.
pub(super) const PUT: Command = Command {
    usage: "put [options] <key> <value> (<value> can also be given from stdin)",
    short: "Puts the given key into the store",
    long: Some(
        "
Puts the given key into the store.

When <value> begins with '-', <value> is interpreted as a flag.
Insert '--' for workaround:

$ put <key> -- <value>
$ put -- <key> <value>

If <value> isn't given as a command line argument and '--ignore-value' is not specified,
this command tries to read the value from standard input.

If <lease> isn't given as a command line argument and '--ignore-lease' is not specified,
this command tries to read the value from standard input.

For example,
$ cat file | put <key>
will store the content of the file to <key>.
",
    ),
    group: KEY_VALUE,
    flags: &[IGNORE_LEASE, IGNORE_VALUE, LEASE, PREV_KV],
    run: Some(|invocation| Box::pin(run(invocation))),
    ..Command::NONE
};

const MISSING: &str = "put command needs 1 argument and input from stdin or 2 arguments";

async fn run(invocation: Invocation) -> Result<(), Failure> {
    let request = request(&invocation, from_stdin)?;
    let context = Context::new(&invocation)?;
    let answer = context.hurried_client().await?.put(request).await?;
    context.show(|printer, to| printer.put(to, &answer))
}

/// The request that options and arguments make; `missing` gives the value where none is.
pub(super) fn request(
    invocation: &Invocation,
    missing: impl FnOnce() -> Option<Bytes>,
) -> Result<PutRequest, Failure> {
    let values = &invocation.values;
    let key = invocation.bytes(0).ok_or_else(|| Failure::bad_arguments(MISSING))?;
    let ignore_value = values.bool(&IGNORE_VALUE);
    let value = invocation.bytes(1);
    let value = match (ignore_value, value) {
        (true, Some(_)) => {
            return Err(Failure::bad_arguments(
                "put command needs only 1 argument when 'ignore-value' is set",
            ));
        }
        (true, None) => Bytes::new(),
        (false, Some(value)) => value,
        (false, None) => missing().ok_or_else(|| Failure::bad_arguments(MISSING))?,
    };
    let lease = go::parse_hex(values.text(&LEASE)).map_err(|error| {
        Failure::bad_arguments(format!("bad lease ID ({error}), expecting ID in Hex"))
    })?;
    Ok(PutRequest {
        key,
        value,
        lease,
        prev_kv: values.bool(&PREV_KV),
        ignore_value,
        ignore_lease: values.bool(&IGNORE_LEASE),
    })
}

/// All of standard input, unless there is nothing.
fn from_stdin() -> Option<Bytes> {
    let mut value = Vec::new();
    std::io::stdin().lock().read_to_end(&mut value).ok()?;
    if value.is_empty() { None } else { Some(Bytes::from(value)) }
}
