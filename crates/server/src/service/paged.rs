//! Large lists, read and sent page by page.
//!
//! A gRPC message announces its length first. A list that is too large to hold, or finds no room to be held, is therefore
//! read twice: once to measure it, once to send it, both times at one revision and page by page, and never faster than the
//! client takes it. A list in an order of its own holds its keys' revisions in that order meanwhile, not its records.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use machine::{Page, RangePager, RangeReply, ReadError, Reader, Record, Refusal};
use proto::etcdserverpb::{RangeRequest, ResponseHeader};

use super::Services;
use super::answer::{RangeEnd, piece, put_range_end, put_record, range_head, range_len};
use super::payload::{PIECE_BYTES, Payload, field_len};
use crate::grpc::error;
use crate::grpc::status::Status;
use crate::room::{Held, Room};

/// A list is held whole up to so many bytes of records.
const HELD_BYTES_MAX: usize = 12 << 20;
/// Keys read at a time.
const PAGE_KEYS: usize = 1000;
/// Room that reading a page takes: a mebibyte, and a record of the usual size beyond it.
const PAGE_ROOM_BYTES: usize = 2 << 20;
/// Times that a list of the current revision is begun again when a compaction overtakes it.
const ATTEMPTS_MAX: usize = 4;

/// What reading a list has given.
enum List {
    /// All of it, `header.revision`, and what it holds.
    Held(i64, RangeReply, Option<Held>),
    /// Its measure.
    Measured(Measure),
}

/// What a list will be when it is read again.
struct Measure {
    records_len: usize,
    end: RangeEnd,
    pager: RangePager,
    /// What the pager holds.
    held: Option<Held>,
}

impl Services {
    /// Answers a range that may be large.
    pub(super) async fn list(&self, request: RangeRequest) -> Result<Payload, Status> {
        let reader = self.handle.reader().clone();
        let room = self.limits.answers.clone();
        let list = self.blocking(move || {
            let mut attempts = 1;
            loop {
                match read_or_measure(&reader, &request, &room) {
                    Err(ReadError::Refused(Refusal::Compacted))
                        if request.revision <= 0 && attempts < ATTEMPTS_MAX =>
                    {
                        attempts += 1;
                    }
                    result => return result,
                }
            }
        });
        Ok(match list.await? {
            List::Held(revision, reply, held) => {
                super::answer::range(&self.header(revision), reply, held)
            }
            List::Measured(measure) => self.send_in_pages(measure).await?,
        })
    }

    async fn send_in_pages(&self, measure: Measure) -> Result<Payload, Status> {
        let Measure { records_len, end, pager, held } = measure;
        let header: ResponseHeader = self.header(pager.header_revision());
        let len = range_len(&header, records_len, end);
        let mut pages = Pages {
            head: Some(range_head(&header, len)),
            pager: Some(pager),
            records: VecDeque::new(),
            end: Some(end),
            room: self.limits.answers.clone(),
            held: None,
            _pager_held: held,
        };
        // What fails at once is a refusal, not a message that breaks off.
        pages.read_page().await?;
        Ok(Payload::pages(len, pages))
    }
}

/// Reads the list; when it turns out too large, lets go of what it has and only measures the rest.
fn read_or_measure(
    reader: &Reader,
    request: &RangeRequest,
    room: &Room,
) -> Result<List, ReadError> {
    let mut account = room.account();
    let mut pager = reader.pager_within(request, &mut |bytes| account.take(bytes))?;
    account.shrink_to(pager.bytes_held());
    let mut kvs = Vec::new();
    let mut records_len = 0;
    let mut is_held = true;
    loop {
        let Page { kvs: page, end } = pager.next_page(PAGE_KEYS)?;
        let page_len = page.iter().map(|record| field_len(2, record.len())).sum::<usize>();
        records_len += page_len;
        if is_held && records_len <= HELD_BYTES_MAX && account.take(page_len) {
            kvs.extend(page);
        } else {
            is_held = false;
            kvs = Vec::new();
            account.shrink_to(pager.bytes_held());
        }
        let Some((more, count)) = end else { continue };
        if is_held {
            account.shrink_to(records_len);
            let reply = RangeReply { kvs, more, count };
            return Ok(List::Held(pager.header_revision(), reply, account.close()));
        }
        pager.rewind();
        let end = RangeEnd { more, count };
        return Ok(List::Measured(Measure { records_len, end, pager, held: account.close() }));
    }
}

/// A measured list on its way.
#[derive(Debug)]
pub(super) struct Pages {
    head: Option<BytesMut>,
    /// Lent to the blocking pool while a page is read.
    pager: Option<RangePager>,
    records: VecDeque<Record>,
    end: Option<RangeEnd>,
    room: Room,
    /// What `records` hold.
    held: Option<Held>,
    _pager_held: Option<Held>,
}

impl Pages {
    /// Returns the next bytes of the message. A failure leaves it unfinished: a compaction, the disk, or no room.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let mut bytes = match self.head.take() {
            Some(head) => head,
            None if self.end.is_none() => return Ok(None),
            None => BytesMut::with_capacity(PIECE_BYTES + 4096),
        };
        while bytes.len() < PIECE_BYTES {
            if let Some(record) = self.records.pop_front() {
                put_record(2, &record, &mut bytes);
            } else if self.pager.is_some() {
                self.read_page().await?;
            } else {
                if let Some(end) = self.end.take() {
                    put_range_end(end, &mut bytes);
                }
                break;
            }
        }
        Ok(Some(piece(bytes, self.held.as_mut())))
    }

    async fn read_page(&mut self) -> Result<(), Status> {
        let mut held = self.room.hold(PAGE_ROOM_BYTES).await?;
        let Some(mut pager) = self.pager.take() else { return Ok(()) };
        let read = tokio::task::spawn_blocking(move || {
            let page = pager.next_page(PAGE_KEYS);
            (pager, page)
        });
        // The pool refuses work only while the process is ending.
        let (pager, page) = read.await.map_err(|_cancelled| error::STOPPED)?;
        let page = page.map_err(|error| match error {
            ReadError::Refused(refusal) => Status::from(refusal),
            ReadError::Fault(fault) => {
                tracing::error!(error = %fault, "a list broke off: a read of the backend failed");
                super::fault_status(&fault)
            }
            ReadError::NoRoom => unreachable!("pages ask for no room of their own"),
        })?;
        let page_len = page.kvs.iter().map(|record| field_len(2, record.len())).sum();
        held.shrink_to(page_len);
        // What the last page held and has not parted with goes on with this one.
        match &mut self.held {
            Some(rest) => rest.merge(held),
            None => self.held = Some(held),
        }
        self.records.extend(page.kvs);
        if page.end.is_none() {
            self.pager = Some(pager);
        }
        Ok(())
    }
}
