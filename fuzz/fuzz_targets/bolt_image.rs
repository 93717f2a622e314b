//! libFuzzer's entry to `fuzzing::bolt::run`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::bolt::run(data));
