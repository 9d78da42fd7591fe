//! `offhook relay`: a relay and nothing else, until Ctrl-C. It has no home and is in no room.

use offhook_node::relay::Relay;
use serde::Serialize;

use super::up::{Signals, log_to_stderr, relay_problem};
use super::{Context, Done};
use crate::flags::RelayFlags;

/// What a relay says of itself when it is up.
#[derive(Serialize)]
struct Up {
    url: String,
    client_bytes_per_s: u32,
    connections_max: usize,
}

pub(super) async fn run(context: &Context, flags: &RelayFlags) -> Done {
    let mut signals = Signals::new()?;
    log_to_stderr();
    let options = flags.options();
    let up = Up {
        url: String::new(),
        client_bytes_per_s: options.client_bytes_per_s.get(),
        connections_max: options.connections_max,
    };
    let relay = Relay::start(options).await.map_err(relay_problem)?;
    let up = Up { url: relay.url(), ..up };
    context.out.either(&up, |style| {
        format!(
            "relay    {}\nlimits   {} connections, {} kB a second from each\nnodes use it with `offhook up --use-relay {}`; Ctrl-C ends it\n",
            style.bold(&up.url),
            up.connections_max,
            up.client_bytes_per_s / 1000,
            up.url,
        )
    })?;
    signals.any().await;
    relay.shutdown().await;
    Ok(())
}
