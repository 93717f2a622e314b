//! `txn`: reads comparisons and operations, a line each, and runs them as one transaction.

use std::ffi::OsString;
use std::io::BufRead;
use std::os::unix::ffi::OsStringExt as _;

use bytes::Bytes;
use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request as Operation;
use proto::etcdserverpb::{Compare, RequestOp, TxnRequest};

use super::context::Context;
use super::{KEY_VALUE, del, get, print, put, words};
use crate::command::{Command, Flag, Invocation, Request, understand};
use crate::exit::{Failure, INVALID_INPUT};
use crate::go;

const INTERACTIVE: Flag =
    Flag::switch("interactive", "Input transaction in interactive mode").short('i');

/// The command.
pub(super) const TXN: Command = Command {
    usage: "txn [options]",
    short: "Txn processes all the requests in one transaction",
    long: Some(
        r#"Txn reads multiple etcd requests from standard input and applies them as a single atomic transaction.

A transaction consists of three components:
1) a list of conditions,
2) a list of requests to apply if all the conditions are true,
3) a list of requests to apply if any condition is false.

Example interactive stdin usage:

---
etcdctl txn -i
# compares:
mod("key1") > "0"

# success requests (get, put, delete):
put key1 "overwrote-key1"

# failure requests (get, put, delete):
put key1 "created-key1"
put key2 "some extra key"
---

Refer to https://github.com/etcd-io/etcd/blob/main/etcdctl/README.md#txn-options."#,
    ),
    group: KEY_VALUE,
    flags: &[INTERACTIVE],
    run: Some(|invocation| Box::pin(run(invocation))),
    ..Command::NONE
};

/// What an operation may be.
static OPERATIONS: Command = Command { children: &[del::DEL, get::GET, put::PUT], ..Command::NONE };

async fn run(invocation: Invocation) -> Result<(), Failure> {
    if !invocation.arguments.is_empty() {
        return Err(Failure::bad_arguments("txn command does not accept argument"));
    }
    let context = Context::new(&invocation)?;
    let client = context.client().await?;
    let is_interactive = invocation.values.bool(&INTERACTIVE);
    let request = read(&mut std::io::stdin().lock(), is_interactive).await?;
    let answer = client.txn(request).await?;
    context.show(|printer, to| printer.txn(to, &answer))
}

/// Reads three blocks that end with empty lines.
async fn read(input: &mut impl BufRead, is_interactive: bool) -> Result<TxnRequest, Failure> {
    let prompt = |text: &str| if is_interactive { print(text) } else { Ok(()) };
    prompt("compares:\n")?;
    let mut compare = Vec::new();
    while let Some(line) = block_line(input)? {
        compare.push(comparison(&line)?);
    }
    prompt("success requests (get, put, del):\n")?;
    let success = operations(input).await?;
    prompt("failure requests (get, put, del):\n")?;
    let failure = operations(input).await?;
    Ok(TxnRequest { compare, success, failure })
}

async fn operations(input: &mut impl BufRead) -> Result<Vec<RequestOp>, Failure> {
    let mut operations = Vec::new();
    while let Some(line) = block_line(input)? {
        operations.push(RequestOp { request: Some(operation(&line).await?) });
    }
    Ok(operations)
}

/// The next line of a block; none at its end.
fn block_line(input: &mut impl BufRead) -> Result<Option<String>, Failure> {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line).map_err(|error| Failure::new(INVALID_INPUT, error))?;
    if line.last() != Some(&b'\n') {
        return Err(Failure::new(INVALID_INPUT, "EOF"));
    }
    let line = String::from_utf8_lossy(&line).trim().to_owned();
    Ok(if line.is_empty() { None } else { Some(line) })
}

async fn operation(line: &str) -> Result<Operation, Failure> {
    let words = words::split(line)?;
    if words.len() < 2 {
        let text = format!("invalid txn compare request: {line}");
        return Err(Failure::new(INVALID_INPUT, text));
    }
    let words: Vec<OsString> = words.into_iter().map(OsString::from_vec).collect();
    let Ok(Request::Run(_, invocation)) = understand(&OPERATIONS, &words) else {
        return Err(Failure::new(INVALID_INPUT, format!("invalid txn request: {line}")));
    };
    Ok(match invocation.path.command().name() {
        "get" => Operation::RequestRange(get::request(&invocation)?),
        "put" => Operation::RequestPut(put::request(&invocation, || None)?),
        _ => Operation::RequestDeleteRange(del::request(&invocation).await?),
    })
}

/// Understands `target("key") op "value"`.
fn comparison(line: &str) -> Result<Compare, Failure> {
    let wrong = |what: String| Failure::new(INVALID_INPUT, what);
    let Some((target, rest)) = line.split_once('(') else {
        return Err(wrong(format!("malformed comparison: {line}")));
    };
    let parts = Parts::read(rest);
    let Some((key, operator, value)) = parts.all() else {
        let shown = parts.shown(target);
        return Err(wrong(format!("malformed comparison: {line}; got {shown}")));
    };
    let invalid = || wrong(format!("invalid txn compare request: {line}"));
    let number = || {
        let text = std::str::from_utf8(value).map_err(|_not_text| invalid())?;
        go::parse_int(text).map_err(|_not_a_number| invalid())
    };
    let (target, union) = match target {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number()?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number()?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number()?)),
        "val" | "value" => {
            (CompareTarget::Value, TargetUnion::Value(Bytes::copy_from_slice(value)))
        }
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number()?)),
        other => {
            return Err(wrong(format!("malformed comparison: {line} (unknown target {other})")));
        }
    };
    let result = match operator {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        _ => return Err(invalid()),
    };
    Ok(Compare {
        result: result.into(),
        target: target.into(),
        key: Bytes::copy_from_slice(key),
        range_end: Bytes::new(),
        target_union: Some(union),
    })
}

/// What stands behind the parenthesis of a comparison, as far as it could be read.
#[derive(Debug, Default)]
struct Parts {
    key: Option<Vec<u8>>,
    operator: Option<String>,
    value: Option<Vec<u8>>,
}

impl Parts {
    /// Reads `"key") op "value"`; what follows does not matter.
    fn read(text: &str) -> Self {
        let mut parts = Self::default();
        let Some((key, rest)) = go::unquote(text.trim_start()) else { return parts };
        parts.key = Some(key);
        let rest = rest.strip_prefix(')').filter(|rest| rest.starts_with([' ', '\t']));
        let Some(rest) = rest.map(str::trim_start) else { return parts };
        let (operator, rest) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
        if !operator.is_empty() {
            parts.operator = Some(operator.to_owned());
            parts.value = go::unquote(rest.trim_start()).map(|(value, _)| value);
        }
        parts
    }

    fn all(&self) -> Option<(&[u8], &str, &[u8])> {
        Some((self.key.as_deref()?, self.operator.as_deref()?, self.value.as_deref()?))
    }

    fn shown(&self, target: &str) -> String {
        let key = go::quote(self.key.as_deref().unwrap_or_default());
        let value = go::quote(self.value.as_deref().unwrap_or_default());
        format!("{target}({key}) {} {value}", self.operator.as_deref().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
