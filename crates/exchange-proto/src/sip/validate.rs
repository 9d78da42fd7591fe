//! What makes a well-split request wrong, and the answer it gets (RFC 3261 section 8.2, RFC 4475).

use super::header::{CSeq, NameAddr, Via, find_param};
use super::message::{Flaw, Message, Method, parse_decimal};
use super::uri::{Uri, UriError};

/// A refusal: the status to answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal(pub u16);

const BAD: Refusal = Refusal(400);

/// Checks a request for everything that can be told without knowing any state.
pub fn validate_request(request: &Message) -> Result<(), Refusal> {
    match request.flaw {
        Some(Flaw::Version) => return Err(Refusal(505)),
        Some(_) => return Err(BAD),
        None => {}
    }
    let method = request.method().ok_or(BAD)?;
    check_single_fields(request)?;
    check_via(request)?;
    check_cseq(request, method)?;
    check_uri(request)?;
    check_parties(request, method)?;
    check_contacts(request, method)?;
    check_numbers(request)?;
    check_content(request)
}

fn check_single_fields(request: &Message) -> Result<(), Refusal> {
    for name in ["From", "To", "Call-ID", "CSeq"] {
        if request.all(name).filter(|value| !value.is_empty()).count() != 1 {
            return Err(BAD);
        }
    }
    let optional = [
        "Max-Forwards",
        "Content-Type",
        "Content-Length",
        "Expires",
        "Date",
        "RAck",
        "Refer-To",
        "Replaces",
    ];
    if optional.iter().any(|name| request.all(name).count() > 1) {
        Err(BAD)
    } else {
        Ok(())
    }
}

fn check_via(request: &Message) -> Result<(), Refusal> {
    let mut sound = request.elements("Via").map(|via| Via::parse(via).is_some());
    // One at least.
    if sound.next() == Some(true) && sound.all(|sound| sound) {
        Ok(())
    } else {
        Err(BAD)
    }
}

fn check_cseq(request: &Message, method: &Method) -> Result<(), Refusal> {
    let cseq = request.get("CSeq").and_then(CSeq::parse).ok_or(BAD)?;
    if cseq.method == *method { Ok(()) } else { Err(BAD) }
}

fn check_uri(request: &Message) -> Result<(), Refusal> {
    match Uri::parse(request.uri().unwrap_or_default()) {
        Ok(uri) if uri.headers.is_none() => Ok(()),
        Err(UriError::Scheme) => Err(Refusal(416)),
        Ok(_) | Err(UriError::Malformed) => Err(BAD),
    }
}

fn check_parties(request: &Message, method: &Method) -> Result<(), Refusal> {
    for name in ["From", "To"] {
        let party = request
            .get(name)
            .and_then(|value| NameAddr::parse(value).ok())
            .ok_or(BAD)?;
        if *method == Method::Register && party.uri.is_none() {
            return Err(BAD);
        }
    }
    Ok(())
}

fn check_contacts(request: &Message, method: &Method) -> Result<(), Refusal> {
    let contacts = request.list("Contact");
    let wildcard = *method == Method::Register && contacts == ["*"];
    if !wildcard {
        for contact in &contacts {
            let contact = NameAddr::parse(contact).map_err(|_| BAD)?;
            let too_large = contact
                .param("expires")
                .is_some_and(|text| text.bytes().all(|b| b.is_ascii_digit()) && parse_decimal(text).is_none());
            if too_large {
                return Err(BAD);
            }
        }
    }
    // RFC 2543 callers send none.
    if *method == Method::Invite && contacts.len() > 1 {
        Err(BAD)
    } else {
        Ok(())
    }
}

fn check_numbers(request: &Message) -> Result<(), Refusal> {
    let forwards = request.get("Max-Forwards").map(parse_decimal);
    if forwards.is_some_and(|number| number.is_none_or(|number| number > 255)) {
        return Err(BAD);
    }
    if request.get("Expires").is_some_and(|text| parse_decimal(text).is_none()) {
        return Err(BAD);
    }
    if request.get("Date").is_some_and(|date| !date.ends_with("GMT")) {
        Err(BAD)
    } else {
        Ok(())
    }
}

fn check_content(request: &Message) -> Result<(), Refusal> {
    let encoded = request
        .get("Content-Encoding")
        .is_some_and(|coding| !coding.eq_ignore_ascii_case("identity"));
    if encoded && !request.body.is_empty() {
        Err(Refusal(415))
    } else {
        Ok(())
    }
}

/// Whether a response is fit to be matched with a transaction; what is not is dropped without a word.
pub fn is_sound_response(response: &Message) -> bool {
    response.flaw.is_none()
        && response.get("CSeq").is_some_and(|cseq| CSeq::parse(cseq).is_some())
        && response.all("CSeq").count() == 1
        && ["From", "To"]
            .iter()
            .all(|name| response.get(name).is_some_and(|value| NameAddr::parse(value).is_ok()))
        && response.elements("Via").next().and_then(Via::parse).is_some()
}

/// Whether the topmost Via asks for the response at the source port (RFC 3581).
pub fn wants_rport(via: &Via<'_>) -> bool {
    find_param(&via.params, "rport").is_some()
}
