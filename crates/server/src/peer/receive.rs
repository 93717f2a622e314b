//! A snapshot that a leader sends (`spec/peer-protocol.md` §5): received into a file, made a backend beside the present one,
//! and given to the node, which puts it in place if raft agrees.
//!
//! One at a time; bounded in memory by a piece of the body. What is cut short, is no database or is not the one that its
//! message says, changes nothing. One that is still coming in gives way to a newer leader's, or to another one of the same
//! sender: whatever comes of it would not count.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use http::StatusCode;
use http_body::Body;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use machine::Machine;
use node::Prepared;
use proto::raftpb::{self, MessageType};
use storage::backend;
use storage::{Disk, File, OpenMode, snap};
use tokio::sync::{Mutex, MutexGuard, Notify};

use super::unpack;
use crate::handle::Handle;
use crate::incomplete::{Budget, Share};
use crate::metrics::{Histogram, NetworkFigures, PeerFigures};

/// Bytes of the message, as etcd has it.
const MESSAGE_BYTES_MAX: u64 = 64 << 20;

/// Bytes that are collected before they are written.
const PIECE_BYTES: usize = 1 << 20;

/// Time in which the sender has to send its message, and then each [`PIECE_BYTES`]: it may be busy making the file. One that is
/// slower than that would keep others from sending theirs.
const PIECE_PATIENCE: Duration = Duration::from_mins(1);

/// Time in which the one that is being received has to give way: what it is writing ends first.
const OVERTAKING_PATIENCE: Duration = Duration::from_secs(10);

/// What a restart removes.
const TEMPORARY: &str = "tmp.snap.db";

/// Why a snapshot is not taken, as its sender is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The status.
    pub status: StatusCode,
    /// The text.
    pub text: String,
}

impl Refused {
    fn bad(text: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text: text.into() }
    }

    fn failed(error: impl std::fmt::Display) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, text: error.to_string() }
    }
}

/// Where snapshots go, and what their states have to be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The directory of snapshots and of the backend.
    pub snap_dir: PathBuf,
    /// The backend's file.
    pub database: PathBuf,
    /// What the machine has to be told.
    pub machine: machine::Options,
    /// How the backend works.
    pub backend: backend::Options,
}

/// Receives snapshots.
#[derive(Debug)]
pub struct Receiver {
    settings: Settings,
    handle: Handle,
    network: Arc<NetworkFigures>,
    /// What messages that have not arrived whole may take together.
    incomplete: Arc<Budget>,
    /// Held by the one that is being received.
    turn: Mutex<()>,
    /// Who that is.
    present: RefCell<Option<Present>>,
}

/// The snapshot that is being received.
#[derive(Debug)]
struct Present {
    from: u64,
    term: u64,
    /// Told when another one is to take its place.
    overtaken: Rc<Notify>,
}

impl Present {
    fn gives_way_to(&self, message: &raftpb::Message) -> bool {
        message.term > self.term || message.from == self.from
    }
}

impl Receiver {
    /// Makes a receiver for a member whose node `handle` reaches. Messages count against `incomplete`.
    pub fn new(
        settings: Settings,
        handle: Handle,
        incomplete: Arc<Budget>,
        network: Arc<NetworkFigures>,
    ) -> Self {
        Self {
            settings,
            handle,
            network,
            incomplete,
            turn: Mutex::new(()),
            present: RefCell::default(),
        }
    }

    /// Receives a snapshot whose message `check` admits, and waits until it is in place, or does not count.
    pub async fn receive<E>(
        self: &Rc<Self>,
        body: Incoming,
        check: impl Fn(&raftpb::Message) -> Result<(), E>,
    ) -> Result<(), E>
    where
        E: From<Refused>,
    {
        let mut body = Pieces::new(body);
        // Held until the snapshot is in place.
        let mut share = self.incomplete.share();
        let message = in_time(body.message(&mut share)).await?;
        check(&message)?;
        // A task of its own: a sender that goes away must not end the turn while the files are in use.
        let receiver = Rc::clone(self);
        // Whoever is no member is counted for nobody.
        let figures = self.network.known(message.from).unwrap_or_default();
        let task = tokio::task::spawn_local(async move {
            let taken = receiver.take(message, body, &figures);
            figures.snapshots_received.counted(taken).await
        });
        Ok(task.await.unwrap_or_else(|ended| Err(Refused::failed(ended)))?)
    }

    async fn take(
        &self,
        message: raftpb::Message,
        body: Pieces,
        figures: &PeerFigures,
    ) -> Result<(), Refused> {
        let _turn = self.turn_for(&message).await?;
        let overtaken = Rc::new(Notify::new());
        let present =
            Present { from: message.from, term: message.term, overtaken: Rc::clone(&overtaken) };
        self.present.replace(Some(present));
        let started = Instant::now();
        let index = message.snapshot.as_ref().map_or(0, |snapshot| snapshot.metadata.index);
        let from = format!("{:x}", message.from);
        tracing::info!(from, index, "receiving database snapshot");
        let bytes = self.store(index, (body, &overtaken), figures).await?;
        let received = started.elapsed();
        self.network.database_save.observe(received);
        let settings = self.settings.clone();
        let prepared = self.long(move || prepare(&settings, index)).await?;
        let installed = self.network.installing(self.handle.install(message, prepared));
        let is_taken = installed.await.map_err(|failure| {
            Refused::failed(crate::grpc::status::Status::from(failure).message)
        })?;
        let took = started.elapsed();
        tracing::info!(
            from,
            index,
            bytes,
            is_taken,
            ?received,
            ?took,
            "received database snapshot"
        );
        Ok(())
    }

    /// Waits for the turn, if the one whose turn it is gives way.
    async fn turn_for(&self, message: &raftpb::Message) -> Result<MutexGuard<'_, ()>, Refused> {
        let busy = || Refused::failed("another snapshot is being received");
        if let Ok(turn) = self.turn.try_lock() {
            return Ok(turn);
        }
        match &*self.present.borrow() {
            Some(present) if present.gives_way_to(message) => present.overtaken.notify_one(),
            _ => return Err(busy()),
        }
        let turn = tokio::time::timeout(OVERTAKING_PATIENCE, self.turn.lock()).await;
        turn.map_err(|_elapsed| busy())
    }

    async fn long<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, machine::Fault> + Send + 'static,
    ) -> Result<T, Refused> {
        let done = self.handle.long_work().run(work).await;
        done.map_err(|status| Refused::failed(status.message))?.map_err(|fault| {
            tracing::warn!(%fault, "cannot take a snapshot");
            Refused::failed(fault)
        })
    }

    /// Writes the database to its file, durably; returns its length. A file that is not whole goes, and gives its space back.
    async fn store(
        &self,
        index: u64,
        coming: (Pieces, &Notify),
        figures: &PeerFigures,
    ) -> Result<u64, Refused> {
        let Settings { disk, snap_dir, .. } = self.settings.clone();
        let temporary = snap_dir.join(TEMPORARY);
        let stored = self.store_as((index, &temporary), coming, figures).await;
        if stored.is_err() {
            let removed = self.long(move || {
                disk.remove_file(&temporary).map_err(|error| fault("remove", &temporary, error))
            });
            drop(removed.await);
        }
        stored
    }

    async fn store_as(
        &self,
        (index, temporary): (u64, &Path),
        (mut body, overtaken): (Pieces, &Notify),
        figures: &PeerFigures,
    ) -> Result<u64, Refused> {
        let Settings { disk, snap_dir, .. } = self.settings.clone();
        let temporary = temporary.to_owned();
        let created = Arc::clone(&disk);
        let path = temporary.clone();
        let mut file = self.long(move || create(&*created, &path)).await?;
        let mut written = 0;
        loop {
            let piece = tokio::select! {
                biased;
                () = overtaken.notified() => {
                    return Err(Refused::failed("a newer snapshot has come"));
                }
                piece = in_time(body.piece(PIECE_BYTES)) => piece?,
            };
            let Some(piece) = piece else { break };
            let (at, path) = (written, temporary.clone());
            written += piece.len() as u64;
            figures.received(piece.len());
            file = self.long(move || write(file, &path, at, &piece)).await?;
        }
        let target = snap::database_path(&snap_dir, index);
        let network = Arc::clone(&self.network);
        let finish = move || finish(&*disk, &*file, &temporary, &target, &network.database_fsync);
        self.long(finish).await?;
        Ok(written)
    }
}

async fn in_time<T>(part: impl Future<Output = Result<T, Refused>>) -> Result<T, Refused> {
    let part = tokio::time::timeout(PIECE_PATIENCE, part).await;
    part.unwrap_or_else(|_elapsed| Err(Refused::failed("the sender does not go on")))
}

fn fault(operation: &'static str, path: &Path, source: std::io::Error) -> machine::Fault {
    storage::Fault::io(operation, path, source).into()
}

fn create(disk: &dyn Disk, path: &Path) -> Result<Box<dyn File>, machine::Fault> {
    let file = disk.open(path, OpenMode::Create).map_err(|error| fault("create", path, error))?;
    file.set_len(0).map_err(|error| fault("empty", path, error))?;
    Ok(file)
}

fn write(
    file: Box<dyn File>,
    path: &Path,
    at: u64,
    piece: &[u8],
) -> Result<Box<dyn File>, machine::Fault> {
    file.write_all_at(at, piece).map_err(|error| fault("write", path, error))?;
    Ok(file)
}

fn finish(
    disk: &dyn Disk,
    file: &dyn File,
    path: &Path,
    target: &Path,
    fsync: &Histogram,
) -> Result<(), machine::Fault> {
    let started = Instant::now();
    file.sync_data().map_err(|error| fault("sync", path, error))?;
    fsync.observe(started.elapsed());
    disk.rename(path, target).map_err(|error| fault("rename", path, error))
}

/// Makes the received file a backend and recovers its state. The file itself is of no more use then.
pub fn prepare(settings: &Settings, index: u64) -> Result<Prepared, machine::Fault> {
    let Settings { disk, snap_dir, database, machine, backend } = settings;
    let received = snap::database_path(snap_dir, index);
    let beside = snap::import_path(snap_dir, index);
    let imported = machine::import(disk, &received, &beside, database, *backend)
        .and_then(|backend| Ok((Machine::recover(backend.clone(), machine.clone())?, backend)));
    disk.remove_file(&received).map_err(|error| fault("remove", &received, error))?;
    match imported {
        Ok((machine, backend)) => Ok(Prepared { machine, backend }),
        Err(fault) => {
            // What was made of it so far; the next start removes it otherwise.
            drop(disk.remove_file(&beside));
            Err(fault)
        }
    }
}

/// The body of a request, piece by piece.
#[derive(Debug)]
pub struct Pieces<B = Incoming> {
    body: B,
    /// Arrived and not taken.
    rest: Bytes,
}

impl<B> Pieces<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    /// Starts with a body of which nothing was taken yet.
    pub fn new(body: B) -> Self {
        Self { body, rest: Bytes::new() }
    }

    /// Takes raft's message with its length before it.
    pub async fn message(&mut self, share: &mut Share) -> Result<raftpb::Message, Refused> {
        let short = || Refused::bad("failed to decode raft message");
        let mut length = self.exactly(size_of::<u64>(), share).await?.ok_or_else(short)?;
        let length = length.get_u64();
        if length > MESSAGE_BYTES_MAX {
            return Err(short());
        }
        let length = usize::try_from(length).map_err(|_too_long| short())?;
        let encoded = self.exactly(length, share).await?.ok_or_else(short)?;
        let message = unpack::message(encoded).map_err(|_malformed| short())?;
        if message.r#type() != MessageType::MsgSnap || message.snapshot.is_none() {
            return Err(Refused::bad("wrong raft message type"));
        }
        Ok(message)
    }

    async fn exactly(
        &mut self,
        needed: usize,
        share: &mut Share,
    ) -> Result<Option<Bytes>, Refused> {
        let mut all = BytesMut::new();
        while all.len() < needed {
            if self.rest.is_empty() && !self.more().await? {
                return Ok(None);
            }
            let missing = needed - all.len();
            let taken = self.rest.split_to(missing.min(self.rest.len()));
            all.extend_from_slice(&taken);
            if !share.hold(all.capacity()) {
                return Err(Refused::failed("too many messages are being received"));
            }
        }
        Ok(Some(all.freeze()))
    }

    /// Takes about `bytes`, or what is left; `None` when nothing is.
    pub async fn piece(&mut self, bytes: usize) -> Result<Option<Bytes>, Refused> {
        let mut piece = BytesMut::new();
        while piece.len() < bytes {
            if self.rest.is_empty() && !self.more().await? {
                break;
            }
            piece.extend_from_slice(&std::mem::take(&mut self.rest));
        }
        Ok((!piece.is_empty()).then(|| piece.freeze()))
    }

    /// Waits for more; false at the end.
    async fn more(&mut self) -> Result<bool, Refused> {
        match self.body.frame().await {
            None => Ok(false),
            Some(Err(error)) => Err(Refused::failed(error)),
            Some(Ok(frame)) => {
                self.rest = frame.into_data().unwrap_or_default();
                Ok(true)
            }
        }
    }
}
