//! See `sdp` in `crates/exchange-proto/src/fuzzing.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    offhook_exchange_proto::fuzzing::sdp(data);
});
