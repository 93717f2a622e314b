//! Settings whose feature is not built yet: a member that is asked for one refuses to start and
//! says so, rather than to run without what was asked for. Rows leave this table as features
//! arrive.

use super::features::Feature;
use super::{Config, TokenKind};

/// One row: the setting as the user wrote it, and whether this configuration asks for it.
type Row = (&'static str, fn(&Config) -> bool);

const ROWS: &[Row] = &[
    ("--auth-token=jwt", |config| matches!(config.auth.token, TokenKind::Jwt(_))),
    ("--peer-cert-file and --peer-key-file", |config| !config.tls.peer.is_empty()),
    ("--peer-client-cert-auth", |config| config.tls.peer.client_cert_auth),
    ("--peer-trusted-ca-file", |config| config.tls.peer.trusted_ca_file.is_some()),
    ("--peer-crl-file", |config| config.tls.peer.crl_file.is_some()),
    ("--peer-auto-tls", |config| config.tls.peer.auto),
    ("https in --listen-peer-urls", |config| config.urls.listen_peer.iter().any(|u| u.is_secure())),
    ("--enable-distributed-tracing", |config| config.monitoring.tracing.is_some()),
    ("--memory-mlock", |config| config.store.memory_mlock),
];

/// Gates whose other position is not built. `LeaseCheckpointPersist` needs `LeaseCheckpoint`, which
/// stands for it.
const GATES: &[Feature] = &[
    Feature::LeaseCheckpoint,
    Feature::PriorityRequest,
    Feature::SetMemberLocalAddr,
    Feature::StopGRPCServiceOnDefrag,
];

/// Refuses a configuration that asks for what is not built.
pub(super) fn check(config: &Config) -> Result<(), String> {
    if let Some((what, _asked)) = ROWS.iter().find(|(_what, asked)| asked(config)) {
        return Err(format!("{what} is not supported by this version of Quorate yet"));
    }
    for gate in GATES {
        let on = config.features.is_enabled(*gate);
        if on != gate.default() {
            return Err(format!(
                "feature gate {}={on} is not supported by this version of Quorate yet",
                gate.name()
            ));
        }
    }
    Ok(())
}
