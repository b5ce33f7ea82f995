//! A hub as shipped whose gateway is an acquirer in Python that speaks ISO
//! 8583: offline sales, a kill -9, replay, and the acquirer's own book.
#![allow(missing_docs)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use hub_tests::hub::CutOffHub;
use hub_tests::process::{Programs, output, until};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A Python with pyiso8583, or the one line that says there is none.
#[allow(clippy::print_stdout)] // the line is for whoever runs the tests
fn python() -> Option<String> {
    let python = std::env::var("HUB_PEER_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut probe = Command::new(&python);
    probe.args(["-c", "import iso8583"]).stderr(Stdio::null());
    if probe.status().is_ok_and(|status| status.success()) {
        return Some(python);
    }
    let why = format!("{python} has no pyiso8583; `.ci/run peers` makes one that has");
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!ci, "acquirer: {why}, and in CI nothing is skipped");
    println!("skipped: acquirer: {why}");
    None
}

struct Acquirer {
    child: Child,
    port: u64,
    control: BufReader<TcpStream>,
}

impl Acquirer {
    fn start(python: &str, dialect: &str, dir: &Path) -> Result<Self> {
        let mut ca = CertificateParams::new(Vec::<String>::new())?;
        ca.distinguished_name.push(DnType::CommonName, "acquirer CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.signed_by(&key, &ca)?;
        fs::write(dir.join("ca.pem"), ca.pem())?;
        fs::write(dir.join("server.pem"), leaf.pem())?;
        fs::write(dir.join("server.key"), key.serialize_pem())?;
        let mut child = Command::new(python)
            .arg(format!("{ROOT}/tests/peers/iso8583_acquirer.py"))
            .args(["serve", "--dialect", dialect, "--cert"])
            .arg(dir.join("server.pem"))
            .arg("--key")
            .arg(dir.join("server.key"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        let out = child.stdout.take().context("no standard output")?;
        BufReader::new(out).read_line(&mut line)?;
        let ports: Value = serde_json::from_str(&line)?;
        let control = ports["control"].as_u64().context("no control port")?;
        let control = TcpStream::connect(("127.0.0.1", u16::try_from(control)?))?;
        Ok(Self {
            child,
            port: ports["port"].as_u64().context("no port")?,
            control: BufReader::new(control),
        })
    }

    fn control(&mut self, request: &Value) -> Result<Value> {
        writeln!(self.control.get_mut(), "{request}")?;
        let mut line = String::new();
        self.control.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Acquirer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes the hub one of this acquirer's.
fn join(hub: &CutOffHub, dialect: &str, acquirer: &Acquirer, dir: &Path) -> Result<()> {
    let file = hub.dir().join("hubd.toml");
    let text = fs::read_to_string(&file)?;
    let text = text
        .replace("protocol = \"https\"", "protocol = \"iso8583\"")
        .lines()
        .filter(|line| !line.starts_with("url = "))
        .map(|line| format!("{line}\n"))
        .collect::<String>()
        .replace(
            "#address = \"acquirer.example.com:5000\"",
            &format!("address = \"127.0.0.1:{}\"", acquirer.port),
        )
        .replace(
            "#ca_file = \"gateway-ca.pem\"",
            &format!("ca_file = {:?}", dir.join("ca.pem")),
        )
        .replace(
            "#dialect = \"dialect.toml\"",
            &format!("dialect = \"{ROOT}/config/dialects/{dialect}.toml\""),
        )
        .replace("#merchant_id =", "merchant_id =")
        .replace("#terminal_id = \"SHOP0001\"", "terminal_id = \"SHOP\"")
        .replace("#acquirer_id =", "acquirer_id =")
        .replace("#time_zone =", "time_zone =");
    Ok(fs::write(file, text)?)
}

/// A sale, and its id without hyphens, as the acquirer's book has it.
fn pay(hub: &CutOffHub, number: u64, card: &str, how: &str) -> Result<(u64, String)> {
    let amount = 1000 + number;
    let mut command = hub.device("till");
    command.args(["pay", "--amount", &amount.to_string(), "--card", card]);
    let receipt: Value = serde_json::from_str(output(&mut command)?.trim())?;
    assert_eq!(receipt["decision"], how, "{receipt}");
    let id = receipt["payment_id"].as_str().context("no payment id")?;
    Ok((amount, id.replace('-', "")))
}

fn day(python: &str, dialect: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut acquirer = Acquirer::start(python, dialect, dir.path())?;
    acquirer.control(&json!({"do": "set", "mode": "shut"}))?;
    let mut hub = CutOffHub::new(&Programs::find()?, dir.path())?;
    join(&hub, dialect, &acquirer, dir.path())?;

    hub.start()?;
    hub.enrol("till")?;
    let mut sold = Vec::new();
    for number in 0..4 {
        sold.push(pay(&hub, number, &format!("card {number}"), "approved-offline")?);
    }
    hub.kill()?;
    hub.start()?;
    for number in 4..6 {
        sold.push(pay(&hub, number, &format!("card {number}"), "approved-offline")?);
    }

    // The acquirer is back, and at first does not say what it has booked.
    acquirer.control(&json!({"do": "set", "mode": "unheard"}))?;
    until("the acquirer to take a payment unheard", || {
        let state = acquirer.control(&json!({"do": "book"})).ok()?;
        (!state["book"].as_array()?.is_empty()).then_some(())
    })?;
    acquirer.control(&json!({"do": "set", "mode": "normal"}))?;
    acquirer.control(&json!({"do": "cut"}))?;
    drained(&hub, &mut acquirer)?;
    sold.push(pay(&hub, 6, "card 6", "approved-online")?);

    let state = acquirer.control(&json!({"do": "book"}))?;
    assert_eq!(state["faults"], json!([]), "{dialect}");
    let book = state["book"].as_array().context("no book")?;
    let mut booked: Vec<(u64, String)> = book
        .iter()
        .map(|line| {
            assert_eq!(line["charges"], 1, "{dialect}: {line}");
            assert_eq!(line["reversed"], false, "{dialect}: {line}");
            let amount = line["amount"].as_u64().unwrap_or_default();
            (amount, line["payment_id"].as_str().unwrap_or_default().to_owned())
        })
        .collect();
    booked.sort();
    sold.sort();
    assert_eq!(booked, sold, "{dialect}: the acquirer's book is the shop's");
    let deferred = book.iter().filter(|line| line["deferred"] == true).count();
    assert_eq!(deferred, 6, "{dialect}: what was sold offline says so");
    // The first reversal is none of a repeat.
    let (amount, id) = sold
        .iter()
        .find(|(amount, _)| *amount == 1_006)
        .context("no sale")?;
    let hyphens = [8, 13, 18, 23].iter().fold(id.clone(), |mut id, at| {
        id.insert(*at, '-');
        id
    });
    output(hub.device("till").args(["void", &hyphens]))?;
    let reversed = until("the reversal", || {
        let state = acquirer.control(&json!({"do": "book"})).ok()?;
        let lines = state["book"].as_array()?.clone();
        lines
            .into_iter()
            .find(|line| line["amount"] == *amount && line["reversed"] == true)
    })?;
    assert_eq!(reversed["mtis"], json!(["0100", "0420"]), "{dialect}: {reversed}");
    let verified = hub.hubctl(&["ledger", "verify"])?;
    assert_eq!(verified["verified"], true);
    Ok(())
}

/// `cp -a`, as a backup is made and put back.
fn copy(from: &Path, to: &Path) -> Result<()> {
    output(Command::new("cp").arg("-a").arg(from).arg(to)).map(|_| ())
}

fn drained(hub: &CutOffHub, acquirer: &mut Acquirer) -> Result<()> {
    acquirer.control(&json!({"do": "set", "mode": "normal"}))?;
    until("the queue to be empty and the line up", || {
        let status = hub.hubctl(&["status"]).ok()?;
        (status["queued"] == 0 && status["wan"] == "online").then_some(())
    })
}

/// What the backup lacks comes again from the device, which has kept it.
fn put_back(python: &str, dialect: &str, in_place: bool) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut acquirer = Acquirer::start(python, dialect, dir.path())?;
    acquirer.control(&json!({"do": "set", "mode": "shut"}))?;
    let mut hub = CutOffHub::new(&Programs::find()?, dir.path())?;
    join(&hub, dialect, &acquirer, dir.path())?;
    hub.start()?;
    hub.enrol("till")?;
    let mut sold = vec![
        pay(&hub, 0, "card 0", "approved-offline")?,
        pay(&hub, 1, "card 1", "approved-offline")?,
    ];
    hub.kill()?;
    let backup = dir.path().join("backup");
    copy(hub.dir(), &backup)?;
    hub.start()?;
    // Asked while the hub does not answer, so kept by the device.
    let kept = dir.path().join("kept");
    hub.kill()?;
    let mut command = hub.device("till");
    command.args([
        "--give-up-after",
        "1",
        "pay",
        "--amount",
        "1002",
        "--card",
        "card 2",
    ]);
    let _ = command.output()?;
    let pending = dir.path().join("till").join("pending.payment");
    fs::copy(&pending, &kept)?;
    hub.start()?;
    // It asks for what it has kept first, and sells on.
    let again = |hub: &CutOffHub, number: u64| -> Result<[(u64, String); 2]> {
        fs::copy(&kept, &pending)?;
        let amount = (1_000 + number).to_string();
        let mut command = hub.device("till");
        command.args(["pay", "--amount", &amount, "--card", &format!("card {number}")]);
        let lines = output(&mut command)?;
        let mut answers = lines.lines().map(|line| {
            let receipt: Value = serde_json::from_str(line)?;
            assert_eq!(receipt["decision"], "approved-offline", "{receipt}");
            let id = receipt["payment_id"].as_str().context("no payment id")?;
            let amount = receipt["amount_minor"].as_u64().context("no amount")?;
            Ok::<_, anyhow::Error>((amount, id.replace('-', "")))
        });
        let mut next = || answers.next().context("an answer is missing")?;
        Ok([next()?, next()?])
    };
    let [first, other] = again(&hub, 3)?;
    sold.extend([first.clone(), other]);
    drained(&hub, &mut acquirer)?;
    // The machine is lost, and the backup put back: a ledger that ends before
    // the third payment, and before anything was sent.
    hub.kill()?;
    acquirer.control(&json!({"do": "set", "mode": "shut"}))?;
    if in_place {
        copy(&backup.join("."), hub.dir())?;
    } else {
        fs::remove_dir_all(hub.dir())?;
        copy(&backup, hub.dir())?;
    }
    hub.start()?;
    // Entries get the numbers that others had.
    for number in 10..13 {
        sold.push(pay(&hub, number, &format!("card {number}"), "approved-offline")?);
    }
    let [kept, other] = again(&hub, 13)?;
    assert_eq!(kept, first, "the same payment");
    sold.push(other);
    drained(&hub, &mut acquirer)?;

    let state = acquirer.control(&json!({"do": "book"}))?;
    assert_eq!(state["faults"], json!([]), "{dialect}");
    let book = state["book"].as_array().context("no book")?;
    let mut booked: Vec<(u64, String)> = book
        .iter()
        .map(|line| {
            assert_eq!(line["charges"], 1, "{dialect}: {line}");
            let amount = line["amount"].as_u64().unwrap_or_default();
            (amount, line["payment_id"].as_str().unwrap_or_default().to_owned())
        })
        .collect();
    booked.sort();
    sold.sort();
    assert_eq!(booked, sold, "{dialect}: each payment once");
    // What the backup held as waiting is sent as a repeat: nobody knows what
    // the lost hub did with it.
    let waiting: Vec<_> = book
        .iter()
        .filter(|line| line["amount"] == 1_000 || line["amount"] == 1_001)
        .collect();
    for line in waiting {
        assert_eq!(line["mtis"], json!(["0100", "0101"]), "{dialect}: {line}");
    }
    assert_eq!(hub.hubctl(&["ledger", "verify"])?["verified"], true);
    Ok(())
}

#[test]
fn a_hub_restored_from_a_backup_is_known_again_by_an_acquirer() -> Result<()> {
    let Some(python) = python() else { return Ok(()) };
    // By field 37, with one terminal for the shop; by field 11, one for each
    // device.
    for (dialect, in_place) in [("ascii", false), ("bcd", true)] {
        put_back(&python, dialect, in_place).with_context(|| dialect.to_owned())?;
    }
    Ok(())
}

#[test]
fn rule_3_offline_sales_over_a_kill_are_each_charged_once_by_an_acquirer() -> Result<()> {
    let Some(python) = python() else { return Ok(()) };
    for dialect in ["ascii", "bcd", "ebcdic"] {
        day(&python, dialect).with_context(|| dialect.to_owned())?;
    }
    Ok(())
}
