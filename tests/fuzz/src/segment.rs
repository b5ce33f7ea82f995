//! Segments of a ledger (`hubd/src/ledger/segment.rs`) of any entries, with the
//! right checksums, links, marks and signatures.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use hub_protocol::cbor::{decode, encode};
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::{
    DataKey, Digest, Entry, EntryKey, EntrySeal, Event, HubId, LedgerCommit, SealedEntry, StoredPayload,
};
use hubd::ledger::Footer;
use sha2::{Digest as _, Sha256};

use crate::{Parts, TIME, data_key, hub_key, sealed};

/// Whose ledger.
pub const HUB: HubId = HubId([7; 32]);

/// Writes a ledger as a hub does, of whatever it is given.
pub struct Writer {
    /// Signs.
    pub key: SigningKey,
    /// Encrypts.
    pub data_key: DataKey,
    /// The same.
    pub seal: EntrySeal,
    /// The keys of all encrypted entries.
    pub disclosed: BTreeMap<u64, EntryKey>,
    /// The segments.
    pub files: Vec<Vec<u8>>,
    /// Where the present group begins, and its first entry.
    group: (usize, u64),
    first: u64,
    /// The last entry.
    pub sequence: u64,
    /// Its digest.
    pub digest: Digest,
    /// All that was written is as a hub writes it.
    pub sound: bool,
}

impl Writer {
    /// An empty ledger.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let data_key = data_key();
        let mut writer = Self {
            key: hub_key(),
            seal: EntrySeal::new(&data_key),
            data_key,
            disclosed: BTreeMap::new(),
            files: Vec::new(),
            group: (0, 1),
            first: 1,
            sequence: 0,
            digest: Digest::ZERO,
            sound: true,
        };
        writer.begin();
        writer
    }

    fn file(&mut self) -> &mut Vec<u8> {
        self.files.last_mut().unwrap()
    }

    fn begin(&mut self) {
        let mut head = b"HUBLEDG1".to_vec();
        head.extend([2, 0, 0, 0]);
        head.extend((self.files.len() as u32 + 1).to_le_bytes());
        head.extend(HUB.0);
        head.extend((self.sequence + 1).to_le_bytes());
        head.extend(self.digest.0);
        head.extend(crc32c::crc32c(&head).to_le_bytes());
        self.first = self.sequence + 1;
        self.group = (head.len(), self.first);
        self.files.push(head);
    }

    fn record(&mut self, kind: u32, body: &[u8]) {
        let word = (kind | body.len() as u32).to_le_bytes();
        let crc = crc32c::crc32c_append(crc32c::crc32c(&word), body);
        let file = self.file();
        file.extend(word);
        file.extend(crc.to_le_bytes());
        file.extend(body);
    }

    fn entry(&mut self, payload: &[u8]) {
        self.record(0, payload);
        self.sequence += 1;
        self.digest = Entry::digest(payload);
        if let Ok(StoredPayload::Sealed(entry)) = StoredPayload::decode(payload) {
            self.disclosed.extend(self.seal.disclose(&entry).map(|key| (entry.sequence, key)));
        }
    }

    fn head(&self) -> SealedEntry {
        SealedEntry {
            sequence: self.sequence + 1,
            previous: self.digest,
            time: TIME,
            policy_version: 3,
            sealed: Vec::new(),
        }
    }

    fn event(&mut self, kind: u8, event: Event) {
        let SealedEntry { sequence, previous, time, policy_version, .. } = self.head();
        // A change of the key that the chain does not know is a fault.
        self.sound &= !matches!(event, Event::HubKeyChanged { .. });
        let entry = Entry { sequence, previous, time, policy_version, event };
        let payload = if kind & 8 == 0 { self.seal.encode(&entry) } else { entry.encode() };
        self.entry(&payload);
    }

    /// Ends the group, if there is one.
    pub fn commit(&mut self) {
        if self.sequence < self.group.1 {
            return;
        }
        let commit = LedgerCommit {
            hub: HUB,
            first: self.group.1,
            last: self.sequence,
            last_digest: self.digest,
            receipts: None,
        };
        let signed = commit.sign(&self.key);
        self.record(0xC000_0000, &signed);
        let (from, first) = self.group;
        let (count, last) = ((self.sequence + 1 - first) as u32, self.sequence);
        let file = self.file();
        let mut mark = (from as u32).to_le_bytes().to_vec();
        mark.extend(((file.len() - from) as u32).to_le_bytes());
        mark.extend(count.to_le_bytes());
        mark.extend(crc32c::crc32c(&file[from..]).to_le_bytes());
        mark.extend(last.to_le_bytes());
        mark.extend(b"CMIT");
        self.record(0x4000_0000, &mark);
        self.group = (self.file().len(), last + 1);
    }

    /// Ends the segment, and begins another.
    pub fn close(&mut self) {
        self.commit();
        let at = self.file().len() as u32;
        let footer = Footer {
            first: self.first,
            last: self.sequence,
            last_digest: self.digest,
            count: self.sequence + 1 - self.first,
            file_digest: Digest(Sha256::digest(&*self.file()).into()),
        };
        let signed = cose::sign(&self.key, ObjectType::SegmentFooter, &encode(&footer));
        self.record(0x8000_0000, &signed);
        let file = self.file();
        file.extend(at.to_le_bytes());
        file.extend(crc32c::crc32c(&at.to_le_bytes()).to_le_bytes());
        file.extend(b"SEAL");
        self.begin();
    }

    /// Takes an input apart and writes it: 0 and 1 an event (8: in clear), 2 a
    /// payload, 3 and 4 the end of a group, 5 of a segment, 6 any bytes, 7 an
    /// event out of its place.
    pub fn take(&mut self, bytes: &[u8]) {
        for (kind, part) in Parts(bytes).take(80) {
            match kind & 7 {
                0 | 1 => match decode::<Event>(part) {
                    Ok(event) => self.event(kind, event),
                    // Encrypted all the same.
                    Err(_) => {
                        let mut entry = self.head();
                        entry.sealed = sealed(&self.data_key.derive("hub-store/1 entries"), &entry.place(), part);
                        self.sound = false;
                        self.entry(&encode(&entry));
                    }
                },
                2 => {
                    self.sound = false;
                    self.entry(part);
                }
                3 | 4 => self.commit(),
                5 if self.files.len() < 4 => self.close(),
                6 => {
                    self.sound = false;
                    self.file().extend(part);
                }
                // Somebody else's entry, out of its place.
                7 => {
                    let (sequence, part) = part.split_first_chunk::<8>().unwrap_or((&[0xff; 8], part));
                    if let Ok(event) = decode::<Event>(part) {
                        let SealedEntry { previous, time, policy_version, .. } = self.head();
                        let entry = Entry { sequence: u64::from_le_bytes(*sequence), previous, time, policy_version, event };
                        self.sound = false;
                        let payload = self.seal.encode(&entry);
                        self.entry(&payload);
                    }
                }
                _ => {}
            }
        }
    }
}
