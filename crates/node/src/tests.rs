//! Whole members over disks in memory, driven by the scripts in `testdata/member/` and `testdata/cluster/`.
//!
//! The runner does what drivers and network do: it carries out WAL and backend jobs, at once or when a script says so,
//! gives their results back, and delivers messages and snapshots. A command is for the member that its prefix names, `m1` without
//! one. `hold wal` and `hold backend` leave jobs lying; `crash` loses what was not carried out; `cut` loses messages;
//! `fail` makes the disk fail.

mod failing;
mod random;
mod script;
mod snapshots;
mod world;

use self::world::World;

fn run_scripts(topic: &str) {
    let directory = format!("{}/testdata/{topic}", env!("CARGO_MANIFEST_DIR"));
    for entry in std::fs::read_dir(directory).expect("the scripts are there") {
        let path = entry.expect("readable").path();
        goldenscript::run(&mut World::default(), &path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

#[test]
fn scripts_tell_the_life_of_a_member() {
    run_scripts("member");
}

#[test]
fn scripts_tell_the_life_of_a_cluster() {
    run_scripts("cluster");
}
