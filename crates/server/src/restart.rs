//! A thread for the half of a restart that needs no disk: building the key index from what is read.

use std::ops::ControlFlow;
use std::sync::mpsc;
use std::thread;

use machine::{Belt, Changes};

/// Pieces, of some hundred KiB at most, that wait to be built in. When they are as many, reading waits.
const PIECES_MAX: usize = 4;

/// Reads on the calling thread and builds on another ([`machine::Conveyor`]); without one to be had, on the same.
pub(crate) fn side_by_side(
    read: &mut dyn FnMut(&mut Belt<'_>),
    build: &mut (dyn FnMut(Changes) -> ControlFlow<()> + Send),
) {
    let (sender, receiver) = mpsc::sync_channel::<Changes>(PIECES_MAX);
    let ran = thread::scope(|scope| {
        let builder = thread::Builder::new().name("key-index".to_owned());
        let spawned = builder.spawn_scoped(scope, || {
            // Ends when all is read, or tells the reader to end by dropping the receiver.
            let _end = receiver.into_iter().try_for_each(&mut *build);
        });
        if spawned.is_ok() {
            read(&mut |piece| match sender.send(piece) {
                Ok(()) => ControlFlow::Continue(()),
                Err(mpsc::SendError(_)) => ControlFlow::Break(()),
            });
        }
        drop(sender);
        spawned.map(drop)
    });
    if let Err(error) = ran {
        tracing::debug!(%error, "no thread to build the key index on");
        machine::one_by_one(read, build);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `pieces` pieces, of which `taken` are taken; returns how many were put on the belt, and how many built in.
    fn run(convey: machine::Conveyor, pieces: usize, taken: usize) -> (usize, usize) {
        let (mut put, mut built) = (0, 0);
        convey(
            &mut |belt| {
                for _ in 0..pieces {
                    put += 1;
                    if belt(Changes::default()).is_break() {
                        break;
                    }
                }
            },
            &mut |_| {
                built += 1;
                if built < taken { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            },
        );
        (put, built)
    }

    #[test]
    fn all_that_is_read_is_built_in() {
        assert_eq!(run(side_by_side, 1000, usize::MAX), (1000, 1000));
        assert_eq!(run(machine::one_by_one, 1000, usize::MAX), (1000, 1000));
        assert_eq!(run(side_by_side, 0, usize::MAX), (0, 0));
    }

    #[test]
    fn reading_ends_when_building_does() {
        assert_eq!(run(machine::one_by_one, 1000, 10), (10, 10));
        let (put, built) = run(side_by_side, 1000, 10);
        assert_eq!(built, 10);
        assert!((10..=11 + PIECES_MAX).contains(&put), "{put}");
    }
}
