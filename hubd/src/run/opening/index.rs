//! The index, and the state by it: from the index if that serves, from the
//! base or the journal if not.

use std::fs;
use std::path::Path;

use hub_core::state::{Head, State};
use hub_protocol::HubId;
use hub_protocol::entry::Event;

use super::fold::{Known, changes, fold, fold_tail, recall_held};
use super::{OpenError, unusable};
use crate::ledger::{
    self, Archives, Damage, INDEX_FORMAT, Index, IndexReader, JournalReader, LedgerError, RestSeal,
    StoredEntry,
};

/// Why the index does not serve.
enum Unusable {
    /// The index itself: another one is to be built.
    Index(String),
    /// Something that an index built anew would not help against.
    Other(OpenError),
    /// It is of an older format.
    Older(String),
}

impl From<Damage> for Unusable {
    fn from(damage: Damage) -> Self {
        OpenError::Index(damage).into()
    }
}

impl From<OpenError> for Unusable {
    fn from(error: OpenError) -> Self {
        match error {
            // Not in the index, but beside an archive.
            OpenError::Index(Damage::Archived { .. }) => Self::Other(error),
            OpenError::Index(Damage::Format { found }) if found < INDEX_FORMAT => {
                Self::Older(Damage::Format { found }.to_string())
            }
            OpenError::Index(damage) => Self::Index(damage.to_string()),
            // Whether it was the journal's fault shows when that is folded
            // from the beginning.
            OpenError::Fold(error) => Self::Index(error.to_string()),
            _ => Self::Other(error),
        }
    }
}

/// The index, and the state up to the journal's end: from the index if that
/// can be had, from the journal alone if not.
///
/// With a `full` disk the index is read and not written: what it lacks stays
/// in memory until there is room.
pub(super) fn open_state(
    dir: &Path,
    (hub, seal): (HubId, &RestSeal),
    journal: &JournalReader,
    archives: &Archives,
    full: bool,
) -> Result<(Index, State), OpenError> {
    match from_index(dir, seal, journal, archives, full) {
        Ok(found) => Ok(found),
        Err(Unusable::Older(trouble)) => {
            // In clear, and of no use to this program.
            discard(dir)?;
            rebuild(dir, (hub, seal), journal, archives, &trouble)
        }
        Err(Unusable::Index(trouble)) => rebuild(dir, (hub, seal), journal, archives, &trouble),
        Err(Unusable::Other(error)) if base_goes_further(archives, &error) => {
            rebuild(dir, (hub, seal), journal, archives, &error.to_string())
        }
        Err(Unusable::Other(error)) => Err(error),
    }
}

/// Whether the base holds what an older index would have to read from an
/// archive that is away.
fn base_goes_further(archives: &Archives, error: &OpenError) -> bool {
    let OpenError::Ledger(LedgerError::ArchiveAway { last, .. }) = error else {
        return false;
    };
    let base = archives.base().ok().flatten();
    base.is_some_and(|base| base.statement.sequence >= *last && base.is_whole())
}

/// Sets the index aside and builds it from the base or the journal.
pub(super) fn rebuild(
    dir: &Path,
    (hub, seal): (HubId, &RestSeal),
    journal: &JournalReader,
    archives: &Archives,
    trouble: &str,
) -> Result<(Index, State), OpenError> {
    if journal.head().sequence > 0 {
        tracing::warn!(hub = %hub.short(), %trouble, "the index is set aside and built again from the journal");
    }
    ledger::set_aside(dir).map_err(OpenError::Index)?;
    let base = archives.base().ok().flatten();
    let built = if base.is_none_or(|base| base.is_current()) {
        from_base(dir, seal, journal, archives).and_then(|found| match found {
            Some(found) => Ok(found),
            None => from_journal(dir, seal, journal, archives),
        })
    } else {
        without_older_base(dir, seal, journal, archives)
    };
    if built.is_err() {
        discard(dir)?;
    }
    built
}

/// A new index from the journal and its archives, which say all. The base of
/// an earlier version serves only if an archive is away: what limits have come
/// to remember since is not in it.
fn without_older_base(
    dir: &Path,
    seal: &RestSeal,
    journal: &JournalReader,
    archives: &Archives,
) -> Result<(Index, State), OpenError> {
    let away = match from_journal(dir, seal, journal, archives) {
        Err(error) if base_goes_further(archives, &error) => error,
        built => return built,
    };
    tracing::warn!(
        error = %away,
        "the base of an earlier version serves; put the archives back and remove the index to have all that \
         limits remember"
    );
    discard(dir)?;
    from_base(dir, seal, journal, archives)?.ok_or(away)
}

/// A new index that did not get finished is worth nothing. Set aside, it would
/// push out one that is worth looking at.
fn discard(dir: &Path) -> Result<(), OpenError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(LedgerError::io("remove", dir)(error).into())
        }
        _ => Ok(()),
    }
}

fn from_journal(
    dir: &Path,
    seal: &RestSeal,
    journal: &JournalReader,
    archives: &Archives,
) -> Result<(Index, State), OpenError> {
    let mut index = Index::create(dir, seal).map_err(OpenError::Index)?;
    index.look_into(archives);
    let mut state = State::default();
    fold_tail(journal, &mut index, &mut state)?;
    index.checkpoint().map_err(OpenError::Index)?;
    Ok((index, state))
}

/// A new index, filled from the base and what came after it. `None` if there
/// is no base that can be believed: the journal from its first entry on, with
/// the archives, must serve then.
fn from_base(
    dir: &Path,
    seal: &RestSeal,
    journal: &JournalReader,
    archives: &Archives,
) -> Result<Option<(Index, State)>, OpenError> {
    let base = match archives.base() {
        Ok(None) => return Ok(None),
        Ok(Some(base)) => base,
        Err(error) => {
            tracing::warn!(%error, "the base cannot be used");
            return Ok(None);
        }
    };
    let mut index = Index::create(dir, seal).map_err(OpenError::Index)?;
    index.look_into(archives);
    let restored = ledger::restore_base(&base, &mut index)
        .map_err(|error| Unusable::Index(error.to_string()))
        .and_then(|()| restore(&index, journal, archives));
    match restored {
        Ok(mut state) => {
            fold_tail(journal, &mut index, &mut state)?;
            index.checkpoint().map_err(OpenError::Index)?;
            tracing::info!(
                entry = base.statement.sequence,
                "the index is built from the base"
            );
            Ok(Some((index, state)))
        }
        Err(unusable) => {
            let error = match unusable {
                Unusable::Index(error) | Unusable::Older(error) => error,
                Unusable::Other(error) => error.to_string(),
            };
            tracing::warn!(error, "the base cannot be used");
            drop(index);
            discard(dir)?;
            Ok(None)
        }
    }
}

fn from_index(
    dir: &Path,
    seal: &RestSeal,
    journal: &JournalReader,
    archives: &Archives,
    full: bool,
) -> Result<(Index, State), Unusable> {
    let mut index = Index::open(dir, seal)?;
    index.look_into(archives);
    let mut state = restore(&index, journal, archives)?;
    if full {
        let through = journal.head().sequence;
        let mut known = Known::by(index.reader());
        fold(journal, through, &mut known, &mut state, &mut |_, _| Ok(()))?;
        recall_held(&known, &mut state)?;
    } else {
        fold_tail(journal, &mut index, &mut state)?;
    }
    Ok((index, state))
}

/// A new index in `dir`, of the whole journal, and the state by it. Both are
/// shown to `check` as they are after the entry `pause`.
pub(in crate::run) fn build_index(
    (dir, seal): (&Path, &RestSeal),
    journal: &JournalReader,
    pause: Option<u64>,
    check: &mut dyn FnMut(&State, &IndexReader) -> Result<(), OpenError>,
) -> Result<State, OpenError> {
    let mut index = Index::create(dir, seal).map_err(OpenError::Index)?;
    let lookup = index.reader();
    let mut state = State::default();
    if let Some(through) = pause {
        let mut known = Known::by(lookup.clone());
        fold(journal, through, &mut known, &mut state, &mut |state, _| {
            let (changes, stamp) = changes(state);
            index.write(changes, stamp).map_err(unusable)
        })?;
        recall_held(&known, &mut state)?;
        check(&state, &lookup)?;
    }
    fold_tail(journal, &mut index, &mut state)?;
    index.checkpoint().map_err(OpenError::Index)?;
    Ok(state)
}

fn restore(index: &Index, journal: &JournalReader, archives: &Archives) -> Result<State, Unusable> {
    let stamp = index.stamp();
    let digest = journal.digest_at(stamp.sequence).map_err(|error| match error {
        LedgerError::NoSuchEntry { .. } => Unusable::Index(format!("it is ahead of the journal: {error}")),
        error => Unusable::Other(error.into()),
    })?;
    if digest != stamp.digest {
        return Err(Unusable::Index("it belongs to another journal".to_owned()));
    }
    let mut state = restore_records(index)?;
    let policy = match state.store().policy_sequence {
        Some(sequence) => policy_in(journal, archives, sequence)?,
        None => None,
    };
    state.restored(
        Head {
            sequence: stamp.sequence,
            digest: stamp.digest,
        },
        policy.as_deref(),
    );
    if let Some(sequence) = state.store().root_sequence
        && let Some(root) = root_in(journal, archives, sequence)?
    {
        state.restore_root(&root);
    }
    Ok(state)
}

/// How the keys of members of staff begin, whose records lie in tables.
const STAFF: &[u8] = b"t";

/// Everything that a state begins with.
fn restore_records(index: &Index) -> Result<State, Unusable> {
    let mut state = State::default();
    let mut unreadable = Ok(());
    index.for_each_small(&mut |key, value| {
        if unreadable.is_ok() {
            unreadable = state.restore(key, value);
        }
    })?;
    unreadable.map_err(OpenError::Fold)?;
    // A handful in a shop, and what they have at risk counts from the first
    // payment on.
    for (key, value) in index.reader().range(STAFF, STAFF, usize::MAX)? {
        state.restore(&key, &value).map_err(OpenError::Fold)?;
    }
    Ok(state)
}

/// The root in force, kept as the policy is. `None` if it is in an archive that
/// cannot be read: no policy counts then.
fn root_in(journal: &JournalReader, archives: &Archives, sequence: u64) -> Result<Option<Vec<u8>>, Unusable> {
    let archived = sequence < journal.first_plain();
    if archived
        && let Ok(Some(base)) = archives.base()
        && let Some(held) = base.statement.root
        && held.sequence == sequence
    {
        return Ok(Some(held.root));
    }
    match journal.entry(sequence) {
        Ok(StoredEntry { entry, .. }) => match entry.event {
            Event::RootApplied { root, .. } => Ok(Some(root)),
            _ => Err(Unusable::Index(format!("entry {sequence} holds no root"))),
        },
        Err(error) if archived => {
            tracing::warn!(
                %error,
                "the root in force cannot be read: nothing is approved offline until the archive is back and hubd is started again"
            );
            Ok(None)
        }
        Err(error) => Err(Unusable::Other(error.into())),
    }
}

/// A policy in force may be older than what is kept: the base holds it too.
/// `None` if it is in an archive that cannot be read: without a policy nothing
/// is approved offline, which is the safe side, and the rest goes on.
fn policy_in(
    journal: &JournalReader,
    archives: &Archives,
    sequence: u64,
) -> Result<Option<Vec<u8>>, Unusable> {
    let archived = sequence < journal.first_plain();
    if archived
        && let Ok(Some(base)) = archives.base()
        && let Some(held) = base.statement.policy
        && held.sequence == sequence
    {
        return Ok(Some(held.policy));
    }
    match journal.entry(sequence) {
        Ok(StoredEntry { entry, .. }) => match entry.event {
            Event::PolicyActivated { policy, .. } => Ok(Some(policy)),
            _ => Err(Unusable::Index(format!("entry {sequence} holds no policy"))),
        },
        Err(error) if archived => {
            tracing::warn!(
                %error,
                "the policy in force cannot be read: nothing is approved offline until the archive is back and hubd is started again, or a policy of a higher version is in force"
            );
            Ok(None)
        }
        Err(error) => Err(Unusable::Other(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use hub_core::admission::{FleetRecord, FleetToken};
    use hub_core::closure::{OpenPeriod, OpenPeriods};
    use hub_core::state::{StaffKey, Subject};
    use hub_protocol::{Currency, DeviceClass, Digest, LedgerTotals, cbor};

    use super::*;
    use crate::ledger::{INDEX_FORMAT, Stamp};

    #[test]
    fn rules_2_and_4_whatever_a_state_begins_with_comes_back_from_the_index() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("index");
        let staff = StaffKey::of(Some("anna"));
        let subject = Subject {
            exposure_minor: 4_200,
            unsettled: 2,
            consecutive: 2,
            parked: 0,
        };
        let fleet = FleetRecord {
            tokens: vec![FleetToken {
                token: Digest([1; 32]),
                class: DeviceClass::Mpos,
                most: 40,
                used: 3,
                expires_ms: 99,
            }],
            ..FleetRecord::default()
        };
        let day = OpenPeriod {
            first: 9,
            closed: 2,
            opened_ms: Some(77),
            totals: vec![LedgerTotals::none(Currency::EUR)],
        };
        let periods = OpenPeriods {
            since: 1,
            running: day.totals.clone(),
            day: day.clone(),
            month: day.clone(),
            year: day,
        };
        let records = vec![
            ([STAFF, &staff.0].concat(), Some(cbor::encode(&subject))),
            (b"f".to_vec(), Some(cbor::encode(&fleet))),
            (b"o".to_vec(), Some(cbor::encode(&periods))),
            (b"payment".to_vec(), Some(b"left where it is".to_vec())),
        ];
        let stamp = Stamp {
            sequence: 1,
            digest: Digest([1; 32]),
            format: INDEX_FORMAT,
        };
        let seal = RestSeal::index(&hub_protocol::DataKey::new([5; 32]));
        let mut index = Index::create(&dir, &seal).unwrap();
        index.write(records, stamp).unwrap();
        index.checkpoint().unwrap();
        drop(index);
        let index = Index::open(&dir, &seal).unwrap();
        let Ok(state) = restore_records(&index) else {
            panic!("the records are whole");
        };
        assert_eq!(state.staff(staff), subject);
        assert_eq!(state.fleet(), &fleet);
        assert_eq!(state.open_periods(), Some(&periods));
        // Devices and the store, and what is usual there, are held by every
        // test that restarts a hub.
        assert_eq!(State::RESTORED.len(), 6, "what is new is to be here too");
    }
}
