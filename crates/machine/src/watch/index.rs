//! Finds the watchers of a key: single keys by hash, ranges in an interval tree.

use std::collections::BTreeSet;

use bytes::Bytes;
#[expect(clippy::disallowed_types, reason = "looked up by key, never iterated")]
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::interval::IntervalTree;
use super::span::Span;

/// A non-empty set of watchers of the same key or range: mostly one, sometimes very many.
#[derive(Debug)]
pub(super) enum Members {
    One(u32),
    Many(BTreeSet<u32>),
}

impl Members {
    pub(super) fn insert(&mut self, member: u32) {
        match self {
            Self::One(one) => *self = Self::Many(BTreeSet::from([*one, member])),
            Self::Many(many) => {
                many.insert(member);
            }
        }
    }

    /// Removes `member` and tells whether nobody is left; the set must not be used then.
    pub(super) fn remove(&mut self, member: u32) -> bool {
        match self {
            Self::One(one) => *one == member,
            Self::Many(many) => {
                many.remove(&member);
                many.is_empty()
            }
        }
    }

    pub(super) fn for_each(&self, hit: &mut impl FnMut(u32)) {
        match self {
            Self::One(one) => hit(*one),
            Self::Many(many) => many.iter().for_each(|&member| hit(member)),
        }
    }
}

/// See the module's documentation.
#[expect(clippy::disallowed_types, reason = "looked up by key, never iterated")]
#[derive(Debug, Default)]
pub(super) struct Index {
    keys: HashMap<Bytes, Members>,
    ranges: IntervalTree,
}

impl Index {
    /// Adds a watcher of `span`.
    pub(super) fn insert(&mut self, span: &Span, watcher: u32) {
        match span {
            Span::Key(key) => match self.keys.entry(key.clone()) {
                Entry::Occupied(mut found) => found.get_mut().insert(watcher),
                Entry::Vacant(gap) => {
                    gap.insert(Members::One(watcher));
                }
            },
            Span::Range { start, end } => self.ranges.insert(start, end.as_ref(), watcher),
        }
    }

    /// Removes a watcher of `span`.
    pub(super) fn remove(&mut self, span: &Span, watcher: u32) {
        match span {
            Span::Key(key) => {
                if let Entry::Occupied(mut found) = self.keys.entry(key.clone())
                    && found.get_mut().remove(watcher)
                {
                    found.remove();
                }
            }
            Span::Range { start, end } => self.ranges.remove(start, end.as_ref(), watcher),
        }
    }

    /// Calls `hit` once for each watcher of `key`.
    pub(super) fn find(&self, key: &[u8], mut hit: impl FnMut(u32)) {
        if let Some(members) = self.keys.get(key) {
            members.for_each(&mut hit);
        }
        self.ranges.find(key, &mut hit);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(0_u8..4, 0..4).prop_map(Bytes::from)
    }

    fn span() -> impl Strategy<Value = Span> {
        (key(), key()).prop_map(|(key, end)| Span::parse(&key, &end).unwrap_or(Span::Key(key)))
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_scan_finds(
            steps in prop::collection::vec((span(), any::<prop::sample::Index>(), 0..3), 1..200),
            probes in prop::collection::vec(key(), 1..40),
        ) {
            let mut index = Index::default();
            let mut model: BTreeMap<u32, Span> = BTreeMap::new();
            for (id, (span, victim, chance)) in (0..).zip(steps) {
                if chance == 0 && !model.is_empty() {
                    let victim = *victim.get(&model.keys().copied().collect::<Vec<u32>>());
                    let span = model.remove(&victim).expect("chosen from the model");
                    index.remove(&span, victim);
                } else {
                    index.insert(&span, id);
                    model.insert(id, span);
                }
                index.ranges.check();
            }
            for key in probes {
                let mut found = Vec::new();
                index.find(&key, |watcher| found.push(watcher));
                found.sort_unstable();
                let expected: Vec<u32> = model
                    .iter()
                    .filter(|(_, span)| span.contains(&key))
                    .map(|(&id, _)| id)
                    .collect();
                prop_assert_eq!(found, expected);
            }
            for (id, span) in model {
                index.remove(&span, id);
            }
            prop_assert_eq!(index.ranges.check(), 0);
            prop_assert!(index.keys.is_empty());
        }
    }
}
