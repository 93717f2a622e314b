//! The two stream codecs between members (`spec/peer-protocol.md` §3): frames of raft messages in a body without end.
//!
//! * `message`: a length and a message.
//! * `msgapp`: appends only, which mostly go on where the one before ended. Both ends remember the term and index that
//!   the last append reached; one that joins leaves out all but its entries and the commit index.
//!
//! All integers are big-endian and 64 bits wide. What is read is not trusted: no length makes this allocate before the
//! bytes are there.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use proto::raftpb::{self, MessageType};

use super::unpack::{self, UNPACKED_BYTES_MAX, Unpackable};

/// The longest message or entry, and the most that one frame may hold, as etcd has it.
const FRAME_BYTES_MAX: u64 = 512 << 20;

/// What an entry counts against [`FRAME_BYTES_MAX`] besides its bytes.
const ENTRY_BYTES: u64 = unpack::ENTRY_BYTES as u64;

/// Bytes of a number.
const NUMBER: u64 = 8;

/// First bytes of frames on a `msgapp` stream.
const LINK_HEARTBEAT: u8 = 0;
const APPEND_ENTRIES: u8 = 1;
const APPEND: u8 = 2;

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Appends from a leader.
    MsgApp,
    /// Everything, and appends while the other stream is down.
    Message,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::MsgApp, Self::Message];

    /// The last part but one of the stream's path.
    pub fn path(self) -> &'static str {
        match self {
            Self::MsgApp => "msgapp",
            Self::Message => "message",
        }
    }
}

/// Where a stream of appends stands.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Reached {
    term: u64,
    index: u64,
}

impl Reached {
    /// Moves behind an append that was sent whole.
    fn follow(&mut self, message: &raftpb::Message) {
        self.term = message.term;
        self.index = message.entries.last().map_or(message.index, |entry| entry.index);
    }
}

/// Writes one stream.
#[derive(Debug)]
pub struct Encoder {
    kind: Kind,
    reached: Reached,
}

impl Encoder {
    /// Starts a stream.
    pub fn new(kind: Kind) -> Self {
        Self { kind, reached: Reached::default() }
    }

    /// Appends the frame of `message` to `out`.
    pub fn encode(&mut self, message: &raftpb::Message, out: &mut BytesMut) {
        match self.kind {
            Kind::Message => put_message(message, out),
            Kind::MsgApp => self.encode_append(message, out),
        }
    }

    fn encode_append(&mut self, message: &raftpb::Message, out: &mut BytesMut) {
        let joins = self.reached == Reached { term: message.log_term, index: message.index }
            && message.log_term == message.term;
        if !joins {
            out.put_u8(APPEND);
            put_message(message, out);
            self.reached.follow(message);
            return;
        }
        out.put_u8(APPEND_ENTRIES);
        out.put_u64(message.entries.len() as u64);
        for entry in &message.entries {
            let length = entry.encoded_len();
            out.reserve(length + size_of::<u64>());
            out.put_u64(length as u64);
            entry.encode_raw(out);
        }
        out.put_u64(message.commit);
        self.reached.index += message.entries.len() as u64;
    }

    /// Appends a frame that only shows that the link is alive.
    pub fn encode_heartbeat(&self, out: &mut BytesMut) {
        match self.kind {
            Kind::MsgApp => out.put_u8(LINK_HEARTBEAT),
            Kind::Message => put_message(&link_heartbeat(), out),
        }
    }
}

fn put_message(message: &raftpb::Message, out: &mut BytesMut) {
    let length = message.encoded_len();
    out.reserve(length + size_of::<u64>());
    out.put_u64(length as u64);
    message.encode_raw(out);
}

fn link_heartbeat() -> raftpb::Message {
    raftpb::Message { r#type: MessageType::MsgHeartbeat.into(), ..raftpb::Message::default() }
}

/// What is no stream of a member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A frame of a kind that does not exist.
    #[error("unknown type {0} of a frame")]
    FrameType(u8),
    /// More than members send.
    #[error("a frame of {0} bytes or more is too long")]
    TooLong(u64),
    /// Bytes that are no entry.
    #[error("cannot decode: {0}")]
    Undecodable(#[from] prost::DecodeError),
    /// Bytes that are no message.
    #[error(transparent)]
    Unpackable(#[from] Unpackable),
}

/// Reads one stream, however its bytes are cut.
#[derive(Debug)]
pub struct Decoder {
    kind: Kind,
    /// The member that sends.
    from: u64,
    /// The member that reads.
    to: u64,
    reached: Reached,
    input: Input,
    state: State,
    /// Bytes that showed only that the stream is alive, since the last look.
    signs_of_life: usize,
}

#[derive(Debug)]
enum State {
    FrameType,
    MessageLength,
    Message(u64),
    Count,
    EntryLength(Entries),
    Entry(Entries, u64),
    Commit(Entries),
}

/// The entries of a frame so far.
#[derive(Debug, Default)]
struct Entries {
    /// Those to come.
    left: u64,
    /// What they count, together.
    bytes: u64,
    read: Vec<raftpb::Entry>,
}

impl Entries {
    fn next(self) -> State {
        if self.left == 0 { State::Commit(self) } else { State::EntryLength(self) }
    }
}

impl Decoder {
    /// Starts a stream from member `from` to member `to`.
    pub fn new(kind: Kind, from: u64, to: u64) -> Self {
        let state = first_state(kind);
        let (reached, input) = (Reached::default(), Input::default());
        Self { kind, from, to, reached, input, state, signs_of_life: 0 }
    }

    /// Takes how many bytes showed only that the stream is alive.
    pub fn take_signs_of_life(&mut self) -> usize {
        std::mem::take(&mut self.signs_of_life)
    }

    /// Takes what has arrived; appends the messages that are whole to `messages`. After an error the stream is of no use.
    pub fn decode(
        &mut self,
        bytes: Bytes,
        messages: &mut Vec<raftpb::Message>,
    ) -> Result<(), Malformed> {
        self.input.add(bytes);
        while let Some(taken) = self.input.take(self.needed()) {
            let state = std::mem::replace(&mut self.state, State::FrameType);
            self.state = self.step(state, taken, messages)?;
        }
        Ok(())
    }

    /// The bytes that the present state consumes.
    fn needed(&self) -> u64 {
        match self.state {
            State::FrameType => 1,
            State::MessageLength | State::Count | State::EntryLength(_) | State::Commit(_) => {
                NUMBER
            }
            State::Message(length) | State::Entry(_, length) => length,
        }
    }

    fn step(
        &mut self,
        state: State,
        mut taken: Bytes,
        messages: &mut Vec<raftpb::Message>,
    ) -> Result<State, Malformed> {
        Ok(match state {
            State::FrameType => match taken.get_u8() {
                LINK_HEARTBEAT => {
                    self.signs_of_life += 1;
                    State::FrameType
                }
                APPEND_ENTRIES => State::Count,
                APPEND => State::MessageLength,
                other => return Err(Malformed::FrameType(other)),
            },
            State::MessageLength => State::Message(bounded(taken.get_u64())?),
            State::Message(_) => {
                let bytes = taken.len();
                let message = unpack::message(taken)?;
                if self.kind == Kind::MsgApp {
                    self.reached.follow(&message);
                }
                if is_link_heartbeat(&message) {
                    self.signs_of_life += bytes;
                } else {
                    messages.push(message);
                }
                first_state(self.kind)
            }
            State::Count => {
                let left = taken.get_u64();
                let unpacked = left.saturating_mul(ENTRY_BYTES);
                if unpacked > UNPACKED_BYTES_MAX as u64 {
                    return Err(Malformed::TooLong(unpacked));
                }
                Entries { left, ..Entries::default() }.next()
            }
            State::EntryLength(mut entries) => {
                let length = bounded(taken.get_u64())?;
                entries.bytes = bounded(entries.bytes + length + ENTRY_BYTES)?;
                State::Entry(entries, length)
            }
            State::Entry(mut entries, _) => {
                entries.read.push(raftpb::Entry::decode(taken)?);
                entries.left -= 1;
                entries.next()
            }
            State::Commit(entries) => {
                messages.push(self.joined(entries.read, taken.get_u64()));
                State::FrameType
            }
        })
    }

    /// The append that goes on where the one before ended.
    fn joined(&mut self, entries: Vec<raftpb::Entry>, commit: u64) -> raftpb::Message {
        let Reached { term, index } = self.reached;
        self.reached.index = index.saturating_add(entries.len() as u64);
        raftpb::Message {
            r#type: MessageType::MsgApp.into(),
            from: self.from,
            to: self.to,
            term,
            log_term: term,
            index,
            entries,
            commit,
            ..raftpb::Message::default()
        }
    }
}

fn first_state(kind: Kind) -> State {
    match kind {
        Kind::MsgApp => State::FrameType,
        Kind::Message => State::MessageLength,
    }
}

fn bounded(bytes: u64) -> Result<u64, Malformed> {
    if bytes > FRAME_BYTES_MAX { Err(Malformed::TooLong(bytes)) } else { Ok(bytes) }
}

fn is_link_heartbeat(message: &raftpb::Message) -> bool {
    message.r#type() == MessageType::MsgHeartbeat && message.from == 0 && message.to == 0
}

/// Bytes that have arrived. What lies in one piece is given out without a copy.
#[derive(Debug, Default)]
struct Input {
    rest: Bytes,
    /// The beginning of what is to be taken next, when it came in several pieces.
    partial: BytesMut,
}

impl Input {
    /// Adds what has arrived; what was there before has been taken as far as it was whole.
    fn add(&mut self, bytes: Bytes) {
        debug_assert!(self.rest.is_empty(), "what is left over is in the partial piece");
        self.rest = bytes;
    }

    /// Takes `needed` bytes, if there are as many.
    fn take(&mut self, needed: u64) -> Option<Bytes> {
        // A frame that does not fit into an address space does not arrive either.
        let needed = usize::try_from(needed).unwrap_or(usize::MAX);
        if self.partial.is_empty() && self.rest.len() >= needed {
            return Some(self.rest.split_to(needed));
        }
        let missing = needed - self.partial.len();
        let more = self.rest.split_to(missing.min(self.rest.len()));
        self.partial.extend_from_slice(&more);
        (self.partial.len() == needed).then(|| self.partial.split().freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> raftpb::Entry {
        let data = Bytes::from(format!("entry {index}"));
        raftpb::Entry { r#type: 0, term, index, data }
    }

    fn append(term: u64, (index, log_term): (u64, u64), count: u64) -> raftpb::Message {
        raftpb::Message {
            r#type: MessageType::MsgApp.into(),
            from: 1,
            to: 2,
            term,
            log_term,
            index,
            entries: (index + 1..=index + count).map(|index| entry(index, term)).collect(),
            commit: index,
            ..raftpb::Message::default()
        }
    }

    /// Appends of a leader's life: a probe, entries, nothing but a commit, a jump back, another term.
    fn appends() -> Vec<raftpb::Message> {
        vec![
            append(3, (7, 2), 0),
            append(3, (7, 2), 2),
            append(3, (9, 3), 1),
            append(3, (10, 3), 0),
            append(3, (10, 3), 5),
            append(3, (9, 3), 6),
            append(3, (15, 3), 1),
            append(5, (16, 3), 1),
            append(5, (17, 5), 1),
        ]
    }

    fn others() -> Vec<raftpb::Message> {
        let kinds = [MessageType::MsgAppResp, MessageType::MsgVote, MessageType::MsgReadIndex];
        let message = |kind: MessageType| raftpb::Message {
            r#type: kind.into(),
            from: 2,
            to: 1,
            term: 4,
            index: 77,
            reject: true,
            reject_hint: 70,
            context: Bytes::from_static(b"context"),
            ..append(3, (7, 2), 1)
        };
        kinds.map(message).into()
    }

    fn encoded(kind: Kind, messages: &[raftpb::Message]) -> Bytes {
        let mut encoder = Encoder::new(kind);
        let mut out = BytesMut::new();
        for message in messages {
            encoder.encode_heartbeat(&mut out);
            encoder.encode(message, &mut out);
        }
        out.freeze()
    }

    fn decoded(kind: Kind, bytes: &Bytes, piece: usize) -> Result<Vec<raftpb::Message>, Malformed> {
        let mut decoder = Decoder::new(kind, 1, 2);
        let mut messages = Vec::new();
        for piece in bytes.chunks(piece) {
            decoder.decode(Bytes::copy_from_slice(piece), &mut messages)?;
        }
        Ok(messages)
    }

    #[test]
    fn what_is_encoded_is_decoded_however_it_is_cut() {
        for (kind, messages) in
            [(Kind::MsgApp, appends()), (Kind::Message, [appends(), others()].concat())]
        {
            let bytes = encoded(kind, &messages);
            for piece in [1, 2, 7, 8, 9, 64, bytes.len()] {
                assert_eq!(decoded(kind, &bytes, piece).as_ref(), Ok(&messages), "{piece}");
            }
        }
    }

    #[test]
    fn appends_that_join_are_short_and_the_first_never_does() {
        let types: Vec<u8> = appends()
            .iter()
            .scan(Encoder::new(Kind::MsgApp), |encoder, message| {
                let mut out = BytesMut::new();
                encoder.encode(message, &mut out);
                Some(out[0])
            })
            .collect();
        assert_eq!(types, [2, 2, 1, 1, 1, 2, 1, 2, 1]);
    }

    /// The link heartbeats that members of 3.5 and 3.7 were seen to send, and that of 3.6 (§3.1).
    #[test]
    fn link_heartbeats_of_all_releases_are_passed_over() {
        let of_3_5 = [
            0x08, 0x08, 0x10, 0x00, 0x18, 0x00, 0x20, 0x00, 0x28, 0x00, 0x30, 0x00, 0x40, 0x00,
            0x4a, 0x0a, 0x12, 0x08, 0x0a, 0x02, 0x28, 0x00, 0x10, 0x00, 0x18, 0x00, 0x50, 0x00,
            0x58, 0x00,
        ];
        let of_3_6 = [
            0x08, 0x08, 0x10, 0x00, 0x18, 0x00, 0x20, 0x00, 0x28, 0x00, 0x30, 0x00, 0x40, 0x00,
            0x50, 0x00, 0x58, 0x00, 0x68, 0x00,
        ];
        for heartbeat in [&of_3_5[..], &of_3_6, &[0x08, 0x08]] {
            let mut bytes = BytesMut::new();
            bytes.put_u64(heartbeat.len() as u64);
            bytes.put_slice(heartbeat);
            assert_eq!(decoded(Kind::Message, &bytes.freeze(), 5), Ok(vec![]));
        }
    }

    #[test]
    fn what_no_member_sends_is_refused_before_it_takes_memory() {
        let long = [&[2][..], &u64::MAX.to_be_bytes()].concat();
        assert_eq!(decoded(Kind::MsgApp, &long.into(), 100), Err(Malformed::TooLong(u64::MAX)));
        let many = [&[1][..], &(1_u64 << 40).to_be_bytes()].concat();
        assert!(matches!(decoded(Kind::MsgApp, &many.into(), 100), Err(Malformed::TooLong(_))));
        assert_eq!(
            decoded(Kind::MsgApp, &Bytes::from_static(&[3]), 1),
            Err(Malformed::FrameType(3))
        );
        let no_message = [&1_u64.to_be_bytes()[..], &[0xff]].concat();
        assert!(matches!(
            decoded(Kind::Message, &no_message.into(), 100),
            Err(Malformed::Unpackable(_))
        ));
    }

    #[test]
    fn a_length_that_is_claimed_is_not_allocated() {
        let mut decoder = Decoder::new(Kind::Message, 1, 2);
        let claimed = Bytes::copy_from_slice(&FRAME_BYTES_MAX.to_be_bytes());
        let mut messages = Vec::new();
        decoder.decode(claimed, &mut messages).expect("it may be");
        decoder.decode(Bytes::from_static(b"12345"), &mut messages).expect("some of it");
        assert!(decoder.input.partial.capacity() < 1024);
    }
}
