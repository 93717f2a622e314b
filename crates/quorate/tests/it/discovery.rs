//! Members that are not told who the others are: they find each other through another cluster, or through the domain name system.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::net::UdpSocket;

use crate::client::{Client, in_time};
use crate::harness::{Server, Setup, run_to_end, steady_port};

/// A member that is to be.
struct Seeker {
    name: String,
    peer: String,
    advertised: String,
    data: PathBuf,
}

impl Seeker {
    fn new(number: usize, directory: &Path) -> Self {
        let name = format!("m{number}");
        let data = directory.join(&name);
        let peer = format!("http://127.0.0.1:{}", steady_port());
        Self { name, advertised: peer.clone(), peer, data }
    }

    /// One that says its URL by the name that records have.
    fn named(number: usize, directory: &Path) -> Self {
        let seeker = Self::new(number, directory);
        Self { advertised: seeker.peer.replace("127.0.0.1", "localhost"), ..seeker }
    }

    fn flags(&self, more: &[String]) -> Vec<String> {
        let mut flags = vec![
            format!("--name={}", self.name),
            format!("--data-dir={}", self.data.display()),
            format!("--listen-peer-urls={}", self.peer),
            format!("--initial-advertise-peer-urls={}", self.advertised),
            // Without it: a cluster is not said twice.
            "--initial-cluster=".to_owned(),
        ];
        flags.extend_from_slice(more);
        flags
    }

    fn start(&self, more: &[String]) -> Server {
        self.flags(more).into_iter().fold(Setup::new(), Setup::flag).spawn()
    }

    /// Starts what is not to start, and returns what it says.
    async fn fail(&self, more: &[String]) -> String {
        let client = format!("http://127.0.0.1:{}", steady_port());
        let mut flags = self.flags(more);
        flags.push(format!("--listen-client-urls={client}"));
        flags.push(format!("--advertise-client-urls={client}"));
        let run = move || {
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            run_to_end(&flags)
        };
        let (code, log) = tokio::task::spawn_blocking(run).await.expect("no panic");
        assert_eq!(code, Some(1), "{log}");
        log
    }
}

fn registry(server: &Server, token: &str) -> [String; 2] {
    [format!("--discovery-endpoints={}", server.url()), format!("--discovery-token={token}")]
}

/// All have the same members, of which any takes a write.
async fn check(members: &[Server]) {
    for (number, member) in members.iter().enumerate() {
        assert!(member.serves());
        let client = Client::connect(member).await;
        client.put(format!("k{number}"), "x").await.expect("it serves");
    }
    for member in members {
        let count = Client::connect(member).await.list("k").await.expect("it serves").kvs.len();
        assert_eq!(count, members.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_find_each_other_through_another_cluster() {
    let directory = TempDir::new().expect("a temporary directory");
    let service = Setup::new().start();
    let client = Client::connect(&service).await;
    client.put("/_etcd/registry/t/_config/size", "3").await.expect("it serves");
    let flags = registry(&service, "t");
    let seekers: Vec<Seeker> = (0..4).map(|number| Seeker::new(number, directory.path())).collect();
    let mut members: Vec<Server> = seekers[..3].iter().map(|seeker| seeker.start(&flags)).collect();
    check(&members).await;
    members[0].wait_for_line("found all needed peers from discovery service");
    let registered = client.list("/_etcd/registry/t/members/").await.expect("it serves").kvs;
    let mut values: Vec<String> =
        registered.iter().map(|kv| String::from_utf8_lossy(&kv.value).into_owned()).collect();
    values.sort();
    let expected: Vec<_> =
        seekers[..3].iter().map(|seeker| format!("{}={}", seeker.name, seeker.peer)).collect();
    assert_eq!(values, expected);

    // Who comes too late is told so, and what to do.
    let late = seekers[3].fail(&flags).await;
    for text in [
        "failed to join discovery cluster (discovery: cluster is full)",
        "failed to bootstrap; discovery token was already used",
        "do not reuse discovery token; generate a new one to bootstrap a cluster",
        "--initial-cluster-state=existing",
    ] {
        assert!(late.contains(text), "{text}:\n{late}");
    }
    assert_eq!(client.list("/_etcd/registry/t/members/").await.expect("it serves").kvs.len(), 3);

    // Who has data does not ask again, whether the service is there or not.
    drop(service);
    members.pop();
    let back = seekers[2].start(&flags);
    assert!(back.serves());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_was_not_announced_is_not_formed() {
    let directory = TempDir::new().expect("a temporary directory");
    let service = Setup::new().start();
    let client = Client::connect(&service).await;
    let seeker = Seeker::new(0, directory.path());
    let flags = registry(&service, "unknown");
    let unknown = seeker.fail(&flags).await;
    for text in
        ["discovery: size key not found", "etcdctl put /_etcd/registry/unknown/_config/size"]
    {
        assert!(unknown.contains(text), "{text}:\n{unknown}");
    }
    for bad in ["0", "-1", "three"] {
        client.put("/_etcd/registry/unknown/_config/size", bad).await.expect("it serves");
        let refused = seeker.fail(&flags).await;
        assert!(refused.contains("discovery: size key is bad"), "{refused}");
    }
    client.put("/_etcd/registry/unknown/_config/size", "2").await.expect("it serves");
    client.put("/_etcd/registry/unknown/members/1", "x=no url").await.expect("it serves");
    client.put("/_etcd/registry/unknown/members/2", "garbage").await.expect("it serves");
    let refused = seeker.fail(&flags).await;
    assert!(refused.contains("discovery: invalid peer URL"), "{refused}");
    let same = format!("other={}", seeker.peer);
    client.put("/_etcd/registry/unknown/members/1", same).await.expect("it serves");
    let refused = seeker.fail(&flags).await;
    assert!(refused.contains("has duplicate url"), "{refused}");
    let mut existing = flags.to_vec();
    existing.push("--initial-cluster-state=existing".to_owned());
    let refused = seeker.fail(&existing).await;
    let text = "discovery URL should not be set when joining existing initial cluster";
    assert!(refused.contains(text), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_wait_for_a_service_that_comes_later() {
    let directory = TempDir::new().expect("a temporary directory");
    let url = format!("http://127.0.0.1:{}", steady_port());
    let flags = [format!("--discovery-endpoints={url}"), "--discovery-token=t".to_owned()];
    let impatient = [&flags[..], &["--discovery-request-timeout=500ms".to_owned()]].concat();
    let member = Seeker::new(0, directory.path()).start(&impatient);
    member.wait_for_line("retry connecting to discovery service");
    let data = directory.path().join("service");
    let service = Setup::new().client_url(&url).data_dir(&data).flag("--max-txn-ops=128").start();
    let client = Client::connect(&service).await;
    client.put("/_etcd/registry/t/_config/size", "1").await.expect("it serves");
    // It may have asked before there was a size, and given up: then it says so.
    let members = if member.serves() {
        vec![member]
    } else {
        assert!(member.log().contains("size key not found"), "{}", member.log());
        vec![Seeker::new(1, directory.path()).start(&impatient)]
    };
    check(&members).await;
}

/// A name server with two SRV services.
struct Names {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Names {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Names {
    /// Says of `service` that it is at these ports of this machine, and of nothing else anything.
    async fn start(service: &str, ports: Vec<u16>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("it is bound");
        let known = encoded(&format!("_{service}._tcp.example.com"));
        let task = tokio::spawn(async move {
            let mut bytes = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut bytes).await.expect("a question");
                let answer = answered(&bytes[..length], &known, &ports);
                socket.send_to(&answer, from).await.expect("sent");
            }
        });
        Self { address, task }
    }

    fn flags(&self) -> Vec<String> {
        vec![
            "--discovery-srv=example.com".to_owned(),
            format!("--discovery-srv-servers={}", self.address),
        ]
    }
}

/// A name as it is sent.
fn encoded(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for part in name.split('.') {
        out.push(part.len() as u8);
        out.extend_from_slice(part.as_bytes());
    }
    out.push(0);
    out
}

fn answered(question: &[u8], known: &[u8], ports: &[u16]) -> Vec<u8> {
    // Behind the header: the name, its type and class.
    let asked = &question[12..];
    let end = asked.iter().position(|byte| *byte == 0).expect("a name") + 1;
    let is_known = asked[..end].eq_ignore_ascii_case(known);
    let count = if is_known { ports.len() } else { 0 };
    let mut out = question[..2].to_vec();
    out.extend([0x81, if is_known { 0x80 } else { 0x83 }, 0, 1, 0, count as u8, 0, 0, 0, 0]);
    out.extend_from_slice(&asked[..end + 4]);
    for port in &ports[..count] {
        let target = encoded("localhost");
        // The name again, SRV, IN, a minute, and the length of what follows.
        out.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, 6 + target.len() as u8, 0, 0, 0, 0]);
        out.extend(port.to_be_bytes());
        out.extend(target);
    }
    out
}

fn port(seeker: &Seeker) -> u16 {
    let (_, port) = seeker.peer.rsplit_once(':').expect("a port");
    port.parse().expect("a port")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_find_each_other_through_names() {
    for (service, more) in [
        ("etcd-server", vec![]),
        ("etcd-server-test", vec!["--discovery-srv-name=test".to_owned()]),
    ] {
        let directory = TempDir::new().expect("a temporary directory");
        let seekers: Vec<Seeker> =
            (0..3).map(|number| Seeker::named(number, directory.path())).collect();
        let names = Names::start(service, seekers.iter().map(port).collect()).await;
        let flags = [names.flags(), more].concat();
        let members: Vec<Server> = seekers.iter().map(|seeker| seeker.start(&flags)).collect();
        check(&members).await;
        let client = Client::connect(&members[0]).await;
        let asked = proto::etcdserverpb::MemberListRequest { linearizable: true };
        let listed = in_time("the members", client.cluster().member_list(asked)).await;
        let listed = listed.expect("it serves").into_inner().members;
        let mut found: Vec<_> = listed.iter().map(|member| member.name.clone()).collect();
        found.sort();
        assert_eq!(found, ["m0", "m1", "m2"], "they told their names");
        let urls = listed.iter().flat_map(|member| &member.peer_urls);
        assert!(urls.clone().all(|url| url.starts_with("http://localhost:")), "{listed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_do_not_lead_here_are_no_help() {
    let directory = TempDir::new().expect("a temporary directory");
    let seeker = Seeker::new(0, directory.path());
    let others = Names::start("etcd-server", vec![1, 2]).await;
    let refused = seeker.fail(&others.flags()).await;
    let text =
        "error setting up initial cluster: cannot find local etcd member \\\"m0\\\" in SRV records";
    assert!(refused.contains(text), "{refused}");
    assert!(refused.contains("no SRV record leads to this member"), "{refused}");
    let unknown = Names::start("other", vec![port(&seeker)]).await;
    let refused = seeker.fail(&unknown.flags()).await;
    for service in ["etcd-server-ssl", "etcd-server"] {
        let text = format!(
            "error querying DNS SRV records for _{service} lookup _{service}._tcp.example.com on {}: no such host",
            unknown.address
        );
        assert!(refused.contains(&text), "{text}:\n{refused}");
    }
    // It says https where this member says http.
    let secure = Names::start("etcd-server-ssl", vec![port(&seeker)]).await;
    let refused = seeker.fail(&secure.flags()).await;
    assert!(refused.contains("has scheme mismatch with expected peer"), "{refused}");
}
