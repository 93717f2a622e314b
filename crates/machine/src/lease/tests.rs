//! Scripts in `testdata/lease/` and a naive model of the lessor.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use goldenscript::{Argument, Command, Context};
use proptest::prelude::*;
use proto::leasepb;

use super::*;

struct Runner {
    lessor: Lessor,
    now: Now,
}

impl Runner {
    fn new() -> Self {
        Self { lessor: Lessor::new(options(false)), now: Duration::ZERO }
    }

    /// Tells the largest number of leases that expire within one second, and the span of all expiries.
    fn spread(&mut self) -> String {
        let ids = self.lessor.list();
        let primary = self.lessor.primary.as_ref().expect("scripts promote first");
        let times: Vec<u64> = ids
            .iter()
            .map(|&id| primary.expiry(self.lessor.table.find(id).expect("listed")))
            .collect();
        let most = (0..times.len())
            .map(|first| times[first..].partition_point(|&at| at < times[first] + 1000))
            .max()
            .unwrap_or(0);
        let (first, last) = (times.first().unwrap_or(&0), times.last().unwrap_or(&0));
        format!("{} leases, at most {most} in a second, from {first} ms to {last} ms", times.len())
    }
}

type Ran<T> = Result<T, Box<dyn Error>>;

impl Runner {
    /// Runs commands on what all members have; `None` if `name` is none of them.
    fn run_replicated(&mut self, name: &str, args: &[&str]) -> Ran<Option<String>> {
        let lessor = &mut self.lessor;
        let number = |place: usize| args[place].parse::<i64>();
        let outcome = |outcome: Result<String, Refusal>| match outcome {
            Ok(done) => done,
            Err(refusal) => refusal.to_string(),
        };
        let out = match name {
            "options" => {
                *lessor = Lessor::new(options(args == ["on"]));
                String::new()
            }
            "grant" => outcome(
                lessor.grant(number(0)?, number(1)?).map(|ttl| format!("granted with ttl {ttl}")),
            ),
            "fill" => {
                for id in number(0)?..=number(1)? {
                    lessor.grant(id, number(2)?)?;
                }
                String::new()
            }
            "revoke" => {
                outcome(lessor.revoke(number(0)?).map(|keys| format!("revoked, deletes {keys:?}")))
            }
            "attach" => {
                outcome(lessor.attach(number(0)?, args[1].as_bytes()).map(|()| String::new()))
            }
            "detach" => format!("from {:?}", lessor.detach(args[0].as_bytes())),
            "lease_of" => format!("{:?}", lessor.lease_of(args[0].as_bytes())),
            "keys" => {
                let mut keys: Vec<_> =
                    lessor.keys(number(0)?).map(String::from_utf8_lossy).collect();
                keys.sort();
                format!("{keys:?} of {}", lessor.attached())
            }
            "checkpoint" => match lessor.checkpoint(number(0)?, number(1)?) {
                Some(stored) => format!("stores {stored:?}"),
                None => "passed over".to_owned(),
            },
            "stored" => format!("{:?}", lessor.stored(number(0)?)),
            "recover" => {
                lessor.recover(args.iter().map(|arg| stored_lease(arg)));
                String::new()
            }
            "list" => format!("{:?}", lessor.list()),
            _ => return Ok(None),
        };
        Ok(Some(out))
    }

    /// Runs commands that only mean something on the primary.
    fn run_primary(&mut self, name: &str, args: &[&str]) -> Ran<String> {
        let now = self.now;
        let seconds = |place: usize| -> Ran<Duration> {
            Ok(Duration::try_from_secs_f64(args[place].parse()?)?)
        };
        let lessor = &mut self.lessor;
        Ok(match name {
            "at" => {
                self.now = seconds(0)?;
                lessor.tick(self.now);
                String::new()
            }
            "promote" => {
                lessor.promote(now, seconds(0)?);
                String::new()
            }
            "demote" => {
                lessor.demote();
                String::new()
            }
            "renew" => format!("{:?}", lessor.renew(now, args[0].parse()?)),
            "expired" => {
                let max = args.first().map_or(Ok(500), |max| max.parse())?;
                format!("{:?}", lessor.expired(now, max))
            }
            "put_off" => {
                let ids: Vec<i64> = args.iter().map(|id| id.parse()).collect::<Result<_, _>>()?;
                lessor.put_off(&ids);
                String::new()
            }
            "take_revoked" => format!("{:?}", lessor.take_revoked()),
            "checkpoints" => format!("{:?}", lessor.checkpoints(now, 1000)),
            "ttl" => match lessor.time_to_live(now, args[0].parse()?) {
                Some(times) => format!("remaining {:?} of {}", times.remaining, times.granted),
                None => "unknown".to_owned(),
            },
            "spread" => self.spread(),
            other => return Err(format!("unknown command {other}").into()),
        })
    }
}

/// Parses `id/ttl/remaining ttl`.
fn stored_lease(text: &str) -> leasepb::Lease {
    let mut parts = text.split('/').map(|part| part.parse().expect("a number"));
    let mut next = || parts.next().unwrap_or(0);
    leasepb::Lease { id: next(), ttl: next(), remaining_ttl: next() }
}

/// Without slack for the clock, so that scripts show round numbers.
fn options(checkpoints: bool) -> Options {
    Options { clock_step: Duration::ZERO, checkpoints, ..Options::default() }
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let args: Vec<&str> = command
            .args
            .iter()
            .map(|arg| match arg {
                Argument::Positional(value) | Argument::KeyValue(_, value) => value.as_str(),
                other => panic!("unexpected argument {other:?}"),
            })
            .collect();
        if let Some(out) = self.run_replicated(&command.name, &args)? {
            return Ok(out);
        }
        self.run_primary(&command.name, &args)
    }
}

#[test]
fn scripts_tell_the_rules_of_leases() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/lease");
    for entry in std::fs::read_dir(directory).expect("the scripts are there") {
        let path = entry.expect("readable").path();
        goldenscript::run(&mut Runner::new(), &path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// What a lessor promises, kept naively.
#[derive(Default)]
struct Model {
    /// Id to ttl and, on the primary, expiry in milliseconds.
    leases: BTreeMap<i64, (i64, u64)>,
    keys: BTreeMap<Vec<u8>, i64>,
}

impl Model {
    fn grant(&mut self, id: i64, ttl: i64, now: u64) -> Result<i64, Refusal> {
        if id == 0 {
            return Err(Refusal::LeaseNotFound);
        }
        if self.leases.contains_key(&id) {
            return Err(Refusal::LeaseExists);
        }
        self.leases.insert(id, (ttl, now + millis_of(ttl)));
        Ok(ttl)
    }

    fn renew(&mut self, id: i64, now: u64) -> Renewal {
        match self.leases.get_mut(&id) {
            None => Renewal::Unknown,
            Some(&mut (_, expiry)) if expiry <= now => Renewal::Expired,
            Some((ttl, expiry)) => {
                *expiry = (*expiry).max(now + millis_of(*ttl));
                Renewal::Renewed { ttl: *ttl, clear_checkpoint: false }
            }
        }
    }

    fn due(&self, now: u64) -> Vec<i64> {
        self.leases.iter().filter(|(_, lease)| lease.1 <= now).map(|(&id, _)| id).collect()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Grant(i64, i64),
    Revoke(i64),
    Attach(i64, u8),
    Detach(u8),
    Renew(i64),
    Pass(u64),
    Expire,
    Reelect,
}

fn step() -> impl Strategy<Value = Step> {
    let id = -4..12_i64;
    prop_oneof![
        3 => (id.clone(), 0..90_i64).prop_map(|(id, ttl)| Step::Grant(id, ttl)),
        1 => id.clone().prop_map(Step::Revoke),
        4 => (id.clone(), 0..20_u8).prop_map(|(id, key)| Step::Attach(id, key)),
        1 => (0..20_u8).prop_map(Step::Detach),
        3 => id.prop_map(Step::Renew),
        3 => (0..20_000_u64).prop_map(Step::Pass),
        3 => Just(Step::Expire),
        1 => Just(Step::Reelect),
    ]
}

proptest! {
    #[test]
    fn a_lessor_does_what_the_naive_model_does(steps in prop::collection::vec(step(), 1..200)) {
        let mut lessor = Lessor::new(options(false));
        let mut model = Model::default();
        let mut now = 0_u64;
        let time = Duration::from_millis;
        lessor.promote(time(now), Duration::ZERO);
        for step in steps {
            match step {
                Step::Grant(id, ttl) => {
                    let expected = model.grant(id, ttl.max(2), now);
                    prop_assert_eq!(lessor.grant(id, ttl), expected);
                }
                Step::Revoke(id) => check_revoke(&mut lessor, &mut model, id)?,
                Step::Attach(id, key) => {
                    let key = vec![b'k'; usize::from(key)];
                    let known = model.leases.contains_key(&id);
                    prop_assert_eq!(lessor.attach(id, &key).is_ok(), known);
                    if known {
                        model.keys.insert(key, id);
                    }
                }
                Step::Detach(key) => {
                    let key = vec![b'k'; usize::from(key)];
                    prop_assert_eq!(lessor.detach(&key), model.keys.remove(&key));
                }
                Step::Renew(id) => {
                    prop_assert_eq!(lessor.renew(time(now), id), model.renew(id, now));
                }
                Step::Pass(by) => {
                    now += by;
                    lessor.tick(time(now));
                }
                Step::Expire => {
                    let due = model.due(now);
                    let mut expired = lessor.expired(time(now), 500);
                    expired.sort_unstable();
                    prop_assert_eq!(&expired, &due);
                    for id in due {
                        check_revoke(&mut lessor, &mut model, id)?;
                    }
                }
                Step::Reelect => {
                    lessor.demote();
                    lessor.promote(time(now), Duration::from_secs(1));
                    for (ttl, expiry) in model.leases.values_mut() {
                        *expiry = now + 1000 + millis_of(*ttl);
                    }
                }
            }
            prop_assert_eq!(lessor.attached(), model.keys.len());
            let mut order: Vec<i64> = model.leases.keys().copied().collect();
            order.sort_by_key(|id| (model.leases[id].1, *id));
            prop_assert_eq!(lessor.list(), order);
        }
        for (key, &id) in &model.keys {
            prop_assert_eq!(lessor.lease_of(key), Some(id));
        }
    }
}

fn millis_of(seconds: i64) -> u64 {
    seconds.unsigned_abs() * 1000
}

fn check_revoke(lessor: &mut Lessor, model: &mut Model, id: i64) -> Result<(), TestCaseError> {
    let expected = model.leases.remove(&id).map(|_| {
        let keys: Vec<Vec<u8>> = model
            .keys
            .iter()
            .filter(|(_, lease)| **lease == id)
            .map(|(key, _)| key.clone())
            .collect();
        for key in &keys {
            model.keys.remove(key);
        }
        keys
    });
    let revoked = lessor.revoke(id).ok();
    prop_assert_eq!(revoked.map(|keys| keys.iter().map(|key| key.to_vec()).collect()), expected);
    Ok(())
}
