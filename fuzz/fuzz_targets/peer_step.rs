//! libFuzzer's entry to `fuzzing::peer::run`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::peer::run(data));
