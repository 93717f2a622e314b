//! Histories that are judged right, wrong ones above all, and a second opinion on random ones.

use std::time::Duration;

use super::*;
use crate::random::Random;

/// Operations with their times in milliseconds; an end of 0 is none.
fn history(operations: &[(u64, u64, Effect)]) -> Vec<Operation> {
    let zero = Instant::now();
    let at = |time: u64| zero + Duration::from_millis(time);
    let operations = operations.iter();
    operations
        .map(|(begin, end, effect)| Operation {
            begin: at(*begin),
            end: (*end > 0).then(|| at(*end)),
            effect: *effect,
        })
        .collect()
}

fn complaint(operations: &[(u64, u64, Effect)]) -> String {
    check(&history(operations)).err().unwrap_or_default()
}

const fn read(value: Value, revision: i64) -> Effect {
    Effect::Read(Some((value, revision)))
}

const fn write(value: Value, revision: i64) -> Effect {
    Effect::Write(value, Some(revision))
}

const fn swap(from: Value, to: Value, revision: i64) -> Effect {
    Effect::Swap { from, to, revision: Some(revision) }
}

#[test]
fn what_one_register_could_do_passes() {
    assert_eq!(
        complaint(&[
            (1, 2, Effect::Read(None)),
            (1, 9, write(1, 5)),
            (2, 3, Effect::Read(None)),
            (4, 6, read(1, 5)),
            (10, 20, write(2, 8)),
            (10, 20, swap(1, 3, 7)),
            (12, 13, read(3, 7)),
            (12, 30, read(1, 5)),
            (21, 22, read(2, 8)),
        ]),
        ""
    );
}

#[test]
fn a_read_that_ended_is_not_followed_by_an_older_one() {
    let text = complaint(&[
        (1, 2, write(1, 5)),
        (3, 9, write(2, 6)),
        (4, 5, read(2, 6)),
        (6, 7, read(1, 5)),
    ]);
    assert!(text.contains("comes before"), "{text}");
}

#[test]
fn an_acknowledged_write_is_seen_by_who_asks_later() {
    let stale = [(1, 2, write(1, 5)), (3, 4, write(2, 6)), (5, 6, read(1, 5))];
    assert!(complaint(&stale).contains("comes before"));
    let lost = [(1, 2, write(1, 5)), (3, 4, Effect::Read(None))];
    assert!(complaint(&lost).contains("comes before"));
}

#[test]
fn a_write_does_not_come_before_what_ended_earlier() {
    let text = complaint(&[(1, 2, write(1, 7)), (3, 4, write(2, 6))]);
    assert!(text.contains("comes before"), "{text}");
    let text = complaint(&[(1, 2, read(1, 7)), (3, 4, write(1, 7))]);
    assert!(text.contains("comes before"), "a value from the future: {text}");
}

#[test]
fn an_open_write_may_happen_late_or_never_but_not_come_back() {
    let open = (1, 0, Effect::Write(1, None));
    assert_eq!(complaint(&[open, (2, 3, write(2, 5)), (4, 5, read(2, 5))]), "");
    assert_eq!(complaint(&[open, (2, 3, write(2, 5)), (4, 5, read(1, 6))]), "");
    let flickers = [open, (2, 3, write(2, 5)), (4, 5, read(1, 6)), (6, 7, read(2, 5))];
    assert!(complaint(&flickers).contains("comes before"));
    let early = [(1, 2, read(1, 4)), (3, 0, Effect::Write(1, None))];
    assert!(complaint(&early).contains("comes before"));
}

#[test]
fn a_swap_replaces_what_it_says() {
    let two = [(1, 2, write(1, 5)), (3, 9, swap(1, 2, 6)), (3, 9, swap(1, 3, 7))];
    assert!(complaint(&two).contains("replaced Some(2)"));
    let unseen = (3, 0, Effect::Swap { from: 1, to: 3, revision: None });
    assert_eq!(complaint(&[two[0], two[1], unseen]), "");
    let seen = [two[0], two[1], unseen, (4, 8, read(3, 7))];
    assert!(complaint(&seen).contains("replaced Some(2)"));
}

#[test]
fn answers_agree_about_revisions() {
    assert!(complaint(&[(1, 2, write(1, 5)), (3, 4, read(1, 6))]).contains("was written at"));
    assert!(complaint(&[(1, 2, write(1, 5)), (1, 2, write(2, 5))]).contains("both written"));
    assert!(complaint(&[(1, 2, read(1, 5))]).contains("nobody wrote"));
    assert!(complaint(&[(1, 2, write(1, 5)), (1, 2, write(1, 6))]).contains("written twice"));
}

/// A second opinion, which knows nothing of revisions: tries every order of operations.
fn has_linearization(history: &[Operation], left: &[usize], value: Option<Value>) -> bool {
    let must = |index: &usize| history[*index].end.is_some();
    if !left.iter().any(must) {
        return true;
    }
    left.iter().any(|next| {
        let operation = history[*next];
        let is_possible =
            left.iter().all(|other| history[*other].end.is_none_or(|end| end >= operation.begin));
        let after = match operation.effect {
            Effect::Read(found) if found.map(|(value, _)| value) == value => value,
            Effect::Write(to, _) => Some(to),
            Effect::Swap { from, to, .. } if value == Some(from) => Some(to),
            _ => return false,
        };
        let rest: Vec<usize> = left.iter().copied().filter(|other| other != next).collect();
        is_possible && has_linearization(history, &rest, after)
    })
}

/// Operations that overlap at random on a register that is now and then stale, forgetful or early.
fn simulate(random: &mut Random, faults_permille: u64) -> Vec<Operation> {
    let mut states: Vec<Option<(Value, i64)>> = vec![None];
    let mut operations = Vec::new();
    for number in 0..7 {
        let moment = 100 + 10 * number;
        let begin = moment - random.next() % 40;
        let end = moment + 1 + random.next() % 40;
        let back = if random.chance(faults_permille) { random.below(states.len()) } else { 0 };
        let now = states[states.len() - 1 - back];
        let revision = i64::try_from(states.len()).unwrap();
        let is_open = random.chance(200);
        let known = (!is_open).then_some(revision);
        let effect = match (random.below(3), now) {
            (0, _) => Effect::Write(number, known),
            (1, Some((from, _))) => {
                // Who swaps has read.
                operations.push((begin, end, Effect::Read(now)));
                Effect::Swap { from, to: number, revision: known }
            }
            _ => Effect::Read(now),
        };
        let is_write = effect.written().is_some();
        if is_write && !random.chance(faults_permille) && !(is_open && random.chance(500)) {
            states.push(Some((number, revision)));
        }
        operations.push((begin, if is_open && is_write { 0 } else { end }, effect));
    }
    history(&operations)
}

#[test]
fn who_tries_every_order_never_finds_less() {
    let mut random = Random::new(1);
    let mut bad = 0;
    for _ in 0..3000 {
        let good = simulate(&mut random, 0);
        assert_eq!(check(&good), Ok(()), "{good:#?}");
        let history = simulate(&mut random, 150);
        let all: Vec<usize> = (0..history.len()).collect();
        let is_linearizable = has_linearization(&history, &all, None);
        assert!(is_linearizable || check(&history).is_err(), "{history:#?}");
        bad += usize::from(!is_linearizable);
    }
    assert!(bad > 300, "{bad} bad histories show nothing");
}
