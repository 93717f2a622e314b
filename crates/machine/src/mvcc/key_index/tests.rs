//! The index against a model that is written from the rules, not from the code.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;

/// The main revision that sees everything.
const CURRENT: i64 = i64::MAX;

/// The generations of one key, as etcd keeps them: plain lists.
#[derive(Debug, Clone, Default)]
struct Generation {
    created: i64,
    first_version: i64,
    revisions: Vec<Revision>,
    closed: bool,
}

#[derive(Debug, Clone, Default)]
struct Model {
    keys: BTreeMap<Vec<u8>, Vec<Generation>>,
}

impl Model {
    fn put(&mut self, key: &[u8], revision: Revision) -> Put {
        let previous = self.get(key, CURRENT).map(|found| found.modified);
        let generations = self.keys.entry(key.to_vec()).or_default();
        if generations.last().is_none_or(|last| last.closed) {
            generations.push(Generation {
                created: revision.main,
                first_version: 1,
                ..Generation::default()
            });
        }
        let last = generations.last_mut().unwrap();
        last.revisions.push(revision);
        let version = last.first_version + i64::try_from(last.revisions.len()).unwrap() - 1;
        Put { created: last.created, version, previous }
    }

    fn tombstone(&mut self, key: &[u8], revision: Revision) -> Option<Revision> {
        let previous = self.get(key, CURRENT)?.modified;
        let last = self.keys.get_mut(key)?.last_mut()?;
        last.revisions.push(revision);
        last.closed = true;
        Some(previous)
    }

    fn get(&self, key: &[u8], at: i64) -> Option<Found> {
        let started = |generation: &&Generation| generation.revisions[0].main <= at;
        let generation = self.keys.get(key)?.iter().rfind(started)?;
        let seen = generation.revisions.iter().filter(|revision| revision.main <= at).count();
        if generation.closed && seen == generation.revisions.len() {
            return None;
        }
        Some(Found {
            modified: generation.revisions[seen - 1],
            created: generation.created,
            version: generation.first_version + i64::try_from(seen).unwrap() - 1,
        })
    }

    fn range(&self, start: &[u8], end: End<'_>, at: i64) -> Vec<(Vec<u8>, Found)> {
        let within = |key: &[u8]| key >= start && !matches!(end, End::Before(end) if key >= end);
        let keys = self.keys.keys().filter(|key| within(key));
        keys.filter_map(|key| Some((key.clone(), self.get(key, at)?))).collect()
    }

    /// Compacts, and returns what survives: for a compaction, and for a hash.
    fn compact(&mut self, at: i64) -> (BTreeSet<Revision>, BTreeSet<Revision>) {
        let (mut kept, mut hashed) = (BTreeSet::new(), BTreeSet::new());
        for generations in self.keys.values_mut() {
            let is_past = |generation: &Generation| {
                generation.closed && generation.revisions.last().unwrap().main < at
            };
            let past = generations.iter().take_while(|generation| is_past(generation)).count();
            generations.drain(..past);
            let Some((first, later)) = generations.split_first_mut() else { continue };
            let Some(newest) = first.revisions.iter().rposition(|revision| revision.main <= at)
            else {
                continue;
            };
            kept.insert(first.revisions[newest]);
            if !(first.closed && newest + 1 == first.revisions.len()) {
                hashed.insert(first.revisions[newest]);
            }
            // Deleted, and put again in the same revision.
            let here = |generation: &Generation| {
                let changes = generation.revisions.iter().filter(|revision| revision.main == at);
                changes.copied().collect::<Vec<_>>()
            };
            kept.extend(later.iter().flat_map(here));
            let last = later.iter().rev().find(|generation| !here(generation).is_empty());
            if let Some(last) = last {
                let newest = here(last).pop();
                let lives = !last.closed || newest.as_ref() != last.revisions.last();
                hashed.extend(newest.filter(|_| lives));
            }
            first.first_version += i64::try_from(newest).unwrap();
            first.revisions.drain(..newest);
        }
        self.keys.retain(|_, generations| !generations.is_empty());
        (kept, hashed)
    }
}

/// The index and its model, written to and compared together.
#[derive(Debug, Default)]
struct Pair {
    index: KeyIndex,
    model: Model,
    main: i64,
    compacted: i64,
}

impl Pair {
    fn revision(&mut self) -> Revision {
        self.main += 1;
        Revision::new(self.main, 0)
    }

    fn put(&mut self, key: &[u8], revision: Revision) {
        assert_eq!(self.index.put(key, revision), self.model.put(key, revision));
    }

    fn tombstone(&mut self, key: &[u8], revision: Revision) -> bool {
        let previous = self.index.tombstone(key, revision);
        assert_eq!(previous, self.model.tombstone(key, revision));
        previous.is_some()
    }

    fn compact(&mut self, at: i64, chunk: usize) {
        let mut survey = Sweep::for_hash(at);
        while !self.index.survey(&mut survey, chunk) {}
        let mut pass = Sweep::for_compaction(at);
        while !self.index.compact(&mut pass, chunk) {}
        let (kept, hashed) = self.model.compact(at);
        let (pass, survey) = (pass.finish(), survey.finish());
        assert_eq!((pass.len(), survey.len()), (kept.len(), hashed.len()));
        assert!(pass.cursor().eq(kept.iter().copied()));
        assert!(survey.cursor().eq(hashed.iter().copied()));
        self.compacted = at;
    }

    fn assert_equal_at(&self, at: i64) {
        assert_eq!(
            range(&self.index, b"", End::Unbounded, at),
            self.model.range(b"", End::Unbounded, at)
        );
    }

    fn assert_range(&self, start: &[u8], end: End<'_>, at: i64) {
        let expected = self.model.range(start, end, at);
        assert_eq!(range(&self.index, start, end, at), expected);
        assert_eq!(self.index.count(start, end, at, usize::MAX), (expected.len(), None));
        assert_eq!(in_pieces(&self.index, start, end, at), (expected.clone(), expected.len()));
        if end == End::Unbounded {
            for skip in [0, expected.len() / 2, expected.len().saturating_sub(1), expected.len()] {
                let key = expected.get(skip).map(|(key, _)| key.clone());
                assert_eq!(self.index.nth(start, skip, at), key);
            }
        }
    }

    fn assert_sound(&self) {
        let (_, keys, _) = self.index.root.assert_sound((None, None), &self.index.histories);
        assert_eq!(keys, self.model.keys.len());
        assert_eq!(keys, self.index.keys());
    }
}

fn range(index: &KeyIndex, start: &[u8], end: End<'_>, at: i64) -> Vec<(Vec<u8>, Found)> {
    let mut seen = Vec::new();
    let next = index.range(start, end, at, usize::MAX, |key, found| {
        seen.push((key.to_vec(), found));
        ControlFlow::Continue(())
    });
    assert_eq!(next, None);
    seen
}

/// Reads and counts a range piece by piece, each of them as small as may be.
fn in_pieces(
    index: &KeyIndex,
    start: &[u8],
    end: End<'_>,
    at: i64,
) -> (Vec<(Vec<u8>, Found)>, usize) {
    let mut seen = Vec::new();
    let mut next = Some(start.to_vec());
    while let Some(from) = next {
        next = index.range(&from, end, at, 1, |key, found| {
            seen.push((key.to_vec(), found));
            ControlFlow::Continue(())
        });
        assert!(next.as_ref().is_none_or(|next| *next > from), "it goes on");
    }
    let mut total = 0;
    let mut next = Some(start.to_vec());
    while let Some(from) = next {
        let (count, after) = index.count(&from, end, at, 1);
        total += count;
        assert!(after.as_ref().is_none_or(|next| *next > from), "it goes on");
        next = after;
    }
    (seen, total)
}

/// A sequence of numbers that look random.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(Vec<u8>),
    Tombstone(Vec<u8>),
    /// Puts and tombstones with one main revision.
    Transaction(Vec<(Vec<u8>, bool)>),
    /// At this part in 16 of the way from the last compaction to the current revision.
    Compact(i64, usize),
    Range(Vec<u8>, Option<Vec<u8>>, i64),
}

/// Keys that are prefixes of each other, with the bytes at both ends, and long ones.
fn any_key() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::sample::select(vec![0_u8, 1, b'a', b'b', 0xfe, 0xff]);
    let short = prop::collection::vec(byte, 0..5);
    let long = (0..3_usize, prop::collection::vec(any::<u8>(), 0..2))
        .prop_map(|(long, end)| [vec![b'a'; long * 700], end].concat());
    prop_oneof![6 => short, 1 => long]
}

fn any_step() -> impl Strategy<Value = Step> {
    let key_and_kind = (any_key(), any::<bool>());
    prop_oneof![
        8 => any_key().prop_map(Step::Put),
        4 => any_key().prop_map(Step::Tombstone),
        2 => prop::collection::vec(key_and_kind, 1..6).prop_map(Step::Transaction),
        1 => (0..=16_i64, 1..40_usize).prop_map(|(part, chunk)| Step::Compact(part, chunk)),
        1 => (any_key(), prop::option::of(any_key()), 0..=17_i64)
            .prop_map(|(start, end, part)| Step::Range(start, end, part)),
    ]
}

fn take(pair: &mut Pair, step: &Step) {
    match step {
        Step::Put(key) => {
            let revision = pair.revision();
            pair.put(key, revision);
        }
        Step::Tombstone(key) => {
            let revision = pair.revision();
            pair.tombstone(key, revision);
        }
        Step::Transaction(changes) => {
            let Revision { main, mut sub } = pair.revision();
            for (key, tombstone) in changes {
                let revision = Revision::new(main, sub);
                if !tombstone {
                    pair.put(key, revision);
                    sub += 1;
                } else if pair.tombstone(key, revision) {
                    sub += 1;
                }
            }
        }
        Step::Compact(part, chunk) => {
            let at = pair.compacted + (pair.main - pair.compacted) * part / 16;
            pair.compact(at, *chunk);
            pair.assert_sound();
        }
        Step::Range(start, end, part) => {
            let at = pair.compacted + (pair.main - pair.compacted) * part / 16;
            let at = if *part == 17 { CURRENT } else { at };
            let end = end.as_ref().map_or(End::Unbounded, |end| End::Before(end));
            pair.assert_range(start, end, at);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_agrees_with_the_model(steps in prop::collection::vec(any_step(), 1..300)) {
        let mut pair = Pair::default();
        for step in &steps {
            take(&mut pair, step);
        }
        pair.assert_sound();
        for at in pair.compacted..=pair.main {
            pair.assert_equal_at(at);
        }
        for key in pair.model.keys.keys() {
            for at in pair.compacted..=pair.main {
                prop_assert_eq!(pair.index.get(key, at), pair.model.get(key, at));
            }
        }
    }
}

#[test]
fn splits_and_merges_on_all_levels_keep_every_key() {
    let mut pair = Pair::default();
    let mut random = Random(1);
    let key = |number: usize| format!("/registry/pods/{number:06}").into_bytes();
    for round in 0..12 {
        for _ in 0..8_000 {
            let (key, revision) = (key(random.below(30_000)), pair.revision());
            // Grows in the even rounds and shrinks in the odd ones.
            if random.below(8) < 1 + 6 * (round % 2) {
                pair.tombstone(&key, revision);
            } else {
                pair.put(&key, revision);
            }
        }
        pair.assert_sound();
        for _ in 0..10 {
            let (start, end) = (key(random.below(30_000)), key(random.below(30_000)));
            let at = pair.compacted + 1 + i64::try_from(random.below(8_000)).unwrap();
            for at in [at, CURRENT] {
                pair.assert_range(&start, End::Before(&end), at);
                pair.assert_range(&start, End::Unbounded, at);
            }
        }
        // Empties whole leaves and branches, which then leave their place to the neighbours.
        for _ in 0..3 {
            let start = random.below(30_000);
            for number in start..start + 4_000 {
                let revision = pair.revision();
                pair.tombstone(&key(number), revision);
            }
        }
        let at = pair.revision().main;
        pair.compact(at, 500);
        pair.assert_sound();
        pair.assert_equal_at(at);
    }
}

#[test]
fn a_branch_that_lost_its_first_leaf_is_joined_with_its_low() {
    let mut pair = Pair::default();
    let key = |number: usize| format!("{number:06}").into_bytes();
    let delete = |pair: &mut Pair, range: std::ops::Range<usize>, kept: usize| {
        for number in range.filter(|number| number % kept > 0) {
            let revision = pair.revision();
            pair.tombstone(&key(number), revision);
        }
        let at = pair.revision().main;
        pair.compact(at, 1_000);
        pair.assert_sound();
    };
    for number in 0..30_000 {
        let revision = pair.revision();
        pair.put(&key(number), revision);
    }
    // Wherever the second branch begins in there: its first leaves go, and new keys come where they were.
    delete(&mut pair, 3_000..9_000, 30_000);
    for number in (3_000..9_000).step_by(50) {
        let revision = pair.revision();
        pair.put(&key(number), revision);
    }
    // Now the branches are joined.
    delete(&mut pair, 0..30_000, 50);
    pair.assert_equal_at(CURRENT);
    for number in (0..30_000).step_by(50).skip(1) {
        assert!(pair.index.get(&key(number), CURRENT).is_some());
    }
}

#[test]
fn deleting_everything_gives_the_memory_back() {
    let mut index = KeyIndex::default();
    let empty = index.memory_bytes();
    let keys: Vec<Vec<u8>> = (0..20_000).map(|n| format!("{n:x}").into_bytes()).collect();
    let mut main = 1;
    for round in 0..40 {
        for key in keys.iter().skip(round % 2) {
            main += 1;
            index.put(key, Revision::new(main, 0));
        }
    }
    assert!(index.memory_bytes() > 20_000 * 40, "histories have been spilled");
    for key in &keys {
        main += 1;
        index.tombstone(key, Revision::new(main, 0)).unwrap();
    }
    assert_eq!((index.live_keys(), index.keys()), (0, 20_000));
    let mut pass = Sweep::for_compaction(main + 1);
    while !index.compact(&mut pass, 1_000) {}
    assert!(pass.finish().is_empty());
    assert_eq!(index.keys(), 0);
    assert!(index.memory_bytes() <= empty + 64, "{} bytes remain", index.memory_bytes());
}

#[test]
fn a_key_written_once_costs_little_more_than_what_it_does_not_share() {
    const KEYS: usize = 100_000;
    let mut random = Random(5);
    let mut random_key = |_| {
        let hex = |random: &mut Random| char::from(b"0123456789abcdef"[random.below(16)]);
        let tail: String = (0..16).map(|_| hex(&mut random)).collect();
        format!("/registry/pods/default/{tail}-a").into_bytes()
    };
    let scattered: Vec<Vec<u8>> = (0..KEYS).map(&mut random_key).collect();
    let counted = (0..KEYS).map(|n| format!("/registry/pods/default/pod-name-{n:09}").into_bytes());
    for (keys, bytes_max) in [(counted.collect(), 12), (scattered, 32)] {
        let mut index = KeyIndex::default();
        for (key, main) in std::iter::zip(&keys, 2..) {
            assert_eq!(key.len(), 41);
            index.put(key, Revision::new(main, 0));
        }
        let bytes = index.memory_bytes() / KEYS;
        assert!(bytes <= bytes_max, "{bytes} bytes per key");
    }
}

#[test]
fn very_long_keys_are_kept_and_shared() {
    let mut pair = Pair::default();
    let long = vec![b'k'; 1_572_864];
    for end in 0..100_u8 {
        let revision = pair.revision();
        pair.put(&[&long[..], &[end]].concat(), revision);
    }
    assert!(pair.index.memory_bytes() < 6 * long.len(), "they share their prefix");
    for key in [&long[1..], &long[..100], b"k", b"", b"\xff"] {
        let revision = pair.revision();
        pair.put(key, revision);
    }
    pair.assert_sound();
    pair.assert_equal_at(CURRENT);
    pair.assert_equal_at(50);
    for end in (0..100_u8).filter(|end| end % 3 > 0) {
        let revision = pair.revision();
        pair.tombstone(&[&long[..], &[end]].concat(), revision);
    }
    pair.compact(pair.main, 10);
    pair.assert_sound();
    pair.compact(pair.main + 1, 10);
    pair.assert_sound();
    pair.assert_equal_at(CURRENT);
}

#[test]
fn a_hot_key_is_read_at_every_revision_before_and_after_compaction() {
    let mut pair = Pair::default();
    let mut random = Random(3);
    let mut revision = pair.revision();
    while revision.main < 10_000 {
        if random.below(10) == 0 {
            pair.tombstone(b"hot", revision);
        } else {
            pair.put(b"hot", revision);
        }
        let is_same_transaction = random.below(2) == 0;
        revision = if is_same_transaction {
            Revision::new(revision.main, revision.sub + 1)
        } else {
            pair.revision()
        };
    }
    for at in (1..=10_000).step_by(7) {
        let mut survey = Sweep::for_compaction(at);
        assert!(pair.index.survey(&mut survey, 1));
        let (kept, _) = pair.model.clone().compact(at);
        assert!(survey.finish().cursor().eq(kept), "at {at}");
    }
    // From a history that stays spilled to one that fits into the leaf.
    for at in [1, 2, 4_999, 9_500, 9_970, 9_999, 10_000] {
        pair.compact(at, 1);
        for at in at..=10_000 {
            assert_eq!(pair.index.get(b"hot", at), pair.model.get(b"hot", at));
        }
        let revision = pair.revision();
        pair.put(b"hot", revision);
    }
}

#[test]
fn writes_between_the_chunks_of_a_pass_do_not_disturb_it() {
    let mut pair = Pair::default();
    let mut random = Random(9);
    for _ in 0..20_000 {
        let (key, revision) = (format!("{:05}", random.below(5_000)).into_bytes(), pair.revision());
        if random.below(3) == 0 {
            pair.tombstone(&key, revision);
        } else {
            pair.put(&key, revision);
        }
    }
    let at = 15_000;
    let mut pass = Sweep::for_compaction(at);
    let mut survey = Sweep::for_hash(at).recording_up_to(7_000);
    while !pair.index.survey(&mut survey, 100) {
        let (key, revision) =
            (format!("{:06}", random.below(50_000)).into_bytes(), pair.revision());
        pair.put(&key, revision);
    }
    while !pair.index.compact(&mut pass, 100) {
        for _ in 0..50 {
            let (key, revision) =
                (format!("{:06}", random.below(50_000)).into_bytes(), pair.revision());
            pair.put(&key, revision);
            let (key, revision) =
                (format!("{:05}", random.below(5_000)).into_bytes(), pair.revision());
            pair.tombstone(&key, revision);
        }
    }
    let (kept, hashed) = pair.model.compact(at);
    assert!(pass.finish().cursor().eq(kept));
    let survey = survey.finish();
    assert_eq!(survey.len(), hashed.len());
    assert!(survey.cursor().eq(hashed.into_iter().take_while(|revision| revision.main <= 7_000)));
    pair.assert_sound();
    for at in [at, at + 100, pair.main] {
        pair.assert_equal_at(at);
    }
}

#[test]
fn a_reader_stops_and_goes_on_behind_the_last_key() {
    let mut index = KeyIndex::default();
    for main in 0..1_000_i64 {
        index.put(format!("{:x}", main * 7_919 % 1_009).as_bytes(), Revision::new(main + 2, 0));
    }
    let whole = range(&index, b"", End::Unbounded, CURRENT);
    let (mut pieces, mut start) = (Vec::new(), Vec::new());
    loop {
        let before = pieces.len();
        index.range(&start, End::Before(b"e"), CURRENT, usize::MAX, |key, found| {
            pieces.push((key.to_vec(), found));
            if pieces.len() - before == 7 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        if pieces.len() == before {
            break;
        }
        start = [&pieces[pieces.len() - 1].0[..], b"\0"].concat();
    }
    let below: Vec<_> = whole.into_iter().filter(|(key, _)| &key[..] < b"e".as_slice()).collect();
    assert_eq!(pieces, below);
}

#[test]
fn reads_of_the_past_look_at_few_keys_at_once() {
    const KEYS: usize = 20_000;
    let mut index = KeyIndex::default();
    // All keys but one are younger than what is read: none of them is visited.
    for (number, main) in std::iter::zip(0..KEYS, 2..) {
        index.put(format!("{number:06}").as_bytes(), Revision::new(main, 0));
    }
    let mut pieces = 0;
    let mut seen = 0;
    let mut next = Some(Vec::new());
    while let Some(from) = next {
        pieces += 1;
        next = index.range(&from, End::Unbounded, 2, 256, |_, _| {
            seen += 1;
            ControlFlow::Continue(())
        });
    }
    // A piece ends with a leaf.
    assert!((KEYS / 320..=KEYS / 256 + 1).contains(&pieces), "{pieces} pieces");
    assert_eq!(seen, 1);
    let mut pieces = 0;
    let mut next = Some(Vec::new());
    while let Some(from) = next {
        pieces += 1;
        next = index.count(&from, End::Unbounded, 2, 256).1;
    }
    assert!((KEYS / 320..=KEYS / 256 + 10).contains(&pieces), "{pieces} pieces");
    let now = index.count(b"000005", End::Before(b"019990"), CURRENT, 256);
    assert_eq!(now, (19_985, None), "the present is counted at once");
}

#[test]
fn a_restored_index_answers_like_the_one_it_was_read_from() {
    let mut pair = Pair::default();
    let mut random = Random(11);
    let mut records = BTreeMap::new();
    for _ in 0..10_000 {
        let (key, revision) = (format!("{:x}", random.below(700)).into_bytes(), pair.revision());
        if random.below(4) == 0 {
            if pair.tombstone(&key, revision) {
                records.insert(revision, (key, None));
            }
        } else {
            pair.put(&key, revision);
            let found = pair.index.get(&key, CURRENT);
            records.insert(revision, (key, found));
        }
    }
    let at = 6_000;
    pair.compact(at, 100);
    let (kept, _) = pair.model.clone().compact(at);
    records.retain(|revision, _| revision.main > at || kept.contains(revision));
    let mut restored = KeyIndex::default();
    for (&revision, (key, found)) in &records {
        let (created, version) = found.map_or((0, 0), |found| (found.created, found.version));
        let tombstone = found.is_none();
        restored.restore(Restored { key, revision, created, version, tombstone }).unwrap();
    }
    for at in at..=pair.main {
        let all = range(&restored, b"", End::Unbounded, at);
        assert_eq!(all, range(&pair.index, b"", End::Unbounded, at));
        assert_eq!(restored.count(b"", End::Unbounded, at, usize::MAX), (all.len(), None));
    }
    assert_eq!(restored.keys(), pair.index.keys());
}

#[test]
fn damaged_records_are_refused_or_held_as_they_are() {
    let mut index = KeyIndex::default();
    let record = |main, sub, created, version| Restored {
        key: b"",
        revision: Revision::new(main, sub),
        created,
        version,
        tombstone: false,
    };
    index.restore(record(5, 1, i64::MAX, i64::MAX)).unwrap();
    for refused in
        [record(5, 1, 1, 1), record(4, 7, 1, 1), record(-1, 0, 1, 1), record(6, -1, 1, 1)]
    {
        index.restore(refused).unwrap_err();
    }
    let found = index.get(b"", CURRENT).unwrap();
    assert_eq!((found.created, found.version), (i64::MAX, i64::MAX));
    index.restore(record(i64::MAX - 1, i64::MAX, -3, 0)).unwrap();
    let found = index.get(b"", CURRENT).unwrap();
    assert_eq!(found.modified, Revision::new(i64::MAX - 1, i64::MAX));
    assert_eq!((found.created, found.version), (i64::MAX, i64::MIN));
}

#[test]
fn a_cursor_finds_each_survivor_once_it_is_asked_for() {
    let mut index = KeyIndex::default();
    let mut kept = BTreeSet::new();
    let mut random = Random(2);
    for main in 2..30_000_i64 {
        for sub in 0..i64::try_from(1 + random.below(3)).unwrap() {
            let revision = Revision::new(main * 1_000, sub);
            index.put(format!("{}", random.below(1 << 30)).as_bytes(), revision);
            kept.insert(revision);
        }
    }
    let mut survey = Sweep::for_hash(CURRENT);
    while !index.survey(&mut survey, 1_000) {}
    let keep = survey.finish();
    assert!(keep.memory_bytes() <= 4 * keep.len(), "{} bytes", keep.memory_bytes());
    let mut cursor = keep.cursor();
    let mut found = 0;
    for main in 2..30_000_i64 {
        for main in [main * 1_000 - 1, main * 1_000] {
            for sub in 0..5 {
                let revision = Revision::new(main, sub);
                if cursor.contains(revision) {
                    assert!(kept.contains(&revision), "it was written");
                    found += 1;
                    assert!(cursor.contains(revision), "asked again");
                }
            }
        }
    }
    assert_eq!(found, keep.len());
    assert!(found > 50_000 && kept.len() >= found);
}
