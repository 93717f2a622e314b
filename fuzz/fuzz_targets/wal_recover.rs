//! libFuzzer's entry to `fuzzing::wal::run`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::wal::run(data));
