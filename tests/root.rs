//! Headquarters' keys are rotated, by the documented commands, while a shop
//! sells offline: what is in force by the old key goes on until the new one has
//! signed, and no sale is lost or refused in between.
#![allow(missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use hub_tests::hub::CutOffHub;
use hub_tests::process::{Programs, output};
use serde_json::Value;

/// Nothing but the root and the policies' keys stands in the way of a sale.
const POLICY: &str = r#"format = 1
tenant = "acme"
stores = ["*"]
version = 1
not_before = 2026-01-01T00:00:00Z
expires = 2036-01-01T00:00:00Z
currency = "EUR"

[offline]
enabled = true
longest_minutes = 1440
schemes = ["cb"]
funding = ["debit"]
entry_modes = ["chip", "contactless"]

[store]
exposure_ceiling = 100000000
consecutive_limit = 100000

[card]
exposure_ceiling = 100000000
consecutive_limit = 100000

[class.terminal]
transaction_ceiling = 100000000
device_exposure_ceiling = 100000000
device_consecutive_limit = 100000
"#;

/// Headquarters: a folder with keys, roots and policies, and no network.
struct Headquarters {
    hubctl: PathBuf,
    dir: PathBuf,
}

impl Headquarters {
    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn hubctl(&self, args: &[&str]) -> Result<Value> {
        let text = output(Command::new(&self.hubctl).arg("--json").args(args))?;
        Ok(serde_json::from_str(&text)?)
    }

    fn keygen(&self, name: &str) -> Result<()> {
        self.hubctl(&["keygen", &self.file(name)]).map(|_| ())
    }

    fn public(&self, name: &str) -> Result<String> {
        let seed = data_of_hex(fs::read_to_string(self.dir.join(name))?.trim())?;
        let key = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key();
        Ok(key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Root `version`, of these holders (two must sign), delegating these keys.
    /// `by` sign it, each on their own.
    fn root(&self, version: u32, holders: &[&str], delegates: &[&str], by: &[&str]) -> Result<String> {
        let mut text = format!(
            "tenant = \"acme\"\nversion = {version}\nexpires = 2035-01-01T00:00:00Z\nthreshold = 2\n"
        );
        for holder in holders {
            text += &format!(
                "[[key]]\nname = \"{holder}\"\nkey = \"{}\"\n",
                self.public(holder)?
            );
        }
        for delegate in delegates {
            text += &format!(
                "[[delegate]]\nname = \"{delegate}\"\nkey = \"{}\"\nstores = [\"*\"]\nsigns = [\"policies\"]\n\
                 not_before = 2026-01-01T00:00:00Z\nexpires = 2035-01-01T00:00:00Z\n",
                self.public(delegate)?
            );
        }
        let (written, root) = (self.file("root.toml"), self.file(&format!("root-{version}.cose")));
        fs::write(&written, text)?;
        self.hubctl(&["root", "init", &written, &root])?;
        let before = self.file(&format!("root-{}.cose", version - 1));
        for key in by {
            let key = self.file(key);
            let mut args = vec!["root", "sign", "--key", &key, &root];
            if version > 1 {
                args.extend(["--before", &before]);
            }
            self.hubctl(&args)?;
        }
        let chain = if version > 1 {
            vec![&before, &root]
        } else {
            vec![&root]
        };
        let mut verify = vec!["root", "verify"];
        verify.extend(chain.into_iter().map(String::as_str));
        self.hubctl(&verify)?;
        Ok(root)
    }

    fn policy(&self, version: u32, key: &str) -> Result<String> {
        let (written, signed) = (
            self.file("policy.toml"),
            self.file(&format!("policy-{version}-{key}.cose")),
        );
        fs::write(
            &written,
            POLICY.replace("version = 1", &format!("version = {version}")),
        )?;
        self.hubctl(&["policy", "sign", "--key", &self.file(key), &written, &signed])?;
        Ok(signed)
    }
}

fn data_of_hex(text: &str) -> Result<[u8; 32]> {
    let bytes: Vec<u8> = (0..text.len())
        .step_by(2)
        .map(|at| {
            Ok(u8::from_str_radix(
                text.get(at..at + 2).context("half a byte")?,
                16,
            )?)
        })
        .collect::<Result<_>>()?;
    bytes.try_into().ok().context("not 32 bytes")
}

fn installed_with(hub: &CutOffHub, root: &str, policy: &str) -> Result<()> {
    let file = hub.dir().join("hubd.toml");
    let text = fs::read_to_string(&file)?;
    let keys = text
        .lines()
        .find(|line| line.starts_with("trusted_keys = "))
        .context("no trusted keys")?;
    fs::write(&file, text.replace(keys, &format!("root_file = \"{root}\"")))?;
    fs::copy(policy, hub.dir().join("policy.cose"))?;
    Ok(())
}

/// A till, by the device's own program.
#[derive(Clone)]
struct Till {
    sim: PathBuf,
    identity: PathBuf,
}

impl Till {
    fn of(programs: &Programs, hub: &CutOffHub, name: &str) -> Self {
        Self {
            sim: programs.sim.clone(),
            identity: hub.dir().with_file_name(name),
        }
    }

    /// Sells until told to stop. Gives what each sale was answered.
    fn sell(&self, stop: &AtomicBool) -> Result<Vec<(String, String)>> {
        let mut answers = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            answers.push(self.sale()?);
        }
        Ok(answers)
    }

    /// Decision and reason of one sale.
    fn sale(&self) -> Result<(String, String)> {
        let mut pay = Command::new(&self.sim);
        pay.args(["device", "--no-discovery", "--identity"])
            .arg(&self.identity);
        let text = output(pay.args(["pay", "--amount", "100"]))?;
        let line: Value = serde_json::from_str(text.lines().next().context("no answer")?)?;
        let said = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        Ok((said("decision"), said("reason")))
    }
}

fn version_in_force(hub: &CutOffHub, what: &str) -> Result<u64> {
    hub.hubctl(&["status"])?[what]["version"]
        .as_u64()
        .with_context(|| format!("no {what}"))
}

#[test]
fn rule_5_a_policy_key_and_a_root_key_are_rotated_while_a_shop_sells_offline() -> Result<()> {
    let programs = Programs::find()?;
    let dir = tempfile::tempdir()?;
    let offices = dir.path().join("headquarters");
    fs::create_dir(&offices)?;
    let hq = Headquarters {
        hubctl: programs.hubctl.clone(),
        dir: offices,
    };
    for key in ["alice", "bob", "carole", "dora", "desk-old", "desk-new"] {
        hq.keygen(key)?;
    }
    let first = hq.root(1, &["alice", "bob", "carole"], &["desk-old"], &["alice", "bob"])?;
    let mut hub = CutOffHub::new(&programs, dir.path())?;
    installed_with(&hub, &first, &hq.policy(1, "desk-old")?)?;
    hub.start()?;
    ensure!(version_in_force(&hub, "root")? == 1 && version_in_force(&hub, "policy")? == 1);
    let names = ["till-1", "till-2"];
    for name in names {
        hub.enrol(name)?;
    }
    let tills = names.map(|name| Till::of(&programs, &hub, name));

    let stop = AtomicBool::new(false);
    let (answers, rotated) = thread::scope(|scope| {
        let sellers = tills.each_ref().map(|till| scope.spawn(|| till.sell(&stop)));
        let rotated = rotate(&hub, &hq);
        stop.store(true, Ordering::Relaxed);
        let answers = sellers.map(|seller| seller.join().ok().context("a till's thread ended")?);
        (answers, rotated)
    });
    rotated?;
    for answers in answers {
        let answers = answers?;
        ensure!(answers.len() > 3, "sales went on: {}", answers.len());
        for (decision, reason) in &answers {
            ensure!(decision == "approved-offline", "{decision}: {reason}");
        }
    }

    // From the ledger alone: the configuration still names the first root.
    hub.kill()?;
    hub.start()?;
    ensure!(version_in_force(&hub, "root")? == 4 && version_in_force(&hub, "policy")? == 2);
    ensure!(tills[0].sale()?.0 == "approved-offline");
    ensure!(
        hub.hubctl(&["root", "apply", &first]).is_err(),
        "no older root comes back"
    );
    ensure!(
        hub.hubctl(&["policy", "install", &hq.policy(3, "desk-old")?])
            .is_err()
    );
    ensure!(hub.hubctl(&["ledger", "verify"])?["verified"] == true);

    // A root that takes the key away: silence means no, until another signs.
    let fifth = hq.root(5, &["alice", "bob", "dora"], &["desk-old"], &["alice", "dora"])?;
    hub.hubctl(&["root", "apply", &fifth])?;
    let answer = tills[0].sale()?;
    ensure!(
        answer == ("declined".to_owned(), "policy-expired".to_owned()),
        "{answer:?}"
    );
    let objection = hub.hubctl(&["status"])?["root"]["policy_objection"].to_string();
    ensure!(objection.contains("not delegated by root 5"), "{objection}");
    Ok(())
}

/// The policy key with an overlap, then a holder of the root.
fn rotate(hub: &CutOffHub, hq: &Headquarters) -> Result<()> {
    let holders = ["alice", "bob", "carole"];
    let both = hq.root(2, &holders, &["desk-old", "desk-new"], &["bob", "carole"])?;
    hub.hubctl(&["root", "apply", &both])?;
    hub.hubctl(&["policy", "install", &hq.policy(2, "desk-new")?])?;
    let new_alone = hq.root(3, &holders, &["desk-new"], &["alice", "carole"])?;
    hub.hubctl(&["root", "apply", &new_alone])?;
    // Carole hands over to Dora.
    let handed_over = hq.root(4, &["alice", "bob", "dora"], &["desk-new"], &["alice", "bob"])?;
    hub.hubctl(&["root", "apply", &handed_over])?;
    ensure!(Path::new(&hub.dir().join("root-in-force.cose")).exists());
    Ok(())
}
