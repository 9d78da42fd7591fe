//! `offhook config show` and `check`: how the node would be set up, and from where.

use std::path::Path;

use serde::Serialize;

use super::{Done, Out};
use crate::config::{self, KEYS, Setting};
use crate::flags::ConfigVerb;

/// A setting, with `--json`.
#[derive(Serialize)]
struct Shown<'a> {
    key: &'a str,
    /// Null where the default holds.
    value: Option<&'a str>,
    origin: String,
}

pub(super) fn run(out: Out, verb: &ConfigVerb, file: Option<&Path>, must_exist: bool) -> Done {
    let settings = config::read(file, must_exist)?;
    match verb {
        ConfigVerb::Check => {
            config::check(&settings)?;
            let there = file.filter(|file| file.exists());
            out.talk(&match there {
                Some(file) => format!("{} is in order", file.display()),
                None => "there is no configuration file, and none is needed".to_owned(),
            });
            out.either(&crate::api::model::Done { done: true }, |_| String::new())
        }
        ConfigVerb::Show { origin } => settings.iter().try_for_each(|setting| show(out, setting, *origin)),
    }
}

fn show(out: Out, setting: &Setting, with_origin: bool) -> Done {
    let shown = Shown {
        key: setting.key,
        value: setting.value.as_deref(),
        origin: setting.origin.to_string(),
    };
    out.either(&shown, |_| {
        let default = KEYS
            .iter()
            .find(|key| key.name == setting.key)
            .map_or("", |key| key.default);
        let value = setting
            .value
            .as_ref()
            .map_or_else(|| format!("({default})"), |value| format!("{value:?}"));
        match with_origin {
            true => format!("{} = {value}  # {}\n", setting.key, setting.origin),
            false => format!("{} = {value}\n", setting.key),
        }
    })
}
