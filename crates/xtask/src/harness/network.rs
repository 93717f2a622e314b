//! What joins the members: the loopback interface, or a network namespace for each with a switch of ours between them.
//!
//! The switch is in this process: every namespace has a tunnel device whose packets end up here, and leave by the device
//! of the receiver's namespace, or of this process's own for the clients. So packets can be lost or late in one direction
//! between two members alone, which needs neither a packet filter nor a queueing discipline of the kernel.

mod tunnel;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::random::Random;
use crate::workspace;

const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
/// The last byte of this process's own address; members count from 1.
const HOST: u8 = 254;
/// Bytes of one packet.
const PACKET_BYTES_MAX: usize = 1 << 16;
/// Packets that are late at the same time; more are lost, as in any router.
const LATE_MAX: usize = 1 << 14;
const NAME: &str = "quorate-";

/// Where a member listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) client: SocketAddr,
    pub(crate) peer: SocketAddr,
}

/// What happens to packets from one member to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Whole,
    Cut,
    /// Each packet takes a random time up to this, so that later ones overtake.
    Late(Duration),
}

/// What joins the members.
pub(crate) enum Network {
    /// Loopback ports: links are always whole.
    Loopback(Vec<Place>),
    Switched(Switch),
}

impl Network {
    /// A network for `count` members on the loopback interface.
    pub(crate) fn loopback(count: usize) -> Self {
        Self::Loopback((0..count).map(|_| Place { client: port(), peer: port() }).collect())
    }

    /// A network for `count` members that can fail, if this machine and this user can have one.
    pub(crate) fn switched(count: usize) -> Result<Self> {
        Ok(Self::Switched(Switch::new(count)?))
    }

    /// Whether links can fail.
    pub(crate) fn can_fail(&self) -> bool {
        matches!(self, Self::Switched(_))
    }

    pub(crate) fn place(&self, number: usize) -> Place {
        match self {
            Self::Loopback(places) => places[number],
            Self::Switched(switch) => switch.place(number),
        }
    }

    /// Begins a command that runs `binary` at the place `number`.
    pub(crate) fn command(&self, number: usize, binary: &Path) -> Command {
        match self {
            Self::Loopback(_) => Command::new(binary),
            Self::Switched(_) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &Switch::namespace(number)]).arg(binary);
                command
            }
        }
    }

    /// Changes what happens to packets in one direction. Loopback links cannot be changed.
    pub(crate) fn set(&self, from: usize, to: usize, link: Link) {
        if let Self::Switched(switch) = self {
            switch.rules.set(from, to, link);
        }
    }

    /// Makes all links whole.
    pub(crate) fn heal(&self) {
        if let Self::Switched(switch) = self {
            for number in 0..switch.count * switch.count {
                switch.rules.set(number / switch.count, number % switch.count, Link::Whole);
            }
        }
    }
}

/// An address whose port no outgoing connection gets.
fn port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 10_000).unwrap_or(0);
    loop {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Namespaces with tunnel devices, and the threads that carry packets between them.
pub(crate) struct Switch {
    count: usize,
    net: [u8; 3],
    rules: Arc<Rules>,
}

impl Switch {
    fn new(count: usize) -> Result<Self> {
        remove_stale()?;
        let id = std::process::id();
        let low = |number: u32| u8::try_from(number % 250).unwrap_or(0);
        let net = [10, 200 + low(id / 250) % 50, low(id)];
        let switch = Self { count, net, rules: Arc::new(Rules::new(count)) };
        let mut ports = Vec::new();
        for number in 0..count {
            ports.push(switch.join(number).with_context(|| format!("namespace {number}"))?);
        }
        let device = format!("qh{id}");
        ports.push(tunnel::open(&device)?);
        let address = format!("{}/24", switch.address(HOST));
        ip(&["address", "add", &address, "dev", &device])?;
        ip(&["link", "set", &device, "up"])?;
        switch.carry(ports);
        Ok(switch)
    }

    /// Makes the namespace of a member, with a device in it.
    fn join(&self, number: usize) -> Result<File> {
        let namespace = Self::namespace(number);
        let device = format!("qh{}x{number}", std::process::id());
        ip(&["netns", "add", &namespace])?;
        let port = tunnel::open(&device)?;
        ip(&["link", "set", &device, "netns", &namespace])?;
        let address = format!("{}/24", self.place(number).peer.ip());
        ip(&["-n", &namespace, "address", "add", &address, "dev", &device])?;
        ip(&["-n", &namespace, "link", "set", &device, "up"])?;
        ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        Ok(port)
    }

    /// Starts the threads, which end when their device goes.
    fn carry(&self, ports: Vec<File>) {
        let ports: Arc<[File]> = ports.into();
        let (late, later) = sync_channel(LATE_MAX);
        for from in 0..ports.len() {
            let (ports, rules, late) = (Arc::clone(&ports), Arc::clone(&self.rules), late.clone());
            thread::spawn(move || carry_from(from, &ports, &rules, &late));
        }
        thread::spawn(move || carry_late(&ports, &later));
    }

    fn namespace(number: usize) -> String {
        format!("{NAME}{}-{number}", std::process::id())
    }

    fn address(&self, last: u8) -> IpAddr {
        let [one, two, three] = self.net;
        IpAddr::from([one, two, three, last])
    }

    fn place(&self, number: usize) -> Place {
        let address = self.address(u8::try_from(number + 1).unwrap_or(HOST));
        Place { client: (address, CLIENT_PORT).into(), peer: (address, PEER_PORT).into() }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        // Threads that wait for a device's packets end with it. What was never made cannot be removed.
        for number in 0..self.count {
            drop(ip(&["netns", "delete", &Self::namespace(number)]));
        }
        drop(ip(&["link", "delete", &format!("qh{}", std::process::id())]));
    }
}

/// Removes namespaces of earlier runs that were killed.
fn remove_stale() -> Result<()> {
    for line in ip(&["netns", "list"])?.lines() {
        let Some(name) = line.split_whitespace().next() else { continue };
        let id = name.strip_prefix(NAME).and_then(|rest| rest.split('-').next());
        let is_stale = id.is_some_and(|id| !PathBuf::from(format!("/proc/{id}")).exists());
        if is_stale {
            ip(&["netns", "delete", name])?;
        }
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<String> {
    workspace::output(Command::new("ip").args(arguments))
}

/// The state of each link between members: milliseconds of lateness at most, or [`Rules::CUT`].
struct Rules {
    links: Vec<AtomicU32>,
    count: usize,
}

impl Rules {
    const CUT: u32 = u32::MAX;

    fn new(count: usize) -> Self {
        Self { links: (0..count * count).map(|_| AtomicU32::new(0)).collect(), count }
    }

    fn set(&self, from: usize, to: usize, link: Link) {
        let value = match link {
            Link::Whole => 0,
            Link::Cut => Self::CUT,
            Link::Late(most) => u32::try_from(most.as_millis()).unwrap_or(Self::CUT - 1),
        };
        self.links[from * self.count + to].store(value, Ordering::Relaxed);
    }

    /// Links with this process are whole.
    fn get(&self, from: usize, to: usize) -> Link {
        if from >= self.count || to >= self.count {
            return Link::Whole;
        }
        match self.links[from * self.count + to].load(Ordering::Relaxed) {
            0 => Link::Whole,
            Self::CUT => Link::Cut,
            late => Link::Late(Duration::from_millis(late.into())),
        }
    }
}

/// A packet on its way: when it arrives, a number that tells equal ones apart, where to, and its bytes.
type Late = Reverse<(Instant, u64, usize, Vec<u8>)>;

/// Carries what comes out of one device until that is gone.
fn carry_from(from: usize, ports: &[File], rules: &Rules, late: &SyncSender<Late>) {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    let mut random = Random::new(u64::try_from(from).unwrap_or(0));
    let mut sequence = 0;
    while let Ok(length) = (&ports[from]).read(&mut buffer) {
        let packet = &buffer[..length];
        let Some(to) = receiver(packet, ports.len()) else { continue };
        match rules.get(from, to) {
            Link::Whole => deliver(&ports[to], packet),
            Link::Cut => {}
            Link::Late(most) => {
                let delay = most
                    .mul_f64(f64::from(u32::try_from(random.below(1000)).unwrap_or(0)) / 1000.0);
                sequence += 1;
                // A full queue loses the packet.
                drop(late.try_send(Reverse((
                    Instant::now() + delay,
                    sequence,
                    to,
                    packet.to_vec(),
                ))));
            }
        }
    }
}

/// Which port a packet is for; the last is this process's own.
fn receiver(packet: &[u8], ports: usize) -> Option<usize> {
    // An address of version 4 ends its header's 20 bytes. Kernels send packets of version 6 by themselves.
    let is_v4 = packet.len() >= 20 && packet[0] >> 4 == 4;
    let last = *packet.get(19)?;
    let number = if last == HOST { ports - 1 } else { usize::from(last).checked_sub(1)? };
    (is_v4 && number < ports).then_some(number)
}

fn deliver(port: &File, packet: &[u8]) {
    // A device that is down loses the packet.
    let mut port = port;
    drop(port.write(packet));
}

/// Delivers late packets when their time has come.
fn carry_late(ports: &[File], later: &Receiver<Late>) {
    let mut waiting: BinaryHeap<Late> = BinaryHeap::new();
    loop {
        let pause = waiting.peek().map_or(Duration::from_mins(1), |Reverse((due, ..))| {
            due.saturating_duration_since(Instant::now())
        });
        match later.recv_timeout(pause) {
            Ok(packet) => waiting.push(packet),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Some(Reverse((due, ..))) = waiting.peek() {
            if *due > Instant::now() {
                break;
            }
            let Some(Reverse((_, _, to, packet))) = waiting.pop() else { break };
            deliver(&ports[to], &packet);
        }
    }
}

/// Fails unless this machine and this user can have a network that fails.
pub(crate) fn check() -> Result<()> {
    if let Err(error) = Switch::new(1) {
        bail!("no network namespaces here: {error:#}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_goes_to_the_port_of_its_last_byte() {
        let mut packet = [0; 20];
        packet[0] = 0x45;
        for (last, expected) in [(1, Some(0)), (3, Some(2)), (HOST, Some(3)), (0, None), (9, None)]
        {
            packet[19] = last;
            assert_eq!(receiver(&packet, 4), expected, "{last}");
        }
        assert_eq!(receiver(&packet[..19], 4), None);
        packet[0] = 0x60;
        packet[19] = 1;
        assert_eq!(receiver(&packet, 4), None);
    }

    #[test]
    fn a_link_is_as_it_was_set_in_its_direction_alone() {
        let rules = Rules::new(3);
        rules.set(0, 1, Link::Cut);
        rules.set(1, 2, Link::Late(Duration::from_millis(200)));
        assert_eq!(rules.get(0, 1), Link::Cut);
        assert_eq!(rules.get(1, 0), Link::Whole);
        assert_eq!(rules.get(1, 2), Link::Late(Duration::from_millis(200)));
        assert_eq!(rules.get(0, 3), Link::Whole);
    }
}
