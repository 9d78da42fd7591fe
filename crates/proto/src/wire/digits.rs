//! Bytes as digits of so many bits each, high ones first, and back: what links and spoken words are written in.

/// The bytes as digits of `width` bits (1 to 16); the last is filled up with zeros.
pub(crate) fn pack(bytes: &[u8], width: u32) -> Vec<u16> {
    let mut digits = Vec::with_capacity(bytes.len() * 8 / width as usize + 1);
    let (mut held, mut bits) = (0u32, 0);
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= width {
            bits -= width;
            digits.push((held >> bits) as u16);
            held &= (1 << bits) - 1;
        }
    }
    if bits > 0 {
        digits.push((held << (width - bits)) as u16);
    }
    digits
}

/// The whole bytes in digits of `width` bits, and how many bits were left over; none where those are not zero.
pub(crate) fn unpack(digits: impl IntoIterator<Item = u16>, width: u32) -> Option<(Vec<u8>, u32)> {
    let mut bytes = Vec::new();
    let (mut held, mut bits) = (0u32, 0);
    for digit in digits {
        held = held << width | u32::from(digit);
        bits += width;
        while bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    (held == 0).then_some((bytes, bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn digits_hold_the_bytes(bytes in prop::collection::vec(any::<u8>(), 0..100), width in 1u32..=16) {
            let digits = pack(&bytes, width);
            prop_assert!(digits.iter().all(|digit| u32::from(*digit) < 1 << width));
            let (again, left) = unpack(digits, width).unwrap();
            prop_assert_eq!(&again[..bytes.len()], &bytes[..]);
            prop_assert!(again[bytes.len()..].iter().all(|byte| *byte == 0) && left < 8);
        }
    }
}
