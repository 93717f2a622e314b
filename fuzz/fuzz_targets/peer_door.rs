//! libFuzzer's entry to `fuzzing::door::run`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::door::run(data));
