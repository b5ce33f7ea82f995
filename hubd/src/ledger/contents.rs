//! What an entry says, as far as whoever reads may know it.

use std::collections::BTreeMap;

use hub_protocol::{Entry, EntryKey, EntrySeal, StoredPayload};

use super::error::{Fault, Head};

/// With what the encrypted contents of a ledger are read. Chain, checksums and
/// signatures need none of it.
#[derive(Clone, Copy, Debug, Default)]
pub enum Contents<'a> {
    /// With nothing: what is encrypted stays unread.
    #[default]
    Unread,
    /// With the store's key. An entry that it does not open is a fault.
    Sealed(&'a EntrySeal),
    /// With the keys of some entries, by sequence. One that does not open its
    /// entry is a fault; entries without one stay unread.
    Disclosed(&'a BTreeMap<u64, EntryKey>),
}

impl Contents<'_> {
    /// The entry; `None` if it is encrypted and there is no key for it.
    pub(crate) fn read(self, payload: &[u8]) -> Result<Option<Entry>, Fault> {
        let stored = StoredPayload::decode(payload).map_err(|error| Fault::Entry(error.to_string()))?;
        let opened = match (self, stored) {
            (_, StoredPayload::Clear(entry)) => return Ok(Some(entry)),
            (Self::Unread, _) => return Ok(None),
            (Self::Sealed(seal), StoredPayload::Sealed(sealed)) => seal.open(&sealed),
            (Self::Disclosed(keys), StoredPayload::Sealed(sealed)) => match keys.get(&sealed.sequence) {
                Some(key) => {
                    return sealed.open_by(key).map(Some).map_err(|_| {
                        Fault::Contents(
                            "the disclosed key for it does not open it: the keys are of another ledger or other entries"
                                .to_owned(),
                        )
                    });
                }
                None => return Ok(None),
            },
        };
        opened
            .map(Some)
            .map_err(|error| Fault::Contents(error.to_string()))
    }
}

/// An entry that verified.
#[derive(Clone, Copy, Debug)]
pub struct VerifiedEntry<'a> {
    /// What it says; `None` where it is encrypted and was not opened.
    pub entry: Option<&'a Entry>,
    /// Its bytes in the ledger, over which its digest is.
    pub payload: &'a [u8],
    /// Its place and its digest.
    pub head: Head,
}

impl VerifiedEntry<'_> {
    /// The name of its event, or [`UNREAD`].
    pub fn kind(&self) -> &'static str {
        self.entry.map_or(UNREAD, |entry| entry.event.name())
    }
}

/// What stands for the name of an event that was not read.
pub const UNREAD: &str = "encrypted";
