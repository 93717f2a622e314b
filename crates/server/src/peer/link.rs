//! The receiving end of a stream: this member asks a peer for it, and is sent the peer's messages for as long as both are
//! there (`spec/peer-protocol.md` §3, §6.5).

use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// A stream that breaks off sooner than this does not show that its peer's process is going: two processes with one id end each
/// other's streams again and again.
const LIVED_MIN: Duration = Duration::from_secs(1);

/// Time after a peer has sent what no member sends.
const MALFORMED_INTERVAL: Duration = Duration::from_secs(1);

/// Attempts right after a stream broke off, at most, and the time between them: while a process dies, its streams may be
/// closed before nobody listens any more.
const PROBES_MAX: usize = 40;
const PROBE_INTERVAL: Duration = Duration::from_millis(5);

/// Time in which a peer shows that it is alive.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Kinds of reasons that are told of in one outage: a peer that thinks of a new one each time is not listened to.
const KINDS_MAX: usize = 8;

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

    /// What it is told of by, once for each kind and outage; those of connections are one kind, whatever the system says.
    fn kind(&self) -> String {
        match self {
            Self::Connection(_) | Self::Silence | Self::Closed => String::new(),
            Self::Malformed(_) | Self::Refused { .. } | Self::NoUrl => self.to_string(),
        }
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
    /// Judges an attempt that has ended, after a stream that lived for `lived` if there was one; `None` when there is nothing
    /// to find out any more.
    fn after(before: Option<Self>, lived: Option<Duration>, ended: &Ended) -> Option<Self> {
        if let Some(lived) = lived {
            let first = Self { made: 0, refused: 0, is_urgent: true };
            return (ended.is_break() && lived >= LIVED_MIN).then_some(first);
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
        // Why a member cannot be reached is told of once for each kind of reason.
        let mut told = BTreeSet::new();
        let mut probes = None;
        loop {
            let url = self.urls.current();
            let mut up_since: Option<Instant> = None;
            let ended = match &url {
                Some(url) => self.once(url, &mut up_since).await,
                None => Ended::NoUrl,
            };
            let lived = up_since.map(|since| since.elapsed());
            if lived.is_some() {
                told.clear();
            }
            // As in etcd, a peer that ends a stream counts as connected until it cannot be reached.
            if !matches!(ended, Ended::Closed) {
                self.inflow.down(self.peer, &ended);
            }
            if told.len() < KINDS_MAX && told.insert(ended.kind()) {
                tracing::warn!(
                    peer = format!("{:x}", self.peer),
                    stream = self.kind.path(),
                    error = %ended,
                    "lost TCP streaming connection with remote peer"
                );
            }
            if matches!(ended, Ended::Refused { status: StatusCode::GONE, .. }) {
                self.inflow.send(Event::ToldRemoved { by: self.peer }).await;
                return;
            }
            if let Some(url) = url {
                self.urls.advance(&url);
            }
            probes = Probes::after(probes, lived, &ended);
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

    async fn once(&self, url: &Url, up_since: &mut Option<Instant>) -> Ended {
        match self.open(url).await {
            Ok(body) => {
                *up_since = Some(Instant::now());
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

    const LONG: Option<Duration> = Some(LIVED_MIN);

    fn connection(kind: io::ErrorKind) -> Ended {
        Ended::Connection(kind.into())
    }

    #[test]
    fn a_process_that_dies_is_asked_again_until_nobody_listens() {
        let refused = connection(io::ErrorKind::ConnectionRefused);
        let reset = connection(io::ErrorKind::ConnectionReset);
        let probes = Probes::after(None, LONG, &Ended::Closed);
        let probes = Probes::after(probes, None, &reset);
        assert!(probes.is_some_and(|probes| !probes.is_urgent && probes.refused == 0));
        let probes = Probes::after(probes, None, &refused);
        assert_eq!(probes.map(|probes| probes.refused), Some(1));
    }

    #[test]
    fn who_is_silent_refuses_or_never_was_there_is_not_taken_for_dead() {
        let refused = connection(io::ErrorKind::ConnectionRefused);
        assert!(Probes::after(None, None, &refused).is_none());
        assert!(Probes::after(None, LONG, &Ended::Silence).is_none());
        let short = Some(LIVED_MIN / 2);
        assert!(Probes::after(None, short, &Ended::Closed).is_none(), "of two with one id");
        let probes = Probes::after(None, LONG, &Ended::Closed);
        let status = StatusCode::PRECONDITION_FAILED;
        let answer = Ended::Refused { status, text: String::new() };
        assert!(Probes::after(probes, None, &answer).is_none());
        let mut probes = probes;
        let mut made = 0;
        while probes.is_some() {
            probes = Probes::after(probes, None, &Ended::Closed);
            made += 1;
        }
        assert_eq!(made, PROBES_MAX + 1);
    }
}
