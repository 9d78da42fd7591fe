//! `offhook exchange ...`: the phone system. It lives in the folder `exchange` of the home and needs no node.

use std::future::Future;
use std::path::PathBuf;

use offhook_exchange::cluster::ClusterSettings;
use offhook_exchange::control::{self, Answer, Ask};
use offhook_exchange::proto::MediaPath;
use offhook_exchange::proto::locator::Role;
use offhook_exchange::store::{Store, StoredRecord};
use offhook_exchange::view::{LiveCall, LivePhone, MemberView};
use offhook_exchange::{Error, Settings, account};
use serde::Serialize;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::{Context, Done, Stop};
use crate::flags::{ExchangeUp, ExchangeVerb, UserVerb};
use crate::problem::{Kind, Problem};
use crate::render::clean_line;

const MEDIA_PORTS: u16 = 2_000;

pub(super) async fn run(context: &Context, verb: ExchangeVerb) -> Done {
    match verb {
        ExchangeVerb::Up(flags) => up(context, flags).await,
        ExchangeVerb::User(verb) => user(context, verb),
        ExchangeVerb::Calls => calls(context),
        ExchangeVerb::Phones => phones(context),
        ExchangeVerb::Members => members(context),
        ExchangeVerb::Records { limit } => records(context, limit),
        ExchangeVerb::Metrics => match ask(context, Ask::Metrics)? {
            Answer::Metrics(text) => context.out.either(&json!({ "metrics": text }), |_| text.clone()),
            _ => Err(problem(Error::OtherBuild)),
        },
    }
}

/// The folder of the exchange.
fn folder(context: &Context) -> PathBuf {
    context.home.join("exchange")
}

async fn up(context: &Context, flags: ExchangeUp) -> Done {
    let end = ended_by_signal()?;
    let mut settings = Settings::new(folder(context));
    let store = Store::open(&settings.home).map_err(problem)?;
    settings.domain = store.domain(flags.domain.as_deref()).map_err(problem)?;
    if let Some(listen) = flags.listen {
        settings.listen = listen;
    }
    settings.advertise = flags.advertise;
    settings.port = flags.port;
    settings.tls_port = Some(flags.tls_port).filter(|port| *port != 0);
    settings.metrics = flags.metrics;
    settings.media = match flags.direct_media {
        true => MediaPath::Direct,
        false => MediaPath::Relayed {
            first_port: flags.media_port,
            count: MEDIA_PORTS,
        },
    };
    settings.cluster = cluster_of(&flags)?;
    let accounts = store.accounts().map_err(problem)?.len();
    drop(store);
    let address = settings.advertised();
    let started = |node: &offhook_exchange::Node| {
        let view = json!({
            "domain": settings.domain, "address": address, "port": settings.port, "tls_port": settings.tls_port,
            "accounts": accounts,
        });
        // Nobody may be reading; the exchange runs all the same.
        let _ = context.out.either(&view, |_| format!("{}\n", node.banner()));
        if accounts == 0 {
            context
                .out
                .talk("no accounts yet; make one with `offhook exchange user add NAME`");
        }
    };
    offhook_exchange::run(settings.clone(), started, end)
        .await
        .map_err(problem)
}

fn cluster_of(flags: &ExchangeUp) -> Result<Option<ClusterSettings>, Stop> {
    if flags.engine.is_empty() {
        return Ok(None);
    }
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let site = flags.site.clone().unwrap_or_else(|| machine.trim().to_owned());
    let role = |name: &String| match name.as_str() {
        "calls" => Ok(Role::Calls),
        "standby" => Ok(Role::Standby),
        "witness" => Ok(Role::Witness),
        other => {
            let detail = format!("there is no role {other}; there are calls, standby and witness");
            Err(Problem::new(Kind::BadRequest, detail))
        }
    };
    let mut cluster = ClusterSettings::new(flags.engine.clone(), site);
    cluster.roles = flags.roles.iter().map(role).collect::<Result<_, _>>()?;
    cluster.movable = flags.movable;
    cluster.detector_port = flags.detector_port;
    cluster.monitor_port = flags.engine_monitor_port;
    cluster.copies = flags.engine_copies;
    Ok(Some(cluster))
}

/// Ctrl-C or SIGTERM, from now on.
fn ended_by_signal() -> Result<impl Future<Output = ()>, Stop> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn user(context: &Context, verb: UserVerb) -> Done {
    let mut settings = Settings::new(folder(context));
    let store = Store::open(&settings.home).map_err(problem)?;
    match verb {
        UserVerb::Add { name, domain } => {
            settings.domain = store.domain(domain.as_deref()).map_err(problem)?;
            let made = account::add(&store, &settings, &name).map_err(problem)?;
            context
                .out
                .either(&made, |_| format!("{}\n{}\n", made.text(), made.qr()))
        }
        UserVerb::List => {
            let domain = store.domain(None).map_err(problem)?;
            lines(
                context,
                store.accounts().map_err(problem)?.iter().map(|account| {
                    let extension = account.extension.clone().unwrap_or_default();
                    let view = json!({ "user": account.name, "extension": account.extension, "domain": domain });
                    (
                        view,
                        format!("{:<24} {extension:<8} sip:{}@{domain}", account.name, account.name),
                    )
                }),
            )
        }
        UserVerb::Remove { name } => {
            if !store.remove_account(&name).map_err(problem)? {
                return Err(problem(Error::NoAccount(name)));
            }
            context
                .out
                .either(&json!({ "removed": name }), |_| format!("account {name} is removed\n"))
        }
    }
}

fn calls(context: &Context) -> Done {
    let Answer::Calls(calls) = ask(context, Ask::Calls)? else {
        return Err(problem(Error::OtherBuild));
    };
    lines(context, calls.iter().map(|call| (call, call_line(call))))
}

fn call_line(call: &LiveCall) -> String {
    let state = match &call.answered_by {
        Some(who) => format!("talks with {}", clean_line(who)),
        None => "rings".to_owned(),
    };
    format!(
        "{:<16} dialled {:<16} {state}",
        clean_line(&call.from),
        clean_line(&call.to)
    )
}

fn phones(context: &Context) -> Done {
    let Answer::Phones(phones) = ask(context, Ask::Phones)? else {
        return Err(problem(Error::OtherBuild));
    };
    let line = |phone: &LivePhone| {
        let (account, agent) = (clean_line(&phone.account), clean_line(&phone.user_agent));
        format!("{account:<16} {:<28} {agent}", phone.flow)
    };
    lines(context, phones.iter().map(|phone| (phone, line(phone))))
}

fn members(context: &Context) -> Done {
    let Answer::Members(members) = ask(context, Ask::Members)? else {
        return Err(problem(Error::OtherBuild));
    };
    let line = |member: &MemberView| {
        let witness = if member.witness { "witness" } else { "" };
        let (owns, holds) = (member.owns.join(", "), member.stands_by.join(", "));
        let silent_s = member.silent_ms / 1_000;
        let does = match member.understood {
            true => format!("speaks for [{owns}] stands by for [{holds}]"),
            false => format!(
                "of version {}, not understood here: upgrade the older one",
                member.version
            ),
        };
        format!(
            "{:<16} {:<10} {:<15} {witness:<7} {does} heard {silent_s} s ago",
            member.node,
            clean_line(&member.site),
            member.address
        )
    };
    lines(context, members.iter().map(|member| (member, line(member))))
}

fn records(context: &Context, limit: u32) -> Done {
    let store = Store::open(&folder(context)).map_err(problem)?;
    let records = store.records(limit).map_err(problem)?;
    lines(context, records.iter().map(|record| (record, record_line(record))))
}

fn record_line(record: &StoredRecord) -> String {
    let talked_ms = record.answered_ms.map_or(0, |answered| record.ended_ms - answered);
    let when = jiff::Timestamp::from_millisecond(record.started_ms)
        .map(|at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
        .unwrap_or_default();
    let (from, to) = (clean_line(&record.from), clean_line(&record.to));
    format!(
        "{when}  {from:<16} {to:<16} {:<10} {} s",
        record.disposition,
        talked_ms / 1_000
    )
}

/// Each as one JSON object on a line, or as the line for people.
fn lines<T: Serialize>(context: &Context, all: impl Iterator<Item = (T, String)>) -> Done {
    for (object, line) in all {
        context.out.either(&object, |_| format!("{line}\n"))?;
    }
    Ok(())
}

fn ask(context: &Context, ask: Ask) -> Result<Answer, Stop> {
    control::ask(&folder(context), ask).map_err(problem)
}

fn problem(error: Error) -> Stop {
    let kind = match &error {
        Error::Listen { .. } => Kind::CannotListen,
        Error::Home { .. } | Error::Certificate(_) => Kind::BadHome,
        Error::AccountExists(_) => Kind::Already,
        Error::NoAccount(_) => Kind::NoPerson,
        Error::AccountName(_) | Error::DomainChange(_) => Kind::BadRequest,
        Error::NotRunning(_) => Kind::NoNode,
        Error::Running(_) => Kind::Busy,
        Error::Store(_) => Kind::Storage,
        Error::Engine(_) | Error::Cluster(_) => Kind::CannotListen,
        Error::Randomness(_) | Error::OtherBuild => Kind::Internal,
    };
    Stop::Problem(Problem::new(kind, error.to_string()))
}
