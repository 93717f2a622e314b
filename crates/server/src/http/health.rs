//! `/health`, `/livez` and `/readyz` (`spec/http-api.md` §3).

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use proto::etcdserverpb::{AlarmType, RangeRequest};

use super::body::Answer;
use crate::grpc::status::Status;
use crate::service::Services;

const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NO_SNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

/// One thing that can be wrong with a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

/// A path with its checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Live,
    Ready,
}

impl Endpoint {
    fn label(self) -> &'static str {
        match self {
            Self::Live => "livez",
            Self::Ready => "readyz",
        }
    }

    fn checks(self) -> &'static [Check] {
        match self {
            Self::Live => &[Check::SerializableRead],
            Self::Ready => &[
                Check::DataCorruption,
                Check::SerializableRead,
                Check::LinearizableRead,
                Check::NonLearner,
            ],
        }
    }
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    async fn run(self, services: &Services) -> Result<(), String> {
        let gate = services.handle().gate();
        match self {
            Self::DataCorruption if gate.is_corrupt() => Err("alarm activated: CORRUPT".into()),
            Self::NonLearner if gate.is_learner() => Err("not supported for learner".into()),
            Self::DataCorruption | Self::NonLearner => Ok(()),
            Self::SerializableRead => probe(services, true).await,
            Self::LinearizableRead => probe(services, false).await,
        }
    }
}

/// Reads one key without its value, whatever it is.
async fn probe(services: &Services, serializable: bool) -> Result<(), String> {
    let request = RangeRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        limit: 1,
        keys_only: true,
        serializable,
        ..RangeRequest::default()
    };
    match services.range(request).await {
        Ok(_payload) => Ok(()),
        Err(Status { message, .. }) => Err(message.into_owned()),
    }
}

/// Answers `/health`.
pub(super) async fn health(services: &Services, query: &str) -> Response<Answer> {
    let bad = is_unhealthy(services, query).await;
    services.metrics().health_checked(bad.is_none());
    let Some(reason) = bad else {
        let mut response =
            Response::new(Bytes::from_static(b"{\"health\":\"true\",\"reason\":\"\"}").into());
        response.headers_mut().insert(CONTENT_TYPE, PLAIN);
        return response;
    };
    tracing::warn!(reason, "serving /health false");
    let reason = serde_json::Value::from(reason);
    let body = format!("{{\"health\":\"false\",\"reason\":{reason}}}\n");
    text(StatusCode::SERVICE_UNAVAILABLE, body)
}

async fn is_unhealthy(services: &Services, query: &str) -> Option<String> {
    let mut excluded = parameters(query, "exclude");
    for alarm in services.handle().reader().alarms().iter() {
        let name = match alarm.alarm() {
            AlarmType::Nospace => "NOSPACE",
            AlarmType::Corrupt => "CORRUPT",
            AlarmType::None => "UNKNOWN",
        };
        if !excluded.any(|excluded| excluded == name) {
            return Some(format!("ALARM {name}"));
        }
    }
    let serializable = parameters(query, "serializable").next() == Some("true");
    if !serializable && services.handle().gate().leader() == 0 {
        return Some("RAFT NO LEADER".into());
    }
    probe(services, serializable).await.err().map(|error| format!("RANGE ERROR:{error}"))
}

/// Answers `/livez…` and `/readyz…`, or nothing if the path is neither.
pub(super) async fn checks(
    services: &Services,
    path: &str,
    query: &str,
) -> Option<Response<Answer>> {
    let (endpoint, rest) = if let Some(rest) = path.strip_prefix("/livez") {
        (Endpoint::Live, rest)
    } else {
        (Endpoint::Ready, path.strip_prefix("/readyz")?)
    };
    let chosen: Vec<Check> = match rest.strip_prefix('/') {
        None if rest.is_empty() => without_excluded(endpoint, query),
        Some("") => without_excluded(endpoint, query),
        Some(name) => {
            endpoint.checks().iter().copied().filter(|check| check.name() == name).collect()
        }
        None => return None,
    };
    if chosen.is_empty() && rest.len() > 1 {
        return None;
    }
    Some(run(services, endpoint, &chosen, parameters(query, "verbose").next().is_some()).await)
}

fn without_excluded(endpoint: Endpoint, query: &str) -> Vec<Check> {
    for name in parameters(query, "exclude") {
        if !endpoint.checks().iter().any(|check| check.name() == name) {
            tracing::warn!(name, "some health checks cannot be excluded");
        }
    }
    let is_excluded = |check: &Check| parameters(query, "exclude").any(|name| name == check.name());
    endpoint.checks().iter().copied().filter(|check| !is_excluded(check)).collect()
}

async fn run(
    services: &Services,
    endpoint: Endpoint,
    checks: &[Check],
    verbose: bool,
) -> Response<Answer> {
    let mut lines = String::new();
    let mut all_well = true;
    for check in checks {
        let result = check.run(services).await;
        services.metrics().check_ran(endpoint.label(), check.name(), result.is_ok());
        all_well &= result.is_ok();
        let line = match result {
            Ok(()) => writeln!(lines, "[+]{} ok", check.name()),
            Err(error) => writeln!(lines, "[-]{} failed: {error}", check.name()),
        };
        line.expect("a string takes all");
    }
    if !all_well {
        tracing::warn!(check = endpoint.label(), reason = %lines.trim_end(), "Health check error");
        return text(StatusCode::SERVICE_UNAVAILABLE, lines + "\n");
    }
    text(StatusCode::OK, if verbose { lines + "ok\n" } else { "ok\n".into() })
}

/// Makes a plain text response that browsers take for nothing else.
pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Answer> {
    let mut response = Response::new(Answer::from(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, PLAIN);
    response.headers_mut().insert(NO_SNIFF, HeaderValue::from_static("nosniff"));
    response
}

/// Values of a query parameter.
fn parameters<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_parameters_may_repeat_and_lack_values() {
        let query = "exclude=NOSPACE&verbose&exclude=CORRUPT&x=1";
        assert_eq!(parameters(query, "exclude").collect::<Vec<_>>(), ["NOSPACE", "CORRUPT"]);
        assert_eq!(parameters(query, "verbose").next(), Some(""));
        assert_eq!(parameters(query, "serializable").next(), None);
    }
}
