//! Opening: from the files on disk to the folded state.
//!
//! The journal is the truth. The index saves folding it from the beginning;
//! if it is missing, damaged, or does not agree with the journal, it is set
//! aside and built again. For anything else that is wrong it stays where it
//! is: an archive that is away is put back, and the index serves as before.

use std::collections::BTreeSet;

use hub_core::Recovered;
use hub_core::state::{FoldError, PaymentRecord, State};
use hub_protocol::entry::StorageLevel;
use hub_protocol::{PaymentId, StoredPayload, cbor};

use crate::config::Config;
use crate::data_key::{DataKeyError, StoreKey, VaultKey};
use crate::ledger::{
    Candidates, Damage, DataLock, ENCRYPTED_SINCE, Home, Index, IndexReader, Journal, JournalOptions,
    JournalReader, LedgerError, RestSeal, SAME_FILES_SINCE, STORE_FORMAT, Space, Vault, read_store_format,
    write_store_format,
};
use crate::run::key_files;
use crate::run::migration::{self, AtStep};
use crate::run::recovery;
use crate::run::storage;
use crate::run::vault_key;

mod fold;
mod index;

pub(super) use index::build_index;

/// The most entries whose cards can still be there although they should not,
/// and the most cards whose entries never came: more than wait for the
/// committer at any time.
const MOST_BEHIND: usize = 16 * 1024;

/// The size of a vault file, in bytes.
const VAULT_FILE: usize = 16 << 20;

/// A store that is open.
pub struct Opened {
    /// Keeps other hubs out.
    pub lock: DataLock,
    /// The room on the disk.
    pub space: Space,
    /// The journal, with its archives.
    pub journal: Journal,
    /// Sealed cards.
    pub vault: Vault,
    /// The index, up to the journal's end.
    pub index: Index,
    /// The state, up to the journal's end.
    pub state: State,
    /// Bytes of an unfinished write that were cut off the journal.
    pub torn_bytes: u64,
    /// Whether the ledger tells of an outage, and may have been elsewhere
    /// since.
    pub away: bool,
    /// The key that the store is encrypted under.
    pub store_key: StoreKey,
    /// A recovery that the ledger does not tell of yet.
    pub recovered: Option<Recovered>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opened({:?})", self.journal)
    }
}

/// Why the ledger could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The files.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The key that they are encrypted under.
    #[error(transparent)]
    Key(#[from] DataKeyError),
    /// The index could not even be made anew.
    #[error("the index cannot be built: {0}; check the disk and the folder's owner")]
    Index(Damage),
    /// The store could not be brought to this program's format.
    #[error("the store of an older format cannot be migrated: {0}. The old one is as it was")]
    Migration(String),
    /// The journal verifies and does not fit together: written by another
    /// program.
    #[error("ledger: {0}; keep the files as they are and run `hubctl ledger verify`")]
    Fold(#[from] FoldError),
    /// A thread of the opening ended in the middle of its work.
    #[error(
        "the thread that {0} ended unexpectedly, which is a fault of the program; nothing is lost, start hubd again"
    )]
    Ended(&'static str),
}

/// Opens everything in the hub's folder, as a hub does at its start; for tools
/// that work on a store, too.
///
/// # Errors
/// [`OpenError`] says what is wrong and what to do.
pub fn open(config: &Config) -> Result<Opened, OpenError> {
    open_at(config, &mut |_| Ok(()))
}

/// [`open`], and `at` hears of each step of a migration.
pub(super) fn open_at(config: &Config, at: AtStep<'_>) -> Result<Opened, OpenError> {
    let layout = &config.layout;
    // Before anything is touched: the reserve and the stamp have one owner
    // too.
    let lock = DataLock::acquire(&layout.dir)?;
    let format = read_store_format(&layout.format)?;
    // A journal that vanished must not become an empty one; a first start that
    // was cut off between two folders must not stand in the next one's way.
    let never_used = !layout.index.exists() && !layout.vault.exists();
    let outdated = format.unwrap_or(1) < SAME_FILES_SINCE && layout.ledger.exists() && !never_used;
    let verified = match outdated {
        true => Some(migration::verify_old(config, format.unwrap_or(1), at)?),
        false => None,
    };
    let space = storage::open(config)?;
    let full = space.level() == StorageLevel::Full;
    if full && outdated {
        return Err(OpenError::Migration("the disk has no room for it".to_owned()));
    }
    // Archives are read with it.
    let known = match StoreKey::is_there(layout) || format.is_some_and(|format| format >= ENCRYPTED_SINCE) {
        true => Some(StoreKey::open(layout, &vault_keys(config))?),
        false => None,
    };
    let options = JournalOptions {
        segment_bytes: config.ledger.segment_bytes,
        create: never_used,
    };
    let (mut journal, report) = Journal::open(
        &layout.ledger,
        config.keys.hub_id,
        Candidates::new(config.keys.signing.clone(), config.keys.next_signing.clone())
            .reading(known.as_ref().map(|known| known.key().clone())),
        options,
    )?;
    journal.keep_room(&space);
    if report.torn_bytes > 0 {
        tracing::warn!(
            bytes = report.torn_bytes,
            "cut an unfinished write off the journal; nothing in it was answered"
        );
    }
    let current = *journal.keys().chain().current();
    // Nothing is under way: what the ledger does not tell of came to nothing.
    let settled = key_files::settle(layout, &current, &mut |_| Ok(()))
        .and_then(|()| key_files::discard_made(layout, &current));
    if let Err(error) = settled {
        tracing::warn!(%error, "the files of the signing key could not be put in order after its change; the next start tries again");
    }
    let reader = journal.reader();
    let mut store_key = match known {
        Some(known) => known,
        None => new_key(config, &reader)?,
    };
    journal.unseal(store_key.key());
    let seal = &RestSeal::index(store_key.key());
    match verified {
        Some(head) => migration::migrate((layout, seal), &reader, head, at)?,
        // Before the first entry that an older program could not read.
        None if format != Some(STORE_FORMAT) => write_store_format(&layout.format)?,
        None => {}
    }
    if full {
        // What the index writes when it is opened; it is asked for no more
        // until there is room.
        space.give_back()?;
    }
    let archives = journal.archives();
    let (mut index, mut state) = index::open_state(
        &layout.index,
        (config.keys.hub_id, seal),
        &reader,
        &archives,
        full,
    )?;
    let older: Vec<&[u8; 32]> = vault_keys(config).into_iter().map(|key| &**key).collect();
    let outage = state.store().unsent_since;
    let away = outage.is_some_and(|since| !Home::of(&layout.ledger).is_in_outage_since(since));
    if outage.is_none() || away || report.torn_bytes > 0 {
        // Before anything is sent: a process that ended between the end of an
        // outage and this has left it.
        Home::of(&layout.ledger).outage_ends()?;
    }
    if away {
        tracing::warn!(
            "the machine was off in an outage, or the ledger is a copy that was put back, or it could not be told from one: whatever waits may have been sent elsewhere meanwhile"
        );
    }
    let mut vault = Vault::open_older(&layout.vault, &store_key.vault_cards(), &older, VAULT_FILE)?.0;
    let named = state.store().vault_key;
    store_key.set_named(named);
    let recovered = recovery::to_tell(layout, &store_key, named);
    let opens = |id| vault_key::current(layout, Some(id)).is_some_and(|key| store_key.opens_with(&key));
    if recovered.is_some() {
        tracing::warn!(
            "the store was recovered, and has a new vault key: the ledger is told. Back up keys/ and data-key together"
        );
    } else if named.is_some_and(|id| !opens(id)) {
        tracing::warn!(
            "the vault key that opens the store is not the one that the ledger names: an older copy of keys/ and \
             data-key was put back. Give `hubctl keys rotate vault`, and back up keys/ and data-key together"
        );
    }
    if !vault.reader().holds_older()
        && let Err(error) = vault_key::put_in_order(layout, &mut store_key, named)
    {
        tracing::warn!(%error, "the files of the vault key could not be put in order after its change; the next start tries again");
    }
    wrap_for_recovery(config, &mut store_key);
    let unneeded = match unneeded_cards(&vault, &reader, &index.reader(), &state) {
        // Damage that shows only now.
        Err(OpenError::Index(damage)) if !matches!(damage, Damage::Archived { .. }) => {
            drop(index);
            let trouble = damage.to_string();
            (index, state) = index::rebuild(
                &layout.index,
                (config.keys.hub_id, seal),
                &reader,
                &archives,
                &trouble,
            )?;
            unneeded_cards(&vault, &reader, &index.reader(), &state)?
        }
        unneeded => unneeded?,
    };
    vault.erase(&unneeded)?;
    vault.keep_room(&space);
    migration::tidy_up(layout);
    Ok(Opened {
        lock,
        space,
        journal,
        vault,
        index,
        state,
        torn_bytes: report.torn_bytes,
        away,
        store_key,
        recovered,
    })
}

/// Has the store's key wrapped for the recovery key of the configuration, or
/// for none if it names none.
fn wrap_for_recovery(config: &Config, store_key: &mut StoreKey) {
    let wanted = config.ledger.recovery_key;
    match store_key.wrap_for_recovery(config.keys.hub_id, wanted.as_ref()) {
        Ok(false) => {}
        Ok(true) => match wanted {
            Some(key) => tracing::info!(
                recovery_key = %data_encoding::HEXLOWER.encode(&key.id()),
                "the store's data key is wrapped for headquarters' recovery key: back up data-key"
            ),
            None => tracing::warn!(
                "hubd.toml names no recovery key any more: the store's data key is wrapped for none, and is lost with the vault key"
            ),
        },
        // The shop opens all the same.
        Err(error) => tracing::error!(
            %error,
            "the store's data key could not be wrapped as [ledger] recovery_key has it; the next start tries again"
        ),
    }
}

fn vault_keys(config: &Config) -> Vec<&VaultKey> {
    let keys = &config.keys;
    [Some(&keys.vault), keys.next_vault.as_ref()]
        .into_iter()
        .flatten()
        .collect()
}

/// The data key that a new store gets, and one of an older format.
fn new_key(config: &Config, journal: &JournalReader) -> Result<StoreKey, OpenError> {
    let layout = &config.layout;
    if holds_encrypted(journal)? {
        // Says what is to be put back.
        return Ok(StoreKey::open(layout, &vault_keys(config))?);
    }
    let fresh = key_files::fresh_seed().map_err(|source| DataKeyError::Write {
        path: layout.dir.clone(),
        source,
    })?;
    Ok(StoreKey::create(layout, &fresh, &config.keys.vault)?)
}

/// Whether one of the last entries is encrypted: there was a key then,
/// whatever the stamp says.
fn holds_encrypted(journal: &JournalReader) -> Result<bool, LedgerError> {
    let last = journal.head().sequence;
    let first = last.saturating_sub(LOOKED_AT).max(journal.first_plain().max(1));
    for sequence in first..=last {
        let payload = journal.read(sequence)?;
        if matches!(StoredPayload::decode(&payload), Ok(StoredPayload::Sealed(_))) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Every start writes entries that are encrypted, and few that are not.
const LOOKED_AT: u64 = 64;

fn unusable(damage: Damage) -> OpenError {
    OpenError::Index(damage)
}

/// Cards that no payment needs any more and that are to be destroyed: the hub was killed
/// between an answer and the destruction, or between card and entry. What can
/// be behind is bounded by what waits for the committer, so that only the
/// newest entries and the newest cards are looked at.
fn unneeded_cards(
    vault: &Vault,
    journal: &JournalReader,
    index: &IndexReader,
    state: &State,
) -> Result<Vec<PaymentId>, OpenError> {
    let reader = vault.reader();
    let mut suspects: BTreeSet<PaymentId> = reader.newest(MOST_BEHIND)?.into_iter().collect();
    let first = journal.head().sequence.saturating_sub(MOST_BEHIND as u64) + 1;
    // Archived payments ended long ago.
    let first = first.max(journal.first_plain());
    for stored in journal.entries_from(first)? {
        if let Some(id) = stored?.entry.event.payment_id()
            && !suspects.contains(&id)
            && reader.holds(id)?
        {
            suspects.insert(id);
        }
    }
    let mut unneeded = Vec::new();
    for id in suspects {
        let needed = match (
            state.payment(&id),
            index.get(&State::payment_key(&id)).map_err(unusable)?,
        ) {
            (Some(payment), _) => payment.needs_card(),
            (None, Some(value)) => cbor::decode::<PaymentRecord>(&value)
                .map_err(|_| FoldError::IndexValue)?
                .needs_card(),
            (None, None) => false,
        };
        if !needed {
            unneeded.push(id);
        }
    }
    Ok(unneeded)
}
