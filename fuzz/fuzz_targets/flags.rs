//! libFuzzer's entry to `fuzzing::flags::run`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::flags::run(data));
