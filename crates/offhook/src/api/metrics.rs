//! `GET /metrics`: figures for Prometheus (text format 0.0.4). No name, id, address or text of anybody is in them, not even hashed.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::{Surface, storage_problem};
use crate::problem::Problem;
use crate::proto::peer::view::Standing;

/// What is counted over the node.
struct Figures {
    rooms: u64,
    messages: u64,
    unread: u64,
    missing: u64,
    sealed: u64,
    lines: u64,
    peers: u64,
}

#[utoipa::path(
    get,
    path = "/metrics",
    description = "Figures for Prometheus, without names or ids.",
    responses((status = 200, content_type = "text/plain", body = String), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["metrics"]))
)]
pub(super) async fn metrics(State(surface): State<Surface>) -> Result<Response, Problem> {
    let figures = surface
        .query(|peer| {
            let rooms = peer.rooms().map_err(storage_problem)?;
            let peers = peer.peers();
            let sum = |count: fn(&crate::proto::peer::view::RoomView) -> u64| rooms.iter().map(count).sum();
            Ok(Figures {
                rooms: rooms.iter().filter(|room| room.standing == Standing::Member).count() as u64,
                messages: sum(|room| room.entries),
                unread: sum(|room| room.unread),
                missing: sum(|room| room.missing),
                sealed: sum(|room| room.sealed),
                lines: peers.iter().filter(|peer| peer.up).count() as u64,
                peers: peers.len() as u64,
            })
        })
        .await?;
    let text = text(&figures, surface.since.as_second(), resident_bytes());
    Ok((
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
        .into_response())
}

fn text(figures: &Figures, started_s: i64, resident_bytes: Option<u64>) -> String {
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, value: &dyn std::fmt::Display| {
        // Writing to a string does not fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n");
    };
    gauge("offhook_rooms", "Rooms that this person is in.", &figures.rooms);
    gauge("offhook_messages", "Messages held here.", &figures.messages);
    gauge("offhook_messages_unread", "Messages not seen yet.", &figures.unread);
    gauge(
        "offhook_entries_missing",
        "Entries known to exist and not here.",
        &figures.missing,
    );
    gauge(
        "offhook_entries_sealed",
        "Keys waited for to read entries.",
        &figures.sealed,
    );
    gauge(
        "offhook_lines_up",
        "Peers with a line to this node now.",
        &figures.lines,
    );
    gauge("offhook_peers", "Peers known from rooms.", &figures.peers);
    gauge("process_start_time_seconds", "When the node was started.", &started_s);
    if let Some(bytes) = resident_bytes {
        gauge("process_resident_memory_bytes", "Memory in use.", &bytes);
    }
    let version = env!("CARGO_PKG_VERSION");
    let _ = write!(
        text,
        "# HELP offhook_build_info The program's version.\n# TYPE offhook_build_info gauge\noffhook_build_info{{version=\"{version}\"}} 1\n"
    );
    text
}

/// What the system says this process holds in memory.
fn resident_bytes() -> Option<u64> {
    let facts = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = facts.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kib.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_explained_and_none_names_anybody() {
        let figures = Figures {
            rooms: 1,
            messages: 2,
            unread: 3,
            missing: 4,
            sealed: 5,
            lines: 6,
            peers: 7,
        };
        let text = text(&figures, 8, resident_bytes());
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(samples.contains(&"offhook_lines_up 6"));
        for sample in samples {
            let name = sample.split(['{', ' ']).next().unwrap();
            assert!(text.contains(&format!("# TYPE {name} gauge")), "{sample}");
            assert!(
                !sample.contains('{') || sample.starts_with("offhook_build_info{version="),
                "{sample}"
            );
        }
    }
}
