//! Clients of a few registers, and what they saw.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest, request_op,
    response_op,
};
use tokio::task::JoinSet;
use tonic::Status;

use crate::harness::api::Api;
use crate::harness::registers::{Effect, Operation, Value};
use crate::random::Random;

const CLIENTS: usize = 9;
const REGISTERS: usize = 4;
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_millis(1500);
/// What a client rests between two operations.
const REST: Duration = Duration::from_millis(15);
/// How often the last reading of a register is tried.
const READS_MAX: usize = 20;

/// Running clients.
pub(super) struct Clients {
    shared: Rc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    members: Vec<Api>,
    round: u64,
    is_over: Cell<bool>,
    next_value: Cell<Value>,
    /// For each register.
    histories: RefCell<Vec<Vec<Operation>>>,
}

impl Clients {
    /// Starts clients of registers that only this round has.
    pub(super) fn start(members: &[Api], round: u64, seed: u64) -> Self {
        let shared = Rc::new(Shared {
            members: members.iter().map(|api| api.within(PATIENCE)).collect(),
            round,
            is_over: Cell::new(false),
            next_value: Cell::new(0),
            histories: RefCell::new(vec![Vec::new(); REGISTERS]),
        });
        let mut tasks = JoinSet::new();
        for number in 0..CLIENTS {
            let random = Random::new(seed.wrapping_add(number as u64));
            let client = Client { shared: Rc::clone(&shared), random, seen: [None; REGISTERS] };
            tasks.spawn_local(client.work());
        }
        Self { shared, tasks }
    }

    /// Ends the clients, reads every register once more through each member, and returns all histories.
    pub(super) async fn stop(&mut self) -> Vec<Vec<Operation>> {
        self.shared.is_over.set(true);
        while self.tasks.join_next().await.is_some() {}
        for register in 0..REGISTERS {
            for member in &self.shared.members {
                self.shared.insist_on_reading(register, member).await;
            }
        }
        self.shared.histories.take()
    }
}

impl Shared {
    fn key(&self, register: usize) -> String {
        format!("register/{}/{register}", self.round)
    }

    fn value(&self) -> Value {
        self.next_value.set(self.next_value.get() + 1);
        self.next_value.get()
    }

    fn record(&self, register: usize, operation: Operation) {
        self.histories.borrow_mut()[register].push(operation);
    }

    /// Reads a register, again if that fails.
    async fn insist_on_reading(&self, register: usize, member: &Api) {
        for _ in 0..READS_MAX {
            if self.read(register, member).await.is_ok() {
                return;
            }
        }
    }

    /// Reads a register. A read without an answer has seen nothing and done nothing.
    async fn read(&self, register: usize, member: &Api) -> Result<Option<Value>, Status> {
        let begin = Instant::now();
        let answer = member.get(&self.key(register)).await?;
        let found = found(answer);
        let effect = Effect::Read(found);
        self.record(register, Operation { begin, end: Some(Instant::now()), effect });
        Ok(found.map(|(value, _)| value))
    }
}

struct Client {
    shared: Rc<Shared>,
    random: Random,
    /// What it saw last in each register.
    seen: [Option<Value>; REGISTERS],
}

impl Client {
    async fn work(mut self) {
        while !self.shared.is_over.get() {
            let register = self.random.below(REGISTERS);
            let member = self.random.below(self.shared.members.len());
            let member = self.shared.members[member].clone();
            match (self.random.below(100), self.seen[register]) {
                (0..35, _) => self.put(register, &member).await,
                (35..60, Some(seen)) => self.swap(register, &member, seen).await,
                _ => {
                    if let Ok(seen) = self.shared.read(register, &member).await {
                        self.seen[register] = seen;
                    }
                }
            }
            tokio::time::sleep(REST).await;
        }
    }

    async fn put(&self, register: usize, member: &Api) {
        let value = self.shared.value();
        let begin = Instant::now();
        let answer = member.put(&self.shared.key(register), &value.to_string()).await;
        let end = answer.is_ok().then(Instant::now);
        let effect = Effect::Write(value, answer.ok());
        self.shared.record(register, Operation { begin, end, effect });
    }

    /// Replaces what was seen last; if there is something else now, that is read.
    async fn swap(&mut self, register: usize, member: &Api, from: Value) {
        let key = self.shared.key(register);
        let to = self.shared.value();
        let begin = Instant::now();
        let answer = member.call(member.kv().txn(swap(&key, from, to))).await;
        let end = Some(Instant::now());
        let operation = match answer {
            Ok(answer) if answer.succeeded => {
                let revision = answer.header.map(|header| header.revision);
                Operation { begin, end, effect: Effect::Swap { from, to, revision } }
            }
            Ok(mut answer) => {
                let read = answer.responses.pop().and_then(|answer| answer.response);
                let Some(response_op::Response::ResponseRange(read)) = read else { return };
                let found = found(read);
                self.seen[register] = found.map(|(value, _)| value);
                Operation { begin, end, effect: Effect::Read(found) }
            }
            Err(_unknown) => {
                let effect = Effect::Swap { from, to, revision: None };
                Operation { begin, end: None, effect }
            }
        };
        self.shared.record(register, operation);
    }
}

fn found(answer: RangeResponse) -> Option<(Value, i64)> {
    let kv = answer.kvs.into_iter().next()?;
    // What is no number is none of ours: no write has the value 0.
    let value = String::from_utf8_lossy(&kv.value).parse().unwrap_or(0);
    Some((value, kv.mod_revision))
}

fn swap(key: &str, from: Value, to: Value) -> TxnRequest {
    let key = bytes::Bytes::from(key.to_owned());
    let operation = |request| vec![RequestOp { request: Some(request) }];
    let put =
        PutRequest { key: key.clone(), value: to.to_string().into(), ..PutRequest::default() };
    let get = RangeRequest { key: key.clone(), ..RangeRequest::default() };
    let compare = Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Value.into(),
        key,
        target_union: Some(TargetUnion::Value(from.to_string().into())),
        ..Compare::default()
    };
    TxnRequest {
        compare: vec![compare],
        success: operation(request_op::Request::RequestPut(put)),
        failure: operation(request_op::Request::RequestRange(get)),
    }
}
