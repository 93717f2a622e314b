//! Snapshots for followers that need entries which the log does not have any more (`spec/peer-protocol.md` §5): raft's
//! message, and the whole store behind it as an etcd database file.
//!
//! The file is made of a view of the backend while it is sent, piece by piece, on the threads for long work; it is never
//! whole in memory, and what the message says of its index comes from the same view. If anything fails in between, the
//! connection breaks, so that nobody takes a part for the whole.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use machine::{Image, Reader};
use node::Event;
use prost::Message as _;
use proto::raftpb;
use tokio::sync::mpsc;

use super::admission::Word;
use super::dial;
use super::inflow::Inflow;
use super::pipeline::Settings;
use super::urls::Urls;
use crate::http::body::{Answer, Broken};
use crate::metrics::PeerFigures;
use crate::workers::Workers;

/// Time in which what a snapshot is to hold becomes durable.
const DURABLE_PATIENCE: Duration = Duration::from_secs(30);

/// How often is looked whether it is.
const DURABLE_POLL: Duration = Duration::from_millis(2);

/// Bytes of the file made at a time, and how many of such pieces may wait for the connection.
const PIECE_BYTES: usize = 256 << 10;
const PIECES_WAITING_MAX: usize = 4;

/// Time in which a receiver has to take a piece.
const PIECE_PATIENCE: Duration = Duration::from_mins(1);

/// Time for the answer once everything is sent: the receiver writes it to its disk before.
const ANSWER_PATIENCE: Duration = Duration::from_mins(10);

/// Time after which one that failed is reported, and so tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// One snapshot on its way.
#[derive(Debug)]
pub struct Sending {
    /// Where its receiver is.
    pub urls: Rc<Urls>,
    /// How to ask.
    pub settings: Rc<Settings>,
    /// Where it is reported.
    pub inflow: Inflow,
    /// The store.
    pub reader: Reader,
    /// Who makes the file.
    pub long_work: Workers,
    /// What is counted of the receiver.
    pub figures: Arc<PeerFigures>,
}

/// A file that is being made, and what comes before it.
struct Made {
    head: Bytes,
    image: Image,
    index: u64,
}

impl Sending {
    /// Sends the snapshot that `message` offers, and reports what has become of it.
    pub async fn run(self, message: raftpb::Message) {
        let to = message.to;
        let sent = self.figures.snapshots_sent.counted(self.send(message)).await;
        match &sent {
            Ok(index) => {
                self.inflow.up(to);
                tracing::info!(to = format!("{to:x}"), index, "sent database snapshot");
            }
            Err(error) => {
                tracing::warn!(to = format!("{to:x}"), %error, "failed to send database snapshot");
                self.figures.sent_failed();
                self.inflow.down(to, error);
                self.inflow.unreachable(to);
                // Raft tries again at the next sign of life; making another file costs more than that.
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
        self.inflow.send(Event::SnapshotSent { peer: to, is_done: sent.is_ok() }).await;
    }

    async fn send(&self, message: raftpb::Message) -> io::Result<u64> {
        let Some(url) = self.urls.current() else {
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "it has no usable URL"));
        };
        let peer = message.to;
        let Made { head, image, index } = self.make(message).await?;
        let mut headers = self.settings.introduction.clone();
        let binary = HeaderValue::from_static("application/octet-stream");
        headers.insert(CONTENT_TYPE, binary);
        let mut connection = dial::connect(&url, self.settings.dial_patience).await?;
        let (pieces, body) = mpsc::channel(PIECES_WAITING_MAX);
        let body = Answer::Stream(body);
        let request = dial::streamed(Method::POST, &url, "/raft/snapshot", headers, body);
        let feed = feed(self.long_work.clone(), Arc::clone(&self.figures), (head, image), pieces);
        // The answer may come before the end, when the snapshot is refused.
        let fed = async {
            feed.await?;
            tokio::time::sleep(ANSWER_PATIENCE).await;
            Err(io::Error::from(io::ErrorKind::TimedOut))
        };
        let answer = tokio::select! {
            biased;
            answer = connection.send_request(request) => answer.map_err(io::Error::other),
            late = fed => late,
        };
        let answer = answer.inspect_err(|_failed| self.urls.advance(&url))?;
        let status = answer.status();
        let text =
            dial::collect(answer.into_body(), ANSWER_BYTES_MAX, Duration::from_secs(5)).await?;
        match status {
            StatusCode::NO_CONTENT => Ok(index),
            StatusCode::FORBIDDEN if Word::Member.counts(&text) => {
                self.inflow.send(Event::ToldRemoved { by: peer }).await;
                Err(io::Error::other("it says that this member was removed"))
            }
            _ => {
                let text = String::from_utf8_lossy(&text);
                Err(io::Error::other(format!("{status}: {}", text.trim_end())))
            }
        }
    }

    /// Opens a view of the backend that holds what is offered at least, and begins the file.
    async fn make(&self, mut message: raftpb::Message) -> io::Result<Made> {
        let offered = message.snapshot.as_ref().map_or(0, |snapshot| snapshot.metadata.index);
        let durable = async {
            while self.reader.durable_index() < offered {
                tokio::time::sleep(DURABLE_POLL).await;
            }
        };
        tokio::time::timeout(DURABLE_PATIENCE, durable)
            .await
            .map_err(|_elapsed| io::Error::new(io::ErrorKind::TimedOut, "it is not durable yet"))?;
        let reader = self.reader.clone();
        let work = move || {
            let view = reader.snapshot().map_err(io::Error::other)?;
            let membership = view.membership().map_err(io::Error::other)?;
            let machine::schema::ConfState { voters, learners } = view.conf_state().clone();
            let metadata = raftpb::SnapshotMetadata {
                conf_state: raftpb::ConfState { voters, learners, ..Default::default() },
                index: view.index(),
                term: view.term(),
            };
            let data = node::membership_document(&membership);
            message.snapshot = Some(raftpb::Snapshot { data, metadata });
            let image = view.image().map_err(io::Error::other)?;
            let mut head = BytesMut::new();
            head.put_u64(message.encoded_len() as u64);
            message.encode_raw(&mut head);
            Ok(Made { head: head.freeze(), image, index: view.index() })
        };
        self.long_work.run(work).await.map_err(|_stopped| io::Error::other("the member stops"))?
    }
}

/// Makes the file and hands it to the connection, piece by piece. An error breaks the connection.
async fn feed(
    long_work: Workers,
    figures: Arc<PeerFigures>,
    (head, mut image): (Bytes, Image),
    pieces: mpsc::Sender<Result<Bytes, Broken>>,
) -> io::Result<()> {
    let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the connection is gone");
    figures.sent(head.len());
    pieces.send(Ok(head)).await.map_err(|_gone| gone())?;
    loop {
        let work = move || {
            let mut whole = BytesMut::with_capacity(2 * PIECE_BYTES);
            let mut piece = Vec::new();
            while whole.len() < PIECE_BYTES && image.next_piece(&mut piece)? {
                whole.extend_from_slice(&piece);
            }
            Ok::<_, machine::ImageError>((image, whole.freeze()))
        };
        let made =
            long_work.run(work).await.map_err(|_stopped| io::Error::other("the member stops"));
        let made = made.and_then(|made| made.map_err(io::Error::other));
        let (rest, whole) = match made {
            Ok(made) => made,
            Err(error) => {
                // Nobody may take what was sent for the whole; who is gone does not.
                drop(tokio::time::timeout(PIECE_PATIENCE, pieces.send(Err(Broken))).await);
                return Err(error);
            }
        };
        if whole.is_empty() {
            return Ok(());
        }
        image = rest;
        figures.sent(whole.len());
        match tokio::time::timeout(PIECE_PATIENCE, pieces.send(Ok(whole))).await {
            Ok(sent) => sent.map_err(|_gone| gone())?,
            Err(_elapsed) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it takes nothing"));
            }
        }
    }
}
