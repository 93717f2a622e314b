//! libFuzzer's entry to `fuzzing::backend::records`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::backend::records(data));
