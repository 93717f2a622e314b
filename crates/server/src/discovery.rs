//! Who the members of a new cluster are, when that is not said by flag: records of the domain name system tell it
//! (`--discovery-srv`), or another cluster, where members register (`--discovery-endpoints`).
//!
//! Either way it becomes the `initial-cluster` that could have been given, before anything else is done with it. A member that
//! has data is asked nothing: see `spec/config.md` §6.

use std::io;

use machine::membership::initial_member_id;

use crate::config::{BootstrapError, ClusterState, Config, Exit, members_in, print_members, texts};

mod registry;
mod srv;

pub use registry::Refused;

/// Why members were not found; the texts are etcd's.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The records do not tell them.
    #[error("error setting up initial cluster: {0}")]
    Srv(#[from] srv::SrvError),
    /// The other cluster does not.
    #[error("failed to join discovery cluster ({0})")]
    Registry(#[from] Refused),
    /// It does not make sense.
    #[error("discovery cluster {0} has duplicate url")]
    DuplicateUrl(String),
    /// The flags do not make sense.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// Who joins has been told of already.
    #[error("discovery URL should not be set when joining existing initial cluster")]
    Existing,
    /// There is no runtime to ask with.
    #[error("cannot ask for members: {0}")]
    Runtime(#[source] io::Error),
}

impl DiscoveryError {
    /// Ends the start, in etcd's words and with what to do.
    pub fn into_exit(self, config: &Config) -> Exit {
        let text = self.to_string();
        match (self, &config.cluster.discovery) {
            (Self::Registry(refused), Some(discovery)) => {
                let remedy = refused.remedy(&discovery.token);
                Exit::discovery_refused(discovery, text, remedy)
            }
            _ => Exit::start_failed(text),
        }
    }
}

/// Gives the configuration with the members that were found; the same if nothing asks for that. Blocks until all are there.
pub fn resolved(config: &Config) -> Result<Config, DiscoveryError> {
    let mut resolved = config.clone();
    if config.cluster.discovery.is_none() && config.cluster.discovery_srv.is_none() {
        return Ok(resolved);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DiscoveryError::Runtime)?;
    if let Some(discovery) = &config.cluster.discovery {
        resolved.cluster.token.clone_from(&discovery.token);
        resolved.cluster.initial = own_part(config);
        // This member alone, as the first of those to be found.
        resolved.bootstrap_members()?;
        if config.cluster.state == ClusterState::Existing {
            return Err(DiscoveryError::Existing);
        }
        let urls: Vec<String> =
            texts(&config.urls.advertise_peer).into_iter().map(str::to_owned).collect();
        let id = initial_member_id(&urls, &discovery.token);
        tracing::info!("Bootstrapping cluster using v3 discovery.");
        let own = registry::Own { id, members: &resolved.cluster.initial };
        let found = runtime.block_on(registry::join(discovery, &own))?;
        let members = members_in(&found).map_err(|_invalid| Refused::InvalidUrl)?;
        let mut urls: Vec<_> = members.values().flatten().collect();
        let count = urls.len();
        urls.sort();
        urls.dedup();
        if urls.len() < count {
            return Err(DiscoveryError::DuplicateUrl(print_members(&members)));
        }
        resolved.cluster.initial = found;
    } else if let Some(records) = &config.cluster.discovery_srv {
        resolved.cluster.initial = runtime.block_on(srv::members(config, records))?;
    }
    Ok(resolved)
}

/// This member as a part of `initial-cluster`.
fn own_part(config: &Config) -> String {
    let urls = config.urls.advertise_peer.clone();
    print_members(&[(config.name.clone(), urls)].into())
}
