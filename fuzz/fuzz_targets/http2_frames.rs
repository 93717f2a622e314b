//! libFuzzer's entry to `fuzzing::http2::run`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::http2::run(data));
