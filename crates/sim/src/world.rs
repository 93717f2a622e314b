//! One run: everything that happens to the members of a cluster and their clients, one thing after the other, from a seed.
//!
//! A run has three acts. Clients ask and mishaps strike, each followed by a new start. Then everything is left in peace
//! until all must have been answered, told and expired, and the judges look at everything. Then all members are started
//! once more, in some runs one of them on a disk with flipped bits, and what they say must still be true or be a fault.

mod acts;
mod changes;
mod clients;
mod network;
mod snapshots;
mod threads;
mod watchers;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use machine::BackendDone;
use machine::membership::initial_member_id;
use machine::watch::CatchUpDone;
use node::{Bootstrap, Event, LogRead, Token};
use proto::raftpb;

use self::network::Ways;
use self::snapshots::{Installing, Transfer};

use crate::check::{Judge, Violation};
use crate::clock::Agenda;
use crate::cluster::{Member, Process};
use crate::history::{Counts, History, Trace};
use crate::rng::Rng;
use crate::scenario::{Scenario, TTL_MIN};
use crate::serving::Subscriber;
use crate::workload::Workload;

/// A run that takes longer does not come to an end.
const RUN_MAX: Duration = Duration::from_mins(10);

/// What is to happen.
#[derive(Debug)]
enum Due {
    /// Something in the process of a member, if that one still lives.
    In {
        member: usize,
        life: u32,
        step: Step,
    },
    Start {
        member: usize,
    },
    Client {
        client: usize,
    },
    /// The client of a watch stream looks for a member.
    Home {
        place: usize,
    },
    Message {
        from: usize,
        to: usize,
        bytes: Bytes,
    },
    Snapshot {
        to: usize,
        transfer: Box<Transfer>,
    },
    Mishap,
    Peace,
    /// Peace is over: the judges look at everything, and the last start follows.
    LastStart,
    /// The judges look for the last time.
    End,
}

/// What happens in a process.
#[derive(Debug)]
enum Step {
    Tick,
    Turn,
    WalWrite,
    WalSync,
    LogRead(LogRead),
    Backend,
    BackendDone(BackendDone),
    /// Something reaches the node thread.
    Arrive(Event),
    Serve,
    CatchUp,
    CaughtUp(CatchUpDone),
    /// A client reads its watch stream.
    Read(usize),
    /// A client asks something on its watch stream.
    Request(usize),
    MakeSnapshot {
        to: usize,
        message: Box<raftpb::Message>,
    },
    StoreSnapshot(Box<Transfer>),
    PrepareSnapshot(Box<Transfer>),
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Work,
    Peace,
    LastStart,
    Over,
}

/// What a run came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Requests by how they ended.
    pub counts: Counts,
    /// Processes ended by a mishap.
    pub mishaps: u32,
    /// Starts that failed because of a fault.
    pub failed_starts: u32,
    /// The last revision.
    pub revision: i64,
    /// Entries of the log.
    pub entries: u64,
    /// Events told to watchers.
    pub told: u64,
    /// Snapshots of leaders that took the place of a member's state.
    pub installed: u64,
    /// Entries that leaders read back from their logs for followers.
    pub read_back: u64,
    /// The last term.
    pub term: u64,
    /// Members that there ever were.
    pub members: u64,
    /// Simulated time.
    pub time: Duration,
    /// Whether bits were flipped and a fault told so.
    pub damage_found: Option<bool>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct World {
    agenda: Agenda<Due>,
    rng: Rng,
    scenario: Scenario,
    members: Vec<Member>,
    judge: Judge,
    history: History,
    workload: Workload,
    subscribers: Vec<Subscriber>,
    /// The member and its life that each watch stream is with.
    homes: Vec<Option<(usize, u32)>>,
    ways: Ways,
    installs: u64,
    installing: BTreeMap<Token, Installing>,
    /// Changes of the membership that are still to be asked for.
    changes_left: u32,
    /// The member whose disk has flipped bits.
    damaged: Option<usize>,
    act: Act,
    asked: u64,
    /// When clients fell silent.
    quiet_since: Duration,
    /// The member without space on its disk, or soon without.
    full: Option<usize>,
    summary: Summary,
    /// What happened.
    pub trace: Trace,
}

impl World {
    /// Makes the world of `seed`; `keeps_trace` says whether anyone will read the trace.
    pub fn new(seed: u64, keeps_trace: bool) -> Self {
        let scenario = Scenario::new(seed);
        let rng = Rng::new(seed).fork(2);
        let members: Vec<Member> = scenario
            .configs
            .iter()
            .zip(&scenario.drifts)
            .map(|(config, drift)| Member::new(id_of(config), config.clone(), *drift))
            .collect();
        let ids: Vec<u64> = members.iter().map(|member| member.id).collect();
        Self {
            agenda: Agenda::default(),
            workload: Workload::new(rng.fork(3)),
            rng,
            judge: Judge::new(&ids, TTL_MIN),
            members,
            history: History::default(),
            subscribers: (0..scenario.streams).map(|_| Subscriber::default()).collect(),
            homes: vec![None; scenario.streams],
            ways: Ways::default(),
            installs: 0,
            installing: BTreeMap::new(),
            changes_left: scenario.changes,
            damaged: None,
            act: Act::Work,
            asked: 0,
            quiet_since: Duration::ZERO,
            full: None,
            summary: Summary::default(),
            trace: Trace::new(keeps_trace),
            scenario,
        }
    }

    /// Runs it to its end.
    pub fn run(&mut self) -> Result<Summary, Violation> {
        self.trace.line(Duration::ZERO, || self.scenario.description());
        for member in 0..self.members.len() {
            self.agenda.after(Duration::ZERO, Due::Start { member });
        }
        // The last one changes the membership.
        for client in 0..=self.scenario.clients {
            let pause = self.pause();
            self.agenda.after(pause, Due::Client { client });
        }
        for place in 0..self.subscribers.len() {
            self.agenda.after(Duration::ZERO, Due::Home { place });
        }
        while self.act != Act::Over {
            let Some(due) = self.agenda.take_next() else {
                return Err(Violation::new("nothing happens any more"));
            };
            if self.agenda.now() > RUN_MAX {
                return Err(Violation::new("the run does not come to an end"));
            }
            self.happen(due)?;
        }
        let summary = &mut self.summary;
        summary.counts = self.history.counts;
        summary.revision = self.judge.model().stand().revision;
        summary.entries = self.judge.model().applied();
        summary.told = self.subscribers.iter().map(|subscriber| subscriber.told).sum();
        summary.time = self.agenda.now();
        summary.members = self.members.len() as u64;
        Ok(summary.clone())
    }

    fn pause(&mut self) -> Duration {
        self.rng.micros(1..self.scenario.pause_max)
    }

    /// How long a disk job of a member takes.
    fn disk_pause_of(&mut self, member: usize) -> Duration {
        let pause = self.rng.micros(1..self.scenario.disk_pause_max);
        if self.agenda.now() < self.members[member].slow_until {
            pause + self.rng.micros(100_000..1_500_000)
        } else {
            pause
        }
    }

    fn is_working(&self) -> bool {
        self.act == Act::Work
    }

    /// Returns a member that runs.
    fn running(&mut self) -> Option<usize> {
        let running: Vec<usize> = (0..self.members.len())
            .filter(|member| self.members[*member].process.is_some())
            .collect();
        if running.is_empty() { None } else { Some(self.rng.pick(&running)) }
    }

    /// Returns a member that says that it leads.
    fn leader(&self) -> Option<usize> {
        let leads = |process: &Process| process.node.gate().is_leader();
        self.members.iter().position(|member| member.process.as_ref().is_some_and(leads))
    }

    fn happen(&mut self, due: Due) -> Result<(), Violation> {
        match due {
            Due::In { member, life, step } => {
                let rest = self.members[member].paused_until.saturating_sub(self.agenda.now());
                if rest > Duration::ZERO {
                    self.agenda.after(rest, Due::In { member, life, step });
                    return Ok(());
                }
                if self.members[member].life == life && self.members[member].process.is_some() {
                    self.step(member, step)?;
                    self.see_to_power(member);
                }
                Ok(())
            }
            Due::Start { member } => self.start(member),
            Due::Client { client } => self.client(client),
            Due::Home { place } => {
                self.find_home(place);
                Ok(())
            }
            Due::Message { from, to, bytes } => self.message(from, to, bytes),
            Due::Snapshot { to, transfer } => {
                self.receive(to, transfer);
                Ok(())
            }
            Due::Mishap => {
                self.mishap();
                Ok(())
            }
            Due::Peace => {
                self.make_peace();
                Ok(())
            }
            Due::LastStart => self.last_start(),
            Due::End => self.end(),
        }
    }

    fn soon(&mut self, member: usize, delay: Duration, step: Step) {
        let life = self.members[member].life;
        self.agenda.after(delay, Due::In { member, life, step });
    }

    fn process(&mut self, member: usize) -> Option<&mut Process> {
        self.members[member].process.as_mut()
    }
}

/// The id of a member that forms a cluster.
fn id_of(config: &node::Config) -> u64 {
    let Bootstrap { members, cluster_token, .. } = &config.bootstrap;
    let urls = members.iter().find(|member| member.name == config.name);
    initial_member_id(urls.map_or(&[], |member| &member.peer_urls[..]), cluster_token)
}
