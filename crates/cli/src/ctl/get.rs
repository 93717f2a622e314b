//! `get`.

use bytes::Bytes;
use client::prefix_end;
use proto::etcdserverpb::RangeRequest;
use proto::etcdserverpb::range_request::{SortOrder, SortTarget};

use super::KEY_VALUE;
use super::context::Context;
use crate::command::{Command, Flag, Invocation, Kind, Values};
use crate::exit::{BAD_FEATURE, Failure};
use crate::printer::Format;

const CONSISTENCY: Flag =
    Flag::with("consistency", Kind::String, "l", "Linearizable(l) or Serializable(s)");
const COUNT_ONLY: Flag = Flag::switch("count-only", "Get only the count");
const FROM_KEY: Flag = Flag::switch(
    "from-key",
    "Get keys that are greater than or equal to the given key using byte compare",
);
const KEYS_ONLY: Flag = Flag::switch("keys-only", "Get only the keys");
const LIMIT: Flag = Flag::with("limit", Kind::Int, "0", "Maximum number of results");
const MAX_CREATE_REV: Flag =
    Flag::with("max-create-rev", Kind::Int, "0", "Maximum create revision");
const MAX_MOD_REV: Flag =
    Flag::with("max-mod-rev", Kind::Int, "0", "Maximum modification revision");
const MIN_CREATE_REV: Flag =
    Flag::with("min-create-rev", Kind::Int, "0", "Minimum create revision");
const MIN_MOD_REV: Flag =
    Flag::with("min-mod-rev", Kind::Int, "0", "Minimum modification revision");
const ORDER: Flag = Flag::with(
    "order",
    Kind::String,
    "",
    "Order of results; ASCEND or DESCEND (ASCEND by default)",
);
const PREFIX: Flag = Flag::switch("prefix", "Get keys with matching prefix");
const PRINT_VALUE_ONLY: Flag =
    Flag::switch("print-value-only", "Only write values when using the \"simple\" output format");
const REV: Flag = Flag::with("rev", Kind::Int, "0", "Specify the kv revision");
const SORT_BY: Flag =
    Flag::with("sort-by", Kind::String, "", "Sort target; CREATE, KEY, MODIFY, VALUE, or VERSION");
const STREAM: Flag = Flag::switch("stream", "Use the RangeStream RPC");

/// Sets both ends of a range, one of which depends on the other.
pub(super) const BOTH: &str =
    "`--prefix` and `--from-key` cannot be set at the same time, choose one";
pub(super) const TOO_MANY: &str =
    "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";

/// The command.
pub(super) const GET: Command = Command {
    usage: "get [options] <key> [range_end]",
    short: "Gets the key or a range of keys",
    group: KEY_VALUE,
    flags: &[
        CONSISTENCY,
        COUNT_ONLY,
        FROM_KEY,
        KEYS_ONLY,
        LIMIT,
        MAX_CREATE_REV,
        MAX_MOD_REV,
        MIN_CREATE_REV,
        MIN_MOD_REV,
        ORDER,
        PREFIX,
        PRINT_VALUE_ONLY,
        REV,
        SORT_BY,
        STREAM,
    ],
    run: Some(|invocation| Box::pin(run(invocation))),
    ..Command::NONE
};

async fn run(invocation: Invocation) -> Result<(), Failure> {
    let request = request(&invocation)?;
    let values = &invocation.values;
    let mut context = Context::new(&invocation)?;
    let client = context.hurried_client().await?;
    let answer = if values.bool(&STREAM) {
        client.range_stream(request).await?
    } else {
        client.range(request).await?
    };
    if values.bool(&COUNT_ONLY) && context.printer.format != Format::Fields {
        let text = "--count-only is only for `--write-out=fields`";
        return Err(Failure::bad_arguments(text));
    }
    if values.bool(&PRINT_VALUE_ONLY) {
        if context.printer.format != Format::Simple {
            let text = "print-value-only is only for `--write-out=simple`";
            return Err(Failure::bad_arguments(text));
        }
        context.printer.values_only = true;
    }
    context.show(|printer, to| printer.range(to, &answer))
}

/// The request that options and arguments make, here or in a transaction.
pub(super) fn request(invocation: &Invocation) -> Result<RangeRequest, Failure> {
    let values = &invocation.values;
    let (prefix, from_key) = (values.bool(&PREFIX), values.bool(&FROM_KEY));
    let Some(key) = invocation.bytes(0) else {
        return Err(Failure::bad_arguments(
            "get command needs one argument as key and an optional argument as range_end",
        ));
    };
    if prefix && from_key {
        return Err(Failure::bad_arguments(BOTH));
    }
    let (keys_only, count_only) = (values.bool(&KEYS_ONLY), values.bool(&COUNT_ONLY));
    if keys_only && count_only {
        return Err(Failure::bad_arguments(
            "`--keys-only` and `--count-only` cannot be set at the same time, choose one",
        ));
    }
    let serializable = is_serializable(values.text(&CONSISTENCY))?;
    let end = invocation.bytes(1);
    if end.is_some() && (prefix || from_key) {
        return Err(Failure::bad_arguments(TOO_MANY));
    }
    let (sort_target, sort_order) = sort(values)?;
    let (key, range_end) = range(key, end, prefix, from_key);
    let (min_create_revision, max_create_revision) =
        bounds(values, (&MIN_CREATE_REV, &MAX_CREATE_REV), "CreateRev")?;
    let (min_mod_revision, max_mod_revision) =
        bounds(values, (&MIN_MOD_REV, &MAX_MOD_REV), "ModRev")?;
    Ok(RangeRequest {
        key,
        range_end,
        limit: values.int(&LIMIT),
        revision: values.int(&REV).max(0),
        sort_order: sort_order.into(),
        sort_target: sort_target.into(),
        serializable,
        keys_only,
        count_only,
        min_mod_revision,
        max_mod_revision,
        min_create_revision,
        max_create_revision,
    })
}

/// Whether a read may be answered by any member, without asking the leader.
pub(super) fn is_serializable(consistency: &str) -> Result<bool, Failure> {
    match consistency {
        "s" => Ok(true),
        "l" => Ok(false),
        other => {
            let text = format!("unknown consistency flag {}", crate::go::quote(other.as_bytes()));
            Err(Failure::new(BAD_FEATURE, text))
        }
    }
}

/// Key and end of what is meant; an empty key stands for all keys where there is a range.
pub(super) fn range(
    key: Bytes,
    end: Option<Bytes>,
    prefix: bool,
    from_key: bool,
) -> (Bytes, Bytes) {
    const LEAST: Bytes = Bytes::from_static(b"\0");
    if !prefix && !from_key {
        return (key, end.unwrap_or_default());
    }
    if key.is_empty() {
        return (LEAST, LEAST);
    }
    let end = if prefix { prefix_end(&key) } else { LEAST };
    (key, end)
}

fn sort(values: &Values) -> Result<(SortTarget, SortOrder), Failure> {
    let (order, target) = (values.text(&ORDER), values.text(&SORT_BY));
    let sort_order = match order.to_uppercase().as_str() {
        "ASCEND" => SortOrder::Ascend,
        "DESCEND" => SortOrder::Descend,
        "" => SortOrder::None,
        _ => return Err(Failure::new(BAD_FEATURE, format!("bad sort order {order}"))),
    };
    let sort_target = match target.to_uppercase().as_str() {
        "CREATE" => SortTarget::Create,
        "KEY" | "" => SortTarget::Key,
        "MODIFY" => SortTarget::Mod,
        "VALUE" => SortTarget::Value,
        "VERSION" => SortTarget::Version,
        _ => return Err(Failure::new(BAD_FEATURE, format!("bad sort target {target}"))),
    };
    // Keys come in this order anyway; asking for it makes the server read them all before a limit.
    let is_natural = sort_target == SortTarget::Key && sort_order == SortOrder::Ascend;
    Ok((sort_target, if is_natural { SortOrder::None } else { sort_order }))
}

/// The bounds of a kind of revision; those below one are none.
fn bounds(values: &Values, (min, max): (&Flag, &Flag), name: &str) -> Result<(i64, i64), Failure> {
    let (min, max) = (values.int(min), values.int(max));
    if max > 0 && min > max {
        let text = format!("getMin{name}(={min}) > getMax{name}(={max})");
        return Err(Failure::new(BAD_FEATURE, text));
    }
    Ok((min.max(0), max.max(0)))
}
