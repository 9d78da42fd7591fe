//! The canonical byte encoding of everything that crosses the network or is hashed.
//!
//! Integers are unsigned LEB128 varints in their shortest form (at most ten bytes), byte strings are a varint length and
//! the bytes, lists a varint count and the items, enums a varint tag and the variant's fields, `Option` a byte 0 or 1.
//! Every value has exactly one encoding: a decoder refuses longer varints, unknown tags and bytes left over, so that
//! `decode(x)` succeeding implies `encode(decode(x)) == x`. This is what lets a hash or a signature of the encoding stand for
//! the value.
//!
//! Every length is checked against a fixed maximum *and* against the bytes that are really there before anything is
//! allocated: a decoder never believes what a stranger claims.

pub(crate) mod digits;

use thiserror::Error;

/// The largest frame that a peer may send, in bytes.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Why bytes could not be decoded. The bytes are refused whole; nothing was taken from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// The input ended inside a value.
    #[error("the input ends inside a value")]
    Truncated,
    /// A varint was not in its shortest form or does not fit its type.
    #[error("a number is not in its shortest form or too large")]
    Varint,
    /// A length or count is above the maximum for this field.
    #[error("{0} is longer than allowed")]
    TooLong(&'static str),
    /// An enum tag, flag or version that this program does not know.
    #[error("unknown {0}")]
    Unknown(&'static str),
    /// Bytes were left over behind the value.
    #[error("bytes are left over behind the value")]
    Trailing,
    /// A field has a value that its type forbids.
    #[error("invalid {0}")]
    Invalid(&'static str),
}

/// A value with one canonical encoding.
pub trait Wire: Sized {
    /// Appends the encoding to `out`.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads one value from the front of `input`.
    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError>;

    /// The encoding as a new vector.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// Decodes a value that must fill `bytes` exactly.
    fn from_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        let mut input = Reader::new(bytes);
        let value = Self::decode(&mut input)?;
        input.finish()?;
        Ok(value)
    }
}

/// A cursor over received bytes.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The bytes not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Fails unless everything was read.
    pub fn finish(&self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::Trailing)
        }
    }

    /// Takes the next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], WireError> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(WireError::Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    /// Takes a fixed-size array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| WireError::Truncated)
    }

    /// Takes one byte.
    pub fn byte(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }

    /// Takes a varint.
    pub fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(WireError::Varint);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return if byte == 0 && shift > 0 {
                    Err(WireError::Varint)
                } else {
                    Ok(value)
                };
            }
        }
        Err(WireError::Varint)
    }

    /// Takes a count of items that are at least `item_bytes_min` long each, at most `max`.
    pub fn count(&mut self, max: usize, item_bytes_min: usize, what: &'static str) -> Result<usize, WireError> {
        let count = usize::try_from(self.varint()?).map_err(|_| WireError::TooLong(what))?;
        if count > max {
            return Err(WireError::TooLong(what));
        }
        if count.saturating_mul(item_bytes_min) > self.rest.len() {
            return Err(WireError::Truncated);
        }
        Ok(count)
    }

    /// Takes a length-prefixed byte string of at most `max` bytes.
    pub fn bytes(&mut self, max: usize, what: &'static str) -> Result<&'a [u8], WireError> {
        let len = self.count(max, 1, what)?;
        self.take(len)
    }

    /// Takes a length-prefixed UTF-8 string of at most `max` bytes.
    pub fn text(&mut self, max: usize, what: &'static str) -> Result<String, WireError> {
        let bytes = self.bytes(max, what)?;
        std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|_| WireError::Invalid(what))
    }

    /// Takes a list of at most `max` items.
    pub fn list<T: Wire>(&mut self, max: usize, what: &'static str) -> Result<Vec<T>, WireError> {
        let count = self.count(max, 1, what)?;
        let mut items = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            items.push(T::decode(self)?);
        }
        Ok(items)
    }
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        // Truncation keeps the low seven bits, which is what a varint byte holds.
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length-prefixed byte string.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a list.
pub fn put_list<T: Wire>(out: &mut Vec<u8>, items: &[T]) {
    put_varint(out, items.len() as u64);
    for item in items {
        item.encode(out);
    }
}

impl Wire for u64 {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, *self);
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        input.varint()
    }
}

impl Wire for u32 {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(*self));
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        u32::try_from(input.varint()?).map_err(|_| WireError::Varint)
    }
}

impl Wire for bool {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        match input.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::Invalid("flag")),
        }
    }
}

impl<const N: usize> Wire for [u8; N] {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        input.array()
    }
}

impl<T: Wire> Wire for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                value.encode(out);
            }
        }
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        if bool::decode(input)? {
            Ok(Some(T::decode(input)?))
        } else {
            Ok(None)
        }
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok((A::decode(input)?, B::decode(input)?))
    }
}

/// Implements [`Wire`] for a struct: fields in order. `field: list(MAX)`, `field: text(MAX)` and `field: bytes(MAX)` bound
/// a `Vec<T>`, a `String` and a `Vec<u8>`; a plain `field` uses its type's own encoding.
#[macro_export]
macro_rules! wire_struct {
    ($name:ident { $($field:ident $(: $kind:ident ($max:expr))?),* $(,)? }) => {
        impl $crate::wire::Wire for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                $($crate::wire_put!(out, self.$field $(, $kind)?);)*
            }
            fn decode(input: &mut $crate::wire::Reader<'_>) -> Result<Self, $crate::wire::WireError> {
                $(let $field = $crate::wire_take!(input, stringify!($field) $(, $kind, $max)?);)*
                Ok(Self { $($field),* })
            }
        }
    };
}

/// Implements [`Wire`] for an enum with a varint tag per variant; fields as in [`wire_struct!`].
#[macro_export]
macro_rules! wire_enum {
    ($name:ident { $($tag:literal => $variant:ident { $($field:ident $(: $kind:ident ($max:expr))?),* $(,)? }),* $(,)? }) => {
        impl $crate::wire::Wire for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant { $($field),* } => {
                        $crate::wire::put_varint(out, $tag);
                        $($crate::wire_put!(out, *$field $(, $kind)?);)*
                    })*
                }
            }
            fn decode(input: &mut $crate::wire::Reader<'_>) -> Result<Self, $crate::wire::WireError> {
                match input.varint()? {
                    $($tag => {
                        $(let $field = $crate::wire_take!(input, stringify!($field) $(, $kind, $max)?);)*
                        Ok(Self::$variant { $($field),* })
                    })*
                    _ => Err($crate::wire::WireError::Unknown(stringify!($name))),
                }
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! wire_put {
    ($out:ident, $value:expr) => {
        $crate::wire::Wire::encode(&$value, $out)
    };
    ($out:ident, $value:expr, list) => {
        $crate::wire::put_list($out, &$value)
    };
    ($out:ident, $value:expr, text) => {
        $crate::wire::put_bytes($out, $value.as_bytes())
    };
    ($out:ident, $value:expr, bytes) => {
        $crate::wire::put_bytes($out, &$value)
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! wire_take {
    ($input:ident, $what:expr) => {
        $crate::wire::Wire::decode($input)?
    };
    ($input:ident, $what:expr, list, $max:expr) => {
        $input.list($max, $what)?
    };
    ($input:ident, $what:expr, text, $max:expr) => {
        $input.text($max, $what)?
    };
    ($input:ident, $what:expr, bytes, $max:expr) => {
        $input.bytes($max, $what)?.to_vec()
    };
}

/// Defines a named 32-byte (or other fixed-size) identifier with hexadecimal `Debug` and [`Wire`].
#[macro_export]
macro_rules! wire_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The first eight bytes, for compact references and log lines.
            pub fn prefix(&self) -> [u8; 8] {
                let mut head = [0; 8];
                head.copy_from_slice(&self.0[..8]);
                head
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "("))?;
                for byte in &self.0[..4] {
                    write!(f, "{byte:02x}")?;
                }
                write!(f, ")")
            }
        }

        impl $crate::wire::Wire for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.0);
            }
            fn decode(input: &mut $crate::wire::Reader<'_>) -> Result<Self, $crate::wire::WireError> {
                Ok(Self(input.array()?))
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_varint_has_one_encoding() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let bytes = value.to_bytes();
            assert_eq!(u64::from_bytes(&bytes), Ok(value));
        }
        assert_eq!(u64::from_bytes(&[0x80, 0x00]), Err(WireError::Varint));
        assert_eq!(u64::from_bytes(&[0xff; 10]), Err(WireError::Varint));
        assert_eq!(u64::from_bytes(&[1, 2]), Err(WireError::Trailing));
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, u64::MAX / 2);
        assert_eq!(Reader::new(&bytes).bytes(usize::MAX, "x"), Err(WireError::Truncated));
        assert_eq!(Reader::new(&bytes).bytes(10, "x"), Err(WireError::TooLong("x")));
    }

    #[derive(Debug, PartialEq)]
    enum Sample {
        Empty {},
        Full {
            name: String,
            items: Vec<u64>,
            id: [u8; 4],
            maybe: Option<u32>,
        },
    }
    wire_enum!(Sample { 0 => Empty {}, 7 => Full { name: text(8), items: list(3), id, maybe } });

    #[test]
    fn enums_round_trip_and_refuse_what_is_too_long() {
        let full = Sample::Full {
            name: "room".into(),
            items: vec![1, 500],
            id: [9; 4],
            maybe: Some(3),
        };
        assert_eq!(Sample::from_bytes(&full.to_bytes()), Ok(full));
        assert_eq!(Sample::from_bytes(&Sample::Empty {}.to_bytes()), Ok(Sample::Empty {}));
        let long = Sample::Full {
            name: "much too long".into(),
            items: vec![],
            id: [0; 4],
            maybe: None,
        };
        assert_eq!(Sample::from_bytes(&long.to_bytes()), Err(WireError::TooLong("name")));
        assert_eq!(Sample::from_bytes(&[3]), Err(WireError::Unknown("Sample")));
    }
}
