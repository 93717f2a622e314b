//! What a command needs once its own arguments are understood: a client and a printer.

use std::io::Write as _;

use client::{Client, Error};

use super::global::Settings;
use crate::command::Invocation;
use crate::exit::{BAD_ARGUMENTS, BAD_CONNECTION, BAD_FEATURE, ERROR, Failure};
use crate::printer::{self, Output, Printer};

/// The settings of one command's run.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) settings: Settings,
    pub(super) printer: Printer,
}

impl Context {
    pub(super) fn new(invocation: &Invocation) -> Result<Self, Failure> {
        let settings = Settings::new(invocation)?;
        let printer = settings.printer;
        Ok(Self { settings, printer })
    }

    /// A client of all endpoints, without a deadline.
    pub(super) async fn client(&self) -> Result<Client, Failure> {
        connect(self.settings.client.clone()).await
    }

    /// A client whose calls end with the command's timeout.
    pub(super) async fn hurried_client(&self) -> Result<Client, Failure> {
        Ok(self.client().await?.with_timeout(self.settings.command_timeout))
    }

    /// A client of one endpoint, whose calls end with the command's timeout.
    pub(super) async fn client_at(&self, endpoint: &str) -> Result<Client, Failure> {
        let mut config = self.settings.client.clone();
        config.endpoints = vec![endpoint.to_owned()];
        Ok(connect(config).await?.with_timeout(self.settings.command_timeout))
    }

    /// The endpoints given, or those of all members.
    pub(super) async fn endpoints(&self, of_cluster: bool) -> Result<Vec<String>, Failure> {
        if !of_cluster {
            return Ok(self.settings.client.endpoints.clone());
        }
        let client = self.client().await.map_err(|failure| Failure { code: ERROR, ..failure })?;
        let client = client.with_timeout(self.settings.command_timeout);
        let members = client.member_list(true).await.map_err(|error| {
            let what = "failed to fetch endpoints from etcd cluster member list";
            Failure::new(ERROR, format!("{what}: {error}"))
        })?;
        Ok(members.members.into_iter().flat_map(|member| member.client_urls).collect())
    }

    /// Shows an answer.
    pub(super) fn show(
        &self,
        how: impl FnOnce(Printer, &mut Output<'_>) -> Result<(), printer::Error>,
    ) -> Result<(), Failure> {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        let mut err = std::io::stderr().lock();
        match how(self.printer, &mut Output { out: &mut out, err: &mut err }) {
            Ok(()) => Ok(out.flush()?),
            Err(printer::Error::Output(error)) => Err(error.into()),
            Err(printer::Error::Unsupported(text)) => Err(Failure::new(BAD_FEATURE, text)),
        }
    }
}

/// Connects to a cluster.
pub(super) async fn connect(config: client::Config) -> Result<Client, Failure> {
    Client::connect(config).await.map_err(|error| {
        let code = match error {
            Error::CertificateWithoutKey { .. } | Error::TlsFile { .. } | Error::Tls(_) => {
                BAD_ARGUMENTS
            }
            _ => BAD_CONNECTION,
        };
        Failure::new(code, error)
    })
}
