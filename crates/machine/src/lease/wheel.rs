//! A hierarchical timing wheel over small integers, with millisecond slots.
//!
//! Eight levels of 64 slots reach 2^48 ms. An item lies in the level of the highest 6-bit group in which its time differs
//! from the wheel's, and sinks to lower levels as that time comes near: insert, remove and the amortised cost of firing are O(1).
//! Lists are circular and intrusive, 12 bytes per item.
//!
//! The wheel does not store times. When a slot comes due it asks for each item's present time, so putting an item off costs
//! nothing here: the item is found at its old time and laid where it belongs now. Items may only be put off, never hastened.

const LEVELS: u32 = 8;
const SLOTS: u32 = 64;
const GROUP_BITS: u32 = 6;

/// Items whose time had passed when they were inserted.
const OVERDUE: u32 = LEVELS * SLOTS;
/// Items that have fired and wait to be taken.
const READY: u32 = OVERDUE + 1;
const LISTS: u32 = READY + 1;
/// Marks an item that is in no list.
const NOWHERE: u32 = u32::MAX;
const NIL: u32 = u32::MAX;

/// The latest time that the levels can tell apart. It never comes; what is due later lies there.
const TIME_MAX: u64 = (1 << (LEVELS * GROUP_BITS)) - 1;

/// What to do with an item that was found.
pub(super) enum Due {
    /// It has fired: move it to the ready list.
    Now,
    /// It is due at this later time.
    At(u64),
}

#[derive(Debug, Clone, Copy)]
struct Link {
    previous: u32,
    next: u32,
    list: u32,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Wheel {
    heads: Vec<u32>,
    /// One bit per slot of a level that is not empty.
    occupied: [u64; LEVELS as usize],
    links: Vec<Link>,
    /// Invariant: every item in a level lies in a slot that begins after this time, which is below `TIME_MAX`.
    elapsed: u64,
}

impl Wheel {
    /// Makes an empty wheel that stands at `now`.
    pub(super) fn new(now: u64) -> Self {
        Self {
            heads: vec![NIL; LISTS as usize],
            occupied: [0; LEVELS as usize],
            links: Vec::new(),
            elapsed: now.min(TIME_MAX - 1),
        }
    }

    /// Lays `item`, which is in no list, to fire at `at`: at the next [`Wheel::advance`] if that has passed.
    pub(super) fn insert(&mut self, item: u32, at: u64) {
        let index = item as usize;
        if index >= self.links.len() {
            self.links.resize(index + 1, Link { previous: NIL, next: NIL, list: NOWHERE });
        }
        self.push(self.list_for(at.min(TIME_MAX)), item);
    }

    /// Takes `item` out of whatever list it is in.
    pub(super) fn remove(&mut self, item: u32) {
        let Some(&Link { previous, next, list }) = self.links.get(item as usize) else { return };
        if list == NOWHERE {
            return;
        }
        self.links[item as usize].list = NOWHERE;
        let head = &mut self.heads[list as usize];
        if next == item {
            *head = NIL;
            self.mark(list, false);
            return;
        }
        if *head == item {
            *head = next;
        }
        self.links[previous as usize].next = next;
        self.links[next as usize].previous = previous;
    }

    /// Moves the wheel to `now`; every item that comes due on the way is passed to `due`. A time before the wheel's own
    /// only looks at overdue items.
    pub(super) fn advance(&mut self, now: u64, mut due: impl FnMut(u32) -> Due) {
        let now = now.min(TIME_MAX - 1);
        self.settle(OVERDUE, &mut due);
        while let Some((list, begins)) = self.next_slot() {
            if begins > now {
                break;
            }
            self.elapsed = begins;
            self.settle(list, &mut due);
        }
        self.elapsed = self.elapsed.max(now);
    }

    /// Puts a fired item, which is in no list, back among the ready ones.
    pub(super) fn make_ready(&mut self, item: u32) {
        self.push(READY, item);
    }

    /// Takes the item that has been ready for longest.
    pub(super) fn take_ready(&mut self) -> Option<u32> {
        self.pop(READY)
    }

    /// Empties one list. No item can come back into it: its new time is either later or belongs to a lower level.
    fn settle(&mut self, list: u32, due: &mut impl FnMut(u32) -> Due) {
        while let Some(item) = self.pop(list) {
            match due(item) {
                Due::Now => self.push(READY, item),
                Due::At(at) => {
                    // A caller whose clock stands a little later than the slot may name a time that is this slot's own.
                    let at = at.max(self.elapsed + 1).min(TIME_MAX);
                    self.push(self.list_for(at), item);
                }
            }
        }
    }

    /// Finds the earliest slot that is not empty, and when it begins.
    fn next_slot(&self) -> Option<(u32, u64)> {
        let (level, bits) = (0..LEVELS).zip(self.occupied).find(|&(_, bits)| bits != 0)?;
        let slot = bits.trailing_zeros();
        let shift = level * GROUP_BITS;
        let above = self.elapsed >> (shift + GROUP_BITS) << (shift + GROUP_BITS);
        Some((level * SLOTS + slot, above | u64::from(slot) << shift))
    }

    fn list_for(&self, at: u64) -> u32 {
        if at <= self.elapsed {
            return OVERDUE;
        }
        let level = (self.elapsed ^ at).ilog2() / GROUP_BITS;
        let slot = ((at >> (level * GROUP_BITS)) & 0x3f) as u32;
        level * SLOTS + slot
    }

    fn push(&mut self, list: u32, item: u32) {
        debug_assert_eq!(self.links[item as usize].list, NOWHERE, "an item is in one list only");
        let head = self.heads[list as usize];
        if head == NIL {
            self.heads[list as usize] = item;
            self.links[item as usize] = Link { previous: item, next: item, list };
            self.mark(list, true);
            return;
        }
        let tail = self.links[head as usize].previous;
        self.links[item as usize] = Link { previous: tail, next: head, list };
        self.links[tail as usize].next = item;
        self.links[head as usize].previous = item;
    }

    fn pop(&mut self, list: u32) -> Option<u32> {
        let head = self.heads[list as usize];
        if head == NIL {
            return None;
        }
        self.remove(head);
        Some(head)
    }

    fn mark(&mut self, list: u32, occupied: bool) {
        let (level, slot) = (list / SLOTS, list % SLOTS);
        let Some(bits) = self.occupied.get_mut(level as usize) else { return };
        if occupied {
            *bits |= 1 << slot;
        } else {
            *bits &= !(1 << slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fired(wheel: &mut Wheel, now: u64, times: &[u64]) -> Vec<u32> {
        wheel.advance(now, |item| {
            let at = times[item as usize];
            if at <= now && at < TIME_MAX { Due::Now } else { Due::At(at) }
        });
        let mut out: Vec<u32> = std::iter::from_fn(|| wheel.take_ready()).collect();
        out.sort_unstable();
        out
    }

    proptest! {
        #[test]
        fn items_fire_exactly_when_their_time_has_come(
            start in 0_u64..1 << 40,
            items in prop::collection::vec((0_u64..1 << 20, 0_u64..1 << 18, any::<bool>()), 1..60),
            steps in prop::collection::vec(0_u64..1 << 16, 1..40),
        ) {
            let mut wheel = Wheel::new(start);
            let mut times: Vec<u64> = items.iter().map(|item| start + item.0).collect();
            for (item, &at) in (0..).zip(&times) {
                wheel.insert(item, at);
            }
            let mut waiting: Vec<bool> = vec![true; items.len()];
            for (item, &(_, put_off, removed)) in (0..).zip(&items) {
                times[item as usize] += put_off;
                if removed {
                    wheel.remove(item);
                    waiting[item as usize] = false;
                }
            }
            let mut now = start;
            for step in steps {
                now += step;
                let mut expected = Vec::new();
                for (item, (waits, &at)) in (0..).zip(waiting.iter_mut().zip(&times)) {
                    if *waits && at <= now {
                        *waits = false;
                        expected.push(item);
                    }
                }
                prop_assert_eq!(fired(&mut wheel, now, &times), expected);
            }
        }
    }

    #[test]
    fn far_times_and_a_clock_that_stands_still_are_fine() {
        let mut wheel = Wheel::new(0);
        let times = [u64::MAX, 5, 5];
        for (item, &at) in (0..).zip(&times) {
            wheel.insert(item, at);
        }
        assert_eq!(fired(&mut wheel, 4, &times), Vec::<u32>::new());
        assert_eq!(fired(&mut wheel, 5, &times), vec![1, 2]);
        wheel.insert(1, 5);
        assert_eq!(fired(&mut wheel, 5, &times), vec![1], "overdue at once, at the same time");
        wheel.insert(2, 3);
        assert_eq!(fired(&mut wheel, 1, &times), Vec::<u32>::new());
        assert_eq!(fired(&mut wheel, u64::MAX, &times), vec![2], "the end of time never comes");
    }
}
