//! Who may ask: host names and origins (`spec/http-api.md` §1.3).

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, HOST,
    HeaderMap, HeaderValue, ORIGIN,
};

/// A list of names in which `*`, or emptiness, stands for all.
#[derive(Debug, Clone, Default)]
pub struct Names {
    names: Vec<String>,
}

impl Names {
    /// Takes the names of a flag.
    pub fn new(names: Vec<String>) -> Self {
        Self { names }
    }

    fn allows_all(&self) -> bool {
        self.names.is_empty() || self.names.iter().any(|name| name == "*")
    }

    fn contains(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }
}

/// Whether the `Host` of a plain-text request is one of `allowed`; if not, the text of the refusal. Guards browsers
/// against DNS rebinding.
pub fn check_host(headers: &HeaderMap, allowed: &Names) -> Result<(), String> {
    if allowed.allows_all() {
        return Ok(());
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let host = without_port(host);
    if allowed.contains(host) {
        return Ok(());
    }
    Err(format!(
        "\netcd received your request, but the Host header was unrecognized.\n\n\
         To fix this, choose one of the following options:\n\
         - Enable TLS, then any HTTPS request will be allowed.\n\
         - Add the hostname you want to use to the whitelist, e.g. if hostname is {host:?}, \
         add '--host-whitelist {host:?}' as an etcd flag.\n"
    ))
}

fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map_or(host, |(address, _)| address);
    }
    host.split_once(':').map_or(host, |(name, _)| name)
}

/// Adds the CORS headers that a browser from `request`'s origin needs.
pub fn add_cors(request: &HeaderMap, allowed: &Names, response: &mut HeaderMap) {
    let origin = if allowed.allows_all() {
        Some(HeaderValue::from_static("*"))
    } else {
        request
            .get(ORIGIN)
            .filter(|origin| origin.to_str().is_ok_and(|origin| allowed.contains(origin)))
            .cloned()
    };
    let Some(origin) = origin else { return };
    response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    response.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE"),
    );
    response.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("accept, content-type, authorization"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: http::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn hosts_are_compared_without_port() {
        let allowed = Names::new(vec!["example.com".into(), "::1".into()]);
        assert_eq!(check_host(&headers(HOST, "example.com:2379"), &allowed), Ok(()));
        assert_eq!(check_host(&headers(HOST, "[::1]:2379"), &allowed), Ok(()));
        assert!(check_host(&headers(HOST, "evil.example"), &allowed).is_err());
        assert!(check_host(&HeaderMap::new(), &allowed).is_err());
        assert_eq!(check_host(&HeaderMap::new(), &Names::new(vec!["*".into()])), Ok(()));
    }

    #[test]
    fn origins_are_allowed_by_list() {
        let allow = |names: &[&str], origin| {
            let names = Names::new(names.iter().map(|name| (*name).to_owned()).collect());
            let mut response = HeaderMap::new();
            add_cors(&headers(ORIGIN, origin), &names, &mut response);
            response.get(ACCESS_CONTROL_ALLOW_ORIGIN).map(|value| value.as_bytes().to_vec())
        };
        assert_eq!(allow(&[], "http://a"), Some(b"*".to_vec()));
        assert_eq!(allow(&["http://a"], "http://a"), Some(b"http://a".to_vec()));
        assert_eq!(allow(&["http://a"], "http://b"), None);
    }
}
