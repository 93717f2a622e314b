//! Probes of the way to another member: how long a request and its answer take, and how far the two clocks are apart.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::dial::{self, Connection};
use super::pipeline::Settings;
use super::urls::Urls;
use crate::config::{GoDuration, Url};
use crate::metrics::PeerFigures;

/// Where members answer probes.
pub const PATH: &str = "/raft/probing";

/// Time between two probes, as etcd has it: members end connections on which nothing is asked for five seconds.
const INTERVAL: Duration = Duration::from_secs(4);

/// Time between two complaints about a clock, as etcd has it.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(30);

/// How far apart clocks may be.
const DRIFT_MAX: Duration = Duration::from_secs(1);

/// Time for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of an answer.
const BYTES_MAX: usize = 4 << 10;

/// What a probe is answered.
#[derive(Debug, Deserialize)]
struct Said {
    #[serde(rename = "Now")]
    now: String,
}

/// What a probe found.
struct Found {
    round_trip: Duration,
    drift: Duration,
}

/// Probes a peer again and again. Runs as a task of the peer thread.
pub async fn run(peer: u64, urls: Rc<Urls>, settings: Rc<Settings>, figures: Arc<PeerFigures>) {
    let mut idle = None;
    let mut complained: Option<Instant> = None;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(url) = urls.current() else { continue };
        // Whoever cannot be reached is told of by those who have something to send.
        let Ok(Found { round_trip, drift }) = probe(&url, &settings, &mut idle).await else {
            continue;
        };
        figures.round_trip.observe(round_trip);
        let is_told = complained.is_some_and(|at| at.elapsed() < COMPLAINT_INTERVAL);
        if drift > DRIFT_MAX && !is_told {
            complained = Some(Instant::now());
            tracing::warn!(
                remote_peer_id = format!("{peer:x}"),
                clock_drift = %GoDuration::from(drift),
                rtt = %GoDuration::from(round_trip),
                "prober found high clock drift"
            );
        }
    }
}

/// Probes once, on the connection of the time before if it is still there.
async fn probe(
    url: &Url,
    settings: &Settings,
    idle: &mut Option<(Url, Connection)>,
) -> io::Result<Found> {
    let kept = idle.take().filter(|(to, connection)| to == url && !connection.is_closed());
    let mut connection = match kept {
        Some((_, connection)) => connection,
        None => dial::connect(url, settings.dial_patience).await?,
    };
    let request = dial::request(Method::GET, url, PATH, HeaderMap::new(), Bytes::new());
    let (asked, asked_at) = (Instant::now(), Timestamp::now());
    let answer = dial::send(&mut connection, request, PATIENCE).await?;
    let round_trip = asked.elapsed();
    if answer.status() != StatusCode::OK {
        return Err(io::Error::other(format!("it answered {}", answer.status())));
    }
    let body = dial::collect(answer.into_body(), BYTES_MAX, PATIENCE).await?;
    let now = parse(&body)?;
    *idle = Some((url.clone(), connection));
    Ok(Found { round_trip, drift: drift(asked_at, round_trip, now) })
}

fn parse(body: &[u8]) -> io::Result<Timestamp> {
    let Said { now } = serde_json::from_slice(body)?;
    now.parse().map_err(io::Error::other)
}

/// How far the other clock is from this one: it was read in the middle of the round trip.
fn drift(asked_at: Timestamp, round_trip: Duration, theirs: Timestamp) -> Duration {
    let half = SignedDuration::try_from(round_trip / 2).unwrap_or(SignedDuration::ZERO);
    (theirs.duration_since(asked_at) - half).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared_in_the_middle_of_the_round_trip() {
        let at =
            |millis: i64| Timestamp::from_millisecond(1_700_000_000_000 + millis).expect("a time");
        let round_trip = Duration::from_millis(100);
        assert_eq!(drift(at(0), round_trip, at(50)), Duration::ZERO);
        assert_eq!(drift(at(0), round_trip, at(2050)), Duration::from_secs(2));
        assert_eq!(drift(at(0), round_trip, at(-1950)), Duration::from_secs(2));
    }

    #[test]
    fn answers_of_etcd_are_read() {
        for text in [
            r#"{"OK":true,"Now":"2026-11-29T15:12:45.286639Z"}"#,
            r#"{"OK":true,"Now":"2026-11-29T16:12:45.286639+01:00"}"#,
        ] {
            let now = parse(text.as_bytes()).expect("an answer");
            assert_eq!(now.to_string(), "2026-11-29T15:12:45.286639Z");
        }
        for bad in ["", "{}", r#"{"OK":true,"Now":"noon"}"#] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
