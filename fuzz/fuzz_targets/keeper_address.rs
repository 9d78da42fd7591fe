//! See `keeper_address` in `crates/proto/src/fuzzing.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    offhook_proto::fuzzing::keeper_address(data);
});
