//! How a client comes in: capability negotiation (IRCv3 *capability negotiation* 302), SASL PLAIN, PASS, NICK and USER.

use std::collections::BTreeSet;

use data_encoding::BASE64;

use super::line::Message;
use crate::access::{Access, Grant, Scope};

/// What is offered, with values as version 302 shows them.
pub(super) const CAPABILITIES: &[(&str, &str)] = &[
    ("account-tag", ""),
    ("batch", ""),
    ("cap-notify", ""),
    ("draft/chathistory", ""),
    ("draft/message-redaction", ""),
    ("draft/read-marker", ""),
    ("echo-message", ""),
    ("extended-join", ""),
    ("labeled-response", ""),
    ("message-tags", ""),
    ("multi-prefix", ""),
    ("sasl", "PLAIN"),
    ("server-time", ""),
];
/// A piece of an AUTHENTICATE answer; one that is full is followed by another.
const PIECE_BYTES: usize = 400;
/// The longest answer, in pieces.
const PIECES_MAX: usize = 4;

/// What is known of a client before it is in.
#[derive(Debug, Default)]
pub(super) struct Registration {
    pub(super) nick: Option<String>,
    pub(super) user: Option<String>,
    /// Who signs in, as the client calls itself: two clients with one token are told apart by it.
    pub(super) client: Option<String>,
    pub(super) grant: Option<Grant>,
    pub(super) capabilities: BTreeSet<&'static str>,
    is_negotiating: bool,
    /// The pieces of a SASL answer so far.
    sasl: Option<String>,
}

impl Registration {
    /// Whether everything that is needed was said.
    pub(super) fn is_ready(&self) -> bool {
        self.nick.is_some() && self.user.is_some() && !self.is_negotiating
    }

    /// Whether a capability is in use.
    pub(super) fn has(&self, capability: &str) -> bool {
        self.capabilities.contains(capability)
    }

    /// `CAP`.
    pub(super) fn cap(&mut self, message: &Message, nick: &str) -> Vec<Message> {
        let say = |verb: &str, list: &str| vec![Message::new("CAP", &[nick, verb, list]).from(super::told::HOST)];
        match message.param(0).map(str::to_ascii_uppercase).as_deref() {
            Some("LS") => {
                self.is_negotiating = self.nick.is_none() || self.user.is_none() || self.is_negotiating;
                let with_values = message.param(1).and_then(|version| version.parse().ok()).unwrap_or(301) >= 302;
                let shown = CAPABILITIES
                    .iter()
                    .map(|(name, value)| match with_values && !value.is_empty() {
                        true => format!("{name}={value}"),
                        false => (*name).to_owned(),
                    });
                say("LS", &shown.collect::<Vec<_>>().join(" "))
            }
            Some("LIST") => say("LIST", &self.capabilities.iter().copied().collect::<Vec<_>>().join(" ")),
            Some("REQ") => {
                self.is_negotiating = self.nick.is_none() || self.user.is_none() || self.is_negotiating;
                let wanted = message.param(1).unwrap_or_default();
                match self.request(wanted) {
                    true => say("ACK", wanted),
                    false => say("NAK", wanted),
                }
            }
            Some("END") => {
                self.is_negotiating = false;
                Vec::new()
            }
            other => {
                let what = other.unwrap_or("*").to_owned();
                vec![Message::new("410", &[nick, &what, "Invalid CAP command"]).from(super::told::HOST)]
            }
        }
    }

    /// All of what is wanted, or nothing of it.
    fn request(&mut self, wanted: &str) -> bool {
        let mut next = self.capabilities.clone();
        for word in wanted.split_whitespace() {
            let (name, on) = word.strip_prefix('-').map_or((word, true), |name| (name, false));
            let Some((known, _)) = CAPABILITIES.iter().find(|(known, _)| *known == name) else {
                return false;
            };
            match on {
                true => next.insert(known),
                false => next.remove(known),
            };
        }
        self.capabilities = next;
        true
    }

    /// `AUTHENTICATE`, for PLAIN (RFC 4616).
    pub(super) fn authenticate(&mut self, message: &Message, nick: &str, access: &Access) -> Vec<Message> {
        let say = |number: &str, text: &str| vec![Message::new(number, &[nick, text]).from(super::told::HOST)];
        let piece = message.param(0).unwrap_or_default();
        if piece == "*" {
            self.sasl = None;
            return say("906", "SASL authentication aborted");
        }
        let Some(held) = &mut self.sasl else {
            if !piece.eq_ignore_ascii_case("PLAIN") {
                let mechanisms = Message::new("908", &[nick, "PLAIN", "are available SASL mechanisms"]);
                let mut told = vec![mechanisms.from(super::told::HOST)];
                told.extend(say("904", "SASL authentication failed: only PLAIN is known"));
                return told;
            }
            self.sasl = Some(String::new());
            return vec![Message::new("AUTHENTICATE", &["+"])];
        };
        if piece.len() > PIECE_BYTES || held.len() >= PIECE_BYTES * PIECES_MAX {
            self.sasl = None;
            return say("905", "SASL message too long");
        }
        if piece != "+" {
            held.push_str(piece);
        }
        if piece.len() == PIECE_BYTES {
            return Vec::new();
        }
        let answer = self.sasl.take().unwrap_or_default();
        match self.sign_in(&answer, access) {
            true => {
                let account = Message::new("900", &[nick, &super::told::mask(nick), nick, "You are now logged in"]);
                let mut told = vec![account.from(super::told::HOST)];
                told.extend(say("903", "SASL authentication successful"));
                told
            }
            false => say(
                "904",
                "SASL authentication failed: the password is a token of scope read (offhook token new NAME --scope read,send)",
            ),
        }
    }

    fn sign_in(&mut self, answer: &str, access: &Access) -> bool {
        let Ok(bytes) = BASE64.decode(answer.as_bytes()) else {
            return false;
        };
        let Ok(text) = String::from_utf8(bytes) else {
            return false;
        };
        let mut parts = text.split('\0');
        let (_, Some(name), Some(password), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return false;
        };
        let name = name.to_owned();
        self.password(password, access) && {
            self.client = Some(name);
            true
        }
    }

    /// A token as a password, by SASL or `PASS`. It must allow reading.
    pub(super) fn password(&mut self, password: &str, access: &Access) -> bool {
        let grant = access.grant(password).filter(|grant| grant.has(Scope::Read));
        let is_known = grant.is_some();
        if is_known {
            self.grant = grant;
        }
        is_known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::irc::line::parse;

    #[test]
    fn capabilities_are_taken_all_or_none() {
        let mut registration = Registration::default();
        let ls = registration.cap(&parse("CAP LS 302").unwrap(), "*");
        assert!(ls[0].line().contains("sasl=PLAIN") && ls[0].line().contains("draft/chathistory"));
        registration.nick = Some("a".to_owned());
        registration.user = Some("a".to_owned());
        assert!(!registration.is_ready(), "negotiating");
        let ack = registration.cap(&parse("CAP REQ :server-time batch").unwrap(), "*");
        assert_eq!(ack[0].line(), ":offhook CAP * ACK :server-time batch");
        let nak = registration.cap(&parse("CAP REQ :echo-message no-such").unwrap(), "*");
        assert_eq!(nak[0].line(), ":offhook CAP * NAK :echo-message no-such");
        assert!(registration.has("batch") && !registration.has("echo-message"));
        registration.cap(&parse("CAP REQ :-batch").unwrap(), "*");
        assert!(!registration.has("batch"));
        registration.cap(&parse("CAP END").unwrap(), "*");
        assert!(registration.is_ready());
        assert_eq!(registration.cap(&parse("CAP X").unwrap(), "a")[0].command, "410");
    }
}
