//! See `line` in `crates/proto/src/fuzzing/line.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    offhook_proto::fuzzing::line(data, std::time::Instant::now());
});
