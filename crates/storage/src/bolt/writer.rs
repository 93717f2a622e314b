//! Writes a bbolt image in two passes over its pairs, without a temporary copy.
//!
//! The first pass ([`Planner`]) sees the lengths of all keys and values and yields a [`Layout`]: how long the image is and
//! where its trees end. The second ([`Writer`]) sees the pairs themselves and hands out the image from front to back, as
//! fast as it is asked to. Both hold one unfinished node per level of a tree and nothing per pair.
//!
//! Order of the pages: the two meta pages; for each bucket by name its tree, each branch behind its children; last the
//! leaf that names the buckets. The image is that of a transaction just committed, without a list of free pages, for
//! there are none.

use bytes::Bytes;

use super::emit::{Pages, append_leaf};
use super::grow::{Length, Nowhere, Tree, pair_bytes};
use super::page::{
    BUCKET, BUCKET_HEADER_BYTES, COUNT_MAX, HEADER_BYTES, KEY_BYTES_MAX, Meta, NO_FREELIST,
    PAGE_BYTES_MAX, PAGE_BYTES_MIN, VALUE_BYTES_MAX,
};
use crate::fault::Fault;

/// The page size of an image: that of etcd on the usual machines.
pub const PAGE_BYTES: u32 = 4096;
/// A piece is at least this long, unless it is the last.
const PIECE_BYTES_MIN: usize = 32 << 10;
/// The transaction of meta page 0; page 1 has the one before.
const TXID: u64 = 2;
/// A bucket lies in the leaf that names it, if its own leaf takes at most this part of a page.
const INLINE_DIVISOR: usize = 4;

/// Why an image cannot be written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The source of the pairs failed.
    #[error(transparent)]
    Source(#[from] Fault),
    /// The format has no room for it.
    #[error("the database format cannot hold {what}")]
    Unsupported {
        /// What it is.
        what: &'static str,
    },
    /// Names or keys do not ascend.
    #[error("{what} are not in order")]
    Unordered {
        /// What is not.
        what: &'static str,
    },
    /// The second pass saw other pairs than the first.
    #[error("bucket {bucket} changed while it was written")]
    Changed {
        /// Which bucket.
        bucket: String,
    },
}

/// The first pass: takes the lengths of all pairs, bucket by bucket.
#[derive(Debug)]
pub struct Planner {
    page_size: u32,
    next_page: u64,
    done: Vec<BucketLayout>,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    name: Bytes,
    leaf_bytes: usize,
    /// The pairs so far, while they fit inline.
    pairs: Vec<(Length, Length)>,
    /// Once they do not.
    tree: Option<Tree<Length>>,
}

#[derive(Debug, Clone)]
struct BucketLayout {
    name: Bytes,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Root page, first page behind the tree.
    Tree { root: u64, end: u64 },
    /// Length of its leaf, header included.
    Inline { bytes: usize },
}

impl Planner {
    /// Begins a layout with pages of `page_size` bytes.
    pub fn new(page_size: u32) -> Result<Self, Error> {
        if !page_size.is_power_of_two() || !(PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&page_size) {
            return Err(Error::Unsupported { what: "pages of this size" });
        }
        Ok(Self { page_size, next_page: 2, done: Vec::new(), current: None })
    }

    /// Begins the next bucket. Names ascend.
    pub fn bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        self.close_bucket();
        check_lengths(name.len(), 0)?;
        if self.done.last().is_some_and(|last| last.name[..] >= *name) {
            return Err(Error::Unordered { what: "names of buckets" });
        }
        if self.done.len() + 1 >= usize::from(COUNT_MAX) {
            return Err(Error::Unsupported { what: "so many buckets" });
        }
        let name = Bytes::copy_from_slice(name);
        let leaf_bytes = HEADER_BYTES;
        self.current = Some(Current { name, leaf_bytes, pairs: Vec::new(), tree: None });
        Ok(())
    }

    /// Takes the next pair of the bucket begun last.
    pub fn pair(&mut self, key_len: usize, value_len: usize) -> Result<(), Error> {
        check_lengths(key_len, value_len)?;
        let Some(current) = &mut self.current else {
            return Err(Error::Unsupported { what: "pairs outside of a bucket" });
        };
        let (key, value) = (Length(key_len), Length(value_len));
        if let Some(tree) = &mut current.tree {
            tree.push(key, value, &mut Nowhere);
            return Ok(());
        }
        current.leaf_bytes += pair_bytes(key_len, value_len);
        current.pairs.push((key, value));
        if current.leaf_bytes > self.page_size as usize / INLINE_DIVISOR {
            let mut tree = Tree::new(self.page_size, self.next_page);
            for (key, value) in current.pairs.drain(..) {
                tree.push(key, value, &mut Nowhere);
            }
            current.tree = Some(tree);
        }
        Ok(())
    }

    /// Ends the first pass.
    pub fn finish(mut self) -> Layout {
        self.close_bucket();
        let root = self.next_page;
        let bytes: usize = self.done.iter().map(BucketLayout::entry_bytes).sum();
        let page_size = u64::from(self.page_size);
        let end = root + ((HEADER_BYTES + bytes) as u64).div_ceil(page_size);
        Layout { page_size: self.page_size, buckets: self.done, root, end }
    }

    fn close_bucket(&mut self) {
        let Some(current) = self.current.take() else { return };
        let place = match current.tree {
            None => Place::Inline { bytes: current.leaf_bytes },
            Some(tree) => {
                let (root, end) = tree.finish(&mut Nowhere);
                self.next_page = end;
                Place::Tree { root, end }
            }
        };
        self.done.push(BucketLayout { name: current.name, place });
    }
}

impl BucketLayout {
    /// What it takes in the leaf that names it.
    fn entry_bytes(&self) -> usize {
        let inline = match self.place {
            Place::Tree { .. } => 0,
            Place::Inline { bytes } => bytes,
        };
        pair_bytes(self.name.len(), BUCKET_HEADER_BYTES + inline)
    }

    fn changed(&self) -> Error {
        Error::Changed { bucket: String::from_utf8_lossy(&self.name).into_owned() }
    }
}

/// Where everything will be: the outcome of the first pass.
#[derive(Debug, Clone)]
pub struct Layout {
    page_size: u32,
    buckets: Vec<BucketLayout>,
    root: u64,
    /// The first page id not used.
    end: u64,
}

impl Layout {
    /// Returns how long the image will be.
    pub fn image_len(&self) -> u64 {
        self.end * u64::from(self.page_size)
    }
}

/// The second pass: hands out the image piece by piece.
///
/// `source` gives the pairs of a bucket by its name, the same pairs in the same order at each call: those of one reader,
/// for example. It is called once or twice per bucket.
pub struct Writer<F, I> {
    layout: Layout,
    source: F,
    step: Step<I>,
    pages: Pages,
}

enum Step<I> {
    Meta,
    /// The bucket of this index is next.
    Bucket(usize),
    Pairs(Growing<I>),
    Root,
    End,
}

struct Growing<I> {
    bucket: usize,
    pairs: I,
    tree: Tree<Bytes>,
    last: Bytes,
}

impl<F, I> std::fmt::Debug for Writer<F, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl<F, I> Writer<F, I>
where
    F: FnMut(&[u8]) -> I,
    I: Iterator<Item = Result<(Bytes, Bytes), Fault>>,
{
    /// Begins the image that `layout` describes.
    pub fn new(layout: Layout, source: F) -> Self {
        let pages = Pages { page_size: layout.page_size as usize, out: Vec::new() };
        Self { layout, source, step: Step::Meta, pages }
    }

    /// Returns how long the whole image is.
    pub fn image_len(&self) -> u64 {
        self.layout.image_len()
    }

    /// Replaces what is in `piece` by the image's next part, whole pages of together 32 KiB or more if as many are left.
    /// Returns false when there is nothing more. After an error the image is worthless.
    pub fn next_piece(&mut self, piece: &mut Vec<u8>) -> Result<bool, Error> {
        piece.clear();
        std::mem::swap(piece, &mut self.pages.out);
        let result = self.fill();
        std::mem::swap(piece, &mut self.pages.out);
        result?;
        Ok(!piece.is_empty())
    }

    fn fill(&mut self) -> Result<(), Error> {
        while self.pages.out.len() < PIECE_BYTES_MIN {
            let step = std::mem::replace(&mut self.step, Step::End);
            self.step = match step {
                Step::Meta => {
                    self.pages.meta(0, self.layout.meta(TXID));
                    self.pages.meta(1, self.layout.meta(TXID - 1));
                    Step::Bucket(0)
                }
                Step::Bucket(index) => self.begin_bucket(index),
                Step::Pairs(growing) => self.grow(growing)?,
                Step::Root => {
                    self.root()?;
                    Step::End
                }
                Step::End => return Ok(()),
            };
        }
        Ok(())
    }

    fn begin_bucket(&mut self, bucket: usize) -> Step<I> {
        let Some(planned) = self.layout.buckets.get(bucket) else { return Step::Root };
        if let Place::Inline { .. } = planned.place {
            return Step::Bucket(bucket + 1);
        }
        let pairs = (self.source)(&planned.name);
        let before = self.layout.buckets[..bucket].iter().rev();
        let first = before.map(|bucket| bucket.place).find_map(|place| match place {
            Place::Tree { end, .. } => Some(end),
            Place::Inline { .. } => None,
        });
        let tree = Tree::new(self.layout.page_size, first.unwrap_or(2));
        Step::Pairs(Growing { bucket, pairs, tree, last: Bytes::new() })
    }

    /// Adds pairs to a tree until the piece is full or the bucket at its end.
    fn grow(&mut self, mut growing: Growing<I>) -> Result<Step<I>, Error> {
        let planned = &self.layout.buckets[growing.bucket];
        let Place::Tree { root, end } = planned.place else { return Err(planned.changed()) };
        while self.pages.out.len() < PIECE_BYTES_MIN {
            let Some(pair) = growing.pairs.next() else {
                // The plan had pairs here, so that no pairs at all is a change, too.
                if growing.last.is_empty() || growing.tree.finish(&mut self.pages) != (root, end) {
                    return Err(planned.changed());
                }
                return Ok(Step::Bucket(growing.bucket + 1));
            };
            let (key, value) = pair?;
            check_lengths(key.len(), value.len())?;
            if key <= growing.last {
                return Err(Error::Unordered { what: "keys" });
            }
            growing.last = key.clone();
            growing.tree.push(key, value, &mut self.pages);
            // An image that outgrows its plan ends here, not when the source does.
            if growing.tree.next_page() > end {
                return Err(planned.changed());
            }
        }
        Ok(Step::Pairs(growing))
    }

    /// Writes the leaf that names the buckets.
    fn root(&mut self) -> Result<(), Error> {
        let mut entries = Vec::with_capacity(self.layout.buckets.len());
        for planned in &self.layout.buckets {
            let (root, inline) = match planned.place {
                Place::Tree { root, .. } => (root, None),
                Place::Inline { bytes } => (0, Some(bytes)),
            };
            let mut value = root.to_le_bytes().to_vec();
            // Its sequence, which etcd does not use.
            value.extend_from_slice(&0_u64.to_le_bytes());
            if let Some(bytes) = inline {
                let pairs = inline_pairs((self.source)(&planned.name), bytes, planned)?;
                append_leaf(0, 0, &pairs, &mut value);
            }
            entries.push((planned.name.clone(), Bytes::from(value)));
        }
        self.pages.flagged_leaf(self.layout.root, BUCKET, &entries);
        Ok(())
    }
}

impl Layout {
    fn meta(&self, txid: u64) -> Meta {
        Meta {
            page_size: self.page_size,
            root: self.root,
            sequence: 0,
            freelist: NO_FREELIST,
            high_water: self.end,
            txid,
        }
    }
}

/// Collects the pairs of an inline bucket, whose leaf was planned with `bytes`.
fn inline_pairs(
    source: impl Iterator<Item = Result<(Bytes, Bytes), Fault>>,
    bytes: usize,
    planned: &BucketLayout,
) -> Result<Vec<(Bytes, Bytes)>, Error> {
    let mut pairs: Vec<(Bytes, Bytes)> = Vec::new();
    let mut left = bytes - HEADER_BYTES;
    for pair in source {
        let (key, value) = pair?;
        check_lengths(key.len(), value.len())?;
        if pairs.last().is_some_and(|(last, _)| *last >= key) {
            return Err(Error::Unordered { what: "keys" });
        }
        left = left
            .checked_sub(pair_bytes(key.len(), value.len()))
            .ok_or_else(|| planned.changed())?;
        pairs.push((key, value));
    }
    if left == 0 { Ok(pairs) } else { Err(planned.changed()) }
}

fn check_lengths(key: usize, value: usize) -> Result<(), Error> {
    let what = if key == 0 {
        "an empty key"
    } else if key > KEY_BYTES_MAX {
        "a key of more than 32,768 bytes"
    } else if value > VALUE_BYTES_MAX {
        "a value of 2 GiB or more"
    } else {
        return Ok(());
    };
    Err(Error::Unsupported { what })
}
