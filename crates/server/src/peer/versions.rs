//! What the other members speak: the leader asks them, so that the cluster version can rise to what all understand
//! (`spec/peer-protocol.md` §10).

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use machine::membership::Version;
use node::{Event, Gate};
use serde::Deserialize;

use super::dial;
use super::transport::Transport;
use super::urls::Urls;

/// Time between two rounds, as etcd has it.
const INTERVAL: Duration = Duration::from_secs(4);

/// How often is looked whether a round is due: a member that begins to lead begins with one.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Time for one answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of an answer.
const BYTES_MAX: usize = 64 << 10;

/// What a member says of itself.
#[derive(Debug, Deserialize)]
struct Said {
    etcdserver: String,
}

/// Asks the others while this member leads. Runs as a task of the peer thread.
pub async fn watch(transport: Rc<Transport>, gate: std::sync::Arc<Gate>) {
    let mut last: Option<(u64, Instant)> = None;
    loop {
        let term = gate.term();
        let is_due = last.is_none_or(|(in_term, at)| in_term != term || at.elapsed() >= INTERVAL);
        if gate.is_leader() && gate.applied_term() == term && is_due {
            last = Some((term, Instant::now()));
            let lowest = lowest(&transport).await;
            transport.inflow().send(Event::PeerVersions { lowest }).await;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// The lowest release of the others; `None` if one of them cannot be asked.
async fn lowest(transport: &Transport) -> Option<Version> {
    let own = transport.own().member;
    let membership = transport.membership();
    let mut lowest = None;
    for member in membership.members().filter(|member| member.id != own) {
        match ask(transport, &member.peer_urls).await {
            Ok(version) => lowest = Some(lowest.map_or(version, |before| version.min(before))),
            Err(error) => {
                tracing::warn!(
                    peer = format!("{:x}", member.id),
                    %error,
                    "failed to get version of a peer"
                );
                return None;
            }
        }
    }
    lowest
}

async fn ask(transport: &Transport, urls: &[String]) -> io::Result<Version> {
    let mut failed = io::Error::new(io::ErrorKind::AddrNotAvailable, "it has no usable URL");
    for url in Urls::parse(urls) {
        let asked = async {
            let patience = transport.settings().dial_patience;
            let mut connection = dial::connect(&url, patience).await?;
            let request =
                dial::request(Method::GET, &url, "/version", HeaderMap::new(), Bytes::new());
            let answer = dial::send(&mut connection, request, PATIENCE).await?;
            if answer.status() != StatusCode::OK {
                return Err(io::Error::other(format!("it answered {}", answer.status())));
            }
            dial::collect(answer.into_body(), BYTES_MAX, PATIENCE).await
        };
        match asked.await.and_then(|said| parse(&said)) {
            Ok(version) => return Ok(version),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Reads what a member says of itself.
pub fn parse(said: &[u8]) -> io::Result<Version> {
    let said: Said = serde_json::from_slice(said)?;
    said.etcdserver.parse().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_releases_are_read() {
        let of_3_5 = br#"{"etcdserver":"3.5.30","etcdcluster":"3.5.0"}"#;
        assert_eq!(parse(of_3_5).expect("a version"), Version::new(3, 5, 30));
        let of_3_7 = br#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#;
        assert_eq!(parse(of_3_7).expect("a version"), Version::new(3, 7, 1));
        for bad in [&b"404"[..], b"{}", br#"{"etcdserver":"new"}"#] {
            assert!(parse(bad).is_err());
        }
    }
}
