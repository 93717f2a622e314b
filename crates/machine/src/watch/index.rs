//! Finds the watchers of a key: single keys by hash, ranges in an interval tree.
//!
//! The table of single keys holds no keys: they are looked at where the watchers have them, so that each is in memory once.

use std::collections::BTreeSet;
use std::hash::BuildHasher;

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use slab::Slab;

use super::interval::IntervalTree;
use super::span::Span;
use super::watcher::Watcher;

/// Those who know what the members of an index watch. What a member watches must not change while it is in the index.
pub(super) trait Spans {
    /// Returns what `member` watches.
    fn span(&self, member: u32) -> &Span;
}

impl Spans for Slab<Watcher> {
    fn span(&self, member: u32) -> &Span {
        &self[member as usize].span
    }
}

/// A non-empty set of watchers of the same key or range: mostly one, sometimes very many.
#[derive(Debug)]
pub(super) enum Members {
    One(u32),
    #[expect(clippy::box_collection, reason = "most sets have one member, and are to be small")]
    Many(Box<BTreeSet<u32>>),
}

impl Members {
    pub(super) fn insert(&mut self, member: u32) {
        match self {
            Self::One(one) => *self = Self::Many(Box::new(BTreeSet::from([*one, member]))),
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

    /// Returns the single key that the members watch.
    fn key<'a>(&self, spans: &'a (impl Spans + ?Sized)) -> &'a [u8] {
        let some = match self {
            Self::One(one) => *one,
            Self::Many(many) => *many.first().expect("empty sets are dropped"),
        };
        match spans.span(some) {
            Span::Key(key) => key,
            Span::Range(_) => unreachable!("ranges are in the tree"),
        }
    }
}

/// See the module's documentation. All calls are to be given the same spans.
#[derive(Debug, Default)]
pub(super) struct Index {
    keys: HashTable<Members>,
    hasher: DefaultHashBuilder,
    ranges: IntervalTree,
}

impl Index {
    /// Adds a watcher.
    pub(super) fn insert(&mut self, spans: &(impl Spans + ?Sized), watcher: u32) {
        let key = match spans.span(watcher) {
            Span::Key(key) => &key[..],
            Span::Range(range) => return self.ranges.insert(range, watcher),
        };
        let entry = self.keys.entry(
            self.hasher.hash_one(key),
            |members| members.key(spans) == key,
            |members| self.hasher.hash_one(members.key(spans)),
        );
        match entry {
            Entry::Occupied(mut found) => found.get_mut().insert(watcher),
            Entry::Vacant(gap) => {
                gap.insert(Members::One(watcher));
            }
        }
    }

    /// Removes a watcher, whose span must still be known.
    pub(super) fn remove(&mut self, spans: &(impl Spans + ?Sized), watcher: u32) {
        let key = match spans.span(watcher) {
            Span::Key(key) => &key[..],
            Span::Range(range) => return self.ranges.remove(range, watcher),
        };
        let is_same = |members: &Members| members.key(spans) == key;
        if let Ok(mut found) = self.keys.find_entry(self.hasher.hash_one(key), is_same)
            && found.get_mut().remove(watcher)
        {
            found.remove();
        }
    }

    /// Calls `hit` once for each watcher of `key`.
    pub(super) fn find(&self, spans: &(impl Spans + ?Sized), key: &[u8], mut hit: impl FnMut(u32)) {
        let is_same = |members: &Members| members.key(spans) == key;
        if let Some(members) = self.keys.find(self.hasher.hash_one(key), is_same) {
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

    impl Spans for BTreeMap<u32, Span> {
        fn span(&self, member: u32) -> &Span {
            &self[&member]
        }
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(0_u8..4, 0..4)
    }

    fn span() -> impl Strategy<Value = Span> {
        (key(), key()).prop_map(|(key, end)| {
            Span::parse(&key, &end).unwrap_or_else(|_| Span::Key(key.into()))
        })
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
                    index.remove(&model, victim);
                    model.remove(&victim);
                } else {
                    model.insert(id, span);
                    index.insert(&model, id);
                }
                index.ranges.check();
            }
            for key in probes {
                let mut found = Vec::new();
                index.find(&model, &key, |watcher| found.push(watcher));
                found.sort_unstable();
                let expected: Vec<u32> = model
                    .iter()
                    .filter(|(_, span)| span.contains(&key))
                    .map(|(&id, _)| id)
                    .collect();
                prop_assert_eq!(found, expected);
            }
            for &id in model.keys() {
                index.remove(&model, id);
            }
            prop_assert_eq!(index.ranges.check(), 0);
            prop_assert!(index.keys.is_empty());
        }
    }
}
