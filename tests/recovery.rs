//! A machine is lost with its keys: over real processes.
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hub_core::{AttemptId, Forward, GatewayAnswer, Operation};
use hub_protocol::SealedCard;
use hub_tests::process::{Programs, output};
use hub_tests::served::ServedHub;
use hubd::config::{Config, Peer};
use hubd::upstream::{Gateway, Settings};
use serde_json::Value;

/// `hubctl --json …` on a folder; what it says although it fails, too.
fn hubctl(dir: &Path, args: &[&str]) -> Result<Value> {
    let mut command = Command::new(Programs::find()?.hubctl);
    let text = output(command.arg("--dir").arg(dir).arg("--json").args(args))?;
    Ok(serde_json::from_str(&text)?)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

/// What `hubctl` refuses with.
fn refused(dir: &Path, args: &[&str]) -> Result<String> {
    let said = hubctl(dir, args).err().context("nothing was refused")?;
    Ok(format!("{said:#}"))
}

fn pay(hub: &ServedHub, count: u32) -> Result<()> {
    let paid = output(hub.device("till").args([
        "pay",
        "--amount",
        "1250",
        "--count",
        &count.to_string(),
        "--every-ms",
        "10",
    ]))?;
    for line in paid.lines() {
        let line: Value = serde_json::from_str(line)?;
        let decision = line["decision"].as_str().unwrap_or_default();
        ensure!(decision.starts_with("approved"), "{line}");
    }
    Ok(())
}

/// Headquarters' recovery key, and one that is not.
fn keys(dir: &Path) -> Result<(PathBuf, String, PathBuf)> {
    let (right, wrong) = (dir.join("recovery.key"), dir.join("other.key"));
    let made = hubctl(dir, &["keygen", "--recovery", text(&right)?])?;
    hubctl(dir, &["keygen", "--recovery", text(&wrong)?])?;
    let public = made["public_key"].as_str().context("no public half")?;
    Ok((right, public.to_owned(), wrong))
}

/// A shop that has a recovery key, has sent one payment, and was killed with
/// three that it could not send.
fn shop(dir: &Path, public: &str) -> Result<ServedHub> {
    let mut hub = ServedHub::new(&Programs::find()?, dir, "{}")?;
    let file = hub.dir().join("hubd.toml");
    let toml = fs::read_to_string(&file)?;
    let toml = toml.replace("[ledger]\n", &format!("[ledger]\nrecovery_key = \"{public}\"\n"));
    fs::write(&file, toml)?;
    hub.start()?;
    hub.enrol("till")?;
    pay(&hub, 1)?;
    hub.drained()?;
    // The ledger names a vault key that will be lost.
    hub.hubctl(&["keys", "rotate", "vault"])?;
    hub.cut()?;
    hub.stands("offline")?;
    pay(&hub, 3)?;
    hub.kill()?;
    Ok(hub)
}

fn once(charges: &[String]) -> BTreeSet<&String> {
    charges.iter().collect()
}

#[test]
fn rule_2_a_store_whose_vault_key_is_lost_is_recovered_and_sends_what_waited_once() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (recovery, public, other) = keys(dir.path())?;
    let mut hub = shop(dir.path(), &public)?;
    let folder = hub.dir().to_owned();
    let vault_key = folder.join("keys/hub-vault.key");
    let lost = fs::read(&vault_key)?;
    fs::remove_file(&vault_key)?;
    let unread = hubctl(&folder, &["ledger", "verify"])?;
    ensure!(unread["unread"].as_u64() > Some(0), "{unread:#}");

    let said = refused(&folder, &["keys", "recover", "--recovery", text(&other)?])?;
    ensure!(said.contains("that is not recovery key"), "{said}");
    let checked = hubctl(
        &folder,
        &["keys", "recover", "--check", "--recovery", text(&recovery)?],
    )?;
    ensure!(
        checked["recovered"] == false && !vault_key.exists(),
        "{checked:#}"
    );
    let done = hubctl(&folder, &["keys", "recover", "--recovery", text(&recovery)?])?;
    ensure!(done["recovered"] == true && done["can_go_on"] == true, "{done:#}");
    ensure!(fs::read(&vault_key)? != lost, "a new key");

    hub.mend()?;
    hub.start()?;
    hub.drained()?;
    pay(&hub, 1)?;
    hub.hubctl(&["keys", "rotate", "vault"])?;
    // A second start tells the ledger nothing more.
    hub.kill()?;
    hub.start()?;
    pay(&hub, 1)?;
    let charges = hub.charges()?;
    assert_eq!(charges.len(), 6, "each payment is charged");
    assert_eq!(once(&charges).len(), 6, "and once");
    hub.kill()?;
    let report = hubctl(&folder, &["ledger", "verify"])?;
    assert_eq!(
        (&report["verified"], &report["unread"]),
        (&true.into(), &0.into()),
        "{report:#}"
    );
    let kinds = [
        ("store-recovered", 1),
        ("recovery-key-changed", 1),
        ("vault-key-changed", 2),
    ];
    for (kind, count) in kinds {
        assert_eq!(report["kinds"][kind], count, "{report:#}");
    }
    // The lost key opens nothing any more, and a hub in order needs no recovery.
    let found = dir.path().join("found.key");
    fs::write(&found, lost)?;
    fs::set_permissions(&found, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    refused(&folder, &["ledger", "verify", "--vault-key", text(&found)?])?;
    let said = refused(&folder, &["keys", "recover", "--recovery", text(&recovery)?])?;
    ensure!(said.contains("nothing to recover"), "{said}");
    Ok(())
}

/// Posts what a line of the file says, as a payment service provider would.
async fn posted(gateway: &Gateway, line: &Value) -> Result<GatewayAnswer> {
    let body = &line["send"]["body"];
    let bytes = |name: &str| -> Result<Vec<u8>> {
        let text = body[name].as_str().with_context(|| name.to_owned())?;
        Ok(STANDARD.decode(text)?)
    };
    let operation = match body["operation"].as_str() {
        Some("authorise-deferred") => Operation::AuthoriseDeferred,
        Some("advice") => Operation::Advice,
        other => anyhow::bail!("{other:?}"),
    };
    let id = line["payment_id"].as_str().context("no id")?;
    ensure!(line["send"]["idempotency_key"] == format!("\"{id}\""), "{line}");
    ensure!(line["look_up"] == format!("v1/payments/{id}"), "{line}");
    let forward = Forward {
        attempt: AttemptId(1),
        payment_id: id.parse()?,
        operation,
        request_sequence: 0,
        device: line["device_id"].as_str().context("no device")?.parse()?,
        decided_ms: line["decided_ms"].as_u64().context("no time")?,
        number: 2,
        presentation: 1,
        maybe_sent: true,
        traces: hub_protocol::entry::TraceRule::Entry,
        deadline_ms: 5_000,
    };
    let card = SealedCard {
        salt: bytes("sealed_card_salt")?
            .try_into()
            .map_err(|_| anyhow::anyhow!("the salt has 16 bytes"))?,
        blob: bytes("sealed_card")?,
    };
    let (answer, _) = gateway
        .submit(&forward, &bytes("signed_request")?, Some(&card))
        .await;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_3_what_a_hub_without_keys_has_not_sent_is_brought_out_sealed_and_charged_once() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (recovery, public, _) = keys(dir.path())?;
    let mut hub = shop(dir.path(), &public)?;
    let out = dir.path().join("unsent.jsonl");
    // A copy without the keys: those were in the lost machine's TPM.
    let restored = dir.path().join("restored");
    output(Command::new("cp").arg("-a").arg(hub.dir()).arg(&restored))?;
    fs::remove_dir_all(restored.join("keys"))?;
    let said = refused(&restored, &["ledger", "unsent", text(&out)?])?;
    ensure!(said.contains("vault key"), "{said}");
    let done = hubctl(&restored, &["keys", "recover", "--recovery", text(&recovery)?])?;
    ensure!(
        done["recovered"] == true && done["can_go_on"] == false,
        "{done:#}"
    );
    let missing: Vec<&str> = done["missing"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|missing| missing["what"].as_str())
        .collect();
    assert_eq!(missing, ["signing key", "TLS key"]);
    let report = hubctl(&restored, &["ledger", "verify"])?;
    assert_eq!(report["unread"], 0, "everything is read: {report:#}");

    let told = hubctl(&restored, &["ledger", "unsent", text(&out)?])?;
    assert_eq!(
        (&told["payments"], &told["reversals"], &told["faults"]),
        (&3.into(), &0.into(), &0.into()),
        "{told:#}"
    );
    assert_eq!(told["sums"]["EUR"], 3750, "{told:#}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&out)?.permissions());
    assert_eq!(mode & 0o777, 0o600);
    // Never over a file that is there.
    refused(&restored, &["ledger", "unsent", text(&out)?])?;

    hub.mend()?;
    let config = Config::load(hub.dir()).map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
    let Peer::Https { url, credential } = config.gateway.peer else {
        anyhow::bail!("the gateway speaks HTTPS");
    };
    let gateway = Gateway::new(Settings {
        url: url.to_string(),
        ca_file: config.gateway.ca_file,
        credential: credential.map(|credential| credential.to_string()),
        store_id: config.hub.store_id,
        max_in_flight: 4,
        probe_timeout: Duration::from_secs(3),
    })?;
    for _ in 0..2 {
        for line in fs::read_to_string(&out)?.lines() {
            let answer = posted(&gateway, &serde_json::from_str(line)?).await?;
            ensure!(
                matches!(&answer, GatewayAnswer::Final(result) if result.approved),
                "{answer:?}"
            );
        }
    }
    // And the lost machine comes back after all.
    hub.start()?;
    hub.drained()?;
    let said = refused(hub.dir(), &["ledger", "unsent", text(&dir.path().join("more"))?])?;
    ensure!(said.contains("in use by another process"), "{said}");
    let charges = hub.charges()?;
    assert_eq!(charges.len(), 4, "each payment is charged");
    assert_eq!(once(&charges).len(), 4, "and once");
    Ok(())
}
