//! The Auth service (`spec/grpc-api.md` §9), as far as it concerns a store where authentication is off: clients that are
//! given a user and a password connect to such a store, and so does everything that asks whether it is on. What would
//! change users, roles or the switch is not built yet.

use proto::etcdserverpb::{
    AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthStatusRequest,
    AuthStatusResponse, AuthenticateRequest,
};

use super::{Services, not_built};
use crate::grpc::error;
use crate::grpc::method::Method;
use crate::grpc::status::Status;
use crate::service::payload::Payload;

impl Services {
    /// Switching off what is off changes nothing.
    pub(super) async fn auth_disable(&self, _: AuthDisableRequest) -> Result<Payload, Status> {
        self.read_index().await?;
        let header = self.header(self.handle.reader().revision());
        Ok(Payload::of(&AuthDisableResponse { header: Some(header) }))
    }

    pub(super) async fn auth_status(&self, _: AuthStatusRequest) -> Result<Payload, Status> {
        self.read_index().await?;
        let reader = self.handle.reader();
        Ok(Payload::of(&AuthStatusResponse {
            header: Some(self.header(reader.revision())),
            enabled: false,
            auth_revision: reader.auth().revision,
        }))
    }

    /// Refuses to switch on what is not enforced.
    pub(super) async fn auth_enable(&self, _: AuthEnableRequest) -> Result<Payload, Status> {
        self.read_index().await?;
        if self.handle.reader().auth().has_root {
            return Err(not_built(Method::AuthEnable));
        }
        Err(error::ROOT_USER_NOT_EXIST)
    }

    /// Gives no token, which tells a client to go on without.
    pub(super) async fn authenticate(&self, _: AuthenticateRequest) -> Result<Payload, Status> {
        self.read_index().await?;
        Err(error::AUTH_NOT_ENABLED)
    }
}
