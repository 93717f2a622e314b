//! libFuzzer's entry to `fuzzing::snapshot::run`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::snapshot::run(data));
