//! The world's clock: time passes from one thing that is due to the next.

use std::collections::BTreeMap;
use std::time::Duration;

/// What is to happen when, in order; things due at one time happen in the order in which they were put in.
#[derive(Debug)]
pub struct Agenda<T> {
    now: Duration,
    serial: u64,
    due: BTreeMap<(Duration, u64), T>,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { now: Duration::ZERO, serial: 0, due: BTreeMap::new() }
    }
}

impl<T> Agenda<T> {
    /// Returns the time.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Puts in what is to happen after `delay`.
    pub fn after(&mut self, delay: Duration, what: T) {
        self.serial += 1;
        self.due.insert((self.now + delay, self.serial), what);
    }

    /// Takes the next thing that is due, and lets time pass until then.
    pub fn take_next(&mut self) -> Option<T> {
        let ((at, _), what) = self.due.pop_first()?;
        self.now = at;
        Some(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_happen_by_time_and_then_in_order() {
        let mut agenda = Agenda::default();
        agenda.after(Duration::from_secs(2), "c");
        agenda.after(Duration::from_secs(1), "a");
        agenda.after(Duration::from_secs(1), "b");
        assert_eq!(agenda.take_next(), Some("a"));
        agenda.after(Duration::ZERO, "b2");
        let rest: Vec<&str> = std::iter::from_fn(|| agenda.take_next()).collect();
        assert_eq!(rest, ["b", "b2", "c"]);
        assert_eq!(agenda.now(), Duration::from_secs(2));
    }
}
