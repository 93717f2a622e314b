//! Endpoints as users write them: `host:port`, `http(s)://host:port`, `unix(s):path`.

use http::Uri;

use crate::Error;

/// Whether an endpoint speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Security {
    /// `http://`: never.
    Never,
    /// No scheme, or `unix:`: when the client is configured for it.
    Optional,
    /// `https://`, `unixs:`: always.
    Always,
}

/// Where an endpoint listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// `host:port`, resolved when connecting.
    Tcp(String),
    /// A path in the file system.
    Unix(String),
}

/// An endpoint, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// As the user wrote it.
    pub(crate) text: String,
    pub(crate) address: Address,
    pub(crate) security: Security,
    /// What a certificate must be for, and the authority of requests.
    pub(crate) server_name: String,
    pub(crate) authority: String,
}

impl Endpoint {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::unix(text, path, Security::Optional));
        }
        if let Some(path) = text.strip_prefix("unixs:") {
            return Ok(Self::unix(text, path, Security::Always));
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme, rest),
            None => ("", text),
        };
        let security = match scheme {
            "http" => Security::Never,
            "https" => Security::Always,
            _ => Security::Optional,
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let wrong =
            |reason: &str| Error::Endpoint { endpoint: text.to_owned(), reason: reason.to_owned() };
        let parsed: http::uri::Authority =
            authority.parse().map_err(|error: http::uri::InvalidUri| wrong(&error.to_string()))?;
        let default_port = if security == Security::Always { 443 } else { 80 };
        let port = parsed.port_u16().unwrap_or(default_port);
        // A literal IPv6 address keeps its brackets in an address, not in a certificate's name.
        let host = parsed.host();
        Ok(Self {
            text: text.to_owned(),
            address: Address::Tcp(format!("{host}:{port}")),
            security,
            server_name: host.trim_matches(['[', ']']).to_owned(),
            authority: authority.to_owned(),
        })
    }

    /// `unix://relative` and `unix:///absolute` both name what follows `//`.
    fn unix(text: &str, rest: &str, security: Security) -> Self {
        let path = rest.strip_prefix("//").unwrap_or(rest);
        let name = path.rsplit('/').next().unwrap_or(path);
        let server_name = name.split(':').next().unwrap_or(name).to_owned();
        Self {
            text: text.to_owned(),
            address: Address::Unix(path.to_owned()),
            security,
            server_name,
            // Requests need an authority, and a path is none.
            authority: "localhost".to_owned(),
        }
    }

    /// The URI that requests bear.
    pub(crate) fn uri(&self, secure: bool) -> Result<Uri, Error> {
        let scheme = if secure { "https" } else { "http" };
        Uri::builder()
            .scheme(scheme)
            .authority(self.authority.as_str())
            .path_and_query("/")
            .build()
            .map_err(|error| Error::Endpoint {
                endpoint: self.text.clone(),
                reason: error.to_string(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, address: Address, security: Security, server_name: &str) {
        let endpoint = Endpoint::parse(text).unwrap();
        assert_eq!(
            (endpoint.address, endpoint.security, endpoint.server_name.as_str()),
            (address, security, server_name),
            "{text}"
        );
    }

    #[test]
    fn forms_of_an_endpoint() {
        let tcp = |text: &str| Address::Tcp(text.to_owned());
        let unix = |text: &str| Address::Unix(text.to_owned());
        check("127.0.0.1:2379", tcp("127.0.0.1:2379"), Security::Optional, "127.0.0.1");
        check("http://a:1/", tcp("a:1"), Security::Never, "a");
        check("https://a.example", tcp("a.example:443"), Security::Always, "a.example");
        check("https://[::1]:2379", tcp("[::1]:2379"), Security::Always, "::1");
        check("unix:///run/etcd.sock", unix("/run/etcd.sock"), Security::Optional, "etcd.sock");
        check("unixs://local:0", unix("local:0"), Security::Always, "local");
        check("unix:local:0", unix("local:0"), Security::Optional, "local");
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Endpoint::parse("http://a b").is_err());
        assert!(Endpoint::parse("").is_err());
    }
}
