//! Large lists, read and sent page by page.
//!
//! A gRPC message announces its length first. A list that is too large to hold is therefore read twice: once to measure it,
//! once to send it, both times at one revision and page by page, and never faster than the client takes it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use machine::{Page, RangePager, RangeReply, ReadError, Record};
use proto::etcdserverpb::{RangeRequest, ResponseHeader};

use super::Services;
use super::answer::{RangeEnd, put_range_end, put_record, range_head, range_len};
use super::payload::{PIECE_BYTES, Payload, field_len};
use crate::grpc::error;
use crate::grpc::status::Status;
use crate::metrics::Metrics;
use crate::workers::Workers;

/// A list is held whole up to so many bytes of records.
const HELD_BYTES_MAX: usize = 12 << 20;
/// Keys read at a time: the thread that serves looks for them, and has other calls to answer.
const PAGE_KEYS: usize = 256;
/// Pages of a list that are read like a get; those of a longer one wait for threads that give way to gets.
const SHORT_PAGES_MAX: usize = 4;

/// Readings of a list that a compaction has overtaken.
const ATTEMPTS_MAX: usize = 8;

/// What a list will be when it is read again.
struct Measure {
    header_revision: i64,
    records_len: usize,
    end: RangeEnd,
    request: RangeRequest,
}

impl Services {
    /// Answers a range that may be large, and whose order allows pages. One that asked for no revision and loses a race
    /// with a compaction begins again at the revision then current.
    pub(super) async fn list(&self, request: RangeRequest) -> Result<Payload, Status> {
        let mut attempts = 1;
        loop {
            match self.list_once(request.clone()).await {
                Err(refused)
                    if refused == error::COMPACTED
                        && request.revision <= 0
                        && attempts < ATTEMPTS_MAX =>
                {
                    attempts += 1;
                }
                answer => return answer,
            }
        }
    }

    async fn list_once(&self, mut request: RangeRequest) -> Result<Payload, Status> {
        let pager = self.handle.reader().pager(&request)?;
        let header_revision = pager.header_revision();
        if request.revision <= 0 {
            request.revision = header_revision;
        }
        let mut pages = PageReader::new(pager, self);
        let mut kvs = Vec::new();
        let mut records_len = 0;
        loop {
            let Page { kvs: page, end } = pages.next().await?;
            records_len += page.iter().map(|record| field_len(2, record.len())).sum::<usize>();
            if records_len <= HELD_BYTES_MAX {
                kvs.extend(page);
            } else {
                // It is too large to hold: what is left is only measured.
                kvs = Vec::new();
            }
            let Some((more, count)) = end else { continue };
            if records_len <= HELD_BYTES_MAX {
                let reply = RangeReply { kvs, more, count };
                return Ok(super::answer::range(&self.header(header_revision), reply));
            }
            let end = RangeEnd { more, count };
            return self.send_in_pages(&Measure { header_revision, records_len, end, request });
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
                pages: Some(PageReader::new(pager, self)),
                records: VecDeque::new(),
                end: Some(measure.end),
            },
        ))
    }
}

/// Reads a list page by page, and lets other calls go on in between.
#[derive(Debug)]
struct PageReader {
    /// Lent to other threads while they read the disk.
    pager: Option<RangePager>,
    short_work: Workers,
    long_work: Workers,
    metrics: Arc<Metrics>,
    pages_read: usize,
}

impl PageReader {
    fn new(pager: RangePager, services: &Services) -> Self {
        Self {
            pager: Some(pager),
            short_work: services.short_work.clone(),
            long_work: services.handle.long_work().clone(),
            metrics: Arc::clone(&services.metrics),
            pages_read: 0,
        }
    }

    /// Reads the next page. A compaction may have taken it away, and the disk may fail.
    async fn next(&mut self) -> Result<Page, Status> {
        let mut pager = self.pager.take().ok_or(error::STOPPED)?;
        let collected = pager.collect(PAGE_KEYS)?;
        let (pager, page) = if collected.is_resident() {
            tokio::task::yield_now().await;
            let page = pager.read(collected);
            (pager, page)
        } else {
            let read = move || {
                let page = pager.read(collected);
                (pager, page)
            };
            let is_short = self.pages_read < SHORT_PAGES_MAX;
            let workers = if is_short { &self.short_work } else { &self.long_work };
            workers.run(read).await?
        };
        self.pager = Some(pager);
        self.pages_read += 1;
        page.map_err(|error| match error {
            ReadError::Refused(refusal) => Status::from(refusal),
            ReadError::Fault(fault) => {
                tracing::error!(error = %fault, "a list broke off: a read of the backend failed");
                self.metrics.read_failed();
                super::fault_status(&fault)
            }
        })
    }
}

/// A measured list on its way.
#[derive(Debug)]
pub(super) struct Pages {
    head: Option<BytesMut>,
    /// Gone when all is read.
    pages: Option<PageReader>,
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
            } else if let Some(pages) = &mut self.pages {
                let Page { kvs, end } = pages.next().await?;
                self.records.extend(kvs);
                if end.is_some() {
                    self.pages = None;
                }
            } else {
                if let Some(end) = self.end.take() {
                    put_range_end(end, &mut piece);
                }
                break;
            }
        }
        Ok(Some(piece.freeze()))
    }
}
