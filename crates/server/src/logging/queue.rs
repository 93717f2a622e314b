//! The queue between threads that log and the thread that writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use super::Level;
use super::line::{Encoder, Notice};
use super::sink::Sink;

/// Lines that may wait; a full queue drops the newest and counts it.
const LINES_MAX: usize = 8192;
/// Bytes that may wait.
const BYTES_MAX: usize = 4 << 20;

/// Hands lines to the log thread. The thread ends when its queue is dropped.
pub(super) struct Queue {
    sender: SyncSender<Message>,
    backlog: Arc<Backlog>,
}

/// What waits, and what did not get to.
#[derive(Default)]
struct Backlog {
    bytes: AtomicUsize,
    dropped: AtomicU64,
}

enum Message {
    Line { level: Level, text: String },
    Flush(SyncSender<()>),
}

impl Queue {
    pub(super) fn start(sinks: Vec<Sink>, encoder: Encoder) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(LINES_MAX);
        let backlog = Arc::new(Backlog::default());
        let writer = Writer { sinks, encoder, backlog: Arc::clone(&backlog) };
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.run(&receiver))?;
        Ok(Self { sender, backlog })
    }

    /// Queues one line, or counts it as dropped; never waits.
    pub(super) fn push(&self, level: Level, text: String) {
        let bytes = text.len();
        let before = self.backlog.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= BYTES_MAX;
        if fits && self.sender.try_send(Message::Line { level, text }).is_ok() {
            return;
        }
        self.backlog.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.backlog.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until everything queued before is written, at most for `limit`.
    pub(super) fn flush(&self, limit: Duration) {
        let (done, written) = sync_channel(1);
        let start = std::time::Instant::now();
        let mut message = Message::Flush(done);
        while let Err(TrySendError::Full(back)) = self.sender.try_send(message) {
            if start.elapsed() >= limit {
                return;
            }
            message = back;
            std::thread::sleep(Duration::from_millis(1));
        }
        // Neither a time-out nor a log thread that is gone can be helped, or reported, here.
        let _late = written.recv_timeout(limit.saturating_sub(start.elapsed()));
    }
}

struct Writer {
    sinks: Vec<Sink>,
    encoder: Encoder,
    backlog: Arc<Backlog>,
}

impl Writer {
    fn run(mut self, receiver: &Receiver<Message>) {
        while let Ok(message) = receiver.recv() {
            match message {
                Message::Line { level, text } => {
                    self.write(level, &text);
                    self.backlog.bytes.fetch_sub(text.len(), Ordering::Relaxed);
                }
                Message::Flush(done) => {
                    self.confess();
                    // Whoever asked may have stopped waiting.
                    let _gone = done.send(());
                    continue;
                }
            }
            self.confess();
        }
    }

    /// Says how many lines are missing.
    fn confess(&mut self) {
        let dropped = self.backlog.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let notice = Notice::new(Level::Warn, "log lines were dropped; an output is too slow")
                .with("dropped", dropped);
            let text = self.encoder.notice(&notice);
            self.write(Level::Warn, &text);
        }
    }

    fn write(&mut self, level: Level, text: &str) {
        for sink in &mut self.sinks {
            sink.write(level, text);
        }
    }
}
