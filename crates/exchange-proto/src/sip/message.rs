//! Messages as octets and as lines (RFC 3261 section 7).
//!
//! Parsing here is lenient on purpose: it splits a message into its start line, header fields and body, so that
//! a bad request can still be answered with its own Via, From, To, Call-ID and CSeq. What is *wrong* with a
//! message is decided in [`super::validate`]. Nothing here allocates what a peer claims: lengths are checked first.

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write as _;

use super::text::{Source, Text};

/// Longest message taken from any transport, octets.
pub const MESSAGE_BYTES_MAX: usize = 65_535;
/// Most header fields in one message.
pub const HEADERS_MAX: usize = 256;
/// So many have room from the beginning.
const HEADERS_USUAL: usize = 16;
/// Longest body, octets.
pub const BODY_BYTES_MAX: usize = 32_768;

/// A request method; those that the exchange acts on have a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Method {
    Invite,
    Ack,
    Bye,
    Cancel,
    Register,
    Options,
    Prack,
    Update,
    Info,
    Refer,
    Notify,
    Message,
    Subscribe,
    Publish,
    Other(String),
}

const METHODS: [(&str, Method); 14] = [
    ("INVITE", Method::Invite),
    ("ACK", Method::Ack),
    ("BYE", Method::Bye),
    ("CANCEL", Method::Cancel),
    ("REGISTER", Method::Register),
    ("OPTIONS", Method::Options),
    ("PRACK", Method::Prack),
    ("UPDATE", Method::Update),
    ("INFO", Method::Info),
    ("REFER", Method::Refer),
    ("NOTIFY", Method::Notify),
    ("MESSAGE", Method::Message),
    ("SUBSCRIBE", Method::Subscribe),
    ("PUBLISH", Method::Publish),
];

impl Method {
    /// The method of that exact (case-sensitive) name.
    pub fn from_name(name: &str) -> Self {
        METHODS
            .iter()
            .find(|(known, _)| *known == name)
            .map_or_else(|| Self::Other(name.to_owned()), |(_, method)| method.clone())
    }

    /// The name as written in a request line.
    pub fn as_str(&self) -> &str {
        if let Self::Other(name) = self {
            return name;
        }
        METHODS
            .iter()
            .find(|(_, method)| method == self)
            .map_or("", |(name, _)| name)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The first line of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartLine {
    /// A request: method and Request-URI as written.
    Request {
        /// The method.
        method: Method,
        /// The Request-URI, not yet parsed.
        uri: String,
    },
    /// A response: status code and reason phrase.
    Response {
        /// 100 to 699.
        status: u16,
        /// Free text.
        reason: Cow<'static, str>,
    },
}

/// Why octets are not a message at all. A request that is merely wrong parses and fails validation instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Longer than [`MESSAGE_BYTES_MAX`], or with more than [`HEADERS_MAX`] header fields: drop it.
    #[error("message exceeds a limit")]
    TooLarge,
    /// Nothing like a start line or a header section: drop it.
    #[error("not a SIP message")]
    NotSip,
}

/// What was odd about the octets of a message that could still be split into lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The start line has wrong white space, a bad URI or trailing octets.
    StartLine,
    /// The version is not SIP/2.0.
    Version,
    /// A header line without a name, colon or valid UTF-8.
    HeaderLine,
    /// Content-Length is no number, occurs twice, or exceeds the octets there are.
    ContentLength,
}

/// Header fields: names of RFC 3261 and its extensions are not copied, others are.
pub type Headers = Vec<(Cow<'static, str>, Text)>;

/// One SIP message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// First line.
    pub start: StartLine,
    /// Header fields in order: canonical name and value, unfolded and trimmed.
    pub headers: Headers,
    /// Body octets.
    pub body: Vec<u8>,
    /// What the parser found wrong, first flaw only.
    pub flaw: Option<Flaw>,
}

impl Message {
    /// An empty request.
    pub fn request(method: Method, uri: impl Into<String>) -> Self {
        Self {
            start: StartLine::Request {
                method,
                uri: uri.into(),
            },
            headers: Vec::new(),
            body: Vec::new(),
            flaw: None,
        }
    }

    /// An empty response with the usual reason phrase.
    pub fn response(status: u16) -> Self {
        Self {
            start: StartLine::Response {
                status,
                reason: Cow::Borrowed(reason_phrase(status)),
            },
            headers: Vec::new(),
            body: Vec::new(),
            flaw: None,
        }
    }

    /// A response to `request`: copies Via, From, To, Call-ID and CSeq (RFC 3261 section 8.2.6.2).
    pub fn response_to(request: &Message, status: u16) -> Self {
        let mut response = Self::response(status);
        response.headers.reserve(HEADERS_USUAL);
        for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
            for value in request.texts(name) {
                response.headers.push((Cow::Borrowed(name), value.clone()));
            }
        }
        response
    }

    /// Parses one whole message, such as a datagram.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(ParseError::TooLarge);
        }
        let bytes = skip_leading_crlf(bytes);
        let (head, rest) = split_head(bytes).ok_or(ParseError::NotSip)?;
        let mut lines = head.split(|&b| b == b'\n').map(trim_cr);
        let first = lines.next().ok_or(ParseError::NotSip)?;
        let (start, mut flaw) = parse_start_line(first)?;
        let (headers, header_flaw) = parse_headers(lines, &Source::new(head))?;
        flaw = flaw.or(header_flaw);
        let mut message = Self {
            start,
            headers,
            body: Vec::new(),
            flaw,
        };
        message.take_body(rest);
        Ok(message)
    }

    fn take_body(&mut self, rest: &[u8]) {
        let lengths: Vec<_> = self.all("Content-Length").map(parse_decimal).collect();
        let length = match lengths[..] {
            [] => rest.len(),
            [Some(length)] if length as usize <= rest.len() => length as usize,
            _ => return self.mark(Flaw::ContentLength),
        };
        if length > BODY_BYTES_MAX {
            return self.mark(Flaw::ContentLength);
        }
        self.body = rest[..length].to_vec();
    }

    fn mark(&mut self, flaw: Flaw) {
        self.flaw.get_or_insert(flaw);
    }

    /// Octets for the wire, Content-Length included.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.write(false)
    }

    /// The same, as short as the grammar allows: compact names, no reason phrase (RFC 3261 section 7.3.3).
    pub fn to_compact_bytes(&self) -> Vec<u8> {
        self.write(true)
    }

    fn write(&self, compact: bool) -> Vec<u8> {
        const START_AND_LENGTH: usize = 64;
        let uri = self.uri().map_or(0, str::len);
        let fields = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.as_str().len() + 4);
        let mut text = String::with_capacity(START_AND_LENGTH + uri + fields.sum::<usize>() + self.body.len());
        // Writing into a String cannot fail.
        let _ = match &self.start {
            StartLine::Request { method, uri } => write!(text, "{method} {uri} SIP/2.0"),
            StartLine::Response { status, .. } if compact => write!(text, "SIP/2.0 {status} "),
            StartLine::Response { status, reason } => write!(text, "SIP/2.0 {status} {reason}"),
        };
        let (name_of, separator): (fn(&str) -> &str, _) = if compact {
            (compact_name, ":")
        } else {
            (|name| name, ": ")
        };
        for (name, value) in self.headers.iter().filter(|(name, _)| name != "Content-Length") {
            text.push_str("\r\n");
            text.push_str(name_of(name));
            text.push_str(separator);
            text.push_str(value.as_str());
        }
        let length = self.body.len();
        let _ = write!(text, "\r\n{}{separator}{length}\r\n\r\n", name_of("Content-Length"));
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The method, of a request.
    pub fn method(&self) -> Option<&Method> {
        match &self.start {
            StartLine::Request { method, .. } => Some(method),
            StartLine::Response { .. } => None,
        }
    }

    /// The Request-URI, of a request.
    pub fn uri(&self) -> Option<&str> {
        match &self.start {
            StartLine::Request { uri, .. } => Some(uri),
            StartLine::Response { .. } => None,
        }
    }

    /// The status code, of a response.
    pub fn status(&self) -> Option<u16> {
        match &self.start {
            StartLine::Request { .. } => None,
            StartLine::Response { status, .. } => Some(*status),
        }
    }

    /// First value of a header field, by canonical name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of a header field, one per line.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.texts(name).map(Text::as_str)
    }

    /// The same, to be kept without copying them.
    pub fn texts<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Text> {
        self.headers
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The elements of a comma-separated header field, over all its lines.
    pub fn elements<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.all(name).flat_map(super::header::split_commas)
    }

    /// All elements of a comma-separated header field, over all its lines.
    pub fn list(&self, name: &str) -> Vec<&str> {
        self.elements(name).collect()
    }

    /// Whether a comma-separated header field holds the token.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.elements(name).any(|element| element.eq_ignore_ascii_case(token))
    }

    /// Adds a header field at the end.
    pub fn push(&mut self, name: &'static str, value: impl Into<Text>) {
        self.headers.push((Cow::Borrowed(name), value.into()));
    }

    /// Adds a header field at the end and returns the message.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Text>) -> Self {
        self.push(name, value);
        self
    }

    /// Sets the body and its type.
    #[must_use]
    pub fn with_body(mut self, content_type: &str, body: Vec<u8>) -> Self {
        self.push("Content-Type", content_type);
        self.body = body;
        self
    }

    /// Replaces all values of a header field by one.
    pub fn replace(&mut self, name: &'static str, value: impl Into<Text>) {
        let at = self
            .headers
            .iter()
            .position(|(known, _)| known.eq_ignore_ascii_case(name));
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        let at = at.unwrap_or(self.headers.len()).min(self.headers.len());
        self.headers.insert(at, (Cow::Borrowed(name), value.into()));
    }

    /// Whether the body is a session description.
    pub fn has_sdp(&self) -> bool {
        !self.body.is_empty()
            && self.get("Content-Type").is_some_and(|kind| {
                kind.split(';')
                    .next()
                    .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/sdp"))
            })
    }
}

fn skip_leading_crlf(mut bytes: &[u8]) -> &[u8] {
    while let Some((b'\r' | b'\n', rest)) = bytes.split_first() {
        bytes = rest;
    }
    bytes
}

/// Splits at the empty line that ends the header section; lines may end in CRLF or a bare LF.
fn split_head(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    head_length(bytes)
        .map(|length| bytes.split_at(length))
        .or_else(|| bytes.ends_with(b"\n").then_some((bytes, &[][..])))
}

fn head_length(bytes: &[u8]) -> Option<usize> {
    let mut line_start = 0;
    for (at, _) in bytes.iter().enumerate().filter(|(_, b)| **b == b'\n') {
        if trim_cr(&bytes[line_start..at]).is_empty() {
            return Some(at + 1);
        }
        line_start = at + 1;
    }
    None
}

fn trim_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn parse_start_line(line: &[u8]) -> Result<(StartLine, Option<Flaw>), ParseError> {
    let line = std::str::from_utf8(line).map_err(|_| ParseError::NotSip)?;
    if let Some(rest) = strip_prefix_ignore_case(line, "SIP/2.0 ") {
        return parse_status_line(rest);
    }
    let trimmed = line.trim_end();
    let (method, rest) = trimmed.split_once(' ').ok_or(ParseError::NotSip)?;
    let (uri, version) = rest.rsplit_once(' ').ok_or(ParseError::NotSip)?;
    if method.is_empty() || !strip_prefix_ignore_case(version, "SIP/").is_some_and(|v| v.contains('.')) {
        return Err(ParseError::NotSip);
    }
    let flaw = if !version.eq_ignore_ascii_case("SIP/2.0") {
        Some(Flaw::Version)
    } else if trimmed.len() != line.len() || uri.trim() != uri || uri.contains([' ', '\t']) || uri.is_empty() {
        Some(Flaw::StartLine)
    } else {
        None
    };
    Ok((
        StartLine::Request {
            method: Method::from_name(method),
            uri: uri.to_owned(),
        },
        flaw,
    ))
}

fn parse_status_line(rest: &str) -> Result<(StartLine, Option<Flaw>), ParseError> {
    let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
    let status = code.parse::<u16>().ok().filter(|code| (100..700).contains(code));
    let status = status.filter(|_| code.len() == 3).ok_or(ParseError::NotSip)?;
    Ok((
        StartLine::Response {
            status,
            reason: Cow::Owned(reason.to_owned()),
        },
        None,
    ))
}

fn strip_prefix_ignore_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

fn parse_headers<'a>(
    lines: impl Iterator<Item = &'a [u8]>,
    source: &Source<'_>,
) -> Result<(Headers, Option<Flaw>), ParseError> {
    let mut headers: Headers = Vec::with_capacity(HEADERS_USUAL);
    let mut flaw = None;
    for line in lines.take_while(|line| !line.is_empty()) {
        let Ok(text) = std::str::from_utf8(line) else {
            flaw = Some(Flaw::HeaderLine);
            continue;
        };
        if text.starts_with([' ', '\t']) {
            match headers.last_mut() {
                Some((_, value)) => unfold(value, text),
                None => flaw = Some(Flaw::HeaderLine),
            }
            continue;
        }
        if headers.len() == HEADERS_MAX {
            return Err(ParseError::TooLarge);
        }
        match text.split_once(':').map(|(name, value)| (name.trim_end(), value)) {
            Some((name, value)) if is_token(name) => {
                headers.push((canonical_name(name), source.text(value.trim())));
            }
            _ => flaw = Some(Flaw::HeaderLine),
        }
    }
    Ok((headers, flaw))
}

fn unfold(value: &mut Text, continuation: &str) {
    let (before, continuation) = (value.as_str(), continuation.trim());
    let between = if before.is_empty() || continuation.is_empty() {
        ""
    } else {
        " "
    };
    *value = [before, between, continuation].concat().into();
}

/// Whether the text is a `token` of RFC 3261's grammar.
pub fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b))
}

/// A number of decimal digits only, below 2^32.
pub fn parse_decimal(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

const NAMES: [(&str, &str); 58] = [
    ("", "Accept"),
    ("", "Accept-Encoding"),
    ("", "Accept-Language"),
    ("", "Alert-Info"),
    ("", "Allow"),
    ("u", "Allow-Events"),
    ("", "Authentication-Info"),
    ("", "Authorization"),
    ("i", "Call-ID"),
    ("", "Call-Info"),
    ("m", "Contact"),
    ("", "Content-Disposition"),
    ("e", "Content-Encoding"),
    ("", "Content-Language"),
    ("l", "Content-Length"),
    ("c", "Content-Type"),
    ("", "CSeq"),
    ("", "Date"),
    ("", "Error-Info"),
    ("o", "Event"),
    ("", "Expires"),
    ("", "Flow-Timer"),
    ("f", "From"),
    ("", "In-Reply-To"),
    ("", "Max-Forwards"),
    ("", "MIME-Version"),
    ("", "Min-Expires"),
    ("", "Min-SE"),
    ("", "Organization"),
    ("", "P-Asserted-Identity"),
    ("", "Path"),
    ("", "Priority"),
    ("", "Proxy-Authenticate"),
    ("", "Proxy-Authorization"),
    ("", "Proxy-Require"),
    ("", "RAck"),
    ("", "Reason"),
    ("", "Record-Route"),
    ("r", "Refer-To"),
    ("b", "Referred-By"),
    ("", "Replaces"),
    ("", "Reply-To"),
    ("", "Require"),
    ("", "Retry-After"),
    ("", "Route"),
    ("", "RSeq"),
    ("", "Server"),
    ("x", "Session-Expires"),
    ("s", "Subject"),
    ("", "Subscription-State"),
    ("k", "Supported"),
    ("", "Timestamp"),
    ("t", "To"),
    ("", "Unsupported"),
    ("", "User-Agent"),
    ("v", "Via"),
    ("", "Warning"),
    ("", "WWW-Authenticate"),
];

fn compact_name(name: &str) -> &str {
    let found = NAMES
        .iter()
        .find(|(compact, long)| !compact.is_empty() && *long == name);
    found.map_or(name, |(compact, _)| compact)
}

fn canonical_name(name: &str) -> Cow<'static, str> {
    NAMES
        .iter()
        .find(|(compact, long)| {
            long.eq_ignore_ascii_case(name) || (!compact.is_empty() && compact.eq_ignore_ascii_case(name))
        })
        .map_or_else(|| Cow::Owned(name.to_owned()), |(_, long)| Cow::Borrowed(*long))
}

/// Cuts messages out of a byte stream by Content-Length (RFC 3261 section 18.3).
///
/// Holds at most one message; a stream whose head or body exceeds the limits, or that states no length where a
/// body could follow, is broken and must be closed.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
}

/// What a stream yielded.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// One whole message.
    Message(Vec<u8>),
    /// A double CRLF: answer with a single one (RFC 5626 section 3.5.1).
    Ping,
}

/// The stream cannot be cut into messages any more: close it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("stream is not framed as SIP")]
pub struct Unframed;

impl Framer {
    /// Adds octets as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether nothing is begun.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Takes the next whole frame, if there is one.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Unframed> {
        if self.buffer.starts_with(b"\r\n\r\n") {
            self.buffer.drain(..4);
            return Ok(Some(Frame::Ping));
        }
        while self.buffer.starts_with(b"\r\n") && self.buffer.len() > 2 && !b"\r\n".contains(&self.buffer[2]) {
            self.buffer.drain(..2);
        }
        let Some(head) = head_length(&self.buffer).filter(|_| !self.buffer.starts_with(b"\r\n")) else {
            return self.within_limit().map(|()| None);
        };
        let body = self.body_length(head)?;
        let total = head + body;
        if self.buffer.len() < total {
            return self.within_limit().map(|()| None);
        }
        Ok(Some(Frame::Message(self.buffer.drain(..total).collect())))
    }

    fn body_length(&self, head: usize) -> Result<usize, Unframed> {
        let text = String::from_utf8_lossy(&self.buffer[..head]);
        let length = text.lines().skip(1).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let name = name.trim();
            (name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("l"))
                .then(|| value.trim().to_owned())
        });
        let length = length.map_or(Some(0), |text| parse_decimal(&text)).ok_or(Unframed)?;
        (length as usize <= BODY_BYTES_MAX)
            .then_some(length as usize)
            .ok_or(Unframed)
    }

    fn within_limit(&self) -> Result<(), Unframed> {
        (self.buffer.len() <= MESSAGE_BYTES_MAX).then_some(()).ok_or(Unframed)
    }
}

/// The usual reason phrase of a status code.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        183 => "Session Progress",
        200 => "OK",
        202 => "Accepted",
        302 => "Moved Temporarily",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        413 => "Request Entity Too Large",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        430 => "Flow Failed",
        439 => "First Hop Lacks Outbound Support",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        600 => "Busy Everywhere",
        603 => "Decline",
        _ => match status / 100 {
            1 => "Progress",
            2 => "OK",
            3 => "Redirection",
            4 => "Request Failure",
            5 => "Server Failure",
            _ => "Global Failure",
        },
    }
}
