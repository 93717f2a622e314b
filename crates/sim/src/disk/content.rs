//! The bytes of a file, kept by pages: what was never written takes no memory.

use std::io;
use std::sync::Arc;

/// The unit of memory, and of space on the disk.
pub(super) const PAGE_BYTES: usize = 4096;
const PAGE: u64 = PAGE_BYTES as u64;

type Page = [u8; PAGE_BYTES];

/// A sparse file. Clones share their pages.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    len: u64,
    /// Absent pages are zeros. Invariant: bytes behind `len` are zero.
    pages: Vec<Option<Arc<Page>>>,
}

/// Page and position in it of an offset.
fn split(offset: u64) -> io::Result<(usize, usize)> {
    let page = usize::try_from(offset / PAGE).map_err(io::Error::other)?;
    let position = usize::try_from(offset % PAGE).map_err(io::Error::other)?;
    Ok((page, position))
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Tells whether the page takes space.
    pub(super) fn has_page(&self, page: usize) -> bool {
        self.pages.get(page).is_some_and(Option::is_some)
    }

    /// The pages that `len` bytes at `offset` touch.
    pub(super) fn pages_of(offset: u64, len: usize) -> io::Result<std::ops::Range<usize>> {
        if len == 0 {
            return Ok(0..0);
        }
        let (first, _) = split(offset)?;
        let (last, _) = split(offset + len as u64 - 1)?;
        Ok(first..last + 1)
    }

    pub(super) fn set_len(&mut self, len: u64) -> io::Result<()> {
        if len < self.len {
            let (page, position) = split(len)?;
            self.pages.truncate(page + usize::from(position > 0));
            if let Some(Some(last)) = self.pages.get_mut(page) {
                Arc::make_mut(last)[position..].fill(0);
            }
        }
        self.len = len;
        Ok(())
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (mut page, mut position) = split(offset)?;
        let mut rest = out;
        while !rest.is_empty() {
            let part = rest.len().min(PAGE_BYTES - position);
            let (now, later) = rest.split_at_mut(part);
            match self.pages.get(page) {
                Some(Some(bytes)) => now.copy_from_slice(&bytes[position..position + part]),
                Some(None) | None => now.fill(0),
            }
            (rest, page, position) = (later, page + 1, 0);
        }
        Ok(())
    }

    /// Writes `data`, extending the file as needed.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(data.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        self.len = self.len.max(end);
        let (mut page, mut position) = split(offset)?;
        let mut rest = data;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(PAGE_BYTES - position));
            if self.pages.len() <= page {
                self.pages.resize(page + 1, None);
            }
            let bytes = self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(bytes)[position..position + now.len()].copy_from_slice(now);
            (rest, page, position) = (later, page + 1, 0);
        }
        Ok(())
    }

    /// The offsets of bytes that are not zero.
    pub(super) fn used(&self) -> Vec<u64> {
        let mut used = Vec::new();
        for (page, bytes) in (0..).zip(&self.pages) {
            let Some(bytes) = bytes else { continue };
            let in_page = (0..).zip(bytes.iter()).filter(|(_, byte)| **byte != 0);
            used.extend(in_page.map(|(position, _): (u64, _)| page * PAGE + position));
        }
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_written_is_zero_and_takes_no_page() {
        let mut content = Content::default();
        content.set_len(64 << 20).unwrap();
        content.write(PAGE * 3 - 2, b"abcd").unwrap();
        assert!(!content.has_page(1) && content.has_page(2) && content.has_page(3));
        let mut read = [1; 6];
        content.read(PAGE * 3 - 3, &mut read).unwrap();
        assert_eq!(&read, b"\0abcd\0");
        assert_eq!(content.used(), [PAGE * 3 - 2, PAGE * 3 - 1, PAGE * 3, PAGE * 3 + 1]);
        let end = content.read((64 << 20) - 1, &mut read).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn cut_bytes_do_not_come_back() {
        let mut content = Content::default();
        content.write(0, b"abcdef").unwrap();
        let before = content.clone();
        content.set_len(2).unwrap();
        content.set_len(6).unwrap();
        let mut read = [1; 6];
        content.read(0, &mut read).unwrap();
        assert_eq!(&read, b"ab\0\0\0\0");
        before.read(0, &mut read).unwrap();
        assert_eq!(&read, b"abcdef");
    }
}
