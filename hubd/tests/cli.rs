//! The programs as people run them: `hubd init`, `validate`, `run`, and
//! `hubctl` against a socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may panic

#[path = "cli/closures.rs"]
mod closures;
#[path = "../core/tests/support/mod.rs"]
mod core_shop;
#[path = "cli/credentials.rs"]
mod credentials;
#[path = "cli/dependencies.rs"]
mod dependencies;
#[path = "cli/doctor.rs"]
mod doctor;
#[path = "cli/fleet.rs"]
mod fleet;
#[path = "cli/hubctl.rs"]
mod hubctl;
#[path = "cli/hubd.rs"]
mod hubd_command;
#[path = "cli/ledger.rs"]
mod ledger;
#[path = "cli/policy.rs"]
mod policy;
#[path = "cli/policy_explain.rs"]
mod policy_explain;
#[path = "cli/policy_rehearse.rs"]
mod policy_rehearse;
#[path = "cli/policy_try.rs"]
mod policy_try;
#[path = "cli/root.rs"]
mod root;
#[path = "cli/running.rs"]
mod running;
#[path = "cli/threats.rs"]
mod threats;
#[path = "cli/upgrade.rs"]
mod upgrade;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const HUBD: &str = env!("CARGO_BIN_EXE_hubd");
const HUBCTL: &str = env!("CARGO_BIN_EXE_hubctl");

/// What a program said.
#[derive(Debug)]
struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Said {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("no signal ended it"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn run(program: &str, args: &[&str]) -> Said {
    Command::new(program)
        .args(args)
        .env_remove("RUST_LOG")
        .env("LC_ALL", "C")
        .output()
        .unwrap()
        .into()
}

/// A hub that `hubd init` made.
struct Hub {
    _root: TempDir,
    dir: PathBuf,
}

impl Hub {
    fn init(more: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("hub");
        let mut args = vec!["init", "--dir", path(&dir)];
        args.extend(more);
        let said = run(HUBD, &args);
        assert_eq!(said.code, 0, "{said:?}");
        Self { _root: root, dir }
    }

    fn hubd(&self, command: &str, more: &[&str]) -> Said {
        let mut args = vec![command, "--dir", path(&self.dir)];
        args.extend(more);
        run(HUBD, &args)
    }

    fn hubctl(&self, args: &[&str]) -> Said {
        let mut all = vec!["--dir", path(&self.dir)];
        all.extend(args);
        run(HUBCTL, &all)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Replaces text in hubd.toml; it must be there.
    fn edit(&self, from: &str, to: &str) {
        let file = self.file("hubd.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from} is not in hubd.toml");
        std::fs::write(&file, text.replacen(from, to, 1)).unwrap();
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A policy of `config/policies`.
fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../config/policies/{name}.toml"))
}

/// What stands in the fenced blocks of a document between `<!-- begin … -->`
/// and `<!-- end … -->`.
fn blocks(document: &str, name: &str) -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(document);
    let text = std::fs::read_to_string(file).unwrap();
    let (_, rest) = text.split_once(&format!("<!-- begin {name} -->")).unwrap();
    let (section, _) = rest.split_once(&format!("<!-- end {name} -->")).unwrap();
    // Every second part is inside of a fence; its first line is the fence's.
    let inside = section.split("```").skip(1).step_by(2);
    inside
        .map(|block| block.split_once('\n').unwrap().1.to_owned())
        .collect()
}
