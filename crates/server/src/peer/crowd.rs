//! A bound on the connections of the peer port. Anybody can open some; what is open and asks for nothing must not keep members
//! out, so one more takes the place of the one that has been idle for the longest. Members ask at once.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::Notify;

/// Connections at a time: a member needs two for its streams and a few for all else.
pub const CONNECTIONS_MAX: usize = 512;

/// The connections that are there.
#[derive(Debug)]
pub struct Crowd {
    max: usize,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the next turn.
    next: u64,
    /// How many are counted.
    count: usize,
    /// Those that may be cut, by when they began what they do.
    idle: BTreeMap<u64, Rc<Notify>>,
}

/// The place of one connection; dropping it frees the place.
#[derive(Debug)]
pub struct Place {
    crowd: Rc<Crowd>,
    cut: Rc<Notify>,
    /// Its number among the idle, as long as it has one.
    turn: Cell<Option<u64>>,
    /// Whether it has been kept from being cut.
    is_kept: Cell<bool>,
}

impl Crowd {
    /// Starts without connections, of which there are to be `max` at most.
    pub fn new(max: usize) -> Rc<Self> {
        Rc::new(Self { max, state: RefCell::default() })
    }

    /// Gives a place to a connection that `cut` ends; `None` if all are in use for more important things.
    pub fn enter(self: &Rc<Self>, cut: Rc<Notify>) -> Option<Place> {
        let mut state = self.state.borrow_mut();
        if state.count >= self.max {
            let (_, longest) = state.idle.pop_first()?;
            longest.notify_one();
            state.count -= 1;
        }
        state.count += 1;
        drop(state);
        let (turn, is_kept) = (Cell::default(), Cell::default());
        let place = Place { crowd: Rc::clone(self), cut, turn, is_kept };
        place.crowd.queue(&place);
        Some(place)
    }

    fn queue(&self, place: &Place) {
        let mut state = self.state.borrow_mut();
        let turn = state.next;
        state.next += 1;
        state.idle.insert(turn, Rc::clone(&place.cut));
        place.turn.set(Some(turn));
    }
}

impl Place {
    /// Tells whether the connection still has its place, and is not about to be cut.
    fn is_held(&self) -> bool {
        let state = self.crowd.state.borrow();
        self.is_kept.get() || self.turn.get().is_some_and(|turn| state.idle.contains_key(&turn))
    }

    /// Notes that the connection asks for something: from now on it is the one that has been idle for the shortest.
    pub fn refresh(&self) {
        if self.is_held() {
            self.leave_queue();
            self.is_kept.set(false);
            self.crowd.queue(self);
        }
    }

    /// Keeps the connection whatever comes: it serves a stream or a snapshot.
    pub fn keep(&self) {
        if self.is_held() {
            self.leave_queue();
            self.is_kept.set(true);
        }
    }

    fn leave_queue(&self) {
        if let Some(turn) = self.turn.take() {
            self.crowd.state.borrow_mut().idle.remove(&turn);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_held() {
            self.leave_queue();
            self.crowd.state.borrow_mut().count -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_cut(place: &Place) -> bool {
        !place.is_held()
    }

    #[test]
    fn the_one_that_is_idle_for_the_longest_makes_room() {
        let crowd = Crowd::new(3);
        let enter = || crowd.enter(Rc::default());
        let places: Vec<Place> = (0..3).filter_map(|_| enter()).collect();
        places[0].refresh();
        places[2].keep();
        let fourth = enter().expect("one was idle");
        assert_eq!(places.iter().map(is_cut).collect::<Vec<_>>(), [false, true, false]);
        let fifth = enter().expect("another one was idle");
        assert!(is_cut(&places[0]));
        fourth.keep();
        fifth.keep();
        assert!(enter().is_none(), "all are in use");
        drop(fourth);
        let sixth = enter().expect("one is free");
        drop(places);
        assert_eq!(crowd.state.borrow().count, 2);
        sixth.keep();
        sixth.refresh();
        drop((fifth, sixth));
        assert_eq!(crowd.state.borrow().count, 0);
        assert!(crowd.state.borrow().idle.is_empty());
    }

    #[test]
    fn who_was_cut_does_not_come_back() {
        let crowd = Crowd::new(1);
        let first = crowd.enter(Rc::default()).expect("it is the first");
        let second = crowd.enter(Rc::default()).expect("the first is idle");
        first.refresh();
        first.keep();
        assert!(is_cut(&first) && !is_cut(&second));
        drop(first);
        assert_eq!(crowd.state.borrow().count, 1);
    }
}
