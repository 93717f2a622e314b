//! SRV records of the domain name system (RFC 1035, 2782, 6891): one kind of question, asked of the servers that the system
//! names in `/etc/resolv.conf`, over UDP and, when an answer is too long for that, over TCP.
//!
//! The system's own resolver gives addresses only. Others' libraries that ask for SRV records bring caches, encrypted
//! transports and validation with them, for two questions in the life of a member.
//!
//! Bounds: answers have 64 KiB at most; every server is asked a few times, for a few seconds each.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

/// Where the system says whom to ask.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Servers that are asked, as everywhere.
const SERVERS_MAX: usize = 3;
const PORT: u16 = 53;
/// Bytes of an answer over UDP that this asks for.
const UDP_BYTES_MAX: u16 = 1232;
/// Bytes of a name, and of a part of it.
const NAME_BYTES_MAX: usize = 255;
const LABEL_BYTES_MAX: usize = 63;

const HEADER_BYTES: usize = 12;
const TYPE_SRV: u16 = 33;
const TYPE_OPT: u16 = 41;
const CLASS_IN: u16 = 1;
const FLAG_RESPONSE: u16 = 1 << 15;
const FLAG_TRUNCATED: u16 = 1 << 9;
const FLAG_RECURSION_DESIRED: u16 = 1 << 8;
const CODE_MASK: u16 = 0xf;
const CODE_OK: u16 = 0;
const CODE_NO_SUCH_NAME: u16 = 3;
/// The two first bits of a length that is none, but says where the name goes on.
const POINTER: u8 = 0xc0;

/// One record: a place where a service is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Srv {
    /// Lower ones come first.
    pub priority: u16,
    /// The port.
    pub port: u16,
    /// The host's name, without a dot at its end.
    pub target: String,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("lookup {name}{server}: {failure}")]
pub struct LookupError {
    /// The name that was looked up.
    name: String,
    /// ` on `, and whom it was asked of.
    server: String,
    /// What happened.
    failure: Failure,
}

impl LookupError {
    /// Whether the name certainly has no such records.
    pub fn is_absent(&self) -> bool {
        self.failure == Failure::NoSuchHost
    }
}

/// What became of a question that was not answered with records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// There are none.
    NoSuchHost,
    /// The server cannot tell, or tells nonsense.
    Misbehaving,
    /// It does not answer.
    Timeout,
    /// It cannot be asked.
    Unreachable(std::io::ErrorKind),
}

impl fmt::Display for Failure {
    /// The words of Go's resolver.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchHost => f.write_str("no such host"),
            Self::Misbehaving => f.write_str("server misbehaving"),
            Self::Timeout => f.write_str("i/o timeout"),
            Self::Unreachable(kind) => kind.fmt(f),
        }
    }
}

/// Whom to ask, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
    /// Domains in which a name is looked for that is not there as it stands.
    search: Vec<String>,
    timeout: Duration,
    attempts: usize,
}

impl Resolver {
    /// Asks as the system is told to.
    pub fn of_system() -> Self {
        // Without the file, as with an empty one, this machine is asked.
        let text = std::fs::read_to_string(Path::new(RESOLV_CONF)).unwrap_or_default();
        Self::parse(&text)
    }

    /// Asks these servers.
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers, search: Vec::new(), timeout: Duration::from_secs(5), attempts: 2 }
    }

    /// Reads what `resolv.conf` says. What cannot be understood in it is passed over.
    pub fn parse(text: &str) -> Self {
        let mut found = Self::new(Vec::new());
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") if found.servers.len() < SERVERS_MAX => {
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    found.servers.extend(address.map(|address| SocketAddr::new(address, PORT)));
                }
                Some("search" | "domain") => found.search = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|word| found.set_option(word)),
                _ => {}
            }
        }
        if found.servers.is_empty() {
            found.servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        found
    }

    fn set_option(&mut self, word: &str) {
        let Some((name, number)) = word.split_once(':') else { return };
        let Ok(number) = number.parse::<u8>() else { return };
        match name {
            "timeout" => self.timeout = Duration::from_secs(u64::from(number.clamp(1, 30))),
            "attempts" => self.attempts = usize::from(number.clamp(1, 5)),
            _ => {}
        }
    }

    /// Looks up the SRV records of `_service._tcp.domain`, by priority.
    pub async fn srv(&self, service: &str, domain: &str) -> Result<Vec<Srv>, LookupError> {
        let name = format!("_{service}._tcp.{}", domain.trim_end_matches('.'));
        let longer = self.search.iter().map(|domain| format!("{name}.{domain}"));
        let is_absolute = domain.ends_with('.');
        let longer = longer.filter(|_name| !is_absolute).collect::<Vec<_>>();
        let mut failed = match self.ask_all(&name).await {
            Ok(records) => return Ok(records),
            Err(failed) => failed,
        };
        for candidate in longer {
            if failed.1 != Failure::NoSuchHost {
                break;
            }
            match self.ask_all(&candidate).await {
                Ok(records) => return Ok(records),
                Err(again) => failed = again,
            }
        }
        let (server, failure) = failed;
        let server = server.map_or_else(String::new, |server| format!(" on {server}"));
        Err(LookupError { name, server, failure })
    }

    /// Asks one server after the other until there is an answer.
    async fn ask_all(&self, name: &str) -> Result<Vec<Srv>, (Option<SocketAddr>, Failure)> {
        let Some(question) = Question::new(name) else { return Err((None, Failure::NoSuchHost)) };
        let mut failed = (None, Failure::Unreachable(std::io::ErrorKind::AddrNotAvailable));
        for _ in 0..self.attempts {
            for server in &self.servers {
                match self.ask(*server, &question).await {
                    Ok(records) => return Ok(records),
                    Err(Failure::NoSuchHost) => return Err((Some(*server), Failure::NoSuchHost)),
                    Err(failure) => failed = (Some(*server), failure),
                }
            }
        }
        Err(failed)
    }

    async fn ask(&self, server: SocketAddr, question: &Question) -> Result<Vec<Srv>, Failure> {
        let asked = async {
            match over_udp(server, question).await? {
                Answer::Truncated => match over_tcp(server, question).await? {
                    Answer::Truncated => Err(Failure::Misbehaving),
                    Answer::Records(records) => Ok(records),
                    Answer::Refused(failure) => Err(failure),
                },
                Answer::Records(records) => Ok(records),
                Answer::Refused(failure) => Err(failure),
            }
        };
        tokio::time::timeout(self.timeout, asked).await.unwrap_or(Err(Failure::Timeout))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Unreachable(error.kind())
    }
}

async fn over_udp(server: SocketAddr, question: &Question) -> Result<Answer, Failure> {
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&question.bytes).await?;
    let mut answer = vec![0; usize::from(UDP_BYTES_MAX)];
    loop {
        let length = socket.recv(&mut answer).await?;
        // What is no answer to this question may come from anybody, and is passed over.
        if let Some(answer) = question.read(&answer[..length]) {
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &Question) -> Result<Answer, Failure> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.bytes.len()).map_err(|_long| Failure::NoSuchHost)?;
    stream.write_all(&[&length.to_be_bytes()[..], &question.bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    question.read(&answer).ok_or(Failure::Misbehaving)
}

/// A question as it is sent.
#[derive(Debug)]
pub struct Question {
    id: u16,
    /// The name with the length before each part.
    name: Vec<u8>,
    bytes: Vec<u8>,
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// These are the records.
    Records(Vec<Srv>),
    /// It did not fit.
    Truncated,
    /// There are none, or it cannot tell.
    Refused(Failure),
}

impl Question {
    /// Asks for the SRV records of `name`; `None` if that is no name.
    pub fn new(name: &str) -> Option<Self> {
        // Whoever cannot see the question must not guess its number.
        let id = RandomState::new().build_hasher().finish().to_be_bytes();
        Self::with_id(name, u16::from_be_bytes([id[0], id[1]]))
    }

    /// As [`Question::new`], with a number that is known.
    pub fn with_id(name: &str, id: u16) -> Option<Self> {
        let name = encode_name(name)?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + name.len() + 15);
        bytes.put_u16(id);
        bytes.put_u16(FLAG_RECURSION_DESIRED);
        // One question, and one additional record: bytes that an answer may have.
        for count in [1, 0, 0, 1] {
            bytes.put_u16(count);
        }
        bytes.put_slice(&name);
        bytes.put_u16(TYPE_SRV);
        bytes.put_u16(CLASS_IN);
        bytes.put_u8(0);
        bytes.put_u16(TYPE_OPT);
        bytes.put_u16(UDP_BYTES_MAX);
        bytes.put_u32(0);
        bytes.put_u16(0);
        Some(Self { id, name, bytes })
    }

    /// Reads an answer; `None` if it is none to this question.
    pub fn read(&self, answer: &[u8]) -> Option<Answer> {
        let mut header = answer.get(..HEADER_BYTES)?;
        let (id, flags) = (header.get_u16(), header.get_u16());
        let (questions, answers) = (header.get_u16(), header.get_u16());
        if id != self.id || flags & FLAG_RESPONSE == 0 || questions != 1 {
            return None;
        }
        let (name, at) = read_name(answer, HEADER_BYTES)?;
        let mut rest = answer.get(at..at + 4)?;
        let is_same = name.eq_ignore_ascii_case(&self.name);
        if !is_same || rest.get_u16() != TYPE_SRV || rest.get_u16() != CLASS_IN {
            return None;
        }
        if flags & FLAG_TRUNCATED != 0 {
            return Some(Answer::Truncated);
        }
        Some(match flags & CODE_MASK {
            CODE_OK => match read_records(answer, at + 4, answers) {
                Some(records) if records.is_empty() => Answer::Refused(Failure::NoSuchHost),
                Some(records) => Answer::Records(records.into_iter().collect()),
                None => Answer::Refused(Failure::Misbehaving),
            },
            CODE_NO_SUCH_NAME => Answer::Refused(Failure::NoSuchHost),
            _ => Answer::Refused(Failure::Misbehaving),
        })
    }
}

/// Reads the records of a section that begins `at`, as far as they are SRV records of hosts. `None` if they are damaged.
fn read_records(answer: &[u8], mut at: usize, count: u16) -> Option<BTreeSet<Srv>> {
    let mut records = BTreeSet::new();
    for _ in 0..count {
        // Whose they are does not matter: the name may be another one for the same.
        let (_owner, behind) = read_name(answer, at)?;
        let mut fixed = answer.get(behind..behind + 10)?;
        let (kind, class, _ttl, length) =
            (fixed.get_u16(), fixed.get_u16(), fixed.get_u32(), usize::from(fixed.get_u16()));
        let begin = behind + 10;
        let mut data = answer.get(begin..begin + length)?;
        at = begin + length;
        if kind != TYPE_SRV || class != CLASS_IN {
            continue;
        }
        if data.len() < 7 {
            return None;
        }
        let (priority, _weight, port) = (data.get_u16(), data.get_u16(), data.get_u16());
        let (target, _end) = read_name(answer, begin + 6)?;
        if let Some(target) = host(&target) {
            records.insert(Srv { priority, port, target });
        }
    }
    Some(records)
}

/// Writes a name with the length before each of its parts.
fn encode_name(name: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(name.len() + 2);
    for label in name.trim_end_matches('.').split('.') {
        if label.is_empty() || label.len() > LABEL_BYTES_MAX {
            return None;
        }
        out.put_u8(u8::try_from(label.len()).ok()?);
        out.put_slice(label.as_bytes());
    }
    out.put_u8(0);
    (out.len() <= NAME_BYTES_MAX).then_some(out)
}

/// Reads a name that begins `at`: its parts with the length before each, and where what follows it begins.
fn read_name(message: &[u8], at: usize) -> Option<(Vec<u8>, usize)> {
    let (mut name, mut at, mut end) = (Vec::new(), at, None);
    loop {
        let length = *message.get(at)?;
        if length & POINTER == POINTER {
            let low = *message.get(at + 1)?;
            end = end.or(Some(at + 2));
            let target = usize::from(u16::from_be_bytes([length & !POINTER, low]));
            // Each step goes back, so there is an end.
            if target >= at {
                return None;
            }
            at = target;
            continue;
        }
        let length = usize::from(length);
        if length > LABEL_BYTES_MAX || name.len() + length + 1 > NAME_BYTES_MAX {
            return None;
        }
        name.extend_from_slice(message.get(at..=at + length)?);
        at += length + 1;
        if length == 0 {
            return Some((name, end.unwrap_or(at)));
        }
    }
}

/// Writes a name that a host may have, with dots.
fn host(name: &[u8]) -> Option<String> {
    let (mut text, mut rest) = (String::new(), name);
    while let [length, more @ ..] = rest
        && *length > 0
    {
        let (label, behind) = more.split_at_checked(usize::from(*length))?;
        let is_good = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
        if !label.iter().all(is_good) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(std::str::from_utf8(label).ok()?);
        rest = behind;
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests;
