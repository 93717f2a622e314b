//! Large lists, read and sent page by page.
//!
//! A gRPC message announces its length first. A list that is too large to hold, or finds no room to be held, is therefore
//! read twice: once to measure it, once to send it, both times at one revision and page by page, and never faster than the
//! client takes it. A list in an order of its own holds its keys' revisions in that order meanwhile, not its records.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use machine::{Page, RangePager, RangeReply, ReadError, Record};
use proto::etcdserverpb::{RangeRequest, ResponseHeader};

use super::Services;
use super::answer::{RangeEnd, piece, put_range_end, put_record, range_head, range_len};
use super::kv::Ranged;
use super::payload::{PIECE_BYTES, Payload, field_len};
use crate::grpc::error;
use crate::grpc::status::Status;
use crate::metrics::Metrics;
use crate::room::{Account, Held, Room};
use crate::workers::Workers;

/// A list is held whole up to so many bytes of records.
const HELD_BYTES_MAX: usize = 12 << 20;
/// Keys read at a time: the thread that serves looks for them, and has other calls to answer.
const PAGE_KEYS: usize = 256;
/// Pages of a list that are read like a get; those of a longer one wait for threads that give way to gets.
const SHORT_PAGES_MAX: usize = 4;
/// Room that reading a page takes: a mebibyte, and a record of the usual size beyond it.
const PAGE_ROOM_BYTES: usize = 2 << 20;
/// Times that a list of the current revision is begun again when a compaction overtakes it.
const ATTEMPTS_MAX: usize = 8;

/// What a list will be when it is read again.
struct Measure {
    records_len: usize,
    end: RangeEnd,
    pages: PageReader,
    /// What its pager holds.
    held: Option<Held>,
}

impl Services {
    /// Answers a range that may be large. One that asked for no revision and loses a race with a compaction begins again at
    /// the revision then current.
    pub(super) async fn list(&self, request: &RangeRequest) -> Result<Ranged, Status> {
        let mut attempts = 1;
        loop {
            match self.list_once(request).await {
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

    /// Reads the list; when it turns out too large, lets go of what it has and only measures the rest.
    async fn list_once(&self, request: &RangeRequest) -> Result<Ranged, Status> {
        let (pager, mut account) = self.open_pager(request).await?;
        let pager_bytes = pager.bytes_held();
        account.shrink_to(pager_bytes);
        let header_revision = pager.header_revision();
        let mut pages = PageReader::new(pager, self);
        let mut kvs = Vec::new();
        let (mut records, mut records_len) = (0, 0);
        let mut is_held = true;
        loop {
            let Page { kvs: page, end } = pages.next().await?;
            records += page.len();
            let page_len = page.iter().map(|record| field_len(2, record.len())).sum::<usize>();
            records_len += page_len;
            if is_held && records_len <= HELD_BYTES_MAX && account.take(page_len) {
                kvs.extend(page);
            } else {
                is_held = false;
                kvs = Vec::new();
                account.shrink_to(pager_bytes);
            }
            let Some((more, count)) = end else { continue };
            if is_held {
                account.shrink_to(records_len);
                let reply = RangeReply { kvs, more, count };
                return Ok(self.ranged(header_revision, reply, account.close()));
            }
            pages.rewind();
            let end = RangeEnd { more, count };
            let measure = Measure { records_len, end, pages, held: account.close() };
            let payload = self.send_in_pages(&self.header(header_revision), measure).await?;
            return Ok(Ranged { payload, revision: header_revision, kvs: records, count });
        }
    }

    /// Opens the list at its revision. One with an order of its own is sorted here.
    pub(super) async fn open_pager(
        &self,
        request: &RangeRequest,
    ) -> Result<(RangePager, Account), Status> {
        let mut account = self.limits.answers.account();
        let reader = self.handle.reader();
        if RangePager::can_page(request) {
            return Ok((reader.pager(request)?, account));
        }
        let (reader, request) = (reader.clone(), request.clone());
        self.blocking(move || {
            let pager = reader.pager_within(&request, &mut |bytes| account.take(bytes))?;
            Ok((pager, account))
        })
        .await
    }

    async fn send_in_pages(
        &self,
        header: &ResponseHeader,
        measure: Measure,
    ) -> Result<Payload, Status> {
        let Measure { records_len, end, pages, held } = measure;
        let len = range_len(header, records_len, end);
        let mut pages = Pages {
            head: Some(range_head(header, len)),
            reader: Some(pages),
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

/// Reads a list page by page, and lets other calls go on in between.
#[derive(Debug)]
pub(super) struct PageReader {
    /// Lent to other threads while they read the disk.
    pager: Option<RangePager>,
    short_work: Workers,
    long_work: Workers,
    metrics: Arc<Metrics>,
    pages_read: usize,
}

impl PageReader {
    pub(super) fn new(pager: RangePager, services: &Services) -> Self {
        Self {
            pager: Some(pager),
            short_work: services.short_work.clone(),
            long_work: services.handle.long_work().clone(),
            metrics: Arc::clone(&services.metrics),
            pages_read: 0,
        }
    }

    /// Returns to the first page.
    fn rewind(&mut self) {
        self.pager.iter_mut().for_each(RangePager::rewind);
    }

    /// Reads the next page. A compaction may have taken it away, and the disk may fail.
    pub(super) async fn next(&mut self) -> Result<Page, Status> {
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
            ReadError::NoRoom => unreachable!("pages ask for no room of their own"),
        })
    }
}

/// A measured list on its way.
#[derive(Debug)]
pub(super) struct Pages {
    head: Option<BytesMut>,
    /// Gone when all is read.
    reader: Option<PageReader>,
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
            } else if self.reader.is_some() {
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
        let Some(reader) = &mut self.reader else { return Ok(()) };
        let mut held = self.room.hold(PAGE_ROOM_BYTES).await?;
        let page = reader.next().await?;
        let page_len = page.kvs.iter().map(|record| field_len(2, record.len())).sum();
        held.shrink_to(page_len);
        // What the last page held and has not parted with goes on with this one.
        match &mut self.held {
            Some(rest) => rest.merge(held),
            None => self.held = Some(held),
        }
        self.records.extend(page.kvs);
        if page.end.is_some() {
            self.reader = None;
        }
        Ok(())
    }
}
