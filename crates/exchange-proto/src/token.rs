//! Unguessable tokens (tags, branches, Call-IDs) from a seed that the shell draws at start.

/// A generator: `BLAKE3(seed, counter)`, so a run with the same seed repeats.
#[derive(Clone)]
pub struct Tokens {
    seed: [u8; 32],
    count: u64,
}

impl Tokens {
    /// Starts from a seed that must not be used twice.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, count: 0 }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.count += 1;
        let hash = blake3::keyed_hash(&self.seed, &self.count.to_le_bytes());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hash.as_bytes()[..8]);
        u64::from_le_bytes(bytes)
    }

    /// The next token, 16 hexadecimal digits.
    pub fn next_token(&mut self) -> String {
        format!("{:016x}", self.next_u64())
    }

    /// A Via branch with the magic cookie.
    pub fn next_branch(&mut self) -> String {
        format!("z9hG4bK{:016x}", self.next_u64())
    }
}
