//! `offhook open`, `offhook token` and `offhook irc`: who may come in by HTTP and IRC.

use std::process::{Command, Stdio};

use hyper::Method;

use super::{Context, Done, Stop};
use crate::access::{KeyKind, Scope};
use crate::api::model::{IrcChange, IrcState, LoginLink, NewToken, Token, TokenMade, Tokens};
use crate::client::Target;
use crate::flags::{IrcVerb, TokenVerb};
use crate::render::{clean_line, moment};

pub(super) async fn open(context: &Context, print: bool) -> Done {
    let link = link(context).await?;
    context.out.either(&link, |_| format!("{}\n", link.url))?;
    if !print {
        open_browser(&link.url);
    }
    Ok(())
}

/// An address that signs a browser in.
pub(super) async fn link(context: &Context) -> Result<LoginLink, Stop> {
    let target = Target::new(&["login-links"]);
    Ok(context.node.send(Method::POST, target, None::<&()>).await?)
}

/// Opens a browser where there is a screen; the address is printed in any case.
pub(super) fn open_browser(url: &str) {
    let has_screen = ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|variable| std::env::var_os(variable).is_some_and(|value| !value.is_empty()));
    if has_screen {
        let mut opener = Command::new("xdg-open");
        opener
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Without an opener the person follows the printed address.
        let _ = opener.spawn();
    }
}

pub(super) async fn run(context: &Context, verb: TokenVerb) -> Done {
    match verb {
        TokenVerb::New { name, scope } => {
            let new = NewToken { name, scopes: scope };
            let made: TokenMade = context.node.post(Target::new(&["tokens"]), &new).await?;
            context.out.either(&made, |_| format!("{}\n", made.token))
        }
        TokenVerb::List => {
            let list: Tokens = context.node.get(Target::new(&["tokens"])).await?;
            for token in &list.tokens {
                context.out.either(token, |_| line(token))?;
            }
            Ok(())
        }
        TokenVerb::Revoke { token } => {
            let target = Target::new(&["tokens", &token]);
            context.node.act(Method::DELETE, target, None::<&()>).await?;
            context
                .out
                .either(&crate::api::model::Done { done: true }, |_| String::new())
        }
    }
}

fn line(token: &Token) -> String {
    let kind = match token.kind {
        KeyKind::Session => "session",
        KeyKind::Token => "token",
    };
    let scopes: Vec<&str> = token.scopes.iter().copied().map(Scope::name).collect();
    format!(
        "{}  {kind}  {}  {}  used {}\n",
        token.id,
        clean_line(&token.name),
        scopes.join(","),
        moment(&token.used)
    )
}

pub(super) async fn irc(context: &Context, verb: IrcVerb) -> Done {
    let target = Target::new(&["irc"]);
    let state: IrcState = match verb {
        IrcVerb::Status => context.node.get(target).await?,
        IrcVerb::On { port } => {
            let change = IrcChange {
                on: true,
                port: Some(port),
            };
            context.node.send(Method::PUT, target, Some(&change)).await?
        }
        IrcVerb::Off => {
            let change = IrcChange { on: false, port: None };
            context.node.send(Method::PUT, target, Some(&change)).await?
        }
    };
    context.out.either(&state, |_| match (&state.at, &state.socket) {
        (Some(at), Some(socket)) => format!(
            "IRC      {at}, and {socket}\n\
             sign in  SASL PLAIN, any name, and as the password a token: offhook token new weechat --scope read,send\n"
        ),
        _ => "IRC is off; turn it on with: offhook irc on\n".to_owned(),
    })
}
