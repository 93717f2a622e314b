//! Reads: every answer is what the model has at that revision.

use machine::{ReadError, Reader};
use proto::etcdserverpb::RangeRequest;

use super::log::Judge;
use super::{Violation, answers, check, check_equal};
use crate::model::Stand;
use crate::workload::everything;

/// Revisions looked at in one look at everything.
const REVISIONS_MAX: i64 = 12;

/// What a read came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// An answer, as of this revision.
    Answer(i64),
    /// A refusal that was due.
    Refusal,
    /// A fault: the disk is damaged, and the member says so.
    Fault,
}

impl Judge {
    /// Makes a range and judges its answer, given that the member has applied entry `applied`.
    pub fn range(
        &self,
        reader: &Reader,
        applied: u64,
        request: &RangeRequest,
    ) -> Result<Found, Violation> {
        let stand = self.stand_of(applied)?;
        let at = if request.revision <= 0 { stand.revision } else { request.revision };
        let is_refused = at > stand.revision || at < stand.compacted;
        match reader.range(request) {
            Ok((revision, reply)) => {
                check(!is_refused, || format!("a range at {at} is answered at {stand:?}"))?;
                check_equal("a range's header revision", &revision, &stand.revision)?;
                let found = answers::page(&reply)?;
                let expected = self.model().page(request, at);
                check_equal(format!("a range at {at}, {request:?},"), &found, &expected)?;
                Ok(Found::Answer(revision))
            }
            Err(ReadError::Refused(refusal)) => {
                check(is_refused, || {
                    format!("a range at {at} is refused at {stand:?}: {refusal}")
                })?;
                Ok(Found::Refusal)
            }
            Err(ReadError::Fault(_)) => Ok(Found::Fault),
            Err(ReadError::NoRoom) => unreachable!("nothing bounds these reads"),
        }
    }

    /// Asks for a hash and judges it.
    pub fn hash(&self, reader: &Reader, applied: u64, revision: i64) -> Result<Found, Violation> {
        let stand = self.stand_of(applied)?;
        let at = if revision <= 0 { stand.revision } else { revision };
        match reader.hash_kv(revision) {
            Ok((found, current)) => {
                check_equal("a hash's header revision", &current, &stand.revision)?;
                check_equal("a hash's revision", &found.revision, &at)?;
                check(found.compact_revision <= stand.compacted, || {
                    format!("a hash at {at} has compacted revision {}", found.compact_revision)
                })?;
                if let Some(expected) = self.model().hash(at, found.compact_revision) {
                    check_equal(format!("the hash at {at}"), &found.hash, &expected)?;
                }
                Ok(Found::Answer(current))
            }
            Err(ReadError::Refused(refusal)) => {
                check(at > stand.revision || at < stand.compacted, || {
                    format!("a hash at {at} is refused at {stand:?}: {refusal}")
                })?;
                Ok(Found::Refusal)
            }
            Err(ReadError::Fault(_)) => Ok(Found::Fault),
            Err(ReadError::NoRoom) => unreachable!("nothing bounds these reads"),
        }
    }

    /// Looks at everything that can be read, at all revisions or some of them; tells whether a fault was met.
    pub fn everything(&self, reader: &Reader, applied: u64) -> Result<bool, Violation> {
        self.stand(reader, applied)?;
        let stand = self.stand_of(applied)?;
        let oldest = stand.compacted.max(1);
        let step = ((stand.revision - oldest) / REVISIONS_MAX).max(1);
        let mut has_fault = false;
        let mut at = stand.revision;
        while at >= oldest {
            let request = RangeRequest { revision: at, ..everything() };
            has_fault |= self.range(reader, applied, &request)? == Found::Fault;
            has_fault |= self.hash(reader, applied, at)? == Found::Fault;
            at = if at > oldest { (at - step).max(oldest) } else { 0 };
        }
        Ok(has_fault)
    }

    fn stand_of(&self, applied: u64) -> Result<Stand, Violation> {
        let stand = self.model().stand_at(applied);
        stand.ok_or_else(|| Violation(format!("entry {applied} is applied, but was never written")))
    }
}
