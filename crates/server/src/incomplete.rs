//! A bound on what clients have begun to send and not finished: each stream may hold one incomplete message, streams are
//! many, and a client that never finishes must not fill the memory.
//!
//! When the bound is reached, the message that asks for more is refused. Messages that arrive in one piece never count.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of incomplete messages that the process holds at most.
pub const INCOMPLETE_BYTES_MAX: usize = 256 << 20;

/// The bytes that are left, shared by all connections.
#[derive(Debug)]
pub struct Budget {
    left: AtomicUsize,
}

impl Budget {
    /// Makes a budget of `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self { left: AtomicUsize::new(bytes) }
    }

    /// Makes an empty share of it.
    pub fn share(self: &Arc<Self>) -> Share {
        Share { budget: Arc::clone(self), held: 0 }
    }

    fn take(&self, bytes: usize) -> bool {
        self.left
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes))
            .is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What one stream holds of the budget; dropping it gives all back.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    held: usize,
}

impl Share {
    /// Holds `bytes` from now on. False when there are not as many; the share then stays as it was.
    #[must_use]
    pub fn hold(&mut self, bytes: usize) -> bool {
        if bytes > self.held {
            if !self.budget.take(bytes - self.held) {
                return false;
            }
        } else if bytes < self.held {
            self.budget.give_back(self.held - bytes);
        }
        self.held = bytes;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.give_back(self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_take_and_give_back() {
        let budget = Arc::new(Budget::new(100));
        let (mut one, mut other) = (budget.share(), budget.share());
        assert!(one.hold(60) && other.hold(40));
        assert!(!one.hold(61));
        assert!(other.hold(30) && one.hold(70));
        drop(one);
        assert!(other.hold(100) && other.hold(0));
        assert_eq!(budget.left.load(Ordering::Relaxed), 100);
    }
}
