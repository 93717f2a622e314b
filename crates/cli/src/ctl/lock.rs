//! `lock`: holds a named lock, until it is interrupted or a command has run.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use client::{Mutex, Session};
use proto::etcdserverpb::RangeRequest;

use super::CONCURRENCY;
use super::context::Context;
use super::log;
use super::signal::Interruption;
use crate::command::{Command, Flag, Invocation, Kind};
use crate::exit::{ERROR, Failure};
use crate::go::quote;

const TTL: Flag = Flag::with("ttl", Kind::Int, "10", "timeout for session");

/// The command.
pub(super) const LOCK: Command = Command {
    usage: "lock <lockname> [exec-command arg1 arg2 ...]",
    short: "Acquires a named lock",
    group: CONCURRENCY,
    flags: &[TTL],
    run: Some(|invocation| Box::pin(run(invocation))),
    ..Command::NONE
};

/// What a process ended by a signal leaves as a status.
const KILLED: u8 = 255;

async fn run(invocation: Invocation) -> Result<(), Failure> {
    let name = invocation.bytes(0).ok_or_else(|| {
        let text = "lock takes a lock name argument and an optional command to execute";
        Failure::bad_arguments(text)
    })?;
    let context = Context::new(&invocation)?;
    let client = context.client().await?;
    let ttl = invocation.values.int(&TTL);
    let ttl = Some(ttl).filter(|ttl| *ttl > 0);
    if ttl.is_none() {
        log::warn("WithTTL(): TTL should be > 0, preserving current TTL", &[]);
    }
    let session = Session::open(&client, ttl).await?;
    let mut interruption = Interruption::catch()?;
    let mut mutex = Mutex::new(&session, &name);
    let locked = tokio::select! {
        locked = mutex.lock() => locked.map_err(Failure::from),
        () = interruption.wait() => Err(Failure::new(ERROR, "context canceled")),
    };
    if let Err(failure) = locked {
        // The place in the queue is given up; where that fails, the lease's end does it.
        drop(mutex.unlock().await);
        return Err(failure);
    }
    if let Some((program, arguments)) =
        invocation.arguments.get(1..).and_then(|command| command.split_first())
    {
        let outcome = run_holding(&mutex, program, arguments).await;
        let unlocked = mutex.unlock().await;
        outcome?;
        return Ok(unlocked?);
    }
    let request = RangeRequest { key: mutex.key().clone(), ..RangeRequest::default() };
    let held = client.range(request).await?;
    if held.kvs.is_empty() {
        return Err(Failure::new(ERROR, "lock lost on init"));
    }
    context.show(|printer, to| printer.range(to, &held))?;
    tokio::select! {
        () = interruption.wait() => Ok(mutex.unlock().await?),
        () = session.lost() => Err(Failure::new(ERROR, "session expired")),
    }
}

async fn run_holding(
    mutex: &Mutex<'_>,
    program: &OsString,
    arguments: &[OsString],
) -> Result<(), Failure> {
    let outcome = tokio::process::Command::new(program)
        .args(arguments)
        .env("ETCD_LOCK_KEY", OsStr::from_bytes(mutex.key()))
        .env("ETCD_LOCK_REV", mutex.revision().to_string())
        .stdin(std::process::Stdio::null())
        .status()
        .await;
    match outcome {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(KILLED);
            Err(Failure::new(code, exit_text(status)))
        }
        Err(error) => Err(Failure::new(ERROR, start_text(program, &error))),
    }
}

/// How a process ended.
pub(super) fn exit_text(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("signal: {}", signal.unwrap_or_default()),
    }
}

/// Why a process did not start.
pub(super) fn start_text(program: &OsStr, error: &std::io::Error) -> String {
    let name = quote(program.as_bytes());
    if error.kind() == std::io::ErrorKind::NotFound && !program.as_bytes().contains(&b'/') {
        return format!("exec: {name}: executable file not found in $PATH");
    }
    format!("exec: {name}: {error}")
}
