//! Which folder holds the node: `--home`, `OFFHOOK_HOME`, or the XDG data folder.

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;

use crate::problem::{Kind, Problem};

/// The longest path of a Unix socket on Linux, without its closing zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The home as an absolute path. Nothing is made or touched.
pub(crate) fn locate(given: Option<&Path>) -> Result<PathBuf, Problem> {
    let home = match given {
        Some(path) if path.as_os_str().is_empty() => {
            return Err(bad_home("the home's path is empty; leave it out for the default one"));
        }
        Some(path) => path.to_owned(),
        None => default()?,
    };
    let home = std::path::absolute(&home).map_err(|error| bad_home(format!("{}: {error}", home.display())))?;
    if home.exists() && !home.is_dir() {
        let detail = format!(
            "{} is a file; the home must be a folder: choose another with --home",
            home.display()
        );
        return Err(bad_home(detail));
    }
    let socket_bytes = offhook_node::home::control_socket_path(&home).as_os_str().len();
    if socket_bytes > SOCKET_PATH_BYTES_MAX {
        let over = socket_bytes - SOCKET_PATH_BYTES_MAX;
        let detail = format!(
            "the path of the home is {over} bytes too long for the control socket in it; choose a shorter one with --home"
        );
        return Err(bad_home(detail));
    }
    Ok(home)
}

fn default() -> Result<PathBuf, Problem> {
    let strategy = etcetera::choose_base_strategy()
        .map_err(|_| bad_home("there is no home folder on this machine; name one with --home or OFFHOOK_HOME"))?;
    Ok(strategy.data_dir().join("offhook"))
}

fn bad_home(detail: impl Into<String>) -> Problem {
    Problem::new(Kind::BadHome, detail)
}
