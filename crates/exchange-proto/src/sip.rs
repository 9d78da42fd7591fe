//! SIP on the wire, by the nouns of RFC 3261: messages, URIs, header fields, session descriptions.

pub mod digest;
pub mod header;
pub mod message;
pub mod sdp;
pub mod text;
pub mod uri;
pub mod validate;

pub use header::{CSeq, Contact, NameAddr, Via};
pub use message::{Framer, Message, Method, ParseError, StartLine};
pub use text::Text;
pub use uri::Uri;
