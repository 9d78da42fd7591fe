//! A decoder with a planted bug, built from the same parts as the real ones: `cargo xtask fuzz --planted` demands that
//! the fuzzer finds it, which shows that coverage feedback and dictionaries work as the real targets are run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use offhook_proto::wire::{Reader, WireError};

fuzz_target!(|data: &[u8]| {
    let _ = decode(data);
});

/// A magic word (from the dictionary), a version (from coverage), a name of bounded length (from both), and then the bug.
fn decode(data: &[u8]) -> Result<(), WireError> {
    let mut input = Reader::new(data);
    if input.take(8)? != b"offhook:" {
        return Err(WireError::Unknown("magic"));
    }
    if input.varint()? != 300 {
        return Err(WireError::Unknown("version"));
    }
    if input.text(16, "name")? == "knock knock" {
        let last = input.byte()?;
        assert!(last != 0x7f, "planted bug reached");
    }
    Ok(())
}
