//! Peer URLs, refused here before a member sees them, in the words of etcd's client.
//!
//! What is wrong with the escapes in a URL is left for the member to say.

use crate::Error;

/// The parts of a URL that are looked at.
struct Parts<'a> {
    scheme: &'a str,
    address: &'a str,
    path: &'a str,
}

/// Refuses `urls` if a member could not be reached under one of them.
pub(crate) fn check(urls: &[String]) -> Result<(), Error> {
    if urls.is_empty() {
        return Err(Error::PeerUrl("no valid URLs given".to_owned()));
    }
    urls.iter().try_for_each(|url| check_one(url.trim())).map_err(Error::PeerUrl)
}

fn check_one(url: &str) -> Result<(), String> {
    let Parts { scheme, address, path } =
        parse(url).map_err(|reason| format!("parse {url:?}: {reason}"))?;
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" if !has_port(address) => {
            Err(format!("URL address does not have the form \"host:port\": {url}"))
        }
        "http" | "https" if !path.is_empty() => Err(format!("URL must not contain a path: {url}")),
        "http" | "https" | "unix" | "unixs" => Ok(()),
        _ => Err(format!("URL scheme must be http, https, unix, or unixs: {url}")),
    }
}

fn parse(url: &str) -> Result<Parts<'_>, String> {
    if url.contains(|c: char| c.is_ascii_control()) {
        return Err("net/url: invalid control character in URL".to_owned());
    }
    let url = &url[..url.find(['?', '#']).unwrap_or(url.len())];
    let (scheme, rest) = match url.split_once(':') {
        Some(("", _)) => return Err("missing protocol scheme".to_owned()),
        Some((scheme, rest)) if is_scheme(scheme) => (scheme, rest),
        Some((first, _)) if !first.contains('/') => {
            return Err("first path segment in URL cannot contain colon".to_owned());
        }
        Some(_) | None => ("", url),
    };
    let (address, path) = match rest.strip_prefix("//") {
        Some(behind) => behind.split_at(behind.find('/').unwrap_or(behind.len())),
        None => ("", rest),
    };
    let address = address.rsplit_once('@').map_or(address, |(_user, address)| address);
    check_address(address)?;
    Ok(Parts { scheme, address, path })
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

/// Refuses what cannot stand between `//` and the path.
fn check_address(address: &str) -> Result<(), String> {
    let port = match address.rfind('[') {
        None => address.find(':').map_or("", |colon| &address[colon..]),
        Some(0) => match address.rfind(']') {
            None => return Err("missing ']' in host".to_owned()),
            Some(end) => &address[end + 1..],
        },
        Some(_) => return Err("invalid IP-literal".to_owned()),
    };
    let digits = port.strip_prefix(':');
    if !port.is_empty() && !digits.is_some_and(|all| all.bytes().all(|b| b.is_ascii_digit())) {
        return Err(format!("invalid port {port:?} after host"));
    }
    match address.chars().find(|c| matches!(c, ' ' | '\\' | '^' | '`' | '{' | '|' | '}')) {
        Some(bad) => Err(format!("invalid character {:?} in host name", bad.to_string())),
        None => Ok(()),
    }
}

/// Whether `address` is `host:port` or `[host]:port`; both parts may be empty.
fn has_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, _port)| match host.strip_prefix('[') {
        Some(inner) => inner.ends_with(']'),
        None => !host.contains([':', '[', ']']),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_member_may_be_reached_under() {
        for url in [
            "http://localhost:2380",
            " HTTPS://1.2.3.4:80 ",
            "http://[::1]:2380",
            "http://[fe80::1%25en0]:1",
            "http://:1",
            "http://a:",
            "http://a:99999",
            "http://u:p@a:1?x=1#f",
            "unix://tmp/etcd.sock",
            "unixs:localhost:0",
        ] {
            assert!(check(&[url.to_owned()]).is_ok(), "{url}");
        }
    }

    #[test]
    fn refusals_are_those_of_etcd() {
        const SCHEME: &str = "URL scheme must be http, https, unix, or unixs: ";
        const ADDRESS: &str = "URL address does not have the form \"host:port\": ";
        const PATH: &str = "URL must not contain a path: ";
        let refused = |url: &str| check(&["http://a:1".to_owned(), url.to_owned()]).unwrap_err();
        let cases: [(&str, &[&str]); 3] = [
            (SCHEME, &["", "foo", "localhost:2380", "ftp://a:1", "//a:1", "a/b:c", "a b"]),
            (ADDRESS, &["http:", "http://foo", "http:a:1", "http://[::1]", "http://a]:1"]),
            (PATH, &["http://a:1/", "https://a:1/x"]),
        ];
        for (reason, urls) in cases {
            for url in urls {
                assert_eq!(refused(url).to_string(), format!("{reason}{url}"));
            }
        }
        for (url, reason) in [
            (":1", "missing protocol scheme"),
            ("127.0.0.1:2380", "first path segment in URL cannot contain colon"),
            ("http://a:x", "invalid port \":x\" after host"),
            ("http://::1:2", "invalid port \"::1:2\" after host"),
            ("http://[::1]x:1", "invalid port \"x:1\" after host"),
            ("http://[::1:2", "missing ']' in host"),
            ("http://a[::1]:1", "invalid IP-literal"),
            ("http://a b:1", "invalid character \" \" in host name"),
            ("http://a\tb:1", "net/url: invalid control character in URL"),
        ] {
            assert_eq!(refused(url).to_string(), format!("parse {url:?}: {reason}"));
        }
        assert_eq!(check(&[]).unwrap_err().to_string(), "no valid URLs given");
    }
}
