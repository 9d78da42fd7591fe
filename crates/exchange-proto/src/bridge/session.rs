//! Session timers (RFC 4028), on every leg by itself. We offer to refresh and do so whether or not the phone knows
//! the extension: a phone that has vanished does not answer the refresh, and its call is ended (no ghost calls).

use serde::{Deserialize, Serialize};

use super::{Call, Context, LegId, LegState, Purpose};
use crate::sip::header::{find_param, parse_delta};
use crate::sip::{Message, Method};
use crate::time::Moment;
use crate::transaction::ClientId;

/// Shortest interval accepted, seconds.
pub const MIN_SE_S: u32 = 90;
/// Interval asked for by default, seconds.
pub const SESSION_EXPIRES_S: u32 = 1_800;

/// A leg's session timer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionTimer {
    /// The interval, seconds.
    pub interval_s: u32,
    /// We send the refreshes; otherwise the phone does.
    pub ours: bool,
    /// When to refresh, or when to give the phone up.
    pub due: Moment,
}

/// A timer whose refreshes are ours: due at half time.
pub(super) fn ours(interval_s: u32, now: Moment) -> SessionTimer {
    SessionTimer {
        interval_s,
        ours: true,
        due: now.plus_s(u64::from(interval_s) / 2),
    }
}

/// A timer whose refreshes are the phone's: it is given up a third before the end, at most 32 s (section 10).
fn theirs(interval_s: u32, now: Moment) -> SessionTimer {
    let early_s = (interval_s / 3).min(32);
    SessionTimer {
        interval_s,
        ours: false,
        due: now.plus_s(u64::from(interval_s - early_s)),
    }
}

/// Whether a request asks for less than we take: answer 422.
pub fn is_too_small(request: &Message) -> bool {
    request
        .get("Session-Expires")
        .and_then(parse_delta)
        .is_some_and(|(seconds, _)| seconds < MIN_SE_S)
}

/// What a phone's INVITE or refresh asks for.
pub(super) fn ask_of(request: &Message, ctx: &Context<'_>) -> Option<SessionTimer> {
    let (seconds, params) = request.get("Session-Expires").and_then(parse_delta)?;
    let interval_s = seconds.clamp(MIN_SE_S, 86_400);
    let theirs_wanted = find_param(&params, "refresher").is_some_and(|who| who.eq_ignore_ascii_case("uac"));
    Some(if theirs_wanted {
        theirs(interval_s, ctx.now)
    } else {
        ours(interval_s, ctx.now)
    })
}

/// What a phone agreed to in its 2xx; one that does not know the extension is refreshed by us.
pub(super) fn agreed(response: &Message, ctx: &Context<'_>) -> SessionTimer {
    match response.get("Session-Expires").and_then(parse_delta) {
        Some((seconds, params))
            if find_param(&params, "refresher").is_some_and(|who| who.eq_ignore_ascii_case("uas")) =>
        {
            theirs(seconds.clamp(MIN_SE_S, 86_400), ctx.now)
        }
        Some((seconds, _)) => ours(seconds.clamp(MIN_SE_S, 86_400), ctx.now),
        None => ours(ctx.session_s, ctx.now),
    }
}

/// Adds our wish to a request.
pub(super) fn ask(request: &mut Message, session_s: u32) {
    request.push("Session-Expires", format!("{session_s};refresher=uac"));
    request.push("Min-SE", MIN_SE_S.to_string());
}

/// The header fields of our 2xx; only a phone that knows the extension is told.
pub(super) fn answer_headers(timer: &SessionTimer, supported: bool) -> Vec<(&'static str, String)> {
    if !supported {
        return Vec::new();
    }
    let refresher = if timer.ours { "uas" } else { "uac" };
    let mut headers = vec![("Session-Expires", format!("{};refresher={refresher}", timer.interval_s))];
    if !timer.ours {
        headers.push(("Require", "timer".to_owned()));
    }
    headers
}

impl Call {
    /// Refreshes the session, or ends the call when the phone did not.
    pub(super) fn session_due(&mut self, id: LegId, ctx: &mut Context<'_>) {
        let now = ctx.now;
        let Some(leg) = self.leg(id).filter(|leg| leg.state == LegState::Up) else {
            return;
        };
        let Some(timer) = leg.timer.as_mut().filter(|timer| timer.due <= now) else {
            return;
        };
        if !timer.ours {
            return self.end_by_failure(ctx);
        }
        // If no answer moves this, the transaction's own timeout ends the call first.
        let interval_s = timer.interval_s;
        timer.due = now.plus_s(u64::from(interval_s) / 2);
        let update = leg.allows_update;
        if !update && self.has_open_offer() {
            return;
        }
        let Some(leg) = self.leg(id) else { return };
        let mut refresh = leg
            .dialog
            .next_request(if update { Method::Update } else { Method::Invite });
        refresh.push("Supported", "timer");
        ask(&mut refresh, interval_s);
        if !update {
            let body = leg.sent_sdp.clone();
            refresh = refresh.with_body("application/sdp", body);
        }
        self.request(id, refresh, Purpose::Refresh, ctx);
    }

    pub(super) fn refresh_response(
        &mut self,
        id: LegId,
        client: ClientId,
        status: u16,
        message: &Message,
        ctx: &mut Context<'_>,
    ) {
        if status < 200 {
            return;
        }
        if status < 300 {
            let timer = agreed(message, ctx);
            let invite = message.get("CSeq").is_some_and(|cseq| cseq.ends_with("INVITE"));
            if let Some(leg) = self.leg(id) {
                leg.dialog.refresh_target(message);
                leg.timer = Some(timer);
            }
            if invite {
                self.acknowledge(id, client, super::setup::cseq_of(message), None, ctx);
            }
        } else if matches!(status, 408 | 481 | 430) {
            // The phone is gone or knows nothing of the call.
            self.end_by_failure(ctx);
        }
    }
}
