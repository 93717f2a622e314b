//! Requests to other members on behalf of clients: what only the leader can answer is asked of it.
//!
//! Belongs to one serving thread. Connections are kept and used again, one request at a time each, as many as were ever
//! needed at once up to `IDLE_MAX` per URL.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use super::dial::{self, Connection};
use crate::config::Url;
use crate::incomplete::Budget;

/// Connections to one URL that are kept.
const IDLE_MAX: usize = 16;

/// Bytes of an answer, as etcd has it.
const ANSWER_BYTES_MAX: usize = 100 << 20;

/// Time for a connection besides the election timeout, as etcd has it.
const DIAL_PATIENCE: Duration = Duration::from_secs(1);

/// See the module's documentation.
#[derive(Debug)]
pub struct Requests {
    dial_patience: Duration,
    /// What answers may take together.
    incomplete: Arc<Budget>,
    /// By URL.
    idle: RefCell<BTreeMap<Url, Vec<Connection>>>,
}

/// What is asked of a member.
#[derive(Debug, Clone)]
pub struct Asked {
    /// How.
    pub method: Method,
    /// Which page.
    pub path: String,
    /// What else the other one has to know.
    pub headers: HeaderMap,
    /// The question.
    pub body: Bytes,
}

impl Requests {
    /// Starts without connections. What is being answered counts against `incomplete`.
    pub fn new(election_timeout: Duration, incomplete: Arc<Budget>) -> Self {
        let dial_patience = DIAL_PATIENCE + election_timeout;
        Self { dial_patience, incomplete, idle: RefCell::default() }
    }

    /// Asks the member at `url` within `patience`.
    pub async fn ask(
        &self,
        url: &Url,
        asked: Asked,
        patience: Duration,
    ) -> io::Result<(StatusCode, Bytes)> {
        let mut connection = self.connection(url).await?;
        let Asked { method, path, headers, body } = asked;
        let request = dial::request(method, url, &path, headers, body);
        let answer = dial::send(&mut connection, request, patience).await?;
        let status = answer.status();
        let share = self.incomplete.share();
        let body = answer.into_body();
        let body = dial::collect_shared(body, ANSWER_BYTES_MAX, patience, share).await?;
        let mut idle = self.idle.borrow_mut();
        let idle = idle.entry(url.clone()).or_default();
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
        Ok((status, body))
    }

    async fn connection(&self, url: &Url) -> io::Result<Connection> {
        loop {
            let idle = self.idle.borrow_mut().get_mut(url).and_then(Vec::pop);
            match idle {
                Some(connection) if connection.is_closed() => {}
                Some(connection) => return Ok(connection),
                None => return dial::connect(url, self.dial_patience).await,
            }
        }
    }
}
