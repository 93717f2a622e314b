//! Watch streams: each is with one member, and goes on with another one when that is gone, or of its own accord.

use std::time::Duration;

use super::{Act, Due, Step, World};
use crate::check::Violation;

/// When a client without a member looks for one again.
const RETRY: Duration = Duration::from_millis(50);

/// Of a hundred requests, how many make the client go to another member instead.
const MOVES_PERCENT: u64 = 3;

impl World {
    /// Opens the stream of the client at `place` with a member that runs.
    pub(super) fn find_home(&mut self, place: usize) {
        let Some(member) = self.running() else {
            self.agenda.after(RETRY, Due::Home { place });
            return;
        };
        let Some(process) = self.members[member].process.as_mut() else { return };
        process.serving.attach(place, &mut self.subscribers[place]);
        self.homes[place] = Some((member, self.members[member].life));
        self.trace.line(self.agenda.now(), || format!("stream {place} is with m{}", member + 1));
        self.pump(member);
        self.soon(member, Duration::ZERO, Step::Read(place));
        self.soon(member, Duration::from_millis(5), Step::Request(place));
    }

    /// The streams of a process end with it.
    pub(super) fn lose_homes(&mut self, member: usize) {
        for place in 0..self.homes.len() {
            if self.homes[place].is_some_and(|(home, _)| home == member) {
                self.homes[place] = None;
                let pause = self.rng.micros(1_000..50_000);
                self.agenda.after(pause, Due::Home { place });
            }
        }
    }

    fn is_home(&self, place: usize, member: usize) -> bool {
        self.homes[place] == Some((member, self.members[member].life))
    }

    pub(super) fn read(&mut self, member: usize, place: usize) -> Result<(), Violation> {
        if !self.is_home(place, member) {
            return Ok(());
        }
        let max = self.rng.pick(&[1, 2, 100]);
        let slow = self.rng.chance(5);
        let pause = self.rng.micros(1_000..if slow { 1_500_000 } else { 40_000 });
        let Some(process) = self.members[member].process.as_mut() else { return Ok(()) };
        let subscriber = &mut self.subscribers[place];
        let read = process.serving.read(place, max, subscriber, self.judge.model())?;
        if read > 0 {
            self.trace.line(self.agenda.now(), || format!("stream {place} reads {read} answers"));
        }
        self.pump(member);
        self.soon(member, pause, Step::Read(place));
        Ok(())
    }

    pub(super) fn request(&mut self, member: usize, place: usize) {
        if self.act != Act::Work || !self.is_home(place, member) {
            return;
        }
        let moves = self.rng.chance(MOVES_PERCENT);
        let pause = self.rng.micros(10_000..300_000);
        let Some(process) = self.members[member].process.as_mut() else { return };
        if moves {
            process.serving.detach(place);
            self.homes[place] = None;
            self.agenda.after(Duration::from_millis(1), Due::Home { place });
            return;
        }
        let subscriber = &mut self.subscribers[place];
        let model = self.judge.model();
        process.serving.request(place, subscriber, &mut self.workload, &mut self.rng, model);
        self.pump(member);
        self.soon(member, pause, Step::Request(place));
    }
}
