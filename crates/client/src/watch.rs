//! Watchers that survive lost connections.
//!
//! All watchers of a [`WatchStream`] share one call. When it breaks they are created again, in their
//! order, from the revision after the last they saw. A watcher ends when the server cancels it, and all
//! end when trying again cannot help. A reader that is slow holds the call back: nothing grows meanwhile.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use proto::etcdserverpb::watch_request::RequestUnion;
use proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::client::Leader;
use crate::error::{COMPACTED, FUTURE_REVISION};
use crate::{Client, Error};

/// Responses that wait for the reader of one watcher.
const RESPONSES_MAX: usize = 16;
/// Requests that wait for the call.
const REQUESTS_MAX: usize = 16;
/// The watch id of responses that are for all watchers.
const EVERYONE: i64 = -1;
/// The pauses before the call is made again.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// A call that carries any number of watchers; it ends when stream and watchers are dropped.
#[derive(Debug, Clone)]
pub struct WatchStream {
    orders: mpsc::Sender<Order>,
}

/// One watcher's responses.
#[derive(Debug)]
pub struct Watcher {
    responses: mpsc::Receiver<Result<WatchResponse, Error>>,
    /// Keeps the call alive.
    _stream: WatchStream,
}

#[derive(Debug)]
enum Order {
    Create(Box<Subscription>),
    Progress,
}

/// What a watcher wants from here on, and where its responses go.
#[derive(Debug)]
struct Subscription {
    request: WatchCreateRequest,
    responses: mpsc::Sender<Result<WatchResponse, Error>>,
}

impl Client {
    /// A stream for watchers; its member must know a leader if `require_leader`.
    pub fn watch_stream(&self, require_leader: bool) -> WatchStream {
        let (sender, orders) = mpsc::channel(REQUESTS_MAX);
        let leader = if require_leader { Leader::Required } else { Leader::Optional };
        let task = Task {
            client: self.without_timeout(),
            leader,
            orders,
            waiting: VecDeque::new(),
            watching: HashMap::new(),
            fragments: HashMap::new(),
        };
        let _detached: JoinHandle<()> = tokio::spawn(task.run());
        WatchStream { orders: sender }
    }
}

impl WatchStream {
    /// Begins to watch. Errors come through the watcher.
    pub async fn create(&self, request: WatchCreateRequest) -> Watcher {
        let (responses, receiver) = mpsc::channel(RESPONSES_MAX);
        let subscription = Box::new(Subscription { request, responses });
        // A task that has ended drops the subscription, which ends the watcher.
        drop(self.orders.send(Order::Create(subscription)).await);
        Watcher { responses: receiver, _stream: self.clone() }
    }

    /// Asks for a progress notification to all watchers.
    pub async fn request_progress(&self) {
        // Nobody is left to be notified when the task has ended.
        drop(self.orders.send(Order::Progress).await);
    }
}

impl Watcher {
    /// The next response with events, progress or a cancellation; none after the last.
    ///
    /// A response that cancels is followed by nothing. An error says why the watcher ended.
    pub async fn next(&mut self) -> Option<Result<WatchResponse, Error>> {
        self.responses.recv().await
    }
}

impl Watcher {
    /// Why `response`, which cancels, was sent.
    pub fn cause(response: &WatchResponse) -> Error {
        if response.compact_revision != 0 {
            Error::refused(Code::OutOfRange, COMPACTED)
        } else if response.cancel_reason.is_empty() {
            Error::refused(Code::OutOfRange, FUTURE_REVISION)
        } else {
            Error::refused(Code::FailedPrecondition, &response.cancel_reason)
        }
    }
}

type Requests = mpsc::Sender<WatchRequest>;

struct Task {
    client: Client,
    leader: Leader,
    orders: mpsc::Receiver<Order>,
    /// Not yet created on this call; the first one's request is on its way.
    waiting: VecDeque<Subscription>,
    watching: HashMap<i64, Subscription>,
    /// Parts of responses whose rest is to come.
    fragments: HashMap<i64, WatchResponse>,
}

/// Why a call is over.
enum End {
    /// Nobody watches any more.
    Idle,
    /// The call broke.
    Broken(Error),
}

impl Task {
    async fn run(mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            let error = match self.call().await {
                Ok(End::Idle) => return,
                Ok(End::Broken(error)) => {
                    pause = PAUSE_MIN;
                    error
                }
                Err(error) => error,
            };
            self.rewind();
            if error.is_final() {
                self.end_all(&error).await;
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Makes the call and serves it until it ends.
    async fn call(&mut self) -> Result<End, Error> {
        self.client.renew_token().await?;
        let link = self.client.pick().await?;
        let (requests, outgoing) = mpsc::channel(REQUESTS_MAX);
        let request = self.client.request(ReceiverStream::new(outgoing), self.leader);
        let mut watch = self.client.watch(link.channel.clone());
        self.send_next(&requests).await;
        // The answer to the call may come no sooner than the first response: orders are taken meanwhile.
        let opening = watch.watch(request);
        tokio::pin!(opening);
        let mut responses = loop {
            tokio::select! {
                answer = &mut opening => {
                    let answer = answer.map_err(|status| self.client.failed(&link, &status))?;
                    break answer.into_inner();
                }
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order, &requests).await,
                    None => return Ok(End::Idle),
                },
            }
        };
        self.serve(&requests, &mut responses).await
    }

    async fn serve(
        &mut self,
        requests: &Requests,
        responses: &mut Streaming<WatchResponse>,
    ) -> Result<End, Error> {
        loop {
            tokio::select! {
                response = responses.message() => match response {
                    Ok(Some(response)) => self.take(response, requests).await,
                    Ok(None) => return Ok(End::Broken(Error::StreamEnded)),
                    Err(status) => return Ok(End::Broken(status.into())),
                },
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order, requests).await,
                    None => return Ok(End::Idle),
                },
            }
        }
    }

    async fn obey(&mut self, order: Order, requests: &Requests) {
        match order {
            Order::Create(subscription) => {
                self.waiting.push_back(*subscription);
                if self.waiting.len() == 1 {
                    self.send_next(requests).await;
                }
            }
            Order::Progress => {
                let request = RequestUnion::ProgressRequest(WatchProgressRequest {});
                send(requests, request).await;
            }
        }
    }

    async fn send_next(&self, requests: &Requests) {
        if let Some(next) = self.waiting.front() {
            send(requests, RequestUnion::CreateRequest(next.request.clone())).await;
        }
    }

    async fn take(&mut self, response: WatchResponse, requests: &Requests) {
        let id = response.watch_id;
        if response.created {
            self.created(response).await;
            self.send_next(requests).await;
        } else if response.canceled {
            self.fragments.remove(&id);
            if let Some(subscription) = self.watching.remove(&id) {
                // The reader may have gone: then nobody needs to know.
                drop(subscription.responses.send(Ok(response)).await);
            }
        } else if response.fragment || self.fragments.contains_key(&id) {
            let rest = response.fragment;
            let whole = match self.fragments.remove(&id) {
                Some(mut whole) => {
                    whole.events.extend(response.events);
                    whole
                }
                None => response,
            };
            if rest {
                self.fragments.insert(id, whole);
            } else {
                let whole = WatchResponse { fragment: false, ..whole };
                self.deliver(id, whole, requests).await;
            }
        } else if id == EVERYONE {
            let ids: Vec<i64> = self.watching.keys().copied().collect();
            for id in ids {
                self.deliver(id, response.clone(), requests).await;
            }
        } else {
            self.deliver(id, response, requests).await;
        }
    }

    async fn created(&mut self, response: WatchResponse) {
        let Some(mut subscription) = self.waiting.pop_front() else { return };
        if response.watch_id == EVERYONE || response.canceled && !response.cancel_reason.is_empty()
        {
            let refused = Error::WatchCanceled(response.cancel_reason);
            drop(subscription.responses.send(Err(refused)).await);
            return;
        }
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        if subscription.request.start_revision == 0 {
            subscription.request.start_revision = revision + 1;
        }
        self.watching.insert(response.watch_id, subscription);
    }

    async fn deliver(&mut self, id: i64, response: WatchResponse, requests: &Requests) {
        if let Some(subscription) = self.watching.get_mut(&id) {
            let revision = response.header.as_ref().map_or(0, |header| header.revision);
            let last = response.events.last().and_then(|event| event.kv.as_ref());
            let seen = last.map_or(revision, |kv| kv.mod_revision);
            let start = &mut subscription.request.start_revision;
            *start = (*start).max(seen + 1);
            if subscription.responses.send(Ok(response)).await.is_ok() {
                return;
            }
            self.watching.remove(&id);
        }
        let cancel = RequestUnion::CancelRequest(WatchCancelRequest { watch_id: id });
        send(requests, cancel).await;
    }

    /// Queues all watchers to be created again.
    fn rewind(&mut self) {
        self.fragments.clear();
        let mut standing: Vec<_> = self.watching.drain().collect();
        standing.sort_by_key(|(id, _)| *id);
        for (_, subscription) in standing.into_iter().rev() {
            if !subscription.responses.is_closed() {
                self.waiting.push_front(subscription);
            }
        }
    }

    async fn end_all(&mut self, error: &Error) {
        for subscription in self.waiting.drain(..) {
            let cause = match error {
                Error::Refused { code, text } => Error::refused(*code, text),
                other => Error::WatchCanceled(other.to_string()),
            };
            drop(subscription.responses.send(Err(cause)).await);
        }
    }
}

/// Sends a request on the call; when that has ended, its end is seen at the responses.
async fn send(requests: &Requests, request: RequestUnion) {
    drop(requests.send(WatchRequest { request_union: Some(request) }).await);
}
