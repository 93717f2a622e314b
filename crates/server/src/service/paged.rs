//! Large lists, read and sent page by page.
//!
//! A gRPC message announces its length first. A list that is too large to hold is therefore read twice: once to measure it,
//! once to send it, both times at one revision and page by page, and never faster than the client takes it.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use machine::{Page, RangePager, RangeReply, ReadError, Reader, Record};
use proto::etcdserverpb::{RangeRequest, ResponseHeader};

use super::Services;
use super::answer::{RangeEnd, put_range_end, put_record, range_head, range_len};
use super::kv::Ranged;
use super::payload::{PIECE_BYTES, Payload, field_len};
use crate::grpc::error;
use crate::grpc::status::Status;

/// A list is held whole up to so many bytes of records.
const HELD_BYTES_MAX: usize = 12 << 20;
/// Keys read at a time.
const PAGE_KEYS: usize = 1000;

/// What reading a list has given.
enum List {
    /// All of it, and `header.revision`.
    Held(i64, RangeReply),
    /// Its measure.
    Measured(Measure),
}

/// What a list will be when it is read again.
struct Measure {
    header_revision: i64,
    records: usize,
    records_len: usize,
    end: RangeEnd,
    request: RangeRequest,
}

impl Services {
    /// Answers a range that may be large, and whose order allows pages.
    pub(super) async fn list(&self, request: RangeRequest) -> Result<Ranged, Status> {
        let reader = self.handle.reader().clone();
        match self.blocking(move || read_or_measure(&reader, request)).await? {
            List::Held(revision, reply) => Ok(self.ranged(revision, reply)),
            List::Measured(measure) => Ok(Ranged {
                payload: self.send_in_pages(&measure)?,
                revision: measure.header_revision,
                kvs: measure.records,
                count: measure.end.count,
            }),
        }
    }

    fn send_in_pages(&self, measure: &Measure) -> Result<Payload, Status> {
        let header: ResponseHeader = self.header(measure.header_revision);
        let len = range_len(&header, measure.records_len, measure.end);
        let pager = self.handle.reader().pager(&measure.request)?;
        Ok(Payload::pages(
            len,
            Pages {
                head: Some(range_head(&header, len)),
                pager: Some(pager),
                records: VecDeque::new(),
                end: Some(measure.end),
            },
        ))
    }
}

/// Reads the list; when it turns out too large, lets go of what it has and only measures the rest.
fn read_or_measure(reader: &Reader, mut request: RangeRequest) -> Result<List, ReadError> {
    let mut pager = reader.pager(&request)?;
    let header_revision = pager.header_revision();
    if request.revision <= 0 {
        request.revision = header_revision;
    }
    let mut kvs = Vec::new();
    let (mut records, mut records_len) = (0, 0);
    loop {
        let Page { kvs: page, end } = pager.next_page(PAGE_KEYS)?;
        records += page.len();
        records_len += page.iter().map(|record| field_len(2, record.len())).sum::<usize>();
        if records_len <= HELD_BYTES_MAX {
            kvs.extend(page);
        } else {
            kvs = Vec::new();
        }
        let Some((more, count)) = end else { continue };
        if records_len <= HELD_BYTES_MAX {
            return Ok(List::Held(header_revision, RangeReply { kvs, more, count }));
        }
        let end = RangeEnd { more, count };
        return Ok(List::Measured(Measure { header_revision, records, records_len, end, request }));
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
}

impl Pages {
    /// Returns the next bytes of the message. A failure leaves it unfinished: a compaction, or the disk.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let mut piece = match self.head.take() {
            Some(head) => head,
            None if self.end.is_none() => return Ok(None),
            None => BytesMut::with_capacity(PIECE_BYTES + 4096),
        };
        while piece.len() < PIECE_BYTES {
            if let Some(record) = self.records.pop_front() {
                put_record(2, &record, &mut piece);
            } else if self.pager.is_some() {
                self.read_page().await?;
            } else {
                if let Some(end) = self.end.take() {
                    put_range_end(end, &mut piece);
                }
                break;
            }
        }
        Ok(Some(piece.freeze()))
    }

    async fn read_page(&mut self) -> Result<(), Status> {
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
        })?;
        self.records.extend(page.kvs);
        if page.end.is_none() {
            self.pager = Some(pager);
        }
        Ok(())
    }
}
