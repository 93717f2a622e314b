//! Feature gates: named switches of features that are not yet, or no longer, in question.

use std::collections::BTreeMap;
use std::fmt;

/// How settled a gate's feature is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Off unless asked for.
    Alpha,
    /// On unless refused.
    Beta,
}

impl Stage {
    /// etcd's name of the stage.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alpha => "ALPHA",
            Self::Beta => "BETA",
        }
    }
}

/// A gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// All alpha gates that are not set by name.
    AllAlpha,
    /// All beta gates that are not set by name.
    AllBeta,
    /// The leader compares followers' compaction hashes.
    CompactHashCheck,
    /// Lease renewals do not wait for the applied index.
    FastLeaseKeepAlive,
    /// Compare data with peers before serving.
    InitialCorruptCheck,
    /// The leader tells remaining TTLs to the others.
    LeaseCheckpoint,
    /// Those survive a restart.
    LeaseCheckpointPersist,
    /// Some requests go before others under overload.
    PriorityRequest,
    /// Bind outgoing peer connections to an advertised address.
    SetMemberLocalAddr,
    /// Report "not serving" while defragmenting.
    StopGRPCServiceOnDefrag,
    /// Write transactions read through a shared buffer.
    TxnModeWriteWithSharedBuffer,
}

impl Feature {
    /// All gates, by name.
    pub const ALL: [Self; 11] = [
        Self::AllAlpha,
        Self::AllBeta,
        Self::CompactHashCheck,
        Self::FastLeaseKeepAlive,
        Self::InitialCorruptCheck,
        Self::LeaseCheckpoint,
        Self::LeaseCheckpointPersist,
        Self::PriorityRequest,
        Self::SetMemberLocalAddr,
        Self::StopGRPCServiceOnDefrag,
        Self::TxnModeWriteWithSharedBuffer,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllAlpha => "AllAlpha",
            Self::AllBeta => "AllBeta",
            Self::CompactHashCheck => "CompactHashCheck",
            Self::FastLeaseKeepAlive => "FastLeaseKeepAlive",
            Self::InitialCorruptCheck => "InitialCorruptCheck",
            Self::LeaseCheckpoint => "LeaseCheckpoint",
            Self::LeaseCheckpointPersist => "LeaseCheckpointPersist",
            Self::PriorityRequest => "PriorityRequest",
            Self::SetMemberLocalAddr => "SetMemberLocalAddr",
            Self::StopGRPCServiceOnDefrag => "StopGRPCServiceOnDefrag",
            Self::TxnModeWriteWithSharedBuffer => "TxnModeWriteWithSharedBuffer",
        }
    }

    /// Its stage.
    pub const fn stage(self) -> Stage {
        match self {
            Self::AllBeta | Self::FastLeaseKeepAlive | Self::TxnModeWriteWithSharedBuffer => {
                Stage::Beta
            }
            Self::AllAlpha
            | Self::CompactHashCheck
            | Self::InitialCorruptCheck
            | Self::LeaseCheckpoint
            | Self::LeaseCheckpointPersist
            | Self::PriorityRequest
            | Self::SetMemberLocalAddr
            | Self::StopGRPCServiceOnDefrag => Stage::Alpha,
        }
    }

    /// Whether it is on when nobody says anything.
    pub const fn default(self) -> bool {
        matches!(self, Self::FastLeaseKeepAlive | Self::TxnModeWriteWithSharedBuffer)
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|feature| feature.name() == name)
    }
}

/// Which gates were set, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeatureGates {
    set: BTreeMap<Feature, bool>,
}

impl FeatureGates {
    /// Takes `Gate=true,Other=false` in; gates named before stay set.
    pub fn apply(&mut self, text: &str) -> Result<(), String> {
        let mut wanted = BTreeMap::new();
        for piece in text.split(',').filter(|piece| !piece.is_empty()) {
            let Some((name, value)) = piece.split_once('=') else {
                return Err(format!("missing bool value for {}", piece.trim()));
            };
            let (name, value) = (name.trim(), value.trim());
            let on = super::flag::parse_bool(value).ok_or_else(|| {
                format!(
                    "invalid value of {name}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax"
                )
            })?;
            wanted.insert(name, on);
        }
        let mut groups = Vec::new();
        for (name, on) in wanted {
            let feature =
                Feature::named(name).ok_or_else(|| format!("unrecognized feature gate: {name}"))?;
            self.set.insert(feature, on);
            if matches!(feature, Feature::AllAlpha | Feature::AllBeta) {
                groups.push((feature.stage(), on));
            }
        }
        // Groups come last: they only reach gates that nobody named.
        for (stage, on) in groups {
            for feature in Feature::ALL.into_iter().filter(|feature| feature.stage() == stage) {
                self.set.entry(feature).or_insert(on);
            }
        }
        Ok(())
    }

    /// Whether `feature` is on.
    pub fn is_enabled(&self, feature: Feature) -> bool {
        self.set.get(&feature).copied().unwrap_or_else(|| feature.default())
    }
}

/// The gates that were set, as `name=bool,…` by name.
impl fmt::Display for FeatureGates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (feature, on)) in self.set.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma}{}={on}", feature.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_gates_win_over_groups() {
        let mut gates = FeatureGates::default();
        gates.apply("AllAlpha=true,CompactHashCheck=false").expect("known gates");
        assert!(gates.is_enabled(Feature::InitialCorruptCheck));
        assert!(!gates.is_enabled(Feature::CompactHashCheck));
        assert!(gates.is_enabled(Feature::FastLeaseKeepAlive), "a default");
        gates.apply("FastLeaseKeepAlive=F").expect("a known gate");
        assert!(!gates.is_enabled(Feature::FastLeaseKeepAlive));
        assert!(gates.is_enabled(Feature::PriorityRequest), "set before");
    }

    #[test]
    fn gates_print_what_was_set() {
        let mut gates = FeatureGates::default();
        assert_eq!(gates.to_string(), "");
        gates.apply("PriorityRequest=1, CompactHashCheck=false,").expect("known gates");
        assert_eq!(gates.to_string(), "CompactHashCheck=false,PriorityRequest=true");
    }
}
