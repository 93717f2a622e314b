//! A serving thread: the mail from its node, its watch hub, and the clients' watch streams.
//!
//! Streams are read at their clients' pace. What a client knows of its watchers outlives the process: it resumes them on the
//! next one from where they stopped.

use std::collections::BTreeMap;
use std::sync::Arc;

use machine::watch::{Answer, CatchUp, CatchUpDone, Hub, NO_WATCH, Options, StreamId};
use machine::{EventBatch, Reader};
use node::{Answer as Reply, Token};
use proto::etcdserverpb::WatchCreateRequest;
use proto::etcdserverpb::watch_create_request::FilterType;

use crate::check::{Fate, Violation, Watched};
use crate::model::Model;
use crate::rng::Rng;
use crate::workload::{Workload, everything};

/// Watchers of one stream.
const WATCHERS_MAX: usize = 3;

/// What has arrived from the node.
#[derive(Debug, Default)]
pub struct Mail {
    /// Events in revision order.
    pub events: Vec<Arc<EventBatch>>,
    /// Answers.
    pub replies: Vec<(Token, Reply)>,
    /// Whether batches after the last of `events` were dropped.
    pub lost: bool,
}

/// The thread.
#[derive(Debug)]
pub struct Serving {
    hub: Hub,
    reader: Reader,
    mail: Mail,
    batches_max: usize,
    /// Whether it is about to look into its mail.
    pub is_due: bool,
    catch_up: Option<CatchUp>,
    ready: Vec<StreamId>,
    /// By place of the client: the hub's name of its stream, and whether it has something to read.
    streams: BTreeMap<usize, (StreamId, bool)>,
}

/// A client's watch stream, as the client knows it.
#[derive(Debug, Default)]
pub struct Subscriber {
    watchers: BTreeMap<i64, Watched>,
    last_id: i64,
    /// Events told so far.
    pub told: u64,
}

impl Serving {
    /// A thread without streams.
    pub fn new(reader: Reader, options: Options, batches_max: usize) -> Self {
        Self {
            hub: Hub::new(options, reader.revision()),
            reader,
            mail: Mail::default(),
            batches_max,
            is_due: false,
            catch_up: None,
            ready: Vec::new(),
            streams: BTreeMap::new(),
        }
    }

    /// Opens a stream for the client at `place`, which resumes its watchers.
    pub fn attach(&mut self, place: usize, subscriber: &mut Subscriber) {
        let stream = self.hub.open_stream();
        for request in subscriber.resume() {
            self.hub.create(stream, &request, &self.reader);
        }
        self.streams.insert(place, (stream, false));
    }

    /// Closes the stream of the client at `place`; tells whether there was one.
    pub fn detach(&mut self, place: usize) -> bool {
        let stream = self.streams.remove(&place);
        if let Some((stream, _)) = stream {
            self.hub.close_stream(stream);
        }
        stream.is_some()
    }

    /// Puts events into the mail, or notes their loss when too many wait.
    pub fn publish(&mut self, batch: Arc<EventBatch>) {
        if self.mail.lost || self.mail.events.len() >= self.batches_max {
            self.mail.lost = true;
        } else {
            self.mail.events.push(batch);
        }
    }

    /// Notes that changes come whose events are not told.
    pub fn lose_events(&mut self) {
        self.mail.lost = true;
    }

    /// Puts an answer into the mail.
    pub fn reply(&mut self, token: Token, reply: Reply) {
        self.mail.replies.push((token, reply));
    }

    /// Takes the mail: gives events to the hub, and returns the answers.
    pub fn take_mail(&mut self) -> Vec<(Token, Reply)> {
        let Mail { events, replies, lost } = std::mem::take(&mut self.mail);
        for batch in &events {
            self.hub.publish(batch, &self.reader);
        }
        if lost {
            self.hub.restored(self.reader.revision());
        }
        replies
    }

    /// Lets the hub go on; tells whether a piece of history is to be read.
    pub fn pump(&mut self) -> bool {
        self.hub.take_ready(&mut self.ready);
        for ready in self.ready.drain(..) {
            for (stream, is_ready) in self.streams.values_mut() {
                *is_ready |= *stream == ready;
            }
        }
        if self.catch_up.is_some() {
            return false;
        }
        self.catch_up = self.hub.next_catch_up();
        self.catch_up.is_some()
    }

    /// Reads the piece of history that is to be read.
    pub fn catch_up(&mut self) -> Option<CatchUpDone> {
        Some(self.catch_up.take()?.run(&self.reader))
    }

    /// Gives the hub what was read.
    pub fn caught_up(&mut self, done: CatchUpDone) -> Result<(), machine::Fault> {
        self.hub.finish_catch_up(done, &self.reader)
    }

    /// Takes the next answer for the client of stream `place`.
    fn next_answer(&mut self, place: usize) -> Option<Answer> {
        let (stream, is_ready) = self.streams.get_mut(&place)?;
        if !*is_ready {
            return None;
        }
        let answer = self.hub.next_answer(*stream);
        *is_ready = answer.is_some();
        answer
    }

    /// Lets the client of stream `place` read up to `max` answers and judge them. Returns how many there were.
    pub fn read(
        &mut self,
        place: usize,
        max: usize,
        subscriber: &mut Subscriber,
        model: &Model,
    ) -> Result<usize, Violation> {
        for count in 0..max {
            let Some(answer) = self.next_answer(place) else { return Ok(count) };
            if let Some((request, old)) = subscriber.receive(&answer, model)? {
                let Some(&(stream, _)) = self.streams.get(&place) else { return Ok(count) };
                // Its id stays taken until its client has canceled it.
                self.hub.cancel(stream, old, &self.reader);
                self.hub.create(stream, &request, &self.reader);
            }
        }
        Ok(max)
    }

    /// Lets the client of stream `place` ask for something, if its stream takes requests.
    pub fn request(
        &mut self,
        place: usize,
        subscriber: &mut Subscriber,
        workload: &mut Workload,
        rng: &mut Rng,
        model: &Model,
    ) {
        let Some(&(stream, _)) = self.streams.get(&place) else { return };
        if !self.hub.has_room(stream) {
            return;
        }
        match rng.below(6) {
            0 => self.hub.progress(stream, &self.reader),
            1 => self.hub.progress_tick(stream),
            2 => {
                if let Some(id) = subscriber.choose(rng) {
                    self.hub.cancel(stream, id, &self.reader);
                }
            }
            _ if subscriber.watchers.len() < WATCHERS_MAX => {
                let request = subscriber.create(workload, rng, model);
                self.hub.create(stream, &request, &self.reader);
            }
            _ => {}
        }
    }
}

impl Subscriber {
    fn next_id(&mut self) -> i64 {
        self.last_id += 1;
        self.last_id
    }

    /// Requests that go on with all watchers on a new stream.
    fn resume(&mut self) -> Vec<WatchCreateRequest> {
        let before = std::mem::take(&mut self.watchers);
        before.into_values().map(|watched| self.watch(watched.resume(0))).collect()
    }

    fn watch(&mut self, mut request: WatchCreateRequest) -> WatchCreateRequest {
        request.watch_id = self.next_id();
        self.watchers.insert(request.watch_id, Watched::new(&request));
        request
    }

    fn create(
        &mut self,
        workload: &mut Workload,
        rng: &mut Rng,
        model: &Model,
    ) -> WatchCreateRequest {
        let (key, range_end) = workload.span();
        let filters = match rng.below(8) {
            0 => vec![FilterType::Noput as i32],
            1 => vec![FilterType::Nodelete as i32],
            _ => Vec::new(),
        };
        self.watch(WatchCreateRequest {
            key,
            range_end,
            start_revision: workload.revision(model),
            prev_kv: rng.chance(40),
            progress_notify: rng.chance(40),
            filters,
            ..Default::default()
        })
    }

    fn choose(&self, rng: &mut Rng) -> Option<i64> {
        let ids: Vec<i64> = self.watchers.keys().copied().collect();
        if ids.is_empty() { None } else { Some(rng.pick(&ids)) }
    }

    /// Judges an answer. Returns the request of a watcher that starts anew where history begins, and the id of the one
    /// that it replaces.
    fn receive(
        &mut self,
        answer: &Answer,
        model: &Model,
    ) -> Result<Option<(WatchCreateRequest, i64)>, Violation> {
        self.told += answer.events().len() as u64;
        if answer.watch_id == NO_WATCH {
            // It was said before those that are still to be created.
            for watched in self.watchers.values_mut().filter(|watched| watched.is_created()) {
                watched.receive(answer, model)?;
            }
            return Ok(None);
        }
        let id = answer.watch_id;
        let Some(watched) = self.watchers.get_mut(&id) else {
            // What is said of a watcher that was compacted is that its client has canceled it.
            let is_known = id <= self.last_id && answer.events().is_empty();
            return if is_known {
                Ok(None)
            } else {
                Err(Violation(format!("watcher {id} is unknown, but is told something")))
            };
        };
        let fate = watched
            .receive(answer, model)
            .map_err(|violation| Violation(format!("watcher {id}, {watched:?}: {violation}")))?;
        match fate {
            Fate::Watching => Ok(None),
            Fate::Canceled => {
                self.watchers.remove(&id);
                Ok(None)
            }
            Fate::Compacted(revision) => {
                let mut request = watched.resume(0);
                request.start_revision = revision;
                self.watchers.remove(&id);
                Ok(Some((self.watch(request), id)))
            }
        }
    }

    /// Judges that all watchers were told everything up to `revision`.
    pub fn has_all(&mut self, revision: i64, model: &Model) -> Result<(), Violation> {
        self.watchers.values_mut().try_for_each(|watched| watched.progress(revision, model))
    }
}

/// Watches everything from the beginning of history, and judges what is told; tells whether a fault was met instead.
pub fn read_all_history(reader: &Reader, model: &Model) -> Result<bool, Violation> {
    let mut hub = Hub::new(Options::default(), reader.revision());
    let stream = hub.open_stream();
    let mut subscriber = Subscriber::default();
    let everything = everything();
    let request = subscriber.watch(WatchCreateRequest {
        key: everything.key,
        range_end: everything.range_end,
        start_revision: reader.compact_revision().max(1),
        prev_kv: true,
        ..Default::default()
    });
    hub.create(stream, &request, reader);
    while let Some(catch_up) = hub.next_catch_up() {
        if hub.finish_catch_up(catch_up.run(reader), reader).is_err() {
            return Ok(true);
        }
    }
    while let Some(answer) = hub.next_answer(stream) {
        subscriber.receive(&answer, model)?;
    }
    subscriber.has_all(reader.revision(), model)?;
    Ok(false)
}
