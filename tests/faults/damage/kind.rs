//! What is damaged, and how.

/// A way of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The journal.
    Journal(Journal),
    /// sled's part of the index, or its tables.
    Index(Index),
    /// Sealed cards.
    Vault(Vault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Journal {
    FlippedBit,
    Truncated,
    Missing,
    Swapped,
    Foreign,
    ZeroedSector,
    TornTail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Index {
    Deleted,
    FileDeleted,
    Truncated,
    FlippedBit,
    ZeroedSector,
    OlderCopy,
    FileInstead,
    NoPermission,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Vault {
    FlippedBit,
    ZeroedSector,
    Removed,
}

impl Kind {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let journal = [
            Journal::FlippedBit,
            Journal::Truncated,
            Journal::Missing,
            Journal::Swapped,
            Journal::Foreign,
            Journal::ZeroedSector,
            Journal::TornTail,
        ];
        let index = [
            Index::Deleted,
            Index::FileDeleted,
            Index::Truncated,
            Index::FlippedBit,
            Index::ZeroedSector,
            Index::OlderCopy,
            Index::FileInstead,
            Index::NoPermission,
        ];
        let vault = [Vault::FlippedBit, Vault::ZeroedSector, Vault::Removed];
        let journal = journal.into_iter().map(Self::Journal);
        let index = index.into_iter().map(Self::Index);
        journal.chain(index).chain(vault.into_iter().map(Self::Vault))
    }

    /// Root may read everything: there is no folder without permission.
    pub(crate) fn possible(self) -> bool {
        self != Self::Index(Index::NoPermission) || !rustix::process::geteuid().is_root()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Journal(Journal::FlippedBit) => "journal: a bit flipped",
            Self::Journal(Journal::Truncated) => "journal: a segment cut short",
            Self::Journal(Journal::Missing) => "journal: a segment missing",
            Self::Journal(Journal::Swapped) => "journal: two segments swapped",
            Self::Journal(Journal::Foreign) => "journal: another hub's segment",
            Self::Journal(Journal::ZeroedSector) => "journal: a sector zeroed",
            Self::Journal(Journal::TornTail) => "journal: its last write torn",
            Self::Index(Index::Deleted) => "index: deleted",
            Self::Index(Index::FileDeleted) => "index: a file deleted",
            Self::Index(Index::Truncated) => "index: a file cut short",
            Self::Index(Index::FlippedBit) => "index: a bit flipped",
            Self::Index(Index::ZeroedSector) => "index: a sector zeroed",
            Self::Index(Index::OlderCopy) => "index: an older copy",
            Self::Index(Index::FileInstead) => "index: a file in its place",
            Self::Index(Index::NoPermission) => "index: no permission",
            Self::Vault(Vault::FlippedBit) => "sealed cards: a bit flipped",
            Self::Vault(Vault::ZeroedSector) => "sealed cards: a sector zeroed",
            Self::Vault(Vault::Removed) => "sealed cards: a file removed",
        }
    }
}
