//! The levels above the leaves: a B+tree whose nodes know how many live keys are below and when the last changed.
//!
//! Branches are split when they are full. Keys leave only by compaction, which joins what has become small on its way.

use std::ops::ControlFlow;

use super::history::Histories;
use super::leaf::{Leaf, Place, Write, Written};
use super::sweep::Sweep;
use super::{Count, Found, Revision, Visit, Walk};

const CHILDREN_MAX: usize = 64;
/// What looking into a branch takes of a walk's keys.
const BRANCH_KEYS: usize = 4;
/// Neighbour branches with together this many children or fewer become one.
const CHILDREN_MERGE: usize = 48;

/// A node and what its parent knows of it.
#[derive(Debug, Default)]
pub(super) struct Child {
    /// Not above any key below this node; above all keys of the node before. Means nothing in the first child of a
    /// branch, where the branch's own holds.
    low: Box<[u8]>,
    live: usize,
    /// No key below has changed after this main revision.
    newest: i64,
    node: Node,
}

#[derive(Debug)]
enum Node {
    Leaf(Leaf),
    Branch(Box<Branch>),
}

impl Default for Node {
    fn default() -> Self {
        Self::Leaf(Leaf::default())
    }
}

/// Invariant: not empty; `prefix` and `heads` agree with `children` (see [`Branch::index`]).
#[derive(Debug)]
struct Branch {
    children: Vec<Child>,
    /// Bytes that the lows of all children but the first share.
    prefix: usize,
    /// The next eight bytes of each of these lows, so that a search seldom leaves this one array.
    heads: Vec<u64>,
}

/// A range of keys; `None` where the node as a whole lies inside.
pub(super) type Bounds<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

impl Child {
    /// Live keys.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// What a reader of `key` at main revision `at` sees.
    pub(super) fn get(&self, key: &[u8], at: i64, histories: &Histories) -> Option<Found> {
        let mut child = self;
        loop {
            match &child.node {
                Node::Leaf(leaf) => return leaf.get(key, at, histories),
                Node::Branch(branch) => child = &branch.children[branch.find(key)],
            }
        }
    }

    /// Makes a change to `key`. The second result is a new next sibling, if the node had to be split.
    pub(super) fn write(
        &mut self,
        key: &[u8],
        revision: Revision,
        write: Write,
        histories: &mut Histories,
    ) -> (Written, Option<Self>) {
        let (written, split) = match &mut self.node {
            Node::Leaf(leaf) => {
                let written = leaf.write(key, revision, write, histories);
                let place = written.inserted.unwrap_or(Place::Between);
                // The halves of a leaf do not know which of them changed last.
                let newest = self.newest.max(revision.main);
                let split = leaf.is_overfull().then(|| Self::of_leaf(leaf.split(place), newest));
                (written, split)
            }
            Node::Branch(branch) => {
                let index = branch.find(key);
                let (written, split) =
                    branch.children[index].write(key, revision, write, histories);
                (written, split.and_then(|child| branch.insert(index + 1, child)))
            }
        };
        if let Some(after) = written.after {
            let was_alive = written.before.is_some_and(|before| !before.tombstone);
            self.live = self.live + usize::from(!after.tombstone) - usize::from(was_alive);
            self.newest = self.newest.max(after.revision.main);
        }
        self.live -= split.as_ref().map_or(0, Self::live);
        (written, split)
    }

    /// Puts a branch above `self`, the root, and `sibling`.
    pub(super) fn grow(&mut self, sibling: Self) {
        let left = std::mem::take(self);
        self.live = left.live + sibling.live;
        self.newest = left.newest.max(sibling.newest);
        self.node = Node::Branch(Box::new(Branch::new(vec![left, sibling])));
    }

    /// Visits the keys within `bounds` that exist at `visit.at`, until told to stop.
    pub(super) fn visit(&self, bounds: Bounds<'_>, visit: &mut Visit<'_>) -> ControlFlow<()> {
        if self.is_dead_at(visit.at) {
            return ControlFlow::Continue(());
        }
        match &self.node {
            Node::Leaf(leaf) => leaf.visit(bounds, visit),
            Node::Branch(branch) => {
                for (place, (child, bounds)) in branch.within(bounds).enumerate() {
                    visit.walk.enter(place, &child.low)?;
                    child.visit(bounds, visit)?;
                }
                ControlFlow::Continue(())
            }
        }
    }

    /// Counts the keys within `bounds` that exist at `count.at`, until the walk is over. Looks only into nodes that the
    /// bounds cut or that have changed since.
    pub(super) fn count(&self, bounds: Bounds<'_>, count: &mut Count<'_>) -> ControlFlow<()> {
        if self.is_dead_at(count.at) || bounds == (None, None) && self.newest <= count.at {
            count.keys += self.live;
            return ControlFlow::Continue(());
        }
        match &self.node {
            Node::Leaf(leaf) => leaf.count(bounds, count),
            Node::Branch(branch) => {
                count.walk.look_at(BRANCH_KEYS);
                for (place, (child, bounds)) in branch.within(bounds).enumerate() {
                    count.walk.enter(place, &child.low)?;
                    child.count(bounds, count)?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// The key with `rank` keys before it, counting those that exist at main revision `at`.
    pub(super) fn nth(&self, mut rank: usize, at: i64, histories: &Histories) -> Option<Vec<u8>> {
        let branch = match &self.node {
            Node::Leaf(leaf) => return leaf.nth(rank, at, histories),
            Node::Branch(branch) => branch,
        };
        for child in &branch.children {
            let mut count = Count { at, histories, walk: Walk::of(usize::MAX), keys: 0 };
            let _over = child.count((None, None), &mut count);
            if rank < count.keys {
                return child.nth(rank, at, histories);
            }
            rank -= count.keys;
        }
        None
    }

    /// Surveys the keys of the leaf where `sweep` stands for what a compaction would keep, and moves it on. `upper` is the
    /// end of this node. Returns how many keys there were.
    pub(super) fn survey(
        &self,
        upper: Option<&[u8]>,
        sweep: &mut Sweep,
        histories: &Histories,
    ) -> usize {
        match &self.node {
            Node::Leaf(leaf) => {
                let from = sweep.from().to_vec();
                leaf.survey(&from, sweep, histories);
                sweep.advance(upper.map(<[u8]>::to_vec));
                leaf.keys()
            }
            Node::Branch(branch) => {
                let index = branch.find(sweep.from());
                let upper = branch.upper(index).or(upper);
                branch.children[index].survey(upper, sweep, histories)
            }
        }
    }

    /// Compacts the leaf where `sweep` stands and moves it on. Returns how many keys there were, and how many went.
    pub(super) fn compact(
        &mut self,
        upper: Option<&[u8]>,
        sweep: &mut Sweep,
        histories: &mut Histories,
    ) -> (usize, usize) {
        match &mut self.node {
            Node::Leaf(leaf) => {
                let from = sweep.from().to_vec();
                let keys = leaf.keys();
                let mut removed = 0;
                if leaf.survey(&from, sweep, histories) {
                    removed = leaf.compact(&from, sweep.at(), histories);
                }
                sweep.advance(upper.map(<[u8]>::to_vec));
                (keys, removed)
            }
            Node::Branch(branch) => {
                let index = branch.find(sweep.from());
                let inner = branch.upper(index).map(<[u8]>::to_vec);
                let upper = inner.as_deref().or(upper);
                let result = branch.children[index].compact(upper, sweep, histories);
                branch.tidy(index);
                result
            }
        }
    }

    /// Takes levels away that have only one node.
    pub(super) fn collapse(&mut self) {
        while let Node::Branch(branch) = &mut self.node
            && branch.children.len() == 1
            && let Some(only) = branch.children.pop()
        {
            self.node = only.node;
        }
    }

    /// Bytes on the heap below this node.
    pub(super) fn memory_bytes(&self) -> usize {
        self.low.len()
            + match &self.node {
                Node::Leaf(leaf) => leaf.memory_bytes(),
                Node::Branch(branch) => {
                    size_of::<Branch>()
                        + branch.children.capacity() * size_of::<Self>()
                        + branch.heads.capacity() * size_of::<u64>()
                        + branch.children.iter().map(Self::memory_bytes).sum::<usize>()
                }
            }
    }

    fn of_leaf((low, leaf): (Box<[u8]>, Leaf), newest: i64) -> Self {
        Self { low, live: leaf.live(), newest, node: Node::Leaf(leaf) }
    }

    fn of_branch(children: Vec<Self>) -> Self {
        Self {
            low: children[0].low.clone(),
            live: children.iter().map(|child| child.live).sum(),
            newest: children.iter().map(|child| child.newest).max().unwrap_or_default(),
            node: Node::Branch(Box::new(Branch::new(children))),
        }
    }

    fn is_dead_at(&self, at: i64) -> bool {
        self.live == 0 && self.newest <= at
    }

    fn is_empty(&self) -> bool {
        match &self.node {
            Node::Leaf(leaf) => leaf.keys() == 0,
            Node::Branch(branch) => matches!(branch.children.as_slice(), [only] if only.is_empty()),
        }
    }

    fn should_absorb(&self, right: &Self) -> bool {
        match (&self.node, &right.node) {
            (Node::Leaf(left), Node::Leaf(right)) => left.should_absorb(right),
            (Node::Branch(left), Node::Branch(right)) => {
                left.children.len() + right.children.len() <= CHILDREN_MERGE
            }
            (Node::Leaf(_), Node::Branch(_)) | (Node::Branch(_), Node::Leaf(_)) => false,
        }
    }

    /// Takes over the keys of `right`, the next node, which [`Self::should_absorb`] approved.
    fn absorb(&mut self, mut right: Self) {
        self.live += right.live;
        self.newest = self.newest.max(right.newest);
        match (&mut self.node, &mut right.node) {
            (Node::Leaf(left), Node::Leaf(right)) => left.absorb(right),
            (Node::Branch(left), Node::Branch(branch)) => {
                // The first child's own low may have become too high; the branch's holds.
                branch.children[0].low = right.low;
                left.children.append(&mut branch.children);
                left.index();
            }
            (Node::Leaf(_), Node::Branch(_)) | (Node::Branch(_), Node::Leaf(_)) => {
                unreachable!("all leaves lie on one level")
            }
        }
    }
}

impl Branch {
    fn new(children: Vec<Child>) -> Self {
        let mut branch = Self { children, prefix: 0, heads: Vec::new() };
        branch.index();
        branch
    }

    /// Rebuilds `prefix` and `heads`.
    fn index(&mut self) {
        let lows = &self.children[1..];
        self.prefix = match (lows.first(), lows.last()) {
            (Some(first), Some(last)) => {
                first.low.iter().zip(&last.low).take_while(|(a, b)| a == b).count()
            }
            _ => 0,
        };
        self.heads.clear();
        self.heads.extend(lows.iter().map(|child| head(&child.low[self.prefix..])));
    }

    /// The child where `key` belongs.
    #[inline]
    fn find(&self, key: &[u8]) -> usize {
        let lows = &self.children[1..];
        let Some(first) = lows.first() else { return 0 };
        let shared = self.prefix.min(key.len());
        match key[..shared].cmp(&first.low[..self.prefix]) {
            std::cmp::Ordering::Less => return 0,
            std::cmp::Ordering::Greater => return lows.len(),
            std::cmp::Ordering::Equal => {}
        }
        let wanted = head(&key[shared..]);
        let mut index = self.heads.partition_point(|head| *head < wanted);
        while index < lows.len() && self.heads[index] == wanted && *lows[index].low <= *key {
            index += 1;
        }
        index
    }

    /// The end of a child, unless it is the branch's own.
    fn upper(&self, index: usize) -> Option<&[u8]> {
        self.children.get(index + 1).map(|child| &*child.low)
    }

    /// The children that `bounds` touch, each with what the bounds mean to it.
    fn within<'a>(
        &'a self,
        (start, end): Bounds<'a>,
    ) -> impl Iterator<Item = (&'a Child, Bounds<'a>)> {
        let first = start.map_or(0, |key| self.find(key));
        let last = end.map_or(self.children.len() - 1, |key| self.find(key));
        (first..=last).map(move |index| {
            let start = if index == first { start } else { None };
            let end = if index == last { end } else { None };
            (&self.children[index], (start, end))
        })
    }

    /// Adds a child; returns a new next sibling of this branch if it is full.
    fn insert(&mut self, index: usize, child: Child) -> Option<Child> {
        if self.children.len() < CHILDREN_MAX {
            self.children.insert(index, child);
            self.index();
            return None;
        }
        // As in leaves, keys that come in order must not leave half empty nodes behind.
        let right = if index == self.children.len() {
            vec![child]
        } else {
            let middle = self.children.len() / 2;
            let mut right = self.children.split_off(middle);
            if index <= middle {
                self.children.insert(index, child);
            } else {
                right.insert(index - middle, child);
            }
            right
        };
        self.children.shrink_to_fit();
        self.index();
        Some(Child::of_branch(right))
    }

    /// Joins the child at `index`, which has just been compacted, with a neighbour if they are small.
    ///
    /// A leaf goes into the one before, never the other way round: what comes after has yet to be compacted.
    fn tidy(&mut self, index: usize) {
        let child = &self.children[index];
        if child.is_empty() && self.children.len() > 1 {
            self.children.remove(index);
            self.index();
        } else if index > 0 && self.children[index - 1].should_absorb(child) {
            let right = self.children.remove(index);
            self.children[index - 1].absorb(right);
            self.index();
        }
        if let [left, right, ..] = self.children.as_slice()
            && index == 0
            && matches!(left.node, Node::Branch(_))
            && left.should_absorb(right)
        {
            let right = self.children.remove(1);
            self.children[0].absorb(right);
            self.index();
        }
    }
}

/// The first eight bytes as a number that sorts alike; missing ones count as zero.
fn head(bytes: &[u8]) -> u64 {
    let mut head = [0; 8];
    let len = bytes.len().min(8);
    head[..len].copy_from_slice(&bytes[..len]);
    u64::from_be_bytes(head)
}

#[cfg(test)]
impl Child {
    /// Asserts the invariants of this file's types below this node. Returns height, keys and newest main revision.
    pub(super) fn assert_sound(
        &self,
        (low, upper): Bounds<'_>,
        histories: &Histories,
    ) -> (usize, usize, i64) {
        let (height, keys, live, newest) = match &self.node {
            Node::Leaf(leaf) => {
                (0, leaf.keys(), leaf.live(), leaf.assert_sound((low, upper), histories))
            }
            Node::Branch(branch) => {
                let (mut heights, mut keys, mut live, mut newest) = (Vec::new(), 0, 0, 0);
                assert!((1..=CHILDREN_MAX).contains(&branch.children.len()));
                assert_eq!(branch.heads.len() + 1, branch.children.len());
                for (index, child) in branch.children.iter().enumerate() {
                    let low = if index == 0 { low } else { Some(&*child.low) };
                    let upper = branch.upper(index).or(upper);
                    assert!(low < upper || upper.is_none(), "lows ascend");
                    let (height, below, changed) = child.assert_sound((low, upper), histories);
                    heights.push(height);
                    keys += below;
                    live += child.live;
                    newest = newest.max(changed);
                }
                heights.dedup();
                assert_eq!(heights.len(), 1, "all leaves lie on one level");
                (heights[0] + 1, keys, live, newest)
            }
        };
        assert_eq!(live, self.live);
        assert!(newest <= self.newest);
        (height, keys, newest)
    }
}
