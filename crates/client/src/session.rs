//! A lease that lives as long as its owner: the ground of locks and elections.

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::{Client, Error};

/// The time to live where nothing else is said, in seconds.
const TTL: i64 = 60;

/// A lease kept alive until the session is closed or dropped.
#[derive(Debug)]
pub struct Session {
    client: Client,
    id: i64,
    lost: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Session {
    /// Grants a lease for `ttl` seconds, or for a minute, and keeps it alive.
    pub async fn open(client: &Client, ttl: Option<i64>) -> Result<Self, Error> {
        let id = client.lease_grant(ttl.unwrap_or(TTL)).await?.id;
        let (sender, lost) = watch::channel(false);
        let mut keep_alive = client.lease_keep_alive(id);
        let task = tokio::spawn(async move {
            while keep_alive.next().await.is_some() {}
            sender.send_replace(true);
        });
        Ok(Self { client: client.clone(), id, lost, task })
    }

    /// The lease's id.
    pub fn lease(&self) -> i64 {
        self.id
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Returns when the lease is lost.
    pub async fn lost(&self) {
        let mut lost = self.lost.clone();
        // A sender that is gone ended with its session: nothing is left to lose.
        if lost.wait_for(|lost| *lost).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}
