//! libFuzzer's entry to `fuzzing::gateway::run`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::gateway::run(data));
