//! What is sent on a watch stream, and how it becomes an `etcdserverpb.WatchResponse`.
//!
//! Records are shared by all watchers and copied once, into the outgoing buffer; around them everything is encoded on the spot.

use std::borrow::Cow;

use bytes::BufMut;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::Record;

const HEADER: u32 = 1;
const WATCH_ID: u32 = 2;
const CREATED: u32 = 3;
const CANCELED: u32 = 4;
const COMPACT_REVISION: u32 = 5;
const CANCEL_REASON: u32 = 6;
const FRAGMENT: u32 = 7;
const EVENTS: u32 = 11;

const EVENT_TYPE: u32 = 1;
const EVENT_KV: u32 = 2;
const EVENT_PREV_KV: u32 = 3;

/// The watch id of refusals and of progress on behalf of all watchers.
pub const NO_WATCH: i64 = -1;

/// Why a watcher is not created. The text is the answer's `cancel_reason`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The start revision is negative.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// The range ends before it begins.
    #[error("mvcc: watcher range is empty")]
    EmptyRange,
    /// The id is in use on the stream.
    #[error("mvcc: duplicate watch ID provided on the WatchStream")]
    DuplicateId,
    /// The caller may not, as the service found before it asked the hub.
    #[error("{0}")]
    Denied(Cow<'static, str>),
}

/// What an answer tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// The watcher exists; its events follow.
    Created,
    /// The watcher was not created.
    Refused(Refused),
    /// The watcher was canceled by the client; nothing of it follows.
    Canceled,
    /// The watcher was canceled because it needs what is compacted; nothing of it follows.
    Compacted {
        /// The compacted revision.
        revision: i64,
    },
    /// All events through the header's revision have been delivered.
    Progress,
    /// Something happened. Not empty.
    Events(Events),
}

/// Events of one answer: mostly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Events {
    /// One event.
    One(Delivered),
    /// Several ones, in revision order.
    Many(Vec<Delivered>),
}

/// One event as delivered to one watcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Whether it is a deletion.
    pub is_delete: bool,
    /// The encoded `mvccpb.KeyValue`.
    pub record: Record,
    /// The encoded one before, if asked for.
    pub previous: Option<Record>,
}

/// One message to a watch stream, shared bytes and all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The watcher, or [`NO_WATCH`].
    pub watch_id: i64,
    /// `header.revision`.
    pub revision: i64,
    /// Whether the watcher allows to split it.
    pub may_fragment: bool,
    /// What it tells.
    pub body: Body,
}

/// The fields of a response header that the hub does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The cluster.
    pub cluster_id: u64,
    /// The answering member.
    pub member_id: u64,
    /// Its term.
    pub raft_term: u64,
}

/// One `WatchResponse`: an answer, or a part of one that is too large.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    answer: &'a Answer,
    header: &'a Header,
    events: &'a [Delivered],
    /// Whether more parts follow.
    fragment: bool,
}

impl Events {
    /// Returns the events in order.
    pub fn as_slice(&self) -> &[Delivered] {
        match self {
            Self::One(event) => std::slice::from_ref(event),
            Self::Many(events) => events,
        }
    }

    /// Adds an event to what there is.
    pub(super) fn add(self, event: Delivered) -> Self {
        match self {
            Self::One(first) => Self::Many(vec![first, event]),
            Self::Many(mut events) => {
                events.push(event);
                Self::Many(events)
            }
        }
    }
}

impl Delivered {
    /// Bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.record.len() + self.previous.as_ref().map_or(0, Record::len)
    }

    /// Length of the `mvccpb.Event` itself.
    fn event_len(&self) -> usize {
        let kind = if self.is_delete { 1 + key_len(EVENT_TYPE) } else { 0 };
        let previous =
            self.previous.as_ref().map_or(0, |record| field_len(EVENT_PREV_KV, record.len()));
        kind + field_len(EVENT_KV, self.record.len()) + previous
    }

    fn encode(&self, out: &mut impl BufMut) {
        put_field(EVENTS, self.event_len(), out);
        if self.is_delete {
            put_number(EVENT_TYPE, 1, out);
        }
        put_field(EVENT_KV, self.record.len(), out);
        out.put_slice(&self.record);
        if let Some(previous) = &self.previous {
            put_field(EVENT_PREV_KV, previous.len(), out);
            out.put_slice(previous);
        }
    }
}

impl Answer {
    /// Returns the events, if it has any.
    pub fn events(&self) -> &[Delivered] {
        if let Body::Events(events) = &self.body { events.as_slice() } else { &[] }
    }

    /// Bytes that it holds while it is queued.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.events().iter().map(Delivered::bytes).sum::<usize>()
    }

    /// Returns the whole answer as one message.
    pub fn whole<'a>(&'a self, header: &'a Header) -> Part<'a> {
        Part { answer: self, header, events: self.events(), fragment: false }
    }

    /// Splits the answer into messages below `bytes_max`, if it may be split and is not below; one event is never split.
    pub fn parts<'a>(
        &'a self,
        header: &'a Header,
        bytes_max: usize,
    ) -> impl Iterator<Item = Part<'a>> {
        let whole = self.whole(header);
        let splits =
            self.may_fragment && whole.events.len() >= 2 && whole.encoded_len() >= bytes_max;
        let mut rest = Some(whole);
        std::iter::from_fn(move || {
            let whole = rest.take()?;
            if !splits {
                return Some(whole);
            }
            let (part, others) = whole.split(bytes_max);
            rest = others;
            Some(part)
        })
    }
}

impl Part<'_> {
    /// Cuts off as many events as fit, at least one.
    fn split(self, bytes_max: usize) -> (Self, Option<Self>) {
        let mut len = Self { events: &[], fragment: true, ..self }.encoded_len();
        let fitting = self.events.iter().take_while(|event| {
            len += field_len(EVENTS, event.event_len());
            len < bytes_max
        });
        let (events, others) = self.events.split_at(fitting.count().max(1));
        let rest = Self { events: others, ..self };
        let fragment = !others.is_empty();
        (Self { events, fragment, ..self }, fragment.then_some(rest))
    }

    /// Returns the length of the encoded `WatchResponse`.
    pub fn encoded_len(&self) -> usize {
        let (created, canceled, compacted) = self.flags();
        field_len(HEADER, self.header_len())
            + number_len(WATCH_ID, self.answer.watch_id.cast_unsigned())
            + number_len(CREATED, created.into())
            + number_len(CANCELED, canceled.into())
            + number_len(COMPACT_REVISION, compacted)
            + self.reason().map_or(0, |reason| field_len(CANCEL_REASON, reason.len()))
            + number_len(FRAGMENT, self.fragment.into())
            + self.events.iter().map(|event| field_len(EVENTS, event.event_len())).sum::<usize>()
    }

    /// Encodes the `WatchResponse`.
    pub fn encode(&self, out: &mut impl BufMut) {
        put_field(HEADER, self.header_len(), out);
        put_number(1, self.header.cluster_id, out);
        put_number(2, self.header.member_id, out);
        put_number(3, self.answer.revision.cast_unsigned(), out);
        put_number(4, self.header.raft_term, out);
        let (created, canceled, compacted) = self.flags();
        put_number(WATCH_ID, self.answer.watch_id.cast_unsigned(), out);
        put_number(CREATED, created.into(), out);
        put_number(CANCELED, canceled.into(), out);
        put_number(COMPACT_REVISION, compacted, out);
        if let Some(reason) = self.reason() {
            put_field(CANCEL_REASON, reason.len(), out);
            out.put_slice(reason.as_bytes());
        }
        put_number(FRAGMENT, self.fragment.into(), out);
        for event in self.events {
            event.encode(out);
        }
    }

    fn header_len(&self) -> usize {
        number_len(1, self.header.cluster_id)
            + number_len(2, self.header.member_id)
            + number_len(3, self.answer.revision.cast_unsigned())
            + number_len(4, self.header.raft_term)
    }

    /// Whether created, whether canceled, and the compact revision.
    fn flags(&self) -> (bool, bool, u64) {
        match &self.answer.body {
            Body::Created => (true, false, 0),
            Body::Refused(_) => (true, true, 0),
            Body::Canceled => (false, true, 0),
            Body::Compacted { revision } => (false, true, revision.cast_unsigned()),
            Body::Progress | Body::Events(_) => (false, false, 0),
        }
    }

    fn reason(&self) -> Option<String> {
        if let Body::Refused(refused) = &self.answer.body {
            return Some(refused.to_string());
        }
        None
    }
}

fn field_len(tag: u32, len: usize) -> usize {
    key_len(tag) + encoded_len_varint(len as u64) + len
}

fn put_field(tag: u32, len: usize, out: &mut impl BufMut) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

fn number_len(tag: u32, value: u64) -> usize {
    if value == 0 { 0 } else { key_len(tag) + encoded_len_varint(value) }
}

fn put_number(tag: u32, value: u64, out: &mut impl BufMut) {
    if value != 0 {
        encode_key(tag, WireType::Varint, out);
        encode_varint(value, out);
    }
}
