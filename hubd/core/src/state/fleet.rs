//! Fleets, lists and replacements, folded.

use hub_protocol::cose::Unverified;
use hub_protocol::entry::Event;
use hub_protocol::{DeviceId, DeviceList, Registration, cbor};

use super::State;
use super::stored::Key;
use crate::admission::{Admission, FleetRecord, FleetToken, ListMark, Replaced, ShutOut, TwoPlaces};
use crate::record::{DeviceRecord, Subject};

impl State {
    /// What is remembered of fleets.
    pub fn fleet(&self) -> &FleetRecord {
        &self.fleet
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
            Event::DeviceApproved { device, list, .. } => self.admit(*device, |admission| {
                admission.pending = false;
                if list.is_some() {
                    admission.listed = *list;
                    admission.shut_out = None;
                }
            }),
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
                // Of one that this program cannot read any more, the devices
                // that were shut out stay so.
                if let Some(list) = read(list) {
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
            }
            Event::DeviceShutOut {
                device,
                list,
                revoked,
            } => self.admit(*device, |admission| {
                admission.listed = None;
                admission.shut_out = Some(ShutOut {
                    list: *list,
                    revoked: *revoked,
                });
            }),
            Event::DeviceReplaced {
                registration,
                replaces,
                lost,
                ..
            } => {
                self.enrolled(registration);
                let by = registration.device;
                self.admit(by, |admission| admission.replaces = Some(*replaces));
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
                };
                self.devices.insert(registration.device, record);
            }
        }
    }

    /// A person has looked at the device and answers for it.
    pub(super) fn looked_at(&mut self, device: DeviceId) {
        let known = self.devices.get(&device);
        let seen = known.and_then(|record| record.admission.as_ref()?.two_places);
        if seen.is_some() {
            self.admit(device, |admission| admission.two_places = None);
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
