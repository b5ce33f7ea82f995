//! The chain of keys that a ledger was signed with: a file beside the
//! segments, made from the ledger's own entries.
//!
//! Archives that are elsewhere may hold the entry of a change, and manifests
//! are checked before segments: so the statements are kept in one file too.
//! Each proves itself by the keys it links. A change is durable in the ledger
//! first; a file that a power cut left short is completed from the last
//! segment at the next opening, and one that was lost from all that is there.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use ed25519_dalek::{SigningKey, VerifyingKey};
use hub_protocol::cose::Unverified;
use hub_protocol::{DataKey, Entry, Event, HubId, HubKeyChange, KeyChain, KeyId, SignedKeyChange, cbor};
use minicbor::{Decode, Encode};

use super::archive;
use super::disk::{self, Numbered};
use super::error::{Fault, LedgerError};
use super::journal::EXTENSION;
use super::segment::{HEADER_LEN, Header, Record, record};

/// The file, in the ledger's folder and beside copied archives.
pub const SIGNING_KEYS: &str = "signing-keys";

/// A statement has less than 400 bytes, and a hub changes its key some few
/// times in its life.
const MOST_BYTES: u64 = 4 << 20;

#[derive(Encode, Decode)]
#[cbor(map)]
struct Stored {
    #[n(1)]
    changes: Vec<SignedKeyChange>,
}

/// The keys that may be the hub's present one: that of its key file, and one
/// that was made to follow it.
#[derive(Clone, Debug)]
pub struct Candidates(Vec<SigningKey>, Option<DataKey>);

impl From<SigningKey> for Candidates {
    fn from(key: SigningKey) -> Self {
        Self(vec![key], None)
    }
}

impl Candidates {
    /// The hub's key, and the one that was made to follow it, if there is one.
    pub fn new(present: SigningKey, next: Option<SigningKey>) -> Self {
        Self([Some(present), next].into_iter().flatten().collect(), None)
    }

    /// With the key that the store is encrypted under.
    pub fn reading(mut self, key: Option<DataKey>) -> Self {
        self.1 = key;
        self
    }

    pub(crate) fn data_key(&self) -> Option<&DataKey> {
        self.1.as_ref()
    }

    fn first(&self) -> VerifyingKey {
        // Never empty by construction; a key of zeros signs nothing here.
        let first = self.0.first();
        first
            .map_or_else(|| SigningKey::from_bytes(&[0; 32]), Clone::clone)
            .verifying_key()
    }

    /// The one that the chain ends with.
    pub(crate) fn current(&self, chain: &KeyChain, path: &Path) -> Result<SigningKey, LedgerError> {
        let found = self.0.iter().find(|key| key.verifying_key() == *chain.current());
        found.cloned().ok_or_else(|| LedgerError::OtherSigningKey {
            path: path.into(),
            expected: KeyId::of_key(chain.current().as_bytes()),
        })
    }
}

/// The chain of the ledger in `dir` for whoever opens it to write, and
/// whether the file has it already.
pub(crate) fn chain_to_write(
    dir: &Path,
    hub: HubId,
    keys: &Candidates,
) -> Result<(KeyChain, bool), LedgerError> {
    let trusted: Vec<VerifyingKey> = keys.0.iter().map(SigningKey::verifying_key).collect();
    let newest = newest(dir)?;
    let (chain, in_file) = chain_of(dir, Some(hub), &trusted, keys.first(), &newest)?;
    match newest.signed_by {
        // What came next would not verify.
        Some((expected, sequence)) if KeyId::of_key(chain.at(sequence).as_bytes()) != expected => {
            Err(LedgerError::OtherSigningKey {
                path: dir.into(),
                expected,
            })
        }
        _ => Ok((chain, in_file)),
    }
}

/// The chain of the ledger in `dir` for whoever trusts one of its keys, the
/// first or any later one. If none of them is trusted it is that key alone,
/// and nothing will verify.
///
/// # Errors
/// The system's refusal to read.
pub fn signing_keys(dir: &Path, trusted: &VerifyingKey) -> Result<KeyChain, LedgerError> {
    Ok(chain_of(dir, None, &[*trusted], *trusted, &newest(dir)?)?.0)
}

/// The chain beside an archive: in its folder, or in the ledger's whose
/// archive folder that is.
pub(crate) fn chain_beside(dir: &Path, trusted: &VerifyingKey) -> Result<KeyChain, LedgerError> {
    let mut changes = read(dir)?;
    if changes.is_empty() && dir.file_name().is_some_and(|name| name == archive::FOLDER) {
        changes = read(&dir.join(".."))?;
    }
    Ok(KeyChain::linked(None, trusted, &changes).unwrap_or_else(|_| KeyChain::new(None, *trusted)))
}

/// Whose ledger lies in `dir`, by the newest segment or archive that says so;
/// `None` if there is none.
///
/// # Errors
/// The system's refusal to read.
pub fn hub_of(dir: &Path) -> Result<Option<HubId>, LedgerError> {
    if !dir.is_dir() {
        return Ok(None);
    }
    for (_, path) in Numbered::list(dir, EXTENSION)?.files.iter().rev() {
        let file = File::open(path).map_err(LedgerError::io("open", path))?;
        if let Ok(header) = Header::decode(&disk::read_whole(&file, path)?) {
            return Ok(Some(header.hub));
        }
    }
    let archives = dir.join(archive::FOLDER);
    if archives.is_dir() {
        for (_, path) in Numbered::list(&archives, archive::PACKED)?.files.iter().rev() {
            if let Ok(header) = Header::decode(&archive::unpacked_as_far_as_it_goes(path)?) {
                return Ok(Some(header.hub));
            }
        }
    }
    Ok(None)
}

fn chain_of(
    dir: &Path,
    hub: Option<HubId>,
    trusted: &[VerifyingKey],
    otherwise: VerifyingKey,
    newest: &Newest,
) -> Result<(KeyChain, bool), LedgerError> {
    let linked = |changes: &[SignedKeyChange]| {
        let chains = trusted.iter().map(|key| KeyChain::linked(hub, key, changes));
        chains.flatten().next()
    };
    let kept = read(dir)?;
    let mut changes = kept.clone();
    changes.extend(
        newest
            .changes
            .iter()
            .filter(|change| !kept.contains(change))
            .cloned(),
    );
    // A file that is there is whole but for its end.
    let others = match kept.is_empty() {
        true => oldest(dir)?,
        false => Signers::default(),
    };
    let fits = |chain: &KeyChain| {
        let at = |(kid, sequence): &Signer| KeyId::of_key(chain.at(*sequence).as_bytes()) == *kid;
        newest.signed_by.iter().chain(&others.commits).all(at)
            && others.manifests.iter().all(|kid| chain.knows(*kid))
    };
    if let Some(chain) = linked(&changes).filter(fits) {
        let in_file = kept.len() == changes.len();
        return Ok((chain, in_file));
    }
    // The file is lost, or is another ledger's: the statements are in the
    // entries too.
    let chain = linked(&collect(dir)?).unwrap_or_else(|| KeyChain::new(hub, otherwise));
    Ok((chain, false))
}

/// The statements that the file has; none without a file.
pub(crate) fn read(dir: &Path) -> Result<Vec<SignedKeyChange>, LedgerError> {
    let path = dir.join(SIGNING_KEYS);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(LedgerError::io("open", &path)(error)),
    };
    if file.metadata().map_err(LedgerError::io("examine", &path))?.len() > MOST_BYTES {
        return Ok(Vec::new());
    }
    let bytes = disk::read_whole(&file, &path)?;
    // One that does not read is as good as lost: nothing in it is believed
    // unproved, and it is made again.
    Ok(cbor::decode::<Stored>(&bytes)
        .map(|stored| stored.changes)
        .unwrap_or_default())
}

/// Replaces the file, durably. Without room for it the ledger's entries say
/// the same, and the next opening tries again.
pub(crate) fn keep(dir: &Path, chain: &KeyChain) {
    if let Err(error) = write(dir, chain) {
        tracing::warn!(%error, "the chain of signing keys could not be written beside the ledger");
    }
}

fn write(dir: &Path, chain: &KeyChain) -> Result<(), LedgerError> {
    write_changes(dir, chain.statements(0))
}

/// Copies the chain beside archives that are copied away: without it those
/// that an earlier key signed do not verify by a later one, nor the other way
/// round. A longer one that is there stays.
///
/// # Errors
/// The system's refusal to read or write.
pub fn copy_signing_keys(from: &Path, to: &Path) -> Result<(), LedgerError> {
    let changes = read(from)?;
    match changes.len() > read(to)?.len() {
        true => write_changes(to, changes),
        false => Ok(()),
    }
}

fn write_changes(dir: &Path, changes: Vec<SignedKeyChange>) -> Result<(), LedgerError> {
    let path = dir.join(SIGNING_KEYS);
    let new = path.with_extension("new");
    let stored = Stored { changes };
    let mut file = File::create(&new).map_err(LedgerError::io("create", &new))?;
    file.write_all(&cbor::encode(&stored))
        .and_then(|()| file.sync_all())
        .map_err(LedgerError::io("write to", &new))?;
    fs::rename(&new, &path).map_err(LedgerError::io("rename", &new))?;
    disk::sync_dir(dir)
}

/// The key of a commit, and where that ends.
type Signer = (KeyId, u64);

/// What the newest segment with entries tells of keys.
#[derive(Default)]
struct Newest {
    changes: Vec<SignedKeyChange>,
    /// Of the last commit.
    signed_by: Option<Signer>,
    /// Of the first one.
    first: Option<Signer>,
}

/// Who signed what a ledger begins with.
#[derive(Default)]
struct Signers {
    commits: Vec<Signer>,
    manifests: Vec<KeyId>,
}

/// The first commits of the oldest segment and of the oldest archive that is
/// here, and all manifests.
fn oldest(dir: &Path) -> Result<Signers, LedgerError> {
    let mut signers = Signers::default();
    if !dir.is_dir() {
        return Ok(signers);
    }
    let mut files = Vec::new();
    if let Some((_, path)) = Numbered::list(dir, EXTENSION)?.files.first() {
        let file = File::open(path).map_err(LedgerError::io("open", path))?;
        files.push(disk::read_whole(&file, path)?);
    }
    let archives = dir.join(archive::FOLDER);
    if archives.is_dir() {
        if let Some((_, path)) = Numbered::list(&archives, archive::PACKED)?.files.first() {
            files.push(archive::unpacked_as_far_as_it_goes(path)?);
        }
        for (_, path) in Numbered::list(&archives, archive::MANIFEST)?.files {
            // One that does not read is found when it is checked.
            let signed = fs::read(&path).unwrap_or_default();
            signers
                .manifests
                .extend(Unverified::parse(&signed).ok().map(|signed| signed.kid()));
        }
    }
    for bytes in files {
        let mut found = Newest::default();
        walk(&bytes, &mut found);
        signers.commits.extend(found.first);
    }
    Ok(signers)
}

fn newest(dir: &Path) -> Result<Newest, LedgerError> {
    if !dir.is_dir() {
        return Ok(Newest::default());
    }
    for (_, path) in Numbered::list(dir, EXTENSION)?.files.iter().rev() {
        let file = File::open(path).map_err(LedgerError::io("open", path))?;
        let mut found = Newest::default();
        walk(&disk::read_whole(&file, path)?, &mut found);
        if found.signed_by.is_some() {
            return Ok(found);
        }
    }
    Ok(Newest::default())
}

/// The statements in all segments and archives that are here.
fn collect(dir: &Path) -> Result<Vec<SignedKeyChange>, LedgerError> {
    let mut found = Newest::default();
    if !dir.is_dir() {
        return Ok(found.changes);
    }
    let plain = Numbered::list(dir, EXTENSION)?.files;
    let archives = dir.join(archive::FOLDER);
    if archives.is_dir() {
        for (number, path) in Numbered::list(&archives, archive::PACKED)?.files {
            if plain.iter().all(|(other, _)| *other != number) {
                walk(&archive::unpacked_as_far_as_it_goes(&path)?, &mut found);
            }
        }
    }
    for (_, path) in &plain {
        let file = File::open(path).map_err(LedgerError::io("open", path))?;
        walk(&disk::read_whole(&file, path)?, &mut found);
    }
    Ok(found.changes)
}

/// Groups up to their marks, as far as the file goes. Nothing is verified but
/// checksums: a statement proves itself.
fn walk(bytes: &[u8], found: &mut Newest) {
    let mut at = HEADER_LEN;
    let (mut changes, mut signed_by) = (Vec::new(), None);
    while let Some((record, next)) = record(bytes, at) {
        match record {
            Record::Entry(payload) => changes.extend(change_in(payload)),
            Record::Statement(signed) => {
                signed_by = Unverified::parse(signed).ok().map(|signed| signed.kid())
            }
            Record::Mark(mark) => {
                found.changes.append(&mut changes);
                found.signed_by = signed_by.take().map(|kid| (kid, mark.last)).or(found.signed_by);
                found.first = found.first.or(found.signed_by);
            }
            Record::Footer(_) => return,
        }
        at = next;
    }
}

/// Key 5 of an entry with an array of two whose first is 120.
const CHANGES_KEY: [u8; 4] = [0x05, 0x82, 0x18, 120];

fn change_in(payload: &[u8]) -> Option<SignedKeyChange> {
    // Decoding every entry of a ledger for some few would take long.
    payload
        .windows(4)
        .any(|bytes| bytes == CHANGES_KEY)
        .then_some(())?;
    match cbor::decode::<Entry>(payload).ok()?.event {
        Event::HubKeyChanged { statement, .. } => Some(statement),
        _ => None,
    }
}

/// Whether an entry that changes the key is the one that the chain knows, in
/// its place.
pub(crate) fn check(entry: &Entry, chain: &KeyChain) -> Result<(), Fault> {
    let Event::HubKeyChanged { statement, .. } = &entry.event else {
        return Ok(());
    };
    let known = chain.statements(0).contains(statement);
    let here = HubKeyChange::open(&statement.0).is_ok_and(|change| change.sequence == entry.sequence);
    (known && here).then_some(()).ok_or(Fault::KeyChange)
}
