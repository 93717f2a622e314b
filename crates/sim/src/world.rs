//! One run: everything that happens to a member and its clients, one thing after the other, from a seed.
//!
//! A run has three acts. Clients ask and mishaps strike, each followed by a new start. Then everything is left in peace
//! until all must have been answered, told and expired, and the judges look at everything. Then the member is started
//! once more, in some runs on a disk with flipped bits, and what it says must still be true or be a fault.

mod acts;
mod clients;
mod threads;

use std::time::Duration;

use machine::BackendDone;
use machine::watch::CatchUpDone;
use node::Event;

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
    act: Act,
    asked: u64,
    /// When clients fell silent.
    quiet_since: Duration,
    /// Whether there is no space on the disk, or soon will not be.
    is_full: bool,
    summary: Summary,
    /// What happened.
    pub trace: Trace,
}

impl World {
    /// Makes the world of `seed`; `keeps_trace` says whether anyone will read the trace.
    pub fn new(seed: u64, keeps_trace: bool) -> Self {
        let scenario = Scenario::new(seed);
        let rng = Rng::new(seed).fork(2);
        let members = vec![Member::new(scenario.config.clone())];
        let subscribers = (0..scenario.streams).map(|_| Subscriber::default()).collect();
        Self {
            agenda: Agenda::default(),
            workload: Workload::new(rng.fork(3)),
            rng,
            judge: Judge::new(members.len() as u64, TTL_MIN),
            members,
            history: History::default(),
            subscribers,
            act: Act::Work,
            asked: 0,
            quiet_since: Duration::ZERO,
            is_full: false,
            summary: Summary::default(),
            trace: Trace::new(keeps_trace),
            scenario,
        }
    }

    /// Runs it to its end.
    pub fn run(&mut self) -> Result<Summary, Violation> {
        self.trace.line(Duration::ZERO, || format!("{:?}", self.scenario));
        for member in 0..self.members.len() {
            self.agenda.after(Duration::ZERO, Due::Start { member });
        }
        for client in 0..self.scenario.clients {
            let pause = self.pause();
            self.agenda.after(pause, Due::Client { client });
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
        Ok(summary.clone())
    }

    fn pause(&mut self) -> Duration {
        self.rng.micros(1..self.scenario.pause_max)
    }

    fn disk_pause(&mut self) -> Duration {
        self.rng.micros(1..self.scenario.disk_pause_max)
    }

    fn happen(&mut self, due: Due) -> Result<(), Violation> {
        match due {
            Due::In { member, life, step } => {
                if self.members[member].life == life && self.members[member].process.is_some() {
                    self.step(member, step)?;
                    self.see_to_power(member);
                }
                Ok(())
            }
            Due::Start { member } => self.start(member),
            Due::Client { client } => self.client(client),
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
