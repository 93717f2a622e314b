//! libFuzzer's entry to `fuzzing::stream::run`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::stream::run(data));
