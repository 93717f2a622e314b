//! `watch`: shows events, or runs a command for each; one watcher, or as many as lines are typed.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::sync::Arc;

use client::{WatchStream, Watcher};
use proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use tokio::io::AsyncBufReadExt as _;
use tokio::sync::mpsc;

use super::context::Context;
use super::{KEY_VALUE, complain, get, print, words};
use crate::command::{Command, Flag, Invocation, Kind, Values, parse};
use crate::exit::{ERROR, Failure, INTERRUPTED, INVALID_INPUT};
use crate::go::quote;

const INTERACTIVE: Flag = Flag::switch("interactive", "Interactive mode").short('i');
const PREFIX: Flag = Flag::switch("prefix", "Watch on a prefix if prefix is set");
const PREV_KV: Flag =
    Flag::switch("prev-kv", "get the previous key-value pair before the event happens");
const PROGRESS_NOTIFY: Flag =
    Flag::switch("progress-notify", "get periodic watch progress notification from server");
const REV: Flag = Flag::with("rev", Kind::Int, "0", "Revision to start watching");

/// The command.
pub(super) const WATCH: Command = Command {
    usage: "watch [options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
    short: "Watches events stream on keys or prefixes",
    group: KEY_VALUE,
    flags: FLAGS,
    run: Some(|invocation| Box::pin(run(invocation))),
    ..Command::NONE
};

const FLAGS: &[Flag] = &[INTERACTIVE, PREFIX, PREV_KV, PROGRESS_NOTIFY, REV];

const WRONG_NUMBER: &str = "bad number of arguments";
const CONFLICT: &str = "bad number of arguments (found conflicting environment key)";
const NO_COMMAND: &str = "bad number of arguments (found separator --, but no commands)";
const EXCLUSIVE: &str = "`range_end` and `--prefix` are mutually exclusive";

/// What the environment says is to be watched where no argument does.
#[derive(Debug, Clone, Default)]
struct Defaults {
    key: Option<OsString>,
    range_end: Option<OsString>,
}

impl Defaults {
    fn from_environment() -> Result<Self, Failure> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let defaults = Self {
            key: variable("ETCDCTL_WATCH_KEY"),
            range_end: variable("ETCDCTL_WATCH_RANGE_END"),
        };
        match (&defaults.key, &defaults.range_end) {
            (None, Some(end)) => {
                let end = quote(end.to_string_lossy().as_bytes());
                let text =
                    format!("ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={end}");
                Err(Failure::bad_arguments(text))
            }
            _ => Ok(defaults),
        }
    }
}

/// One watcher as the user wants it.
#[derive(Debug, PartialEq)]
struct Wish {
    request: WatchCreateRequest,
    /// What to run for each event.
    command: Vec<OsString>,
}

impl Wish {
    /// Understands options and arguments; those behind `--` are a command.
    fn new(
        values: &Values,
        arguments: &[OsString],
        before_separator: Option<usize>,
        defaults: &Defaults,
    ) -> Result<Self, String> {
        let (given, command) = match before_separator {
            Some(index) if index == arguments.len() => return Err(NO_COMMAND.to_owned()),
            Some(index) => arguments.split_at(index),
            None => (arguments, [].as_slice()),
        };
        if defaults.key.is_some() && !given.is_empty() {
            return Err(CONFLICT.to_owned());
        }
        let default = defaults.key.iter().chain(&defaults.range_end);
        let watched: Vec<&OsString> = given.iter().chain(default).collect();
        let bytes = |word: &OsString| bytes::Bytes::from(word.clone().into_vec());
        let Some(key) = watched.first() else { return Err(WRONG_NUMBER.to_owned()) };
        // A third argument makes etcdctl forget the second: so it is here.
        let end = watched.get(1).filter(|_| watched.len() == 2);
        let prefix = values.bool(&PREFIX);
        if prefix && end.is_some() {
            return Err(EXCLUSIVE.to_owned());
        }
        let (key, range_end) = get::range(bytes(key), end.map(|end| bytes(end)), prefix, false);
        let request = WatchCreateRequest {
            key,
            range_end,
            start_revision: values.int(&REV),
            progress_notify: values.bool(&PROGRESS_NOTIFY),
            prev_kv: values.bool(&PREV_KV),
            ..WatchCreateRequest::default()
        };
        Ok(Self { request, command: command.to_vec() })
    }
}

async fn run(invocation: Invocation) -> Result<(), Failure> {
    let defaults = Defaults::from_environment()?;
    if invocation.values.bool(&INTERACTIVE) {
        return interactive(&invocation, defaults).await;
    }
    let Invocation { values, arguments, before_separator, .. } = &invocation;
    let wish = Wish::new(values, arguments, *before_separator, &defaults)
        .map_err(Failure::bad_arguments)?;
    let context = Context::new(&invocation)?;
    let stream = context.client().await?.watch_stream(true);
    let watcher = stream.create(wish.request).await;
    follow(&context, watcher, &wish.command).await?;
    Err(Failure::new(INTERRUPTED, "watch is canceled by the server"))
}

/// Shows what a watcher sees until it ends.
async fn follow(
    context: &Context,
    mut watcher: Watcher,
    command: &[OsString],
) -> Result<(), Failure> {
    while let Some(response) = watcher.next().await {
        let response = match response {
            Ok(response) => {
                if response.canceled {
                    let cause = Watcher::cause(&response);
                    complain(&format!("watch was canceled ({cause})\n"))?;
                }
                response
            }
            Err(error) => {
                complain(&format!("watch was canceled ({error})\n"))?;
                WatchResponse {
                    header: Some(proto::etcdserverpb::ResponseHeader::default()),
                    canceled: true,
                    ..WatchResponse::default()
                }
            }
        };
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        let is_progress = response.events.is_empty()
            && !response.canceled
            && response.compact_revision == 0
            && revision != 0;
        if is_progress {
            print(&format!("progress notify: {revision}\n"))?;
        }
        context.show(|printer, to| printer.watch(to, &response))?;
        if !command.is_empty() {
            run_for_events(command, &response, revision).await?;
        }
    }
    Ok(())
}

async fn run_for_events(
    command: &[OsString],
    response: &WatchResponse,
    revision: i64,
) -> Result<(), Failure> {
    for event in &response.events {
        let kv = event.kv.clone().unwrap_or_default();
        let outcome = tokio::process::Command::new(&command[0])
            .args(&command[1..])
            .env("ETCD_WATCH_REVISION", revision.to_string())
            .env("ETCD_WATCH_EVENT_TYPE", quote(event.r#type().as_str_name().as_bytes()))
            .env("ETCD_WATCH_KEY", quote(&kv.key))
            .env("ETCD_WATCH_VALUE", quote(&kv.value))
            .stdin(std::process::Stdio::null())
            .status()
            .await;
        let error = match outcome {
            Ok(status) if status.success() => continue,
            Ok(status) => super::lock::exit_text(status),
            Err(error) => super::lock::start_text(&command[0], &error),
        };
        let words: Vec<String> =
            command.iter().map(|word| quote(word.to_string_lossy().as_bytes())).collect();
        complain(&format!("command [{}] error ({error})\n", words.join(" ")))?;
        return Err(Failure::silent(ERROR));
    }
    Ok(())
}

/// What one line of an interactive watch asks for.
#[derive(Debug, PartialEq)]
enum Line {
    Watch(Box<Wish>),
    Progress,
    /// It cannot be followed; the user may try again.
    Wrong(String),
}

impl Line {
    fn read(line: &str, defaults: &Defaults) -> Result<Self, Failure> {
        let words = words::split(line)?;
        let Some((verb, rest)) = words.split_first() else {
            let text = format!("Invalid command: {line} (watch and progress supported)\n");
            return Ok(Self::Wrong(text));
        };
        match verb.as_slice() {
            b"progress" => Ok(Self::Progress),
            b"watch" if rest.is_empty() && defaults.key.is_none() => {
                let text =
                    format!("Invalid command {line} (command type or key is not provided)\n");
                Ok(Self::Wrong(text))
            }
            b"watch" => {
                let rest: Vec<OsString> = rest.iter().cloned().map(OsString::from_vec).collect();
                let flags: Vec<&Flag> = FLAGS.iter().collect();
                let parsed = parse(&flags, &rest).map_err(Failure::bad_arguments)?;
                let Some(parsed) = parsed else {
                    return Err(Failure::bad_arguments("pflag: help requested"));
                };
                let before = parsed.before_separator;
                match Wish::new(&parsed.values, &parsed.arguments, before, defaults) {
                    Ok(wish) => Ok(Self::Watch(Box::new(wish))),
                    Err(error) if error == EXCLUSIVE => {
                        Ok(Self::Wrong(format!("Invalid command {line} ({error})\n")))
                    }
                    Err(error) => Err(Failure::bad_arguments(error)),
                }
            }
            _ => Ok(Self::Wrong(format!("Invalid command {line} (only support watch)\n"))),
        }
    }
}

async fn interactive(invocation: &Invocation, defaults: Defaults) -> Result<(), Failure> {
    let context = Arc::new(Context::new(invocation)?);
    let stream = context.client().await?.watch_stream(true);
    // A watcher that cannot go on ends the command, whatever is typed.
    let (failed, mut failures) = mpsc::channel(1);
    let mut lines = tokio::io::BufReader::new(tokio::io::stdin());
    loop {
        let mut line = Vec::new();
        let read = tokio::select! {
            read = lines.read_until(b'\n', &mut line) => read,
            Some(failure) = failures.recv() => return Err(failure),
        };
        let error = match read {
            Ok(_) if line.last() == Some(&b'\n') => {
                let line = String::from_utf8_lossy(&line);
                obey(line.trim_end_matches('\n'), &defaults, &context, &stream, &failed).await?;
                continue;
            }
            Ok(_) => "EOF".to_owned(),
            Err(error) => error.to_string(),
        };
        let text = format!("error reading watch request line: {error}");
        return Err(Failure::new(INVALID_INPUT, text));
    }
}

async fn obey(
    line: &str,
    defaults: &Defaults,
    context: &Arc<Context>,
    stream: &WatchStream,
    failed: &mpsc::Sender<Failure>,
) -> Result<(), Failure> {
    match Line::read(line, defaults)? {
        Line::Wrong(text) => complain(&text),
        Line::Progress => {
            stream.request_progress().await;
            Ok(())
        }
        Line::Watch(wish) => {
            let Wish { request, command } = *wish;
            let watcher = stream.create(request).await;
            let (context, failed) = (Arc::clone(context), failed.clone());
            tokio::spawn(async move {
                if let Err(failure) = follow(&context, watcher, &command).await {
                    // The command may be ending already.
                    drop(failed.send(failure).await);
                }
            });
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
