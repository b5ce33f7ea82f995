//! The hub's own keys.

use std::fmt;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER_PERMISSIVE;
use ed25519_dalek::{SigningKey, VerifyingKey};
use hub_protocol::{Digest, HubId, KeyId, cose};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use zeroize::Zeroizing;

use super::fault::Faults;
use super::files::{self, Layout};
use crate::recovery_key::RecoverySecret;

/// The largest key file, in bytes.
const MAX_KEY_FILE: u64 = 16 * 1024;

/// A key that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file} {message}")]
pub struct KeyError {
    file: String,
    message: String,
}

/// The keys that make a hub this hub.
#[derive(Clone)]
pub struct HubKeys {
    /// Signs receipts, statuses, ledger entries and registrations.
    ///
    /// As the files have it: which of this one and
    /// [`next_signing`](Self::next_signing) is the present one, the ledger says.
    pub signing: SigningKey,
    /// The key that was made to follow it, if there is one.
    pub next_signing: Option<SigningKey>,
    /// The TLS key. As the files have it: which of this one and
    /// [`next_tls`](Self::next_tls) is in use, or both, the ledger says.
    pub tls: TlsKey,
    /// The TLS key that was made to follow it, if there is one.
    pub next_tls: Option<TlsKey>,
    /// The hub's name for life: SHA-256 over the SubjectPublicKeyInfo of its
    /// first TLS key.
    pub hub_id: HubId,
    /// The vault key: the store's data key is wrapped under it. As the files
    /// have it; which of this one and [`next_vault`](Self::next_vault) is the
    /// present one, the ledger says.
    pub vault: Zeroizing<[u8; 32]>,
    /// The vault key that was made to follow it, if there is one.
    pub next_vault: Option<Zeroizing<[u8; 32]>>,
}

/// A TLS key (P-256). Its certificate is made at start: it is a container for
/// the key.
#[derive(Clone)]
pub struct TlsKey {
    /// PKCS#8 in DER.
    pub pkcs8: Zeroizing<Vec<u8>>,
    /// SHA-256 over its SubjectPublicKeyInfo.
    pub digest: Digest,
}

impl HubKeys {
    /// The id of the signing key, as it stands in COSE headers.
    pub fn signing_key_id(&self) -> KeyId {
        KeyId::of_key(self.signing.verifying_key().as_bytes())
    }
}

impl fmt::Debug for HubKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HubKeys({}, secrets hidden)", self.hub_id.short())
    }
}

/// Reads an Ed25519 private key: a file of mode 0600 with the 32-byte seed as
/// 64 hex digits.
pub fn read_signing_key(path: &Path) -> Result<SigningKey, KeyError> {
    read_seed(path)
        .map(|seed| SigningKey::from_bytes(&seed))
        .map_err(|message| KeyError {
            file: path.display().to_string(),
            message,
        })
}

/// An Ed25519 public key from 64 hex digits; weak keys are refused.
pub fn parse_public_key(text: &str) -> Option<VerifyingKey> {
    let bytes: [u8; 32] = HEXLOWER_PERMISSIVE
        .decode(text.trim().as_bytes())
        .ok()?
        .try_into()
        .ok()?;
    cose::verifying_key(&bytes)
}

/// Where a service manager puts what it has decrypted for this process
/// (systemd, `LoadCredentialEncrypted=`).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// The folder in which a service manager has put credentials for this
/// process.
pub(super) fn credentials() -> Option<PathBuf> {
    std::env::var_os(CREDENTIALS).map(PathBuf::from)
}

/// Where a key is read: the credential of its name, if the service manager
/// gives one, or else the file. A credential that is there and no good is a
/// fault: what lies in the folder may be an old key.
fn place(file: &Path, credentials: Option<&Path>) -> PathBuf {
    let given = credentials.and_then(|dir| Some(dir.join(file.file_name()?)));
    given
        .filter(|path| path.exists())
        .unwrap_or_else(|| file.to_owned())
}

/// Where a key that is to follow is read, if there is one. A file of zeros is
/// none: a power cut between the overwriting of a key and its removal leaves
/// that.
fn next_place(file: &Path, credentials: Option<&Path>) -> Option<PathBuf> {
    let path = place(file, credentials);
    (path.exists() && !is_overwritten(&path)).then_some(path)
}

/// A present key, or where that is gone the one that is to follow it: a power
/// cut between the end of the old key and the new one's taking its place leaves
/// the new one alone. A key that is there and cannot be used stays a fault, as
/// one without a next key is.
fn present<K: Clone>(
    file: &Path,
    credentials: Option<&Path>,
    next: Option<&K>,
    read: impl Fn(&Path) -> Option<K>,
) -> Option<K> {
    let path = place(file, credentials);
    let gone = matches!(path.try_exists(), Ok(false)) || is_overwritten(&path);
    match next {
        Some(next) if gone => Some(next.clone()),
        _ => read(file),
    }
}

/// Whether a key's file is there and is all zeros, which stand for a key that
/// was destroyed.
pub fn is_overwritten(file: &Path) -> bool {
    let zeros = |bytes: &[u8]| !bytes.is_empty() && bytes.iter().all(|byte| *byte == 0);
    files::read_secret(file, MAX_KEY_FILE).is_ok_and(|text| zeros(text.as_bytes()))
}

/// Reads the hub's keys; every one that is missing, open to others or no key
/// is a fault.
pub(super) fn load(layout: &Layout, credentials: Option<&Path>, faults: &Faults) -> Option<HubKeys> {
    let seed = |file: &Path| {
        let path = place(file, credentials);
        let read = read_seed(&path);
        read.map_err(|message| faults.whole(&path, hint(&message))).ok()
    };
    for file in layout.next_keys() {
        if is_overwritten(&place(file, credentials)) {
            faults.warn(
                file,
                None,
                "is all zeros, what is left of a key that was destroyed: taken as not there, and removed at the start",
            );
        }
    }
    let next_seed = |file: &Path| next_place(file, credentials).and_then(|_| seed(file));
    let next_signing = next_seed(&layout.next_signing_key);
    let signing = present(&layout.signing_key, credentials, next_signing.as_ref(), seed);
    let next_vault = next_seed(&layout.next_vault_key);
    let vault = present(&layout.vault_key, credentials, next_vault.as_ref(), seed);
    let tls_key = |file: &Path| {
        let path = place(file, credentials);
        let read = read_tls(&path);
        read.map_err(|message| faults.whole(&path, hint(&message))).ok()
    };
    let next_tls = next_place(&layout.next_tls_key, credentials).and_then(|_| tls_key(&layout.next_tls_key));
    let tls = present(&layout.tls_key, credentials, next_tls.as_ref(), tls_key);
    let hub_id = read_hub_id(layout, tls.as_ref(), faults);
    let signing = signing.map(|seed| SigningKey::from_bytes(&seed));
    let next_signing = next_signing.map(|seed| SigningKey::from_bytes(&seed));
    if let Some(signing) = &signing {
        let next = next_signing.as_ref().map(SigningKey::verifying_key);
        let own = place(&layout.signing_key, credentials);
        check_public(layout, (&own, &signing.verifying_key()), next, faults);
    }
    Some(HubKeys {
        signing: signing?,
        next_signing,
        tls: tls?,
        next_tls,
        hub_id: hub_id?,
        vault: vault?,
        next_vault,
    })
}

/// The key that is to follow the hub's signing key, if somebody has supplied
/// one or a change was begun.
///
/// # Errors
/// It is there and cannot be used.
pub fn next_signing_key(layout: &Layout) -> Result<Option<SigningKey>, KeyError> {
    let path = next_place(&layout.next_signing_key, credentials().as_deref());
    path.map(|path| read_signing_key(&path)).transpose()
}

/// The vault key that is to follow the hub's, as
/// [`next_signing_key`].
///
/// # Errors
/// It is there and cannot be used.
pub fn next_vault_key(layout: &Layout) -> Result<Option<Zeroizing<[u8; 32]>>, KeyError> {
    let path = next_place(&layout.next_vault_key, credentials().as_deref());
    path.map(|path| read_vault_key(&path)).transpose()
}

/// Reads a vault key: a file of mode 0600 with 64 hex digits.
///
/// # Errors
/// It is not there, open to others, or no key.
pub fn read_vault_key(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    read_seed(path).map_err(|message| KeyError {
        file: path.display().to_string(),
        message,
    })
}

/// Reads the private half of a recovery key: a file of mode 0600 with 64 hex
/// digits.
///
/// # Errors
/// It is not there, open to others, or no key.
pub fn read_recovery_secret(path: &Path) -> Result<RecoverySecret, KeyError> {
    let seed = read_seed(path).map_err(|message| KeyError {
        file: path.display().to_string(),
        message,
    })?;
    Ok(RecoverySecret::from_seed(&seed))
}

/// The vault keys that whoever asks can read in a hub's folder: none, the
/// present one, or while it is being changed two.
pub fn vault_keys(layout: &Layout) -> Vec<Zeroizing<[u8; 32]>> {
    let credentials = credentials();
    [&layout.vault_key, &layout.next_vault_key]
        .into_iter()
        .filter_map(|file| read_seed(&place(file, credentials.as_deref())).ok())
        .collect()
}

/// Whether a key is a credential of the service manager's: hubd can read it
/// and not replace it.
pub fn is_credential(file: &Path) -> bool {
    place(file, credentials().as_deref()) != file
}

fn hint(message: &str) -> String {
    if message == "does not exist" {
        "does not exist; put it back from the backup, or make a new hub in another folder with `hubd init`"
            .to_owned()
    } else {
        message.to_owned()
    }
}

fn read_seed(path: &Path) -> Result<Zeroizing<[u8; 32]>, String> {
    let text = files::read_secret(path, MAX_KEY_FILE)?;
    let bytes = HEXLOWER_PERMISSIVE
        .decode(text.trim().as_bytes())
        .map(Zeroizing::new)
        .ok();
    let key = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
    key.map(Zeroizing::new)
        .ok_or_else(|| "is not a key: 64 hex digits (32 bytes) expected".to_owned())
}

/// The TLS key that is to follow the hub's, if somebody has supplied one or a
/// change was begun.
///
/// # Errors
/// It is there and cannot be used.
pub fn next_tls_key(layout: &Layout) -> Result<Option<TlsKey>, KeyError> {
    let path = next_place(&layout.next_tls_key, credentials().as_deref());
    let read = |path: &Path| {
        read_tls(path).map_err(|message| KeyError {
            file: path.display().to_string(),
            message,
        })
    };
    path.map(|path| read(&path)).transpose()
}

/// Whether the private half of this TLS key is in one of the files, or a
/// credential.
pub fn has_tls_key(layout: &Layout, key: &Digest) -> bool {
    let credentials = credentials();
    [&layout.tls_key, &layout.next_tls_key].into_iter().any(|file| {
        let read = read_tls(&place(file, credentials.as_deref()));
        read.is_ok_and(|found| found.digest == *key)
    })
}

/// Whether a TLS key can be read, the present one or one to follow it.
pub fn tls_key_is_there(layout: &Layout) -> bool {
    let credentials = credentials();
    let mut files = [&layout.tls_key, &layout.next_tls_key].into_iter();
    files.any(|file| read_tls(&place(file, credentials.as_deref())).is_ok())
}

/// The name that the file has, or else that of the TLS key, which is then the
/// first.
fn read_hub_id(layout: &Layout, tls: Option<&TlsKey>, faults: &Faults) -> Option<HubId> {
    let file = &layout.hub_id;
    if !file.exists() {
        return tls.map(|tls| HubId(tls.digest.0));
    }
    let text = files::read_text(file, MAX_KEY_FILE);
    let id = text.ok().and_then(|text| text.trim().parse().ok());
    if id.is_none() {
        faults.whole(
            file,
            "is not a hub's id: 64 hex digits expected; `hubctl ledger verify` tells the id of the ledger",
        );
    }
    id
}

fn read_tls(path: &Path) -> Result<TlsKey, String> {
    let pem = files::read_secret(path, MAX_KEY_FILE)?;
    let pair = KeyPair::from_pkcs8_pem_and_sign_algo(&pem, &PKCS_ECDSA_P256_SHA256)
        .map_err(|_| "is not a P-256 key: PKCS#8 in PEM (BEGIN PRIVATE KEY) expected".to_owned())?;
    Ok(TlsKey {
        pkcs8: Zeroizing::new(pair.serialize_der()),
        digest: Digest::of(&pair.subject_public_key_info()),
    })
}

/// `hub-signing.pub` is what people verify the ledger with: a wrong one would
/// make a good ledger look forged.
fn check_public(
    layout: &Layout,
    (own, key): (&Path, &VerifyingKey),
    next: Option<VerifyingKey>,
    faults: &Faults,
) {
    let file = &layout.signing_public;
    match files::read_text(file, MAX_KEY_FILE) {
        Ok(text) if parse_public_key(&text).as_ref() == Some(key) => {}
        // While the key changes it is one of the two.
        Ok(text) if next.is_some() && parse_public_key(&text) == next => {}
        Ok(text) => faults.whole(file, of_another_key(layout, (own, key), parse_public_key(&text))),
        Err(message) => faults.warn(
            file,
            None,
            format!(
                "{message}; whoever verifies the ledger needs it: {}",
                data_encoding::HEXLOWER.encode(key.as_bytes())
            ),
        ),
    }
}

/// What `hub-signing.pub` says is not the public half of the key at `own`:
/// which of the two is the older one, a file in `keys/` may tell.
fn of_another_key(layout: &Layout, (own, key): (&Path, &VerifyingKey), said: Option<VerifyingKey>) -> String {
    let key = data_encoding::HEXLOWER.encode(key.as_bytes());
    if own == layout.signing_key {
        return format!(
            "is not the public half of keys/hub-signing.key: if that was put back from an older backup, put the newest back; if this file was changed, its content should be {key}"
        );
    }
    let fits = read_signing_key(&layout.signing_key).is_ok_and(|key| Some(key.verifying_key()) == said);
    if fits {
        return format!(
            "is the public half of {}, and not of the credential hub-signing.key, which is taken first: encrypt this file in place of the old credential (docs/keys.md), or take that out of the unit, and restart",
            layout.signing_key.display()
        );
    }
    format!(
        "is not the public half of the credential hub-signing.key: if the signing key was changed, encrypt the newest one in place of the old credential (docs/keys.md); if this file was changed, its content should be {key}"
    )
}
