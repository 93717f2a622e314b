//! Watches: ordered, unique, atomic, reliable, resumable, with the right previous records and no early progress.

use bytes::Bytes;
use machine::watch::{Answer, Body, Delivered};
use proto::etcdserverpb::WatchCreateRequest;
use proto::etcdserverpb::watch_create_request::FilterType;
use proto::mvccpb::KeyValue;

use super::{Violation, answers, check, check_equal};
use crate::model::{Change, Model, selects};

/// One watcher, as its client knows it.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "the flags of a request")]
pub struct Watched {
    key: Bytes,
    range_end: Bytes,
    prev_kv: bool,
    no_put: bool,
    no_delete: bool,
    /// The first revision of which nothing was told; 0 for "from now on", until the member says when that is.
    next: i64,
    is_created: bool,
}

/// What becomes of a watcher after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Watching,
    /// It has ended, since what it needs is compacted.
    Compacted(i64),
    /// It has ended as its client wished.
    Canceled,
}

impl Watched {
    /// A watcher that begins as `request` says.
    pub fn new(request: &WatchCreateRequest) -> Self {
        let filters = |filter: FilterType| request.filters.contains(&(filter as i32));
        Self {
            key: request.key.clone(),
            range_end: request.range_end.clone(),
            prev_kv: request.prev_kv,
            no_put: filters(FilterType::Noput),
            no_delete: filters(FilterType::Nodelete),
            next: request.start_revision,
            is_created: false,
        }
    }

    /// Tells whether the member has said that it exists.
    pub fn is_created(&self) -> bool {
        self.is_created
    }

    /// The request that goes on where this watcher stopped, with another id.
    pub fn resume(&self, watch_id: i64) -> WatchCreateRequest {
        let mut filters = Vec::new();
        if self.no_put {
            filters.push(FilterType::Noput as i32);
        }
        if self.no_delete {
            filters.push(FilterType::Nodelete as i32);
        }
        WatchCreateRequest {
            key: self.key.clone(),
            range_end: self.range_end.clone(),
            start_revision: self.next,
            prev_kv: self.prev_kv,
            filters,
            watch_id,
            ..Default::default()
        }
    }

    /// Judges one answer.
    pub fn receive(&mut self, answer: &Answer, model: &Model) -> Result<Fate, Violation> {
        let stand = model.stand();
        match &answer.body {
            Body::Created => {
                check(!self.is_created, || "a watcher is created twice".to_owned())?;
                self.is_created = true;
                if self.next == 0 {
                    self.next = answer.revision + 1;
                }
                Ok(Fate::Watching)
            }
            Body::Refused(refused) => Err(Violation(format!("a watcher is refused: {refused}"))),
            Body::Canceled => Ok(Fate::Canceled),
            Body::Compacted { revision } => {
                check(self.next < *revision && *revision <= stand.compacted, || {
                    let next = self.next;
                    format!("a watcher at {next} is canceled for {revision} at {stand:?}")
                })?;
                Ok(Fate::Compacted(*revision))
            }
            Body::Progress => {
                let until = answer.revision;
                check(until <= stand.revision, || format!("progress to {until} at {stand:?}"))?;
                self.progress(until, model)?;
                Ok(Fate::Watching)
            }
            Body::Events(events) => {
                check(self.is_created, || "events come before the watcher is created".to_owned())?;
                self.events(events.as_slice(), model)?;
                check(answer.revision >= self.next - 1, || {
                    format!("events to {} under revision {}", self.next - 1, answer.revision)
                })?;
                Ok(Fate::Watching)
            }
        }
    }

    /// Judges that everything through `until` has been told.
    pub fn progress(&mut self, until: i64, model: &Model) -> Result<(), Violation> {
        let from = self.next.max(1);
        let missed = model
            .changes_from(from)
            .iter()
            .take_while(|change| change.main <= until)
            .find(|change| self.wants(change));
        if let Some(missed) = missed {
            return Err(Violation(format!("a watcher from {from} on was not told {missed:?}")));
        }
        if self.is_created {
            self.next = self.next.max(until + 1);
        }
        Ok(())
    }

    fn wants(&self, change: &Change) -> bool {
        let is_filtered = if change.is_delete { self.no_delete } else { self.no_put };
        !is_filtered && selects(&self.key, &self.range_end, &change.kv.key)
    }

    /// Judges events: they are the next ones, and whole revisions.
    fn events(&mut self, events: &[Delivered], model: &Model) -> Result<(), Violation> {
        let next = self.next;
        let mut wanted =
            model.changes_from(next).iter().filter(|change| self.wants(change)).peekable();
        let mut last = 0;
        for event in events {
            let Some(change) = wanted.next() else {
                let kv = answers::record(&event.record)?;
                return Err(Violation(format!(
                    "a watcher from {next} on is told {kv:?} beyond all"
                )));
            };
            self.event(event, change, model)?;
            last = change.main;
        }
        check(wanted.peek().is_none_or(|change| change.main > last), || {
            format!("revision {last} is told in part")
        })?;
        self.next = last + 1;
        Ok(())
    }

    fn event(&self, event: &Delivered, change: &Change, model: &Model) -> Result<(), Violation> {
        let found = answers::record(&event.record)?;
        let expected = if change.is_delete {
            KeyValue {
                key: change.kv.key.clone(),
                mod_revision: change.main,
                ..KeyValue::default()
            }
        } else {
            change.kv.clone()
        };
        let what = format!("the next event of a watcher at {}", self.next);
        check_equal(&what, &(event.is_delete, found), &(change.is_delete, expected))?;
        let previous = event.previous.as_ref().map(answers::record).transpose()?;
        let may_be_gone = change.main - 1 < model.stand().compacted;
        let expected = change.before.clone().filter(|_| self.prev_kv);
        if previous.is_none() && may_be_gone {
            return Ok(());
        }
        check_equal(format!("the previous record of {:?}", change.kv.key), &previous, &expected)
    }
}
