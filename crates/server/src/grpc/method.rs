//! Every RPC that is served: its path, its kind, and what it is called in metrics.

/// How a method's messages flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One request, one response.
    Unary,
    /// One request, many responses.
    ServerStream,
    /// Many of both.
    BidiStream,
}

impl Kind {
    /// The value of the `grpc_type` metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

/// Why a path names no method; texts are grpc-go's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnknownPath {
    /// Not of the form `/service/method`.
    Malformed(String),
    /// No such service.
    Service(String),
    /// The service has no such method.
    Method {
        /// The service.
        service: &'static str,
        /// What was asked for.
        method: String,
    },
}

impl std::fmt::Display for UnknownPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Malformed(path) => write!(f, "malformed method name: {path:?}"),
            Self::Service(service) => write!(f, "unknown service {service}"),
            Self::Method { service, method } => {
                write!(f, "unknown method {method} for service {service}")
            }
        }
    }
}

macro_rules! methods {
    ($($service:literal { $($name:ident = $method:literal $kind:ident,)+ })+) => {
        /// A served RPC.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Method {
            $($(
                #[doc = concat!("`/", $service, "/", $method, "`")]
                $name,
            )+)+
        }

        impl Method {
            /// All methods, by service.
            pub const ALL: &'static [Self] = &[$($(Self::$name,)+)+];

            /// Finds the method that an HTTP/2 `:path` names.
            pub fn from_path(path: &str) -> Result<Self, UnknownPath> {
                match path {
                    $($(concat!("/", $service, "/", $method) => Ok(Self::$name),)+)+
                    _ => Err(Self::explain_unknown(path)),
                }
            }

            /// The full path.
            pub const fn path(self) -> &'static str {
                match self { $($(Self::$name => concat!("/", $service, "/", $method),)+)+ }
            }

            /// The service with its package.
            pub const fn service(self) -> &'static str {
                match self { $($(Self::$name => $service,)+)+ }
            }

            /// The method within its service.
            pub const fn name(self) -> &'static str {
                match self { $($(Self::$name => $method,)+)+ }
            }

            /// How its messages flow.
            pub const fn kind(self) -> Kind {
                match self { $($(Self::$name => Kind::$kind,)+)+ }
            }
        }

        const SERVICES: &[&str] = &[$($service),+];
    };
}

methods! {
    "etcdserverpb.KV" {
        Range = "Range" Unary,
        RangeStream = "RangeStream" ServerStream,
        Put = "Put" Unary,
        DeleteRange = "DeleteRange" Unary,
        Txn = "Txn" Unary,
        Compact = "Compact" Unary,
    }
    "etcdserverpb.Watch" {
        Watch = "Watch" BidiStream,
    }
    "etcdserverpb.Lease" {
        LeaseGrant = "LeaseGrant" Unary,
        LeaseRevoke = "LeaseRevoke" Unary,
        LeaseKeepAlive = "LeaseKeepAlive" BidiStream,
        LeaseTimeToLive = "LeaseTimeToLive" Unary,
        LeaseLeases = "LeaseLeases" Unary,
    }
    "etcdserverpb.Cluster" {
        MemberAdd = "MemberAdd" Unary,
        MemberRemove = "MemberRemove" Unary,
        MemberUpdate = "MemberUpdate" Unary,
        MemberList = "MemberList" Unary,
        MemberPromote = "MemberPromote" Unary,
    }
    "etcdserverpb.Maintenance" {
        Alarm = "Alarm" Unary,
        StatusOf = "Status" Unary,
        Defragment = "Defragment" Unary,
        Hash = "Hash" Unary,
        HashKv = "HashKV" Unary,
        Snapshot = "Snapshot" ServerStream,
        MoveLeader = "MoveLeader" Unary,
        Downgrade = "Downgrade" Unary,
    }
    "etcdserverpb.Auth" {
        AuthEnable = "AuthEnable" Unary,
        AuthDisable = "AuthDisable" Unary,
        AuthStatus = "AuthStatus" Unary,
        Authenticate = "Authenticate" Unary,
        UserAdd = "UserAdd" Unary,
        UserGet = "UserGet" Unary,
        UserList = "UserList" Unary,
        UserDelete = "UserDelete" Unary,
        UserChangePassword = "UserChangePassword" Unary,
        UserGrantRole = "UserGrantRole" Unary,
        UserRevokeRole = "UserRevokeRole" Unary,
        RoleAdd = "RoleAdd" Unary,
        RoleGet = "RoleGet" Unary,
        RoleList = "RoleList" Unary,
        RoleDelete = "RoleDelete" Unary,
        RoleGrantPermission = "RoleGrantPermission" Unary,
        RoleRevokePermission = "RoleRevokePermission" Unary,
    }
    "v3lockpb.Lock" {
        Lock = "Lock" Unary,
        Unlock = "Unlock" Unary,
    }
    "v3electionpb.Election" {
        Campaign = "Campaign" Unary,
        Proclaim = "Proclaim" Unary,
        Leader = "Leader" Unary,
        Observe = "Observe" ServerStream,
        Resign = "Resign" Unary,
    }
    "grpc.health.v1.Health" {
        HealthCheck = "Check" Unary,
        HealthWatch = "Watch" ServerStream,
        HealthList = "List" Unary,
    }
}

impl Method {
    #[cold]
    fn explain_unknown(path: &str) -> UnknownPath {
        let Some((service, method)) = path.strip_prefix('/').and_then(|rest| rest.rsplit_once('/'))
        else {
            return UnknownPath::Malformed(path.to_owned());
        };
        match SERVICES.iter().find(|known| **known == service) {
            Some(service) => UnknownPath::Method { service, method: method.to_owned() },
            None => UnknownPath::Service(service.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_leads_back_to_its_method() {
        for method in Method::ALL {
            assert_eq!(Method::from_path(method.path()), Ok(*method));
        }
    }

    #[test]
    fn unknown_paths_are_explained_as_grpc_go_does() {
        let text = |path: &str| Method::from_path(path).expect_err("unknown").to_string();
        assert_eq!(
            text("/etcdserverpb.KV/Nope"),
            "unknown method Nope for service etcdserverpb.KV"
        );
        assert_eq!(text("/nope.Nope/Put"), "unknown service nope.Nope");
        assert_eq!(text("nope"), "malformed method name: \"nope\"");
    }
}
