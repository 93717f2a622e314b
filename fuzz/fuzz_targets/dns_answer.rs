//! libFuzzer's entry to `fuzzing::dns::run`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::dns::run(data));
