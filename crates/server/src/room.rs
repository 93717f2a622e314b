//! A bound on what answers hold in memory until their clients have taken them.
//!
//! A large answer is held as far as it is read and not sent, and what is sent is held until the connection has written it
//! out. All of them together hold no more than the room there is (`--answer-memory-bytes`).
//!
//! When it is full, an answer that needs more waits for some seconds or until its own deadline, and is then refused. A list
//! that could be held whole is read page by page instead. Answers up to [`FREE_BYTES`] are never counted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::grpc::error;
use crate::grpc::status::Status;

/// An answer that is no longer takes part in nothing of this: gets and puts go on when the room is full.
pub const FREE_BYTES: usize = 16 << 10;
/// How long an answer waits for room.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The bytes that are free, shared by all connections.
#[derive(Debug, Clone)]
pub struct Room {
    free: Arc<Semaphore>,
    bytes: usize,
}

impl Room {
    /// Makes room for `bytes`.
    pub fn new(bytes: usize) -> Self {
        let bytes = bytes.min(u32::MAX as usize);
        Self { free: Arc::new(Semaphore::new(bytes)), bytes }
    }

    /// Takes `bytes`; waits for them.
    pub async fn hold(&self, bytes: usize) -> Result<Held, Status> {
        self.hold_within(WAIT_MAX, bytes).await
    }

    async fn hold_within(&self, patience: Duration, bytes: usize) -> Result<Held, Status> {
        // More than there is would wait in vain, and hold up everybody behind.
        let count = u32::try_from(bytes).ok().filter(|_| bytes <= self.bytes);
        let count = count.ok_or(error::NO_ANSWER_ROOM)?;
        let waiting = Arc::clone(&self.free).acquire_many_owned(count);
        match tokio::time::timeout(patience, waiting).await {
            Ok(Ok(permit)) => Ok(Held { permit }),
            Ok(Err(_)) | Err(_) => Err(error::NO_ANSWER_ROOM),
        }
    }

    /// Takes `bytes` if they are free now.
    pub fn try_hold(&self, bytes: usize) -> Option<Held> {
        let count = u32::try_from(bytes).ok()?;
        let permit = Arc::clone(&self.free).try_acquire_many_owned(count).ok()?;
        Some(Held { permit })
    }

    /// Opens the account of one read.
    pub fn account(&self) -> Account {
        Account { room: self.clone(), held: None, free_left: FREE_BYTES }
    }
}

/// What one read takes while it goes on; never waits.
#[derive(Debug)]
pub struct Account {
    room: Room,
    held: Option<Held>,
    /// Bytes that are not counted.
    free_left: usize,
}

impl Account {
    /// Takes `bytes` more; false when they are not free.
    pub fn take(&mut self, bytes: usize) -> bool {
        if let Some(left) = self.free_left.checked_sub(bytes) {
            self.free_left = left;
            return true;
        }
        let more = self.room.try_hold(bytes);
        let has_more = more.is_some();
        match (&mut self.held, more) {
            (Some(held), Some(more)) => held.merge(more),
            (held, more) => *held = held.take().or(more),
        }
        has_more
    }

    /// Gives back what is above `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        if let Some(held) = &mut self.held {
            held.shrink_to(bytes);
        }
    }

    /// Returns what was taken and counted.
    pub fn close(self) -> Option<Held> {
        self.held
    }
}

/// Some of the room; dropping it gives all back.
#[derive(Debug)]
pub struct Held {
    permit: OwnedSemaphorePermit,
}

impl Held {
    /// Returns how many bytes it is.
    pub fn bytes(&self) -> usize {
        self.permit.num_permits()
    }

    /// Adds what `other` holds of the same room.
    pub fn merge(&mut self, other: Self) {
        self.permit.merge(other.permit);
    }

    /// Gives back what is above `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        drop(self.split(self.bytes().saturating_sub(bytes)));
    }

    /// Parts with `bytes`, or all that is there.
    pub fn split(&mut self, bytes: usize) -> Option<Self> {
        let permit = self.permit.split(bytes.min(self.bytes()))?;
        Some(Self { permit })
    }

    /// Ties what is held to `bytes`: it is given back when the last part of them is gone, sent or not.
    pub fn around(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Tied { bytes, _held: self })
    }
}

/// Bytes and what they hold.
struct Tied {
    bytes: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Tied {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_given_back_with_the_last_part() {
        let room = Room::new(100);
        let mut held = room.try_hold(60).expect("free");
        assert!(room.try_hold(41).is_none());
        held.merge(room.try_hold(40).expect("free"));
        held.shrink_to(80);
        let part = held.split(30).expect("held");
        let mut bytes = part.around(Bytes::from_static(b"abcdef"));
        let first = bytes.split_to(3);
        drop((held, bytes));
        assert_eq!(room.free.available_permits(), 70);
        assert_eq!(first, "abc");
        drop(first);
        assert_eq!(room.free.available_permits(), 100);
    }

    #[test]
    fn accounts_count_what_is_above_the_free_bytes() {
        let room = Room::new(100);
        let mut account = room.account();
        assert!(account.take(FREE_BYTES) && account.take(90) && account.take(10));
        assert!(!account.take(1));
        account.shrink_to(50);
        assert!(account.take(20));
        assert_eq!(account.close().map(|held| held.bytes()), Some(70));
        assert_eq!(room.free.available_permits(), 100);
    }

    #[test]
    fn an_answer_waits_for_room_but_not_without_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(async {
            let room = Room::new(100);
            let held = room.hold(80).await.expect("free");
            assert_eq!(room.hold(101).await.err(), Some(error::NO_ANSWER_ROOM), "never");
            let patience = Duration::from_millis(20);
            let late = room.hold_within(patience, 30).await;
            assert_eq!(late.err(), Some(error::NO_ANSWER_ROOM));
            let waits = room.hold(30);
            let gives_back = async {
                tokio::task::yield_now().await;
                drop(held);
            };
            let (held, ()) = tokio::join!(waits, gives_back);
            assert_eq!(held.expect("free by then").bytes(), 30);
        });
    }
}
