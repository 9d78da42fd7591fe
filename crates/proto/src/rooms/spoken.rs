//! Invites that are read aloud: the words of BIP39's English list, eight to a line, the eighth of which checks the line.
//!
//! What is said is the invite without what can be done without: one member to knock at with at most two addresses, and no name of the room. Its encoding
//! and the four bytes that check all of it are cut into eleven bits a word, and filled up with zeros. The last word of each line is the beginning of a
//! hash of the line and its number, so that a word that was misheard is found in its line, and lines that change places are, too. Why it is not shorter:
//! `docs/decisions/0022-spoken-invites.md`.

use bip39::Language;

use super::invite::{BadInvite, Invite, checksum};
use crate::crypto;
use crate::wire::{Wire, digits};

/// The longest text that is read as words, in bytes.
pub const TEXT_BYTES_MAX: usize = 8 * 1024;
/// Words of a line, the one that checks it among them.
pub const LINE_WORDS: usize = 8;
/// Addresses that are said.
const ADDRESSES_SAID: usize = 2;
const WORD_BITS: u32 = 11;
/// A word of the list is known by so many of its first letters.
const LETTERS: usize = 4;

const LINE_CHECK: &str = "offhook 1 spoken line";

impl Invite {
    /// The words, a line each.
    pub fn to_lines(&self) -> Vec<String> {
        let body = self.as_said().to_bytes();
        let mut bytes = checksum(&body).to_vec();
        bytes.extend_from_slice(&body);
        let list = Language::English.word_list();
        let digits = digits::pack(&bytes, WORD_BITS);
        let lines = digits.chunks(LINE_WORDS - 1).zip(0..);
        let line = |(line, number): (&[u16], u32)| {
            let all = line.iter().copied().chain([check(number, line)]);
            all.map(|digit| list[usize::from(digit)]).collect::<Vec<_>>().join(" ")
        };
        lines.map(line).collect()
    }

    /// Reads the words; whatever is between them, and numbers of lines, do not matter, nor does what follows on the first four letters of one.
    pub fn from_words(text: &str) -> Result<Self, BadInvite> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(BadInvite::Damaged);
        }
        let said = text
            .split(|c: char| !c.is_ascii_alphabetic())
            .filter(|word| !word.is_empty());
        let said: Vec<String> = said.map(str::to_ascii_lowercase).collect();
        let mut digits = Vec::with_capacity(said.len());
        for (number, line) in (0..).zip(said.chunks(LINE_WORDS)) {
            let read = line.iter().enumerate().map(|(at, word)| {
                digit(word).ok_or(BadInvite::Word {
                    line: number as usize + 1,
                    word: at + 1,
                })
            });
            let read = read.collect::<Result<Vec<u16>, _>>()?;
            let (last, before) = read.split_last().ok_or(BadInvite::Missing)?;
            if before.is_empty() || check(number, before) != *last {
                return Err(BadInvite::Line {
                    line: number as usize + 1,
                });
            }
            digits.extend_from_slice(before);
        }
        let (bytes, is_filled) = bytes(&digits).ok_or(BadInvite::Missing)?;
        // The zeros that fill up may be as long as a byte.
        let shorter = bytes.split_last().filter(|(last, _)| is_filled && **last == 0);
        let fits = [Some(bytes.as_slice()), shorter.map(|(_, shorter)| shorter)];
        let body = fits.into_iter().flatten().find_map(checked).ok_or(BadInvite::Missing)?;
        let mut invite = Self::from_bytes(body).map_err(BadInvite::Version)?;
        if invite != invite.as_said() {
            return Err(BadInvite::Damaged);
        }
        // Until the room is read, it has to be called something.
        let [a, b, ..] = invite.room.0;
        invite.room_name = format!("room {a:02x}{b:02x}");
        Ok(invite)
    }

    /// Reads an invite in any of its forms: as a link, or as words.
    pub fn from_text(text: &str) -> Result<Self, BadInvite> {
        let is_of_words = |c: char| c.is_ascii_alphanumeric() || c.is_whitespace() || ".,;-".contains(c);
        let words = text
            .split(|c: char| !c.is_ascii_alphabetic())
            .filter(|word| !word.is_empty());
        if text.chars().all(is_of_words) && words.count() >= LINE_WORDS {
            return Self::from_words(text);
        }
        Self::from_link(text)
    }

    /// What of an invite is said.
    fn as_said(&self) -> Self {
        let mut said = self.clone();
        said.room_name.clear();
        said.doorways.truncate(1);
        for doorway in &mut said.doorways {
            doorway.addresses.truncate(ADDRESSES_SAID);
        }
        said
    }
}

fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (sum, body) = bytes.split_first_chunk::<4>()?;
    (checksum(body) == *sum).then_some(body)
}

fn check(line: u32, digits: &[u16]) -> u16 {
    let said: Vec<u8> = digits.iter().flat_map(|digit| digit.to_be_bytes()).collect();
    let hash = crypto::hash(LINE_CHECK, &[&line.to_be_bytes(), &said]);
    u16::from_be_bytes([hash[0], hash[1]]) >> (16 - WORD_BITS)
}

fn digit(word: &str) -> Option<u16> {
    let english = Language::English;
    let by_letters = || match word.len() {
        LETTERS => english.words_by_prefix_iter(word).next(),
        _ => None,
    };
    english.find_word(word).or_else(|| english.find_word(by_letters()?))
}

/// The bytes, and whether the last may be nothing but what filled up the last word; none where that is not zero.
fn bytes(digits: &[u16]) -> Option<(Vec<u8>, bool)> {
    let (bytes, left) = digits::unpack(digits.iter().copied(), WORD_BITS)?;
    // Eight bits more than these are still less than a word.
    Some((bytes, left < WORD_BITS - 8))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::history::RoomId;
    use crate::identity::DeviceId;
    use crate::rooms::Role;
    use crate::rooms::invite::{Address, Doorway, RelayUrl};

    fn invite() -> Invite {
        Invite {
            room: RoomId([7; 32]),
            room_name: "Küche".into(),
            secret: [9; 16],
            role: Role::Member,
            expires_ms: 1_800_000_000_000,
            doorways: vec![Doorway {
                device: DeviceId([3; 32]),
                addresses: vec![Address("192.0.2.7:4433".parse().unwrap())],
                relay: None,
            }],
        }
    }

    fn heard(invite: &Invite) -> Invite {
        Invite::from_text(&invite.to_lines().join("\n")).unwrap()
    }

    #[test]
    fn words_let_in_as_the_link_does() {
        let (said, again) = (invite(), heard(&invite()));
        assert_eq!(again.room_name, "room 0707");
        assert_eq!(again.key().public(), said.key().public());
        assert_eq!(
            (again.role, again.expires_ms, &again.doorways),
            (said.role, said.expires_ms, &said.doorways)
        );
        let words = said.to_lines().join(" ").split(' ').count();
        assert!(words <= 90, "{words} words are said");
    }

    #[test]
    fn numbers_commas_capitals_and_first_letters_do_not_matter() {
        let numbered = invite().to_lines().into_iter().zip(1..).map(|(line, n)| {
            let short: Vec<String> = line.split(' ').map(|word| word.chars().take(4).collect()).collect();
            format!("{n}. {}", short.join(", ").to_uppercase())
        });
        let text: Vec<String> = numbered.collect();
        assert_eq!(Invite::from_text(&text.join("\n")), Ok(heard(&invite())));
    }

    #[test]
    fn what_was_misheard_is_found_in_its_line() {
        let lines = invite().to_lines();
        let say = |lines: &[String]| Invite::from_text(&lines.join("\n"));
        let mut wrong = lines.clone();
        let first = wrong[2].split(' ').next().unwrap().to_owned();
        let other = if first == "zoo" { "abandon" } else { "zoo" };
        wrong[2] = wrong[2].replacen(&first, other, 1);
        assert_eq!(say(&wrong), Err(BadInvite::Line { line: 3 }));
        wrong[2] = wrong[2].replacen(other, "offhook", 1);
        assert_eq!(say(&wrong), Err(BadInvite::Word { line: 3, word: 1 }));
        let mut swapped = lines.clone();
        swapped.swap(4, 5);
        assert_eq!(say(&swapped), Err(BadInvite::Line { line: 5 }));
        assert_eq!(say(&lines[..lines.len() - 1]), Err(BadInvite::Missing));
        assert_eq!(Invite::from_text("hello there"), Err(BadInvite::Scheme));
    }

    proptest! {
        #[test]
        fn every_invite_can_be_said(
            room in any::<[u8; 32]>(),
            secret in any::<[u8; 16]>(),
            expires_ms in any::<u64>(),
            port in any::<u16>(),
            relay in proptest::option::of("[a-z]{0,40}"),
            doors in 0usize..3,
        ) {
            let doorway = Doorway {
                device: DeviceId(room),
                addresses: vec![Address(([10, 0, 0, 1], port).into()); 4],
                relay: relay.map(RelayUrl),
            };
            let invite = Invite { room: RoomId(room), secret, expires_ms, doorways: vec![doorway; doors], ..invite() };
            let again = heard(&invite);
            prop_assert_eq!(again.as_said(), invite.as_said());
            prop_assert_eq!(heard(&again), again);
        }

        #[test]
        fn bytes_survive_and_their_filling_is_told(data in proptest::collection::vec(any::<u8>(), 0..64)) {
            let (again, is_filled) = bytes(&digits::pack(&data, WORD_BITS)).unwrap();
            let longer = again.len() - data.len();
            prop_assert!(longer == 0 || longer == 1 && is_filled && again.last() == Some(&0));
            prop_assert_eq!(&again[..data.len()], &data[..]);
        }

        #[test]
        fn nothing_that_is_said_breaks_it(text in "([a-z]{1,8}[ ,\n]){0,200}", cut in any::<prop::sample::Index>(), by in "[a-z]{3,8}") {
            let _ = Invite::from_text(&text);
            let lines = invite().to_lines().join(" ");
            let words: Vec<&str> = lines.split(' ').collect();
            let at = cut.index(words.len());
            let mut changed = words.clone();
            changed[at] = &by;
            let is_same = digit(&by) == digit(words[at]);
            prop_assert_eq!(Invite::from_text(&changed.join(" ")).is_ok(), is_same);
        }
    }
}
