//! Reads a bbolt file through the disk, page by page, and trusts nothing in it.
//!
//! Every number is checked against the file before it is used: a node ends within the pages it claims, these lie below
//! the high-water mark, that lies within the file. Trees cannot be endless: their depth is bounded and keys must ascend
//! within the bounds that their parents set. What is wrong becomes [`Fault::Damaged`] with the page's offset.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::entries::Entries;
use super::page::{
    BRANCH, BUCKET, BUCKET_HEADER_BYTES, ELEMENT_BYTES, HEADER_BYTES, Header, LEAF, META_BYTES,
    Meta, PAGE_BYTES_MAX, PAGE_BYTES_MIN, u32_at, u64_at,
};
use crate::disk::{Disk, File, OpenMode};
use crate::fault::{Fault, OrFault};

const REMEDY: &str = "use another backup, or copy the file anew from a healthy member";
/// The most that one node may take: far beyond two of etcd's largest values.
const NODE_BYTES_MAX: u64 = 1 << 30;
/// A tree with two children per branch reaches any page id earlier.
pub(super) const DEPTH_MAX: usize = 64;

/// An open bbolt file.
#[derive(Debug, Clone)]
pub struct Bolt {
    pub(super) source: Arc<Source>,
}

impl Bolt {
    /// Opens the file at `path` for reading.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self, Fault> {
        let file = disk.open(path, OpenMode::Read).or_fault("open", path)?;
        Self::from_file(file, path)
    }

    /// Reads `file`, called `path` in messages. It may be longer than the image: etcd extends its files ahead, and a
    /// snapshot file ends with a checksum.
    pub fn from_file(file: Box<dyn File>, path: &Path) -> Result<Self, Fault> {
        let len = file.len().or_fault("look at", path)?;
        let meta = current_meta(&*file, path)?;
        let image_len = meta.high_water.checked_mul(u64::from(meta.page_size));
        if meta.high_water <= 2 || image_len.is_none_or(|image_len| image_len > len) {
            let pages = meta.high_water;
            let what = format!("its {pages} pages do not fit into its {len} bytes");
            return Err(Fault::damaged(path, 0, what, REMEDY));
        }
        Ok(Self { source: Arc::new(Source { file, path: path.to_owned(), meta }) })
    }

    /// Returns the image's length: what follows in the file does not belong to it.
    pub fn image_len(&self) -> u64 {
        self.source.meta.high_water * u64::from(self.source.meta.page_size)
    }

    /// Returns the page size of the machine that made the file.
    pub fn page_size(&self) -> u32 {
        self.source.meta.page_size
    }

    /// Iterates over the buckets in the order of their names.
    pub fn buckets(&self) -> Buckets {
        Buckets { entries: Entries::new(Arc::clone(&self.source), self.root()) }
    }

    /// Finds a bucket by its name.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket>, Fault> {
        match find(&self.source, self.root(), name)? {
            Some(entry) if entry.is_bucket => self.source.bucket(&entry).map(Some),
            Some(_) | None => Ok(None),
        }
    }

    pub(super) fn root(&self) -> Root {
        Root::Page(self.source.meta.root)
    }
}

/// Buckets in the order of their names; made by [`Bolt::buckets`].
#[derive(Debug)]
pub struct Buckets {
    entries: Entries,
}

impl Iterator for Buckets {
    type Item = Result<(Bytes, Bucket), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        Some(entry.and_then(|entry| {
            let bucket = self.entries.source().bucket(&entry)?;
            Ok((entry.key, bucket))
        }))
    }
}

/// One bucket of a file.
#[derive(Debug, Clone)]
pub struct Bucket {
    source: Arc<Source>,
    pub(super) root: Root,
    sequence: u64,
}

impl Bucket {
    /// Iterates over the pairs in key order, reading a page at a time. Fails on a bucket within the bucket.
    pub fn pairs(&self) -> Pairs {
        Pairs { entries: Entries::new(Arc::clone(&self.source), self.root.clone()) }
    }

    /// Returns the value of `key`.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        let entry = find(&self.source, self.root.clone(), key)?;
        Ok(entry.filter(|entry| !entry.is_bucket).map(|entry| entry.value))
    }

    /// Returns the bucket's sequence number, which etcd does not use.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// Pairs in key order; made by [`Bucket::pairs`]. Key and value share the page's memory.
#[derive(Debug)]
pub struct Pairs {
    entries: Entries,
}

impl Iterator for Pairs {
    type Item = Result<(Bytes, Bytes), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        Some(entry.and_then(|entry| {
            if entry.is_bucket {
                return Err(self.entries.source().damaged(0, "a bucket lies within a bucket"));
            }
            Ok((entry.key, entry.value))
        }))
    }
}

/// Where a tree begins.
#[derive(Debug, Clone)]
pub(super) enum Root {
    Page(u64),
    /// A leaf inside the value of the bucket.
    Inline(Bytes),
}

/// A leaf element.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Bytes,
    pub(super) value: Bytes,
    pub(super) is_bucket: bool,
}

/// The file and what its current meta page says.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) file: Box<dyn File>,
    path: PathBuf,
    pub(super) meta: Meta,
}

impl Source {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn damaged(&self, page: u64, what: impl Into<String>) -> Fault {
        let offset = page.saturating_mul(u64::from(self.meta.page_size));
        Fault::damaged(&self.path, offset, format!("page {page}: {}", what.into()), REMEDY)
    }

    /// Reads the pages that start with `page`; its header has to be of one of `kinds`.
    pub(super) fn pages(&self, page: u64, kinds: &[u16]) -> Result<(Header, Bytes), Fault> {
        if page < 2 || page >= self.meta.high_water {
            return Err(self.damaged(page, "no such page"));
        }
        let page_size = u64::from(self.meta.page_size);
        let mut bytes = vec![0; crate::length(page_size)];
        let offset = page * page_size;
        self.file.read_exact_at(offset, &mut bytes).or_fault("read", &self.path)?;
        let header = Header::decode(&bytes).ok_or_else(|| self.damaged(page, "too short"))?;
        if header.id != page {
            return Err(self.damaged(page, format!("it says that it is page {}", header.id)));
        }
        if !kinds.contains(&header.kind) {
            return Err(self.damaged(page, format!("wrong kind {:#x}", header.kind)));
        }
        let pages = u64::from(header.overflow) + 1;
        if pages > self.meta.high_water - page || pages * page_size > NODE_BYTES_MAX {
            return Err(self.damaged(page, format!("it cannot cover {pages} pages")));
        }
        if pages > 1 {
            let first = bytes.len();
            bytes.resize(crate::length(pages * page_size), 0);
            let rest = &mut bytes[first..];
            self.file.read_exact_at(offset + page_size, rest).or_fault("read", &self.path)?;
        }
        Ok((header, bytes.into()))
    }

    /// Reads the node at `root`.
    pub(super) fn node(&self, root: &Root) -> Result<Node, Fault> {
        let (page, header, bytes) = match root {
            Root::Page(page) => {
                let (header, bytes) = self.pages(*page, &[BRANCH, LEAF])?;
                (*page, header, bytes)
            }
            Root::Inline(bytes) => match Header::decode(bytes) {
                Some(header) if header.kind == LEAF => (0, header, bytes.clone()),
                Some(_) | None => return Err(self.damaged(0, "an inline bucket is not a leaf")),
            },
        };
        let count = usize::from(header.count);
        if HEADER_BYTES + count * ELEMENT_BYTES > bytes.len() {
            return Err(self.damaged(page, format!("it has no room for {count} elements")));
        }
        Ok(Node { bytes, page, is_leaf: header.kind == LEAF, count })
    }

    /// Makes a bucket of its entry.
    pub(super) fn bucket(self: &Arc<Self>, entry: &Entry) -> Result<Bucket, Fault> {
        let value = &entry.value;
        let root = u64_at(value, 0).filter(|_| entry.is_bucket);
        let (Some(root), Some(sequence)) = (root, u64_at(value, 8)) else {
            return Err(self.damaged(0, "an entry of the root is not a bucket"));
        };
        let root = match root {
            0 => Root::Inline(value.slice(BUCKET_HEADER_BYTES..)),
            page => Root::Page(page),
        };
        Ok(Bucket { source: Arc::clone(self), root, sequence })
    }
}

/// A leaf or branch in memory.
#[derive(Debug, Clone)]
pub(super) struct Node {
    bytes: Bytes,
    pub(super) page: u64,
    pub(super) is_leaf: bool,
    pub(super) count: usize,
}

impl Node {
    pub(super) fn pages(&self, source: &Source) -> u64 {
        (self.bytes.len() as u64).div_ceil(u64::from(source.meta.page_size))
    }

    /// Returns element `index` of a leaf.
    pub(super) fn entry(&self, index: usize, source: &Source) -> Result<Entry, Fault> {
        let at = HEADER_BYTES + index * ELEMENT_BYTES;
        let field = |offset| u32_at(&self.bytes, at + offset).map(|field| field as usize);
        let parts = field(4).zip(field(8)).zip(field(12)).and_then(|((position, key), value)| {
            let start = at + position;
            (start + key + value <= self.bytes.len()).then_some((start, start + key, value))
        });
        let Some((start, middle, value)) = parts else {
            return Err(source.damaged(self.page, format!("element {index} is out of bounds")));
        };
        Ok(Entry {
            key: self.bytes.slice(start..middle),
            value: self.bytes.slice(middle..middle + value),
            is_bucket: u32_at(&self.bytes, at).is_some_and(|flags| flags & BUCKET != 0),
        })
    }

    /// Returns least key and page of child `index` of a branch.
    pub(super) fn child(&self, index: usize, source: &Source) -> Result<(Bytes, u64), Fault> {
        let at = HEADER_BYTES + index * ELEMENT_BYTES;
        let field = |offset| u32_at(&self.bytes, at + offset).map(|field| field as usize);
        let key = field(0).zip(field(4)).and_then(|(position, key)| {
            let start = at + position;
            (start + key <= self.bytes.len()).then(|| self.bytes.slice(start..start + key))
        });
        key.zip(u64_at(&self.bytes, at + 8))
            .ok_or_else(|| source.damaged(self.page, format!("element {index} is out of bounds")))
    }

    /// Returns how many leading elements have keys at most `key`.
    fn at_most(&self, key: &[u8], source: &Source) -> Result<usize, Fault> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            let found = if self.is_leaf {
                self.entry(middle, source)?.key
            } else {
                self.child(middle, source)?.0
            };
            if found[..] <= *key { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }
}

/// Looks `key` up in the tree at `root`.
fn find(source: &Source, root: Root, key: &[u8]) -> Result<Option<Entry>, Fault> {
    let mut at = root;
    for _ in 0..DEPTH_MAX {
        let node = source.node(&at)?;
        // The first child also takes what is less than its key.
        let index = node.at_most(key, source)?.saturating_sub(1);
        if index >= node.count {
            return Ok(None);
        }
        if node.is_leaf {
            let entry = node.entry(index, source)?;
            return Ok(Some(entry).filter(|entry| entry.key == key));
        }
        at = Root::Page(node.child(index, source)?.1);
    }
    Err(source.damaged(source.meta.root, "the tree is too deep"))
}

/// Finds the valid meta page of the last transaction.
fn current_meta(file: &dyn File, path: &Path) -> Result<Meta, Fault> {
    let first = read_meta(file, 0, path)?;
    // Without the first the page size is not known: look wherever the second could begin.
    let sizes = match first {
        Ok(meta) => meta.page_size..=meta.page_size,
        Err(_) => PAGE_BYTES_MIN..=PAGE_BYTES_MAX,
    };
    let mut second = None;
    let mut page_size = *sizes.start();
    while second.is_none() && sizes.contains(&page_size) {
        let meta = read_meta(file, u64::from(page_size), path)?.ok();
        second = meta.filter(|meta| meta.page_size == page_size);
        page_size *= 2;
    }
    match (first, second) {
        (Ok(first), Some(second)) => Ok(if second.txid > first.txid { second } else { first }),
        (Ok(meta), None) | (Err(_), Some(meta)) => Ok(meta),
        (Err(what), None) => Err(Fault::damaged(path, 0, what, REMEDY)),
    }
}

fn read_meta(
    file: &dyn File,
    page_offset: u64,
    path: &Path,
) -> Result<Result<Meta, &'static str>, Fault> {
    let mut bytes = [0; META_BYTES];
    let offset = page_offset + HEADER_BYTES as u64;
    match file.read_exact_at(offset, &mut bytes) {
        Ok(()) => Ok(Meta::decode(&bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Ok(Err("the file is too short"))
        }
        Err(error) => Err(Fault::io("read", path, error)),
    }
}
