//! A peer that is dialed and answers what no member answers, or nothing: this member bears it, in time and memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proto::etcdserverpb::LeaseGrantRequest;
use proto::etcdserverpb::{LeaseTimeToLiveRequest, MoveLeaderRequest, StatusRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::bystander::unharmed;
use crate::client::{Client, in_time};
use crate::harness::{PATIENCE, Setup, run_to_end, steady_port};
use crate::slow::MIB;
use crate::strangers::Place;

/// How a fake behaves.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// Takes a request and says nothing.
    Silent,
    /// Headers without end.
    Headers,
    /// Answers that more will come, without end.
    Continues,
    /// A body without end, of this.
    Endless(&'static [u8]),
    /// A body of this, and then silence.
    Says(&'static [u8]),
    /// No HTTP.
    Garbage,
}

/// A peer's port with somebody else behind it.
struct Fake {
    url: String,
    requests: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let requests = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                tokio::spawn(serve(stream, manner, Arc::clone(&counted)));
            }
        });
        Self { url, requests, task }
    }
}

async fn serve(mut stream: TcpStream, manner: Manner, counted: Arc<AtomicUsize>) {
    if !head(&mut stream).await.is_empty() {
        counted.fetch_add(1, Ordering::Relaxed);
        // Whoever it talks to may lose patience at any time.
        drop(behave(stream, manner).await);
    }
}

/// Reads the head of a request.
async fn head(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return Vec::new() };
        head.push(byte);
    }
    head
}

async fn behave(mut stream: TcpStream, manner: Manner) -> std::io::Result<()> {
    let ok = "HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: 1\r\nX-Server-Version: 3.7.1\r\n";
    match manner {
        Manner::Silent => {}
        Manner::Headers => {
            stream.write_all(ok.as_bytes()).await?;
            loop {
                stream.write_all(b"X-Header: again and again\r\n").await?;
            }
        }
        Manner::Continues => loop {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            tokio::task::yield_now().await;
        },
        Manner::Endless(piece) => {
            stream.write_all(ok.as_bytes()).await?;
            stream.write_all(b"Transfer-Encoding: chunked\r\n\r\n").await?;
            let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
            let many = chunk.repeat(1 + (1 << 16) / chunk.len());
            loop {
                stream.write_all(&many).await?;
            }
        }
        Manner::Says(body) => {
            stream.write_all(ok.as_bytes()).await?;
            stream.write_all(b"Transfer-Encoding: chunked\r\n\r\n").await?;
            let length = format!("{:x}\r\n", body.len());
            stream.write_all(&[length.as_bytes(), body, b"\r\n"].concat()).await?;
        }
        Manner::Garbage => stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await?,
    }
    // Until the other side is gone.
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_answer_what_no_member_answers_are_borne() {
    let lost = "lost TCP streaming connection with remote peer";
    for (manner, line) in [
        (Manner::Silent, lost),
        (Manner::Headers, lost),
        (Manner::Continues, lost),
        (Manner::Endless(b"\0\0\0\0\0\0\0\x02\x08\x08"), "failed to get version"),
        (Manner::Endless(b"\xff"), "the peer sends what no member sends"),
        (Manner::Says(b"\x03garbage"), "the peer sends what no member sends"),
        (Manner::Says(b"\x02\xff\xff\xff\xff\xff\xff\xff\xff"), "too long"),
        (Manner::Says(b"\x01\0\0\0\0\xff\xff\xff\xff"), "too long"),
        (Manner::Garbage, lost),
    ] {
        let fake = Fake::start(manner).await;
        let place = Place::start(&fake.url).await;
        unharmed(&place.server, 64 * MIB, async {
            let deadline = Instant::now() + PATIENCE;
            // Both streams, and the question for its version.
            while fake.requests.load(Ordering::Relaxed) < 3 || !place.server.log().contains(line) {
                assert!(Instant::now() < deadline, "{manner:?}:\n{}", place.server.log());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_bears_members_that_answer_without_end() {
    for manner in [
        Manner::Silent,
        Manner::Headers,
        Manner::Endless(b"["),
        Manner::Endless(b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["),
        Manner::Garbage,
    ] {
        let fake = Fake::start(manner).await;
        let directory = tempfile::TempDir::new().expect("a temporary directory");
        let own = format!("http://127.0.0.1:{}", steady_port());
        let flags = [
            "--name=new".to_owned(),
            format!("--data-dir={}", directory.path().join("data").display()),
            format!("--listen-client-urls=http://127.0.0.1:{}", steady_port()),
            "--advertise-client-urls=http://127.0.0.1:1".to_owned(),
            format!("--listen-peer-urls={own}"),
            format!("--initial-advertise-peer-urls={own}"),
            format!("--initial-cluster=new={own},old={}", fake.url),
            "--initial-cluster-state=existing".to_owned(),
        ];
        let (code, log) =
            tokio::task::spawn_blocking(move || run_to_end(&flags.each_ref().map(String::as_str)))
                .await
                .expect("no panic");
        assert_eq!(code, Some(1), "{manner:?}: {log}");
        assert!(log.contains("cannot fetch cluster info from peer urls"), "{manner:?}: {log}");
    }
}

/// The way to a member's peer port, on which questions about leases are answered by somebody else.
async fn detour(listener: TcpListener, to: String, is_honest: Arc<AtomicUsize>) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        let (to, is_honest) = (to.clone(), Arc::clone(&is_honest));
        tokio::spawn(async move {
            let head = head(&mut stream).await;
            if head.starts_with(b"POST /leases") && is_honest.load(Ordering::Relaxed) == 0 {
                drop(behave(stream, Manner::Endless(&[0x1a; 50])).await);
                return;
            }
            let Ok(mut other) = TcpStream::connect(to).await else { return };
            if other.write_all(&head).await.is_ok() {
                // Either side may go away.
                drop(copy_bidirectional(&mut stream, &mut other).await);
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_answers_without_end_costs_its_followers_little() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let advertised = format!("http://{}", listener.local_addr().expect("it is bound"));
    let address = |port: u16| format!("http://127.0.0.1:{port}");
    let (leader_url, follower_url) = (address(steady_port()), address(steady_port()));
    let is_honest = Arc::<AtomicUsize>::default();
    let to = leader_url.trim_start_matches("http://").to_owned();
    let detour = tokio::spawn(detour(listener, to, Arc::clone(&is_honest)));
    let members = format!("m0={advertised},m1={follower_url}");
    let start = |name: &str, listen: &str, advertise: &str| {
        Setup::new()
            .client_url(address(steady_port()))
            .flag(format!("--name={name}"))
            .flag(format!("--listen-peer-urls={listen}"))
            .flag(format!("--initial-advertise-peer-urls={advertise}"))
            .flag(format!("--initial-cluster={members}"))
            .spawn()
    };
    let leader = start("m0", &leader_url, &advertised);
    let follower = start("m1", &follower_url, &follower_url);
    assert!(leader.serves() && follower.serves());
    let (leads, follows) = (Client::connect(&leader).await, Client::connect(&follower).await);
    let status = leads.maintenance().status(StatusRequest {}).await.expect("it serves");
    let own = status.into_inner().header.expect("always there").member_id;
    // It may lead already, or not yet.
    in_time("its leadership", async {
        let is_leader = async || {
            let status = follows.maintenance().status(StatusRequest {}).await.expect("it serves");
            status.into_inner().leader == own
        };
        while !is_leader().await {
            let asked = MoveLeaderRequest { target_id: own };
            drop(follows.maintenance().move_leader(asked).await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    let granted = LeaseGrantRequest { ttl: 600, id: 7 };
    leads.lease().lease_grant(granted).await.expect("it leads");
    let ask = async |client: Client| {
        let asked = LeaseTimeToLiveRequest { id: 7, keys: true };
        client.lease().lease_time_to_live(asked).await
    };
    unharmed(&follower, 400 * MIB, async {
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let client = follows.clone();
            asked.spawn(async move {
                let asked = LeaseTimeToLiveRequest { id: 7, keys: true };
                client.lease().lease_time_to_live(asked).await.map(|_answer| ())
            });
        }
        let answers = in_time("answers", asked.join_all()).await;
        assert!(answers.iter().all(Result::is_err), "{answers:?}");
    })
    .await;
    is_honest.store(1, Ordering::Relaxed);
    let times = in_time("a lease's times", ask(follows)).await.expect("it is asked anew");
    assert_eq!(times.into_inner().granted_ttl, 600);
    detour.abort();
}
