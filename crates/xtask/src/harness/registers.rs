//! Histories of single registers, and whether they are linearizable.
//!
//! Every value is written at most once, and answers tell the revision at which the value was written. So the order in which
//! writes took effect is known, and a history is linearizable if that order explains every answer and never contradicts
//! real time: what ended before something else began comes before it. Revisions are only claims, which cannot make a bad
//! history pass: the order that is checked is itself the proof that a good one is linearizable. A bad one may also be one
//! whose revisions are wrong, which is a fault of its own.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// What a value is: no two writes of a history have the same.
pub(crate) type Value = u64;

/// One operation of a client on one register.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) begin: Instant,
    /// `None` as long as nobody knows how it went: it may take effect at any time after its beginning, or never.
    pub(crate) end: Option<Instant>,
    pub(crate) effect: Effect,
}

/// What an operation did, or may have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Found a value and the revision at which that was written, or nothing.
    Read(Option<(Value, i64)>),
    /// Wrote a value, at a revision if that is known.
    Write(Value, Option<i64>),
    /// Replaced `from` by `to`, at a revision if that is known. Whoever asks for this has read `from` first.
    Swap { from: Value, to: Value, revision: Option<i64> },
}

impl Effect {
    fn written(self) -> Option<(Value, Option<i64>)> {
        match self {
            Self::Read(_) => None,
            Self::Write(value, revision) => Some((value, revision)),
            Self::Swap { to, revision, .. } => Some((to, revision)),
        }
    }
}

/// Returns why the history of a register that began empty is not linearizable.
pub(crate) fn check(history: &[Operation]) -> Result<(), String> {
    let writes = order(history)?;
    let revisions: HashMap<Value, i64> =
        writes.iter().map(|(revision, value)| (*value, *revision)).collect();
    for operation in history {
        let Effect::Swap { from, to, .. } = operation.effect else { continue };
        let Some(revision) = revisions.get(&to) else { continue };
        let before = writes.range(..revision).next_back().map(|(_, value)| *value);
        if before != Some(from) {
            return Err(format!("{operation:?} replaced {before:?}"));
        }
    }
    let mut placed = Vec::new();
    for operation in history {
        let place = match operation.effect {
            Effect::Read(found) => found.map_or(0, |(_, revision)| revision) * 2 + 1,
            Effect::Write(value, _) | Effect::Swap { to: value, .. } => {
                // Nobody saw it: it did not happen.
                let Some(revision) = revisions.get(&value) else { continue };
                revision * 2
            }
        };
        placed.push((place, operation));
    }
    check_time(&mut placed)
}

/// Returns values by the revision at which they were written. Fails if answers contradict each other about that.
fn order(history: &[Operation]) -> Result<BTreeMap<i64, Value>, String> {
    let mut known: HashMap<Value, Option<i64>> = HashMap::new();
    for operation in history {
        let Some((value, revision)) = operation.effect.written() else { continue };
        if known.insert(value, revision).is_some() {
            return Err(format!("{value} is written twice: the history is of no use"));
        }
    }
    for operation in history {
        let Effect::Read(Some((value, at))) = operation.effect else { continue };
        let Some(revision) = known.get_mut(&value) else {
            return Err(format!("{operation:?} found what nobody wrote"));
        };
        if *revision.get_or_insert(at) != at {
            return Err(format!("{operation:?}, but {value} was written at {revision:?}"));
        }
    }
    let mut order = BTreeMap::new();
    for (value, revision) in known {
        let Some(revision) = revision else { continue };
        if let Some(other) = order.insert(revision, value) {
            return Err(format!("{other} and {value} were both written at {revision}"));
        }
    }
    Ok(order)
}

/// Checks that nothing comes before what had ended when it began.
fn check_time(placed: &mut [(i64, &Operation)]) -> Result<(), String> {
    let mut ends: Vec<(Instant, i64, &Operation)> = placed
        .iter()
        .filter_map(|(place, operation)| Some((operation.end?, *place, *operation)))
        .collect();
    ends.sort_by_key(|(end, ..)| *end);
    placed.sort_by_key(|(_, operation)| operation.begin);
    let mut ends = ends.into_iter().peekable();
    let mut furthest: Option<(i64, &Operation)> = None;
    for (place, operation) in placed.iter() {
        while let Some((_, place, ended)) = ends.next_if(|(end, ..)| *end < operation.begin) {
            if furthest.is_none_or(|(so_far, _)| so_far < place) {
                furthest = Some((place, ended));
            }
        }
        if let Some((so_far, ended)) = furthest
            && so_far > *place
        {
            return Err(format!("{operation:?} comes before {ended:?}, which had ended"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
