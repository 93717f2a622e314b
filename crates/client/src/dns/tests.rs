//! Questions and answers to the byte, and servers that are silent, make noise, or answer in part.

use tokio::net::TcpListener;

use super::*;

const NAME: &str = "_etcd-server._tcp.example.com";

fn question() -> Question {
    Question::with_id(NAME, 0x1234).expect("a name")
}

fn srv(priority: u16, port: u16, target: &str) -> Srv {
    Srv { priority, port, target: target.to_owned() }
}

/// An answer with a record for each of `records`, whose targets are written out, and a pointer as their owner.
fn answer(question: &Question, flags: u16, records: &[Srv]) -> Vec<u8> {
    let mut out = question.bytes[..HEADER_BYTES + question.name.len() + 4].to_vec();
    out[2..4].copy_from_slice(&(FLAG_RESPONSE | flags).to_be_bytes());
    out[6..8].copy_from_slice(&u16::try_from(records.len()).expect("few").to_be_bytes());
    out[10..12].copy_from_slice(&[0, 0]);
    for record in records {
        let target = encode_name(&record.target).expect("a name");
        out.put_slice(&[POINTER, 12]);
        out.put_u16(TYPE_SRV);
        out.put_u16(CLASS_IN);
        out.put_u32(60);
        out.put_u16(u16::try_from(target.len() + 6).expect("short"));
        out.put_u16(record.priority);
        out.put_u16(0);
        out.put_u16(record.port);
        out.put_slice(&target);
    }
    out
}

#[test]
fn a_question_is_what_servers_expect() {
    let bytes = question().bytes;
    assert_eq!(&bytes[..HEADER_BYTES], [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
    let name = b"\x0c_etcd-server\x04_tcp\x07example\x03com\0\0\x21\0\x01";
    assert_eq!(&bytes[HEADER_BYTES..HEADER_BYTES + name.len()], name);
    assert_eq!(&bytes[HEADER_BYTES + name.len()..], b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
    for bad in ["", "a..b", &"x".repeat(64), &"x.".repeat(200)] {
        assert!(Question::new(bad).is_none(), "{bad}");
    }
}

#[test]
fn answers_are_read_by_priority() {
    let question = question();
    let (first, second) = (srv(1, 2380, "a.example.com"), srv(2, 2381, "b.example.com"));
    let both = answer(&question, 0, &[second.clone(), first.clone()]);
    assert_eq!(question.read(&both), Some(Answer::Records(vec![first, second])));
    let none = answer(&question, 0, &[]);
    assert_eq!(question.read(&none), Some(Answer::Refused(Failure::NoSuchHost)));
    for (flags, expected) in [
        (CODE_NO_SUCH_NAME, Answer::Refused(Failure::NoSuchHost)),
        (2, Answer::Refused(Failure::Misbehaving)),
        (FLAG_TRUNCATED, Answer::Truncated),
    ] {
        assert_eq!(question.read(&answer(&question, flags, &[])), Some(expected));
    }
}

#[test]
fn what_answers_another_question_is_none() {
    let asked = question();
    let good = answer(&asked, 0, &[srv(1, 1, "a")]);
    assert!(Question::with_id(NAME, 7).expect("a name").read(&good).is_none(), "another number");
    assert!(asked.read(&asked.bytes).is_none(), "a question");
    let other = Question::with_id("_etcd-server._tcp.example.org", 0x1234).expect("a name");
    assert!(asked.read(&answer(&other, 0, &[])).is_none(), "another name");
    let shouted = Question::with_id(&NAME.to_uppercase(), 0x1234).expect("a name");
    assert!(asked.read(&answer(&shouted, 0, &[])).is_some(), "case does not matter");
    for length in 0..good.len() {
        let cut = asked.read(&good[..length]);
        let is_refused = matches!(cut, None | Some(Answer::Refused(Failure::Misbehaving)));
        assert!(is_refused, "{length}: {cut:?}");
    }
}

#[test]
fn names_with_pointers_end() {
    let bytes = b"\x01a\0\xc0\0\x01b\xc0\x03\xc0\x0a\xc0\x0c";
    assert_eq!(read_name(bytes, 3), Some((b"\x01a\0".to_vec(), 5)));
    assert_eq!(read_name(bytes, 5), Some((b"\x01b\x01a\0".to_vec(), 9)));
    for loops in [9, 11, 13] {
        assert_eq!(read_name(bytes, loops), None);
    }
    assert_eq!(host(b"\x01a\x03b_c\0").as_deref(), Some("a.b_c"));
    for bad in [&b"\0"[..], b"\x01/\0", b"\x03a.b\0", b"\x05ab"] {
        assert_eq!(host(bad), None);
    }
}

#[test]
fn the_systems_file_says_whom_to_ask() {
    let text = "# comment\nnameserver 10.0.0.1\nnameserver ::1 ; another\nnameserver what\n\
                search example.com sub.example.com\noptions timeout:1 attempts:3 edns0\n";
    let found = Resolver::parse(text);
    let servers = ["10.0.0.1:53", "[::1]:53"].map(|text| text.parse().expect("an address"));
    assert_eq!(found.servers, servers);
    assert_eq!(found.search, ["example.com", "sub.example.com"]);
    assert_eq!((found.timeout, found.attempts), (Duration::from_secs(1), 3));
    let nobody = Resolver::parse("");
    assert_eq!(nobody.servers, ["127.0.0.1:53".parse().expect("an address")]);
}

/// Answers questions over UDP, first with what answers nothing, and over TCP.
async fn responder(records: Vec<Srv>) -> SocketAddr {
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = tcp.local_addr().expect("it is bound");
    let udp = UdpSocket::bind(address).await.expect("a free port");
    let whole = records.clone();
    let read = |asked: &[u8]| {
        let name = read_name(asked, HEADER_BYTES).expect("a name").0;
        let id = u16::from_be_bytes([asked[0], asked[1]]);
        Question { id, name, bytes: asked.to_vec() }
    };
    tokio::spawn(async move {
        let mut bytes = [0; 512];
        loop {
            let (length, from) = udp.recv_from(&mut bytes).await.expect("a question");
            let asked = read(&bytes[..length]);
            let is_here = host(&asked.name).expect("a name").ends_with("example.com");
            let flags = if is_here { 0 } else { CODE_NO_SUCH_NAME };
            let mut reply = answer(&asked, flags, if is_here { &records } else { &[] });
            if reply.len() > usize::from(UDP_BYTES_MAX) {
                reply = answer(&asked, FLAG_TRUNCATED, &[]);
            }
            udp.send_to(b"noise", from).await.expect("sent");
            udp.send_to(&reply, from).await.expect("sent");
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.expect("a connection");
            let length = stream.read_u16().await.expect("a length");
            let mut bytes = vec![0; usize::from(length)];
            stream.read_exact(&mut bytes).await.expect("a question");
            let reply = answer(&read(&bytes), 0, &whole);
            let length = u16::try_from(reply.len()).expect("short").to_be_bytes();
            stream.write_all(&[&length[..], &reply].concat()).await.expect("sent");
        }
    });
    address
}

#[tokio::test]
async fn servers_are_asked_until_one_answers() {
    let few = vec![srv(0, 1, "a.example.com"), srv(0, 2, "b.example.com")];
    let many: Vec<Srv> = (0..100).map(|port| srv(0, port, "a.example.com")).collect();
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let silent = silent.local_addr().expect("it is bound");
    for records in [few, many] {
        let server = responder(records.clone()).await;
        let mut resolver = Resolver::new(vec![silent, server]);
        resolver.timeout = Duration::from_millis(200);
        assert_eq!(resolver.srv("etcd-server", "example.com").await, Ok(records.clone()));
        let absent = resolver.srv("etcd-server", "example.org").await.expect_err("not there");
        let text = format!("lookup _etcd-server._tcp.example.org on {server}: no such host");
        assert_eq!((absent.to_string(), absent.is_absent()), (text, true));
        resolver.search = vec!["example.com".to_owned()];
        assert_eq!(resolver.srv("etcd-server", "sub").await, Ok(records));
        resolver.srv("etcd-server", "sub.").await.expect_err("it is whole");
    }
    let mut alone = Resolver::new(vec![silent]);
    alone.timeout = Duration::from_millis(50);
    let failed = alone.srv("etcd-server", "example.com").await.expect_err("nobody answers");
    assert!(failed.to_string().starts_with("lookup _etcd-server._tcp.example.com on "), "{failed}");
    assert!(!failed.is_absent());
}
