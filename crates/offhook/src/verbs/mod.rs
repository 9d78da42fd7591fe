//! The verbs of the command line. Each asks the API and prints what comes back; only `up`, `restore`, `exchange` and `completions` work without a node.

mod backup;
mod configuration;
mod contacts;
mod delivery;
mod doctor;
mod exchange;
mod files;
mod join;
mod keepers;
mod keys;
mod near;
mod network;
mod relay;
mod rooms;
mod say;
mod status;
mod timeline;
mod up;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use serde::Serialize;

use crate::client::Client;
use crate::config;
use crate::flags::{Flags, IdentityVerb, Up, Verb};
use crate::home;
use crate::problem::{Kind, Problem};
use crate::render::Style;

/// Why a verb ends before it is done.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Something is wrong; the person is told.
    Problem(Problem),
    /// Whoever read our output has enough of it. Nothing is said.
    OutputClosed,
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Problem(Problem::new(Kind::Internal, error.to_string())),
        }
    }
}

type Done = Result<(), Stop>;

/// Where output goes: data on stdout, talk on stderr.
#[derive(Debug, Clone, Copy)]
struct Out {
    json: bool,
    style: Style,
}

impl Out {
    fn new(json: bool) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let style = Style {
            colour: wanted && io::stdout().is_terminal(),
        };
        Self { json, style }
    }

    /// One JSON object on a line of its own.
    fn object(self, object: &impl Serialize) -> Done {
        let text = serde_json::to_string(object).map_err(io::Error::from)?;
        self.data(&format!("{text}\n"))
    }

    /// Data, as it is. It goes out at once: whoever follows us sees it now.
    fn data(self, text: &str) -> Done {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()?;
        Ok(())
    }

    /// The JSON object, or the text for people.
    fn either(self, object: &impl Serialize, text: impl FnOnce(Style) -> String) -> Done {
        match self.json {
            true => self.object(object),
            false => self.data(&text(self.style)),
        }
    }

    /// Something for people beside the data. That nobody may be listening is no error.
    fn talk(self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// What every verb has at hand.
struct Context {
    home: PathBuf,
    node: Client,
    out: Out,
}

/// Carries out what was typed.
pub(crate) async fn run(flags: Flags) -> Done {
    let out = Out::new(flags.json);
    match flags.verb {
        Verb::Completions { shell } => return completions(shell, out),
        Verb::Openapi => return out.data(&crate::api::description()),
        _ => {}
    }
    let (file, must_exist) = config::file(flags.config.as_deref(), flags.home.as_deref());
    if let Verb::Config(verb) = &flags.verb {
        return configuration::run(out, verb, file.as_deref(), must_exist);
    }
    let given_home = flags.home;
    let home = home::locate(given_home.as_deref())?;
    let context = Context {
        node: Client::new(&home),
        home,
        out,
    };
    match flags.verb {
        Verb::Up(up) if up.service => {
            let given_home = given_home.as_ref().map(|_| context.home.as_path());
            install(&context, up, given_home, flags.config.as_deref())
        }
        Verb::Up(mut up) => {
            config::complete(&mut up, config::read(file.as_deref(), must_exist)?);
            up::run(context, up).await
        }
        Verb::Keeper(keeper) => up::keep(context, keeper).await,
        Verb::Open { print } => keys::open(&context, print).await,
        Verb::Token(verb) => keys::run(&context, verb).await,
        Verb::Irc(verb) => keys::irc(&context, verb).await,
        Verb::Relay(relay) => relay::run(&context, &relay).await,
        Verb::Status => status::run(&context).await,
        Verb::Doctor { person } => doctor::run(&context, person.as_deref()).await,
        Verb::Lines => network::lines(&context).await,
        Verb::Flows(flags) => network::flows(&context, flags).await,
        Verb::Room(verb) => rooms::run(&context, verb).await,
        Verb::Invite(invite) => rooms::invite(&context, invite).await,
        Verb::Join(join) => join::run(&context, join).await,
        Verb::Contact(verb) => contacts::run(&context, verb).await,
        Verb::Near(near) => near::run(&context, near.verb).await,
        Verb::Chat { person } => rooms::chat(&context, &person).await,
        Verb::Send(send) => say::send(&context, send).await,
        Verb::Edit { id, text } => say::edit(&context, &id, text).await,
        Verb::Delete { id } => say::delete(&context, &id).await,
        Verb::React { id, emoji, off } => say::react(&context, &id, &emoji, off).await,
        Verb::Reply { id, text, client_id } => say::reply(&context, &id, text, client_id).await,
        Verb::File(verb) => files::run(&context, verb).await,
        Verb::Log(log) => timeline::log(&context, log).await,
        Verb::Tail(tail) => timeline::tail(&context, tail).await,
        Verb::Search(search) => timeline::search(&context, search).await,
        Verb::Export { room } => timeline::export(&context, &room).await,
        Verb::Where { id } => delivery::run(&context, &id).await,
        Verb::Identity(IdentityVerb::Phrase) => backup::phrase(&context).await,
        Verb::Backup {
            file,
            with_files,
            passphrase,
        } => backup::backup(&context, &file, with_files, &passphrase).await,
        Verb::Restore {
            file,
            verify,
            passphrase,
        } => backup::restore(&context, &file, verify, &passphrase),
        Verb::Completions { .. } | Verb::Openapi | Verb::Config(_) => Ok(()),
        Verb::Exchange(verb) => exchange::run(&context, verb).await,
    }
}

/// `up --service`: the node is installed, and does not run here.
fn install(context: &Context, mut up: Up, home: Option<&Path>, config: Option<&Path>) -> Done {
    let (file, must_exist) = config::file(config, home);
    config::for_service(&mut up, file.as_deref(), must_exist)?;
    let config = config.map(std::path::absolute).transpose()?;
    let told = crate::service::install(home, config.as_deref())?;
    context.out.talk(told.trim_end());
    Ok(())
}

fn completions(shell: clap_complete::Shell, out: Out) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Flags::command(), "offhook", &mut script);
    out.data(&String::from_utf8_lossy(&script))
}
