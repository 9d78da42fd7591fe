//! How `offhook up` is set up: flags, then the environment, then a file in TOML, then defaults. Works with no file at all.
//!
//! The file is `config.toml` in the XDG configuration folder (`~/.config/offhook`), for a home given with `--home` the one in that home, or the one that
//! `--config` or `OFFHOOK_CONFIG` names. Every key is in [`KEYS`]; an unknown one is an error that says which was meant.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;

use crate::flags::{Up, flow_cap};
use crate::http::Listen;
use crate::problem::{Kind, Problem};
use crate::proto::overlay::ledger::{HARD_CAP, Limits};

/// No configuration file is longer than this.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// One thing that can be set.
pub(crate) struct Key {
    /// In the file.
    pub(crate) name: &'static str,
    /// In the environment.
    pub(crate) variable: &'static str,
    /// What holds where nothing is said.
    pub(crate) default: &'static str,
    /// For the sentence about a wrong value.
    pub(crate) form: &'static str,
    /// Whether a value is one.
    fits: fn(&str) -> bool,
}

/// Everything that can be set.
pub(crate) const KEYS: &[Key] = &[
    Key {
        name: "name",
        variable: "OFFHOOK_NAME",
        default: "the login name",
        form: "1 to 64 bytes of text",
        fits: |text| (1..=crate::proto::identity::NAME_BYTES_MAX).contains(&text.len()),
    },
    Key {
        name: "listen",
        variable: "OFFHOOK_LISTEN",
        default: "every address, the port of the last run",
        form: "an address and port, as \"0.0.0.0:4001\"",
        fits: |text| text.parse::<SocketAddr>().is_ok(),
    },
    Key {
        name: "http",
        variable: "OFFHOOK_HTTP",
        default: "127.0.0.1, the port of the last run",
        form: "a port, \"127.0.0.1:PORT\", \"[::1]:PORT\" or \"off\"",
        fits: |text| text.parse::<Listen>().is_ok(),
    },
    Key {
        name: "headless",
        variable: "OFFHOOK_HEADLESS",
        default: "false",
        form: "true or false",
        fits: is_switch,
    },
    Key {
        name: "files_send_max",
        variable: "OFFHOOK_FILES_SEND_MAX",
        default: "64 GB",
        form: SIZE_FORM,
        fits: |text| size(text).is_ok(),
    },
    Key {
        name: "files_unasked_max",
        variable: "OFFHOOK_FILES_UNASKED_MAX",
        default: "1 MB",
        form: SIZE_FORM,
        fits: |text| size(text).is_ok(),
    },
    Key {
        name: "no_public_infrastructure",
        variable: "OFFHOOK_NO_PUBLIC_INFRASTRUCTURE",
        default: "false",
        form: "true or false",
        fits: is_switch,
    },
    Key {
        name: "flows",
        variable: "OFFHOOK_FLOWS",
        default: "60",
        form: "a number of flows, 8 or more",
        fits: |text| flow_cap(text).is_ok(),
    },
    Key {
        name: "flows_everyday",
        variable: "OFFHOOK_FLOWS_EVERYDAY",
        default: "two thirds of flows",
        form: "a number of flows from 4 to that of `flows`",
        fits: |text| text.parse::<u16>().is_ok(),
    },
    Key {
        name: "announce",
        variable: "OFFHOOK_ANNOUNCE",
        default: "none",
        form: "addresses and ports, as [\"203.0.113.7:4001\"], or in one text with commas between",
        fits: |text| parts(text).all(|part| part.parse::<SocketAddr>().is_ok()),
    },
    Key {
        name: "use_relay",
        variable: "OFFHOOK_USE_RELAY",
        default: "none but those that members name, and the public ones",
        form: "URLs of relays, as [\"https://relay.example.org/\"], or in one text with commas between",
        fits: |text| parts(text).all(is_url),
    },
    Key {
        name: "relay",
        variable: "OFFHOOK_RELAY",
        default: "false",
        form: "true or false",
        fits: is_switch,
    },
    Key {
        name: "relay_listen",
        variable: "OFFHOOK_RELAY_LISTEN",
        default: "with relay: every address, port 3340",
        form: "an address and port, as \"0.0.0.0:3340\"",
        fits: |text| text.parse::<SocketAddr>().is_ok(),
    },
    Key {
        name: "relay_url",
        variable: "OFFHOOK_RELAY_URL",
        default: "with relay: this machine's address",
        form: "a URL, as \"https://relay.example.org/\"",
        fits: is_url,
    },
    Key {
        name: "keeper",
        variable: "OFFHOOK_KEEPER",
        default: "false",
        form: "true or false",
        fits: is_switch,
    },
    Key {
        name: "dht",
        variable: "OFFHOOK_DHT",
        default: "false",
        form: "true or false",
        fits: is_switch,
    },
    Key {
        name: "dht_bootstrap",
        variable: "OFFHOOK_DHT_BOOTSTRAP",
        default: "with dht: the public hosts for newcomers",
        form: "1 to 8 hosts with ports, as [\"dht.example.org:6881\"], or in one text with commas between",
        fits: |text| hosts(text).is_ok(),
    },
];

/// Hosts for newcomers that can be named.
const HOSTS_MAX: usize = 8;

/// The keys that hold several values: a list in the file, commas between them elsewhere.
const LISTS: [&str; 3] = ["dht_bootstrap", "announce", "use_relay"];

/// What stands between commas.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim)
}

/// Hosts with ports, with commas between.
pub(crate) fn hosts(text: &str) -> Result<Vec<String>, String> {
    let hosts: Vec<String> = parts(text).map(str::to_owned).collect();
    let is_host = |host: &String| {
        let (name, port) = host.rsplit_once(':').unwrap_or_default();
        let is_name =
            (1..=253).contains(&name.len()) && !name.contains(|c: char| c.is_whitespace() || c == ':' || c == '/');
        is_name && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    match hosts.len() <= HOSTS_MAX && hosts.iter().all(is_host) {
        true => Ok(hosts),
        false => Err(format!(
            "`{text}` does not fit; it takes hosts with ports, as dht.example.org:6881"
        )),
    }
}

fn is_switch(text: &str) -> bool {
    matches!(text, "true" | "false")
}

/// What a relay is named by. Whether it can be reached is seen when it is used.
fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(char::is_whitespace))
}

const SIZE_FORM: &str = "a size: bytes, or as \"250 kB\", \"20 MB\", \"1 GB\"";

/// A size in bytes; units are powers of ten.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "kb" => Some(1_000),
        "mb" => Some(1_000_000),
        "gb" => Some(1_000_000_000),
        _ => None,
    };
    let bytes = unit.and_then(|unit| number.parse::<u64>().ok()?.checked_mul(unit));
    let fits = bytes.filter(|bytes| *bytes <= crate::proto::history::file::FILE_BYTES_MAX);
    fits.ok_or_else(|| format!("`{text}` does not fit; it takes {SIZE_FORM}"))
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag,
    Environment(&'static str),
    File(PathBuf),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One key as it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) key: &'static str,
    /// None where the default holds.
    pub(crate) value: Option<String>,
    pub(crate) origin: Origin,
}

/// Which file is read, and whether it must be there.
pub(crate) fn file(given: Option<&Path>, home_given: Option<&Path>) -> (Option<PathBuf>, bool) {
    match (given, home_given) {
        (Some(path), _) => (Some(path.to_owned()), true),
        (None, Some(home)) => (Some(home.join("config.toml")), false),
        (None, None) => {
            let strategy = etcetera::choose_base_strategy().ok();
            (
                strategy.map(|strategy| strategy.config_dir().join("offhook/config.toml")),
                false,
            )
        }
    }
}

/// What holds, from the file and the environment.
pub(crate) fn read(path: Option<&Path>, must_exist: bool) -> Result<Vec<Setting>, Problem> {
    let text = match path {
        Some(path) => read_file(path, must_exist)?,
        None => None,
    };
    let in_file = match (&text, path) {
        (Some(text), Some(path)) => parse(text, path)?,
        _ => Vec::new(),
    };
    let mut settings = Vec::new();
    for key in KEYS {
        let variable = std::env::var(key.variable).ok().filter(|value| !value.is_empty());
        if let Some(value) = &variable
            && !(key.fits)(value)
        {
            return Err(wrong(&format!("{} in the environment", key.variable), value, key));
        }
        let from_file = in_file
            .iter()
            .find(|(name, _)| *name == key.name)
            .map(|(_, value)| value.clone());
        let (value, origin) = match (variable, from_file, path) {
            (Some(value), _, _) => (Some(value), Origin::Environment(key.variable)),
            (None, Some(value), Some(path)) => (Some(value), Origin::File(path.to_owned())),
            _ => (None, Origin::Default),
        };
        settings.push(Setting {
            key: key.name,
            value,
            origin,
        });
    }
    Ok(settings)
}

fn read_file(path: &Path, must_exist: bool) -> Result<Option<String>, Problem> {
    let cannot = |why: String| bad(format!("cannot read the configuration {}: {why}", path.display()));
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => Ok(None),
        // A home that is a file has no configuration in it; that it is one is told by whoever opens it.
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory && !must_exist => Ok(None),
        Err(error) => Err(cannot(error.to_string())),
        Ok(facts) if facts.len() > FILE_BYTES_MAX => Err(cannot(format!("it is longer than {FILE_BYTES_MAX} bytes"))),
        Ok(_) => std::fs::read_to_string(path)
            .map(Some)
            .map_err(|error| cannot(error.to_string())),
    }
}

/// The keys and values of a file, all of them known and fitting.
fn parse(text: &str, path: &Path) -> Result<Vec<(&'static str, String)>, Problem> {
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| bad(format!("{}: {}", path.display(), error.to_string().trim_end())))?;
    let mut values = Vec::new();
    for (name, value) in table {
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            return Err(bad(format!(
                "{}: there is no key `{name}`{}",
                path.display(),
                suggestion(&name)
            )));
        };
        let value = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(on) => on.to_string(),
            toml::Value::Array(items) if LISTS.contains(&key.name) => {
                let texts = items.iter().map(|item| item.as_str().unwrap_or(item.type_str()));
                texts.collect::<Vec<_>>().join(",")
            }
            other => other.type_str().to_owned(),
        };
        if !(key.fits)(&value) {
            return Err(wrong(&format!("{}: `{name}`", path.display()), &value, key));
        }
        values.push((key.name, value));
    }
    Ok(values)
}

fn wrong(place: &str, value: &str, key: &Key) -> Problem {
    bad(format!("{place}: `{value}` does not fit; it takes {}", key.form))
}

fn bad(detail: String) -> Problem {
    Problem::new(Kind::BadConfig, detail)
}

/// Which key was meant, where one is near; else all.
fn suggestion(name: &str) -> String {
    let distances = KEYS.iter().map(|key| (distance(name, key.name), key.name));
    match distances.min() {
        Some((near, meant)) if near <= 2.max(name.len() / 3) => format!("; did you mean `{meant}`?"),
        _ => {
            let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
            format!("; there are {}", names.join(", "))
        }
    }
}

/// How many letters are added, left out or changed (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = changed.min(corner + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

/// Several values in one text; none where there are none.
fn joined<T: fmt::Display>(values: &[T]) -> Option<String> {
    let texts: Vec<String> = values.iter().map(T::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(","))
}

/// Fills into the flags what was not typed, and says where each value comes from.
pub(crate) fn complete(flags: &mut Up, mut settings: Vec<Setting>) -> Vec<Setting> {
    for setting in &mut settings {
        let typed = match setting.key {
            "name" => flags.name.clone(),
            "listen" => flags.listen.map(|at| at.to_string()),
            "http" => flags.http.map(|listen| listen.to_string()),
            "headless" => flags.headless.then(|| "true".to_owned()),
            "files_send_max" => flags.files_send_max.map(|bytes| bytes.to_string()),
            "files_unasked_max" => flags.files_unasked_max.map(|bytes| bytes.to_string()),
            "flows" => flags.flows.map(|cap| cap.to_string()),
            "flows_everyday" => flags.flows_everyday.map(|cap| cap.to_string()),
            "announce" => joined(&flags.announce),
            "use_relay" => joined(&flags.use_relay),
            "relay" => flags.relay.then(|| "true".to_owned()),
            "relay_listen" => flags.relay_options.relay_listen.map(|at| at.to_string()),
            "relay_url" => flags.relay_options.relay_url.clone(),
            "keeper" => flags.keeper.then(|| "true".to_owned()),
            "dht" => flags.dht.then(|| "true".to_owned()),
            "dht_bootstrap" => joined(&flags.dht_bootstrap),
            _ => flags.no_public_infrastructure.then(|| "true".to_owned()),
        };
        if typed.is_some() {
            setting.value = typed;
            setting.origin = Origin::Flag;
            continue;
        }
        let Some(value) = &setting.value else { continue };
        match setting.key {
            "name" => flags.name = Some(value.clone()),
            "listen" => flags.listen = value.parse().ok(),
            "http" => flags.http = value.parse().ok(),
            "headless" => flags.headless = value == "true",
            "files_send_max" => flags.files_send_max = size(value).ok(),
            "files_unasked_max" => flags.files_unasked_max = size(value).ok(),
            "flows" => flags.flows = value.parse().ok(),
            "flows_everyday" => flags.flows_everyday = value.parse().ok(),
            "announce" => flags.announce = parts(value).filter_map(|part| part.parse().ok()).collect(),
            "use_relay" => flags.use_relay = parts(value).map(str::to_owned).collect(),
            "relay" => flags.relay = value == "true",
            "relay_listen" => flags.relay_options.relay_listen = value.parse().ok(),
            "relay_url" => flags.relay_options.relay_url = Some(value.clone()),
            "keeper" => flags.keeper = value == "true",
            "dht" => flags.dht = value == "true",
            "dht_bootstrap" => flags.dht_bootstrap = hosts(value).unwrap_or_default(),
            _ => flags.no_public_infrastructure = value == "true",
        }
    }
    settings
}

/// A service reads the file and no flags: the file must be in order, and what was typed is to be written there.
pub(crate) fn for_service(flags: &mut Up, path: Option<&Path>, must_exist: bool) -> Result<(), Problem> {
    check(&read(path, must_exist)?)?;
    let bare = |key: &Key| Setting {
        key: key.name,
        value: None,
        origin: Origin::Default,
    };
    let typed = complete(flags, KEYS.iter().map(bare).collect());
    let lines: Vec<String> = (typed.iter().filter(|setting| setting.key != "headless"))
        .filter_map(|setting| Some(format!("{} = {}", setting.key, in_file(setting.value.as_ref()?))))
        .collect();
    let place = path.map_or_else(|| "config.toml".to_owned(), |path| path.display().to_string());
    match lines.is_empty() {
        true => Ok(()),
        false => Err(bad(format!(
            "a service takes its settings from the configuration file; write into {place}, and leave the flags out:\n{}",
            lines.join("\n")
        ))),
    }
}

/// A value as it can stand in the file.
fn in_file(value: &str) -> String {
    match is_switch(value) || value.parse::<u64>().is_ok() {
        true => value.to_owned(),
        false => format!("{value:?}"),
    }
}

/// What no single value shows to be wrong.
pub(crate) fn check(settings: &[Setting]) -> Result<(), Problem> {
    let cap = |name| {
        let setting = settings.iter().find(|setting| setting.key == name)?;
        setting.value.as_ref()?.parse().ok()
    };
    let limits = Limits::new(cap("flows").unwrap_or(HARD_CAP), cap("flows_everyday"));
    limits.map(drop).map_err(|error| bad(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<(&'static str, String)>, String> {
        parse(text, Path::new("config.toml")).map_err(|problem| problem.detail)
    }

    #[test]
    fn every_key_can_be_written() {
        let text = "name = \"Ada\"\nlisten = \"0.0.0.0:4001\"\nhttp = 8080\nheadless = true\nno_public_infrastructure = false\nkeeper = true\ndht = true\ndht_bootstrap = [\"dht.example.org:6881\", \"192.0.2.1:6881\"]\nfiles_send_max = \"1 GB\"\nfiles_unasked_max = 0\nflows = 20\nflows_everyday = 12\nannounce = [\"203.0.113.7:4001\", \"[2001:db8::7]:4001\"]\nuse_relay = [\"https://relay.example.org/\"]\nrelay = true\nrelay_listen = \"0.0.0.0:3340\"\nrelay_url = \"http://203.0.113.7:3340/\"\n";
        let values = parsed(text).unwrap();
        assert_eq!(values.len(), KEYS.len());
        assert!(values.contains(&("http", "8080".to_owned())));
        let both = "dht.example.org:6881,192.0.2.1:6881".to_owned();
        assert!(values.contains(&("dht_bootstrap", both)));
        assert_eq!(parsed(""), Ok(Vec::new()));
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_be_right() {
        for (text, said) in [
            ("htpp = 1", "there is no key `htpp`; did you mean `http`?"),
            ("zebra_crossing = 1", "there are name, listen, http, headless"),
            ("headless = \"yes\"", "`yes` does not fit; it takes true or false"),
            ("listen = \"here\"", "it takes an address and port"),
            ("http = \"0.0.0.0:80\"", "`0.0.0.0:80` does not fit"),
            ("files_send_max = \"big\"", "it takes a size"),
            ("http = [1]", "`array` does not fit"),
            ("dht = 1", "`1` does not fit; it takes true or false"),
            ("dht_boostrap = []", "did you mean `dht_bootstrap`?"),
            ("dht_bootstrap = []", "`` does not fit; it takes 1 to 8 hosts"),
            ("dht_bootstrap = \"example.org\"", "`example.org` does not fit"),
            ("dht_bootstrap = [\"example.org:0\"]", "`example.org:0` does not fit"),
            ("dht_bootstrap = [\"http://example.org:1\"]", "does not fit"),
            ("dht_bootstrap = [1]", "`integer` does not fit"),
            ("flowz = 20", "did you mean `flows`?"),
            ("flows = 7", "`7` does not fit; it takes a number of flows, 8 or more"),
            ("flows = \"many\"", "`many` does not fit"),
            ("announce = [\"example.org:1\"]", "it takes addresses and ports"),
            ("use_relay = \"relay.example.org\"", "it takes URLs of relays"),
            ("relay_url = \"https://\"", "it takes a URL"),
            ("name = ", "line 1"),
        ] {
            let detail = parsed(text).unwrap_err();
            assert!(detail.contains(said), "{text}: {detail}");
        }
    }

    #[test]
    fn what_was_typed_goes_before_the_file() {
        let setting = |key, value: &str| Setting {
            key,
            value: Some(value.to_owned()),
            origin: Origin::Environment("X"),
        };
        let mut up = Up {
            name: Some("Ada".to_owned()),
            ..Up::default()
        };
        let settings = complete(&mut up, vec![setting("name", "Bea"), setting("headless", "true")]);
        assert_eq!((up.name.as_deref(), up.headless), (Some("Ada"), true));
        assert_eq!(settings[0].origin, Origin::Flag);
        assert_eq!(settings[1].origin, Origin::Environment("X"));
    }

    #[test]
    fn whatever_is_set_holds_and_is_shown() {
        let fitting = |key: &Key| match key.name {
            "listen" | "relay_listen" => "0.0.0.0:4001",
            "http" => "127.0.0.1:8080",
            "announce" => "203.0.113.7:4001,[2001:db8::7]:4001",
            "dht_bootstrap" => "dht.example.org:6881,192.0.2.1:6881",
            "use_relay" => "https://a.example.org/,http://b.example.org/",
            "relay_url" => "https://a.example.org/",
            "files_send_max" | "files_unasked_max" | "flows" | "flows_everyday" => "17",
            "name" => "Ada",
            _ => "true",
        };
        let setting = |key: &Key| Setting {
            key: key.name,
            value: Some(fitting(key).to_owned()),
            origin: Origin::Environment(key.variable),
        };
        let mut up = Up::default();
        complete(&mut up, KEYS.iter().map(setting).collect());
        // Typed now, they are shown as they were set.
        let bare = |key: &Key| Setting {
            value: None,
            origin: Origin::Default,
            ..setting(key)
        };
        for shown in complete(&mut up, KEYS.iter().map(bare).collect()) {
            let key = KEYS.iter().find(|key| key.name == shown.key).unwrap();
            assert_eq!(
                (shown.value.as_deref(), shown.origin),
                (Some(fitting(key)), Origin::Flag),
                "{}",
                key.name
            );
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("250 kB", 250_000),
            ("20MB", 20_000_000),
            ("1 gb", 1_000_000_000),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MB", "1 TB", "-1", "1.5 MB", "99999999999 GB", "65 GB 1"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn letters_are_counted() {
        for (a, b, letters) in [
            ("", "abc", 3),
            ("http", "http", 0),
            ("htpp", "http", 1),
            ("lsten", "listen", 1),
        ] {
            assert_eq!(distance(a, b), letters);
        }
    }
}
