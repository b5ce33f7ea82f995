//! The list of defences that are taken away, one after the other, to see that
//! the tests which the table of threats names for them notice it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use hub_sim::patch::Patch;
use serde::Deserialize;

/// `tests/defences/defences.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// What is tried out, in this order.
    pub defence: Vec<Defence>,
    /// Rows of the table that nothing is tried out for.
    #[serde(default)]
    pub without: Vec<Without>,
}

/// A defence taken away.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defence {
    /// The mistake, in a few words. Of all the list's, only this one's.
    pub name: String,
    /// The first words of a threat in the table, of that one alone.
    pub row: String,
    /// The first change: its file, from the project's folder.
    pub file: String,
    /// Text that stands there exactly once.
    pub find: String,
    /// What stands there instead.
    pub replace: String,
    /// Further changes, where a defence stands in several places.
    #[serde(default)]
    pub also: Vec<Change>,
    /// The package whose tests notice it.
    pub package: String,
    /// The target of the tests: `lib`, or the name of an integration test.
    pub target: String,
    /// The tests, by their own names without modules. Each must fail.
    pub tests: Vec<String>,
    /// Why nobody has seen it noticed yet, where that is so. The document
    /// says it too.
    pub untried: Option<String>,
}

/// One change of one file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The file, from the project's folder.
    pub file: String,
    /// Text that stands there exactly once.
    pub find: String,
    /// What stands there instead.
    pub replace: String,
}

/// A row that nothing is tried out for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Without {
    /// The first words of a threat in the table, of that one alone.
    pub row: String,
    /// Why.
    pub none: String,
}

/// A row of the table of threats.
#[derive(Clone, Debug)]
pub struct Row {
    /// The first column.
    pub threat: String,
    /// The tests that are named.
    pub tests: BTreeSet<String>,
}

impl Defence {
    /// All its changes.
    #[must_use]
    pub fn patches(&self) -> Vec<Patch<'_>> {
        let first = Patch {
            file: &self.file,
            find: &self.find,
            put: &self.replace,
        };
        let also = self.also.iter().map(|change| Patch {
            file: &change.file,
            find: &change.find,
            put: &change.replace,
        });
        std::iter::once(first).chain(also).collect()
    }

    /// The folder of its package, from the project's.
    ///
    /// # Errors
    /// A package that is not of the workspace.
    pub fn folder(&self) -> Result<&'static str> {
        Ok(match &*self.package {
            "hub-protocol" => "protocol",
            "hub-sdk" => "protocol/sdk",
            "hub-core" => "hubd/core",
            "hubd" => "hubd",
            "sim-devices" => "sim-devices",
            "hub-sim" => "sim-devices/sim",
            "hub-tests" => "tests",
            other => anyhow::bail!("no package {other} of this workspace"),
        })
    }

    /// The sources of its target, in one text.
    fn sources(&self, project: &Path) -> Result<String> {
        let folder = project.join(self.folder()?);
        let mut text = String::new();
        if self.target == "lib" {
            let library = if self.package == "hub-tests" {
                "support"
            } else {
                "src"
            };
            read_all(&folder.join(library), &mut text)?;
        } else {
            let tests = match &*self.package {
                "hub-tests" => folder,
                _ => folder.join("tests"),
            };
            for part in [
                tests.join(&self.target),
                tests.join(format!("{}.rs", self.target)),
            ] {
                read_all(&part, &mut text)?;
            }
        }
        Ok(text)
    }
}

/// The list, and the table of threats that it is of.
///
/// # Errors
/// Files that are not there, or not what they should be.
pub fn read(project: &Path) -> Result<(List, Vec<Row>)> {
    let text =
        |file: &str| fs::read_to_string(project.join(file)).with_context(|| format!("cannot read {file}"));
    let list =
        toml::from_str(&text("tests/defences/defences.toml")?).context("tests/defences/defences.toml")?;
    Ok((list, rows(&text("docs/threats.md")?)?))
}

/// The rows of the table of threats.
fn rows(document: &str) -> Result<Vec<Row>> {
    let (_, section) = document
        .split_once("## Who wants what")
        .context("no table of threats")?;
    let lines = section.lines().skip_while(|line| !line.starts_with("| ---"));
    let rows = lines.skip(1).take_while(|line| line.starts_with("| "));
    rows.map(|line| {
        let mut cells = line.trim_start_matches("| ").split(" | ");
        let threat = cells.next().context("no threat")?.to_owned();
        let named = cells.nth(1).with_context(|| format!("no third column: {line}"))?;
        let tests = named.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        Ok(Row { threat, tests })
    })
    .collect()
}

/// Everything that is wrong with the list, without building anything.
///
/// # Errors
/// Files that cannot be read.
pub fn faults(project: &Path) -> Result<Vec<String>> {
    let (list, rows) = read(project)?;
    let document = fs::read_to_string(project.join("docs/threats.md"))?;
    ensure!(
        rows.len() > 30,
        "only {} rows in the table of threats",
        rows.len()
    );
    let mut wrong = Vec::new();
    let mut names = BTreeSet::new();
    let mut told = BTreeSet::new();
    for defence in &list.defence {
        let name = &defence.name;
        let mut say = |what: String| wrong.push(format!("\"{name}\": {what}"));
        if !names.insert(name) {
            say("there twice".to_owned());
        }
        for patch in defence.patches() {
            match patch.count(project) {
                Ok(1) => {}
                Ok(count) => say(format!("its text stands {count} times in {}", patch.file)),
                Err(error) => say(error.to_string()),
            }
            if patch.find == patch.put {
                say("changes nothing".to_owned());
            }
        }
        let told_of = document.contains(&format!("\"{name}\""));
        if defence.untried.is_some() && !told_of {
            say("not tried yet, and docs/threats.md does not say so".to_owned());
        }
        let sources = defence.sources(project)?;
        if defence.tests.is_empty() {
            say("names no test".to_owned());
        }
        let row = row_of(&rows, &defence.row);
        for test in &defence.tests {
            if !sources.contains(&format!("fn {test}(")) {
                say(format!(
                    "no test {test} in {} {}",
                    defence.package, defence.target
                ));
            }
            if row.is_some_and(|row| !row.tests.contains(test)) {
                say(format!("its row of the table does not name {test}"));
            }
        }
        match row {
            Some(row) => {
                told.insert(&row.threat);
            }
            None => say(format!(
                "not the first words of one threat alone: {}",
                defence.row
            )),
        }
    }
    for Without { row, none } in &list.without {
        match row_of(&rows, row) {
            Some(row) if told.insert(&row.threat) && !none.trim().is_empty() => {}
            Some(row) => wrong.push(format!("no reason, or there twice: {}", row.threat)),
            None => wrong.push(format!("not the first words of one threat alone: {row}")),
        }
    }
    let missing = rows
        .iter()
        .filter(|row| !row.tests.is_empty() && !told.contains(&row.threat));
    wrong.extend(missing.map(|row| format!("nothing is tried out for: {}", row.threat)));
    Ok(wrong)
}

/// The one row that begins with these words.
fn row_of<'a>(rows: &'a [Row], words: &str) -> Option<&'a Row> {
    let mut those = rows.iter().filter(|row| row.threat.starts_with(words));
    those.next().filter(|_| those.next().is_none())
}

/// All Rust sources at or under `path`, which need not be there.
fn read_all(path: &PathBuf, text: &mut String) -> Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            read_all(&entry?.path(), text)?;
        }
    } else if path.is_file() && path.extension().is_some_and(|extension| extension == "rs") {
        text.push_str(&fs::read_to_string(path)?);
    }
    Ok(())
}
