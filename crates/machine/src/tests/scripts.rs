//! Runs the scripts in `testdata/mvcc` and `testdata/machine`, which tell the rules of apply.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use goldenscript::{ArgumentConsumer, Command, Context, Runner};
use proto::etcdserverpb as pb;
use proto::etcdserverpb::compare::TargetUnion;
use proto::etcdserverpb::request_op::Request as Op;
use proto::{membershippb, raftpb};

use super::lab::{self, Lab};
use crate::membership::Verdict;
use crate::mvcc::record::KeyValue;
use crate::schema;
use crate::watch::{History, HistoryBounds};
use crate::{Options, Outcome, RangeReply, Record, Reply};

type Answer = Result<String, Box<dyn Error>>;

#[derive(Debug)]
struct Script {
    lab: Lab,
    txns: BTreeMap<String, pb::TxnRequest>,
}

impl Default for Script {
    fn default() -> Self {
        Self { lab: Lab::new(Options::default()), txns: BTreeMap::new() }
    }
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Answer {
        let mut args = command.consume_args();
        let output = match command.name.as_str() {
            "options" => self.options(&mut args)?,
            "put" | "delete" | "txn" | "compact" => self.kv(&command.name, &mut args)?,
            "on" => self.define(&mut args)?,
            "range" => self.range(&mut args)?,
            "commit" => {
                self.lab.commit();
                String::new()
            }
            "steps" => self.steps(&mut args)?,
            "crash" => {
                self.lab.crash();
                String::new()
            }
            "hash" => self.hash(&mut args)?,
            "history" => self.history(&mut args)?,
            "status" => self.status(),
            "grant" | "revoke" | "checkpoint" => self.lease(&command.name, &mut args)?,
            "leases" => self.leases(),
            "alarm" => self.alarm(&mut args)?,
            "conf" => self.conf_change(&mut args)?,
            "attributes" | "version" | "downgrade" => self.cluster(&command.name, &mut args)?,
            "bucket" => self.bucket(&mut args)?,
            "needs_alarm" => format!("{}\n", self.lab.machine.needs_nospace_alarm()),
            name => return Err(format!("no command {name}").into()),
        };
        args.reject_next()?;
        Ok(output)
    }
}

fn position<'a>(args: &mut ArgumentConsumer<'a>) -> Result<&'a str, Box<dyn Error>> {
    args.next_pos().ok_or_else(|| "argument missing".into())
}

fn number<T>(args: &mut ArgumentConsumer<'_>, name: &str) -> Result<T, Box<dyn Error>>
where
    T: Default + std::str::FromStr<Err: Error + 'static>,
{
    Ok(args.take_key(name).map(str::parse).transpose()?.unwrap_or_default())
}

fn has(args: &mut ArgumentConsumer<'_>, name: &str) -> bool {
    args.take_key(name) == Some("true")
}

fn bytes(text: &str) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(text.as_bytes())
}

impl Script {
    /// `options [quota=<bytes>] [batch=<records>] [learners=<n>]`: starts anew
    fn options(&mut self, args: &mut ArgumentConsumer<'_>) -> Answer {
        let mut options = Options { quota_bytes: number(args, "quota")?, ..Options::default() };
        if let Some(batch) = args.take_key("batch") {
            options.compaction_batch = batch.parse()?;
        }
        self.lab = Lab::new(options);
        Ok(String::new())
    }

    fn kv(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Answer {
        let request = match name {
            "put" => lab::put(put(args)?),
            "delete" => lab::delete(delete(args)?),
            "compact" => lab::compact(position(args)?.parse()?),
            _ => {
                let request = self.txns[position(args)?].clone();
                if args.take_key("read") == Some("true") {
                    return Ok(match self.lab.machine.reader().txn(&request, &mut |_| true) {
                        Ok((revision, reply)) => shown(revision, Ok(&Reply::Txn(reply))),
                        Err(error) => format!("refused: {error}\n"),
                    });
                }
                lab::txn(request)
            }
        };
        Ok(outcome(&self.lab.apply(request)))
    }

    /// `on <name> if <target> <key> [<end>] <operator> <operand>`, `on <name> then <op>`, `on <name> else <op>`: adds to a transaction. Ops are
    /// `put`, `get`, `delete` as the commands, or `txn <name>`.
    fn define(&mut self, args: &mut ArgumentConsumer<'_>) -> Answer {
        let (name, part) = (position(args)?.to_owned(), position(args)?);
        if part == "if" {
            let compare = compare(args)?;
            self.txns.entry(name).or_default().compare.push(compare);
            return Ok(String::new());
        }
        let op = match position(args)? {
            "put" => Op::RequestPut(put(args)?),
            "get" => Op::RequestRange(range(args)?),
            "delete" => Op::RequestDeleteRange(delete(args)?),
            "txn" => Op::RequestTxn(self.txns[position(args)?].clone()),
            name => return Err(format!("no operation {name}").into()),
        };
        let txn = self.txns.entry(name).or_default();
        let branch = match part {
            "then" => &mut txn.success,
            "else" => &mut txn.failure,
            other => return Err(format!("no part {other}").into()),
        };
        branch.push(pb::RequestOp { request: Some(op) });
        Ok(String::new())
    }

    /// `range <key> [<end>] [rev= limit= order= target= keys_only= count_only= min_mod= …]`
    fn range(&mut self, args: &mut ArgumentConsumer<'_>) -> Answer {
        let request = range(args)?;
        Ok(match self.lab.machine.reader().range(&request) {
            Ok((revision, reply)) => shown(revision, Ok(&Reply::Range(reply))),
            Err(error) => format!("refused: {error}\n"),
        })
    }

    /// `steps [<n>]`: steps of compactions, by default all
    fn steps(&mut self, args: &mut ArgumentConsumer<'_>) -> Answer {
        let max = args.next_pos().map_or(Ok(usize::MAX), str::parse)?;
        let done = (0..max).take_while(|_| self.lab.compact_step()).count();
        Ok(format!("{done} done, finished {}\n", self.lab.machine.finished_compaction()))
    }

    /// `hash <revision>...`
    fn hash(&mut self, args: &mut ArgumentConsumer<'_>) -> Answer {
        let mut output = String::new();
        while let Some(revision) = args.next_pos() {
            match self.lab.machine.reader().hash_kv(revision.parse()?) {
                Ok((hash, _)) => writeln!(
                    output,
                    "{}: {} compacted {}",
                    hash.revision, hash.hash, hash.compact_revision
                )?,
                Err(error) => writeln!(output, "{revision}: {error}")?,
            }
        }
        Ok(output)
    }

    /// `history <from>`: what a watcher from there sees
    fn history(&mut self, args: &mut ArgumentConsumer<'_>) -> Answer {
        let bounds = HistoryBounds { revisions_max: 100, bytes_max: 10_000 };
        let batch = self.lab.machine.reader().read(position(args)?.parse()?, i64::MAX, bounds)?;
        let mut output = String::new();
        for event in batch.events() {
            let (main, sub) = (event.revision.main, event.revision.sub);
            writeln!(output, "{main}.{sub} {:?} {}", event.kind, record(&event.record))?;
        }
        Ok(output)
    }

    fn status(&self) -> String {
        let reader = self.lab.machine.reader();
        let (revision, compacted) = (reader.revision(), reader.compact_revision());
        let (applied, sizes) = (self.lab.machine.applied().index, reader.sizes());
        let stats = reader.stats();
        format!(
            "revision {revision}, compacted {compacted}, applied {applied}, durable {}, {} keys, {} live bytes, {} in the tail\n",
            reader.durable_index(),
            stats.keys,
            sizes.live,
            stats.tail_records
        )
    }

    /// `grant <id> <ttl>`, `revoke <id>`, `checkpoint <id> <remaining>`
    fn lease(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Answer {
        let id = position(args)?.parse()?;
        let mut request = pb::InternalRaftRequest::default();
        match name {
            "grant" => {
                let ttl = position(args)?.parse()?;
                request.lease_grant = Some(pb::LeaseGrantRequest { id, ttl });
            }
            "revoke" => request.lease_revoke = Some(pb::LeaseRevokeRequest { id }),
            _ => {
                let remaining_ttl = position(args)?.parse()?;
                let checkpoints = vec![pb::LeaseCheckpoint { id, remaining_ttl }];
                request.lease_checkpoint = Some(pb::LeaseCheckpointRequest { checkpoints });
            }
        }
        Ok(outcome(&self.lab.apply(request)))
    }

    fn leases(&self) -> String {
        let lessor = self.lab.machine.lessor();
        let mut output = String::new();
        for id in lessor.list() {
            let mut keys: Vec<_> = lessor.keys(id).map(String::from_utf8_lossy).collect();
            keys.sort();
            let lease = lessor.stored(id).unwrap();
            writeln!(output, "{id}: ttl {} remaining {} {keys:?}", lease.ttl, lease.remaining_ttl)
                .unwrap();
        }
        output
    }

    /// `alarm <get|activate|deactivate> <member> <kind>`
    fn alarm(&mut self, args: &mut ArgumentConsumer<'_>) -> Answer {
        let action = match position(args)? {
            "get" => 0,
            "activate" => 1,
            "deactivate" => 2,
            other => return Err(format!("no action {other}").into()),
        };
        let member_id = position(args)?.parse()?;
        let alarm = match position(args)? {
            "none" => 0,
            "nospace" => 1,
            "corrupt" => 2,
            other => return Err(format!("no alarm {other}").into()),
        };
        let alarm = Some(pb::AlarmRequest { action, member_id, alarm });
        let request = pb::InternalRaftRequest { alarm, ..Default::default() };
        Ok(outcome(&self.lab.apply(request)))
    }

    /// `conf <add|learner|promote|remove|update> <id> [url=<url>]`
    fn conf_change(&mut self, args: &mut ArgumentConsumer<'_>) -> Answer {
        let (verb, node_id) = (position(args)?, position(args)?.parse()?);
        let peer_urls = args.take_key("url").map(str::to_owned).into_iter().collect();
        let kind = match verb {
            "add" | "promote" => 0,
            "remove" => 1,
            "update" => 2,
            "learner" => 3,
            other => return Err(format!("no change {other}").into()),
        };
        let is_learner = verb == "learner";
        let member =
            crate::membership::Member { id: node_id, peer_urls, is_learner, ..Default::default() };
        let context = match verb {
            "remove" => bytes::Bytes::new(),
            _ => schema::conf_change_context(&member, verb == "promote"),
        };
        let change = raftpb::ConfChange { id: 1, r#type: kind, node_id, context };
        let (verdict, answer) = self.lab.apply_conf_change(&change)?;
        Ok(match verdict {
            Verdict::Accepted(change) => format!("{change:?}\n{}", outcome(&answer.outcome)),
            Verdict::Refused(_) | Verdict::AlreadyApplied => outcome(&answer.outcome),
        })
    }

    /// `attributes <id> <name> <url>`, `version <version>`, `downgrade <version|cancel>`
    fn cluster(&mut self, name: &str, args: &mut ArgumentConsumer<'_>) -> Answer {
        let mut request = pb::InternalRaftRequest::default();
        match name {
            "attributes" => {
                let member_id = position(args)?.parse()?;
                let name = position(args)?.to_owned();
                let client_urls = vec![position(args)?.to_owned()];
                request.cluster_member_attr_set = Some(membershippb::ClusterMemberAttrSetRequest {
                    member_id,
                    member_attributes: Some(membershippb::Attributes { name, client_urls }),
                });
            }
            "version" => {
                let ver = position(args)?.to_owned();
                request.cluster_version_set = Some(membershippb::ClusterVersionSetRequest { ver });
            }
            _ => {
                let ver = position(args)?.to_owned();
                let enabled = ver != "cancel";
                request.downgrade_info_set =
                    Some(membershippb::DowngradeInfoSetRequest { enabled, ver });
            }
        }
        let applied = self.lab.apply_entry(request)?;
        let forces = if applied.forces_snapshot { "forces a snapshot\n" } else { "" };
        Ok(format!("{}{forces}", outcome(&applied.outcome)))
    }

    /// `bucket <name>`: what is durable in it
    fn bucket(&mut self, args: &mut ArgumentConsumer<'_>) -> Answer {
        let mut output = String::new();
        let snapshot = self.lab.machine.reader().snapshot()?;
        for pair in snapshot.pairs(position(args)?) {
            let (key, value) = pair?;
            writeln!(output, "{} = {}", key.escape_ascii(), value.escape_ascii())?;
        }
        Ok(output)
    }
}

fn compare(args: &mut ArgumentConsumer<'_>) -> Result<pb::Compare, Box<dyn Error>> {
    let words: Vec<_> = std::iter::from_fn(|| args.next_pos()).collect();
    let (target, key, end, operator, operand) = match words[..] {
        [target, key, operator, operand] => (target, key, "", operator, operand),
        [target, key, end, operator, operand] => (target, key, end, operator, operand),
        _ => return Err(format!("no compare: {words:?}").into()),
    };
    let result = ["eq", "gt", "lt", "ne"]
        .iter()
        .position(|name| *name == operator)
        .ok_or("no such operator")?;
    let (target, target_union) = match target {
        "version" => (0, TargetUnion::Version(operand.parse()?)),
        "create" => (1, TargetUnion::CreateRevision(operand.parse()?)),
        "mod" => (2, TargetUnion::ModRevision(operand.parse()?)),
        "value" => (3, TargetUnion::Value(bytes(operand))),
        "lease" => (4, TargetUnion::Lease(operand.parse()?)),
        other => return Err(format!("no target {other}").into()),
    };
    Ok(pb::Compare {
        result: i32::try_from(result)?,
        target,
        key: bytes(key),
        range_end: bytes(end),
        target_union: Some(target_union),
    })
}

/// `put <key> [<value>] [lease=] [prev=true] [ignore_value=true] [ignore_lease=true]`
fn put(args: &mut ArgumentConsumer<'_>) -> Result<pb::PutRequest, Box<dyn Error>> {
    Ok(pb::PutRequest {
        lease: number(args, "lease")?,
        prev_kv: has(args, "prev"),
        ignore_value: has(args, "ignore_value"),
        ignore_lease: has(args, "ignore_lease"),
        key: bytes(position(args)?),
        value: bytes(args.next_pos().unwrap_or_default()),
    })
}

/// An end `+` is "all from the key on".
fn end(args: &mut ArgumentConsumer<'_>) -> bytes::Bytes {
    match args.next_pos() {
        Some("+") => bytes("\0"),
        end => bytes(end.unwrap_or_default()),
    }
}

/// `delete <key> [<end>] [prev=true]`
fn delete(args: &mut ArgumentConsumer<'_>) -> Result<pb::DeleteRangeRequest, Box<dyn Error>> {
    let (prev_kv, key) = (has(args, "prev"), bytes(position(args)?));
    Ok(pb::DeleteRangeRequest { key, range_end: end(args), prev_kv })
}

fn range(args: &mut ArgumentConsumer<'_>) -> Result<pb::RangeRequest, Box<dyn Error>> {
    let named = |list: [&str; 5], name: Option<&str>| {
        let position = name.map_or(Some(0), |name| list.iter().position(|other| *other == name));
        position.and_then(|position| i32::try_from(position).ok()).ok_or("no such order")
    };
    Ok(pb::RangeRequest {
        revision: number(args, "rev")?,
        limit: number(args, "limit")?,
        sort_order: named(["none", "ascend", "descend", "", ""], args.take_key("order"))?,
        sort_target: named(["key", "version", "create", "mod", "value"], args.take_key("target"))?,
        keys_only: has(args, "keys_only"),
        count_only: has(args, "count_only"),
        min_mod_revision: number(args, "min_mod")?,
        max_mod_revision: number(args, "max_mod")?,
        min_create_revision: number(args, "min_create")?,
        max_create_revision: number(args, "max_create")?,
        serializable: false,
        key: bytes(position(args)?),
        range_end: end(args),
    })
}

fn outcome(outcome: &Outcome) -> String {
    shown(outcome.revision, outcome.result.as_ref())
}

fn shown(revision: i64, result: Result<&Reply, &crate::Refusal>) -> String {
    match result {
        Err(refusal) => format!("refused at {revision}: {refusal}\n"),
        Ok(reply) => format!("revision {revision}\n{}", shown_reply(reply, "")),
    }
}

fn shown_reply(reply: &Reply, indent: &str) -> String {
    let records = |records: &[Record]| -> String {
        let lines: Vec<_> =
            records.iter().map(|kv| format!("{indent}  {}\n", record(kv))).collect();
        lines.concat()
    };
    match reply {
        Reply::Put { prev: None }
        | Reply::Empty
        | Reply::Compaction
        | Reply::LeaseRevoke
        | Reply::LeaseCheckpoint => String::new(),
        Reply::Put { prev: Some(prev) } => format!("{indent}before: {}\n", record(prev)),
        Reply::Range(RangeReply { kvs, more, count }) => {
            let more = if *more { ", more" } else { "" };
            format!("{indent}count {count}{more}\n{}", records(kvs))
        }
        Reply::DeleteRange { deleted, prev } => {
            format!("{indent}deleted {deleted}\n{}", records(prev))
        }
        Reply::LeaseGrant { id, ttl } => format!("{indent}lease {id} ttl {ttl}\n"),
        Reply::Alarm(alarms) => {
            let lines: Vec<_> = alarms
                .iter()
                .map(|alarm| format!("{} of {}\n", alarm.alarm, alarm.member_id))
                .collect();
            lines.concat()
        }
        Reply::Txn(reply) => {
            let mut output = format!("{indent}succeeded {}\n", reply.succeeded);
            for (revision, reply) in &reply.responses {
                write!(
                    output,
                    "{indent}- header {revision}\n{}",
                    shown_reply(reply, &format!("{indent}  "))
                )
                .unwrap();
            }
            output
        }
    }
}

fn record(record: &Record) -> String {
    let kv = KeyValue::decode(record).unwrap();
    let mut output = format!(
        "{}={} (created {}, modified {}, version {}",
        kv.key.escape_ascii(),
        kv.value.escape_ascii(),
        kv.create_revision,
        kv.mod_revision,
        kv.version
    );
    if kv.lease != 0 {
        write!(output, ", lease {}", kv.lease).unwrap();
    }
    output.push(')');
    output
}

fn run_all(topic: &str) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(topic);
    let mut scripts: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    for path in scripts {
        goldenscript::run(&mut Script::default(), &path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

#[test]
fn scripts_tell_the_rules_of_the_store() {
    run_all("mvcc");
}

#[test]
fn scripts_tell_the_rules_around_it() {
    run_all("machine");
}
