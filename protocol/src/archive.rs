//! What the hub signs about segments of its ledger that it has put away: the
//! manifest of an archive, and the base from which it opens without them.

use ed25519_dalek::{SigningKey, VerifyingKey};
use minicbor::{Decode, Encode};

use crate::cbor;
use crate::commit::ProofError;
use crate::cose::{self, ObjectType};
use crate::id::{Digest, HubId};
use crate::totals::LedgerTotals;

/// What an archive holds ([`ObjectType::ArchiveManifest`]). An archive is one
/// closed segment of the ledger, byte for byte, compressed by gzip (RFC 1952).
/// Manifests are kept for ever, and each names the one before: so nobody can
/// take one out.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ArchiveManifest {
    /// Whose ledger.
    #[n(1)]
    pub hub: HubId,
    /// The segment's number and the archive's, from 1 without gaps.
    #[n(2)]
    pub number: u32,
    /// The format of the segment.
    #[n(3)]
    pub format: u16,
    /// The sequence of the first entry.
    #[n(4)]
    pub first: u64,
    /// The sequence of the last entry.
    #[n(5)]
    pub last: u64,
    /// The digest of the entry before the first; zeros for the first of all.
    #[n(6)]
    pub before: Digest,
    /// The digest of the last entry.
    #[n(7)]
    pub last_digest: Digest,
    /// The first entry's time, milliseconds since 1970 UTC.
    #[n(8)]
    pub from_ms: u64,
    /// The last entry's time, milliseconds since 1970 UTC.
    #[n(9)]
    pub to_ms: u64,
    /// SHA-256 of the segment, uncompressed.
    #[n(10)]
    pub segment_digest: Digest,
    /// SHA-256 of the archive, compressed.
    #[n(11)]
    pub archive_digest: Digest,
    /// SHA-256 of the table of payments beside it.
    #[n(12)]
    pub ids_digest: Digest,
    /// What happened in this archive, a currency each, in their order.
    #[n(13)]
    pub totals: Vec<LedgerTotals>,
    /// The same since the ledger's first entry.
    #[n(14)]
    pub running: Vec<LedgerTotals>,
    /// SHA-256 of the signed manifest of the archive before; zeros for the
    /// first.
    #[n(15)]
    pub previous: Digest,
}

impl ArchiveManifest {
    /// Signs it.
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        cose::sign(key, ObjectType::ArchiveManifest, &cbor::encode(self))
    }

    /// Checks the signature and decodes.
    ///
    /// # Errors
    /// The first fault: form, key, signature, then content.
    pub fn open(signed: &[u8], key: &VerifyingKey) -> Result<Self, ProofError> {
        Ok(cbor::decode(&cose::verify(
            signed,
            ObjectType::ArchiveManifest,
            key,
        )?)?)
    }
}

/// Everything that the hub knew as of one entry, so that it opens although
/// archives are elsewhere ([`ObjectType::LedgerBase`]).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LedgerBase {
    /// Whose ledger.
    #[n(1)]
    pub hub: HubId,
    /// The last archive whose payments have left it for the archive's own
    /// table; 0 for none.
    #[n(2)]
    pub archive: u32,
    /// The entry as of which it holds.
    #[n(3)]
    pub sequence: u64,
    /// That entry's digest.
    #[n(4)]
    pub digest: Digest,
    /// The number of the file with the records.
    #[n(5)]
    pub file: u32,
    /// SHA-256 of that file.
    #[n(6)]
    pub file_digest: Digest,
    /// How many records.
    #[n(7)]
    pub records: u64,
    /// The policy in force, if there is one.
    #[n(8)]
    pub policy: Option<BasePolicy>,
    /// The format of the records: a number of the program's. Bases that do not
    /// say it are older.
    #[n(9)]
    pub records_format: Option<u16>,
    /// The root in force, if there is one.
    #[n(10)]
    pub root: Option<BaseRoot>,
}

/// A policy as an entry of the ledger holds it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BasePolicy {
    /// The entry that put it into force.
    #[n(1)]
    pub sequence: u64,
    /// The signed policy as received.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub policy: Vec<u8>,
}

/// A root as an entry of the ledger holds it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BaseRoot {
    /// The entry that put it into force.
    #[n(1)]
    pub sequence: u64,
    /// The signed root as received.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub root: Vec<u8>,
}

impl LedgerBase {
    /// Signs it.
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        cose::sign(key, ObjectType::LedgerBase, &cbor::encode(self))
    }

    /// Checks the signature and decodes.
    ///
    /// # Errors
    /// The first fault: form, key, signature, then content.
    pub fn open(signed: &[u8], key: &VerifyingKey) -> Result<Self, ProofError> {
        Ok(cbor::decode(&cose::verify(signed, ObjectType::LedgerBase, key)?)?)
    }
}
