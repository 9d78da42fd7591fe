//! See `dht` in `crates/proto/src/fuzzing.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    offhook_proto::fuzzing::dht(data, std::time::Instant::now());
});
