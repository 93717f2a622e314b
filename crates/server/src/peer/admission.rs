//! Who may talk to this member on the peer port, and what everyone else is told (`spec/peer-protocol.md` §2).
//!
//! Status and text decide what a member of etcd does: 410, and 403 to a post, make it stop for good. Both are given only
//! to ids that were seen removed, which is final, or, for 403, when a message is meant for another member.

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, StatusCode};
use machine::Reader;
use machine::membership::Version;

use super::codec::Kind;
use crate::config::{ETCD_VERSION, Url};

/// The sender's id.
pub const FROM: HeaderName = HeaderName::from_static("x-server-from");
/// The sender's release.
pub const SERVER_VERSION: HeaderName = HeaderName::from_static("x-server-version");
/// The oldest cluster version that the sender speaks.
pub const CLUSTER_VERSION_MIN: HeaderName = HeaderName::from_static("x-min-cluster-version");
/// The cluster's id.
pub const CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
/// The receiver's id.
pub const TO: HeaderName = HeaderName::from_static("x-raft-to");
/// Where the sender is reached.
pub const PEER_URLS: HeaderName = HeaderName::from_static("x-peerurls");

/// The oldest cluster version that this release speaks.
pub const OWN_CLUSTER_VERSION_MIN: &str = "3.0.0";

/// What a header that is not there stands for.
const VERSION_OF_OLD: Version = Version::new(2, 0, 0);

/// The texts that members compare.
const INCOMPATIBLE_VERSION: &str = "incompatible version";
const CLUSTER_MISMATCH: &str = "cluster ID mismatch";

/// What 403 is said with to a message that is meant for somebody else.
pub const WRONG_RECEIVER: &str = "cannot process message to mismatch member";

/// Who this member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Own {
    /// Its id.
    pub member: u64,
    /// Its cluster's.
    pub cluster: u64,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The status.
    pub status: StatusCode,
    /// The text, without its line end.
    pub text: &'static str,
}

impl Refused {
    const fn new(status: StatusCode, text: &'static str) -> Self {
        Self { status, text }
    }
}

/// What is known of a member by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It belongs to the cluster.
    Peer,
    /// It was removed.
    Removed,
    /// Not a member as far as is known here, which may be old.
    Unknown,
}

/// When a 403, by which a receiver of posts tells this member that it was removed, counts.
///
/// Who says 403 because a message is meant for somebody else says nothing of this member: its address is another member's now.
/// Members of etcd stop at it all the same; this one goes on, and asks who is there for a stream, which tells.
#[derive(Debug, Clone)]
pub enum Word {
    /// A member's does.
    Member,
    /// That of somebody who is no member here does not once this member knows that it is one itself: anybody could stop it
    /// for good otherwise.
    Stranger {
        /// The membership as it is applied here.
        reader: Reader,
        /// This member.
        own: u64,
    },
}

impl Word {
    /// Tells whether `text`, said with 403, means that this member was removed.
    pub fn counts(&self, text: &[u8]) -> bool {
        let is_for_another = String::from_utf8_lossy(text).contains(WRONG_RECEIVER);
        let may_be_trusted = match self {
            Self::Member => true,
            Self::Stranger { reader, own } => reader.membership().member(*own).is_none(),
        };
        may_be_trusted && !is_for_another
    }
}

/// Writes an id as in URLs and headers.
pub fn hex(id: u64) -> String {
    format!("{id:x}")
}

/// Reads an id. Go's `ParseUint` takes any number of leading zeros, too.
pub fn id(text: &str) -> Option<u64> {
    let is_hex = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex { u64::from_str_radix(text, 16).ok() } else { None }
}

/// The headers with which this member introduces itself.
pub fn introduction(own: Own, peer_urls: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(FROM, value(&hex(own.member)));
    headers.insert(SERVER_VERSION, HeaderValue::from_static(ETCD_VERSION));
    headers.insert(CLUSTER_VERSION_MIN, HeaderValue::from_static(OWN_CLUSTER_VERSION_MIN));
    headers.insert(CLUSTER_ID, value(&hex(own.cluster)));
    headers.insert(PEER_URLS, value(peer_urls));
    headers
}

/// Makes a header value; what cannot be one becomes empty.
pub fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_invalid| HeaderValue::from_static(""))
}

/// Checks versions and cluster of a sender.
pub fn check_compatible(headers: &HeaderMap, own: Own) -> Result<(), Refused> {
    let incompatible = Refused::new(StatusCode::PRECONDITION_FAILED, INCOMPATIBLE_VERSION);
    let version = |name| match text(headers, name) {
        Some(text) => text.parse::<Version>().map_err(|_bad| incompatible),
        None => Ok(VERSION_OF_OLD),
    };
    let (theirs, their_min) = (version(&SERVER_VERSION)?, version(&CLUSTER_VERSION_MIN)?);
    let (ours, our_min) = (own_version(ETCD_VERSION), own_version(OWN_CLUSTER_VERSION_MIN));
    if theirs.series() < our_min.series() || their_min.series() > ours.series() {
        return Err(incompatible);
    }
    if text(headers, &CLUSTER_ID) != Some(&hex(own.cluster)) {
        return Err(Refused::new(StatusCode::PRECONDITION_FAILED, CLUSTER_MISMATCH));
    }
    Ok(())
}

/// Reads a version that is a constant of this release.
pub fn own_version(text: &str) -> Version {
    text.parse().expect("a constant of this release")
}

/// Reads a header.
pub fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty())
}

/// A sender that says where it can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduced {
    /// Its id.
    pub id: u64,
    /// Its URLs.
    pub urls: Vec<Url>,
}

/// Reads who sends and where it can be answered, if it says so in a usable way.
pub fn introduced(headers: &HeaderMap) -> Option<Introduced> {
    let id = id(text(headers, &FROM)?)?;
    let urls = Url::parse_list(text(headers, &PEER_URLS)?).ok()?;
    Some(Introduced { id, urls })
}

/// Checks the path behind `/raft/stream/`, and who asks.
pub fn check_stream(
    path: &str,
    headers: &HeaderMap,
    own: Own,
    standing: impl Fn(u64) -> Standing,
) -> Result<(Kind, u64), Refused> {
    let (kind, from) = path.rsplit_once('/').unwrap_or(("", path));
    let Some(kind) = Kind::ALL.into_iter().find(|known| known.path() == kind) else {
        return Err(Refused::new(StatusCode::NOT_FOUND, "invalid path"));
    };
    let Some(from) = id(from) else {
        return Err(Refused::new(StatusCode::NOT_FOUND, "invalid from"));
    };
    match standing(from) {
        Standing::Peer => {}
        Standing::Removed => return Err(Refused::new(StatusCode::GONE, "removed member")),
        Standing::Unknown => {
            return Err(Refused::new(StatusCode::NOT_FOUND, "error sender not found"));
        }
    }
    if text(headers, &TO) != Some(&hex(own.member)) {
        return Err(Refused::new(StatusCode::PRECONDITION_FAILED, "to field mismatch"));
    }
    Ok((kind, from))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Own = Own { member: 0xa1, cluster: 0xc0 };

    fn headers(changed: &[(HeaderName, Option<&str>)]) -> HeaderMap {
        let mut headers = introduction(Own { member: 0xb2, cluster: 0xc0 }, "http://10.0.0.2:2380");
        headers.insert(TO, value("a1"));
        for (name, text) in changed {
            match text {
                Some(text) => headers.insert(name.clone(), value(text)),
                None => headers.remove(name),
            };
        }
        headers
    }

    #[test]
    fn senders_are_admitted_by_version_then_cluster() {
        let check = |changed: &[_]| check_compatible(&headers(changed), OWN).map_err(|r| r.text);
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&[(SERVER_VERSION, Some("3.5.30"))]), Ok(()));
        assert_eq!(check(&[(SERVER_VERSION, Some("3.99.0-rc.1"))]), Ok(()));
        for (name, text) in [
            (SERVER_VERSION, None),
            (SERVER_VERSION, Some("2.3.8")),
            (SERVER_VERSION, Some("new")),
            (CLUSTER_VERSION_MIN, Some("3.8.0")),
        ] {
            let both = [(name.clone(), text), (CLUSTER_ID, Some("1"))];
            assert_eq!(check(&both), Err(INCOMPATIBLE_VERSION), "{name} {text:?}");
        }
        for id in [None, Some("c1"), Some("C0"), Some("0c0")] {
            assert_eq!(check(&[(CLUSTER_ID, id)]), Err(CLUSTER_MISMATCH), "{id:?}");
        }
    }

    #[test]
    fn a_members_word_counts_unless_it_is_about_another() {
        assert!(Word::Member.counts(b"cannot process message from removed member\n"));
        assert!(!Word::Member.counts(b"cannot process message to mismatch member\n"));
    }

    #[test]
    fn streams_are_refused_in_the_order_of_etcd() {
        let standing = |id| match id {
            0xb2 => Standing::Peer,
            0xd4 => Standing::Removed,
            _ => Standing::Unknown,
        };
        let other = headers(&[(TO, Some("e5"))]);
        for (path, headers, expected) in [
            ("msgapp/b2", &headers(&[]), Ok((Kind::MsgApp, 0xb2))),
            ("message/00b2", &headers(&[]), Ok((Kind::Message, 0xb2))),
            ("msgapp", &other, Err((404, "invalid path"))),
            ("other/xyz", &other, Err((404, "invalid path"))),
            ("msgapp/xyz", &other, Err((404, "invalid from"))),
            ("msgapp/", &other, Err((404, "invalid from"))),
            ("msgapp/+b2", &other, Err((404, "invalid from"))),
            ("msgapp/d4", &other, Err((410, "removed member"))),
            ("msgapp/e5", &other, Err((404, "error sender not found"))),
            ("msgapp/b2", &other, Err((412, "to field mismatch"))),
        ] {
            let checked = check_stream(path, headers, OWN, standing);
            assert_eq!(checked.map_err(|r| (r.status.as_u16(), r.text)), expected, "{path}");
        }
    }

    #[test]
    fn a_sender_is_answered_where_it_says() {
        let two = "http://10.0.0.2:2380,http://10.0.0.3:2380";
        let found = introduced(&headers(&[(PEER_URLS, Some(two))])).expect("both headers");
        assert_eq!((found.id, found.urls.len()), (0xb2, 2));
        for (name, text) in [
            (FROM, None),
            (FROM, Some("peer")),
            (PEER_URLS, None),
            (PEER_URLS, Some("ftp://10.0.0.2")),
        ] {
            assert_eq!(introduced(&headers(&[(name.clone(), text)])), None, "{name} {text:?}");
        }
    }
}
