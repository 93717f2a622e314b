//! A snapshot of the leader takes the place of this member's state.
//!
//! Its database is a backend already, in a file beside the present one. Order: raft takes the snapshot; log mark, hard state
//! and the `.snap` file become durable; then the state is replaced, and the file gets its name. A crash before the mark is
//! durable finds the state of before; one after it finds the file beside, and the start gives it its name.

use std::collections::VecDeque;

use machine::BackendJob;
use proto::raftpb;
use storage::Fault;

use crate::consensus::Position;
use crate::node::Node;
use crate::snapshots::{Captured, Snapshots, membership_document};
use crate::{Answer, Effects, Failure, Prepared, Token, WalJob};

/// The snapshot that is being taken, if one is.
#[derive(Debug, Default)]
pub(crate) struct Install {
    /// Given to raft, which has not said yet whether it counts.
    offered: Option<Offered>,
    /// Counts; its state follows when this WAL job is durable.
    taken: Option<(u64, Offered)>,
    /// Who waits for the backend thread to put a file in its place (true), or to remove it, in the order of its jobs. Until
    /// then its name is in use.
    settling: VecDeque<(Token, bool)>,
}

#[derive(Debug)]
struct Offered {
    token: Token,
    position: Position,
    prepared: Box<Prepared>,
}

impl Install {
    /// Tells whether a snapshot counts whose state is not in place yet.
    pub(crate) fn is_under_way(&self) -> bool {
        self.taken.is_some()
    }

    /// Takes those who wait.
    pub(crate) fn take_all(&mut self) -> Vec<Token> {
        let taken = self.taken.take().map(|(_, offered)| offered);
        let offered = self.offered.take().into_iter().chain(taken).map(|offered| offered.token);
        offered.chain(self.settling.drain(..).map(|(token, _)| token)).collect()
    }
}

impl Node {
    /// Offers a snapshot to raft.
    pub(crate) fn offer_install(
        &mut self,
        token: Token,
        message: raftpb::Message,
        prepared: Box<Prepared>,
        effects: &mut Effects,
    ) {
        let machine::Applied { index, term } = prepared.machine.applied();
        let position = Position { index, term };
        let says = message.snapshot.as_ref().map(|snapshot| &snapshot.metadata);
        let is_it = says.is_some_and(|says| (says.index, says.term) == (index, term));
        #[cfg(feature = "planted-faults")]
        let (is_it, position) = {
            use crate::fault_hooks::{Planted, is_planted};
            let says = says.map_or(position, |says| Position { index: says.index, term });
            let is_unchecked = is_planted(Planted::UncheckedSnapshot);
            (is_it || is_unchecked, if is_unchecked { says } else { position })
        };
        let offered = Offered { token, position, prepared };
        if !is_it || self.install.offered.is_some() || self.install.is_under_way() {
            tracing::warn!(
                index,
                term,
                "the database of a snapshot is not the one that its message says"
            );
            self.discard(offered, effects);
            return;
        }
        match self.consensus.step_snapshot(message) {
            Ok(()) => self.install.offered = Some(offered),
            Err(reason) => {
                tracing::warn!(%reason, "refused a snapshot of a peer");
                self.discard(offered, effects);
            }
        }
    }

    /// Takes what raft says of the snapshot that it was offered: `restored` if it counts. Then its mark goes into `job`.
    pub(crate) fn judge_install(
        &mut self,
        restored: Option<Position>,
        job: &mut WalJob,
        effects: &mut Effects,
    ) -> Result<(), machine::Fault> {
        let offered = self.install.offered.take();
        match (restored, offered) {
            (None, None) => {}
            (None, Some(offered)) => self.discard(offered, effects),
            (Some(position), Some(offered)) if offered.position == position => {
                let captured = Captured {
                    position,
                    conf_state: self.consensus.conf_state(),
                    data: membership_document(offered.prepared.machine.membership()),
                };
                job.snapshot = Some(captured.into_files());
                job.must_sync = true;
                self.install.taken = Some((job.job, offered));
            }
            (Some(position), _) => {
                let what = format!(
                    "raft has taken a snapshot at {} that it was not offered",
                    position.index
                );
                let remedy = "start the member again";
                return Err(Fault::unusable(std::path::Path::new("log"), what, remedy).into());
            }
        }
        Ok(())
    }

    /// Puts the snapshot's state in place once its mark, in `durable` at the latest, is durable.
    pub(crate) fn finish_install(&mut self, durable: u64, effects: &mut Effects) {
        let Some((_, offered)) = self.install.taken.take_if(|(job, _)| *job <= durable) else {
            return;
        };
        let Offered { token, position, prepared } = offered;
        let Prepared { mut machine, backend } = *prepared;
        machine.succeed(&self.machine);
        effects.events.extend(self.machine.take_events());
        effects.events_lost = true;
        self.machine = machine;
        self.reader = self.machine.reader();
        let now = self.lease_now();
        self.machine.lessor_mut().tick(now);
        // All of it is in the snapshot.
        self.to_apply.clear();
        // Outcomes among them are not told.
        self.give_up_all(effects);
        self.consensus.applied_to(position.index);
        self.snapshots = Snapshots::new(self.own.snapshots.count, position.index);
        self.backend.begin_anew();
        effects.backend.push(BackendJob::TakePlace(backend));
        self.install.settling.push_back((token, true));
        tracing::info!(index = position.index, term = position.term, "applied snapshot");
    }

    /// Answers whoever waits for a file that has got its name, or is removed.
    pub(crate) fn settle_install(&mut self, effects: &mut Effects) {
        match self.install.settling.pop_front() {
            Some((token, true)) => effects.complete([token], || Answer::SnapshotInstalled),
            Some((token, false)) => effects.fail([token], Failure::SnapshotNotTaken),
            None => {}
        }
    }

    /// Gives up a snapshot that does not count.
    fn discard(&mut self, offered: Offered, effects: &mut Effects) {
        let Offered { token, prepared, .. } = offered;
        let Prepared { machine, backend } = *prepared;
        drop(machine);
        self.install.settling.push_back((token, false));
        effects.backend.push(BackendJob::Discard(backend));
    }
}
