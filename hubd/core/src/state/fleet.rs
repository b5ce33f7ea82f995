//! Fleets, lists and replacements, folded.

use hub_protocol::cose::Unverified;
use hub_protocol::entry::Event;
use hub_protocol::{DeviceId, DeviceList, Digest, KeyId, ListedDevice, Registration, cbor};

use super::State;
use super::stored::Key;
use crate::admission::{
    Admission, FleetRecord, FleetToken, ListMark, MAX_LIST_KEYS, Replaced, ShutOut, TwoPlaces,
};
use crate::fleet::Contradiction;
use crate::record::{DeviceRecord, KeyRatchet, Subject};

impl State {
    /// What is remembered of fleets.
    pub fn fleet(&self) -> &FleetRecord {
        &self.fleet
    }

    /// Lines of this list that have other keys for a device than the hub
    /// knows, by its name, by the keys that it was enrolled with, and by those
    /// that it has changed to since.
    pub(crate) fn contradictions(&self, list: &DeviceList) -> Vec<Contradiction> {
        let contradicts = |line: &ListedDevice, known: &DeviceRecord| {
            let same = line.device == known.registration.device;
            let has_its_tls = !same && known.has_had_tls(&Digest(line.device.0));
            same != known.has_had_key(&line.signing_key) || has_its_tls
        };
        let mut found: Vec<Contradiction> = self
            .devices()
            .flat_map(|known| {
                let lines = list.devices.iter().filter(|line| contradicts(line, known));
                lines.map(|line| Contradiction {
                    listed: line.device,
                    known: known.registration.device,
                    name: known.registration.name.clone(),
                })
            })
            .collect();
        found.sort_unstable_by_key(|line| (line.listed, line.known));
        found
    }

    /// Devices that are in now and are not by this list, and whether it names
    /// them as revoked. One that a line names with other keys is not left out;
    /// one whose keys alone stand in another's line is, or a device could
    /// stay in by taking the keys of one that is listed.
    pub(crate) fn left_out(&self, list: &DeviceList) -> Vec<(DeviceId, bool)> {
        let mut out: Vec<(DeviceId, bool)> = self
            .devices()
            .filter_map(|known| {
                let device = known.registration.device;
                let revoked = list.revoked.contains(&device);
                let was_listed = known.admission.as_deref().is_some_and(|one| one.listed.is_some());
                let left_out = was_listed && list.devices.iter().all(|one| one.device != device);
                let new = known.shut_out().is_none_or(|before| revoked && !before.revoked);
                (new && (revoked || left_out)).then_some((device, revoked))
            })
            .collect();
        out.sort_unstable();
        out
    }

    /// How many changes this list makes, each of them an entry; none if there
    /// is nothing to change.
    pub(crate) fn changes_by(&self, list: &DeviceList) -> Option<u32> {
        let settled = |one: &ListedDevice| {
            self.device(&one.device)
                .is_some_and(|known| known.settled_by(one))
        };
        let contradicted = self.contradictions(list);
        let stands = |one: &&ListedDevice| contradicted.iter().all(|line| line.listed != one.device);
        let admitted = list
            .devices
            .iter()
            .filter(stands)
            .filter(|one| !settled(one))
            .count();
        let changes = self.left_out(list).len().saturating_add(admitted);
        u32::try_from(changes).ok().filter(|changes| *changes > 0)
    }

    /// The newest key last.
    fn list_ratchet(&mut self, key: KeyId, version: u64) {
        let ratchets = &mut self.fleet.ratchets;
        let before = ratchets.iter().position(|known| known.key == key);
        let before = before.map_or(0, |at| ratchets.remove(at).version);
        if ratchets.len() >= MAX_LIST_KEYS {
            ratchets.remove(0);
        }
        ratchets.push(KeyRatchet {
            key,
            version: before.max(version),
        });
    }

    /// One change of the list in force has been made.
    fn list_went_on(&mut self) {
        if let Some(left) = self.fleet.list_left {
            self.fleet.list_left = left.checked_sub(1).filter(|left| *left > 0);
            self.dirty.insert(Key::Fleet);
        }
    }

    pub(super) fn apply_fleet(&mut self, event: &Event, at_ms: u64) {
        match event {
            Event::FleetTokenMade {
                token,
                class,
                most,
                expires_ms,
                ..
            } => {
                self.fleet.tokens.retain(|known| at_ms < known.expires_ms);
                self.fleet.tokens.push(FleetToken {
                    token: *token,
                    class: *class,
                    most: *most,
                    used: 0,
                    expires_ms: *expires_ms,
                });
                self.dirty.insert(Key::Fleet);
            }
            Event::FleetTokenWithdrawn { token, .. } => {
                self.fleet.tokens.retain(|known| known.token != *token);
                self.dirty.insert(Key::Fleet);
            }
            Event::FleetDeviceEnrolled { registration, token } => {
                if let Some(known) = self.fleet.tokens.iter_mut().find(|known| known.token == *token) {
                    known.used = known.used.saturating_add(1);
                    self.dirty.insert(Key::Fleet);
                }
                self.enrolled(registration);
                self.admit(registration.device, |admission| {
                    admission.pending = true;
                    admission.token = Some(*token);
                });
            }
            Event::DeviceApproved { device, list, .. } => {
                self.admit(*device, |admission| {
                    admission.pending = false;
                    if list.is_some() {
                        admission.listed = *list;
                        admission.shut_out = None;
                    }
                });
                if list.is_some() {
                    self.list_went_on();
                }
            }
            Event::DeviceListTaken {
                version,
                key,
                digest,
                list,
                ..
            } => {
                self.fleet.list = Some(ListMark {
                    version: *version,
                    key: *key,
                    digest: *digest,
                    taken_ms: at_ms,
                });
                self.list_ratchet(*key, *version);
                // Of one that this program cannot read any more, the devices
                // that were shut out stay so.
                let list = read(list);
                self.fleet.list_left = list.as_ref().and_then(|list| self.changes_by(list));
                if let Some(list) = list {
                    self.fleet.revoked = list.revoked;
                }
                self.dirty.insert(Key::Fleet);
            }
            Event::DeviceListed { registration, list } => {
                self.enrolled(registration);
                self.admit(registration.device, |admission| {
                    admission.pending = false;
                    admission.listed = Some(*list);
                    admission.shut_out = None;
                });
                self.list_went_on();
            }
            Event::DeviceShutOut {
                device,
                list,
                revoked,
            } => {
                self.admit(*device, |admission| {
                    admission.listed = None;
                    admission.shut_out = Some(ShutOut {
                        list: *list,
                        revoked: *revoked,
                    });
                });
                self.list_went_on();
            }
            Event::DeviceReplaced {
                registration,
                replaces,
                lost,
                ..
            } => {
                self.enrolled(registration);
                let by = registration.device;
                self.admit(by, |admission| {
                    admission.pending = false;
                    admission.replaces = Some(*replaces);
                });
                if let Some(old) = self.devices.get_mut(replaces) {
                    old.blocked = true;
                }
                self.admit(*replaces, |admission| {
                    admission.replaced = Some(Replaced { by, lost: *lost });
                });
            }
            Event::DeviceInTwoPlaces { device, returns } => self.admit(*device, |admission| {
                admission.two_places = Some(TwoPlaces {
                    at_ms,
                    returns: *returns,
                });
            }),
            _ => {}
        }
    }

    /// A device is known by this registration from here on. What it has at
    /// risk, and whether it is blocked, stays as it was.
    pub(super) fn enrolled(&mut self, registration: &Registration) {
        self.dirty.insert(Key::Device(registration.device));
        match self.devices.get_mut(&registration.device) {
            Some(known) => known.registration = registration.clone(),
            None => {
                let record = DeviceRecord {
                    registration: registration.clone(),
                    blocked: false,
                    subject: Subject::default(),
                    waiting: 0,
                    recent: None,
                    outcomes: None,
                    watch: None,
                    described: None,
                    allowance: None,
                    misused_at: None,
                    admission: None,
                    card_numbers_at: None,
                    keys: None,
                };
                self.devices.insert(registration.device, record);
            }
        }
    }

    pub(super) fn apply_device_keys(&mut self, event: &Event, at_ms: u64) {
        let device = match event {
            Event::DeviceKeysChanged { device, .. }
            | Event::DeviceKeysSettled { device, .. }
            | Event::DeviceOldKeysUsed { device } => *device,
            _ => return,
        };
        let Some(record) = self.devices.get_mut(&device) else {
            return;
        };
        self.dirty.insert(Key::Device(device));
        match (event, record.keys.as_deref_mut()) {
            (
                Event::DeviceKeysChanged {
                    number,
                    signing_key,
                    tls_key,
                    last_sequence,
                    ..
                },
                _,
            ) => record.change_keys(*number, *signing_key, *tls_key, *last_sequence),
            (Event::DeviceKeysSettled { .. }, Some(keys)) => keys.settled = true,
            (Event::DeviceOldKeysUsed { .. }, Some(keys)) => keys.old_used_ms = Some(at_ms),
            _ => {}
        }
    }

    /// A person has looked at the device and answers for it.
    pub(super) fn looked_at(&mut self, device: DeviceId) {
        let known = self.devices.get(&device);
        let seen = known.and_then(|record| record.admission.as_ref()?.two_places);
        if seen.is_some() {
            self.admit(device, |admission| admission.two_places = None);
        }
        let keys = self
            .devices
            .get_mut(&device)
            .and_then(|record| record.keys.as_deref_mut());
        if keys.and_then(|keys| keys.old_used_ms.take()).is_some() {
            self.dirty.insert(Key::Device(device));
        }
    }

    fn admit(&mut self, device: DeviceId, change: impl FnOnce(&mut Admission)) {
        if let Some(record) = self.devices.get_mut(&device) {
            change(record.admission.get_or_insert_default());
            self.dirty.insert(Key::Device(device));
        }
    }
}

fn read(signed: &[u8]) -> Option<DeviceList> {
    let object = Unverified::parse(signed).ok()?;
    cbor::decode(object.payload_unverified()).ok()
}
