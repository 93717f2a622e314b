//! Grows a tree of pages from ascending pairs, with the same outcome whether the bytes are there or only their lengths.
//!
//! A leaf is closed when it holds two pairs and the next would fill it beyond nine tenths. A branch follows its children
//! as soon as it is known to be full, so that pages come in the order of their ids and no more than the unfinished
//! nodes, one per level, are in memory.

use bytes::Bytes;

use super::page::{ELEMENT_BYTES, HEADER_BYTES};

/// Every node but the last ones of a level has at least this many elements.
const ELEMENTS_MIN: usize = 2;

/// A key or a value, or what stands for it.
pub(super) trait Part: Clone {
    fn len(&self) -> usize;
}

impl Part for Bytes {
    fn len(&self) -> usize {
        self.len()
    }
}

/// The length of a key or value that is not at hand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Length(pub(super) usize);

impl Part for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// Takes the nodes in the order of their pages.
pub(super) trait NodeSink<P> {
    fn leaf(&mut self, page: u64, pairs: &[(P, P)]);
    fn branch(&mut self, page: u64, children: &[(P, u64)]);
}

/// Lengths alone make no pages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nowhere;

impl<P> NodeSink<P> for Nowhere {
    fn leaf(&mut self, _page: u64, _pairs: &[(P, P)]) {}
    fn branch(&mut self, _page: u64, _children: &[(P, u64)]) {}
}

/// A tree that grows.
#[derive(Debug)]
pub(super) struct Tree<P> {
    page_size: u64,
    next_page: u64,
    leaf: Vec<(P, P)>,
    leaf_bytes: usize,
    /// Least keys and pages of nodes whose branch is not closed, by level from below.
    levels: Vec<Vec<(P, u64)>>,
}

impl<P: Part> Tree<P> {
    /// Begins a tree whose first page is `next_page`.
    pub(super) fn new(page_size: u32, next_page: u64) -> Self {
        let page_size = u64::from(page_size);
        Self {
            page_size,
            next_page,
            leaf: Vec::new(),
            leaf_bytes: HEADER_BYTES,
            levels: Vec::new(),
        }
    }

    /// The first page that no node has taken.
    pub(super) fn next_page(&self) -> u64 {
        self.next_page
    }

    pub(super) fn push(&mut self, key: P, value: P, sink: &mut impl NodeSink<P>) {
        let bytes = pair_bytes(key.len(), value.len());
        if self.leaf.len() >= ELEMENTS_MIN && self.leaf_bytes + bytes > self.filled() {
            self.close_leaf(sink);
        }
        self.leaf.push((key, value));
        self.leaf_bytes += bytes;
    }

    /// Closes all nodes and returns the root's page and the first page behind the tree. There has to be a pair.
    pub(super) fn finish(mut self, sink: &mut impl NodeSink<P>) -> (u64, u64) {
        assert!(!self.leaf.is_empty(), "a bucket without pairs is stored inline");
        self.close_leaf(sink);
        let mut level = 0;
        loop {
            if let ([(_, root)], true) = (&self.levels[level][..], level + 1 == self.levels.len()) {
                return (*root, self.next_page);
            }
            while !self.levels[level].is_empty() {
                let children = &self.levels[level];
                let count = match fitting(children, self.filled()) {
                    fitting if fitting == children.len() => fitting,
                    // Rather three in one branch than one alone.
                    _ if children.len() == ELEMENTS_MIN + 1 => children.len(),
                    fitting if fitting + 1 == children.len() => fitting - 1,
                    fitting => fitting,
                };
                self.close_branch(level, count, sink);
            }
            level += 1;
        }
    }

    /// How full a node may be before the next element goes to a new one.
    fn filled(&self) -> usize {
        crate::length(self.page_size / 10 * 9)
    }

    fn close_leaf(&mut self, sink: &mut impl NodeSink<P>) {
        let page = self.allocate(self.leaf_bytes);
        sink.leaf(page, &self.leaf);
        if let Some((key, _)) = self.leaf.first() {
            self.add_child(0, key.clone(), page, sink);
        }
        self.leaf.clear();
        self.leaf_bytes = HEADER_BYTES;
    }

    fn add_child(&mut self, level: usize, key: P, page: u64, sink: &mut impl NodeSink<P>) {
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        self.levels[level].push((key, page));
        let fitting = fitting(&self.levels[level], self.filled());
        // Enough are left for a branch of their own, whatever follows.
        if fitting + ELEMENTS_MIN <= self.levels[level].len() {
            self.close_branch(level, fitting, sink);
        }
    }

    /// Makes a branch of the first `count` nodes of `level`.
    fn close_branch(&mut self, level: usize, count: usize, sink: &mut impl NodeSink<P>) {
        let children: Vec<_> = self.levels[level].drain(..count).collect();
        let bytes: usize = children.iter().map(|(key, _)| ELEMENT_BYTES + key.len()).sum();
        let page = self.allocate(HEADER_BYTES + bytes);
        sink.branch(page, &children);
        if let Some((key, _)) = children.into_iter().next() {
            self.add_child(level + 1, key, page, sink);
        }
    }

    fn allocate(&mut self, bytes: usize) -> u64 {
        let page = self.next_page;
        self.next_page += (bytes as u64).div_ceil(self.page_size);
        page
    }
}

/// What a pair takes in a leaf.
pub(super) fn pair_bytes(key: usize, value: usize) -> usize {
    ELEMENT_BYTES + key + value
}

/// Counts the children that one branch takes, at least [`ELEMENTS_MIN`] if there are so many.
fn fitting<P: Part>(children: &[(P, u64)], filled: usize) -> usize {
    let mut bytes = HEADER_BYTES;
    for (index, (key, _)) in children.iter().enumerate() {
        bytes += ELEMENT_BYTES + key.len();
        if bytes > filled && index >= ELEMENTS_MIN {
            return index;
        }
    }
    children.len()
}
