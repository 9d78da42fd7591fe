//! How a lab ended, and its figures.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};

/// How a lab ended.
pub(crate) enum Outcome {
    /// What the lab asks for held.
    Passed,
    /// The machine cannot run it, and why.
    Skipped(String),
    /// What did not hold.
    Failed(String),
}

impl Outcome {
    /// Passed where nothing is wrong.
    pub(crate) fn of(wrong: Vec<String>) -> Self {
        match wrong.is_empty() {
            true => Self::Passed,
            false => Self::Failed(wrong.join("; ")),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => write!(f, "passed"),
            Self::Skipped(why) => write!(f, "SKIPPED: {why}"),
            Self::Failed(why) => write!(f, "FAILED: {why}"),
        }
    }
}

/// A lab's figures, printed as they come and written as one JSON object.
pub(crate) struct Figures {
    path: PathBuf,
    values: Map<String, Value>,
}

impl Figures {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            values: Map::new(),
        }
    }

    /// Notes one figure. `value` is in the unit that the name ends with.
    pub(crate) fn note(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        println!("   {name}: {value}");
        self.values.insert(name.to_owned(), value);
    }

    /// Writes what was noted.
    pub(crate) fn write(&self) -> Result<()> {
        let text = serde_json::to_string_pretty(&Value::Object(self.values.clone()))?;
        fs::write(&self.path, text + "\n").with_context(|| format!("writing {}", self.path.display()))?;
        println!("   written: {}", self.path.display());
        Ok(())
    }
}

/// Seconds with three digits after the point, as figures are noted.
pub(crate) fn seconds(span: std::time::Duration) -> Value {
    let milliseconds = u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
    Value::from(f64::from(milliseconds) / 1000.0)
}
