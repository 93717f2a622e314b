//! A bound on the lines of the log that whoever comes to the peer port can cause: so many in a second, and then how many were
//! left out.

use std::cell::RefCell;
use std::time::{Duration, Instant};

/// Lines in one [`WINDOW`].
const LINES_MAX: usize = 20;

/// The time that counts.
const WINDOW: Duration = Duration::from_secs(1);

/// Counts complaints. Belongs to the peer thread.
#[derive(Debug, Default)]
pub struct Complaints {
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the present window began.
    since: Option<Instant>,
    told: usize,
    left_out: u64,
}

impl Complaints {
    /// Tells whether there is room for one more line at `now`. After a time in which some were left out, says how many.
    pub fn may_tell(&self, now: Instant) -> bool {
        let mut state = self.state.borrow_mut();
        let is_over = state.since.is_none_or(|since| now.duration_since(since) >= WINDOW);
        if is_over {
            let left_out = std::mem::take(&mut *state).left_out;
            state.since = Some(now);
            if left_out > 0 {
                tracing::warn!(left_out, "left out lines about the peer port");
            }
        }
        if state.told < LINES_MAX {
            state.told += 1;
            true
        } else {
            state.left_out += 1;
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_room_for_so_many_lines() {
        let complaints = Complaints::default();
        let now = Instant::now();
        let told = (0..3 * LINES_MAX).filter(|_| complaints.may_tell(now)).count();
        assert_eq!(told, LINES_MAX);
        assert_eq!(complaints.state.borrow().left_out, 2 * LINES_MAX as u64);
        assert!(!complaints.may_tell(now + WINDOW / 2));
        assert!(complaints.may_tell(now + WINDOW));
        assert_eq!(complaints.state.borrow().left_out, 0);
    }
}
