//! Replays the kept corpora (`fuzz/corpus/`): every input that once broke something, and one per thing worth reaching.

use std::fs;
use std::path::{Path, PathBuf};

use fuzzing::TARGETS;

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name)
}

#[test]
fn every_kept_input_returns() {
    let mut broken = Vec::new();
    for target in TARGETS {
        let mut inputs: Vec<_> = fs::read_dir(corpus(target.name))
            .unwrap_or_else(|error| panic!("{} has no corpus: {error}", target.name))
            .map(|entry| entry.unwrap().path())
            .collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{} has an empty corpus", target.name);
        for path in inputs {
            let data = fs::read(&path).unwrap();
            let run = std::panic::catch_unwind(|| (target.run)(&data));
            if run.is_err() {
                broken.push(path);
            }
        }
    }
    assert!(broken.is_empty(), "these do not return: {broken:#?}");
}

#[test]
fn every_corpus_and_every_binary_has_its_target() {
    let known: Vec<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let names = |dir: &str, suffix: &str| {
        let mut names: Vec<String> = fs::read_dir(corpus("..").join(dir))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .map(|name| name.trim_end_matches(suffix).to_owned())
            .collect();
        names.sort();
        names
    };
    let mut sorted = known;
    sorted.sort();
    assert_eq!(names("corpus", ""), sorted);
    assert_eq!(names("fuzz_targets", ".rs"), sorted);
}
