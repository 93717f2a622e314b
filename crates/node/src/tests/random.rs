//! Clusters under random faults: members crash and return, get cut off, and their disks hang. When all is healed, they hold
//! the same, and nothing that was acknowledged is lost.

use std::collections::BTreeMap;
use std::error::Error;

use bytes::Bytes;
use prost::Message as _;
use proto::etcdserverpb as pb;

use super::world::{World, member};
use crate::*;

const MEMBERS: usize = 3;
const STEPS: usize = 400;

/// Numbers that look random and are the same in every run (`splitmix64`).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((word ^ (word >> 31)) % bound as u64).expect("below bound")
    }
}

/// What becomes of puts, each of its own key.
#[derive(Default)]
struct History {
    acknowledged: Vec<String>,
    count: usize,
}

impl History {
    fn read(&mut self, out: &str) {
        let done = out.lines().filter_map(|line| {
            line.strip_suffix(": ok").or_else(|| Some(line.split_once(": ok,")?.0))
        });
        self.acknowledged.extend(done.map(str::to_owned));
    }
}

fn step(
    world: &mut World,
    numbers: &mut Numbers,
    history: &mut History,
) -> Result<(), Box<dyn Error>> {
    world.chosen = format!("m{}", 1 + numbers.below(MEMBERS));
    let is_running = world.member().process.is_some();
    match numbers.below(20) {
        0 if is_running => world.member().process = None,
        0..=3 if !is_running => world.start()?,
        4 => world.member().is_cut = true,
        5 | 6 => world.member().is_cut = false,
        7 => world.member().holds_wal = true,
        8 => world.member().holds_backend = true,
        9 | 10 => {
            world.member().holds_wal = false;
            world.member().holds_backend = false;
            world.settle()?;
        }
        11..=14 if is_running => {
            history.count += 1;
            put(world, &format!("key{}", history.count))?;
        }
        15 if is_running => {
            let token = world.ask("read".to_owned());
            world.give(Event::Read(vec![token]))?;
        }
        _ => world.tick()?,
    }
    Ok(())
}

fn put(world: &mut World, key: &str) -> Result<(), Box<dyn Error>> {
    let token = world.ask(key.to_owned());
    let id = world.process()?.node.request_ids().next();
    let key = Bytes::from(key.to_owned());
    let request = pb::InternalRaftRequest {
        header: Some(pb::RequestHeader { id, ..Default::default() }),
        put: Some(pb::PutRequest { key, value: "v".into(), ..Default::default() }),
        ..Default::default()
    };
    world.give(Event::Propose(vec![Proposal { token, id, data: request.encode_to_vec().into() }]))
}

/// Heals everything and lets time pass until all have caught up.
fn heal(world: &mut World) -> Result<(), Box<dyn Error>> {
    for index in 1..=MEMBERS {
        world.chosen = format!("m{index}");
        world.member().is_cut = false;
        world.member().holds_wal = false;
        world.member().holds_backend = false;
        if world.member().process.is_none() {
            world.start()?;
        }
    }
    world.settle()?;
    for _ in 0..120 {
        world.tick()?;
    }
    Ok(())
}

fn run(seed: u64) -> Result<(usize, BTreeMap<String, u32>), Box<dyn Error>> {
    let mut world = World::default();
    let mut numbers = Numbers(seed);
    let mut history = History::default();
    for index in 1..=MEMBERS {
        world.chosen = format!("m{index}");
        world.member().config.bootstrap.members = (1..=MEMBERS).map(member).collect();
        world.start()?;
    }
    for _ in 0..STEPS {
        step(&mut world, &mut numbers, &mut history)?;
        history.read(&std::mem::take(&mut world.out));
    }
    heal(&mut world)?;
    history.read(&std::mem::take(&mut world.out));
    let mut hashes = BTreeMap::new();
    for (name, member) in &world.members {
        let reader = member.process.as_ref().ok_or("healed")?.node.reader();
        hashes.insert(name.clone(), reader.hash_kv(0)?.0.hash);
        for key in &history.acknowledged {
            if key == "read" || key == "nobody" {
                continue;
            }
            let request = pb::RangeRequest { key: key.clone().into(), ..Default::default() };
            let (_, reply) = reader.range(&request)?;
            assert_eq!(reply.kvs.len(), 1, "seed {seed}: {name} has lost {key}");
        }
    }
    Ok((history.acknowledged.len(), hashes))
}

#[test]
fn nothing_acknowledged_is_lost_and_members_agree() {
    let mut acknowledged = 0;
    for seed in 0..20 {
        let (count, hashes) = run(seed).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let first = hashes.values().next();
        assert!(hashes.values().all(|hash| Some(hash) == first), "seed {seed}: {hashes:?}");
        acknowledged += count;
    }
    assert!(acknowledged > 200, "the faults let almost nothing through: {acknowledged}");
}

#[test]
fn equal_seeds_give_equal_histories() {
    for seed in [3, 4] {
        let (first, second) = (run(seed), run(seed));
        assert_eq!(first.expect("runs"), second.expect("runs"));
    }
}
