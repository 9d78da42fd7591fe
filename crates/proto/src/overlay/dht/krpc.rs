//! What is said to hosts of the Mainline DHT, and what they answer: KRPC of BEP 5 in bencode (BEP 3), with `get` and `put` of BEP 44, as a client that answers nobody (`ro`, BEP 43).
//!
//! Read is one answer of at most [`MESSAGE_BYTES_MAX`]. Keys of a dictionary may stand in any order, for hosts get it wrong, but each once; numbers and lengths have one form; nothing may follow the
//! message. Of the nodes of an answer the first [`NODES_MAX`] are looked at. Requests of others are not read. IPv4 alone (BEP 32 would add `nodes6`).

use std::net::{Ipv4Addr, SocketAddrV4};

use thiserror::Error;

use crate::crypto::{self, Signature};

/// The longest message that is read, in bytes: 20 nodes and the largest value are 1,800.
pub const MESSAGE_BYTES_MAX: usize = 2_048;
/// The longest value that hosts keep, in bytes (BEP 44).
pub const VALUE_BYTES_MAX: usize = 1_000;
/// Nodes of one answer that are looked at.
pub const NODES_MAX: usize = 32;
/// The longest token of a host.
pub const TOKEN_BYTES_MAX: usize = 64;
/// Lists and dictionaries within each other.
const DEPTH_MAX: usize = 6;
/// Values of all kinds in one message.
const VALUES_MAX: usize = 256;
/// A node in an answer: its id, its address, its port.
const NODE_BYTES: usize = 26;

/// Names a host, or a place between them.
pub type NodeId = [u8; 20];
/// Names a question.
pub type Tx = [u8; 4];

/// A mutable item of BEP 44, without salt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Whose it is.
    pub key: [u8; 32],
    /// Of two with one key the one with the higher number holds.
    pub seq: u64,
    /// At most [`VALUE_BYTES_MAX`].
    pub value: Vec<u8>,
    /// By the key, over [`signed_text`].
    pub signature: Signature,
}

impl Item {
    /// Whether the key signed it.
    pub fn is_authentic(&self) -> bool {
        crypto::verify_plain(&self.key, &signed_text(self.seq, &self.value), &self.signature).is_ok()
    }
}

/// Where items of a key are kept.
pub fn target(key: &[u8; 32]) -> NodeId {
    crypto::sha1(key)
}

/// What the key of an item signs (BEP 44).
pub fn signed_text(seq: u64, value: &[u8]) -> Vec<u8> {
    let mut text = format!("3:seqi{seq}e1:v").into_bytes();
    put_bytes(&mut text, value);
    text
}

/// Something asked of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query<'a> {
    /// Which hosts are near a place? Understood by all, also those that are there for newcomers only.
    FindNode(&'a NodeId),
    /// What is kept there, and which hosts are nearer?
    Get(&'a NodeId),
    /// Keep this; with the token that came with the answer to `Get`.
    Put(&'a Item, &'a [u8]),
}

impl Query<'_> {
    /// As a message.
    pub fn encode(&self, tx: Tx, own: &NodeId) -> Vec<u8> {
        let mut out = b"d1:ad2:id".to_vec();
        put_bytes(&mut out, own);
        let name: &[u8] = match self {
            Self::FindNode(place) => {
                put_entry(&mut out, b"target", *place);
                b"find_node"
            }
            Self::Get(place) => {
                put_entry(&mut out, b"target", *place);
                b"get"
            }
            Self::Put(item, token) => {
                put_entry(&mut out, b"k", &item.key);
                out.extend_from_slice(format!("3:seqi{}e", item.seq).as_bytes());
                put_entry(&mut out, b"sig", &item.signature);
                // Not in BEP 44; some hosts want it.
                put_entry(&mut out, b"target", &target(&item.key));
                put_entry(&mut out, b"token", token);
                put_entry(&mut out, b"v", &item.value);
                b"put"
            }
        };
        out.push(b'e');
        put_entry(&mut out, b"q", name);
        out.extend_from_slice(b"2:roi1e");
        put_entry(&mut out, b"t", &tx);
        put_entry(&mut out, b"y", b"q");
        out.push(b'e');
        out
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("{}:", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
}

fn put_entry(out: &mut Vec<u8>, key: &[u8], bytes: &[u8]) {
    put_bytes(out, key);
    put_bytes(out, bytes);
}

/// What a host answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// To which question.
    pub tx: Tx,
    /// None where the host refused.
    pub told: Option<Told>,
}

/// What a host said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Who it is, as it says.
    pub id: NodeId,
    /// Hosts that it knows of, at most [`NODES_MAX`].
    pub nodes: Vec<(NodeId, SocketAddrV4)>,
    /// Shows that whoever asks to keep something receives what is sent to its address.
    pub token: Option<Vec<u8>>,
    /// What is kept there; nobody has looked at the signature yet.
    pub item: Option<Item>,
}

/// Why a message is not an answer. Nothing is taken from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KrpcError {
    /// Longer than [`MESSAGE_BYTES_MAX`].
    #[error("the message is too long")]
    TooLong,
    /// Not bencode, or beyond a limit.
    #[error("the message is not bencode within the limits")]
    Bencode,
    /// Bencode, and no answer as BEP 5 and BEP 44 have it.
    #[error("the message is no answer")]
    NoAnswer,
}

/// Reads an answer.
pub fn decode(bytes: &[u8]) -> Result<Answer, KrpcError> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(KrpcError::TooLong);
    }
    let mut reader = Bencode { rest: bytes, values: 0 };
    let message = reader.value(0).filter(|_| reader.rest.is_empty());
    let message = message.ok_or(KrpcError::Bencode)?;
    answer(&message).ok_or(KrpcError::NoAnswer)
}

fn answer(message: &Value<'_>) -> Option<Answer> {
    let tx = message.bytes(b"t")?.try_into().ok()?;
    let told = match message.bytes(b"y")? {
        b"e" => None,
        b"r" => Some(told(message.get(b"r")?)?),
        _ => return None,
    };
    Some(Answer { tx, told })
}

fn told(said: &Value<'_>) -> Option<Told> {
    let token = said.bytes(b"token").filter(|token| token.len() <= TOKEN_BYTES_MAX);
    Some(Told {
        id: said.bytes(b"id")?.try_into().ok()?,
        nodes: nodes(said.bytes(b"nodes").unwrap_or_default()),
        token: token.map(<[u8]>::to_vec),
        item: item(said),
    })
}

fn item(said: &Value<'_>) -> Option<Item> {
    let value = said.bytes(b"v").filter(|value| value.len() <= VALUE_BYTES_MAX)?;
    let Some(Value::Number(seq)) = said.get(b"seq") else {
        return None;
    };
    Some(Item {
        key: said.bytes(b"k")?.try_into().ok()?,
        seq: u64::try_from(*seq).ok()?,
        value: value.to_vec(),
        signature: said.bytes(b"sig")?.try_into().ok()?,
    })
}

/// Nodes in their compact form; a piece of one at the end is left out.
fn nodes(compact: &[u8]) -> Vec<(NodeId, SocketAddrV4)> {
    let node = |bytes: &[u8]| {
        let (id, place) = bytes.split_first_chunk::<20>()?;
        let (ip, port) = place.split_first_chunk::<4>()?;
        let port = u16::from_be_bytes(port.try_into().ok()?);
        Some((*id, SocketAddrV4::new(Ipv4Addr::from(*ip), port)))
    };
    compact
        .chunks_exact(NODE_BYTES)
        .take(NODES_MAX)
        .filter_map(node)
        .collect()
}

/// A value in bencode, borrowed from the message.
enum Value<'a> {
    Number(i64),
    Bytes(&'a [u8]),
    /// Nothing in a list is looked at.
    List,
    Dictionary(Vec<(&'a [u8], Value<'a>)>),
}

impl<'a> Value<'a> {
    fn get(&self, key: &[u8]) -> Option<&Value<'a>> {
        let Self::Dictionary(entries) = self else { return None };
        entries.iter().find(|entry| entry.0 == key).map(|entry| &entry.1)
    }

    fn bytes(&self, key: &[u8]) -> Option<&'a [u8]> {
        match self.get(key)? {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

struct Bencode<'a> {
    rest: &'a [u8],
    values: usize,
}

impl<'a> Bencode<'a> {
    fn value(&mut self, depth: usize) -> Option<Value<'a>> {
        self.values += 1;
        if depth > DEPTH_MAX || self.values > VALUES_MAX {
            return None;
        }
        match self.rest.first()? {
            b'i' => {
                self.skip();
                self.number(b'e').map(Value::Number)
            }
            b'l' => {
                self.skip();
                while !self.is_end()? {
                    self.value(depth + 1)?;
                }
                Some(Value::List)
            }
            b'd' => {
                self.skip();
                let mut entries: Vec<(&[u8], Value<'_>)> = Vec::new();
                while !self.is_end()? {
                    let key = self.bytes()?;
                    if entries.iter().any(|entry| entry.0 == key) {
                        return None;
                    }
                    entries.push((key, self.value(depth + 1)?));
                }
                Some(Value::Dictionary(entries))
            }
            _ => self.bytes().map(Value::Bytes),
        }
    }

    fn skip(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or_default();
    }

    /// Takes the `e` at the end of a list or dictionary, where it is there.
    fn is_end(&mut self) -> Option<bool> {
        let is_end = *self.rest.first()? == b'e';
        if is_end {
            self.skip();
        }
        Some(is_end)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number(b':')?).ok()?;
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(bytes)
    }

    /// A number in its one form, up to the byte that ends it.
    fn number(&mut self, end: u8) -> Option<i64> {
        let at = self.rest.iter().take(21).position(|byte| *byte == end)?;
        let text = std::str::from_utf8(&self.rest[..at]).ok()?;
        let number: i64 = text.parse().ok()?;
        self.rest = &self.rest[at + 1..];
        (number.to_string() == text).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::{KeyPair, Secret};

    fn read(text: &[u8]) -> Result<Answer, KrpcError> {
        decode(text)
    }

    #[test]
    fn the_text_of_bep_44_is_signed_as_it_says() {
        // The test vector of BEP 44, mutable without salt.
        let key = hex("77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548");
        let signature = hex(
            "305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01",
        );
        let item = Item {
            key: key.try_into().unwrap(),
            seq: 1,
            value: b"Hello World!".to_vec(),
            signature: signature.try_into().unwrap(),
        };
        assert_eq!(signed_text(1, &item.value), b"3:seqi1e1:v12:Hello World!");
        assert!(item.is_authentic());
        assert_eq!(
            target(&item.key).to_vec(),
            hex("4a533d47ec9c7d95b1ad75f576cffc641853b750")
        );
        let other = Item { seq: 2, ..item };
        assert!(!other.is_authentic());
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits = text.as_bytes().chunks(2);
        digits
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn questions_are_as_bep_5_writes_them() {
        let asked = Query::FindNode(b"mnopqrstuvwxyz123456").encode(*b"aaaa", b"abcdefghij0123456789");
        let text =
            "d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node2:roi1e1:t4:aaaa1:y1:qe";
        assert_eq!(std::str::from_utf8(&asked), Ok(text));
    }

    #[test]
    fn answers_are_read() {
        let read = read(b"d1:rd2:id20:0123456789abcdefghij5:nodes27:mnopqrstuvwxyz123456\x01\x02\x03\x04\x1a\xe1x5:token8:aoeusnthe1:t4:aaaa1:y1:re");
        let told = read.unwrap().told.unwrap();
        assert_eq!(&told.id, b"0123456789abcdefghij");
        assert_eq!(
            told.nodes,
            [(*b"mnopqrstuvwxyz123456", "1.2.3.4:6881".parse().unwrap())]
        );
        assert_eq!(told.token.as_deref(), Some(&b"aoeusnth"[..]));
        let refused = super::decode(b"d1:eli201e23:A Generic Error Ocurrede1:t4:aaaa1:y1:ee");
        assert_eq!(refused.unwrap().told, None);
    }

    #[test]
    fn what_is_not_bencode_or_no_answer_is_refused() {
        for (text, why) in [
            (&b""[..], KrpcError::Bencode),
            (b"d", KrpcError::Bencode),
            (b"i1", KrpcError::Bencode),
            (b"i01e", KrpcError::Bencode),
            (b"i-0e", KrpcError::Bencode),
            (b"i+1e", KrpcError::Bencode),
            (b"i99999999999999999999e", KrpcError::Bencode),
            (b"-1:", KrpcError::Bencode),
            (b"99999:x", KrpcError::Bencode),
            (b"llllllllllllleeeeeeeeeeeee", KrpcError::Bencode),
            (b"d1:ai1e1:ai2ee", KrpcError::Bencode),
            (b"i1ei2e", KrpcError::Bencode),
            (b"i1e", KrpcError::NoAnswer),
            (b"d1:rde1:t4:aaaa1:y1:re", KrpcError::NoAnswer),
            (b"d1:q4:ping1:t4:aaaa1:y1:qe", KrpcError::NoAnswer),
            (
                b"d1:rd2:id20:0123456789abcdefghije1:t5:aaaaa1:y1:re",
                KrpcError::NoAnswer,
            ),
        ] {
            assert_eq!(read(text), Err(why), "{}", text.escape_ascii());
        }
        assert_eq!(read(&[b'l'; MESSAGE_BYTES_MAX + 1]), Err(KrpcError::TooLong));
        let many = [&b"l"[..], &b"i1e".repeat(VALUES_MAX), b"e"].concat();
        assert_eq!(read(&many), Err(KrpcError::Bencode));
    }

    #[test]
    fn no_more_nodes_than_can_be_asked_are_taken() {
        let nodes = b"mnopqrstuvwxyz123456\x01\x02\x03\x04\x1a\xe1".repeat(60);
        let head = format!("d1:rd2:id20:0123456789abcdefghij5:nodes{}:", nodes.len());
        let text = [head.as_bytes(), &nodes, b"e1:t4:aaaa1:y1:re"];
        assert_eq!(read(&text.concat()).unwrap().told.unwrap().nodes.len(), NODES_MAX);
    }

    proptest! {
        /// Whatever comes, nothing panics, and what is taken is within the limits.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }

        /// Text that looks like bencode.
        #[test]
        fn anything_like_bencode_is_read_or_refused(text in "(d|l|e|i-?[0-9]{1,3}e|1:[rtyek]|4:aaaa|2:id|20:[a-z]{20}|5:nodes|[0-9]{1,4}:){0,40}") {
            if let Ok(Answer { told: Some(told), .. }) = decode(text.as_bytes()) {
                prop_assert!(told.nodes.len() <= NODES_MAX);
            }
        }

        /// What is put comes back whole in an answer that carries it.
        #[test]
        fn items_survive(seed: [u8; 32], seq in 0u64..(1 << 60), value in prop::collection::vec(any::<u8>(), 0..VALUE_BYTES_MAX)) {
            let pair = KeyPair::from_seed(&Secret(seed));
            let (key, signature) = pair.sign_blinded(b"tweak", &signed_text(seq, &value));
            let item = Item { key, seq, value, signature };
            prop_assert!(item.is_authentic());
            let put = Query::Put(&item, b"token").encode(*b"aaaa", &[7; 20]);
            // The arguments of a put read as an answer.
            let inner = put.strip_prefix(b"d1:a").unwrap();
            let end = inner.windows(7).rposition(|w| w == b"1:q3:pu").unwrap();
            let answer = [b"d1:r", &inner[..end], b"1:t4:aaaa1:y1:re"].concat();
            let told = decode(&answer).unwrap().told.unwrap();
            prop_assert_eq!(told.item, Some(item));
            prop_assert_eq!(told.token.as_deref(), Some(&b"token"[..]));
        }
    }
}
