//! The signed policy: whose it is, and what it says.

use std::io::ErrorKind;
use std::path::Path;

use ed25519_dalek::VerifyingKey;
use hub_core::policy::{MAX_POLICY, Policy};
use hub_core::toml_reader::Fault;
use hub_protocol::KeyId;
use hub_protocol::cose::{CoseError, ObjectType, Unverified};

use super::fault::Faults;
use super::{Hub, files};

/// The largest signed policy, in bytes: the policy and its envelope.
const MAX_SIGNED_POLICY: usize = MAX_POLICY + 1024;

/// A policy whose signature was checked against the trusted keys.
#[derive(Clone, Debug)]
pub struct SignedPolicy {
    /// What it says.
    pub policy: Policy,
    /// The COSE_Sign1 object as received.
    pub signed: Vec<u8>,
    /// Who signed it.
    pub key: KeyId,
}

/// Why a signed policy is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFileError {
    /// Longer than any policy.
    #[error("longer than {MAX_SIGNED_POLICY} bytes: not a signed policy")]
    TooLong,
    /// Not an object as `hubctl policy sign` makes it.
    #[error("not a signed policy: {0}; `hubctl policy sign` makes one from a TOML file")]
    Cose(#[from] CoseError),
    /// Signed by somebody this hub does not obey.
    #[error(
        "signed by key {0}, which is not among [policy] trusted_keys, nor delegated by the root in force"
    )]
    UnknownSigner(KeyId),
    /// Well signed, and not a policy.
    #[error("the policy in it has {} fault(s): {}", .0.len(), join(.0))]
    Faults(Vec<Fault>),
}

fn join(faults: &[Fault]) -> String {
    let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// Checks the signature of a signed policy against the trusted keys and reads
/// what it says. Whether it is in force, or older than the present one, is
/// for the core to say.
pub fn verify_policy(signed: &[u8], trusted: &[VerifyingKey]) -> Result<SignedPolicy, PolicyFileError> {
    if signed.len() > MAX_SIGNED_POLICY {
        return Err(PolicyFileError::TooLong);
    }
    let unverified = Unverified::parse(signed)?;
    let key = unverified.kid();
    let signer = trusted
        .iter()
        .find(|trusted| KeyId::of_key(trusted.as_bytes()) == key)
        .ok_or(PolicyFileError::UnknownSigner(key))?;
    let payload = unverified.verify(ObjectType::Policy, signer)?;
    let policy = Policy::parse(&payload).map_err(PolicyFileError::Faults)?;
    Ok(SignedPolicy {
        policy,
        signed: signed.to_vec(),
        key,
    })
}

/// Reads the policy file that the configuration names. A missing file is only
/// a warning: the hub then approves nothing offline. So is, `by_root`, a key
/// that is not known.
pub(super) fn load(
    file: &Path,
    trusted: &[VerifyingKey],
    by_root: bool,
    hub: Option<&Hub>,
    faults: &Faults,
) -> Option<SignedPolicy> {
    let offline = "nothing is approved offline until `hubctl policy install` has brought a policy";
    if let Err(error) = file.symlink_metadata()
        && error.kind() == ErrorKind::NotFound
    {
        faults.warn(file, None, format!("does not exist: {offline}"));
        return None;
    }
    let signed = match files::read(file, MAX_SIGNED_POLICY as u64) {
        Ok(signed) => signed,
        Err(message) => {
            faults.whole(file, message);
            return None;
        }
    };
    match verify_policy(&signed, trusted) {
        Ok(found) => {
            if let Some(hub) = hub {
                check_fits(file, &found.policy, hub, faults);
            }
            Some(found)
        }
        Err(PolicyFileError::Faults(found)) => {
            // The lines are those of the text that was signed.
            for fault in found {
                faults.whole(file, format!("in the signed text, {fault}"));
            }
            None
        }
        // A later root, which only the ledger holds, may delegate the key.
        Err(error @ PolicyFileError::UnknownSigner(_)) if by_root => {
            faults.warn(
                file,
                None,
                format!("{error}: not taken at start; what the ledger holds stays in force"),
            );
            None
        }
        Err(error) => {
            faults.whole(file, error.to_string());
            None
        }
    }
}

fn check_fits(file: &Path, policy: &Policy, hub: &Hub, faults: &Faults) {
    if !policy.covers(&hub.store_id) {
        faults.whole(
            file,
            format!(
                "is for stores {:?}, not for this one; [hub] store_id = {:?}",
                policy.stores, hub.store_id
            ),
        );
    }
    if policy.currency != hub.currency {
        faults.whole(
            file,
            format!(
                "is for {}, and the shop takes {} ([hub] currency)",
                policy.currency, hub.currency
            ),
        );
    }
    if policy.expires_ms <= crate::clock::wall_ms() {
        faults.warn(
            file,
            None,
            "has expired: nothing is approved offline until `hubctl policy install` has brought a newer one",
        );
    }
}
