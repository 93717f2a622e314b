//! `make-mirror`: copies what is below a prefix into another cluster, and then every change, for as long as it runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use client::{Client, Error, Watcher};
use proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
    request_op,
};
use proto::mvccpb::event::EventType;

use super::context::{Context, connect};
use super::{UTILITY, get, print, prompt};
use crate::command::{Command, Flag, Invocation, Kind, Values};
use crate::exit::Failure;

const DEST_CACERT: Flag = Flag::with(
    "dest-cacert",
    Kind::String,
    "",
    "Verify certificates of TLS enabled secure servers using this CA bundle",
);
const DEST_CERT: Flag = Flag::with(
    "dest-cert",
    Kind::String,
    "",
    "Identify secure client using this TLS certificate file for the destination cluster",
);
const DEST_INSECURE_TRANSPORT: Flag = Flag::with(
    "dest-insecure-transport",
    Kind::Bool,
    "true",
    "Disable transport security for client connections",
);
const DEST_KEY: Flag =
    Flag::with("dest-key", Kind::String, "", "Identify secure client using this TLS key file");
const DEST_PASSWORD: Flag = Flag::with(
    "dest-password",
    Kind::String,
    "",
    "Destination password for authentication (if this option is used, --user option shouldn't \
     include password)",
);
const DEST_PREFIX: Flag = Flag::with(
    "dest-prefix",
    Kind::String,
    "",
    "destination prefix to mirror a prefix to a different prefix in the destination cluster",
);
const DEST_USER: Flag = Flag::with(
    "dest-user",
    Kind::String,
    "",
    "Destination username[:password] for authentication (prompt if password is not supplied)",
);
const MAX_TXN_OPS: Flag = Flag::with(
    "max-txn-ops",
    Kind::Uint,
    "128",
    "Maximum number of operations permitted in a transaction during syncing updates.",
);
const NO_DEST_PREFIX: Flag =
    Flag::switch("no-dest-prefix", "mirror key-values to the root of the destination cluster");
const PREFIX: Flag = Flag::with("prefix", Kind::String, "", "Key-value prefix to mirror");
const REV: Flag = Flag::with("rev", Kind::Int, "0", "Specify the kv revision to start to mirror");

/// The command.
pub(super) const MAKE_MIRROR: Command = Command {
    usage: "make-mirror [options] <destination>",
    short: "Makes a mirror at the destination etcd cluster",
    group: UTILITY,
    flags: &[
        DEST_CACERT,
        DEST_CERT,
        DEST_INSECURE_TRANSPORT,
        DEST_KEY,
        DEST_PASSWORD,
        DEST_PREFIX,
        DEST_USER,
        MAX_TXN_OPS,
        NO_DEST_PREFIX,
        PREFIX,
        REV,
    ],
    run: Some(|invocation| Box::pin(run(invocation))),
    ..Command::NONE
};

/// Time between two lines that tell how much was copied.
const REPORT_INTERVAL: Duration = Duration::from_secs(30);
/// Keys that are read at a time.
const PAGE_KEYS: i64 = 1000;
/// What is read to learn the revision where the prefix is everything, as etcdctl does: a user may be allowed no more.
const ANY_KEY: Bytes = Bytes::from_static(b"foo");

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

async fn run(invocation: Invocation) -> Result<(), Failure> {
    let destination = invocation.text(0).filter(|_| invocation.arguments.len() == 1);
    let destination = destination
        .ok_or_else(|| Failure::bad_arguments("make-mirror takes one destination argument"))?;
    let values = &invocation.values;
    let context = Context::new(&invocation)?;
    let config = client::Config {
        endpoints: vec![destination],
        tls: tls(values),
        credentials: credentials(values)?,
        ..context.settings.client.clone()
    };
    let (source, destination) = (context.client().await?, connect(config).await?);
    let mut mirror = Mirror {
        prefixes: Prefixes::new(values)?,
        ops_max: usize::try_from(values.unsigned(&MAX_TXN_OPS)).unwrap_or(usize::MAX),
        source,
        destination,
        copied: Arc::default(),
    };
    let reports = tokio::spawn(report(Arc::clone(&mirror.copied)));
    let ended = mirror.run(values.int(&REV)).await;
    reports.abort();
    ended
}

fn tls(values: &Values) -> Option<client::Tls> {
    let path = |flag: &'static Flag| Some(values.text(flag)).filter(|text| !text.is_empty());
    let path = |flag| path(flag).map(PathBuf::from);
    let tls = client::Tls {
        cert: path(&DEST_CERT),
        key: path(&DEST_KEY),
        cacert: path(&DEST_CACERT),
        ..client::Tls::default()
    };
    let has_files = tls.cert.is_some() || tls.key.is_some() || tls.cacert.is_some();
    (has_files || !values.bool(&DEST_INSECURE_TRANSPORT)).then_some(tls)
}

fn credentials(values: &Values) -> Result<Option<client::Credentials>, Failure> {
    let (user, password) = (values.text(&DEST_USER), values.text(&DEST_PASSWORD));
    if user.is_empty() {
        return Ok(None);
    }
    let (user, password) = match user.split_once(':') {
        _ if !password.is_empty() => (user, password.to_owned()),
        Some((user, password)) => (user, password.to_owned()),
        None => (user, prompt::password("Destination Password: ")?),
    };
    Ok(Some(client::Credentials::Password { user: user.to_owned(), password }))
}

/// Tells from time to time how much was copied.
async fn report(copied: Arc<AtomicU64>) {
    loop {
        tokio::time::sleep(REPORT_INTERVAL).await;
        // Nobody may be left to read it.
        if print(&format!("{}\n", copied.load(Ordering::Relaxed))).is_err() {
            return;
        }
    }
}

/// Where keys come from, and where they go.
#[derive(Debug, PartialEq)]
struct Prefixes {
    source: String,
    destination: String,
    /// Whether keys keep their prefix where no other one is given.
    keeps: bool,
}

impl Prefixes {
    fn new(values: &Values) -> Result<Self, Failure> {
        let destination = values.text(&DEST_PREFIX).to_owned();
        let drops = values.bool(&NO_DEST_PREFIX);
        if drops && !destination.is_empty() {
            return Err(Failure::bad_arguments(
                "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one",
            ));
        }
        let keeps = !drops && destination.is_empty();
        Ok(Self { source: values.text(&PREFIX).to_owned(), destination, keeps })
    }

    /// Keeps the prefix from now on, if nothing else is wanted.
    fn settle(&mut self) {
        if self.keeps {
            self.destination.clone_from(&self.source);
        }
    }

    fn moved(&self, key: &[u8]) -> Bytes {
        let rest = key.strip_prefix(self.source.as_bytes()).unwrap_or(key);
        [self.destination.as_bytes(), rest].concat().into()
    }

    /// The keys below the source's prefix.
    fn range(&self) -> (Bytes, Bytes) {
        get::range(self.source.clone().into(), None, true, false)
    }
}

struct Mirror {
    prefixes: Prefixes,
    /// Operations of a transaction.
    ops_max: usize,
    source: Client,
    destination: Client,
    copied: Arc<AtomicU64>,
}

impl Mirror {
    /// Copies all that is there and then every change, or, from a revision after the first on, changes only.
    async fn run(&mut self, from: i64) -> Result<(), Failure> {
        let mut copied_to = (from - 1).max(0);
        if copied_to == 0 {
            copied_to = self.copy_all().await?;
        }
        self.copy_changes(copied_to + 1).await
    }

    /// Copies what is there, as of one revision, which is returned.
    async fn copy_all(&mut self) -> Result<i64, Failure> {
        // With a revision to begin from etcdctl leaves the prefix away where none is given: so it is here.
        self.prefixes.settle();
        let known = match self.prefixes.source.as_str() {
            "" => ANY_KEY,
            prefix => Bytes::copy_from_slice(prefix.as_bytes()),
        };
        let asked = RangeRequest { key: known, ..RangeRequest::default() };
        let revision = self.source.range(asked).await?.header.unwrap_or_default().revision;
        let (mut key, range_end) = self.prefixes.range();
        loop {
            let page = RangeRequest {
                key,
                range_end: range_end.clone(),
                limit: PAGE_KEYS,
                revision,
                ..RangeRequest::default()
            };
            let page = self.source.range(page).await?;
            let last = page.kvs.last().map(|kv| [&kv.key[..], b"\0"].concat());
            for kv in page.kvs {
                let key = self.prefixes.moved(&kv.key);
                let put = PutRequest { key, value: kv.value, ..PutRequest::default() };
                self.destination.put(put).await?;
                self.count(1);
            }
            match last {
                Some(next) if page.more => key = next.into(),
                _ => return Ok(revision),
            }
        }
    }

    /// Copies changes from `revision` on: each of its revisions at once, unless it is longer than a transaction may be.
    async fn copy_changes(&self, revision: i64) -> Result<(), Failure> {
        let (key, range_end) = self.prefixes.range();
        let request = WatchCreateRequest {
            key,
            range_end,
            start_revision: revision,
            ..WatchCreateRequest::default()
        };
        let mut watcher = self.source.watch_stream(false).create(request).await;
        while let Some(response) = watcher.next().await {
            let response = response?;
            if response.compact_revision != 0 {
                return Err(Failure::new(crate::exit::ERROR, COMPACTED));
            }
            if response.canceled {
                return Err(Watcher::cause(&response).into());
            }
            let mut ops = Vec::new();
            let mut last = 0;
            for event in response.events {
                let kind = event.r#type();
                let kv = event.kv.unwrap_or_default();
                if last != 0 && kv.mod_revision > last || ops.len() == self.ops_max.max(1) {
                    self.commit(std::mem::take(&mut ops)).await?;
                }
                last = kv.mod_revision;
                let key = self.prefixes.moved(&kv.key);
                ops.push(match kind {
                    EventType::Put => put(key, kv.value),
                    EventType::Delete => delete(key),
                });
                self.count(1);
            }
            if !ops.is_empty() {
                self.commit(ops).await?;
            }
        }
        Ok(())
    }

    async fn commit(&self, ops: Vec<RequestOp>) -> Result<(), Error> {
        let txn = TxnRequest { success: ops, ..TxnRequest::default() };
        self.destination.txn(txn).await.map(drop)
    }

    fn count(&self, more: u64) {
        self.copied.fetch_add(more, Ordering::Relaxed);
    }
}

fn put(key: Bytes, value: Bytes) -> RequestOp {
    let put = PutRequest { key, value, ..PutRequest::default() };
    RequestOp { request: Some(request_op::Request::RequestPut(put)) }
}

fn delete(key: Bytes) -> RequestOp {
    let delete = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
    RequestOp { request: Some(request_op::Request::RequestDeleteRange(delete)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(source: &str, destination: &str, keeps: bool) -> Prefixes {
        Prefixes { source: source.to_owned(), destination: destination.to_owned(), keeps }
    }

    #[test]
    fn keys_change_their_prefix_once() {
        for (source, destination, keeps, moved) in [
            ("", "", true, "a/a/b"),
            ("", "x/", false, "x/a/a/b"),
            ("a/", "x/", false, "x/a/b"),
            ("a/", "", true, "a/a/b"),
            ("a/", "", false, "a/b"),
        ] {
            let mut prefixes = prefixes(source, destination, keeps);
            prefixes.settle();
            assert_eq!(prefixes.moved(b"a/a/b"), moved, "{prefixes:?}");
        }
        // Without copying all first.
        assert_eq!(prefixes("a/", "", true).moved(b"a/b"), "b");
    }

    #[test]
    fn a_prefix_is_a_range_and_no_prefix_is_everything() {
        let range = |source: &str| prefixes(source, "", true).range();
        assert_eq!(range("a/"), ("a/".into(), "a0".into()));
        assert_eq!(range(""), ("\0".into(), "\0".into()));
    }
}
