//! An interval tree: which ranges contain a key?
//!
//! An AVL tree ordered by (start, end), each node knowing the furthest end below it; balanced whatever clients choose to watch. Watchers
//! of the same range share a node. Insert and remove are O(log n); a look-up visits only subtrees that reach beyond the key.

use std::cmp::Ordering;
use std::sync::Arc;

use slab::Slab;

use super::index::Members;
use super::span::Range;

const NIL: u32 = u32::MAX;

#[derive(Debug)]
struct Node {
    range: Range,
    members: Members,
    left: u32,
    right: u32,
    /// The node of this subtree whose end is furthest.
    furthest: u32,
    height: u32,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct IntervalTree {
    nodes: Slab<Node>,
    root: u32,
}

impl Default for IntervalTree {
    fn default() -> Self {
        Self { nodes: Slab::new(), root: NIL }
    }
}

impl IntervalTree {
    /// Adds `member` to the range.
    pub(super) fn insert(&mut self, range: &Range, member: u32) {
        self.root = self.insert_below(self.root, range, member);
    }

    /// Takes `member` out of the range, if it is there.
    pub(super) fn remove(&mut self, range: &Range, member: u32) {
        self.root = self.remove_below(self.root, range, member);
    }

    /// Calls `hit` for each member of each range that contains `key`.
    pub(super) fn find(&self, key: &[u8], hit: &mut impl FnMut(u32)) {
        self.find_below(self.root, key, hit);
    }

    fn find_below(&self, at: u32, key: &[u8], hit: &mut impl FnMut(u32)) {
        let Some(node) = self.nodes.get(at as usize) else { return };
        if !self.nodes[node.furthest as usize].range.reaches_beyond(key) {
            return;
        }
        self.find_below(node.left, key, hit);
        if *node.range.start <= *key {
            if node.range.reaches_beyond(key) {
                node.members.for_each(hit);
            }
            self.find_below(node.right, key, hit);
        }
    }

    fn insert_below(&mut self, at: u32, range: &Range, member: u32) -> u32 {
        let Some(node) = self.nodes.get_mut(at as usize) else { return self.add(range, member) };
        match range.cmp(&node.range) {
            Ordering::Equal => {
                node.members.insert(member);
                return at;
            }
            Ordering::Less => {
                let left = node.left;
                let left = self.insert_below(left, range, member);
                self.nodes[at as usize].left = left;
            }
            Ordering::Greater => {
                let right = node.right;
                let right = self.insert_below(right, range, member);
                self.nodes[at as usize].right = right;
            }
        }
        self.balance(at)
    }

    fn add(&mut self, range: &Range, member: u32) -> u32 {
        let entry = self.nodes.vacant_entry();
        let at = u32::try_from(entry.key()).expect("memory ends before 2^32 ranges");
        entry.insert(Node {
            range: range.clone(),
            members: Members::One(member),
            left: NIL,
            right: NIL,
            furthest: at,
            height: 1,
        });
        at
    }

    fn remove_below(&mut self, at: u32, range: &Range, member: u32) -> u32 {
        let Some(node) = self.nodes.get_mut(at as usize) else { return NIL };
        match range.cmp(&node.range) {
            Ordering::Equal => {
                if !node.members.remove(member) {
                    return at;
                }
                return self.drop_node(at);
            }
            Ordering::Less => {
                let left = node.left;
                let left = self.remove_below(left, range, member);
                self.nodes[at as usize].left = left;
            }
            Ordering::Greater => {
                let right = node.right;
                let right = self.remove_below(right, range, member);
                self.nodes[at as usize].right = right;
            }
        }
        self.balance(at)
    }

    /// Removes a node and returns the root of what was below it.
    fn drop_node(&mut self, at: u32) -> u32 {
        let Node { left, right, .. } = self.nodes.remove(at as usize);
        if left == NIL {
            return right;
        }
        if right == NIL {
            return left;
        }
        let (least, rest) = self.take_least(right);
        self.nodes[least as usize].left = left;
        self.nodes[least as usize].right = rest;
        self.balance(least)
    }

    /// Cuts the least node off a subtree: returns it and what remains.
    fn take_least(&mut self, at: u32) -> (u32, u32) {
        let Node { left, right, .. } = self.nodes[at as usize];
        if left == NIL {
            return (at, right);
        }
        let (least, rest) = self.take_least(left);
        self.nodes[at as usize].left = rest;
        (least, self.balance(at))
    }

    /// Restores a node's height, furthest end and balance after a change below it; returns the subtree's root.
    fn balance(&mut self, at: u32) -> u32 {
        self.update(at);
        let Node { left, right, .. } = self.nodes[at as usize];
        let (left_height, right_height) = (self.height(left), self.height(right));
        if left_height > right_height + 1 {
            let Node { left: outer, right: inner, .. } = self.nodes[left as usize];
            if self.height(inner) > self.height(outer) {
                self.nodes[at as usize].left = self.rotate_left(left);
            }
            return self.rotate_right(at);
        }
        if right_height > left_height + 1 {
            let Node { left: inner, right: outer, .. } = self.nodes[right as usize];
            if self.height(inner) > self.height(outer) {
                self.nodes[at as usize].right = self.rotate_right(right);
            }
            return self.rotate_left(at);
        }
        at
    }

    fn rotate_right(&mut self, at: u32) -> u32 {
        let top = self.nodes[at as usize].left;
        self.nodes[at as usize].left = self.nodes[top as usize].right;
        self.nodes[top as usize].right = at;
        self.update(at);
        self.update(top);
        top
    }

    fn rotate_left(&mut self, at: u32) -> u32 {
        let top = self.nodes[at as usize].right;
        self.nodes[at as usize].right = self.nodes[top as usize].left;
        self.nodes[top as usize].left = at;
        self.update(at);
        self.update(top);
        top
    }

    fn update(&mut self, at: u32) {
        let Node { left, right, .. } = self.nodes[at as usize];
        let mut furthest = at;
        for child in [left, right] {
            let Some(child) = self.nodes.get(child as usize) else { continue };
            let candidate = &self.nodes[child.furthest as usize];
            if reach(candidate) > reach(&self.nodes[furthest as usize]) {
                furthest = child.furthest;
            }
        }
        let height = 1 + self.height(left).max(self.height(right));
        let node = &mut self.nodes[at as usize];
        node.furthest = furthest;
        node.height = height;
    }

    fn height(&self, at: u32) -> u32 {
        self.nodes.get(at as usize).map_or(0, |node| node.height)
    }
}

/// Orders ends; none is beyond all.
fn reach(node: &Node) -> (bool, Option<&Arc<[u8]>>) {
    (node.range.end.is_none(), node.range.end.as_ref())
}

#[cfg(test)]
impl IntervalTree {
    /// Checks order, balance and furthest ends; returns the number of nodes.
    pub(super) fn check(&self) -> usize {
        fn below<'a>(tree: &'a IntervalTree, at: u32, order: &mut Vec<&'a Node>) -> u32 {
            let Some(node) = tree.nodes.get(at as usize) else { return 0 };
            let from = order.len();
            let left = below(tree, node.left, order);
            order.push(node);
            let right = below(tree, node.right, order);
            assert!(left.abs_diff(right) <= 1, "the tree is balanced");
            assert_eq!(node.height, 1 + left.max(right));
            let furthest = order[from..].iter().map(|node| reach(node)).max();
            assert_eq!(Some(reach(&tree.nodes[node.furthest as usize])), furthest);
            node.height
        }
        let mut order = Vec::new();
        below(self, self.root, &mut order);
        assert!(order.is_sorted_by_key(|node| &node.range), "nodes are in order");
        assert_eq!(order.len(), self.nodes.len(), "no node is lost");
        order.len()
    }
}
