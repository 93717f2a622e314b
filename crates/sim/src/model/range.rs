//! Ranges.

use machine::Refusal;
use proto::etcdserverpb::RangeRequest;
use proto::mvccpb::KeyValue;

use super::{Model, Page, count};

/// Tells whether a request for `key` and `range_end` names `candidate`.
pub fn selects(key: &[u8], range_end: &[u8], candidate: &[u8]) -> bool {
    match range_end {
        [] => candidate == key,
        [0] => candidate >= key,
        end => candidate >= key && candidate < end,
    }
}

impl Model {
    /// Answers a range as of now, or as of the revision that it asks for.
    pub fn range(&self, request: &RangeRequest) -> Result<Page, Refusal> {
        self.range_in(request, self.stand().revision)
    }

    /// Answers a range with the store at revision `current`.
    pub(super) fn range_in(&self, request: &RangeRequest, current: i64) -> Result<Page, Refusal> {
        let at = if request.revision <= 0 { current } else { request.revision };
        if at > current {
            return Err(Refusal::FutureRevision);
        }
        if at < self.stand().compacted {
            return Err(Refusal::Compacted);
        }
        Ok(self.page(request, at))
    }

    /// Answers a range at revision `at`, compacted or not.
    pub fn page(&self, request: &RangeRequest, at: i64) -> Page {
        let mut kvs: Vec<KeyValue> = self
            .state(at)
            .into_values()
            .filter(|kv| selects(&request.key, &request.range_end, &kv.key))
            .collect();
        let count = count(kvs.len());
        if request.count_only {
            return Page { count, ..Page::default() };
        }
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
        let more = limit.is_some_and(|limit| kvs.len() > limit);
        kvs.truncate(limit.unwrap_or(usize::MAX));
        Page { kvs, more, count }
    }
}
