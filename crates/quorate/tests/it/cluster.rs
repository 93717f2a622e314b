//! Members of one cluster, as processes on one machine: what one acknowledges, all have; any one may go; members come and
//! leave while the others serve.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proto::etcdserverpb::{
    HashKvRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseTimeToLiveRequest, Member,
    MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
    MoveLeaderRequest, PutRequest, StatusRequest, WatchCreateRequest, WatchRequest, watch_request,
};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_stream::StreamExt as _;
use tonic::{Code, Response, Status};

use crate::client::{Client, in_time};
use crate::harness::{PATIENCE, Server, Setup, steady_port};
use crate::http1::exchange;

/// Time between two looks.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// One member, whether it runs or not.
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) client: String,
    pub(crate) peer: String,
    pub(crate) flags: Vec<String>,
    pub(crate) server: Option<Server>,
}

/// Members of one cluster; their data outlives them.
pub(crate) struct Cluster {
    directory: TempDir,
    pub(crate) places: Vec<Place>,
}

impl Cluster {
    /// Starts a cluster of `count`.
    pub(crate) async fn start(count: usize) -> Self {
        let mut cluster = Self::planned(count);
        cluster.run_all();
        cluster.wait_for_leader().await;
        cluster
    }

    /// Like [`Self::start`], with members that keep so little of the log that whoever is away for long needs a snapshot.
    pub(crate) async fn start_forgetful(count: usize) -> Self {
        let mut cluster = Self::planned(count);
        for place in &mut cluster.places {
            let flags = ["--snapshot-count=10", "--snapshot-catchup-entries=5"];
            place.flags = flags.map(str::to_owned).into();
        }
        cluster.run_all();
        cluster.wait_for_leader().await;
        cluster
    }

    pub(crate) fn planned(count: usize) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let places = (0..count).map(Place::new).collect();
        Self { directory, places }
    }

    pub(crate) fn run_all(&mut self) {
        let all = self.list(self.places.len());
        for number in 0..self.places.len() {
            self.run(number, &all, "new");
        }
        for place in &self.places {
            assert!(place.server.as_ref().expect("it runs").serves(), "{}", place.name);
        }
    }

    /// Where a member's data is.
    pub(crate) fn data(&self, number: usize) -> PathBuf {
        self.directory.path().join(number.to_string())
    }

    /// Ends a member in order.
    pub(crate) fn stop(&mut self, number: usize) {
        let mut server = self.places[number].server.take().expect("it runs");
        server.signal(Signal::TERM);
        server.wait();
    }

    /// The id of a member that is in the cluster.
    pub(crate) async fn id(&self, number: usize) -> u64 {
        let status = self.client(number).await.maintenance().status(StatusRequest {}).await;
        status.expect("it serves").into_inner().header.expect("always there").member_id
    }

    /// `--initial-cluster` of the first `count`.
    pub(crate) fn list(&self, count: usize) -> String {
        let members = self.places[..count].iter();
        let members: Vec<_> =
            members.map(|place| format!("{}={}", place.name, place.peer)).collect();
        members.join(",")
    }

    /// Starts a member without waiting for it.
    pub(crate) fn run(&mut self, number: usize, members: &str, state: &str) {
        let data = self.data(number);
        let place = &mut self.places[number];
        place.server = Some(place.setup(&data, members, state).spawn());
    }

    /// Starts a member that was there before.
    pub(crate) fn rerun(&mut self, number: usize) {
        let members = self.list(1);
        self.run(number, &members, "new");
        assert!(self.places[number].server.as_ref().expect("it runs").serves());
    }

    pub(crate) fn kill(&mut self, number: usize) {
        self.places[number].server.take().expect("it runs").kill();
    }

    pub(crate) async fn client(&self, number: usize) -> Client {
        Client::connect_to(&self.places[number].client).await
    }

    fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.places.len()).filter(|number| self.places[*number].server.is_some())
    }

    /// Waits until those that run agree on a leader among them; returns its number.
    pub(crate) async fn wait_for_leader(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(leader) = self.leader().await {
                return leader;
            }
            assert!(Instant::now() < deadline, "no leader");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn leader(&self) -> Option<usize> {
        let mut leaders = Vec::new();
        let mut ids = Vec::new();
        for number in self.running() {
            let status = self.client(number).await.maintenance().status(StatusRequest {}).await;
            let status = status.ok()?.into_inner();
            ids.push((status.header?.member_id, number));
            leaders.push(status.leader);
        }
        leaders.dedup();
        let [leader] = leaders[..] else { return None };
        ids.into_iter().find(|(id, _)| *id == leader).map(|(_, number)| number)
    }

    /// Checks that all that run come to the same state.
    pub(crate) async fn check_equal(&self) {
        let numbers: Vec<usize> = self.running().collect();
        // A read through each member: it has applied all that was acknowledged before.
        let mut hashes = Vec::new();
        for &number in &numbers {
            let client = self.client(number).await;
            in_time("a linearizable read", client.get("any")).await.expect("it serves");
            let hash = client.maintenance().hash_kv(HashKvRequest { revision: 0 }).await;
            let hash = hash.expect("it serves").into_inner();
            hashes.push((hash.header.expect("always there").revision, hash.hash));
        }
        assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
    }

    pub(crate) async fn members(&self, number: usize) -> Vec<Member> {
        let mut cluster = self.client(number).await.cluster();
        let listed = cluster.member_list(MemberListRequest { linearizable: true }).await;
        listed.expect("it serves").into_inner().members
    }
}

impl Place {
    fn new(number: usize) -> Self {
        let url = || format!("http://127.0.0.1:{}", steady_port());
        let name = format!("m{number}");
        Self { name, client: url(), peer: url(), flags: Vec::new(), server: None }
    }

    fn setup(&self, data: &Path, members: &str, state: &str) -> Setup {
        // Flags that come later count.
        let setup = Setup::new()
            .data_dir(data)
            .client_url(&self.client)
            .flag(format!("--name={}", self.name))
            .flag(format!("--listen-peer-urls={}", self.peer))
            .flag(format!("--initial-advertise-peer-urls={}", self.peer))
            .flag(format!("--initial-cluster={members}"))
            .flag(format!("--initial-cluster-state={state}"));
        self.flags.iter().fold(setup, |setup, flag| setup.flag(flag.clone()))
    }
}

/// Puts until it is acknowledged, as a client does that tries again; returns how long it took.
async fn put_eventually(client: &Client, key: &str, value: &str) -> Duration {
    let started = Instant::now();
    while let Err(status) = client.put(key.to_owned(), value.to_owned()).await {
        assert!(started.elapsed() < PATIENCE, "{status}");
        tokio::time::sleep(PAUSE).await;
    }
    started.elapsed()
}

/// Writes until that fails; returns what was acknowledged.
async fn write_on(client: Client, prefix: String) -> Vec<String> {
    let mut written = Vec::new();
    loop {
        let key = format!("{prefix} {}", written.len());
        if client.put(key.clone(), key.clone()).await.is_err() {
            return written;
        }
        written.push(key);
    }
}

/// Asks for a change until the member has been connected to the others for long enough to judge it.
async fn when_settled<T>(ask: impl AsyncFn() -> Result<Response<T>, Status>) -> T {
    let started = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer.into_inner(),
            Err(status) => {
                let is_early = status.message() == "etcdserver: unhealthy cluster";
                assert!(is_early && started.elapsed() < PATIENCE, "{status}");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_one_member_may_go() {
    let mut cluster = Cluster::start(3).await;
    for number in 0..3 {
        let client = cluster.client(number).await;
        client.put(format!("from {number}"), "x").await.expect("every member takes writes");
    }
    cluster.check_equal().await;
    for round in 0..2 {
        let leader = cluster.wait_for_leader().await;
        cluster.kill(leader);
        let other = cluster.running().next().expect("two are left");
        let client = cluster.client(other).await;
        let took = put_eventually(&client, &format!("without {leader}, {round}"), "x").await;
        eprintln!("a write after the leader's end took {took:?}");
        cluster.rerun(leader);
        cluster.check_equal().await;
    }
    let client = cluster.client(0).await;
    assert_eq!(client.list("from").await.expect("it serves").kvs.len(), 3);
    assert_eq!(client.list("without").await.expect("it serves").kvs.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_all_crash() {
    let mut cluster = Cluster::start(3).await;
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let mut writers = tokio::task::JoinSet::new();
        for number in 0..3 {
            let client = cluster.client(number).await;
            writers.spawn(write_on(client, format!("key {round} {number}")));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        for number in 0..3 {
            cluster.kill(number);
        }
        acknowledged.extend(writers.join_all().await.into_iter().flatten());
        cluster.run_all();
        cluster.wait_for_leader().await;
        cluster.check_equal().await;
    }
    let client = cluster.client(1).await;
    let there = client.list("key").await.expect("it serves").kvs;
    let there: std::collections::BTreeSet<_> =
        there.into_iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect();
    assert!(acknowledged.len() > 30, "{} are too few to show anything", acknowledged.len());
    for key in acknowledged {
        assert!(there.contains(&key), "{key} was acknowledged and is lost");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_live_through_any_member_and_end_by_themselves() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.wait_for_leader().await;
    let follower = cluster.running().find(|number| *number != leader).expect("two");
    let client = cluster.client(follower).await;
    let granted = client.lease().lease_grant(LeaseGrantRequest { ttl: 4, id: 7 }).await;
    assert_eq!(granted.expect("it serves").into_inner().ttl, 4);
    let put = PutRequest { key: "k".into(), lease: 7, ..PutRequest::default() };
    client.kv().put(put).await.expect("the lease is there");
    let asked = LeaseTimeToLiveRequest { id: 7, keys: true };
    let times = client.lease().lease_time_to_live(asked).await.expect("it serves").into_inner();
    assert_eq!((times.granted_ttl, &times.keys[..]), (4, &["k".into()][..]));
    assert!((2..=4).contains(&times.ttl), "{}", times.ttl);
    let unknown = LeaseTimeToLiveRequest { id: 8, keys: false };
    let times = client.lease().lease_time_to_live(unknown).await.expect("it serves").into_inner();
    assert_eq!((times.ttl, times.granted_ttl), (-1, 0));
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        let renewals = tokio_stream::iter([7, 8].map(|id| LeaseKeepAliveRequest { id }));
        let answers = client.lease().lease_keep_alive(renewals).await.expect("it serves");
        let mut answers = answers.into_inner();
        for expected in [(7, 4), (8, 0)] {
            let kept = answers.message().await.expect("it serves").expect("one for each");
            assert_eq!((kept.id, kept.ttl), expected);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(client.get("k").await.expect("it serves").is_some(), "it was kept alive");
    cluster.kill(leader);
    let client = cluster.client(follower).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        // There may be no leader yet.
        if client.get("k").await.is_ok_and(|value| value.is_none()) {
            break;
        }
        assert!(Instant::now() < deadline, "the new leader forgets the lease");
        tokio::time::sleep(PAUSE).await;
    }
    cluster.check_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_and_leave_while_the_others_serve() {
    let mut cluster = Cluster::planned(3);
    let members = cluster.list(1);
    cluster.run(0, &members, "new");
    assert!(cluster.places[0].server.as_ref().expect("it runs").serves());
    let client = cluster.client(0).await;
    client.put("before", "x").await.expect("it serves");
    let mut changes = client.cluster();

    // A voter.
    let peer = cluster.places[1].peer.clone();
    let add =
        |url: &str, is_learner| MemberAddRequest { peer_urls: vec![url.to_owned()], is_learner };
    let bad = changes.member_add(add("10.0.0.1:2380", false)).await.expect_err("no URL");
    assert_eq!(
        (bad.code(), bad.message()),
        (Code::InvalidArgument, "etcdserver: given member URLs are invalid")
    );
    let added = changes.member_add(add(&peer, false)).await.expect("it may").into_inner();
    assert_eq!(added.members.len(), 2);
    let members = cluster.list(2);
    cluster.run(1, &members, "existing");
    assert!(cluster.places[1].server.as_ref().expect("it runs").serves());
    cluster.check_equal().await;

    // A learner, which may get a vote when it has caught up.
    let peer = cluster.places[2].peer.clone();
    let added = when_settled(async || changes.clone().member_add(add(&peer, true)).await).await;
    let learner = added.member.expect("the new one").id;
    let promote = MemberPromoteRequest { id: learner };
    let early = changes.member_promote(promote).await.expect_err("it does not run yet");
    assert_eq!(
        early.message(),
        "etcdserver: can only promote a learner member which is in sync with leader"
    );
    let members = cluster.list(3);
    cluster.run(2, &members, "existing");
    assert!(cluster.places[2].server.as_ref().expect("it runs").serves());
    // Through every member: followers ask the leader.
    let leader = cluster.wait_for_leader().await;
    let follower = usize::from(leader == 0);
    let mut through = cluster.client(follower).await.cluster();
    in_time("a promotion", async {
        while through.member_promote(promote).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await;
    // It learns of it a moment later, and refuses reads until then.
    let promoted = cluster.client(2).await;
    in_time("a read through it", async {
        while promoted.get("any").await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await;
    let members = cluster.members(2).await;
    assert_eq!(members.iter().filter(|member| !member.is_learner).count(), 3);
    assert!(members.iter().all(|member| !member.name.is_empty()), "{members:?}");
    cluster.check_equal().await;

    // One goes, and stops by itself.
    let leader = cluster.wait_for_leader().await;
    let goes = if leader == 1 { 2 } else { 1 };
    let name = cluster.places[goes].name.clone();
    let id = members.iter().find(|member| member.name == name).expect("a member").id;
    let mut through = cluster.client(leader).await.cluster();
    let remove = MemberRemoveRequest { id };
    let left = when_settled(async || through.clone().member_remove(remove).await).await;
    assert_eq!(left.members.len(), 2);
    let mut gone = cluster.places[goes].server.take().expect("it runs");
    gone.wait();
    gone.wait_for_line("removed");
    let client = cluster.client(leader).await;
    client.put("after", "x").await.expect("two are enough for two");
    cluster.check_equal().await;
    let again = through.member_remove(MemberRemoveRequest { id }).await.expect_err("it is gone");
    assert_eq!(again.message(), "etcdserver: member not found");
}

/// Leadership moves before the removal is proposed; whoever asked is told the outcome all the same, and not that the leader is
/// gone or the member stops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_is_removed_whoever_asks_for_it() {
    for asks_itself in [true, false] {
        let mut cluster = Cluster::start(3).await;
        let leader = cluster.wait_for_leader().await;
        let id = cluster.id(leader).await;
        let other = (leader + 1) % 3;
        let asked = if asks_itself { leader } else { other };
        let through = cluster.client(asked).await.cluster();
        let remove = MemberRemoveRequest { id };
        let left = when_settled(async || through.clone().member_remove(remove).await).await;
        assert_eq!(left.members.len(), 2);
        assert!(left.members.iter().all(|member| member.id != id), "{left:?}");
        put_eventually(&cluster.client(other).await, "after", "x").await;
        let mut gone = cluster.places[leader].server.take().expect("it runs");
        gone.wait();
        gone.wait_for_line("removed");
        cluster.check_equal().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_for_long_gets_a_snapshot() {
    let mut cluster = Cluster::start_forgetful(3).await;
    let leader = cluster.wait_for_leader().await;
    let away = (leader + 1) % 3;
    let client = cluster.client(leader).await;
    let granted = client.lease().lease_grant(LeaseGrantRequest { ttl: 600, id: 7 }).await;
    granted.expect("it serves");
    for round in 0..2 {
        cluster.kill(away);
        for number in 0..100 {
            let key = format!("k{round} {number}");
            let put = PutRequest { key: key.into(), lease: 7, ..PutRequest::default() };
            client.kv().put(put).await.expect("two are enough");
        }
        cluster.rerun(away);
        if round == 0 {
            // The next time the log still has what comes behind it.
            let server = cluster.places[away].server.as_ref().expect("it runs");
            server.wait_for_line("applied snapshot");
        }
        cluster.check_equal().await;
        let behind = cluster.client(away).await;
        let count = behind.list("k").await.map(|all| all.kvs.len());
        assert_eq!(count.expect("it serves"), 100 * (round + 1));
        behind.put("through", "it").await.expect("it takes writes");
    }
    // What was installed is what a restart finds.
    cluster.kill(away);
    cluster.rerun(away);
    cluster.check_equal().await;
    let client = cluster.client(away).await;
    let asked = LeaseTimeToLiveRequest { id: 7, keys: true };
    let times = client.lease().lease_time_to_live(asked).await.expect("it serves").into_inner();
    assert_eq!((times.granted_ttl, times.keys.len()), (600, 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_of_a_member_that_gets_a_snapshot_miss_nothing() {
    let cluster = Cluster::start_forgetful(3).await;
    let leader = cluster.wait_for_leader().await;
    let away = (leader + 1) % 3;
    let mut watch = cluster.client(away).await.watch();
    let create = WatchCreateRequest {
        key: "a".into(),
        range_end: "b".into(),
        ..WatchCreateRequest::default()
    };
    let union = Some(watch_request::RequestUnion::CreateRequest(create));
    let requests = tokio_stream::iter([WatchRequest { request_union: union }]);
    // The stream of requests stays open.
    let requests = requests.chain(tokio_stream::pending());
    let mut events = watch.watch(requests).await.expect("it serves").into_inner();
    let created = events.message().await.expect("it serves").expect("the answer");
    assert!(created.created);
    let server = cluster.places[away].server.as_ref().expect("it runs");
    server.signal(Signal::STOP);
    let client = cluster.client(leader).await;
    let began = Instant::now();
    let mut written = 0;
    // Longer than a stream waits for its reader.
    while began.elapsed() < Duration::from_secs(9) {
        client.put(format!("a{written}"), "x").await.expect("two are enough");
        written += 1;
        tokio::time::sleep(PAUSE).await;
    }
    server.signal(Signal::CONT);
    let mut seen = 0;
    let mut last = 0;
    while seen < written {
        let answer = in_time("an event", events.message()).await.expect("it serves");
        for event in answer.expect("it goes on").events {
            let kv = event.kv.expect("always there");
            assert_eq!(kv.key, format!("a{seen}").as_bytes(), "in order, none twice");
            assert!(kv.mod_revision > last);
            last = kv.mod_revision;
            seen += 1;
        }
    }
    server.wait_for_line("applied snapshot");
    cluster.check_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_can_go_on_alone_when_it_is_told_so() {
    let mut cluster = Cluster::start(3).await;
    cluster.client(0).await.put("k", "v").await.expect("it serves");
    cluster.check_equal().await;
    for number in 0..3 {
        cluster.kill(number);
    }
    cluster.places[1].flags.push("--force-new-cluster".to_owned());
    cluster.rerun(1);
    let client = cluster.client(1).await;
    assert!(client.get("k").await.expect("it serves").is_some());
    client.put("alone", "v").await.expect("it is the only voter");
    let members = cluster.members(1).await;
    assert_eq!(members.iter().map(|member| &member.name[..]).collect::<Vec<_>>(), ["m1"]);
    cluster.kill(1);
    cluster.places[1].flags.clear();
    cluster.rerun(1);
    assert!(cluster.client(1).await.get("alone").await.expect("it serves").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_has_lost_its_data_does_not_form_the_cluster_again() {
    let mut cluster = Cluster::start(3).await;
    let id = cluster.id(1).await;
    cluster.kill(1);
    std::fs::remove_dir_all(cluster.data(1)).expect("its data");
    let members = cluster.list(3);
    cluster.run(1, &members, "new");
    let mut refused = cluster.places[1].server.take().expect("it was started");
    assert_eq!(refused.wait_code(), 1);
    refused.wait_for_line(&format!("member {id:x} has already been bootstrapped"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_when_asked() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.wait_for_leader().await;
    let members = cluster.members(leader).await;
    let id_of = |number: usize| {
        let name = &cluster.places[number].name;
        members.iter().find(|member| member.name == *name).expect("a member").id
    };
    let to = (leader + 1) % 3;
    let mut follower = cluster.client(to).await.maintenance();
    let back = MoveLeaderRequest { target_id: id_of(leader) };
    let refused = follower.move_leader(back).await.expect_err("it does not lead");
    assert_eq!(refused.message(), "etcdserver: not leader");
    let mut leads = cluster.client(leader).await.maintenance();
    let nobody = MoveLeaderRequest { target_id: 1 };
    let refused = leads.move_leader(nobody).await.expect_err("nobody has this id");
    assert_eq!(refused.message(), "etcdserver: bad leader transferee");
    let on = MoveLeaderRequest { target_id: id_of(to) };
    in_time("a move of leadership", leads.move_leader(on)).await.expect("it leads");
    assert_eq!(cluster.wait_for_leader().await, to);
    cluster.check_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_peer_port_tells_what_etcd_tells_and_refuses_what_etcd_refuses() {
    let cluster = Cluster::start(3).await;
    let members = cluster.members(0).await;
    let own = members.iter().find(|member| member.name == "m0").expect("a member").id;
    let other = members.iter().find(|member| member.name == "m1").expect("a member").id;
    let address = cluster.places[0].peer.trim_start_matches("http://").to_owned();
    let ask = |head: String| {
        let address = address.clone();
        async move {
            let stream = TcpStream::connect(&address).await.expect("it listens");
            exchange(stream, &format!("{head}\r\nHost: {address}"), "").await
        }
    };
    let listed = ask("GET /members HTTP/1.1".to_owned()).await;
    let id = listed.header("x-etcd-cluster-id").expect("always there").to_owned();
    let ids: Vec<u64> =
        listed.json().as_array().expect("a list").iter().filter_map(|m| m["id"].as_u64()).collect();
    assert_eq!(ids, members.iter().map(|member| member.id).collect::<Vec<_>>());
    // The leader asks the others first.
    in_time("a cluster version", async {
        while ask("GET /version HTTP/1.1".to_owned()).await.json()["etcdcluster"] != "3.7.0" {
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await;
    let probe = ask("GET /raft/probing HTTP/1.1".to_owned()).await;
    assert_eq!(probe.json()["OK"], true);
    let enabled = ask("GET /downgrade/enabled HTTP/1.1".to_owned()).await;
    assert_eq!((enabled.status, &enabled.body[..]), (200, "false"));

    let introduced = |path: &str, id: &str, to: u64| {
        format!(
            "GET {path} HTTP/1.1\r\nX-Server-From: 1\r\nX-Server-Version: 3.7.1\r\n\
             X-Min-Cluster-Version: 3.0.0\r\nX-Etcd-Cluster-ID: {id}\r\nX-Raft-To: {to:x}"
        )
    };
    let stream = |from: u64| format!("/raft/stream/msgapp/{from:x}");
    for (head, status, text) in [
        (introduced("/nothing", &id, own), 404, "404 page not found\n"),
        (introduced("/raft", &id, own), 405, "Method Not Allowed\n"),
        (introduced(&stream(other), "1", own), 412, "cluster ID mismatch\n"),
        (introduced("/raft/stream/other/1", &id, own), 404, "invalid path\n"),
        (introduced("/raft/stream/msgapp/x", &id, own), 404, "invalid from\n"),
        (introduced(&stream(1), &id, own), 404, "error sender not found\n"),
        (introduced(&stream(other), &id, other), 412, "to field mismatch\n"),
        ("GET /raft/stream/msgapp/1 HTTP/1.1".to_owned(), 412, "incompatible version\n"),
    ] {
        let refused = ask(head.clone()).await;
        assert_eq!((refused.status, &refused.body[..]), (status, text), "{head}");
    }
}
