//! Streams whose clients would rather have none than one to a member that knows no leader (`spec/grpc-api.md` §3.3).
//!
//! A new call of such a client is refused at once. A stream is ended only after a while without a leader, for to open it
//! anew costs more. One task looks for all streams of a thread: there may be thousands, and none of them needs a timer.

use std::pin::Pin;

use super::{Caller, Services};
use crate::grpc::error;
use crate::grpc::status::Status;

/// Looks without a leader, an election timeout apart, after which streams that require one are ended.
const LEADERLESS_LOOKS_MAX: u32 = 3;

impl Services {
    /// Ends streams that require a leader when there has been none for a while. Runs as a task of the thread for as long as it
    /// serves clients.
    pub async fn watch_leader(&self) {
        let mut missed = 0;
        loop {
            tokio::time::sleep(self.limits.election_timeout).await;
            let has_leader = self.handle.gate().leader() != 0;
            missed = if has_leader { 0 } else { missed + 1 };
            // Again and again: a stream that is busy now looks later.
            if missed >= LEADERLESS_LOOKS_MAX {
                self.leader_lost.notify_waiters();
            }
        }
    }

    /// Waits until a stream of `caller` has to end because there is no leader. Cancel-safe.
    pub(super) async fn leader_lost(&self, caller: &Caller) -> Status {
        if !caller.requires_leader() {
            return std::future::pending().await;
        }
        self.leader_lost.notified().await;
        error::NO_LEADER
    }

    /// Serves a stream until it ends, or, if its caller requires a leader, has missed one for too long. It comes in a box, for
    /// a future that is passed on takes its room twice.
    pub(super) async fn while_led(
        &self,
        caller: &Caller,
        mut stream: Pin<Box<impl Future<Output = Result<(), Status>>>>,
    ) -> Result<(), Status> {
        tokio::select! {
            ended = &mut stream => ended,
            lost = self.leader_lost(caller) => Err(lost),
        }
    }
}
