//! The receiving end of a stream: this member asks a peer for it, and is sent the peer's messages for as long as both are
//! there (`spec/peer-protocol.md` §3, §6.5).

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use node::Event;

use super::admission::{self, TO};
use super::codec::{Decoder, Kind, Malformed};
use super::dial;
use super::inflow::Inflow;
use super::pipeline::Settings;
use super::urls::Urls;
use crate::config::Url;
use crate::metrics::PeerFigures;

/// Time between two attempts.
const REDIAL_INTERVAL: Duration = Duration::from_millis(100);

/// Time after a peer has sent what no member sends.
const MALFORMED_INTERVAL: Duration = Duration::from_secs(1);

/// Attempts right after a stream broke off, at most, and the time between them: while a process dies, its streams may be
/// closed before nobody listens any more.
const PROBES_MAX: usize = 40;
const PROBE_INTERVAL: Duration = Duration::from_millis(5);

/// Time in which a peer shows that it is alive.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Bytes of a refusal.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// One stream from one peer.
#[derive(Debug)]
pub struct Link {
    /// The peer.
    pub peer: u64,
    /// This member.
    pub own: u64,
    /// Which stream.
    pub kind: Kind,
    /// Where the peer is.
    pub urls: Rc<Urls>,
    /// How to ask.
    pub settings: Rc<Settings>,
    /// Where messages go.
    pub inflow: Inflow,
    /// What is counted of the peer.
    pub figures: Arc<PeerFigures>,
}

/// Why a stream ended, or did not begin.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Connection(#[from] io::Error),
    #[error("the peer was silent for {SILENCE_MAX:?}")]
    Silence,
    #[error("the peer sends what no member sends: {0}")]
    Malformed(#[from] Malformed),
    #[error("the peer ended the stream")]
    Closed,
    #[error("the peer answered {status}: {text}")]
    Refused { status: StatusCode, text: String },
    #[error("the peer has no usable URL")]
    NoUrl,
}

impl Ended {
    /// Tells whether the peer's side of a stream broke off: its process may be gone.
    fn is_break(&self) -> bool {
        matches!(self, Self::Closed | Self::Connection(_))
    }

    /// Tells whether nobody listens there.
    fn is_refused_connection(&self) -> bool {
        matches!(self, Self::Connection(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// Attempts since a stream broke off, by which it shows whether the peer's process is gone.
#[derive(Debug, Clone, Copy)]
struct Probes {
    made: usize,
    /// How many in a row found that nobody listens.
    refused: usize,
    /// Whether the next one is to follow at once.
    is_urgent: bool,
}

impl Probes {
    /// Judges an attempt that has ended; `None` when there is nothing to find out any more.
    fn after(before: Option<Self>, was_up: bool, ended: &Ended) -> Option<Self> {
        if was_up {
            let first = Self { made: 0, refused: 0, is_urgent: true };
            return ended.is_break().then_some(first);
        }
        let Self { made, refused, .. } = before.filter(|before| before.made < PROBES_MAX)?;
        let made = made + 1;
        if ended.is_refused_connection() {
            Some(Self { made, refused: refused + 1, is_urgent: true })
        } else {
            // Taken by the system for a process that is dying.
            ended.is_break().then_some(Self { made, refused: 0, is_urgent: false })
        }
    }
}

impl Link {
    /// Asks for the stream again and again. Runs as a task of the peer thread; ends when it is dropped, or when the peer
    /// says that this member was removed.
    pub async fn run(self) {
        // A member that cannot be reached is told of once.
        let mut is_told = false;
        let mut probes = None;
        loop {
            let url = self.urls.current();
            let mut was_up = false;
            let ended = match &url {
                Some(url) => self.once(url, &mut was_up).await,
                None => Ended::NoUrl,
            };
            self.inflow.down(self.peer, &ended);
            is_told &= !was_up;
            if !is_told {
                tracing::warn!(
                    peer = format!("{:x}", self.peer),
                    stream = self.kind.path(),
                    error = %ended,
                    "lost TCP streaming connection with remote peer"
                );
                is_told = true;
            }
            if matches!(ended, Ended::Refused { status: StatusCode::GONE, .. }) {
                self.inflow.send(Event::ToldRemoved { by: self.peer }).await;
                return;
            }
            if let Some(url) = url {
                self.urls.advance(&url);
            }
            probes = Probes::after(probes, was_up, &ended);
            if probes.is_some_and(|probes| probes.refused == self.urls.len()) {
                // Nobody listens at any of its URLs.
                self.inflow.send(Event::PeerLost { peer: self.peer }).await;
                probes = None;
            }
            match probes {
                Some(Probes { is_urgent: true, .. }) => {}
                Some(_) => tokio::time::sleep(PROBE_INTERVAL).await,
                None if matches!(ended, Ended::Malformed(_)) => {
                    tokio::time::sleep(MALFORMED_INTERVAL).await;
                }
                None => tokio::time::sleep(REDIAL_INTERVAL).await,
            }
        }
    }

    async fn once(&self, url: &Url, is_up: &mut bool) -> Ended {
        match self.open(url).await {
            Ok(body) => {
                *is_up = true;
                self.inflow.up(self.peer);
                tracing::info!(
                    peer = format!("{:x}", self.peer),
                    stream = self.kind.path(),
                    "established TCP streaming connection with remote peer"
                );
                self.read(body).await
            }
            Err(ended) => ended,
        }
    }

    async fn open(&self, url: &Url) -> Result<Incoming, Ended> {
        let path = format!("/raft/stream/{}/{}", self.kind.path(), admission::hex(self.own));
        let mut headers = self.settings.introduction.clone();
        headers.insert(TO, admission::value(&admission::hex(self.peer)));
        let mut connection = dial::connect(url, self.settings.dial_patience).await?;
        let request = dial::request(Method::GET, url, &path, headers, Bytes::new());
        let answer = dial::send(&mut connection, request, SILENCE_MAX).await?;
        let status = answer.status();
        let body = answer.into_body();
        if status == StatusCode::OK {
            return Ok(body);
        }
        let text = dial::collect(body, REFUSAL_BYTES_MAX, SILENCE_MAX).await?;
        let text = String::from_utf8_lossy(&text).trim_end().to_owned();
        Err(Ended::Refused { status, text })
    }

    async fn read(&self, mut body: Incoming) -> Ended {
        let mut decoder = Decoder::new(self.kind, self.peer, self.own);
        loop {
            let data = match tokio::time::timeout(SILENCE_MAX, body.frame()).await {
                Err(_elapsed) => return Ended::Silence,
                Ok(None) => return Ended::Closed,
                Ok(Some(Err(error))) => return io::Error::other(error).into(),
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            self.inflow.up(self.peer);
            let bytes = data.len();
            let mut messages = Vec::new();
            let decoded = decoder.decode(data, &mut messages);
            let signs_of_life = decoder.take_signs_of_life();
            self.inflow.network().signs_of_life(signs_of_life as u64);
            self.figures.received(bytes.saturating_sub(signs_of_life));
            self.inflow.step(messages).await;
            if let Err(malformed) = decoded {
                self.figures.receive_failed();
                return malformed.into();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(kind: io::ErrorKind) -> Ended {
        Ended::Connection(kind.into())
    }

    #[test]
    fn a_process_that_dies_is_asked_again_until_nobody_listens() {
        let refused = connection(io::ErrorKind::ConnectionRefused);
        let reset = connection(io::ErrorKind::ConnectionReset);
        let probes = Probes::after(None, true, &Ended::Closed);
        let probes = Probes::after(probes, false, &reset);
        assert!(probes.is_some_and(|probes| !probes.is_urgent && probes.refused == 0));
        let probes = Probes::after(probes, false, &refused);
        assert_eq!(probes.map(|probes| probes.refused), Some(1));
    }

    #[test]
    fn who_is_silent_refuses_or_never_was_there_is_not_taken_for_dead() {
        let refused = connection(io::ErrorKind::ConnectionRefused);
        assert!(Probes::after(None, false, &refused).is_none());
        assert!(Probes::after(None, true, &Ended::Silence).is_none());
        let probes = Probes::after(None, true, &Ended::Closed);
        let status = StatusCode::PRECONDITION_FAILED;
        let answer = Ended::Refused { status, text: String::new() };
        assert!(Probes::after(probes, false, &answer).is_none());
        let mut probes = probes;
        let mut made = 0;
        while probes.is_some() {
            probes = Probes::after(probes, false, &Ended::Closed);
            made += 1;
        }
        assert_eq!(made, PROBES_MAX + 1);
    }
}
