//! Walks a tree of pages in key order, verifying it on the way.

use std::sync::Arc;

use bytes::Bytes;

use super::reader::{DEPTH_MAX, Entry, Node, Root, Source};
use crate::fault::Fault;

/// The leaf elements of one tree in key order.
///
/// Keys strictly ascend and lie within what the branches above say. Hence no leaf is met twice, so that neither a cycle
/// nor a page with many parents makes the walk longer than the file.
#[derive(Debug)]
pub(super) struct Entries {
    source: Arc<Source>,
    /// Where to begin; taken by the first step.
    root: Option<Root>,
    /// The branches from the root to the current leaf, which is the last.
    stack: Vec<Frame>,
    last: Option<Bytes>,
    /// Collects the pages met, if anyone asks.
    reached: Option<Reached>,
}

#[derive(Debug)]
struct Frame {
    node: Node,
    next: usize,
    /// Keys must be less.
    below: Option<Bytes>,
}

impl Entries {
    pub(super) fn new(source: Arc<Source>, root: Root) -> Self {
        Self { source, root: Some(root), stack: Vec::new(), last: None, reached: None }
    }

    /// Has the pages met added to `reached`.
    pub(super) fn reaching(source: Arc<Source>, root: Root, reached: Reached) -> Self {
        let mut entries = Self::new(source, root);
        entries.reached = Some(reached);
        entries
    }

    /// Lends out the pages met.
    pub(super) fn take_reached(&mut self) -> Reached {
        self.reached.take().unwrap_or_else(|| Reached::new(0))
    }

    /// Takes back what [`Self::take_reached`] lent out.
    pub(super) fn give_reached(&mut self, reached: Reached) {
        self.reached = Some(reached);
    }

    pub(super) fn source(&self) -> &Arc<Source> {
        &self.source
    }

    fn step(&mut self) -> Result<Option<Entry>, Fault> {
        if let Some(root) = self.root.take() {
            self.descend(&root, None, None)?;
        }
        while let Some(frame) = self.stack.last_mut() {
            if frame.next == frame.node.count {
                self.stack.pop();
                continue;
            }
            let index = frame.next;
            frame.next += 1;
            if frame.node.is_leaf {
                let entry = frame.node.entry(index, &self.source)?;
                let page = frame.node.page;
                let is_below = frame.below.as_ref().is_none_or(|below| entry.key < *below);
                let ascends = self.last.as_ref().is_none_or(|last| *last < entry.key);
                if !is_below || !ascends || entry.key.is_empty() {
                    return Err(self.source.damaged(page, format!("key {index} is out of order")));
                }
                self.last = Some(entry.key.clone());
                return Ok(Some(entry));
            }
            let (key, child) = frame.node.child(index, &self.source)?;
            let below = if index + 1 < frame.node.count {
                Some(frame.node.child(index + 1, &self.source)?.0)
            } else {
                frame.below.clone()
            };
            self.descend(&Root::Page(child), Some(&key), below)?;
        }
        Ok(None)
    }

    /// Enters a node whose keys must lie in `from..below`.
    fn descend(
        &mut self,
        root: &Root,
        from: Option<&Bytes>,
        below: Option<Bytes>,
    ) -> Result<(), Fault> {
        let node = self.source.node(root)?;
        let damaged = |what: &str| Err(self.source.damaged(node.page, what));
        if self.stack.len() == DEPTH_MAX {
            return damaged("the tree is too deep");
        }
        // Only a whole tree may be empty.
        if node.count == 0 && !(node.is_leaf && self.stack.is_empty()) {
            return damaged("it is empty");
        }
        if let Some(from) = from {
            let first = if node.is_leaf {
                node.entry(0, &self.source)?.key
            } else {
                node.child(0, &self.source)?.0
            };
            if first < *from || below.as_ref().is_some_and(|below| first >= *below) {
                return damaged("its keys are not those its parent says");
            }
        }
        if !node.is_leaf {
            check_branch(&node, below.as_ref(), &self.source)?;
        }
        if let (Some(reached), Root::Page(page)) = (&mut self.reached, root) {
            reached.add(*page, node.pages(&self.source), &self.source)?;
        }
        self.stack.push(Frame { node, next: 0, below });
        Ok(())
    }
}

/// Checks that a branch's keys ascend and stay below its bound.
fn check_branch(node: &Node, below: Option<&Bytes>, source: &Source) -> Result<(), Fault> {
    let mut previous: Option<Bytes> = None;
    for index in 0..node.count {
        let (key, _) = node.child(index, source)?;
        let ascends = previous.is_none_or(|previous| previous < key);
        if !ascends || below.is_some_and(|below| key >= *below) {
            return Err(source.damaged(node.page, format!("key {index} is out of order")));
        }
        previous = Some(key);
    }
    Ok(())
}

impl Iterator for Entries {
    type Item = Result<Entry, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.stack.clear();
        }
        step.transpose()
    }
}

/// Which pages of a file have been met.
#[derive(Debug)]
pub(super) struct Reached {
    bits: Vec<u64>,
}

impl Reached {
    pub(super) fn new(pages: u64) -> Self {
        Self { bits: vec![0; crate::length(pages.div_ceil(64))] }
    }

    pub(super) fn contains(&self, page: u64) -> bool {
        let word = self.bits.get(crate::length(page / 64));
        word.is_some_and(|word| word >> (page % 64) & 1 == 1)
    }

    /// Adds pages, of which none may have been met before.
    pub(super) fn add(&mut self, page: u64, pages: u64, source: &Source) -> Result<(), Fault> {
        for page in page..page.saturating_add(pages) {
            let Some(word) = self.bits.get_mut(crate::length(page / 64)) else {
                return Err(source.damaged(page, "no such page"));
            };
            if *word >> (page % 64) & 1 == 1 {
                return Err(source.damaged(page, "it is used twice"));
            }
            *word |= 1 << (page % 64);
        }
        Ok(())
    }
}
