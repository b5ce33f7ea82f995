//! What the hub signs about segments of its ledger that it has put away: the
//! manifest of an archive, and the base from which it opens without them.

use ed25519_dalek::{SigningKey, VerifyingKey};
use minicbor::{Decode, Encode};

use crate::cbor;
use crate::commit::ProofError;
use crate::cose::{self, ObjectType};
use crate::id::{Digest, HubId};
use crate::money::Currency;

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
    pub totals: Vec<ArchiveTotals>,
    /// The same since the ledger's first entry.
    #[n(14)]
    pub running: Vec<ArchiveTotals>,
    /// SHA-256 of the signed manifest of the archive before; zeros for the
    /// first.
    #[n(15)]
    pub previous: Digest,
}

/// Payments of one currency, by what happened to them in a stretch of the
/// ledger. A payment that is approved offline and settled counts in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ArchiveTotals {
    /// ISO 4217.
    #[n(1)]
    pub currency: Currency,
    /// Approved by the gateway while the customer waited.
    #[n(2)]
    pub approved_online: Total,
    /// Approved by the hub.
    #[n(3)]
    pub approved_offline: Total,
    /// Approved by the hub, and then by the gateway.
    #[n(4)]
    pub settled: Total,
    /// Approved by the hub, and then declined.
    #[n(5)]
    pub declined_at_replay: Total,
    /// Cancelled before they were sent, or reversed.
    #[n(6)]
    pub voided: Total,
}

/// How many, and how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Total {
    /// How many payments.
    #[n(1)]
    pub count: u64,
    /// How much, in minor units.
    #[n(2)]
    pub minor: u64,
}

impl Total {
    /// One more payment.
    pub const fn add(&mut self, minor: u64) {
        self.count = self.count.saturating_add(1);
        self.minor = self.minor.saturating_add(minor);
    }

    const fn plus(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            minor: self.minor.saturating_add(other.minor),
        }
    }
}

impl ArchiveTotals {
    /// Nothing yet.
    pub fn none(currency: Currency) -> Self {
        Self {
            currency,
            approved_online: Total::default(),
            approved_offline: Total::default(),
            settled: Total::default(),
            declined_at_replay: Total::default(),
            voided: Total::default(),
        }
    }

    /// The totals of two stretches together, a currency each, in their order.
    pub fn sum(before: &[Self], more: &[Self]) -> Vec<Self> {
        let mut all = before.to_vec();
        for add in more {
            match all.iter_mut().find(|totals| totals.currency == add.currency) {
                Some(totals) => {
                    *totals = Self {
                        currency: add.currency,
                        approved_online: totals.approved_online.plus(add.approved_online),
                        approved_offline: totals.approved_offline.plus(add.approved_offline),
                        settled: totals.settled.plus(add.settled),
                        declined_at_replay: totals.declined_at_replay.plus(add.declined_at_replay),
                        voided: totals.voided.plus(add.voided),
                    };
                }
                None => all.push(*add),
            }
        }
        all.sort_by_key(|totals| totals.currency);
        all
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_summed_a_currency_each_and_never_wrap() {
        let of = |currency: &str, count, minor| {
            let mut totals = ArchiveTotals::none(currency.parse().unwrap());
            totals.settled = Total { count, minor };
            totals
        };
        let sum = ArchiveTotals::sum(&[of("USD", 1, 5)], &[of("EUR", 2, 7), of("USD", 3, u64::MAX)]);
        assert_eq!(sum, [of("EUR", 2, 7), of("USD", 4, u64::MAX)]);
    }
}
