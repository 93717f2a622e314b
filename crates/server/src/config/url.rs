//! URLs of listeners and members: parsed and refused as etcd does.
//!
//! A URL keeps the text it was given (with the scheme in lower case), because texts are what
//! members compare, sort and hash.

use std::fmt;
use std::net::IpAddr;

/// How a URL is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// TCP.
    Http,
    /// TLS over TCP.
    Https,
    /// A Unix socket.
    Unix,
    /// TLS over a Unix socket.
    Unixs,
}

/// A listen or advertise URL; ordered by its text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    text: String,
    scheme: Scheme,
    authority: String,
    path: String,
}

/// A text that is no usable URL; its message is etcd's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not a URL at all.
    #[error("parse {text:?}: {reason}")]
    Syntax {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A scheme that cannot be served.
    #[error("URL scheme must be http, https, unix, or unixs: {text}")]
    Scheme {
        /// What was given.
        text: String,
    },
    /// No `host:port`.
    #[error("URL address does not have the form \"host:port\": {text}")]
    Address {
        /// What was given.
        text: String,
    },
    /// A path behind the address.
    #[error("URL must not contain a path: {text}")]
    Path {
        /// What was given.
        text: String,
    },
    /// A listen URL with a name instead of an address.
    #[error("expected IP in URL for binding ({text})")]
    BindName {
        /// What was given.
        text: String,
    },
    /// An advertise URL without a host.
    #[error("unexpected empty host ({text})")]
    EmptyHost {
        /// What was given.
        text: String,
    },
}

impl Url {
    /// Parses one URL; white space around it is ignored.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let text = text.trim();
        let owned = || text.to_owned();
        let syntax = |reason: String| UrlError::Syntax { text: owned(), reason };
        if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return Err(syntax("net/url: invalid control character in URL".to_owned()));
        }
        let (scheme, rest) = split_scheme(text).map_err(syntax)?;
        if scheme.is_empty() {
            let segment = rest.split(['/', '?', '#']).next().unwrap_or_default();
            if segment.contains(':') {
                return Err(syntax("first path segment in URL cannot contain colon".to_owned()));
            }
            return Err(UrlError::Scheme { text: owned() });
        }
        let hierarchy = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = match hierarchy.strip_prefix("//") {
            Some(behind) => behind.split_at(behind.find('/').unwrap_or(behind.len())),
            None if hierarchy.starts_with('/') => ("", hierarchy),
            None => ("", ""),
        };
        let authority = authority.rsplit_once('@').map_or(authority, |(_user, host)| host);
        check_authority(authority).map_err(syntax)?;
        let known = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => return Err(UrlError::Scheme { text: owned() }),
        };
        if matches!(known, Scheme::Http | Scheme::Https) {
            let Some((_host, port)) = split_host_port(authority) else {
                return Err(UrlError::Address { text: owned() });
            };
            // Checked here and not for sockets, where the digits are part of a file name.
            if !port.is_empty() && port.parse::<u16>().is_err() {
                return Err(syntax(format!("port {port} out of range")));
            }
            if !path.is_empty() {
                return Err(UrlError::Path { text: owned() });
            }
        }
        Ok(Self {
            text: format!("{}{}", scheme.to_ascii_lowercase(), &text[scheme.len()..]),
            scheme: known,
            authority: authority.to_owned(),
            path: path.to_owned(),
        })
    }

    /// Parses a comma-separated list; sorted by text, as etcd keeps it.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, UrlError> {
        let mut urls = text.split(',').map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        urls.sort();
        Ok(urls)
    }

    /// The URL as given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How it is served.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether TLS is spoken.
    pub fn is_secure(&self) -> bool {
        matches!(self.scheme, Scheme::Https | Scheme::Unixs)
    }

    /// Whether it names a Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self.scheme, Scheme::Unix | Scheme::Unixs)
    }

    /// What to bind: `host:port`, or the socket file of a Unix URL (host and path text together).
    pub fn address(&self) -> String {
        if self.is_unix() {
            format!("{}{}", self.authority, self.path)
        } else {
            self.authority.clone()
        }
    }

    /// The host without port and brackets.
    pub fn host(&self) -> &str {
        split_host_port(&self.authority).map_or(self.authority.as_str(), |(host, _port)| host)
    }

    /// The port; 0 where none is written.
    pub fn port(&self) -> u16 {
        split_host_port(&self.authority).and_then(|(_host, port)| port.parse().ok()).unwrap_or(0)
    }

    /// The same URL with another host.
    pub(crate) fn with_host(&self, host: IpAddr, port: u16) -> Self {
        let scheme = self.text.split(':').next().unwrap_or_default();
        let authority = match host {
            IpAddr::V4(v4) => format!("{v4}:{port}"),
            IpAddr::V6(v6) => format!("[{v6}]:{port}"),
        };
        Self {
            text: format!("{scheme}://{authority}"),
            scheme: self.scheme,
            authority,
            path: String::new(),
        }
    }

    /// Refuses a URL that cannot be bound: only addresses and `localhost` can.
    pub(crate) fn check_bind(&self) -> Result<(), UrlError> {
        let host = self.host();
        // A zone (`fe80::1%eth0`) is not part of the address.
        let bare = host.split('%').next().unwrap_or_default();
        if self.is_unix() || host == "localhost" || bare.parse::<IpAddr>().is_ok() {
            return Ok(());
        }
        Err(UrlError::BindName { text: self.text.clone() })
    }

    /// Refuses a URL that others could not reach because it has no host.
    pub(crate) fn check_host(&self) -> Result<(), UrlError> {
        if self.is_unix() || !self.host().is_empty() {
            return Ok(());
        }
        Err(UrlError::EmptyHost { text: self.text.clone() })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The texts of `urls`, in order.
pub fn texts(urls: &[Url]) -> Vec<&str> {
    urls.iter().map(Url::as_str).collect()
}

/// Splits `scheme:rest`; an empty scheme where there is none.
fn split_scheme(text: &str) -> Result<(&str, &str), String> {
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme".to_owned()),
            ':' => return Ok((&text[..at], &text[at + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

/// Refuses what cannot stand between `//` and the path.
fn check_authority(authority: &str) -> Result<(), String> {
    let port = if authority.starts_with('[') {
        let end = authority.rfind(']').ok_or_else(|| "missing ']' in host".to_owned())?;
        &authority[end + 1..]
    } else {
        authority.find(':').map_or("", |colon| &authority[colon..])
    };
    let digits = port.strip_prefix(':').unwrap_or_default();
    let well_formed =
        port.is_empty() || (port.starts_with(':') && digits.bytes().all(|b| b.is_ascii_digit()));
    if !well_formed {
        return Err(format!("invalid port {port:?} after host"));
    }
    match authority
        .chars()
        .find(|c| matches!(c, ' ' | '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}'))
    {
        Some(bad) => Err(format!("invalid character {:?} in host name", bad.to_string())),
        None => Ok(()),
    }
}

/// Splits `host:port` and `[host]:port`; `None` where there is no single port.
fn split_host_port(address: &str) -> Option<(&str, &str)> {
    let (host, port) = address.rsplit_once(':')?;
    match host.strip_prefix('[') {
        Some(inner) => Some((inner.strip_suffix(']')?, port)),
        None => (!host.contains([':', '[', ']'])).then_some((host, port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_give_their_parts() {
        for (text, host, port, address, secure) in [
            ("http://localhost:2379", "localhost", 2379, "localhost:2379", false),
            ("HTTPS://1.2.3.4:80", "1.2.3.4", 80, "1.2.3.4:80", true),
            ("http://[::1]:2380", "::1", 2380, "[::1]:2380", false),
            ("http://:80", "", 80, ":80", false),
            ("unix://tmp/etcd.sock", "tmp", 0, "tmp/etcd.sock", false),
            ("unix:///tmp/a:1", "", 0, "/tmp/a:1", false),
            ("unixs://localhost:123450", "localhost", 0, "localhost:123450", true),
            ("unix:/tmp/a", "", 0, "/tmp/a", false),
        ] {
            let url = Url::parse(text).expect(text);
            assert_eq!((url.host(), url.port()), (host, port), "{text}");
            assert_eq!((url.address().as_str(), url.is_secure()), (address, secure), "{text}");
        }
        assert_eq!(Url::parse("HTTPS://1.2.3.4:80").expect("a url").as_str(), "https://1.2.3.4:80");
    }

    #[test]
    fn lists_are_sorted_and_trimmed() {
        let urls = Url::parse_list("http://b:1, http://a:1").expect("a list");
        assert_eq!(texts(&urls), ["http://a:1", "http://b:1"]);
    }

    #[test]
    fn refusals_have_etcd_texts() {
        for (text, error) in [
            ("foo", "URL scheme must be http, https, unix, or unixs: foo"),
            ("localhost:2379", "URL scheme must be http, https, unix, or unixs: localhost:2379"),
            ("http://foo", "URL address does not have the form \"host:port\": http://foo"),
            ("http:foo", "URL address does not have the form \"host:port\": http:foo"),
            ("http://1.2.3.4:1/path", "URL must not contain a path: http://1.2.3.4:1/path"),
            ("http://1.2.3.4:80/", "URL must not contain a path: http://1.2.3.4:80/"),
            ("http://[::1:2380", "parse \"http://[::1:2380\": missing ']' in host"),
            ("http://a:b:c", "parse \"http://a:b:c\": invalid port \":b:c\" after host"),
            (
                "http://1.2.3.4:abc",
                "parse \"http://1.2.3.4:abc\": invalid port \":abc\" after host",
            ),
            (":2380", "parse \":2380\": missing protocol scheme"),
            (
                "http://ho st:2380",
                "parse \"http://ho st:2380\": invalid character \" \" in host name",
            ),
            (
                "http://1.2.3.4:80%zz",
                "parse \"http://1.2.3.4:80%zz\": invalid port \":80%zz\" after host",
            ),
            ("http://a:65536", "parse \"http://a:65536\": port 65536 out of range"),
            (
                "127.0.0.1:2379",
                "parse \"127.0.0.1:2379\": first path segment in URL cannot contain colon",
            ),
        ] {
            assert_eq!(Url::parse(text).expect_err(text).to_string(), error);
        }
    }

    #[test]
    fn only_addresses_and_localhost_can_be_bound() {
        for (text, ok) in [
            ("http://localhost:1", true),
            ("http://0.0.0.0:1", true),
            ("http://[fe80::1%25eth0]:1", true),
            ("unix://name:1", true),
            ("http://example.com:1", false),
            ("http://:1", false),
        ] {
            assert_eq!(Url::parse(text).expect(text).check_bind().is_ok(), ok, "{text}");
        }
        assert!(Url::parse("http://:1").expect("a url").check_host().is_err());
    }
}
