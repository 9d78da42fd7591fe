//! The registrar (RFC 3261 section 10) with Path (RFC 3327) and outbound (RFC 5626).
//!
//! A binding remembers the flow it was made on, and calls go back over that flow: that is what carries them through
//! a NAT. With `reg-id` and `+sip.instance` a phone may keep several flows; the newest is tried first, the others when
//! it fails. Bindings live [`EXPIRES_DEFAULT_S`] unless asked otherwise. GRUU is not implemented.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::flow::{Flow, Transport};
use crate::sip::header::{CSeq, NameAddr, split_commas};
use crate::sip::message::parse_decimal;
use crate::sip::{Message, Uri};
use crate::time::Moment;

/// Life of a binding when the phone asks for none, seconds.
pub const EXPIRES_DEFAULT_S: u32 = 600;
/// Shortest life granted, seconds.
pub const EXPIRES_S_MIN: u32 = 60;
/// Longest life granted, seconds.
pub const EXPIRES_S_MAX: u32 = 3_600;
/// Most bindings of one account.
pub const BINDINGS_MAX: usize = 16;
/// So much of a User-Agent is remembered.
const USER_AGENT_CHARS: usize = 120;
/// Longest Path, entries.
pub const PATH_MAX: usize = 16;

/// Where an account can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// Contact URI as the phone wrote it.
    pub contact: String,
    /// `+sip.instance`, when given.
    pub instance: Option<String>,
    /// `reg-id`, when outbound is in use.
    pub reg_id: Option<u32>,
    /// Preference in thousandths.
    pub q_thousandths: u16,
    /// When it ends.
    pub expires_at: Moment,
    /// When it was last refreshed.
    pub refreshed_at: Moment,
    /// Path, to be sent as Route.
    pub path: Vec<String>,
    /// The flow it was made on.
    pub flow: Flow,
    /// Call-ID of the registration.
    pub call_id: String,
    /// CSeq of the registration.
    pub cseq: u32,
    /// User-Agent, for the list of phones.
    pub user_agent: String,
}

impl Binding {
    /// Whether the phone is behind an address translator: its Contact is not where its packets come from.
    pub fn is_translated(&self) -> bool {
        self.flow.transport == Transport::Udp
            && Uri::parse(&self.contact).is_ok_and(|uri| {
                let port = uri.port.unwrap_or(5060);
                uri.host
                    .parse()
                    .is_ok_and(|ip: std::net::IpAddr| (ip, port) != (self.flow.remote.ip(), self.flow.remote.port()))
            })
    }

    /// Whether this is the same contact, or the same flow of the same phone.
    pub fn replaces(&self, other: &Binding) -> bool {
        match (&self.instance, self.reg_id, &other.instance, other.reg_id) {
            (Some(a), Some(x), Some(b), Some(y)) => a == b && x == y,
            _ if self.contact == other.contact => true,
            _ => match (Uri::parse(&self.contact), Uri::parse(&other.contact)) {
                (Ok(a), Ok(b)) => a.same_address(&b),
                _ => false,
            },
        }
    }
}

/// A change to store and to replicate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The account's bindings are now these.
    Bindings {
        /// The account.
        account: Arc<str>,
        /// All of its bindings.
        bindings: Arc<[Binding]>,
    },
}

/// Why a registration was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Answer with this status.
    Status(u16),
    /// Answer 423 with Min-Expires.
    TooBrief,
}

/// All bindings.
#[derive(Clone, Debug, Default)]
pub struct Registrar {
    bindings: BTreeMap<Arc<str>, Arc<[Binding]>>,
    /// First expiry of each account, so that the next deadline is found without a search.
    expiries: BTreeSet<(Moment, Arc<str>)>,
    /// Accounts by flow.
    flows: BTreeMap<Flow, BTreeSet<Arc<str>>>,
}

impl Registrar {
    /// Applies an authenticated REGISTER and gives the 200 response.
    pub fn register(
        &mut self,
        request: &Message,
        account: &str,
        flow: Flow,
        now: Moment,
    ) -> Result<(Message, Option<Change>), Refused> {
        self.expire_account(account, now);
        let contacts = request.list("Contact");
        let changed = !contacts.is_empty();
        if contacts == ["*"] {
            self.remove_all(request, account)?;
        } else {
            let wanted = contacts
                .iter()
                .map(|c| wanted_binding(request, c, flow, now))
                .collect::<Result<Vec<_>, _>>()?;
            self.merge(account, wanted)?;
        }
        let change = changed.then(|| self.change_of(account));
        Ok((self.ok_response(request, account, now), change))
    }

    fn remove_all(&mut self, request: &Message, account: &str) -> Result<(), Refused> {
        if request.get("Expires").and_then(parse_decimal) != Some(0) {
            return Err(Refused::Status(400));
        }
        self.set(account, Vec::new());
        Ok(())
    }

    /// All or nothing: the checks come before the first change.
    fn merge(&mut self, account: &str, wanted: Vec<Wanted>) -> Result<(), Refused> {
        let held = self.bindings_of(account);
        let out_of_order = wanted.iter().any(|w| {
            held.iter()
                .any(|h| w.binding.replaces(h) && h.call_id == w.binding.call_id && h.cseq >= w.binding.cseq)
        });
        if out_of_order {
            return Err(Refused::Status(500));
        }
        let kept = held.iter().filter(|h| !wanted.iter().any(|w| w.binding.replaces(h)));
        let added = wanted.iter().filter(|wanted| !wanted.remove);
        if kept.count() + added.count() > BINDINGS_MAX {
            return Err(Refused::Status(403));
        }
        let held = held.iter().filter(|h| !wanted.iter().any(|w| w.binding.replaces(h)));
        let mut merged: Vec<Binding> = held.cloned().collect();
        for Wanted { binding, remove } in wanted {
            merged.retain(|known| !binding.replaces(known));
            if !remove {
                merged.push(binding);
            }
        }
        self.set(account, merged);
        Ok(())
    }

    /// The one place where bindings and their indexes change.
    fn set(&mut self, account: &str, bindings: Vec<Binding>) {
        let held = self.bindings.get_key_value(account);
        let (name, before) = match held {
            Some((name, held)) => (name.clone(), held.clone()),
            None => (Arc::from(account), Arc::default()),
        };
        let first = |bindings: &[Binding]| bindings.iter().map(|b| b.expires_at).min();
        if let Some(at) = first(&before) {
            self.expiries.remove(&(at, name.clone()));
        }
        self.expiries.extend(first(&bindings).map(|at| (at, name.clone())));
        for binding in before.iter().filter(|b| bindings.iter().all(|new| new.flow != b.flow)) {
            if let Some(accounts) = self.flows.get_mut(&binding.flow) {
                accounts.remove(&name);
                if accounts.is_empty() {
                    self.flows.remove(&binding.flow);
                }
            }
        }
        for binding in bindings.iter().filter(|b| before.iter().all(|old| old.flow != b.flow)) {
            self.flows.entry(binding.flow).or_default().insert(name.clone());
        }
        if bindings.is_empty() {
            self.bindings.remove(&name);
        } else {
            self.bindings.insert(name, bindings.into());
        }
    }

    fn change_of(&self, account: &str) -> Change {
        match self.bindings.get_key_value(account) {
            Some((account, bindings)) => Change::Bindings {
                account: account.clone(),
                bindings: bindings.clone(),
            },
            None => Change::Bindings {
                account: account.into(),
                bindings: Arc::default(),
            },
        }
    }

    fn ok_response(&self, request: &Message, account: &str, now: Moment) -> Message {
        let mut response = Message::response_to(request, 200);
        for binding in self.bindings_of(account) {
            let seconds = binding.expires_at.since_ms(now) / 1_000;
            response.push("Contact", format!("<{}>;expires={seconds}", binding.contact));
        }
        for path in request.texts("Path") {
            response.push("Path", path.clone());
        }
        if request.all("Contact").any(|contacts| contacts.contains("reg-id"))
            && request.has_token("Supported", "outbound")
        {
            response.push("Require", "outbound");
        }
        response.with("Supported", "path, outbound")
    }

    /// The bindings of an account.
    pub fn bindings_of(&self, account: &str) -> &[Binding] {
        self.bindings.get(account).map_or(&[], |held| held)
    }

    /// Where to call, in groups to be rung one after another: higher q first, second flows of a phone last. `elsewhere`
    /// are bindings at other nodes: of one phone's flows the one that is ours comes first.
    pub fn targets(&self, account: &str, elsewhere: Vec<Binding>, now: Moment) -> Vec<Vec<Binding>> {
        let ours = self
            .bindings_of(account)
            .iter()
            .cloned()
            .map(|binding| (false, binding));
        let theirs = elsewhere.into_iter().map(|binding| (true, binding));
        let mut live: Vec<_> = ours.chain(theirs).filter(|(_, b)| b.expires_at > now).collect();
        live.sort_by_key(|(foreign, b)| {
            (
                std::cmp::Reverse(b.q_thousandths),
                *foreign,
                std::cmp::Reverse(b.refreshed_at),
            )
        });
        let (mut groups, mut spare): (Vec<Vec<Binding>>, Vec<Binding>) = (Vec::new(), Vec::new());
        let mut instances: Vec<String> = Vec::new();
        for (_, binding) in live {
            match &binding.instance {
                Some(instance) if binding.reg_id.is_some() && instances.contains(instance) => {
                    spare.push(binding);
                    continue;
                }
                Some(instance) => instances.push(instance.clone()),
                None => {}
            }
            match groups
                .last_mut()
                .filter(|group| group[0].q_thousandths == binding.q_thousandths)
            {
                Some(group) => group.push(binding),
                None => groups.push(vec![binding]),
            }
        }
        if !spare.is_empty() {
            groups.push(spare);
        }
        groups
    }

    /// Drops the bindings made on a connection that closed.
    pub fn flow_closed(&mut self, flow: Flow) -> Vec<Change> {
        let accounts = self.flows.get(&flow).cloned().unwrap_or_default();
        accounts
            .iter()
            .map(|account| self.retain(account, |b| b.flow != flow))
            .collect()
    }

    /// Drops what has expired.
    pub fn handle_timeout(&mut self, now: Moment) -> Vec<Change> {
        let accounts: Vec<_> = self
            .expiries
            .iter()
            .take_while(|(at, _)| *at <= now)
            .map(|(_, name)| name.clone())
            .collect();
        accounts
            .iter()
            .map(|account| self.retain(account, |b| b.expires_at > now))
            .collect()
    }

    fn retain(&mut self, account: &str, keep: impl Fn(&Binding) -> bool) -> Change {
        let kept = self.bindings_of(account).iter().filter(|binding| keep(binding));
        self.set(account, kept.cloned().collect());
        self.change_of(account)
    }

    fn expire_account(&mut self, account: &str, now: Moment) {
        if self
            .bindings_of(account)
            .iter()
            .any(|binding| binding.expires_at <= now)
        {
            let _ = self.retain(account, |binding| binding.expires_at > now);
        }
    }

    /// When the next binding ends.
    pub fn poll_timeout(&self) -> Option<Moment> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// Takes bindings from the store or from another node.
    pub fn restore(&mut self, account: &str, bindings: Vec<Binding>) {
        self.set(account, bindings);
    }

    /// All bindings, by account.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Binding)> {
        self.bindings
            .iter()
            .flat_map(|(account, list)| list.iter().map(move |binding| (&**account, binding)))
    }

    /// Whether a phone is registered on this flow.
    pub fn knows_flow(&self, flow: Flow) -> bool {
        self.flows.contains_key(&flow)
    }
}

struct Wanted {
    binding: Binding,
    remove: bool,
}

fn wanted_binding(request: &Message, contact: &str, flow: Flow, now: Moment) -> Result<Wanted, Refused> {
    let bad = Refused::Status(400);
    let contact = NameAddr::parse(contact).map_err(|_| bad)?;
    contact.uri.as_ref().ok_or(bad)?;
    let asked = contact.param("expires").or_else(|| request.get("Expires"));
    // A malformed value counts as the default (RFC 3261 section 10.2.1.1).
    let asked_s = asked.and_then(parse_decimal).unwrap_or(EXPIRES_DEFAULT_S);
    if (1..EXPIRES_S_MIN).contains(&asked_s) {
        return Err(Refused::TooBrief);
    }
    let outbound = request.has_token("Supported", "outbound");
    let binding = Binding {
        instance: contact.param("+sip.instance").map(str::to_owned),
        reg_id: contact.param("reg-id").filter(|_| outbound).and_then(parse_decimal),
        q_thousandths: parse_q(contact.param("q")),
        expires_at: now.plus_s(asked_s.min(EXPIRES_S_MAX).into()),
        refreshed_at: now,
        path: request
            .all("Path")
            .flat_map(split_commas)
            .take(PATH_MAX)
            .map(str::to_owned)
            .collect(),
        flow,
        call_id: request.get("Call-ID").unwrap_or_default().to_owned(),
        cseq: request.get("CSeq").and_then(CSeq::parse).ok_or(bad)?.number,
        user_agent: first_chars(request.get("User-Agent").unwrap_or_default(), USER_AGENT_CHARS).to_owned(),
        contact: contact.raw_uri.to_owned(),
    };
    Ok(Wanted {
        binding,
        remove: asked_s == 0,
    })
}

fn first_chars(text: &str, count: usize) -> &str {
    text.char_indices().nth(count).map_or(text, |(at, _)| &text[..at])
}

/// `0`, `0.5`, `1.000`; anything else counts as 1.
fn parse_q(text: Option<&str>) -> u16 {
    let parse = |text: &str| {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let fraction = format!("{fraction:0<3}");
        let whole: u16 = whole.parse().ok().filter(|whole| *whole <= 1)?;
        let fraction: u16 = fraction.get(..3)?.parse().ok()?;
        Some((whole * 1_000 + fraction).min(1_000))
    };
    text.and_then(parse).unwrap_or(1_000)
}
