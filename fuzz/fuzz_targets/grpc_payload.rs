//! libFuzzer's entry to `fuzzing::grpc::run`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::grpc::run(data));
