//! What the other members speak: the leader asks them, so that the cluster version can rise to what all understand, and a
//! downgrade ends when all have gone down (`spec/peer-protocol.md` §10).

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use machine::membership::Version;
use node::{Event, Gate};
use serde::Deserialize;

use super::admission::{self, hex};
use super::dial;
use super::transport::Transport;
use super::urls::Urls;
use crate::config::ETCD_VERSION;
use crate::service::Services;

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
    all(transport).await?.into_values().min()
}

/// The releases of the others; `None` if one of them cannot be asked.
async fn all(transport: &Transport) -> Option<BTreeMap<u64, Version>> {
    let own = transport.own().member;
    let membership = transport.membership();
    let mut versions = BTreeMap::new();
    for member in membership.members().filter(|member| member.id != own) {
        match ask(transport, &member.peer_urls).await {
            Ok(version) => versions.insert(member.id, version),
            Err(error) => {
                tracing::warn!(
                    remote_member_id = hex(member.id),
                    %error,
                    "failed to get version"
                );
                return None;
            }
        };
    }
    Some(versions)
}

/// Ends a downgrade job when all members have gone to its target, while this member leads. Runs as a task of the peer thread.
pub async fn watch_downgrade(transport: Rc<Transport>, services: Rc<Services>, interval: Duration) {
    // etcd looks at it never, too.
    if interval.is_zero() {
        return;
    }
    loop {
        tokio::time::sleep(interval).await;
        let downgrade = transport.membership().downgrade.clone();
        let target = downgrade.target_version.parse::<Version>();
        let Some(target) = target.ok().filter(|_| downgrade.is_enabled) else { continue };
        if !services.handle().gate().is_leader() {
            continue;
        }
        let Some(mut versions) = all(&transport).await else { continue };
        versions.insert(transport.own().member, admission::own_version(ETCD_VERSION));
        if !are_at(target, &versions) {
            continue;
        }
        tracing::info!(cluster_version = %target, "the cluster has been downgraded");
        if let Err(status) = services.end_downgrade().await {
            tracing::warn!(error = %status.message, "failed to cancel downgrade");
        }
    }
}

fn are_at(target: Version, versions: &BTreeMap<u64, Version>) -> bool {
    let other = versions.iter().find(|(_, version)| version.series() != target.series());
    if let Some((id, version)) = other {
        tracing::warn!(
            remote_member_id = hex(*id),
            current_server_version = %version,
            target_version = %target,
            "remotes server has mismatching etcd version"
        );
    }
    other.is_none()
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
    fn a_downgrade_is_done_when_all_members_are_of_its_series() {
        let target = Version::new(3, 7, 0);
        let at = |versions: &[(u64, u64)]| {
            let versions = versions.iter().map(|&(minor, patch)| Version::new(3, minor, patch));
            are_at(target, &(1..).zip(versions).collect())
        };
        assert!(at(&[(7, 1), (7, 0), (7, 3)]));
        assert!(!at(&[(7, 1), (8, 0)]));
        assert!(!at(&[(6, 9), (7, 0)]));
    }

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
