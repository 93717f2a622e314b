//! Posts of single messages, for members to whom no stream leads (`spec/peer-protocol.md` §4).
//!
//! Bounds: `QUEUE_MAX` messages wait per member, `WORKERS_MAX` are on their way. What finds no room is lost; what is on its way
//! to a member that is forgotten is given up, for another one may answer at its address by then.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use prost::Message as _;
use proto::raftpb;
use tokio::task::AbortHandle;

use super::admission::Word;
use super::dial::{self, Connection};
use super::inflow::Inflow;
use super::urls::Urls;
use crate::metrics::PeerFigures;

/// Messages that wait for one member, as etcd has it.
const QUEUE_MAX: usize = 64;

/// Posts under way to one member, as etcd has it.
const WORKERS_MAX: usize = 4;

/// Time for the answer to a post: the receiver answers when it has taken the message.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of an answer; a longer one is no member's.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// How posts are made.
#[derive(Debug)]
pub struct Settings {
    /// Introduces this member.
    pub introduction: HeaderMap,
    /// Time for a connection.
    pub dial_patience: Duration,
    /// Time between heartbeats to one member.
    pub heartbeat_interval: Duration,
}

/// Posts to one member, for as long as this lives.
#[derive(Debug)]
pub struct Pipeline {
    shared: Rc<Shared>,
    /// Tasks that post; those that have ended are passed over.
    tasks: RefCell<Vec<AbortHandle>>,
}

/// Time for what is on its way to a member that is forgotten: the last message tells one that was removed so.
const FAREWELL: Duration = Duration::from_secs(1);

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.tasks.get_mut().iter().for_each(AbortHandle::abort);
    }
}

#[derive(Debug)]
struct Shared {
    peer: u64,
    urls: Rc<Urls>,
    settings: Rc<Settings>,
    inflow: Inflow,
    figures: Arc<PeerFigures>,
    word: Word,
    queue: RefCell<VecDeque<raftpb::Message>>,
    workers: Cell<usize>,
    idle: RefCell<Vec<Connection>>,
}

impl Pipeline {
    /// Makes a pipeline to `peer`, whose word that this member was removed counts as `word` says.
    pub fn new(
        (peer, word): (u64, Word),
        urls: Rc<Urls>,
        settings: Rc<Settings>,
        inflow: Inflow,
        figures: Arc<PeerFigures>,
    ) -> Self {
        let shared = Shared {
            peer,
            urls,
            settings,
            inflow,
            figures,
            word,
            queue: RefCell::default(),
            workers: Cell::default(),
            idle: RefCell::default(),
        };
        Self { shared: Rc::new(shared), tasks: RefCell::default() }
    }

    /// Lets what is on its way go on for a moment, as a task of this thread.
    pub fn wind_down(mut self) {
        let tasks = std::mem::take(self.tasks.get_mut());
        tokio::task::spawn_local(async move {
            tokio::time::sleep(FAREWELL).await;
            tasks.iter().for_each(AbortHandle::abort);
        });
    }

    /// Sends a message; false when it is lost.
    pub fn send(&self, message: raftpb::Message) -> bool {
        let shared = &self.shared;
        let mut queue = shared.queue.borrow_mut();
        if queue.len() >= QUEUE_MAX {
            return false;
        }
        queue.push_back(message);
        if shared.workers.get() < WORKERS_MAX {
            shared.workers.set(shared.workers.get() + 1);
            let task = tokio::task::spawn_local(Rc::clone(shared).work());
            let mut tasks = self.tasks.borrow_mut();
            tasks.retain(|task| !task.is_finished());
            tasks.push(task.abort_handle());
        }
        true
    }
}

impl Shared {
    async fn work(self: Rc<Self>) {
        loop {
            let Some(message) = self.queue.borrow_mut().pop_front() else { break };
            if let Err(error) = self.post(&message).await {
                tracing::debug!(peer = format!("{:x}", self.peer), %error, "a post failed");
                self.figures.sent_failed();
                self.inflow.down(self.peer, &error);
                self.inflow.unreachable(self.peer);
            }
        }
        self.workers.set(self.workers.get() - 1);
    }

    async fn post(&self, message: &raftpb::Message) -> io::Result<()> {
        let Some(url) = self.urls.current() else {
            return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "it has no usable URL"));
        };
        let body = Bytes::from(message.encode_to_vec());
        let bytes = body.len();
        let answered = self.answered(&url, body).await;
        if answered.is_err() {
            self.urls.advance(&url);
        }
        let (status, text) = answered?;
        match status {
            StatusCode::NO_CONTENT => {
                self.figures.sent(bytes);
                self.inflow.up(self.peer);
                Ok(())
            }
            StatusCode::FORBIDDEN if self.word.counts(&text) => {
                let text = String::from_utf8_lossy(&text);
                tracing::error!(peer = format!("{:x}", self.peer), answer = %text.trim_end(), "told to stop");
                self.inflow.send(node::Event::ToldRemoved { by: self.peer }).await;
                Ok(())
            }
            _ => {
                let text = String::from_utf8_lossy(&text);
                Err(io::Error::other(format!("{status}: {}", text.trim_end())))
            }
        }
    }

    async fn answered(
        &self,
        url: &crate::config::Url,
        body: Bytes,
    ) -> io::Result<(StatusCode, Bytes)> {
        let mut headers = self.settings.introduction.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/protobuf"));
        let mut connection = self.connection(url).await?;
        let request = dial::request(Method::POST, url, "/raft", headers, body);
        let answer = dial::send(&mut connection, request, ANSWER_PATIENCE).await?;
        let status = answer.status();
        let text = dial::collect(answer.into_body(), ANSWER_BYTES_MAX, ANSWER_PATIENCE).await?;
        self.idle.borrow_mut().push(connection);
        Ok((status, text))
    }

    async fn connection(&self, url: &crate::config::Url) -> io::Result<Connection> {
        loop {
            let idle = self.idle.borrow_mut().pop();
            match idle {
                Some(connection) if connection.is_closed() => {}
                Some(connection) => return Ok(connection),
                None => return dial::connect(url, self.settings.dial_patience).await,
            }
        }
    }
}
