//! One seed: both servers, one after the other step, until the end or the first difference.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use prost::Message as _;
use proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, HashKvRequest, HashKvResponse, LeaseGrantRequest,
    LeaseGrantResponse, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
    RangeRequest, StatusRequest, StatusResponse,
};

use super::compare::{self, Exchange};
use super::gateway::{self, Gateway};
use super::generate::{Call, FIRST_OF_FUTURE, Generator, STREAMS, Step, View, WatchStep};
use super::known;
use super::member::Member;
use super::method::{self, Descriptors};
use super::watches::Stream;
use crate::grpc::{Answer, Connection};

/// So many steps from one look at the whole store to the next.
const CHECKPOINT_STEPS: usize = 1000;
/// So many calls that change nothing run side by side.
const READS_MAX: usize = 12;
/// So many of the last changes are shown with a difference.
const RECENT: usize = 6;
/// How long the physical part of a compaction may take.
const COMPACTING: Duration = Duration::from_secs(10);
/// Long enough for a server to clean up behind a call that ran out of time, and for nothing to come after that.
const UNDOING: Duration = Duration::from_secs(5);
const UNDOING_QUIET: Duration = Duration::from_millis(60);

/// What was asked and how it went.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) steps: usize,
    /// Per method and status code of the reference.
    pub(crate) answers: BTreeMap<(String, String), usize>,
    /// Per known difference.
    pub(crate) known: [usize; known::KNOWN.len()],
}

/// How a seed is run.
#[derive(Clone, Copy)]
pub(crate) struct Plan<'a> {
    pub(crate) reference: &'a Path,
    pub(crate) subject: &'a Path,
    pub(crate) steps: usize,
    /// Every so many steps one goes through the gateway, if it can. 0: never.
    pub(crate) gateway_every: usize,
}

/// Runs one seed; a difference is the error.
pub(crate) async fn run(plan: Plan<'_>, seed: u64, tally: &mut Tally) -> Result<()> {
    let mut reference = Member::start(plan.reference).await.context("reference")?;
    let mut subject = Member::start(plan.subject).await.context("subject")?;
    let mut pair = Pair::open(&reference, &subject, plan.gateway_every).await?;
    let mut generator = Generator::new(seed);
    let result = pair.play(&mut generator, plan.steps, tally).await.with_context(|| pair.recent());
    let at = format!("seed {seed}, step {}", tally.steps);
    let ends = [("reference", reference.ended()), ("subject", subject.ended())];
    result.with_context(|| {
        let died = ends
            .iter()
            .filter_map(|(name, end)| Some(format!("\n{name} ended with {}", end.as_deref()?)));
        format!("{at}{}", died.collect::<String>())
    })
}

/// Connections to both servers.
struct Pair {
    reference: Connection,
    subject: Connection,
    gateways: (Gateway, Gateway),
    gateway_every: usize,
    streams: Vec<Stream>,
    descriptors: Descriptors,
    view: View,
    /// The last requests, for the report of a difference.
    recent: VecDeque<String>,
}

impl Pair {
    async fn open(reference: &Member, subject: &Member, gateway_every: usize) -> Result<Self> {
        let gateways = (Gateway::open(reference.port).await?, Gateway::open(subject.port).await?);
        let (reference, subject) = (reference.connect().await?, subject.connect().await?);
        let mut streams = Vec::new();
        for index in 0..STREAMS {
            let future = index >= FIRST_OF_FUTURE;
            streams.push(Stream::open(&reference, &subject, future).await?);
        }
        let descriptors = Descriptors::load()?;
        let view = View { revision: 1, ..View::default() };
        let recent = VecDeque::new();
        Ok(Self { reference, subject, gateways, gateway_every, streams, descriptors, view, recent })
    }

    async fn play(
        &mut self,
        generator: &mut Generator,
        steps: usize,
        tally: &mut Tally,
    ) -> Result<()> {
        self.checkpoint(tally).await.context("first checkpoint")?;
        let mut reads: Vec<Call> = Vec::new();
        let mut next_checkpoint = CHECKPOINT_STEPS;
        for index in 0..steps {
            let step = generator.next(self.view);
            let through_gateway = self.gateway_every > 0 && index % self.gateway_every == 0;
            if let Step::Call(call) = &step
                && call.method.reads
                && !through_gateway
            {
                reads.push(call.clone());
                if reads.len() < READS_MAX {
                    continue;
                }
            }
            self.read_all(&mut reads, tally).await?;
            let is_read = matches!(&step, Step::Call(call) if call.method.reads);
            if !is_read || through_gateway {
                self.step(step, through_gateway, tally).await?;
            }
            if index >= next_checkpoint {
                next_checkpoint = index + CHECKPOINT_STEPS;
                self.checkpoint(tally).await.context("checkpoint")?;
            }
        }
        self.read_all(&mut reads, tally).await?;
        self.checkpoint(tally).await.context("last checkpoint")
    }

    /// Calls that change nothing, all at once.
    async fn read_all(&mut self, reads: &mut Vec<Call>, tally: &mut Tally) -> Result<()> {
        let calls = std::mem::take(reads);
        let mut running = Vec::new();
        for call in &calls {
            let path = call.method.path();
            let start = |connection: &Connection| {
                let (connection, path, message) =
                    (connection.clone(), path.clone(), call.message.clone());
                tokio::task::spawn_local(
                    async move { connection.call(&path, &message, None).await },
                )
            };
            running.push((call, start(&self.reference), start(&self.subject)));
        }
        for (call, reference, subject) in running {
            let reference = reference.await?.with_context(|| format!("reference, {call:?}"))?;
            let subject = subject.await?.with_context(|| format!("subject, {call:?}"))?;
            self.judge(call, &reference, &subject, tally)?;
        }
        Ok(())
    }

    async fn step(&mut self, step: Step, gateway: bool, tally: &mut Tally) -> Result<()> {
        match step {
            Step::Call(call) => {
                if call.method.name == "Compact" {
                    // What was compacted in the middle of a watch depends on time.
                    self.settle().await?;
                }
                match call.method.route.filter(|_| gateway && passes_gateway(&call)) {
                    Some(route) => self.post(route, &call, tally).await?,
                    None => drop(self.call(&call, tally).await?),
                }
                if call.method.service.starts_with("v3") {
                    // Locks and elections take several writes, and answer with the header of one.
                    let status = Call::of(&method::STATUS, &StatusRequest {});
                    self.call(&status, tally).await?;
                }
                Ok(())
            }
            Step::AnonymousLease { ttl } => self.anonymous_lease(ttl, tally).await,
            Step::BadJson { route, body } => {
                let reference = self.gateways.0.post(route, body).await.context("reference")?;
                let subject = self.gateways.1.post(route, body).await.context("subject")?;
                self.judge_gateway(route, body, &reference, &subject, tally)
            }
            Step::Watch(WatchStep::Create { stream, request }) => {
                tally.count("Watch create", "0");
                self.streams[stream].create(&request).await
            }
            Step::Watch(WatchStep::Cancel { stream, watch_id }) => {
                tally.count("Watch cancel", "0");
                self.streams[stream].cancel(watch_id, self.view.revision).await
            }
            Step::Watch(WatchStep::Settle) => {
                tally.count("Watch settle", "0");
                self.settle().await
            }
        }
    }

    fn recent(&self) -> String {
        let requests: Vec<&str> = self.recent.iter().map(String::as_str).collect();
        format!("after\n    {}\n", requests.join("\n    "))
    }

    fn remember(&mut self, call: &Call) {
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(compare::describe_request(call, &self.descriptors));
    }

    async fn settle(&mut self) -> Result<()> {
        for stream in &mut self.streams {
            stream.settle(self.view.revision).await?;
        }
        Ok(())
    }

    /// Sends one call to both and compares; returns both answers.
    async fn call(&mut self, call: &Call, tally: &mut Tally) -> Result<(Answer, Answer)> {
        let path = call.method.path();
        self.remember(call);
        let (reference, subject) = tokio::join!(
            self.reference.call(&path, &call.message, call.timeout),
            self.subject.call(&path, &call.message, call.timeout),
        );
        let describe = || format!("{path} {call:?}");
        let reference = reference.with_context(|| format!("reference, {}", describe()))?;
        let subject = subject.with_context(|| format!("subject, {}", describe()))?;
        self.judge(call, &reference, &subject, tally)?;
        if call.timeout.is_some() && reference.is_late() {
            self.undone().await?;
        }
        if reference.code == "0" && call.method.name == "Compact" {
            self.compacted(call).await?;
        }
        Ok((reference, subject))
    }

    fn judge(
        &mut self,
        call: &Call,
        reference: &Answer,
        subject: &Answer,
        tally: &mut Tally,
    ) -> Result<()> {
        tally.count(call.method.name, &reference.code);
        let exchange = Exchange::Grpc { call, reference, subject };
        if !exchange.is_equal() {
            tally.excuse(&exchange, &self.descriptors)?;
        }
        // Nearly every answer begins with the header.
        if let Some(message) = reference.messages.first()
            && !call.method.reads
            && let Ok(answer) = CompactionResponse::decode(message.as_ref())
            && let Some(header) = answer.header
            && header.revision > 0
        {
            self.view.revision = header.revision;
        }
        Ok(())
    }

    async fn post(&mut self, route: &str, call: &Call, tally: &mut Tally) -> Result<()> {
        self.remember(call);
        let (input, _) = self.descriptors.of(call.method).context("no such method")?;
        let body = gateway::to_json(&input, &call.message)?;
        let (reference, subject) =
            tokio::join!(self.gateways.0.post(route, &body), self.gateways.1.post(route, &body));
        let reference = reference.with_context(|| format!("reference, {route} {body}"))?;
        let subject = subject.with_context(|| format!("subject, {route} {body}"))?;
        self.judge_gateway(route, &body, &reference, &subject, tally)?;
        let revision = &reference.values.first().context("no body")?["header"]["revision"];
        if let Some(revision) = revision.as_str() {
            self.view.revision = revision.parse()?;
        }
        if call.method.name == "Compact" && reference.status == 200 {
            self.compacted(call).await?;
        }
        Ok(())
    }

    /// Waits until both have undone what a call had begun that ran out of time: they do so after its end.
    async fn undone(&self) -> Result<()> {
        let path = method::STATUS.path();
        let deadline = Instant::now() + UNDOING;
        let mut last = None;
        loop {
            tokio::time::sleep(UNDOING_QUIET).await;
            let (reference, subject) = tokio::join!(
                self.reference.call(&path, &[], None),
                self.subject.call(&path, &[], None),
            );
            let revision = |answer: &Answer| -> Option<i64> {
                let status = StatusResponse::decode(answer.messages.first()?.as_ref()).ok()?;
                Some(status.header?.revision)
            };
            let seen = (revision(&reference?), revision(&subject?));
            if (seen.0 == seen.1 && last == Some(seen)) || Instant::now() > deadline {
                return Ok(());
            }
            last = Some(seen);
        }
    }

    /// Waits until both have done the physical part of a compaction: from then on they give the hash that was computed with
    /// it, which covers more than a later one.
    async fn compacted(&mut self, call: &Call) -> Result<()> {
        let revision = CompactionRequest::decode(call.message.as_ref())?.revision;
        self.view.compacted = revision;
        let path = method::HASH_KV.path();
        let message = HashKvRequest { revision }.encode_to_vec();
        let deadline = Instant::now() + COMPACTING;
        loop {
            let (reference, subject) = tokio::join!(
                self.reference.call(&path, &message, None),
                self.subject.call(&path, &message, None),
            );
            let (reference, subject) = (reference?, subject?);
            if reference == subject && !reference.messages.is_empty() {
                let hash = HashKvResponse::decode(reference.messages[0].as_ref())?;
                // What the compaction stored has the compacted revision of before.
                if hash.compact_revision < revision {
                    return Ok(());
                }
            }
            if Instant::now() > deadline {
                anyhow::bail!(
                    "hash at the compacted revision {revision}\n  reference: {reference:?}\n  subject:   {subject:?}"
                );
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn judge_gateway(
        &self,
        route: &str,
        body: &str,
        reference: &gateway::Answer,
        subject: &gateway::Answer,
        tally: &mut Tally,
    ) -> Result<()> {
        tally.count("gateway", &reference.status.to_string());
        let exchange = Exchange::Gateway { route, reference, subject };
        if exchange.is_equal() {
            return Ok(());
        }
        tally.excuse(&exchange, &self.descriptors).with_context(|| format!("body {body}"))
    }

    /// The ids differ, so each side is asked for its own.
    async fn anonymous_lease(&mut self, ttl: i64, tally: &mut Tally) -> Result<()> {
        let grant = LeaseGrantRequest { ttl, id: 0 }.encode_to_vec();
        let path = method::GRANT.path();
        let (reference, subject) = tokio::join!(
            self.reference.call(&path, &grant, None),
            self.subject.call(&path, &grant, None),
        );
        let (reference, subject) = (reference?, subject?);
        let granted = |answer: &Answer| -> Result<LeaseGrantResponse> {
            let message = answer.messages.first().with_context(|| format!("{answer:?}"))?;
            Ok(LeaseGrantResponse::decode(message.as_ref())?)
        };
        if reference.code != "0" || subject.code != "0" {
            let call = Call::of(&method::GRANT, &LeaseGrantRequest { ttl, id: 0 });
            return self.judge(&call, &reference, &subject, tally);
        }
        let (reference, subject) = (granted(&reference)?, granted(&subject)?);
        let without_id = |lease: &LeaseGrantResponse| LeaseGrantResponse { id: 0, ..lease.clone() };
        if without_id(&reference) != without_id(&subject) || reference.id <= 0 || subject.id <= 0 {
            anyhow::bail!(
                "lease grant without id\n  reference: {reference:?}\n  subject:   {subject:?}"
            );
        }
        let revoke = |id| LeaseRevokeRequest { id }.encode_to_vec();
        let path = method::REVOKE.path();
        let (one, two) = (revoke(reference.id), revoke(subject.id));
        let (reference, subject) = tokio::join!(
            self.reference.call(&path, &one, None),
            self.subject.call(&path, &two, None),
        );
        let call = Call::of(&method::REVOKE, &LeaseRevokeRequest { id: 0 });
        self.judge(&call, &reference?, &subject?, tally)
    }

    /// Looks at everything: watches, all keys, hashes at several revisions, leases, status.
    async fn checkpoint(&mut self, tally: &mut Tally) -> Result<()> {
        let View { revision, compacted, .. } = self.view;
        let everything = RangeRequest {
            key: (&b"\0"[..]).into(),
            range_end: (&b"\0"[..]).into(),
            ..RangeRequest::default()
        };
        let middle = compacted.midpoint(revision);
        let mut calls = vec![Call::of(&method::STATUS, &StatusRequest {})];
        calls.push(Call::of(&method::RANGE, &everything));
        calls.push(Call::of(&method::LEASES, &LeaseLeasesRequest {}));
        for revision in [0, revision, middle, compacted, compacted - 1] {
            calls.push(Call::of(&method::HASH_KV, &HashKvRequest { revision }));
        }
        for id in 1..8 {
            let request = LeaseTimeToLiveRequest { id, keys: true };
            calls.push(Call::of(&method::TIME_TO_LIVE, &request));
        }
        for call in &calls {
            let (reference, _) = self.call(call, tally).await?;
            if call.method.name == "Status"
                && let Some(message) = reference.messages.first()
            {
                let status = StatusResponse::decode(message.as_ref())?;
                self.view.member_id = status.leader;
            }
        }
        self.settle().await
    }
}

impl Tally {
    fn count(&mut self, method: &str, code: &str) {
        self.steps += 1;
        *self.answers.entry((method.to_owned(), code.to_owned())).or_default() += 1;
    }

    /// A known difference is counted, any other is the error.
    fn excuse(&mut self, exchange: &Exchange<'_>, descriptors: &Descriptors) -> Result<()> {
        let Some(index) = known::find(exchange) else {
            anyhow::bail!(exchange.describe(descriptors));
        };
        self.known[index] += 1;
        Ok(())
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        for (key, count) in &other.answers {
            *self.answers.entry(key.clone()).or_default() += count;
        }
        for (sum, count) in self.known.iter_mut().zip(other.known) {
            *sum += count;
        }
    }
}

/// Answers that have to be brought into a normal form are compared over gRPC only.
fn passes_gateway(call: &Call) -> bool {
    let sorted = call.method.name == "Range"
        && RangeRequest::decode(call.message.as_ref()).is_ok_and(|range| range.sort_target != 0);
    !call.malformed && call.timeout.is_none() && !sorted
}
