//! A leader's snapshot: raft's message and a database behind it, in pieces, as far as it goes: into a file, from that into a
//! backend and a machine, and from there to a member of three.
//!
//! Compared: the same bytes in one piece and in small ones.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use node::{Event, Token};
use prost::Message as _;
use proto::raftpb;
use server::incomplete::Budget;
use server::peer::receive::{self, Pieces, Refused, Settings};
use storage::{OpenMode, snap};

use crate::input::Input;
use crate::world::Member;

/// Bytes that messages may take.
const BUDGET_BYTES: usize = 1 << 20;
/// Bytes of the database that are taken at a time.
const PIECE_BYTES: usize = 4096;

/// Runs the target. One byte for what is made of the rest, one for the size of pieces.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.byte();
    let piece = usize::from(input.byte()) + 1;
    let mut member = Member::start(3);
    let body = match mode {
        0 => input.rest().to_vec(),
        // A message that is one, and damage to what follows it.
        _ => offered(&member, &mut input),
    };
    let whole = received(&body, body.len().max(1));
    assert_eq!(whole, received(&body, piece), "it depends on how it is cut");
    let Ok((message, database)) = whole else { return };
    let index = message.snapshot.as_ref().map_or(0, |snapshot| snapshot.metadata.index);
    let settings = member.snapshot_settings();
    store(&settings, index, &database);
    // A fault is an answer.
    let Ok(prepared) = receive::prepare(&settings, index) else { return };
    let (message, prepared) = (Box::new(message), Box::new(prepared));
    member.handle([Event::InstallSnapshot { token: Token(0), message, prepared }]);
    member.tick();
}

fn offered(member: &Member, input: &mut Input<'_>) -> Vec<u8> {
    let ids: Vec<u64> =
        member.node.reader().membership().members().map(|member| member.id).collect();
    let flags = input.byte();
    let metadata = raftpb::SnapshotMetadata {
        conf_state: raftpb::ConfState {
            voters: if flags & 1 == 0 { ids.clone() } else { vec![input.number()] },
            ..Default::default()
        },
        index: input.number(),
        term: input.number(),
    };
    let message = raftpb::Message {
        r#type: raftpb::MessageType::MsgSnap.into(),
        to: member.node.gate().member(),
        from: ids.get(1).copied().unwrap_or(2),
        term: input.number(),
        snapshot: Some(raftpb::Snapshot { data: Bytes::new(), metadata }),
        ..Default::default()
    };
    let mut body = BytesMut::new();
    body.extend_from_slice(&(message.encoded_len() as u64).to_be_bytes());
    message.encode_raw(&mut body);
    body.extend_from_slice(input.rest());
    body.to_vec()
}

/// What arrives of a body that comes in pieces of `piece` bytes.
fn received(body: &[u8], piece: usize) -> Result<(raftpb::Message, Vec<u8>), Refused> {
    let chunks = body.chunks(piece).map(Bytes::copy_from_slice).collect();
    let mut pieces = Pieces::new(Chunks(chunks));
    let mut share = Arc::new(Budget::new(BUDGET_BYTES)).share();
    at_once(async {
        let message = pieces.message(&mut share).await?;
        let mut database = Vec::new();
        while let Some(piece) = pieces.piece(PIECE_BYTES).await? {
            database.extend_from_slice(&piece);
        }
        Ok((message, database))
    })
}

fn store(settings: &Settings, index: u64, database: &[u8]) {
    let path = snap::database_path(&settings.snap_dir, index);
    let file = settings.disk.open(&path, OpenMode::Create).expect("a disk in memory");
    file.write_all_at(0, database).expect("a disk in memory");
}

/// A body whose bytes are all there.
struct Chunks(VecDeque<Bytes>);

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|chunk| Ok(Frame::data(chunk))))
    }
}

/// Runs what waits for nothing.
fn at_once<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    match work.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("all is there"),
    }
}
