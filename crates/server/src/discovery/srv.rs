//! Members by SRV records (`spec/config.md`, DNS SRV): each record is a member with one URL. The one that is reached where this
//! member says that it is has this member's name; the others are numbered, until they tell theirs.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use client::dns::{LookupError, Resolver};

use crate::config::{Config, DiscoverySrv, Url, members_in, texts};
use crate::logging::List;

/// Services and the schemes they stand for.
const SERVICES: [(&str, &str); 2] = [("https", "etcd-server-ssl"), ("http", "etcd-server")];

/// Why records do not tell who the members are; the texts are etcd's.
#[derive(Debug, thiserror::Error)]
pub enum SrvError {
    /// Neither service has any.
    #[error("{0}")]
    None(String),
    /// None is this member.
    #[error("cannot find local etcd member {0:?} in SRV records")]
    LocalMissing(String),
    /// One has no host that a URL may have.
    #[error(transparent)]
    Url(#[from] crate::config::UrlError),
}

/// Why one service has no members.
#[derive(Debug, thiserror::Error)]
enum ServiceError {
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("lookup {host}: {reason}")]
    Host { host: String, reason: String },
    #[error(
        "bootstrap at {found} from DNS for {service} has scheme mismatch with expected peer {expected}"
    )]
    Scheme { found: String, service: String, expected: String },
}

/// Looks the members up; returns them as in `initial-cluster`.
pub(super) async fn members(config: &Config, records: &DiscoverySrv) -> Result<String, SrvError> {
    let resolver = if records.servers.is_empty() {
        Resolver::of_system()
    } else {
        Resolver::new(records.servers.clone())
    };
    let mut found = Vec::new();
    let mut failures = Vec::new();
    for (scheme, service) in SERVICES {
        let service = match records.service_name.as_str() {
            "" => service.to_owned(),
            suffix => format!("{service}-{suffix}"),
        };
        let asked = Service { resolver: &resolver, scheme, name: &service };
        let (members, error) = match asked.members(config, &records.domain).await {
            Ok(members) => (members, None),
            Err(error) => {
                let text = format!("error querying DNS SRV records for _{service} {error}");
                (Vec::new(), Some(text))
            }
        };
        tracing::info!(
            service_scheme = scheme,
            service_name = service,
            server_name = config.name,
            discovery_srv = records.domain,
            advertise_peer_urls = ?List(&texts(&config.urls.advertise_peer)),
            found_cluster = ?List(&members),
            error,
            "get cluster for SRV"
        );
        found.extend(members);
        failures.extend(error);
    }
    if found.is_empty() {
        return Err(SrvError::None(failures.join("\n")));
    }
    for member in &found {
        tracing::info!(node = member, "got bootstrap from DNS for etcd-server");
    }
    let found = found.join(",");
    if !members_in(&found)?.contains_key(&config.name) {
        tracing::warn!(
            advertise_peer_urls = ?List(&texts(&config.urls.advertise_peer)),
            found,
            "no SRV record leads to this member: host and port of one must resolve to those of --initial-advertise-peer-urls"
        );
        return Err(SrvError::LocalMissing(config.name.clone()));
    }
    Ok(found)
}

struct Service<'a> {
    resolver: &'a Resolver,
    scheme: &'static str,
    name: &'a str,
}

impl Service<'_> {
    async fn members(&self, config: &Config, domain: &str) -> Result<Vec<String>, ServiceError> {
        let mut own: BTreeMap<SocketAddr, &Url> = BTreeMap::new();
        for url in config.urls.advertise_peer.iter().filter(|url| !url.is_unix()) {
            own.insert(address(url.host(), url.port()).await?, url);
        }
        let (mut members, mut number, mut failed) = (Vec::new(), 0, None);
        for record in self.resolver.srv(self.name, domain).await? {
            let address = match address(&record.target, record.port).await {
                Ok(address) => address,
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            let url = format!("{}://{}:{}", self.scheme, record.target, record.port);
            let expected = own.get(&address);
            let is_secure = self.scheme == "https";
            if let Some(expected) = expected.filter(|own| own.is_secure() != is_secure) {
                let (service, expected) = (self.name.to_owned(), expected.to_string());
                failed = Some(ServiceError::Scheme { found: url, service, expected });
                continue;
            }
            if expected.is_some() {
                members.push(format!("{}={url}", config.name));
            } else {
                members.push(format!("{number}={url}"));
                number += 1;
            }
        }
        match failed {
            Some(error) if members.is_empty() => Err(error),
            _ => Ok(members),
        }
    }
}

/// Looks an address up; of several one of IPv4, as etcd prefers it.
async fn address(host: &str, port: u16) -> Result<SocketAddr, ServiceError> {
    let failed = |reason: String| ServiceError::Host { host: host.to_owned(), reason };
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| failed(error.to_string()))?
        .collect();
    let first = found.iter().find(|address| address.is_ipv4()).or_else(|| found.first());
    first.copied().ok_or_else(|| failed("no such host".to_owned()))
}
