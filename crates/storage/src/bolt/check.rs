//! The full integrity check of a bbolt file.

use std::path::Path;
use std::sync::Arc;

use super::entries::{Entries, Reached};
use super::page::{COUNT_MAX, FREELIST, HEADER_BYTES, Header, META, NO_FREELIST, u64_at};
use super::reader::{Bolt, Root};
use crate::disk::{Disk, OpenMode};
use crate::fault::{Fault, OrFault};
use crate::mem::MemDisk;

/// How deep buckets may lie in buckets. etcd has one level.
const NESTING_MAX: usize = 16;

/// What a checked file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// How many buckets.
    pub buckets: u64,
    /// How many pairs in all of them.
    pub pairs: u64,
    /// How many of the image's pages are in use, meta pages included.
    pub pages: u64,
}

impl Bolt {
    /// Reads the whole file and verifies it: keys in order and within the bounds of their parents, every page in use by
    /// one tree only, and, where the file lists its free pages, every page either in use or free.
    pub fn check(&self) -> Result<Summary, Fault> {
        let source = &self.source;
        let high_water = source.meta.high_water;
        for page in [0, 1] {
            let mut bytes = [0; HEADER_BYTES];
            let offset = page * u64::from(source.meta.page_size);
            source.file.read_exact_at(offset, &mut bytes).or_fault("read", source.path())?;
            if Header::decode(&bytes).is_none_or(|header| header.id != page || header.kind != META)
            {
                return Err(source.damaged(page, "it is not a meta page"));
            }
        }
        let mut reached = Reached::new(high_water);
        reached.add(0, 2, source)?;
        let mut summary = Summary::default();
        let mut reached = self.check_tree(self.root(), reached, &mut summary, 0)?;
        summary.pages = (0..high_water).filter(|page| reached.contains(*page)).count() as u64;
        if source.meta.freelist != NO_FREELIST {
            summary.pages += self.check_free(&mut reached)?;
        }
        Ok(summary)
    }

    /// Checks a tree and the buckets in it.
    fn check_tree(
        &self,
        root: Root,
        reached: Reached,
        summary: &mut Summary,
        nesting: usize,
    ) -> Result<Reached, Fault> {
        let source = &self.source;
        if nesting > NESTING_MAX {
            return Err(source.damaged(0, "buckets lie too deep in buckets"));
        }
        let mut entries = Entries::reaching(Arc::clone(source), root, reached);
        while let Some(entry) = entries.next().transpose()? {
            if !entry.is_bucket {
                if nesting == 0 {
                    return Err(source.damaged(source.meta.root, "a pair outside of any bucket"));
                }
                summary.pairs += 1;
                continue;
            }
            summary.buckets += 1;
            let bucket = source.bucket(&entry)?;
            let reached = entries.take_reached();
            let reached = self.check_tree(bucket.root, reached, summary, nesting + 1)?;
            entries.give_reached(reached);
        }
        Ok(entries.take_reached())
    }

    /// Checks the stored list of free pages against those in use, and returns how many pages the list takes.
    fn check_free(&self, reached: &mut Reached) -> Result<u64, Fault> {
        let source = &self.source;
        let list = source.meta.freelist;
        let (header, bytes) = source.pages(list, &[FREELIST])?;
        let pages = u64::from(header.overflow) + 1;
        reached.add(list, pages, source)?;
        let (count, first) = match header.count {
            COUNT_MAX => (u64_at(&bytes, HEADER_BYTES).unwrap_or(0), HEADER_BYTES + 8),
            count => (u64::from(count), HEADER_BYTES),
        };
        let mut previous = 1;
        for index in 0..count {
            let at = usize::try_from(index).ok().and_then(|index| index.checked_mul(8));
            let page = at.and_then(|at| u64_at(&bytes, first.checked_add(at)?));
            let Some(page) = page.filter(|page| *page > previous) else {
                return Err(source.damaged(list, format!("free page {index} is out of order")));
            };
            reached.add(page, 1, source)?;
            previous = page;
        }
        match (0..source.meta.high_water).find(|page| !reached.contains(*page)) {
            Some(page) => Err(source.damaged(page, "it is neither in use nor free")),
            None => Ok(pages),
        }
    }
}

/// Opens `image` and reads all of it by every way there is. Whatever the bytes are, the answer is a summary or a fault.
pub fn check_image(image: &[u8]) -> Result<Summary, Fault> {
    let disk = MemDisk::new();
    let path = Path::new("image");
    disk.insert(path, image.to_vec());
    let file = disk.open(path, OpenMode::Read).or_fault("open", path)?;
    let bolt = Bolt::from_file(file, path)?;
    for bucket in bolt.buckets() {
        let (name, bucket) = bucket?;
        bolt.bucket(&name)?;
        for pair in bucket.pairs() {
            bucket.get(&pair?.0)?;
        }
    }
    bolt.check()
}
