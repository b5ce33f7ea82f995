//! The hub's signed word on what is on its disk, and receipts that rest on
//! it: one signature for all payments that were flushed together.

use ed25519_dalek::{SigningKey, VerifyingKey};
use minicbor::{Decode, Encode};

use crate::cbor::{self, CborError};
use crate::cose::{self, CoseError, ObjectType};
use crate::id::{Digest, HubId};
use crate::key_change::KeyChain;
use crate::merkle::{self, MAX_PATH, Tree};
use crate::receipt::Receipt;
use crate::refusal::{Refusal, RefusalCode};

/// A stretch of the ledger that is on disk, signed by the hub
/// ([`ObjectType::LedgerCommit`]). Each group of entries in the journal ends
/// with one. The last digest pins, through the chain, every entry before it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LedgerCommit {
    /// Whose ledger.
    #[n(1)]
    pub hub: HubId,
    /// The sequence of the first entry.
    #[n(2)]
    pub first: u64,
    /// The sequence of the last entry.
    #[n(3)]
    pub last: u64,
    /// [`Entry::digest`](crate::Entry::digest) of the last entry.
    #[n(4)]
    pub last_digest: Digest,
    /// The receipts that this signature stands for, if there are any.
    #[n(5)]
    pub receipts: Option<ReceiptsRoot>,
}

/// A Merkle tree over the payloads of receipts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ReceiptsRoot {
    /// How many receipts, from 1.
    #[n(1)]
    pub count: u32,
    /// The tree's root.
    #[n(2)]
    pub root: Digest,
}

impl LedgerCommit {
    /// Signs it.
    pub fn sign(&self, key: &SigningKey) -> Vec<u8> {
        cose::sign(key, ObjectType::LedgerCommit, &cbor::encode(self))
    }

    /// Checks the signature and decodes.
    ///
    /// # Errors
    /// The first fault: form, key, signature, then content.
    pub fn open(signed: &[u8], key: &VerifyingKey) -> Result<Self, ProofError> {
        Ok(cbor::decode(&cose::verify(
            signed,
            ObjectType::LedgerCommit,
            key,
        )?)?)
    }
}

/// A receipt and what proves it: what goes over the wire, and what a device
/// keeps. Receipt and commit stand as they were hashed and signed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CommittedReceipt {
    /// The encoded [`Receipt`].
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub receipt: Vec<u8>,
    /// Its place among the receipts of the commit, from 0.
    #[n(2)]
    pub index: u32,
    /// From the receipt up to the root, at most [`MAX_PATH`] digests.
    #[n(3)]
    pub path: Vec<Digest>,
    /// A signed [`LedgerCommit`].
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub commit: Vec<u8>,
}

impl CommittedReceipt {
    /// A receipt whose entry was committed earlier, under a new signature
    /// over the ledger's durable end: `last` and the digest of that entry.
    pub fn restated(key: &SigningKey, receipt: &Receipt, last: u64, last_digest: Digest) -> Self {
        let payload = cbor::encode(receipt);
        let commit = LedgerCommit {
            hub: receipt.hub,
            first: receipt.sequence,
            last,
            last_digest,
            receipts: Some(ReceiptsRoot {
                count: 1,
                root: merkle::leaf(&payload),
            }),
        };
        Self {
            receipt: payload,
            index: 0,
            path: Vec::new(),
            commit: commit.sign(key),
        }
    }

    /// Decodes `bytes`, follows the path to the signed root and gives the
    /// receipt. Whether it answers what was asked is the caller's to see.
    ///
    /// # Errors
    /// The first fault: form, path, the commit's signature, then whether the
    /// commit speaks of this receipt.
    pub fn open(bytes: &[u8], key: &VerifyingKey) -> Result<Receipt, ProofError> {
        Self::open_with(bytes, |commit| LedgerCommit::open(commit, key))
    }

    /// [`open`](Self::open), by the key that the hub had when it signed. One
    /// that had given way by the end of the commit is refused.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_by(bytes: &[u8], keys: &KeyChain) -> Result<Receipt, ProofError> {
        Self::open_with(bytes, |commit| {
            keys.open(commit, ObjectType::LedgerCommit, |commit: &LedgerCommit| {
                commit.last
            })
        })
    }

    fn open_with(
        bytes: &[u8],
        open: impl FnOnce(&[u8]) -> Result<LedgerCommit, ProofError>,
    ) -> Result<Receipt, ProofError> {
        let held: Self = cbor::decode(bytes)?;
        if held.path.len() > MAX_PATH {
            return Err(ProofError::PathTooLong);
        }
        let commit = open(&held.commit)?;
        let receipts = commit.receipts.ok_or(ProofError::NotCovered)?;
        let leaf = merkle::leaf(&held.receipt);
        if merkle::root_of(leaf, held.index, receipts.count, &held.path) != Some(receipts.root) {
            return Err(ProofError::NotCovered);
        }
        let receipt: Receipt = cbor::decode(&held.receipt)?;
        if receipt.hub != commit.hub {
            return Err(ProofError::OtherHub);
        }
        let on_disk = (commit.first..=commit.last).contains(&receipt.sequence);
        let is_last = receipt.sequence == commit.last;
        if !on_disk || (is_last && receipt.entry_digest != commit.last_digest) {
            return Err(ProofError::NotOnDisk);
        }
        Ok(receipt)
    }
}

/// Why a receipt does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The commit's signature.
    #[error("the ledger commit: {0}")]
    Commit(#[from] CoseError),
    /// The receipt, the commit or what holds them does not decode.
    #[error(transparent)]
    Content(#[from] CborError),
    /// Longer than any tree in use needs.
    #[error("a receipt's path has at most 16 steps")]
    PathTooLong,
    /// Index, path and root do not fit together for this receipt.
    #[error("the ledger commit does not cover this receipt")]
    NotCovered,
    /// The commit is another hub's.
    #[error("the ledger commit speaks of another hub than the receipt")]
    OtherHub,
    /// The commit does not reach the receipt's entry.
    #[error("the ledger commit does not cover the receipt's entry")]
    NotOnDisk,
}

impl From<ProofError> for Refusal {
    fn from(error: ProofError) -> Self {
        match error {
            ProofError::Commit(error) => error.into(),
            ProofError::Content(error) => error.into(),
            ProofError::PathTooLong => Self::new(RefusalCode::Malformed, error.to_string()),
            ProofError::NotCovered | ProofError::OtherHub | ProofError::NotOnDisk => {
                Self::new(RefusalCode::SignatureBad, error.to_string())
            }
        }
    }
}

/// The receipts of a group that is being committed, in the order of their
/// entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptGroup {
    receipts: Vec<(u64, Vec<u8>)>,
    tree: Tree,
}

impl ReceiptGroup {
    /// Over encoded receipts, each with its entry's sequence, ascending;
    /// `None` without any.
    pub fn new(receipts: Vec<(u64, Vec<u8>)>) -> Option<Self> {
        let tree = Tree::new(receipts.iter().map(|(_, payload)| payload.as_slice()))?;
        Some(Self { receipts, tree })
    }

    /// What the group's commit says of them.
    pub fn root(&self) -> ReceiptsRoot {
        ReceiptsRoot {
            count: u32::try_from(self.tree.leaves()).unwrap_or(u32::MAX),
            root: self.tree.root(),
        }
    }

    /// The group under its signed commit. Called when the group is on disk
    /// and not before: from then on receipts can be taken from it.
    pub fn committed(self, commit: Vec<u8>) -> CommittedGroup {
        CommittedGroup { group: self, commit }
    }
}

/// The receipts of a group that is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedGroup {
    group: ReceiptGroup,
    commit: Vec<u8>,
}

impl CommittedGroup {
    /// The sequence of the newest entry with a receipt.
    pub fn last(&self) -> u64 {
        self.group.receipts.last().map_or(0, |(sequence, _)| *sequence)
    }

    /// Whether the entry's receipt is here.
    pub fn holds(&self, sequence: u64) -> bool {
        self.position(sequence).is_some()
    }

    /// The receipt of an entry, proved.
    pub fn receipt(&self, sequence: u64) -> Option<CommittedReceipt> {
        let at = self.position(sequence)?;
        let (_, payload) = self.group.receipts.get(at)?;
        Some(CommittedReceipt {
            receipt: payload.clone(),
            index: u32::try_from(at).ok()?,
            path: self.group.tree.path(at)?,
            commit: self.commit.clone(),
        })
    }

    fn position(&self, sequence: u64) -> Option<usize> {
        self.group
            .receipts
            .binary_search_by_key(&sequence, |(sequence, _)| *sequence)
            .ok()
    }
}
