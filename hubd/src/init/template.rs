//! Fills in a commented sample and keeps its comments.

use std::fmt::Display;

use super::InitError;

/// A value as it stands in TOML.
pub(super) enum Value {
    /// Written as it is: a number, an instant.
    Bare(String),
    /// A string.
    Text(String),
    /// A list of strings.
    List(Vec<String>),
}

impl Value {
    /// A list, unless it is empty.
    pub(super) fn list<T: Display>(items: &[T]) -> Option<Self> {
        let items: Vec<String> = items.iter().map(ToString::to_string).collect();
        (!items.is_empty()).then_some(Self::List(items))
    }

    fn into_toml(self) -> String {
        match self {
            Self::Bare(text) => text,
            Self::Text(text) => toml::Value::String(text).to_string(),
            Self::List(items) => {
                toml::Value::Array(items.into_iter().map(toml::Value::String).collect()).to_string()
            }
        }
    }
}

/// The lines of a sample: `key = value` or, left out by default,
/// `#key = value`, under `[section]` headers.
pub(super) struct Template {
    lines: Vec<String>,
}

impl Template {
    pub(super) fn new(sample: &str) -> Self {
        Self {
            lines: sample.lines().map(str::to_owned).collect(),
        }
    }

    /// Puts a value at a key. The section before the first header is "".
    pub(super) fn set(&mut self, section: &str, key: &str, value: Value) -> Result<(), InitError> {
        let mut current = String::new();
        for line in &mut self.lines {
            if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                current = header.0.to_owned();
            } else if current == section && key_of(line) == Some(key) {
                // A remark behind the value stays.
                let remark = line.find("  #").map_or("", |at| &line[at..]).to_owned();
                *line = format!("{key} = {}{remark}", value.into_toml());
                return Ok(());
            }
        }
        Err(InitError::Template(format!("[{section}] {key}")))
    }

    pub(super) fn into_text(self) -> String {
        self.lines.join("\n") + "\n"
    }
}

fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.strip_prefix('#').unwrap_or(line).split_once(" = ")?;
    (!key.contains(' ')).then_some(key)
}
