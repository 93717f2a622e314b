//! libFuzzer's entry to `fuzzing::apply::run`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::apply::run(data));
