//! Turns nodes into the bytes of pages.

use bytes::Bytes;

use super::grow::NodeSink;
use super::page::{BRANCH, ELEMENT_BYTES, HEADER_BYTES, Header, LEAF, META, Meta};

/// Pages, one behind the other.
#[derive(Debug)]
pub(super) struct Pages {
    pub(super) page_size: usize,
    pub(super) out: Vec<u8>,
}

impl Pages {
    pub(super) fn meta(&mut self, page: u64, meta: Meta) {
        let header = Header { id: page, kind: META, count: 0, overflow: 0 };
        self.out.extend_from_slice(&header.encode());
        self.out.extend_from_slice(&meta.encode());
        self.pad();
    }

    /// Appends a leaf whose elements all have `flags`.
    pub(super) fn flagged_leaf(&mut self, page: u64, flags: u32, pairs: &[(Bytes, Bytes)]) {
        let start = self.out.len();
        append_leaf(page, flags, pairs, &mut self.out);
        self.finish_node(start);
    }

    /// Says in the header of the node begun at `start` how many pages it covers, and fills the last.
    fn finish_node(&mut self, start: usize) {
        let pages = (self.out.len() - start).div_ceil(self.page_size);
        self.out[start + 12..start + HEADER_BYTES]
            .copy_from_slice(&narrow::<u32>(pages - 1).to_le_bytes());
        self.out.resize(start + pages * self.page_size, 0);
    }

    fn pad(&mut self) {
        self.out.resize(self.out.len().next_multiple_of(self.page_size), 0);
    }
}

impl NodeSink<Bytes> for Pages {
    fn leaf(&mut self, page: u64, pairs: &[(Bytes, Bytes)]) {
        self.flagged_leaf(page, 0, pairs);
    }

    fn branch(&mut self, page: u64, children: &[(Bytes, u64)]) {
        let start = self.out.len();
        let header = Header { id: page, kind: BRANCH, count: narrow(children.len()), overflow: 0 };
        self.out.extend_from_slice(&header.encode());
        let mut position = children.len() * ELEMENT_BYTES;
        for (key, child) in children {
            self.out.extend_from_slice(&narrow::<u32>(position).to_le_bytes());
            self.out.extend_from_slice(&narrow::<u32>(key.len()).to_le_bytes());
            self.out.extend_from_slice(&child.to_le_bytes());
            position = position - ELEMENT_BYTES + key.len();
        }
        for (key, _) in children {
            self.out.extend_from_slice(key);
        }
        self.finish_node(start);
    }
}

/// Appends a leaf without filling its page, as it lies in the value of an inline bucket.
pub(super) fn append_leaf(page: u64, flags: u32, pairs: &[(Bytes, Bytes)], out: &mut Vec<u8>) {
    let header = Header { id: page, kind: LEAF, count: narrow(pairs.len()), overflow: 0 };
    out.extend_from_slice(&header.encode());
    let mut position = pairs.len() * ELEMENT_BYTES;
    for (key, value) in pairs {
        for field in [flags, narrow(position), narrow(key.len()), narrow(value.len())] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        position = position - ELEMENT_BYTES + key.len() + value.len();
    }
    for (key, value) in pairs {
        out.extend_from_slice(key);
        out.extend_from_slice(value);
    }
}

fn narrow<T: TryFrom<usize, Error: std::fmt::Debug>>(number: usize) -> T {
    T::try_from(number)
        .expect("lengths were checked: a node has less than 65,535 elements in less than 4 GiB")
}
