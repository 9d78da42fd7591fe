//! Who sent a request: digest credentials checked against the tables, challenges, and whom not to answer.

use super::Exchange;
use crate::flow::Flow;
use crate::sip::digest::{Algorithm, Credentials, Freshness, Secret, challenge};
use crate::sip::header::tag_of;
use crate::sip::{Message, NameAddr, Uri};
use crate::time::Moment;

/// What a request proved.
pub(super) enum Identity {
    /// It is this account.
    Account(String),
    /// Ask again.
    Challenge {
        /// The credentials were right but their nonce is old.
        stale: bool,
    },
    /// Say nothing.
    Silence,
}

impl Exchange {
    pub(super) fn identify(&mut self, request: &Message, flow: Flow, now: Moment) -> Identity {
        if !self.config.authenticate {
            return unproved_account(request).map_or(Identity::Challenge { stale: false }, Identity::Account);
        }
        let offered = request.all("Authorization").chain(request.all("Proxy-Authorization"));
        let credentials = offered
            .filter_map(Credentials::parse)
            .find(|c| c.realm == self.config.domain);
        let Some(credentials) = credentials else {
            return Identity::Challenge { stale: false };
        };
        let source = flow.remote.ip();
        if !self.registrar.knows_flow(flow) && !self.guard.admits_account(&credentials.username, now) {
            self.counters.ignored += 1;
            return Identity::Silence;
        }
        let method = request.method().map_or("", |method| method.as_str());
        // An unknown account costs the same work as a wrong password.
        let nobody = Secret {
            sha256: String::new(),
            md5: String::new(),
        };
        let secret = self
            .tables
            .account(&credentials.username)
            .map_or(&nobody, |account| &account.secret);
        if !credentials.proves(secret, method) || !same_uri(&credentials.uri, request) {
            self.counters.wrong_passwords += 1;
            self.guard.failed(source, &credentials.username, now);
            return Identity::Challenge { stale: false };
        }
        if self.nonces.check(&credentials.nonce, now.unix_s(), source) == Freshness::Stale {
            return Identity::Challenge { stale: true };
        }
        self.guard.succeeded(source, &credentials.username);
        Identity::Account(credentials.username.into_owned())
    }

    /// 401 in the forms to choose from, made as they are looked at: with both algorithms, with MD5 alone, and as short
    /// as can be.
    pub(super) fn challenges(
        &mut self,
        request: &Message,
        flow: Flow,
        stale: bool,
        now: Moment,
    ) -> impl Iterator<Item = Message> + Clone + use<> {
        self.counters.challenges += 1;
        let nonce = self.nonces.issue(now.unix_s(), flow.remote.ip());
        let tag = self.tokens.next_token();
        let realm = self.config.domain.clone();
        let mut bare = Message::response_to(request, 401);
        tag_to(&mut bare, &tag[..8]);
        let first = if gives_up_on_sha256(request) { 1 } else { 0 };
        (first..3).map(move |form| {
            let md5 = challenge(&realm, &nonce, Algorithm::Md5, stale);
            match form {
                0 => {
                    let sha256 = challenge(&realm, &nonce, Algorithm::Sha256, stale);
                    bare.clone()
                        .with("WWW-Authenticate", sha256)
                        .with("WWW-Authenticate", md5)
                }
                1 => bare.clone().with("WWW-Authenticate", md5),
                // No algorithm means MD5 (RFC 7616 section 3.3).
                _ => bare.clone().with("WWW-Authenticate", md5.replace(",algorithm=MD5", "")),
            }
        })
    }
}

/// baresip up to 1.0 (the one in Debian 12) fails on a challenge it does not know instead of taking the next one, as
/// RFC 7616 asks.
fn gives_up_on_sha256(request: &Message) -> bool {
    let agent = request.get("User-Agent").unwrap_or_default();
    agent.starts_with("baresip v0.") || agent.starts_with("baresip v1.0")
}

/// Without authentication a phone is who it says it is.
fn unproved_account(request: &Message) -> Option<String> {
    let from = NameAddr::parse(request.get("From")?).ok()?;
    let user = from.uri?.user;
    (!user.is_empty()).then(|| user.into_owned())
}

/// The digest URI must name what is asked for, else credentials of one request would serve for another. Some clients
/// (sipp among them) name the server alone; that is accepted.
fn same_uri(digest_uri: &str, request: &Message) -> bool {
    let asked = request.uri().unwrap_or_default();
    if digest_uri == asked {
        return true;
    }
    let (Ok(named), Ok(asked)) = (Uri::parse(digest_uri), Uri::parse(asked)) else {
        return false;
    };
    named.host == asked.host && (named.user == asked.user || named.user.is_empty())
}

/// Puts a tag into a response's To, unless it has one.
pub(super) fn tag_to(response: &mut Message, tag: &str) {
    let untagged = |to: &&str| !tag.is_empty() && tag_of(to).is_none();
    if let Some(to) = response.get("To").filter(untagged) {
        response.replace("To", [to, ";tag=", tag].concat());
    }
}
