//! Members that find each other through the keys of another cluster (`spec/config.md`, v3 discovery): its operator has said how
//! many there are to be; each puts itself there, and waits for the others. The first ones are the members.

use std::time::Duration;

use client::{Client, Watcher, prefix_end};
use proto::etcdserverpb::{PutRequest, RangeRequest, WatchCreateRequest};
use proto::mvccpb::{KeyValue, event::EventType};

use crate::config::{Discovery, DiscoveryCredentials};

/// Where everything is.
const PREFIX: &str = "/_etcd/registry";

/// Bytes of an answer: members are few.
const RESPONSE_BYTES_MAX: usize = 8 << 20;

/// After how many failures the pauses between attempts do not grow any more.
const GROWTHS_MAX: u32 = 8;

/// Time between two lists when watching is of no use.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

/// Why a cluster is not formed in this way; the texts are etcd's.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// What members registered as theirs is no URL.
    #[error("discovery: invalid peer URL")]
    InvalidUrl,
    /// The number of members is none.
    #[error("discovery: size key is bad")]
    BadSize,
    /// Nobody has said how many there are to be.
    #[error("discovery: size key not found")]
    SizeNotFound,
    /// All have come already.
    #[error("discovery: cluster is full")]
    Full,
    /// The other cluster cannot be talked to, for a reason that does not pass.
    #[error("{0}")]
    Client(#[from] client::Error),
}

impl Refused {
    /// What the operator can do.
    pub fn remedy(&self, token: &str) -> String {
        let keys = Keys::new(token);
        match self {
            Self::SizeNotFound | Self::BadSize => format!(
                "say how many members there are to be, on the discovery cluster: etcdctl put {} <number>",
                keys.size
            ),
            Self::InvalidUrl => format!("look at the keys under {}", keys.members),
            Self::Full => {
                "generate a new token, or raise the number of members; a member that joins a \
                           cluster that is there needs --initial-cluster-state=existing instead"
                    .to_owned()
            }
            Self::Client(_) => {
                "check --discovery-endpoints, and the flags for TLS and the user".to_owned()
            }
        }
    }
}

/// The member that joins.
#[derive(Debug)]
pub(super) struct Own<'a> {
    /// Its id.
    pub id: u64,
    /// `name=url,…`.
    pub members: &'a str,
}

/// The keys of one token.
#[derive(Debug, PartialEq, Eq)]
struct Keys {
    size: String,
    members: String,
}

impl Keys {
    fn new(token: &str) -> Self {
        let mut parts: Vec<&str> = PREFIX.split('/').skip(1).collect();
        // As Go joins paths.
        for part in token.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        let prefix = format!("/{}", parts.join("/"));
        Self { size: format!("{prefix}/_config/size"), members: format!("{prefix}/members") }
    }

    fn member(&self, id: u64) -> String {
        format!("{}/{id:x}", self.members)
    }
}

/// Registers a member and waits for the others; returns the `initial-cluster` that all of them come to.
pub(super) async fn join(discovery: &Discovery, own: &Own<'_>) -> Result<String, Refused> {
    let keys = Keys::new(&discovery.token);
    let client = connect(discovery).await?;
    let registry = Registry { client, keys, timeout: discovery.request_timeout };
    registry.looked_up(own.id).await?;
    registry.register(own).await?;
    loop {
        let (mut found, revision) = registry.looked_up(own.id).await?;
        if found.is_complete() || registry.wait(&mut found, revision).await {
            tracing::info!(
                cluster_size = found.size,
                found_peers = found.members.len(),
                "found all needed peers from discovery service"
            );
            return Ok(found.initial_cluster());
        }
        tokio::time::sleep(WATCH_PAUSE).await;
    }
}

async fn connect(discovery: &Discovery) -> Result<Client, client::Error> {
    let Discovery { endpoints, dial_timeout, keepalive_time, keepalive_timeout, .. } = discovery;
    let DiscoveryCredentials {
        insecure_transport,
        insecure_skip_tls_verify,
        cert,
        key,
        cacert,
        user,
        password,
    } = discovery.credentials.clone();
    let path = |text: String| (!text.is_empty()).then(|| text.into());
    let tls = client::Tls {
        cert: path(cert),
        key: path(key),
        cacert: path(cacert),
        server_name: None,
        skip_verify: insecure_skip_tls_verify,
    };
    let credentials = match user.split_once(':') {
        Some((user, within)) if password.is_empty() => (user.to_owned(), within.to_owned()),
        _ => (user, password),
    };
    let (user, password) = credentials;
    let config = client::Config {
        dial_timeout: *dial_timeout,
        keepalive_time: *keepalive_time,
        keepalive_timeout: *keepalive_timeout,
        response_bytes_max: RESPONSE_BYTES_MAX,
        tls: (!insecure_transport).then_some(tls),
        credentials: (!user.is_empty()).then_some(client::Credentials::Password { user, password }),
        ..client::Config::new(endpoints.clone())
    };
    Client::connect(config).await
}

/// One member that is registered.
#[derive(Debug, PartialEq, Eq)]
struct Member {
    /// When it came.
    created: i64,
    key: String,
    /// `name=url,…`.
    info: String,
}

/// What is known.
#[derive(Debug, Default)]
struct Found {
    size: usize,
    /// In the order in which they came.
    members: Vec<Member>,
}

impl Found {
    fn add(&mut self, kv: &KeyValue) {
        let key = String::from_utf8_lossy(&kv.key).trim().to_owned();
        let info = String::from_utf8_lossy(&kv.value).trim().to_owned();
        if !info.contains('=') {
            tracing::warn!(
                member_key = key,
                member_info = info,
                "invalid peer info returned from discovery service"
            );
        } else if self.members.iter().any(|member| member.key == key) {
            tracing::warn!(
                member_key = key,
                member_info = info,
                "found duplicate peer from discovery service"
            );
        } else {
            tracing::info!(
                member_key = key,
                member_info = info,
                "found peer from discovery service"
            );
            self.members.push(Member { created: kv.create_revision, key, info });
            self.members.sort_by_key(|member| member.created);
        }
    }

    fn is_complete(&self) -> bool {
        self.members.len() >= self.size
    }

    /// Tells whether the member with this key has no place among the first any more.
    fn leaves_out(&self, key: &str) -> bool {
        let before = self.members.iter().take_while(|member| member.key != key).count();
        before >= self.size
    }

    /// More may have registered at the same time than there are to be: the first ones count, for all.
    fn initial_cluster(&self) -> String {
        let infos: Vec<_> = self.members.iter().take(self.size).map(|m| &m.info[..]).collect();
        infos.join(",")
    }
}

struct Registry {
    client: Client,
    keys: Keys,
    timeout: Duration,
}

impl Registry {
    /// Looks who is there, until the other cluster answers; refuses if there is no place for the member `id`.
    async fn looked_up(&self, id: u64) -> Result<(Found, i64), Refused> {
        let size = self.size().await?;
        let key = self.keys.members.clone();
        let range_end = prefix_end(key.as_bytes());
        let request = RangeRequest { key: key.into(), range_end, ..RangeRequest::default() };
        let listed = insist("cluster status check", async || {
            self.client.with_timeout(self.timeout).range(request.clone()).await
        })
        .await;
        let mut found = Found { size, members: Vec::new() };
        listed.kvs.iter().for_each(|kv| found.add(kv));
        if found.leaves_out(&self.keys.member(id)) {
            return Err(Refused::Full);
        }
        Ok((found, listed.header.map_or(0, |header| header.revision)))
    }

    async fn size(&self) -> Result<usize, Refused> {
        let key = self.keys.size.clone();
        let request = RangeRequest { key: key.into(), ..RangeRequest::default() };
        let answer = insist("cluster status check", async || {
            self.client.with_timeout(self.timeout).range(request.clone()).await
        })
        .await;
        let kv = answer.kvs.first().ok_or(Refused::SizeNotFound)?;
        let size = std::str::from_utf8(&kv.value).ok().and_then(|text| text.parse().ok());
        size.filter(|size| *size > 0).ok_or(Refused::BadSize)
    }

    async fn register(&self, own: &Own<'_>) -> Result<(), Refused> {
        let key = self.keys.member(own.id);
        let request = PutRequest {
            key: key.clone().into(),
            value: own.members.to_owned().into(),
            ..PutRequest::default()
        };
        insist("register member itself", async || {
            self.client.with_timeout(self.timeout).put(request.clone()).await
        })
        .await;
        tracing::info!(
            member_key = key,
            member_info = own.members,
            "register member itself successfully"
        );
        Ok(())
    }

    /// Waits until all have come, from behind `revision` on. False if that cannot be seen in this way.
    async fn wait(&self, found: &mut Found, revision: i64) -> bool {
        tracing::info!(
            cluster_size = found.size,
            found_peers = found.members.len(),
            "waiting for peers from discovery service"
        );
        let key = self.keys.members.clone();
        let request = WatchCreateRequest {
            range_end: prefix_end(key.as_bytes()),
            key: key.into(),
            start_revision: revision + 1,
            ..WatchCreateRequest::default()
        };
        let mut watcher = self.client.watch_stream(true).create(request).await;
        while let Some(response) = watcher.next().await {
            let failed = match response {
                Ok(response) if response.canceled => Watcher::cause(&response),
                Ok(response) => {
                    let puts = response.events.iter().filter(|e| e.r#type() == EventType::Put);
                    puts.filter_map(|event| event.kv.as_ref()).for_each(|kv| found.add(kv));
                    if found.is_complete() {
                        return true;
                    }
                    continue;
                }
                Err(error) => error,
            };
            tracing::warn!(error = %failed, "lost the watch for peers at the discovery service");
        }
        false
    }
}

/// Asks until there is an answer: the other cluster may be about to start.
async fn insist<T>(reason: &'static str, ask: impl AsyncFn() -> Result<T, client::Error>) -> T {
    let mut failures = 0;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => {
                failures = (failures + 1).min(GROWTHS_MAX);
                let backoff = Duration::from_secs(1 << failures);
                tracing::warn!(
                    reason,
                    ?backoff,
                    error = error.in_full(),
                    "retry connecting to discovery service"
                );
                tokio::time::sleep(backoff).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &str, value: &str, created: i64) -> KeyValue {
        KeyValue {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            create_revision: created,
            ..KeyValue::default()
        }
    }

    #[test]
    fn keys_are_joined_as_paths() {
        let keys = |prefix: &str| Keys {
            size: format!("{prefix}/_config/size"),
            members: format!("{prefix}/members"),
        };
        for (token, prefix) in [
            ("token", "/_etcd/registry/token"),
            ("a/b/", "/_etcd/registry/a/b"),
            ("./a//b", "/_etcd/registry/a/b"),
            ("../x", "/_etcd/x"),
            ("../../../x", "/x"),
        ] {
            assert_eq!(Keys::new(token), keys(prefix), "{token}");
        }
        assert_eq!(Keys::new("t").member(0x1f), "/_etcd/registry/t/members/1f");
    }

    #[test]
    fn the_first_that_came_are_the_members() {
        let mut found = Found { size: 2, members: Vec::new() };
        found.add(&kv("/m/3", "c=http://c:1", 30));
        assert!(!found.is_complete() && !found.leaves_out("/m/9"));
        found.add(&kv("/m/1", " a=http://a:1,a=http://a:2 ", 10));
        found.add(&kv("/m/1", "a=http://other:1", 10));
        found.add(&kv("/m/4", "garbage", 5));
        found.add(&kv("/m/2", "b=http://b:1", 20));
        assert!(found.is_complete());
        assert_eq!(found.initial_cluster(), "a=http://a:1,a=http://a:2,b=http://b:1");
        let left_out = ["/m/1", "/m/2", "/m/3", "/m/9"].map(|key| found.leaves_out(key));
        assert_eq!(left_out, [false, false, true, true]);
    }
}
