//! `hubctl root`: the root over the policy keys. All but `apply` works on
//! files, on machines that see no network.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hub_protocol::KeyId;
use hub_protocol::root::{Delegation, MAX_ROOT, MAX_SIGNED_ROOT, Root, RootKey, SignedRoot};
use serde::Serialize;

use super::client::Client;
use super::failure::Failure;
use super::output::{Output, table};
use super::policy::read_at_most;
use super::show::instant;
use crate::admin::protocol::{Answer, Request, RootReport};
use crate::clock;
use crate::config;

mod document;

/// A root, and who has signed it.
#[derive(Serialize)]
struct Shown<'a> {
    file: &'a Path,
    tenant: &'a str,
    version: u32,
    digest: String,
    expires_ms: u64,
    expired: bool,
    threshold: u32,
    keys: Vec<ShownKey<'a>>,
    delegations: Vec<ShownDelegation<'a>>,
    /// Signatures by keys that are not its own: of the root before.
    other_signatures: Vec<String>,
}

#[derive(Serialize)]
struct ShownKey<'a> {
    name: &'a str,
    public_key: String,
    key_id: String,
    signed: bool,
}

#[derive(Serialize)]
struct ShownDelegation<'a> {
    name: &'a str,
    public_key: String,
    key_id: String,
    stores: &'a [String],
    signs: Vec<&'static str>,
    not_before_ms: u64,
    expires_ms: u64,
    least_version: Option<u32>,
}

/// How many have signed, of how many that must.
#[derive(Serialize)]
struct Count {
    signed_by: Vec<String>,
    needed: u32,
}

impl Count {
    fn of(signed: &SignedRoot, root: &Root) -> Result<Self, Failure> {
        let signers = signed
            .signers(&root.keys)
            .map_err(|error| Failure::Unverified(format!("root {}: {error}", signed.root().version)))?;
        Ok(Self {
            signed_by: signers.into_iter().map(|key| key.name.clone()).collect(),
            needed: root.threshold,
        })
    }

    fn missing(&self) -> usize {
        (self.needed as usize).saturating_sub(self.signed_by.len())
    }

    fn text(&self) -> String {
        let names = match self.signed_by.is_empty() {
            true => String::new(),
            false => format!(" ({})", self.signed_by.join(", ")),
        };
        format!("{} of {} signatures{names}", self.signed_by.len(), self.needed)
    }
}

/// How far a root's signatures have come.
#[derive(Serialize)]
struct Collected<'a> {
    file: &'a Path,
    version: u32,
    digest: String,
    own: Count,
    /// Of the root before, if it was named.
    before: Option<Count>,
}

impl<'a> Collected<'a> {
    fn of(file: &'a Path, signed: &SignedRoot, before: Option<&Root>) -> Result<Self, Failure> {
        Ok(Self {
            file,
            version: signed.root().version,
            digest: signed.digest().to_string(),
            own: Count::of(signed, signed.root())?,
            before: before.map(|before| Count::of(signed, before)).transpose()?,
        })
    }

    fn text(&self) -> String {
        let before = self.before.as_ref().map_or_else(String::new, |before| {
            format!("\nOf the keys of root {}: {}", self.version - 1, before.text())
        });
        format!(
            "{} holds root {}, SHA-256 {}\nOf its own keys: {}{before}",
            self.file.display(),
            self.version,
            self.digest,
            self.own.text(),
        )
    }

    fn next(&self) -> String {
        let missing = self.own.missing() + self.before.as_ref().map_or(0, Count::missing);
        match (missing, self.version) {
            (0, 1) => "Enough have signed. Name it in [policy] root_file of hubd.toml.".to_owned(),
            (0, _) if self.before.is_none() => {
                "Enough of its own keys have signed; `hubctl root verify` the chain with the root before it."
                    .to_owned()
            }
            (0, _) => format!(
                "Enough have signed. Next: hubctl root apply {}",
                self.file.display()
            ),
            _ => "More have to sign: carry the file to the next holder of a key.".to_owned(),
        }
    }
}

/// Makes the file that is signed from a root as people write it.
pub(super) fn init(output: &Output, text: &Path, out: &Path) -> Result<(), Failure> {
    let bytes = read_at_most(text, 2 * MAX_ROOT as u64)?;
    let written = String::from_utf8(bytes)
        .map_err(|_| Failure::Unverified(format!("{} is not UTF-8 text", text.display())))?;
    let signed = document::read(&written).map_err(|faults| {
        let lines: Vec<String> = faults
            .iter()
            .map(|fault| format!("{}:{}: {}", text.display(), fault.line, fault.message))
            .collect();
        Failure::Unverified(format!("not a root\n{}", lines.join("\n")))
    })?;
    // Never over signatures that were collected.
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(out)
        .and_then(|mut file| file.write_all(&signed.to_bytes()))
        .map_err(|error| Failure::new_file(out, error))?;
    let collected = Collected::of(out, &signed, None)?;
    output.print(&collected, || {
        format!(
            "{}\nNext: each holder looks it through (hubctl root show {}) and signs it (hubctl root sign --key KEY {}).",
            collected.text(),
            out.display(),
            out.display()
        )
    })
}

/// Adds a signature to the file.
pub(super) fn sign(output: &Output, key: &Path, before: Option<&Path>, file: &Path) -> Result<(), Failure> {
    let mut signed = load(file)?;
    let before = before.map(load).transpose()?;
    let key = config::read_signing_key(key).map_err(|error| Failure::Refused(error.to_string()))?;
    let public = key.verifying_key().to_bytes();
    let holds = |root: &Root| root.keys.iter().any(|known| known.key == public);
    if !holds(signed.root()) && !before.as_ref().is_some_and(|before| holds(before.root())) {
        return Err(Failure::Refused(format!(
            "key {} is not a root key of {}; to sign as a holder of the root before it, name that one by --before",
            KeyId::of_key(&public),
            file.display()
        )));
    }
    signed
        .sign(&key)
        .map_err(|error| Failure::Refused(error.to_string()))?;
    replace(file, &signed.to_bytes()).map_err(|error| Failure::file(file, "write", error))?;
    let collected = Collected::of(file, &signed, before.as_ref().map(SignedRoot::root))?;
    output.print(&collected, || {
        format!("{}\n{}", collected.text(), collected.next())
    })
}

/// Shows what a root says, or writes it as TOML.
pub(super) fn show(output: &Output, file: &Path, as_text: bool) -> Result<(), Failure> {
    let signed = load(file)?;
    let root = signed.root();
    if as_text {
        return output.text(&document::write(root));
    }
    let signers = signed
        .signers(&root.keys)
        .map_err(|error| Failure::Unverified(format!("{}: {error}", file.display())))?;
    let own = |id: KeyId| root.keys.iter().any(|key| KeyId::of_key(&key.key) == id);
    let shown = Shown {
        file,
        tenant: &root.tenant,
        version: root.version,
        digest: signed.digest().to_string(),
        expires_ms: root.expires_ms,
        expired: root.expires_ms <= clock::wall_ms(),
        threshold: root.threshold,
        keys: root.keys.iter().map(|key| shown_key(key, &signers)).collect(),
        delegations: root.delegations.iter().map(shown_delegation).collect(),
        other_signatures: signed
            .kids()
            .filter(|id| !own(*id))
            .map(|id| id.to_string())
            .collect(),
    };
    output.print(&shown, || described(&shown))
}

fn shown_key<'a>(key: &'a RootKey, signers: &[&RootKey]) -> ShownKey<'a> {
    ShownKey {
        name: &key.name,
        public_key: data_encoding::HEXLOWER.encode(&key.key),
        key_id: KeyId::of_key(&key.key).to_string(),
        signed: signers.iter().any(|signer| signer.key == key.key),
    }
}

fn shown_delegation(one: &Delegation) -> ShownDelegation<'_> {
    ShownDelegation {
        name: &one.name,
        public_key: data_encoding::HEXLOWER.encode(&one.key),
        key_id: KeyId::of_key(&one.key).to_string(),
        stores: &one.stores,
        signs: one.signs.iter().map(|what| what.name()).collect(),
        not_before_ms: one.not_before_ms,
        expires_ms: one.expires_ms,
        least_version: one.least_version,
    }
}

fn described(shown: &Shown<'_>) -> String {
    let mut keys = table(["Root key of", "Public key", "Has signed"]);
    for key in &shown.keys {
        keys.add_row([key.name, &key.public_key, if key.signed { "yes" } else { "no" }]);
    }
    let mut delegated = table([
        "Delegated to",
        "Public key",
        "Signs",
        "For stores",
        "From",
        "Until",
        "Versions",
    ]);
    for one in &shown.delegations {
        delegated.add_row([
            one.name.to_owned(),
            one.public_key.clone(),
            one.signs.join(", "),
            one.stores.join(", "),
            instant(one.not_before_ms),
            instant(one.expires_ms),
            one.least_version
                .map_or_else(|| "any".to_owned(), |least| format!("from {least}")),
        ]);
    }
    let others = match shown.other_signatures.len() {
        0 => String::new(),
        _ => format!(
            "\nSigned as well by keys that are not its own, as the root before may want: {}",
            shown.other_signatures.join(", ")
        ),
    };
    format!(
        "Root {} of {}, until {}{}, SHA-256 {}\nAny {} of these keys sign it, and the next one:\n{keys}\n{delegated}{others}",
        shown.version,
        shown.tenant,
        instant(shown.expires_ms),
        if shown.expired { " (EXPIRED)" } else { "" },
        shown.digest,
        shown.threshold,
    )
}

/// Checks roots that follow one another; the first is taken as trusted.
pub(super) fn verify(output: &Output, files: &[PathBuf]) -> Result<(), Failure> {
    let roots = files
        .iter()
        .map(|file| Ok((file, load(file)?)))
        .collect::<Result<Vec<_>, Failure>>()?;
    let mut before: Option<&Root> = None;
    let mut verified = Vec::new();
    for (file, signed) in &roots {
        let judged = match before {
            None => signed.verify_first(),
            Some(before) => signed.verify_next(before),
        };
        judged.map_err(|error| Failure::Unverified(format!("{}: {error}", file.display())))?;
        verified.push(Collected::of(file, signed, before)?);
        before = Some(signed.root());
    }
    let last = before.map_or(0, |root| root.expires_ms);
    output.print(&verified, || {
        let lines: Vec<String> = verified.iter().map(Collected::text).collect();
        let expired = match last <= clock::wall_ms() {
            true => "; it has EXPIRED, and delegates nothing",
            false => "",
        };
        format!(
            "{}\nEach follows the one before it; the first is taken as trusted. The last holds until {}{expired}.",
            lines.join("\n"),
            instant(last)
        )
    })
}

/// Puts roots in force, one after the other.
pub(super) fn apply(client: &Client, output: &Output, files: &[PathBuf]) -> Result<(), Failure> {
    // All are looked at before the first is applied.
    let signed = files
        .iter()
        .map(|file| Ok(load(file)?.to_bytes()))
        .collect::<Result<Vec<_>, Failure>>()?;
    let mut reports: Vec<RootReport> = Vec::new();
    for (file, signed) in files.iter().zip(signed) {
        let request = Request::RootApply {
            root: STANDARD.encode(signed),
        };
        match client.ask(&request) {
            Ok(Answer::Root(report)) => reports.push(report),
            Ok(other) => return Err(Client::unexpected(&other)),
            Err(Failure::Refused(text)) => {
                return Err(Failure::Refused(format!("{}: {text}", file.display())));
            }
            Err(failure) => return Err(failure),
        }
    }
    output.print(&reports, || reports.last().map_or_else(String::new, in_force))
}

fn in_force(report: &RootReport) -> String {
    let mut text = format!(
        "Root {} is in force, until {}",
        report.version,
        instant(report.expires_ms)
    );
    if report.expires_ms <= clock::wall_ms() {
        text += "\nIt has EXPIRED: nothing is approved offline until the next one is applied.";
    }
    if let Some(objection) = &report.policy_objection {
        text += &format!(
            "\nThe policy in force does not count any more, and nothing is approved offline: {objection}\n\
             Next: hubctl policy install one that a delegated key has signed."
        );
    }
    text
}

fn load(file: &Path) -> Result<SignedRoot, Failure> {
    let bytes = read_at_most(file, MAX_SIGNED_ROOT as u64)?;
    SignedRoot::parse(&bytes).map_err(|error| {
        Failure::Unverified(format!(
            "{} is no root as `hubctl root init` makes it: {error}",
            file.display()
        ))
    })
}

/// Replaces a file as a whole or not at all: signatures are dear.
fn replace(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = file.with_extension("new");
    let mut out = fs::File::create(&new)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    fs::rename(&new, file)
}
