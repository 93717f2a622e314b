//! How a member finds the cluster that it is to join (`spec/peer-protocol.md` §11): its own id and the cluster's come from
//! the members that are there.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use machine::membership::Version;
use node::Identity;
use serde::Deserialize;
use tokio::task::LocalSet;

use super::admission::{self, CLUSTER_ID, OWN_CLUSTER_VERSION_MIN};
use super::dial;
use super::urls::Urls;
use crate::config::{BootstrapError, Config, ETCD_VERSION, Url, equal_urls};

/// Time for one answer, as etcd has it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of an answer.
const BYTES_MAX: usize = 1 << 20;

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
}

/// What `/version` tells.
#[derive(Debug, Deserialize)]
struct Versions {
    #[serde(default)]
    etcdcluster: String,
}

/// Asks the members that are there. Blocks until one has answered, or none has.
pub fn find(config: &Config) -> Result<Identity, JoinError> {
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
        Ok(Identity { member, cluster })
    })
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
    is_in_range(&versions)
}

fn is_in_range(versions: &[Version]) -> bool {
    let own = |text: &str| {
        let Version { major, minor, .. } = text.parse().expect("a constant of this release");
        Version { major, minor, patch: 0 }
    };
    let range = own(OWN_CLUSTER_VERSION_MIN)..=own(ETCD_VERSION);
    !versions.is_empty() && versions.iter().all(|version| range.contains(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(list: &[(&str, &str)]) -> BTreeMap<String, Vec<Url>> {
        let url = |text: &str| Url::parse(text).expect("a URL");
        list.iter().map(|(name, text)| ((*name).to_owned(), vec![url(text)])).collect()
    }

    fn told(list: &[(u64, &str)]) -> Vec<Told> {
        let told = |&(id, url): &(u64, &str)| Told { id, peer_urls: Some(vec![url.to_owned()]) };
        list.iter().map(told).collect()
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
            assert_eq!(is_in_range(&versions(list)), expected, "{list:?}");
        }
    }
}
