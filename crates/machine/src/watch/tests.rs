//! Scripts in `testdata/watch/`: a naive store, one hub, and what its clients see, decoded from the wire.

mod properties;
mod store;

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use goldenscript::{Argument, Command, Context};
use prost::Message;
use proto::etcdserverpb::watch_create_request::FilterType;
use proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use proto::mvccpb;

use self::store::Store;
use super::*;

/// The header fields that the hub does not know.
const HEADER: Header = Header { cluster_id: 1 << 63, member_id: 7, raft_term: 3 };

type Ran = Result<String, Box<dyn Error>>;

struct Runner {
    store: Store,
    hub: Hub,
    /// Applied but not published yet, while held back.
    held: Option<EventBatch>,
    is_holding: bool,
    reading: Option<CatchUpDone>,
}

impl Runner {
    fn new() -> Self {
        Self {
            store: Store::default(),
            hub: Hub::new(Options::default(), 1),
            held: None,
            is_holding: false,
            reading: None,
        }
    }

    /// Applies `key=value` as puts and `key` as deletions, all in one revision.
    fn write(&mut self, args: &[Argument]) -> String {
        let first = self.store.current() + 1;
        let batch = self.held.get_or_insert_with(|| EventBatch::new(first));
        for event in self.store.write(args.iter().map(|arg| match arg {
            Argument::KeyValue(key, value) => (key.as_str(), Some(value.as_str())),
            Argument::Positional(key) => (key.as_str(), None),
            other => panic!("unexpected argument {other:?}"),
        })) {
            batch.push(event);
        }
        if !self.is_holding {
            self.publish();
        }
        format!("revision {}", self.store.current())
    }

    fn publish(&mut self) {
        if let Some(batch) = self.held.take() {
            self.hub.publish(&Arc::new(batch), &self.store);
        }
    }

    fn create(&mut self, command: &Command) -> Ran {
        let mut args = command.consume_args();
        let mut request = WatchCreateRequest::default();
        let stream = stream(args.next_pos().ok_or("no stream")?)?;
        for (key, value) in std::iter::from_fn(|| args.next_key()) {
            match key {
                "key" => request.key = bytes_of(value),
                "end" => request.range_end = bytes_of(value),
                "start" => request.start_revision = value.parse()?,
                "id" => request.watch_id = value.parse()?,
                other => return Err(format!("unknown argument {other}").into()),
            }
        }
        for word in std::iter::from_fn(|| args.next_pos()) {
            match word {
                "noput" => request.filters.push(FilterType::Noput as i32),
                "nodelete" => request.filters.push(FilterType::Nodelete as i32),
                "strange" => request.filters.push(99),
                "prev_kv" => request.prev_kv = true,
                "fragment" => request.fragment = true,
                "progress" => request.progress_notify = true,
                other => return Err(format!("unknown argument {other}").into()),
            }
        }
        self.hub.create(stream, &request, &self.store);
        Ok(String::new())
    }

    /// Sends what is queued, at most some answers, split at some size.
    fn drain(&mut self, command: &Command) -> Ran {
        let mut args = command.consume_args();
        let stream = stream(args.next_pos().ok_or("no stream")?)?;
        let split_at = args.take_key("split_at").map_or(Ok(usize::MAX), str::parse)?;
        let most = args.take_key("most").map_or(Ok(usize::MAX), str::parse)?;
        let mut out = String::new();
        for _ in 0..most {
            let Some(answer) = self.hub.next_answer(stream) else { break };
            for response in responses(&answer, split_at) {
                writeln!(out, "{}", shown(&response))?;
            }
        }
        Ok(out)
    }

    /// Reads history for watchers until none waits for it.
    fn catch_up(&mut self) -> Ran {
        let mut pieces = 0;
        while let Some(piece) = self.hub.next_catch_up() {
            let done = piece.run(&self.store);
            self.hub.finish_catch_up(done, &self.store)?;
            pieces += 1;
        }
        Ok(format!("{pieces} pieces"))
    }

    fn configure(&mut self, command: &Command) -> Ran {
        let mut args = command.consume_args();
        let mut options = Options::default();
        for (key, value) in std::iter::from_fn(|| args.next_key()) {
            let value = value.parse()?;
            match key {
                "answers" => options.queue_answers_max = value,
                "bytes" => options.queue_bytes_max = value,
                "recent" => options.recent_bytes_max = value,
                "catch_up_bytes" => options.catch_up_bytes_max = value,
                other => return Err(format!("unknown option {other}").into()),
            }
        }
        self.hub = Hub::new(options, self.store.current());
        Ok(String::new())
    }

    /// Runs commands about the store and how it reaches the hub; `None` if it is none of them.
    fn run_store(
        &mut self,
        command: &Command,
        first: &str,
    ) -> Result<Option<String>, Box<dyn Error>> {
        let silent = String::new();
        Ok(Some(match command.name.as_str() {
            "options" => self.configure(command)?,
            "write" => self.write(&command.args),
            "compact" => {
                self.store.compact(first.parse()?);
                silent
            }
            "compact_when_read" => {
                self.store.compact_when_read.set(Some(first.parse()?));
                silent
            }
            "fail_after" => {
                self.store.fails_after.set(Some(first.parse()?));
                silent
            }
            "cold" => {
                self.store.is_cold = first == "on";
                silent
            }
            "hold" => {
                self.is_holding = true;
                silent
            }
            "release" => {
                self.is_holding = false;
                self.publish();
                silent
            }
            "install" => {
                self.is_holding = false;
                self.held = None;
                self.hub.restored(self.store.current());
                silent
            }
            "catch_up" => self.catch_up()?,
            "start_reading" => {
                let piece = self.hub.next_catch_up().ok_or("nothing to read")?;
                self.reading = Some(piece.run(&self.store));
                silent
            }
            "finish_reading" => {
                let done = self.reading.take().ok_or("nothing was read")?;
                let finished = self.hub.finish_catch_up(done, &self.store);
                finished.map_or_else(|fault| fault.to_string(), |()| silent)
            }
            _ => return Ok(None),
        }))
    }
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Ran {
        let positional: Vec<&str> = command
            .args
            .iter()
            .filter_map(|arg| match arg {
                Argument::Positional(value) => Some(value.as_str()),
                _ => None,
            })
            .collect();
        let first = positional.first().copied().unwrap_or_default();
        if let Some(out) = self.run_store(command, first)? {
            return Ok(out);
        }
        let mut out = String::new();
        match command.name.as_str() {
            "open" => write!(out, "stream {}", self.hub.open_stream().0)?,
            "close" => self.hub.close_stream(stream(first)?),
            "create" => return self.create(command),
            "refuse" => {
                let refused = Refused::Denied(positional[1].to_owned().into());
                self.hub.refuse(stream(first)?, refused, &self.store);
            }
            "cancel" => self.hub.cancel(stream(first)?, positional[1].parse()?, &self.store),
            "progress" => self.hub.progress(stream(first)?, &self.store),
            "tick" => self.hub.progress_tick(stream(first)?),
            "has_room" => write!(out, "{}", self.hub.has_room(stream(first)?))?,
            "ready" => {
                let mut ready = Vec::new();
                self.hub.take_ready(&mut ready);
                write!(out, "{:?}", ready.iter().map(|stream| stream.0).collect::<Vec<u32>>())?;
            }
            "drain" => return self.drain(command),
            "stats" => {
                let Stats { streams, watchers, slow_watchers, pending_events, .. } =
                    self.hub.stats();
                write!(
                    out,
                    "{streams} streams, {watchers} watchers, {slow_watchers} slow, {pending_events} events"
                )?;
            }
            other => return Err(format!("unknown command {other}").into()),
        }
        Ok(out)
    }
}

fn stream(text: &str) -> Result<StreamId, std::num::ParseIntError> {
    text.parse().map(StreamId)
}

/// Text with `\0` for a zero byte.
fn bytes_of(text: &str) -> Bytes {
    Bytes::from(text.replace("\\0", "\0").into_bytes())
}

/// Encodes an answer as it is sent and decodes it as a client does.
fn responses(answer: &Answer, split_at: usize) -> Vec<WatchResponse> {
    answer
        .parts(&HEADER, split_at)
        .map(|part| {
            let mut out = BytesMut::new();
            part.encode(&mut out);
            assert_eq!(out.len(), part.encoded_len(), "the announced length is kept");
            let response = WatchResponse::decode(out.clone().freeze()).expect("it decodes");
            assert_eq!(response.encode_to_vec(), out, "it is what prost encodes");
            response
        })
        .collect()
}

fn shown(response: &WatchResponse) -> String {
    let header = response.header.as_ref().expect("always there");
    assert_eq!((header.cluster_id, header.member_id, header.raft_term), (1 << 63, 7, 3));
    let mut words = vec![format!("watch {} revision {}", response.watch_id, header.revision)];
    for (is_set, text) in [
        (response.created, "created"),
        (response.canceled, "canceled"),
        (response.fragment, "fragment"),
    ] {
        words.extend(is_set.then(|| text.to_owned()));
    }
    if response.compact_revision != 0 {
        words.push(format!("compacted {}", response.compact_revision));
    }
    if !response.cancel_reason.is_empty() {
        words.push(format!("because {:?}", response.cancel_reason));
    }
    let mut lines = vec![words.join(" ")];
    for event in &response.events {
        let kind = event.r#type().as_str_name();
        let kv = shown_kv(event.kv.as_ref().expect("always there"));
        let previous = event.prev_kv.as_ref().map(|kv| format!(" after {}", shown_kv(kv)));
        lines.push(format!("  {kind} {kv}{}", previous.unwrap_or_default()));
    }
    lines.join("\n")
}

fn shown_kv(kv: &mvccpb::KeyValue) -> String {
    let key = String::from_utf8_lossy(&kv.key);
    if kv.version == 0 {
        return format!("{key} at {}", kv.mod_revision);
    }
    let value = String::from_utf8_lossy(&kv.value);
    let value = if value.len() > 20 { format!("{} bytes", value.len()) } else { value.into() };
    let mvccpb::KeyValue { create_revision, version, mod_revision, .. } = kv;
    format!("{key}={value} created {create_revision} version {version} at {mod_revision}")
}

#[test]
fn scripts_tell_the_rules_of_watching() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/watch");
    for entry in std::fs::read_dir(directory).expect("the scripts are there") {
        let path = entry.expect("readable").path();
        goldenscript::run(&mut Runner::new(), &path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

#[test]
fn watchers_behind_many_that_wait_for_room_are_read_for() {
    let hub = Hub::new(Options { queue_answers_max: 1, ..Options::default() }, 1);
    let mut runner = Runner { hub, ..Runner::new() };
    runner.write(&[Argument::KeyValue("a".into(), "1".into())]);
    let Runner { hub, store, .. } = &mut runner;
    let past =
        WatchCreateRequest { key: "a".into(), start_revision: 2, ..WatchCreateRequest::default() };
    let (full, open) = (hub.open_stream(), hub.open_stream());
    for _ in 0..10_000 {
        hub.create(full, &past, store);
    }
    hub.create(open, &past, store);
    assert!(matches!(hub.next_answer(open), Some(Answer { body: Body::Created, .. })));
    while let Some(piece) = hub.next_catch_up() {
        let done = piece.run(store);
        hub.finish_catch_up(done, store).expect("the naive store has no faults");
    }
    let answer = hub.next_answer(open).expect("its history was read");
    assert_eq!(answer.events().len(), 1);
}

#[test]
fn work_may_go_to_other_threads() {
    fn is_send<T: Send + 'static>() {}
    is_send::<CatchUp>();
    is_send::<CatchUpDone>();
    is_send::<Hub>();
    is_send::<Arc<EventBatch>>();
}
