//! The standard gRPC health service (`spec/grpc-api.md` §11): the server as a whole is `""`.

use std::collections::HashMap;

use proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListResponse, health_check_response,
};

use super::Services;
use super::payload::Payload;
use super::stream::Outbound;
use crate::grpc::error;
use crate::grpc::status::Status;

/// Answers `Check`.
pub(super) fn check(request: &HealthCheckRequest) -> Result<Payload, Status> {
    if !request.service.is_empty() {
        return Err(error::UNKNOWN_HEALTH_SERVICE);
    }
    Ok(Payload::of(&serving(health_check_response::ServingStatus::Serving)))
}

/// Answers `List`.
pub(super) fn list() -> Payload {
    let overall = serving(health_check_response::ServingStatus::Serving);
    Payload::of(&HealthListResponse { statuses: HashMap::from([(String::new(), overall)]) })
}

impl Services {
    /// Sends the status once, and again if it changes: it does not as long as the port is served.
    pub(super) async fn health_watch(
        &self,
        request: &HealthCheckRequest,
        out: &mut impl Outbound,
    ) -> Result<(), Status> {
        let status = if request.service.is_empty() {
            health_check_response::ServingStatus::Serving
        } else {
            health_check_response::ServingStatus::ServiceUnknown
        };
        if out.send(Payload::of(&serving(status))).await.is_ok() {
            out.gone().await;
        }
        Err(error::CANCELED)
    }
}

fn serving(status: health_check_response::ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
