//! A lease kept alive until it ends.

use std::time::Duration;

use proto::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::client::Leader;
use crate::{Client, Error};

/// Between two looks at whether a renewal is due, and before a new stream.
const PAUSE: Duration = Duration::from_millis(500);
/// Answers that wait for the reader; further ones are dropped, the lease lives on.
const ANSWERS_MAX: usize = 16;

/// Renews one lease at a third of its time, over new connections where old ones fail.
#[derive(Debug)]
pub struct KeepAlive {
    answers: mpsc::Receiver<LeaseKeepAliveResponse>,
    task: JoinHandle<()>,
}

impl KeepAlive {
    /// The next renewal; none when the lease has ended or could not be renewed in time.
    pub async fn next(&mut self) -> Option<LeaseKeepAliveResponse> {
        self.answers.recv().await
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    /// Keeps a lease alive from now until the result is dropped or the lease ends.
    pub fn lease_keep_alive(&self, id: i64) -> KeepAlive {
        let (sender, answers) = mpsc::channel(ANSWERS_MAX);
        let renewal = Renewal {
            client: self.without_timeout(),
            id,
            deadline: Instant::now() + self.dial_timeout() + Duration::from_secs(1),
            due: Instant::now(),
            answers: sender,
        };
        KeepAlive { answers, task: tokio::spawn(renewal.run()) }
    }
}

/// The state of one lease's renewal.
struct Renewal {
    client: Client,
    id: i64,
    /// The lease is taken for lost when this passes without an answer.
    deadline: Instant,
    /// When the next request is to be sent.
    due: Instant,
    answers: mpsc::Sender<LeaseKeepAliveResponse>,
}

impl Renewal {
    async fn run(mut self) {
        loop {
            let lives = async {
                let (requests, answers) = self.open().await?;
                Ok::<_, Error>((requests, answers))
            };
            match tokio::time::timeout_at(self.deadline, lives).await {
                Err(_late) => return,
                Ok(Ok((requests, answers))) => {
                    if self.renew(&requests, answers).await.is_break() {
                        return;
                    }
                }
                Ok(Err(error)) => {
                    tracing::warn!(
                        target: "etcd-client", %error,
                        "error occurred during lease keep alive loop"
                    );
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn open(
        &self,
    ) -> Result<(mpsc::Sender<LeaseKeepAliveRequest>, Streaming<LeaseKeepAliveResponse>), Error>
    {
        self.client.renew_token().await?;
        let link = self.client.pick().await?;
        let (requests, outgoing) = mpsc::channel(1);
        // The first request goes along: a member may not answer the call before it has one.
        let first = LeaseKeepAliveRequest { id: self.id };
        let queued = requests.try_send(first);
        debug_assert!(queued.is_ok(), "an empty queue of one takes one request");
        let request = self.client.request(ReceiverStream::new(outgoing), Leader::Required);
        let mut lease = self.client.lease(link.channel.clone());
        let answer = lease.lease_keep_alive(request).await;
        let answers = answer.map_err(|status| self.client.failed(&link, &status))?.into_inner();
        Ok((requests, answers))
    }

    /// Renews over one stream; breaks when the lease is over or nobody listens.
    async fn renew(
        &mut self,
        requests: &mpsc::Sender<LeaseKeepAliveRequest>,
        mut answers: Streaming<LeaseKeepAliveResponse>,
    ) -> std::ops::ControlFlow<()> {
        use std::ops::ControlFlow::{Break, Continue};
        let mut sent = true;
        loop {
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(answer)) if answer.ttl <= 0 => return Break(()),
                    Ok(Some(answer)) => {
                        let ttl = Duration::from_secs(answer.ttl.unsigned_abs());
                        let now = Instant::now();
                        self.due = now + ttl / 3;
                        self.deadline = now + ttl;
                        sent = false;
                        if let Err(mpsc::error::TrySendError::Closed(_)) =
                            self.answers.try_send(answer)
                        {
                            return Break(());
                        }
                    }
                    Ok(None) | Err(_) => return Continue(()),
                },
                () = tokio::time::sleep_until(self.due), if !sent => {
                    if requests.send(LeaseKeepAliveRequest { id: self.id }).await.is_err() {
                        return Continue(());
                    }
                    sent = true;
                }
                () = tokio::time::sleep_until(self.deadline) => return Break(()),
            }
        }
    }
}
