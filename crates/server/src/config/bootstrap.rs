//! What a first start checks: the cluster's members against this member's name and URLs. A member
//! that has data already ignores all of this.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, ToSocketAddrs as _};

use super::Config;
use super::url::{Url, UrlError, texts};

/// Why a member cannot be bootstrapped; the texts are etcd's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// `initial-cluster` holds what is no URL.
    #[error("error setting up initial cluster: {0}")]
    Url(#[source] UrlError),
    /// This member is not in it.
    #[error("couldn't find local name {0:?} in the initial cluster configuration")]
    LocalNameMissing(String),
    /// It gives this member URLs that are not advertised.
    #[error(
        "--initial-cluster has {missing} but missing from --initial-advertise-peer-urls={advertised} ({reason})"
    )]
    NotAdvertised {
        /// The members' URLs.
        missing: String,
        /// What is advertised.
        advertised: String,
        /// How they differ.
        reason: String,
    },
    /// This member advertises URLs that it does not give.
    #[error(
        "--initial-advertise-peer-urls has {missing} but missing from --initial-cluster={cluster}"
    )]
    NotInCluster {
        /// The URLs.
        missing: String,
        /// The part of this member.
        cluster: String,
    },
    /// Two members have the same URL.
    #[error("initial cluster {0} has duplicate url")]
    DuplicateUrl(String),
    /// Nothing says who the members are.
    #[error("initial cluster unset and no discovery endpoints found")]
    Unset,
}

impl Config {
    /// The members of `initial-cluster`, by name, each with sorted URLs.
    pub fn initial_members(&self) -> Result<BTreeMap<String, Vec<Url>>, UrlError> {
        members_in(&self.cluster.initial)
    }

    /// The members of a new cluster, checked against this member; for a first start without
    /// discovery.
    ///
    /// May look names up: call it where blocking is allowed.
    pub fn bootstrap_members(&self) -> Result<BTreeMap<String, Vec<Url>>, BootstrapError> {
        let members = self.initial_members().map_err(BootstrapError::Url)?;
        let own = members
            .get(&self.name)
            .ok_or_else(|| BootstrapError::LocalNameMissing(self.name.clone()))?;
        self.check_advertised(own)?;
        let printed = print_members(&members);
        let all: Vec<_> = members.values().flatten().collect();
        if all.iter().collect::<BTreeSet<_>>().len() < all.len() {
            return Err(BootstrapError::DuplicateUrl(printed));
        }
        if printed.is_empty() {
            return Err(BootstrapError::Unset);
        }
        Ok(members)
    }

    /// The URLs that `initial-cluster` gives this member are the advertised ones, by text or by
    /// address.
    fn check_advertised(&self, own: &[Url]) -> Result<(), BootstrapError> {
        let mut advertised = self.urls.advertise_peer.clone();
        advertised.sort();
        let Err(reason) = equal(&advertised, own) else { return Ok(()) };
        let missing_from = |from: &[Url], urls: &[Url]| -> Vec<String> {
            urls.iter().filter(|url| !from.contains(url)).map(ToString::to_string).collect()
        };
        let named = |url: String| format!("{}={url}", self.name);
        let missing = missing_from(&advertised, own);
        if !missing.is_empty() {
            let missing: Vec<_> = missing.into_iter().map(named).collect();
            return Err(BootstrapError::NotAdvertised {
                missing: missing.join(","),
                advertised: texts(&advertised).join(","),
                reason,
            });
        }
        let cluster: Vec<_> = advertised.iter().map(|url| named(url.to_string())).collect();
        Err(BootstrapError::NotInCluster {
            missing: missing_from(own, &advertised).join(","),
            cluster: cluster.join(","),
        })
    }
}

/// Reads members as in `initial-cluster`: by name, each with sorted URLs.
pub fn members_in(text: &str) -> Result<BTreeMap<String, Vec<Url>>, UrlError> {
    let mut members: BTreeMap<String, Vec<Url>> = BTreeMap::new();
    for entry in text.split(',').filter(|entry| !entry.is_empty()) {
        let (name, url) = entry.split_once('=').unwrap_or((entry, ""));
        members.entry(name.to_owned()).or_default().push(Url::parse(url)?);
    }
    for urls in members.values_mut() {
        urls.sort();
    }
    Ok(members)
}

/// Prints members as `name=url,…`, sorted.
pub fn print_members(members: &BTreeMap<String, Vec<Url>>) -> String {
    let mut pairs: Vec<_> = members
        .iter()
        .flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")))
        .collect();
    pairs.sort();
    pairs.join(",")
}

/// Compares two sorted lists by text, then by what their hosts resolve to.
pub fn equal(advertised: &[Url], own: &[Url]) -> Result<(), String> {
    if advertised == own {
        return Ok(());
    }
    if advertised.len() != own.len() {
        return Err(format!("len({}) != len({})", list(advertised), list(own)));
    }
    let differ = |one: &Url, other: &Url| {
        format!("resolved urls: {:?} != {:?}", one.as_str(), other.as_str())
    };
    let mut resolved = BTreeMap::new();
    for url in advertised.iter().chain(own) {
        resolved.insert(url, resolve(url)?);
    }
    for (one, other) in advertised.iter().zip(own) {
        let same_scheme = one.scheme() == other.scheme();
        if one != other
            && !(same_scheme && resolved[one].is_some() && resolved[one] == resolved[other])
        {
            return Err(differ(one, other));
        }
    }
    Ok(())
}

/// The address of a URL; `None` where there is nothing to look up, because names of the own machine
/// are compared by text.
fn resolve(url: &Url) -> Result<Option<SocketAddr>, String> {
    if url.is_unix() || url.host() == "localhost" {
        return Ok(None);
    }
    let mut addresses = (url.host(), url.port())
        .to_socket_addrs()
        .map_err(|error| format!("failed to resolve {url}: {error}"))?;
    Ok(addresses.next())
}

fn list(urls: &[Url]) -> String {
    let quoted: Vec<_> = urls.iter().map(|url| format!("{:?}", url.as_str())).collect();
    format!("[{}]", quoted.join(" "))
}
