//! What writers were told: acknowledged writes, and those whose outcome nobody knows.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// A key's value; `None` if it is deleted.
type Value = Option<String>;

/// All that is known of all writes.
pub(crate) struct Ledger {
    keys: BTreeMap<String, Key>,
    counters: BTreeMap<String, Counter>,
    pub(crate) acknowledged: u64,
    pub(crate) failed: u64,
    pub(crate) compactions: u64,
    newest_revision: i64,
    last: Instant,
    gap: Duration,
    longest_gap: Duration,
}

/// The writes of one key.
#[derive(Default)]
struct Key {
    /// The newest acknowledged one and its revision.
    acknowledged: Option<(i64, Value)>,
    /// Those that may have happened, at any time, or not at all.
    unknown: Vec<Value>,
}

#[derive(Default)]
struct Counter {
    acknowledged: u64,
    unknown: u64,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self {
            keys: BTreeMap::new(),
            counters: BTreeMap::new(),
            acknowledged: 0,
            failed: 0,
            compactions: 0,
            newest_revision: 0,
            last: Instant::now(),
            gap: Duration::ZERO,
            longest_gap: Duration::ZERO,
        }
    }

    /// `writes` of one request were acknowledged with `revision`.
    pub(super) fn acknowledged(&mut self, writes: &[(String, Value)], revision: i64) {
        for (key, value) in writes {
            let key = self.keys.entry(key.clone()).or_default();
            // Answers to two writers may come in another order than the writes were made.
            if key.acknowledged.as_ref().is_none_or(|(older, _)| *older < revision) {
                key.acknowledged = Some((revision, value.clone()));
            }
        }
        self.progress(revision);
    }

    /// `writes` of one request may have been made or not.
    pub(super) fn unknown(&mut self, writes: &[(String, Value)]) {
        for (key, value) in writes {
            self.keys.entry(key.clone()).or_default().unknown.push(value.clone());
        }
        self.failed += 1;
    }

    pub(super) fn counted(&mut self, key: &str, revision: i64) {
        self.counters.entry(key.to_owned()).or_default().acknowledged += 1;
        self.progress(revision);
    }

    pub(super) fn may_have_counted(&mut self, key: &str) {
        self.counters.entry(key.to_owned()).or_default().unknown += 1;
        self.failed += 1;
    }

    fn progress(&mut self, revision: i64) {
        self.acknowledged += 1;
        self.newest_revision = self.newest_revision.max(revision);
        self.gap = self.present_gap();
        self.longest_gap = self.longest_gap.max(self.gap);
        self.last = Instant::now();
    }

    fn present_gap(&self) -> Duration {
        self.gap.max(self.last.elapsed())
    }

    pub(super) fn newest_revision(&self) -> i64 {
        self.newest_revision
    }

    /// Returns the longest time without an acknowledged write since this was last asked.
    pub(crate) fn take_gap(&mut self) -> Duration {
        let gap = self.present_gap();
        self.longest_gap = self.longest_gap.max(gap);
        self.gap = Duration::ZERO;
        gap
    }

    pub(crate) fn longest_gap(&self) -> Duration {
        self.longest_gap
    }

    /// Returns what contradicts the acknowledged writes in `found`: keys, values, revisions.
    pub(super) fn judge(&self, found: &[(String, String, i64)]) -> Vec<String> {
        let found: HashMap<&str, (&str, i64)> = found
            .iter()
            .map(|(key, value, revision)| (key.as_str(), (value.as_str(), *revision)))
            .collect();
        let mut complaints = Vec::new();
        for (name, key) in &self.keys {
            let there = found.get(name.as_str()).copied();
            if !key.allows(there) {
                let Key { acknowledged, unknown } = key;
                complaints.push(format!(
                    "{name} is {there:?}; acknowledged: {acknowledged:?}, unknown: {unknown:?}"
                ));
            }
            // Both keys of a pair are written by one transaction.
            let other = name.strip_suffix("/a").filter(|_| name.starts_with("load/pair/"));
            let Some(other) = other.map(|stem| format!("{stem}/b")) else { continue };
            if found.get(other.as_str()).copied() != there {
                complaints.push(format!("half a transaction: {name} is {there:?}, {other} not"));
            }
        }
        for (name, counter) in &self.counters {
            let Counter { acknowledged, unknown } = counter;
            let there = found.get(name.as_str()).map_or("0", |(value, _)| value);
            let most = acknowledged + unknown;
            if !there.parse().is_ok_and(|number: u64| (*acknowledged..=most).contains(&number)) {
                complaints.push(format!("{name} is {there}, not in {acknowledged}..={most}"));
            }
        }
        complaints
    }
}

impl Key {
    /// Whether the key may be `there`, with a value and the revision of its last change.
    fn allows(&self, there: Option<(&str, i64)>) -> bool {
        let value = there.map(|(value, _)| value);
        let may_be = self.unknown.iter().any(|unknown| unknown.as_deref() == value);
        let Some((revision, acknowledged)) = &self.acknowledged else {
            return value.is_none() || may_be;
        };
        match there {
            Some((value, at)) if at == *revision => acknowledged.as_deref() == Some(value),
            Some((_, at)) => at > *revision && may_be,
            None => acknowledged.is_none() || may_be,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(key: &str, value: Option<&str>) -> [(String, Value); 1] {
        [(key.to_owned(), value.map(str::to_owned))]
    }

    fn complaints(ledger: &Ledger, found: &[(&str, &str, i64)]) -> usize {
        let found =
            found.iter().map(|(key, value, at)| ((*key).to_owned(), (*value).to_owned(), *at));
        ledger.judge(&found.collect::<Vec<_>>()).len()
    }

    #[test]
    fn an_acknowledged_write_must_be_there_or_a_later_one() {
        let mut ledger = Ledger::new();
        ledger.acknowledged(&write("k", Some("new")), 7);
        ledger.acknowledged(&write("k", Some("old")), 5);
        assert_eq!(complaints(&ledger, &[("k", "new", 7)]), 0);
        assert_eq!(complaints(&ledger, &[("k", "old", 5)]), 1);
        assert_eq!(complaints(&ledger, &[]), 1);
        assert_eq!(complaints(&ledger, &[("k", "other", 9)]), 1);
        ledger.unknown(&write("k", Some("other")));
        assert_eq!(complaints(&ledger, &[("k", "other", 9)]), 0);
        assert_eq!(complaints(&ledger, &[("k", "other", 6)]), 1, "the acknowledged one came later");
        assert_eq!(complaints(&ledger, &[]), 1, "nobody deleted it");
        ledger.unknown(&write("k", None));
        assert_eq!(complaints(&ledger, &[]), 0);
    }

    #[test]
    fn what_was_deleted_stays_away() {
        let mut ledger = Ledger::new();
        ledger.acknowledged(&write("k", Some("v")), 5);
        ledger.acknowledged(&write("k", None), 6);
        assert_eq!(complaints(&ledger, &[]), 0);
        assert_eq!(complaints(&ledger, &[("k", "v", 5)]), 1);
    }

    #[test]
    fn a_counter_has_counted_what_was_acknowledged_and_no_more_than_was_asked() {
        let mut ledger = Ledger::new();
        ledger.counted("c", 5);
        ledger.counted("c", 6);
        ledger.may_have_counted("c");
        assert_eq!(complaints(&ledger, &[("c", "2", 6)]), 0);
        assert_eq!(complaints(&ledger, &[("c", "3", 7)]), 0);
        assert_eq!(complaints(&ledger, &[("c", "1", 5)]), 1);
        assert_eq!(complaints(&ledger, &[("c", "4", 8)]), 1);
        assert_eq!(complaints(&ledger, &[]), 1);
    }

    #[test]
    fn both_keys_of_a_transaction_are_there_or_none() {
        let mut ledger = Ledger::new();
        let pair =
            ["load/pair/1/a", "load/pair/1/b"].map(|key| (key.to_owned(), Some("v".to_owned())));
        ledger.unknown(&pair);
        assert_eq!(complaints(&ledger, &[]), 0);
        assert_eq!(complaints(&ledger, &[("load/pair/1/a", "v", 3), ("load/pair/1/b", "v", 3)]), 0);
        assert_eq!(complaints(&ledger, &[("load/pair/1/a", "v", 3)]), 1);
    }
}
