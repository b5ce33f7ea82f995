//! Finding the programs under test, or building them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Where `hubd` and `hubctl` are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// The daemon.
    pub hubd: PathBuf,
    /// Its command line.
    pub hubctl: PathBuf,
}

impl Binaries {
    /// Those in `dir` if it is given. Otherwise those beside this program;
    /// where they are missing, or where cargo runs this program and they may
    /// be out of date, they are built first, with cargo's own progress on
    /// stderr.
    pub fn find(dir: Option<&Path>) -> Result<Self> {
        if let Some(dir) = dir {
            return Self::in_dir(dir)
                .with_context(|| format!("{} does not hold hubd and hubctl", dir.display()));
        }
        let own = std::env::current_exe().context("cannot tell where this program is")?;
        let beside = own.parent().context("this program is in no folder")?;
        // The tests' own programs are one folder further down.
        let beside = if beside.ends_with("deps") {
            beside.parent().unwrap_or(beside)
        } else {
            beside
        };
        let under_cargo = std::env::var_os("CARGO").is_some();
        match Self::in_dir(beside) {
            Some(found) if !under_cargo => Ok(found),
            _ => {
                build(beside)?;
                Self::in_dir(beside)
                    .with_context(|| format!("cargo built hubd, but not into {}", beside.display()))
            }
        }
    }

    fn in_dir(dir: &Path) -> Option<Self> {
        let program = |name: &str| {
            let path = dir.join(name);
            path.is_file().then_some(path)
        };
        Some(Self {
            hubd: program("hubd")?,
            hubctl: program("hubctl")?,
        })
    }
}

/// Builds into the folder that this program is in.
fn build(beside: &Path) -> Result<()> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    if !manifest.is_file() {
        bail!(
            "hubd is not beside this program ({}) and the sources are gone: name its folder with --bin-dir",
            beside.display()
        );
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "-p", "hubd", "--bins", "--manifest-path"])
        .arg(&manifest);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    if let Some(target) = beside.parent() {
        command.arg("--target-dir").arg(target);
    }
    // What cargo set for this program must not be taken for the other's.
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CARGO_PKG_") || name_text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    let status = command
        .stdin(Stdio::null())
        // Standard output is for the report alone.
        .stdout(std::io::stderr())
        .status()
        .context("cannot start cargo to build hubd; build it by hand: cargo build --release -p hubd")?;
    if !status.success() {
        bail!("hubd does not build: cargo ended with {status}");
    }
    Ok(())
}
