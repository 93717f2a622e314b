//! How answers are shown: five formats, byte for byte as etcdctl writes them.

mod fields;
mod humanize;
mod json;
mod simple;
mod table;

use std::io::{self, Write};

use proto::etcdserverpb::downgrade_request::DowngradeAction;
use proto::etcdserverpb::{
    AlarmResponse, DeleteRangeResponse, DowngradeResponse, HashKvResponse, LeaseGrantResponse,
    LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeResponse, LeaseTimeToLiveResponse,
    MemberAddResponse, MemberListResponse, MemberPromoteResponse, MemberRemoveResponse,
    MemberUpdateResponse, MoveLeaderResponse, PutResponse, RangeResponse, ResponseHeader,
    StatusResponse, TxnResponse, WatchResponse,
};

pub use humanize::si_bytes;

/// A format of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people, and for shells.
    Simple,
    /// A line for each field.
    Fields,
    /// A line of JSON.
    Json,
    /// The message as it came.
    Protobuf,
    /// Boxes.
    Table,
}

impl Format {
    /// The format called `name`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "simple" => Some(Self::Simple),
            "fields" => Some(Self::Fields),
            "json" => Some(Self::Json),
            "protobuf" => Some(Self::Protobuf),
            "table" => Some(Self::Table),
            _ => None,
        }
    }
}

/// Why an answer was not shown.
#[derive(Debug)]
pub enum Error {
    /// The format is not for this answer.
    Unsupported(String),
    /// The output could not be written.
    Output(io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

type Result = std::result::Result<(), Error>;

/// Whether an endpoint works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The endpoint.
    pub endpoint: String,
    /// Whether it answered, without alarms.
    pub is_healthy: bool,
    /// How long it took; empty if there was no connection.
    pub took: String,
    /// Why it is not healthy.
    pub error: String,
}

/// Shows answers in one format.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    /// The format.
    pub format: Format,
    /// Show bytes and ids in hexadecimal.
    pub is_hex: bool,
    /// Show values without keys, in [`Format::Simple`].
    pub values_only: bool,
}

/// Where answers are shown, and complaints.
pub struct Output<'a> {
    /// Standard output, or what stands for it.
    pub out: &'a mut dyn Write,
    /// Standard error, or what stands for it.
    pub err: &'a mut dyn Write,
}

impl std::fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Output")
    }
}

impl Printer {
    /// The answer to reading keys.
    pub fn range(self, to: &mut Output<'_>, answer: &RangeResponse) -> Result {
        match self.format {
            Format::Simple => Ok(simple::range(self, to.out, answer)?),
            Format::Fields => Ok(fields::range(self, to.out, answer)?),
            Format::Json => Ok(json::line(to.out, &json::range(answer))?),
            Format::Protobuf => protobuf(to, answer),
            Format::Table => unsupported("table"),
        }
    }

    /// The answer to writing a key.
    pub fn put(self, to: &mut Output<'_>, answer: &PutResponse) -> Result {
        match self.format {
            Format::Simple => Ok(simple::put(self, to.out, answer)?),
            Format::Fields => Ok(fields::put(self, to.out, answer)?),
            Format::Json => Ok(json::line(to.out, &json::put(answer))?),
            Format::Protobuf => protobuf(to, answer),
            Format::Table => unsupported("table"),
        }
    }

    /// The answer to deleting keys.
    pub fn delete_range(self, to: &mut Output<'_>, answer: &DeleteRangeResponse) -> Result {
        match self.format {
            Format::Simple => Ok(simple::delete_range(self, to.out, answer)?),
            Format::Fields => Ok(fields::delete_range(self, to.out, answer)?),
            Format::Json => Ok(json::line(to.out, &json::delete_range(answer))?),
            Format::Protobuf => protobuf(to, answer),
            Format::Table => unsupported("table"),
        }
    }

    /// The answer to a transaction.
    pub fn txn(self, to: &mut Output<'_>, answer: &TxnResponse) -> Result {
        match self.format {
            Format::Simple => Ok(simple::txn(self, to.out, answer)?),
            Format::Fields => Ok(fields::txn(self, to.out, answer)?),
            Format::Json => Ok(json::line(to.out, &json::txn(answer))?),
            Format::Protobuf => protobuf(to, answer),
            Format::Table => unsupported("table"),
        }
    }

    /// A response to a watch.
    pub fn watch(self, to: &mut Output<'_>, answer: &WatchResponse) -> Result {
        match self.format {
            Format::Simple => Ok(simple::watch(self, to.out, answer)?),
            Format::Fields => Ok(fields::watch(self, to.out, answer)?),
            Format::Json => Ok(json::line(to.out, &json::watch(answer))?),
            Format::Protobuf => {
                let shown = WatchResponse {
                    watch_id: 0,
                    cancel_reason: String::new(),
                    fragment: false,
                    ..answer.clone()
                };
                protobuf(to, &shown)
            }
            Format::Table => unsupported("table"),
        }
    }

    /// A lease that was granted.
    pub fn lease_grant(self, to: &mut Output<'_>, answer: &LeaseGrantResponse) -> Result {
        match self.format {
            Format::Simple => Ok(simple::lease_grant(to.out, answer)?),
            Format::Fields => Ok(fields::lease_grant(self, to.out, answer)?),
            Format::Json => Ok(json::line(to.out, &json::lease_grant(answer))?),
            Format::Protobuf => protobuf(to, &header(answer.header.as_ref())),
            Format::Table => unsupported("table"),
        }
    }

    /// A lease that was revoked.
    pub fn lease_revoke(
        self,
        to: &mut Output<'_>,
        id: i64,
        answer: &LeaseRevokeResponse,
    ) -> Result {
        match self.format {
            Format::Simple => Ok(simple::lease_revoke(to.out, id)?),
            Format::Fields => Ok(fields::header_only(self, to.out, answer.header.as_ref())?),
            Format::Json => Ok(json::line(to.out, &json::header_only(answer.header.as_ref()))?),
            Format::Protobuf => unsupported_message("clientv3.LeaseRevokeResponse", answer),
            Format::Table => unsupported("table"),
        }
    }

    /// A lease that was renewed.
    pub fn keep_alive(self, to: &mut Output<'_>, answer: &LeaseKeepAliveResponse) -> Result {
        match self.format {
            Format::Simple => Ok(simple::keep_alive(to.out, answer)?),
            Format::Fields => Ok(fields::keep_alive(self, to.out, answer)?),
            Format::Json => Ok(json::line(to.out, &json::keep_alive(answer))?),
            Format::Protobuf => protobuf(to, &header(answer.header.as_ref())),
            Format::Table => unsupported("table"),
        }
    }

    /// A lease's time to live, with its keys if they were asked for.
    pub fn time_to_live(
        self,
        to: &mut Output<'_>,
        answer: &LeaseTimeToLiveResponse,
        keys: bool,
    ) -> Result {
        match self.format {
            Format::Simple => Ok(simple::time_to_live(to.out, answer, keys)?),
            Format::Fields => Ok(fields::time_to_live(self, to.out, answer)?),
            Format::Json => Ok(json::line(to.out, &json::time_to_live(answer))?),
            Format::Protobuf => protobuf(to, &header(answer.header.as_ref())),
            Format::Table => unsupported("table"),
        }
    }

    /// All leases.
    pub fn leases(self, to: &mut Output<'_>, answer: &LeaseLeasesResponse) -> Result {
        match self.format {
            Format::Simple => Ok(simple::leases(to.out, answer)?),
            Format::Fields => Ok(fields::leases(self, to.out, answer)?),
            Format::Json => Ok(json::line(to.out, &json::leases(answer))?),
            Format::Protobuf => protobuf(to, &header(answer.header.as_ref())),
            Format::Table => unsupported("table"),
        }
    }

    /// All members.
    pub fn member_list(self, to: &mut Output<'_>, answer: &MemberListResponse) -> Result {
        match self.format {
            Format::Simple => Ok(simple::rows(to.out, &table::members(answer).rows)?),
            Format::Fields => Ok(fields::member_list(self, to.out, answer)?),
            Format::Json => {
                let header = answer.header.as_ref();
                Ok(json::line(to.out, &json::members(header, &answer.members, self.is_hex))?)
            }
            Format::Protobuf => protobuf(to, answer),
            Format::Table => Ok(table::members(answer).write(to.out)?),
        }
    }

    /// A member that was added, and in [`Format::Simple`] the environment to start it with: as
    /// `name`, under `peer_urls`.
    pub fn member_add(
        self,
        to: &mut Output<'_>,
        answer: &MemberAddResponse,
        name: &str,
        peer_urls: &str,
    ) -> Result {
        match self.format {
            Format::Simple => Ok(simple::member_add(to.out, answer, name, peer_urls)?),
            Format::Fields => unsupported("fields"),
            Format::Json => Ok(json::line(to.out, &json::member_add(answer, self.is_hex))?),
            Format::Protobuf => protobuf(to, answer),
            Format::Table => unsupported("table"),
        }
    }

    /// A member that was removed.
    pub fn member_remove(
        self,
        to: &mut Output<'_>,
        id: u64,
        answer: &MemberRemoveResponse,
    ) -> Result {
        let header = answer.header.as_ref();
        match self.format {
            Format::Simple => Ok(simple::member_change(to.out, id, "removed from", header)?),
            Format::Fields => unsupported("fields"),
            Format::Json => {
                Ok(json::line(to.out, &json::members(header, &answer.members, self.is_hex))?)
            }
            Format::Protobuf => protobuf(to, answer),
            Format::Table => unsupported("table"),
        }
    }

    /// A member whose URLs were replaced.
    pub fn member_update(
        self,
        to: &mut Output<'_>,
        id: u64,
        answer: &MemberUpdateResponse,
    ) -> Result {
        let header = answer.header.as_ref();
        match self.format {
            Format::Simple => Ok(simple::member_change(to.out, id, "updated in", header)?),
            Format::Fields => unsupported("fields"),
            Format::Json => {
                Ok(json::line(to.out, &json::members(header, &answer.members, self.is_hex))?)
            }
            Format::Protobuf => protobuf(to, answer),
            Format::Table => unsupported("table"),
        }
    }

    /// A learner that was given a vote.
    pub fn member_promote(
        self,
        to: &mut Output<'_>,
        id: u64,
        answer: &MemberPromoteResponse,
    ) -> Result {
        let header = answer.header.as_ref();
        match self.format {
            Format::Simple => Ok(simple::member_change(to.out, id, "promoted in", header)?),
            Format::Fields => unsupported("fields"),
            Format::Json => {
                Ok(json::line(to.out, &json::members(header, &answer.members, self.is_hex))?)
            }
            Format::Protobuf => protobuf(to, answer),
            Format::Table => unsupported("table"),
        }
    }

    /// Leadership that went from one member to another.
    pub fn move_leader(
        self,
        to: &mut Output<'_>,
        leader: u64,
        target: u64,
        answer: &MoveLeaderResponse,
    ) -> Result {
        match self.format {
            Format::Simple => Ok(simple::move_leader(to.out, leader, target)?),
            Format::Fields => unsupported("fields"),
            Format::Json => Ok(json::line(to.out, &json::header_only(answer.header.as_ref()))?),
            Format::Protobuf => protobuf(to, answer),
            Format::Table => unsupported("table"),
        }
    }

    /// The cluster's version, after something was done about a downgrade.
    pub fn downgrade(
        self,
        to: &mut Output<'_>,
        action: DowngradeAction,
        answer: &DowngradeResponse,
    ) -> Result {
        match self.format {
            Format::Simple => Ok(simple::downgrade(to.out, action, answer)?),
            Format::Fields => unsupported("fields"),
            Format::Json => Ok(json::line(to.out, &json::downgrade(answer))?),
            Format::Protobuf => protobuf(to, answer),
            Format::Table => unsupported("table"),
        }
    }

    /// All alarms, or those that were disarmed.
    pub fn alarm(self, to: &mut Output<'_>, answer: &AlarmResponse) -> Result {
        match self.format {
            Format::Simple => Ok(simple::alarm(to.out, answer)?),
            Format::Fields => Ok(fields::alarm(self, to.out, answer)?),
            Format::Json => Ok(json::line(to.out, &json::alarm(answer))?),
            Format::Protobuf => protobuf(to, answer),
            Format::Table => unsupported("table"),
        }
    }

    /// Which endpoints work.
    pub fn endpoint_health(self, to: &mut Output<'_>, list: &[Health]) -> Result {
        match self.format {
            Format::Simple => Ok(simple::endpoint_health(to, list)?),
            Format::Fields => Ok(fields::endpoint_health(to.out, list)?),
            Format::Json => Ok(json::line(to.out, &json::endpoint_health(list))?),
            Format::Protobuf => unsupported("protobuf"),
            Format::Table => Ok(table::health(list).write(to.out)?),
        }
    }

    /// The state of endpoints.
    pub fn endpoint_status(self, to: &mut Output<'_>, list: &[(String, StatusResponse)]) -> Result {
        match self.format {
            Format::Simple => Ok(simple::rows(to.out, &table::status(list).rows)?),
            Format::Fields => Ok(fields::endpoint_status(self, to.out, list)?),
            Format::Json => Ok(json::line(to.out, &json::endpoint_status(list))?),
            Format::Protobuf => unsupported("protobuf"),
            Format::Table => Ok(table::status(list).write(to.out)?),
        }
    }

    /// The hashes of endpoints.
    pub fn endpoint_hash_kv(
        self,
        to: &mut Output<'_>,
        list: &[(String, HashKvResponse)],
    ) -> Result {
        match self.format {
            Format::Simple => Ok(simple::rows(to.out, &table::hash_kv(list).rows)?),
            Format::Fields => Ok(fields::endpoint_hash_kv(self, to.out, list)?),
            Format::Json => Ok(json::line(to.out, &json::endpoint_hash_kv(list))?),
            Format::Protobuf => unsupported("protobuf"),
            Format::Table => Ok(table::hash_kv(list).write(to.out)?),
        }
    }
}

fn protobuf(to: &mut Output<'_>, message: &impl prost::Message) -> Result {
    Ok(to.out.write_all(&message.encode_to_vec())?)
}

fn unsupported(format: &str) -> Result {
    Err(Error::Unsupported(format!("{format} not supported as output format")))
}

fn unsupported_message(name: &str, message: &impl std::fmt::Debug) -> Result {
    Err(Error::Unsupported(format!("marshal unsupported for type *{name} ({message:?})")))
}

/// A header's numbers; zeros where there is none.
fn header(header: Option<&ResponseHeader>) -> ResponseHeader {
    header.copied().unwrap_or_default()
}
