//! libFuzzer's entry to `fuzzing::backend::open`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::backend::open(data));
