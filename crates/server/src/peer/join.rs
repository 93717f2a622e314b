//! How a member finds the cluster that it is to join (`spec/peer-protocol.md` §11): its own id and the cluster's come from
//! the members that are there.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use machine::membership::{Version, initial_member_id};
use node::Identity;
use serde::Deserialize;
use tokio::task::{JoinSet, LocalSet};

use super::admission::{self, CLUSTER_ID, OWN_CLUSTER_VERSION_MIN, own_version};
use super::dial;
use super::transport::Neighbour;
use super::urls::Urls;
use crate::config::{BootstrapError, Config, ETCD_VERSION, Url, equal_urls};

/// Time for one answer, as etcd has it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time for all others to say whether they know this member, as etcd has it for each.
const BOOTSTRAP_PATIENCE: Duration = Duration::from_secs(1);

/// Bytes of an answer.
const BYTES_MAX: usize = 1 << 20;

/// Where members tell whether the cluster is being downgraded.
pub const DOWNGRADE_PATH: &str = "/downgrade/enabled";

/// Why a cluster cannot be joined; the texts are etcd's.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The flags do not fit together.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// Nobody answers.
    #[error(
        "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs"
    )]
    Unreachable,
    /// `--initial-cluster` is not the cluster that is there, with this member.
    #[error("error validating peerURLs {members}: {reason}")]
    Members {
        /// The members that are there.
        members: String,
        /// What is wrong.
        reason: String,
    },
    /// The others know this member as one that has started: its data is lost, or somebody else has it.
    #[error("member {0} has already been bootstrapped")]
    Bootstrapped(String),
    /// There are more learners than this member allows.
    #[error("membership: too many learner members in cluster")]
    TooManyLearners,
    /// This release does not speak what the cluster speaks.
    #[error("incompatible with current running cluster")]
    Incompatible,
    /// There is no runtime to ask with.
    #[error("cannot ask the members: {0}")]
    Runtime(#[source] io::Error),
}

/// A member as `/members` tells it.
#[derive(Debug, Deserialize)]
pub struct Told {
    id: u64,
    #[serde(default, rename = "peerURLs")]
    peer_urls: Option<Vec<String>>,
    #[serde(default, rename = "clientURLs")]
    client_urls: Option<Vec<String>>,
    #[serde(default, rename = "isLearner")]
    is_learner: bool,
}

/// What `/version` tells.
#[derive(Debug, Deserialize)]
struct Versions {
    #[serde(default)]
    etcdcluster: String,
}

/// The cluster that is to be joined.
#[derive(Debug)]
pub struct Found {
    /// Who this member is to be.
    pub identity: Identity,
    /// The others.
    pub neighbours: Vec<Neighbour>,
}

/// Asks the members that are there. Blocks until one has answered, or none has.
pub fn find(config: &Config) -> Result<Found, JoinError> {
    let members = config.bootstrap_members()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(JoinError::Runtime)?;
    LocalSet::new().block_on(&runtime, async {
        let patience = Duration::from_secs(1) + config.raft.election_timeout;
        let others = others(&members, &config.name);
        let (told, cluster) = fetch(&others, patience).await.ok_or(JoinError::Unreachable)?;
        let member = matched(&told, &members, &config.name).map_err(|reason| {
            let members: Vec<_> = told.iter().map(|told| admission::hex(told.id)).collect();
            JoinError::Members { members: format!("[{}]", members.join(" ")), reason }
        })?;
        if !is_compatible(&others, patience).await {
            return Err(JoinError::Incompatible);
        }
        if told.iter().filter(|told| told.is_learner).count() > config.cluster.learners_max {
            return Err(JoinError::TooManyLearners);
        }
        let others = told.into_iter().filter(|told| told.id != member);
        let neighbours = others.map(|told| (told.id, told.peer_urls.unwrap_or_default()));
        let identity = Identity { member, cluster };
        Ok(Found { identity, neighbours: neighbours.collect() })
    })
}

/// Checks that a member that is about to form a cluster has not done so before: if it has, the others know it with the URLs
/// that it published. Whoever does not answer soon is passed over, for it may be about to start itself. Blocks meanwhile.
pub fn check_is_new(config: &Config) -> Result<(), JoinError> {
    let members = config.bootstrap_members()?;
    let others = others(&members, &config.name);
    if others.is_empty() {
        return Ok(());
    }
    let urls = members.get(&config.name).into_iter().flatten().map(ToString::to_string);
    let own = initial_member_id(&urls.collect::<Vec<_>>(), &config.cluster.token);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(JoinError::Runtime)?;
    LocalSet::new().block_on(&runtime, async {
        let mut asked = JoinSet::new();
        for url in others {
            asked.spawn_local(async move { knows(&url, own).await });
        }
        let waited = tokio::time::timeout(BOOTSTRAP_PATIENCE, async {
            while let Some(known) = asked.join_next().await {
                if known.is_ok_and(|known| known) {
                    return Err(JoinError::Bootstrapped(admission::hex(own)));
                }
            }
            Ok(())
        });
        waited.await.unwrap_or(Ok(()))
    })
}

/// Tells whether a member knows member `id` as one that has started.
async fn knows(url: &Url, id: u64) -> bool {
    let Ok((_, body)) = ask(url, "/members", BOOTSTRAP_PATIENCE).await else { return false };
    let told: Vec<Told> = serde_json::from_slice(&body).unwrap_or_default();
    has_started(&told, id)
}

fn has_started(told: &[Told], id: u64) -> bool {
    let has_urls = |told: &Told| told.client_urls.as_ref().is_some_and(|urls| !urls.is_empty());
    told.iter().any(|told| told.id == id && has_urls(told))
}

/// The URLs of the other members, sorted.
fn others(members: &BTreeMap<String, Vec<Url>>, own: &str) -> Vec<Url> {
    let others = members.iter().filter(|(name, _)| *name != own);
    let mut urls: Vec<Url> = others.flat_map(|(_, urls)| urls.clone()).collect();
    urls.sort();
    urls
}

/// Takes the first good answer: the members, and the cluster's id.
async fn fetch(urls: &[Url], patience: Duration) -> Option<(Vec<Told>, u64)> {
    for url in urls {
        let answer = ask(url, "/members", patience).await;
        let told = answer.and_then(|(headers, body)| {
            let cluster = admission::text(&headers, &CLUSTER_ID).and_then(admission::id);
            let cluster = cluster.ok_or_else(|| io::Error::other("it has no cluster ID"))?;
            Ok((parse_members(&body)?, cluster))
        });
        match told {
            Ok(told) => return Some(told),
            Err(error) => tracing::warn!(
                address = url.as_str(),
                %error,
                "failed to get cluster response"
            ),
        }
    }
    None
}

/// Reads what a member says of all.
pub fn parse_members(told: &[u8]) -> io::Result<Vec<Told>> {
    Ok(serde_json::from_slice(told)?)
}

/// Reads the cluster version that a member tells; one that has not decided yet does not count.
pub fn parse_cluster_version(told: &[u8]) -> Option<Version> {
    let Versions { etcdcluster } = serde_json::from_slice(told).ok()?;
    etcdcluster.parse().ok()
}

async fn ask(url: &Url, path: &str, patience: Duration) -> io::Result<(HeaderMap, Bytes)> {
    let mut connection = dial::connect(url, patience).await?;
    let request = dial::request(Method::GET, url, path, HeaderMap::new(), Bytes::new());
    let answer = dial::send(&mut connection, request, PATIENCE).await?;
    if answer.status() != StatusCode::OK {
        return Err(io::Error::other(format!("it answered {}", answer.status())));
    }
    let (head, body) = answer.into_parts();
    Ok((head.headers, dial::collect(body, BYTES_MAX, PATIENCE).await?))
}

/// Matches the members that are there with those that are configured; returns the own id.
pub fn matched(
    told: &[Told],
    members: &BTreeMap<String, Vec<Url>>,
    own: &str,
) -> Result<u64, String> {
    if told.len() != members.len() {
        return Err("member count is unequal".to_owned());
    }
    let mut own_id = None;
    for there in told {
        let texts = there.peer_urls.clone().unwrap_or_default();
        let mut urls = Urls::parse(&texts);
        urls.sort();
        let found = members.iter().find(|(_, configured)| equal_urls(&urls, configured).is_ok());
        let Some((name, _)) = found else {
            let id = admission::hex(there.id);
            return Err(format!(
                "PeerURLs: no match found for existing member ({id}, [{}])",
                texts.join(" ")
            ));
        };
        if name == own {
            own_id = Some(there.id);
        }
    }
    own_id.ok_or_else(|| "the local member is not among them".to_owned())
}

/// Tells whether the cluster speaks what this release speaks: somebody says so, and nobody says otherwise.
async fn is_compatible(urls: &[Url], patience: Duration) -> bool {
    let mut versions = Vec::new();
    for url in urls {
        if let Ok((_, body)) = ask(url, "/version", patience).await
            && let Some(version) = parse_cluster_version(&body)
        {
            versions.push(version);
        }
    }
    is_in_range(&versions, goes_down(urls, patience).await)
}

/// Tells whether the cluster is being downgraded: the first one that knows is right.
async fn goes_down(urls: &[Url], patience: Duration) -> bool {
    for url in urls {
        match ask(url, DOWNGRADE_PATH, patience).await {
            Ok((_, body)) if &body[..] == b"true" => return true,
            Ok((_, body)) if &body[..] == b"false" => return false,
            // Releases before 3.5 have no such page.
            Ok(_) => {}
            Err(error) => tracing::warn!(
                address = url.as_str(),
                %error,
                "failed to get downgrade enabled status"
            ),
        }
    }
    false
}

/// A cluster that goes down speaks what is one above this release until all have left it.
fn is_in_range(versions: &[Version], goes_down: bool) -> bool {
    let own = |text: &str| Version { patch: 0, ..own_version(text) };
    let (min, max) = (own(OWN_CLUSTER_VERSION_MIN), own(ETCD_VERSION));
    let above = Version { minor: max.minor + 1, ..max };
    let range = if goes_down { above..=above } else { min..=max };
    let Some(other) = versions.iter().find(|version| !range.contains(version)) else {
        return !versions.is_empty();
    };
    let bound = if other < range.start() { "low" } else { "high" };
    tracing::warn!(
        remote_member_cluster_version = %other,
        minimum_cluster_version_supported = %range.start(),
        maximum_cluster_version_supported = %range.end(),
        "cluster version of remote member is not compatible; too {bound}"
    );
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(list: &[(&str, &str)]) -> BTreeMap<String, Vec<Url>> {
        let url = |text: &str| Url::parse(text).expect("a URL");
        list.iter().map(|(name, text)| ((*name).to_owned(), vec![url(text)])).collect()
    }

    fn told(list: &[(u64, &str)]) -> Vec<Told> {
        let told = |&(id, url): &(u64, &str)| {
            let text = format!(r#"{{"id":{id},"peerURLs":["{url}"]}}"#);
            serde_json::from_str(&text).expect("a member")
        };
        list.iter().map(told).collect()
    }

    #[test]
    fn a_member_has_started_when_it_has_said_where_clients_reach_it() {
        let list = r#"[{"id":7,"peerURLs":["http://a:1"],"name":"a","clientURLs":["http://a:2"]},
                       {"id":8,"peerURLs":["http://b:1"],"isLearner":true}]"#;
        let told: Vec<Told> = serde_json::from_str(list).expect("members");
        assert!(has_started(&told, 7) && !has_started(&told, 8) && !has_started(&told, 9));
        assert!(!told[0].is_learner && told[1].is_learner);
    }

    #[test]
    fn the_own_id_is_that_of_the_member_with_the_own_urls() {
        let members = members(&[("a", "http://10.0.0.1:2380"), ("b", "http://10.0.0.2:2380")]);
        let there = told(&[(7, "http://10.0.0.2:2380"), (8, "http://10.0.0.1:2380")]);
        assert_eq!(matched(&there, &members, "a"), Ok(8));
        assert_eq!(matched(&there, &members, "b"), Ok(7));
        let more = told(&[(7, "http://10.0.0.2:2380")]);
        assert_eq!(matched(&more, &members, "a"), Err("member count is unequal".to_owned()));
        let other = told(&[(7, "http://10.0.0.2:2380"), (8, "http://10.0.0.3:2380")]);
        let error = matched(&other, &members, "a").expect_err("8 is none of them");
        assert!(error.starts_with("PeerURLs: no match found for existing member (8"), "{error}");
        assert_eq!(others(&members, "a").len(), 1);
    }

    #[test]
    fn a_cluster_is_joined_that_speaks_what_this_release_speaks() {
        let versions = |list: &[(u64, u64)]| -> Vec<Version> {
            list.iter().map(|&(major, minor)| Version::new(major, minor, 0)).collect()
        };
        for (list, expected) in [
            (&[][..], false),
            (&[(3, 5)], true),
            (&[(3, 7), (3, 7)], true),
            (&[(3, 7), (3, 8)], false),
            (&[(2, 3)], false),
        ] {
            assert_eq!(is_in_range(&versions(list), false), expected, "{list:?}");
        }
        // While it goes down, only the series above is left to come from.
        for (list, expected) in [
            (&[][..], false),
            (&[(3, 8)], true),
            (&[(3, 8), (3, 7)], false),
            (&[(3, 7)], false),
            (&[(3, 9)], false),
        ] {
            assert_eq!(is_in_range(&versions(list), true), expected, "{list:?}");
        }
    }
}
