//! The record of a run: a BLAKE3 hash over every input and output in order, and, where asked for, a line of text for each.

use std::fmt::{Arguments, Write as _};
use std::io::Write;

use offhook_proto::peer::{Input, Output};

use crate::clock::Micros;

/// Hashes, counts and writes what happens.
pub(crate) struct Trace {
    hasher: blake3::Hasher,
    sink: Option<Box<dyn Write>>,
    text: String,
}

impl Trace {
    pub(crate) fn new(sink: Option<Box<dyn Write>>) -> Self {
        Self {
            hasher: blake3::Hasher::new_derive_key("offhook sim 1 trace"),
            sink,
            text: String::new(),
        }
    }

    /// The hash of everything so far, its first 16 digits.
    pub(crate) fn hash(&self) -> String {
        self.hasher.finalize().to_hex()[..16].to_owned()
    }

    pub(crate) fn input(&mut self, now: Micros, node: usize, input: &Input) {
        match input {
            Input::Frame { peer, bytes } => self.frame(now, node, "frame from", &peer.0, bytes),
            _ => self.note(now, node, format_args!("in {input:?}")),
        }
    }

    pub(crate) fn output(&mut self, now: Micros, node: usize, output: &Output) {
        match output {
            Output::Send { peer, bytes } => self.frame(now, node, "send to", &peer.0, bytes),
            _ => self.note(now, node, format_args!("out {output:?}")),
        }
    }

    /// Anything else that belongs to the run: faults, crashes, restarts.
    pub(crate) fn note(&mut self, now: Micros, node: usize, what: Arguments<'_>) {
        self.text.clear();
        // Writing to a String cannot fail.
        let _ = write!(
            self.text,
            "{:>10}.{:06} n{node} {what}",
            now / 1_000_000,
            now % 1_000_000
        );
        self.hasher.update(self.text.as_bytes());
        self.emit();
    }

    /// Frames are most of a run, so their bytes go into the hash directly.
    fn frame(&mut self, now: Micros, node: usize, what: &str, peer: &[u8; 32], bytes: &[u8]) {
        self.hasher.update(&now.to_be_bytes());
        self.hasher.update(&(node as u64).to_be_bytes());
        self.hasher.update(what.as_bytes());
        self.hasher.update(peer);
        self.hasher.update(bytes);
        if self.sink.is_some() {
            self.text.clear();
            let _ = write!(
                self.text,
                "{:>10}.{:06} n{node} {what} {} tag {:?} len {} hash {}",
                now / 1_000_000,
                now % 1_000_000,
                &blake3::Hash::from(*peer).to_hex()[..8],
                bytes.first(),
                bytes.len(),
                &blake3::hash(bytes).to_hex()[..8],
            );
            self.emit();
        }
    }

    fn emit(&mut self) {
        if let Some(sink) = &mut self.sink {
            // A trace that cannot be written must not change the run.
            let _ = writeln!(sink, "{}", self.text);
        }
    }
}
