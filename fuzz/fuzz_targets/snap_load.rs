//! libFuzzer's entry to `fuzzing::snap::run`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::snap::run(data));
