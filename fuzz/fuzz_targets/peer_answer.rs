//! libFuzzer's entry to `fuzzing::answer::run`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::answer::run(data));
