//! All other members, as far as messages go: which way each message takes, and who is there to take it.
//!
//! Follows the membership as it is applied here. Belongs to the peer thread; what is shared is shared among its tasks.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use machine::Reader;
use machine::membership::Membership;
use node::Event;
use proto::raftpb::{self, MessageType};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::admission::{Introduced, Own, Standing, Word};
use super::codec::Kind;
use super::inflow::Inflow;
use super::link::Link;
use super::outbox::Post;
use super::pipeline::{Pipeline, Settings};
use super::probe;
use super::snapshot::Sending;
use super::stream;
use super::urls::Urls;
use crate::config::GoDuration;
use crate::metrics::PeerFigures;
use crate::workers::Workers;

/// Senders that are no members here and can be answered by posts. One more takes the place of the first.
const REMOTES_MAX: usize = 64;

/// The transport of this member.
#[derive(Debug)]
pub struct Transport {
    own: Own,
    reader: Reader,
    long_work: Workers,
    inflow: Inflow,
    settings: Rc<Settings>,
    /// The members that were there when this one came to join them, and their peer URLs.
    neighbours: Vec<Neighbour>,
    state: RefCell<State>,
}

/// A member of the cluster that this one joins: its id and its peer URLs.
pub type Neighbour = (u64, Vec<String>);

#[derive(Debug, Default)]
struct State {
    /// When the last heartbeat left, and in which term, by its receiver.
    heartbeats: BTreeMap<u64, (u64, Instant)>,
    /// The membership that `peers` follows.
    seen: Option<Arc<Membership>>,
    peers: BTreeMap<u64, Peer>,
    /// Ids of `remotes` in the order in which they came.
    order: Vec<u64>,
    remotes: BTreeMap<u64, Pipeline>,
    /// Streams in whose place others came, on their way out.
    ending: Vec<stream::Sender>,
}

/// A member that is not this one.
#[derive(Debug)]
struct Peer {
    urls: Rc<Urls>,
    figures: Arc<PeerFigures>,
    /// Streams that it has asked for.
    streams: BTreeMap<Kind, stream::Sender>,
    pipeline: Pipeline,
    /// Tasks that read its streams, and the one that probes it.
    links: Vec<AbortHandle>,
    /// The task that sends it a snapshot; raft has one on its way to each follower at most.
    sending: Option<AbortHandle>,
}

impl Transport {
    /// Makes the transport of a member; [`Transport::follow`] connects it. `neighbours` are taken for members until this
    /// member has learned that it is one itself: before, the log or a snapshot has to come from them.
    pub fn new(
        own: Own,
        reader: Reader,
        long_work: Workers,
        inflow: Inflow,
        settings: Settings,
        neighbours: Vec<Neighbour>,
    ) -> Self {
        let (settings, state) = (Rc::new(settings), RefCell::default());
        Self { own, reader, long_work, inflow, settings, neighbours, state }
    }

    /// Who this member is.
    pub fn own(&self) -> Own {
        self.own
    }

    /// The way to the node.
    pub fn inflow(&self) -> &Inflow {
        &self.inflow
    }

    /// Tells whether there is anybody to talk to.
    pub fn has_peers(&self) -> bool {
        !self.state.borrow().peers.is_empty()
    }

    /// How requests to members are made.
    pub fn settings(&self) -> &Rc<Settings> {
        &self.settings
    }

    /// The membership as applied here.
    pub fn membership(&self) -> Arc<Membership> {
        self.reader.membership()
    }

    /// Tells what is known of a member.
    pub fn standing(&self, id: u64) -> Standing {
        self.follow();
        if self.state.borrow().peers.contains_key(&id) {
            Standing::Peer
        } else if self.membership().is_removed(id) {
            Standing::Removed
        } else {
            Standing::Unknown
        }
    }

    /// Connects to members that have come, forgets those that have gone.
    pub fn follow(&self) {
        let membership = self.reader.membership();
        self.connect_to_new(&membership);
        self.forget_gone(membership);
    }

    /// The members that were there before, as long as this one does not know that it belongs to them.
    fn neighbours_of(&self, membership: &Membership) -> &[Neighbour] {
        let is_joining = membership.member(self.own.member).is_none();
        if is_joining { &self.neighbours } else { &[] }
    }

    fn connect_to_new(&self, membership: &Arc<Membership>) {
        let mut state = self.state.borrow_mut();
        if state.has_seen(membership) {
            return;
        }
        let neighbours = self
            .neighbours_of(membership)
            .iter()
            .filter(|(id, _)| membership.member(*id).is_none() && !membership.is_removed(*id));
        let members = membership.members().map(|member| (member.id, &member.peer_urls));
        let all = members.chain(neighbours.map(|(id, urls)| (*id, urls)));
        for (id, texts) in all.filter(|(id, _)| *id != self.own.member) {
            let urls = Urls::parse(texts);
            if let Some(peer) = state.peers.get(&id) {
                peer.urls.replace(urls);
                continue;
            }
            let urls_told = texts.join(",");
            tracing::info!(peer = format!("{id:x}"), urls = urls_told, "added remote peer");
            let peer = self.connect(id, urls);
            state.peers.insert(id, peer);
        }
    }

    fn forget_gone(&self, membership: Arc<Membership>) {
        let mut state = self.state.borrow_mut();
        if state.has_seen(&membership) {
            return;
        }
        let neighbours = self.neighbours_of(&membership);
        let is_gone = |id: u64| {
            membership.member(id).is_none()
                && (membership.is_removed(id) || neighbours.iter().all(|(known, _)| *known != id))
        };
        let State { peers, heartbeats, ending, .. } = &mut *state;
        for (id, mut peer) in peers.extract_if(.., |id, _| is_gone(*id)) {
            for stream in std::mem::take(&mut peer.streams).into_values() {
                stream.end(Instant::now());
                ending.push(stream);
            }
            if peer.sending.as_ref().is_some_and(|sending| !sending.is_finished()) {
                // It ends with the peer, and would never be reported.
                self.give_up_snapshot(id);
            }
            peer.forget();
            heartbeats.remove(&id);
            self.inflow.down(id, &"it is no member any more");
        }
        state.seen = Some(membership);
    }

    fn connect(&self, id: u64, urls: Vec<crate::config::Url>) -> Peer {
        let urls = Rc::new(Urls::new(urls));
        let figures = self.inflow.network().member(id);
        let links = Kind::ALL.into_iter().map(|kind| {
            let link = Link {
                peer: id,
                own: self.own.member,
                kind,
                urls: Rc::clone(&urls),
                settings: Rc::clone(&self.settings),
                inflow: self.inflow.clone(),
                figures: Arc::clone(&figures),
            };
            tokio::task::spawn_local(link.run()).abort_handle()
        });
        let mut links: Vec<AbortHandle> = links.collect();
        let probe =
            probe::run(id, Rc::clone(&urls), Rc::clone(&self.settings), Arc::clone(&figures));
        links.push(tokio::task::spawn_local(probe).abort_handle());
        let pipeline = self.pipeline((id, Word::Member), &urls, Arc::clone(&figures));
        Peer { urls, figures, streams: BTreeMap::new(), pipeline, links, sending: None }
    }

    fn pipeline(
        &self,
        receiver: (u64, Word),
        urls: &Rc<Urls>,
        figures: Arc<PeerFigures>,
    ) -> Pipeline {
        let (urls, settings) = (Rc::clone(urls), Rc::clone(&self.settings));
        Pipeline::new(receiver, urls, settings, self.inflow.clone(), figures)
    }

    /// Remembers where a sender that is no member here can be answered: it may have been added by an entry that has not
    /// been applied here yet.
    pub fn introduce(&self, introduced: Introduced) {
        let Introduced { id, urls } = introduced;
        let mut state = self.state.borrow_mut();
        let is_known = id == self.own.member
            || state.peers.contains_key(&id)
            || state.remotes.contains_key(&id);
        if is_known {
            return;
        }
        if state.order.len() == REMOTES_MAX {
            let first = state.order.remove(0);
            state.remotes.remove(&first);
            if !state.peers.contains_key(&first) {
                self.inflow.down(first, &"others have come meanwhile");
            }
        }
        tracing::info!(remote = format!("{id:x}"), "added remote peer that is no member here yet");
        // Nobody scrapes what is counted of it: see `NetworkFigures`.
        let word = Word::Stranger { reader: self.reader.clone(), own: self.own.member };
        let remote = self.pipeline((id, word), &Rc::new(Urls::new(urls)), Arc::default());
        state.order.push(id);
        state.remotes.insert(id, remote);
    }

    /// Begins the stream that a peer has asked for, in place of the one it may have. `None` if it is no peer any more.
    pub fn attach(&self, peer: u64, kind: Kind, cut: Rc<Notify>) -> Option<stream::Body> {
        let mut state = self.state.borrow_mut();
        let peer = state.peers.get_mut(&peer)?;
        let (sender, body) = stream::channel(kind, cut, Arc::clone(&peer.figures));
        if let Some(former) = peer.streams.insert(kind, sender) {
            former.end(Instant::now());
            state.ending.push(former);
        }
        Some(body)
    }

    /// Sends what the node has put into the outbox.
    pub fn send(&self, post: Post) {
        let membership = self.reader.membership();
        self.connect_to_new(&membership);
        let mut lost = post.lost;
        post.lost_snapshots.into_iter().for_each(|peer| self.give_up_snapshot(peer));
        let mut state = self.state.borrow_mut();
        for message in &post.messages {
            if message.r#type() == MessageType::MsgHeartbeat {
                state.watch_heartbeat(message, self.settings.heartbeat_interval, &self.inflow);
            }
        }
        for message in post.messages {
            let to = message.to;
            if message.r#type() == MessageType::MsgSnap {
                self.send_snapshot(&mut state, message);
                continue;
            }
            let is_sent = match state.peers.get(&to) {
                Some(peer) => peer.send(message),
                None => state.remotes.get(&to).is_some_and(|remote| remote.send(message)),
            };
            if !is_sent {
                lost.insert(to);
            }
        }
        drop(state);
        self.report(lost);
        // Only now: the last message to a member that was removed tells it so.
        self.forget_gone(membership);
    }

    /// Sends a snapshot; raft has one on its way to each follower at most.
    fn send_snapshot(&self, state: &mut State, message: raftpb::Message) {
        let Some(peer) = state.peers.get_mut(&message.to) else {
            self.give_up_snapshot(message.to);
            return;
        };
        let sending = Sending {
            urls: Rc::clone(&peer.urls),
            settings: Rc::clone(&self.settings),
            inflow: self.inflow.clone(),
            reader: self.reader.clone(),
            long_work: self.long_work.clone(),
            figures: Arc::clone(&peer.figures),
        };
        let sending = tokio::task::spawn_local(sending.run(message)).abort_handle();
        // One that is under way is of an earlier term: raft has forgotten it.
        if let Some(former) = peer.sending.replace(sending) {
            former.abort();
        }
    }

    /// Tells raft, which waits for the end of each snapshot, that one does not leave.
    fn give_up_snapshot(&self, peer: u64) {
        let inflow = self.inflow.clone();
        tokio::task::spawn_local(async move {
            inflow.send(Event::SnapshotSent { peer, is_done: false }).await;
        });
    }

    fn report(&self, lost: BTreeSet<u64>) {
        for peer in lost {
            if let Some(figures) = self.inflow.network().known(peer) {
                figures.sent_failed();
            }
            self.inflow.unreachable(peer);
        }
    }

    /// Shows peers that the streams to them are alive, and cuts those that nobody reads.
    pub fn beat(&self, now: Instant) {
        self.follow();
        let mut state = self.state.borrow_mut();
        for peer in state.peers.values_mut() {
            peer.streams.retain(|_, stream| stream.beat(now));
        }
        state.ending.retain(|stream| stream.wind_down(now));
    }
}

impl State {
    /// Tells whether `membership` is the one that was followed last.
    fn has_seen(&self, membership: &Arc<Membership>) -> bool {
        self.seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, membership))
    }

    /// Tells of a heartbeat that leaves late: its receiver may already think that nobody leads.
    fn watch_heartbeat(&mut self, message: &raftpb::Message, interval: Duration, inflow: &Inflow) {
        let now = Instant::now();
        let last = self.heartbeats.insert(message.to, (message.term, now));
        let Some((_, last)) = last.filter(|(term, _)| *term == message.term) else { return };
        let Some(exceeded) = now.duration_since(last).checked_sub(2 * interval) else { return };
        inflow.network().late_heartbeat();
        tracing::warn!(
            to = format!("{:x}", message.to),
            heartbeat_interval = %GoDuration::from(interval),
            expected_duration = %GoDuration::from(2 * interval),
            exceeded_duration = %GoDuration::from(exceeded),
            "leader failed to send out heartbeat on time; took too long, leader is overloaded likely from slow disk"
        );
    }
}

impl Peer {
    /// Ends what is done for it; posts have a moment more.
    fn forget(self) {
        self.links.iter().chain(&self.sending).for_each(AbortHandle::abort);
        self.pipeline.wind_down();
    }

    /// Sends a message the best way there is (`spec/peer-protocol.md` §6.1); false when it is lost.
    fn send(&self, message: raftpb::Message) -> bool {
        let is_append = message.r#type() == MessageType::MsgApp;
        let kinds: &[Kind] = if is_append { &Kind::ALL } else { &[Kind::Message] };
        let mut streams = kinds.iter().filter_map(|kind| self.streams.get(kind));
        match streams.find(|stream| stream.is_attached()) {
            Some(stream) => stream.send(&message),
            None => self.pipeline.send(message),
        }
    }
}
