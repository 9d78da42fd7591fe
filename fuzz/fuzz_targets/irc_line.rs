//! Lines of IRC clients: taken apart, put together and broken into pieces (`crates/offhook/src/irc/line.rs`, as it is).
#![no_main]

#[allow(dead_code, reason = "the program uses all of it")]
#[path = "../../crates/offhook/src/irc/line.rs"]
mod line;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(message) = line::parse(text) {
        assert!(!message.line().contains(['\r', '\n', '\0']));
    }
    assert!(line::pieces(text, 400).iter().all(|piece| piece.len() <= 400 && !piece.contains(['\r', '\n'])));
});
