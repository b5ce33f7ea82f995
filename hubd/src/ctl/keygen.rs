//! `hubctl keygen`: a new Ed25519 key, for who signs policies or overrides, a
//! new TLS key for the hub, or a recovery key for stores.
#![allow(clippy::disallowed_methods)] // keys are made of entropy

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use ed25519_dalek::SigningKey;
use hub_protocol::Digest;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use serde::Serialize;
use zeroize::Zeroizing;

use super::failure::Failure;
use super::output::Output;
use crate::recovery_key::RecoverySecret;

#[derive(Serialize)]
struct Made<'a> {
    file: &'a Path,
    public_key: String,
}

/// Never over a key that is there.
fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut opened| {
            opened.write_all(text.as_bytes())?;
            opened.sync_all()
        });
    written.map_err(|error| Failure::new_file(file, error))
}

/// Makes a TLS key for the hub (P-256, PKCS#8 in PEM) in a new file that only
/// its owner may read. Its public half is given as a hub's id is: SHA-256 over
/// the SubjectPublicKeyInfo.
pub(super) fn keygen_tls(output: &Output, file: &Path) -> Result<(), Failure> {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|error| Failure::Refused(format!("no key could be made: {error}")))?;
    write(file, &Zeroizing::new(pair.serialize_pem()))?;
    let public_key = Digest::of(&pair.subject_public_key_info()).to_string();
    output.print(&Made { file, public_key }, || {
        format!(
            "{} holds a new TLS key for a hub; keep it secret, and keep a copy.\n\
             `hubctl keys rotate tls` takes it as keys/hub-tls.next.key.",
            file.display()
        )
    })
}

/// Makes a recovery key (X25519) and writes what it is derived from to a new
/// file that only its owner may read. The public half is for hubd.toml.
pub(super) fn keygen_recovery(output: &Output, file: &Path) -> Result<(), Failure> {
    let seed = seed()?;
    let public_key = RecoverySecret::from_seed(&seed).public().to_string();
    let line = Zeroizing::new(data_encoding::HEXLOWER.encode(seed.as_ref()) + "\n");
    write(file, &line)?;
    output.print(&Made { file, public_key: public_key.clone() }, || {
        format!(
            "{} holds a new recovery key. Whoever has it and a copy of a hub's folder reads that hub's ledger: keep it \
             off every network, in two places.\n\
             For [ledger] of each hub's hubd.toml, and then restart hubd:\n\
             recovery_key = \"{public_key}\"",
            file.display()
        )
    })
}

fn seed() -> Result<Zeroizing<[u8; 32]>, Failure> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut())
        .map_err(|error| Failure::Refused(format!("this machine gives no random numbers: {error}")))?;
    Ok(seed)
}

/// Makes a key and writes its seed to a new file that only its owner may read.
pub(super) fn keygen(output: &Output, file: &Path) -> Result<(), Failure> {
    let seed = seed()?;
    let key = SigningKey::from_bytes(&seed);
    let mut line = Zeroizing::new(data_encoding::HEXLOWER.encode(seed.as_ref()));
    line.push('\n');
    write(file, &line)?;
    let made = Made {
        file,
        public_key: data_encoding::HEXLOWER.encode(key.verifying_key().as_bytes()),
    };
    output.print(&made, || {
        format!(
            "{} holds a new private key; keep it secret, and keep a copy.\nIts public half: {}\n\
             A policy key: name it in a root (hubctl root), or in [policy] trusted_keys of hubd.toml.\n\
             A root key: keep it off every network, and name it in the root.\n\
             A supervisor's or a verifier's: name it in [[override.supervisor]] or [[attestation.verifier]] of the policy.",
            file.display(),
            made.public_key
        )
    })
}
