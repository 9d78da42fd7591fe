//! Dialogs (RFC 3261 section 12): who two ends are to each other, and what the next request looks like.

use serde::{Deserialize, Serialize};

use crate::flow::Flow;
use crate::sip::header::{CSeq, NameAddr, split_commas};
use crate::sip::{Message, Method};

/// Most routes in a route set.
pub const ROUTES_MAX: usize = 32;

/// One dialog, early or confirmed, as our side sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dialog {
    /// Call-ID.
    pub call_id: String,
    /// Our From or To value, tag included.
    pub local: String,
    /// Our tag.
    pub local_tag: String,
    /// The other side's From or To value, with its tag when known.
    pub remote: String,
    /// The other side's tag; empty before its first response.
    pub remote_tag: String,
    /// The last CSeq number we used.
    pub local_cseq: u32,
    /// The highest CSeq number received.
    pub remote_cseq: Option<u32>,
    /// Route set, in the order to send it.
    pub routes: Vec<String>,
    /// Where requests are addressed: the other side's Contact.
    pub target: String,
    /// Where requests are sent: phones are reached on the flow that they opened.
    pub flow: Flow,
}

impl Dialog {
    /// The dialog that an INVITE from outside opens, with our tag.
    pub fn from_invite(invite: &Message, local_tag: &str, flow: Flow) -> Option<Self> {
        let remote = NameAddr::parse(invite.get("From")?).ok()?;
        Some(Self {
            call_id: invite.get("Call-ID")?.to_owned(),
            local: format!("{};tag={local_tag}", invite.get("To")?),
            local_tag: local_tag.to_owned(),
            remote: invite.get("From")?.to_owned(),
            remote_tag: remote.tag().unwrap_or("").to_owned(),
            local_cseq: 0,
            remote_cseq: invite.get("CSeq").and_then(CSeq::parse).map(|cseq| cseq.number),
            routes: record_routes(invite),
            // A caller after RFC 2543 may send no Contact.
            target: contact_uri(invite).unwrap_or(remote.raw_uri.to_owned()),
            flow,
        })
    }

    /// Learns from a response to our INVITE: tag, target, and in reverse order the route set.
    pub fn learn(&mut self, response: &Message) {
        let tag = response
            .get("To")
            .and_then(|to| NameAddr::parse(to).ok())
            .and_then(|to| to.tag().map(str::to_owned));
        let Some(tag) = tag else { return };
        self.remote_tag = tag;
        self.remote = response.get("To").unwrap_or_default().to_owned();
        self.routes = record_routes(response);
        self.routes.reverse();
        self.refresh_target(response);
    }

    /// Target refresh by a Contact in a request or 2xx (RFC 3261 section 12.2).
    pub fn refresh_target(&mut self, message: &Message) {
        if let Some(target) = contact_uri(message) {
            self.target = target;
        }
    }

    /// Takes the CSeq of a request; false when it is out of order (answer 500).
    pub fn accept_cseq(&mut self, request: &Message) -> bool {
        let Some(cseq) = request.get("CSeq").and_then(CSeq::parse) else {
            return false;
        };
        let in_order = self.remote_cseq.is_none_or(|last| cseq.number > last);
        if in_order {
            self.remote_cseq = Some(cseq.number);
        }
        in_order
    }

    /// The next request, without Via and Contact.
    pub fn next_request(&mut self, method: Method) -> Message {
        self.local_cseq = self.local_cseq.saturating_add(1);
        let number = self.local_cseq;
        self.request_with_cseq(method, number)
    }

    /// The ACK of a 2xx to the INVITE of that number.
    pub fn ack(&self, number: u32) -> Message {
        self.request_with_cseq(Method::Ack, number)
    }

    fn request_with_cseq(&self, method: Method, number: u32) -> Message {
        let mut request = Message::request(method.clone(), self.target.clone());
        request.push("Max-Forwards", "70");
        for route in &self.routes {
            request.push("Route", route.clone());
        }
        request.push("From", self.local.clone());
        request.push("To", self.remote.clone());
        request.push("Call-ID", self.call_id.clone());
        request.with("CSeq", format!("{number} {method}"))
    }

    /// Whether the request belongs here, by Call-ID and tags.
    pub fn matches(&self, call_id: &str, local_tag: &str, remote_tag: &str) -> bool {
        self.call_id == call_id && self.local_tag == local_tag && self.remote_tag == remote_tag
    }
}

fn record_routes(message: &Message) -> Vec<String> {
    message
        .all("Record-Route")
        .flat_map(split_commas)
        .take(ROUTES_MAX)
        .map(str::to_owned)
        .collect()
}

fn contact_uri(message: &Message) -> Option<String> {
    let contact = NameAddr::parse(message.elements("Contact").next()?).ok()?;
    contact.uri.as_ref()?;
    Some(contact.raw_uri.to_owned())
}
