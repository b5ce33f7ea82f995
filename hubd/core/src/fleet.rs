//! Enrolling many devices, headquarters' list, and who is who afterwards.

use hub_protocol::entry::Event;
use hub_protocol::{
    AnomalyKind, DeviceClass, DeviceId, DeviceList, Digest, KeyId, Refusal, RefusalCode, Registration,
    Restriction,
};

use crate::admission::{Access, FleetToken, Replaced, ShutOut, TwoPlaces};
use crate::core::Core;
use crate::effect::{Effect, OperatorReply, Reply};
use crate::input::Ticket;
use crate::state::DeviceRecord;

/// The most tokens of fleets at once.
pub const MAX_FLEET_TOKENS: usize = 8;

/// The most devices that one token lets in.
pub const MAX_FLEET_SIZE: u32 = 500;

/// The most devices that wait to be approved at once. They take no room from
/// those that are in, so that strangers keep no device of the shop's out.
pub(crate) const MAX_PENDING: usize = 200;

/// The longest life of a token, in milliseconds: 30 days.
pub const MAX_FLEET_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// The shortest time between two entries that say of one device that it is in
/// two places, in milliseconds.
const TWO_PLACES_QUIET_MS: u64 = 60 * 60 * 1000;

/// How a device comes to be enrolled, if not by a code of its own alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Joining {
    /// By the token of a fleet: SHA-256 over it.
    Fleet(Digest),
    /// By a code that gives it another's place.
    Replacing {
        /// The other.
        device: DeviceId,
        /// Whether that is lost.
        lost: bool,
        /// Who made the code.
        operator: String,
    },
}

/// A list whose signature has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListToTake {
    /// The list.
    pub list: DeviceList,
    /// The same, signed, as received.
    pub signed: Vec<u8>,
    /// Who signed it.
    pub key: KeyId,
    /// The Ed25519 public key that the hub signs receipts with, for
    /// registrations.
    pub hub_signing_key: [u8; 32],
}

/// What a list has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListChanges {
    /// Its version.
    pub version: u64,
    /// Devices that are enrolled by it.
    pub enrolled: usize,
    /// Devices that were in, and have another name, model or class by it.
    pub changed: usize,
    /// Devices that were known and that it approves.
    pub approved: usize,
    /// Devices that it shuts out.
    pub shut_out: usize,
    /// Devices on it that stay out, because they are blocked here.
    pub blocked: usize,
    /// Lines of it that were passed over.
    pub contradicted: Vec<Contradiction>,
}

/// A line of a list that has other keys for a device than the hub knows, or
/// one device's keys for another. It lets nobody in, and the device that it
/// names stays as it is, unless the list revokes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// The device that the line names.
    pub listed: DeviceId,
    /// The device that the hub knows.
    pub known: DeviceId,
    /// What people call that one.
    pub name: String,
}

/// What speaks for a copy of a device's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Its counter went back to a number that it had used, at this time
    /// (milliseconds since 1970 UTC).
    NumberAgain(u64),
    /// An allowance has two ends.
    TwoEnds,
    /// Its requests came in turns from two addresses.
    TwoPlaces(TwoPlaces),
    /// Somebody came with keys that it had before, at this time (milliseconds
    /// since 1970 UTC).
    OldKeys(u64),
}

/// Who a device is, as far as the hub can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which device.
    pub device: DeviceId,
    /// Whether it is blocked at the hub.
    pub blocked: bool,
    /// Whether it waits to be approved.
    pub pending: bool,
    /// The fleet's token that it enrolled by.
    pub token: Option<Digest>,
    /// The version of headquarters' list that named it first.
    pub listed: Option<u64>,
    /// How far its offline approvals are restricted, by what was found at it.
    pub restriction: Restriction,
    /// It misused an allowance, or sent card numbers.
    pub quarantined: bool,
    /// That headquarters shut it out.
    pub shut_out: Option<ShutOut>,
    /// Whose place it has.
    pub replaces: Option<DeviceId>,
    /// What has its place.
    pub replaced: Option<Replaced>,
    /// Signs that it was copied.
    pub signs: Vec<Sign>,
    /// Devices enrolled before it under the same name and model, other than
    /// the one it replaces: it may be one of them, reset.
    pub like_older: Vec<DeviceId>,
    /// The same of those enrolled after it.
    pub like_newer: Vec<DeviceId>,
}

impl Core {
    pub(crate) fn make_fleet_token(
        &mut self,
        ticket: Ticket,
        operator: String,
        token: Digest,
        (class, most, valid_ms): (DeviceClass, u32, u64),
    ) {
        let now_ms = self.clock.effective_ms();
        let tokens = &self.state.fleet().tokens;
        let open = tokens.iter().filter(|known| now_ms < known.expires_ms).count();
        let objection = if !(1..=MAX_FLEET_SIZE).contains(&most) {
            Some(format!("a token is for 1 to {MAX_FLEET_SIZE} devices"))
        } else if !(60_000..=MAX_FLEET_MS).contains(&valid_ms) {
            Some("a token is good for a minute to 30 days".to_owned())
        } else if open >= MAX_FLEET_TOKENS {
            Some(format!(
                "{MAX_FLEET_TOKENS} codes for several devices are outstanding, used up or not; withdraw one \
                 with `hubctl fleet withdraw`"
            ))
        } else if tokens.iter().any(|known| known.token == token) {
            Some("there is such a token already; make another".to_owned())
        } else {
            None
        };
        if let Some(text) = objection {
            self.operator_reply(ticket, OperatorReply::Refused(text));
            return;
        }
        let event = Event::FleetTokenMade {
            token,
            class,
            most,
            expires_ms: now_ms.saturating_add(valid_ms),
            operator,
        };
        let sequence = self.append(event, None, None);
        self.tell_tokens(sequence);
        self.reply_after(sequence, ticket, Reply::Operator(OperatorReply::Done));
    }

    pub(crate) fn withdraw_fleet_token(&mut self, ticket: Ticket, operator: String, token: Digest) {
        if !self.state.fleet().tokens.iter().any(|known| known.token == token) {
            let text = "there is no such token; `hubctl fleet` lists them".to_owned();
            self.operator_reply(ticket, OperatorReply::Refused(text));
            return;
        }
        let sequence = self.append(Event::FleetTokenWithdrawn { token, operator }, None, None);
        self.tell_tokens(sequence);
        self.reply_after(sequence, ticket, Reply::Operator(OperatorReply::Done));
    }

    fn tell_tokens(&mut self, sequence: u64) {
        let tokens = self.state.fleet().tokens.clone();
        self.after(sequence, Effect::FleetTokens { tokens });
    }

    /// A device presented a token that is more than a code of its own.
    pub(crate) fn join(&mut self, ticket: Ticket, registration: Registration, joining: Joining) {
        if self.refuse_if_stopping(ticket) {
            return;
        }
        let refusal = self.objection_to_joining(&registration, &joining);
        if let Some(Refusal { code, text }) = refusal {
            self.refuse(ticket, code, &text);
            return;
        }
        let registration = match joining {
            Joining::Fleet(_) => self.enrol_if_new(ticket, registration),
            Joining::Replacing { device, .. } => self.enrol_if_not_in(ticket, registration, Some(device)),
        };
        let Some(registration) = registration else {
            return;
        };
        match joining {
            Joining::Fleet(token) => {
                // A device does not choose its own limits.
                let tokens = &self.state.fleet().tokens;
                let made_for = tokens.iter().find(|known| known.token == token);
                let class = made_for.map_or(registration.class, |known| known.class);
                let registration = Registration {
                    class,
                    ..registration
                };
                let event = Event::FleetDeviceEnrolled {
                    registration: registration.clone(),
                    token,
                };
                let sequence = self.append(event, None, None);
                self.tell_tokens(sequence);
                self.registered(sequence, ticket, registration);
            }
            Joining::Replacing {
                device,
                lost,
                operator,
            } => self.replace(ticket, registration, device, lost, operator),
        }
    }

    fn objection_to_joining(&self, registration: &Registration, joining: &Joining) -> Option<Refusal> {
        let unknown = |text: &str| Some(Refusal::new(RefusalCode::EnrolmentUnknown, text));
        match joining {
            Joining::Fleet(token) => {
                let tokens = &self.state.fleet().tokens;
                let Some(known) = tokens.iter().find(|known| known.token == *token) else {
                    return unknown("the enrolment code is not known or withdrawn; ask for another");
                };
                if self.clock.effective_ms() >= known.expires_ms {
                    let text = "the enrolment code has expired; ask for another";
                    return Some(Refusal::new(RefusalCode::EnrolmentExpired, text));
                }
                // Whoever is in already only asks for its registration again.
                let is_in = self.state.device(&registration.device).is_some();
                if known.used >= known.most && !is_in {
                    return unknown("as many devices have used this code as it is for; ask for another");
                }
                let wait = |known: &&DeviceRecord| known.pending() && !known.barred();
                if !is_in && self.state.devices().filter(wait).count() >= MAX_PENDING {
                    let text = "as many devices wait to be approved as this hub lets wait; approve or block some \
                                of them with `hubctl devices`, then try again";
                    return Some(Refusal::new(RefusalCode::Busy, text));
                }
                None
            }
            Joining::Replacing { device, .. } => match self.state.device(device) {
                Some(_) if *device != registration.device => None,
                Some(_) => Some(Refusal::new(
                    RefusalCode::EnrolledAlready,
                    "this is the device itself, with its old keys; reset it, then enrol it",
                )),
                None => unknown("the device to be replaced is not known; ask for another code"),
            },
        }
    }

    /// In the same entry the old device is blocked: never are both let in.
    fn replace(
        &mut self,
        ticket: Ticket,
        mut registration: Registration,
        replaces: DeviceId,
        lost: bool,
        operator: String,
    ) {
        let Some(old) = self.state.device(&replaces) else {
            return;
        };
        registration.name.clone_from(&old.registration.name);
        registration.class = old.registration.class;
        let old = Box::new(old.registration.clone());
        let event = Event::DeviceReplaced {
            registration: registration.clone(),
            replaces,
            lost,
            operator: operator.clone(),
        };
        let mut sequence = self.append(event, None, None);
        if lost && let Some(number) = self.kept_back_for(replaces) {
            let event = Event::AllowanceReturned {
                device: replaces,
                number,
                statement: None,
                operator: Some(operator),
            };
            sequence = self.append(event, None, None);
        }
        self.after(
            sequence,
            Effect::DeviceChanged {
                registration: old,
                access: Access::Barred,
            },
        );
        self.registered(sequence, ticket, registration);
    }

    pub(crate) fn approve(&mut self, ticket: Ticket, operator: String, device: DeviceId) {
        let objection = match self.state.device(&device) {
            None => Some("no such device is enrolled"),
            Some(known) if known.shut_out().is_some() => {
                Some("headquarters' list shuts this device out; only a later list lets it in again")
            }
            Some(known) if known.blocked => Some("this device is blocked; unblock it first"),
            Some(known) if !known.pending() => Some("this device does not wait to be approved"),
            Some(_) if !self.has_room_for(1) => Some("as many devices are enrolled as this hub takes"),
            Some(_) => None,
        };
        if let Some(text) = objection {
            self.operator_reply(ticket, OperatorReply::Refused(text.to_owned()));
            return;
        }
        let event = Event::DeviceApproved {
            device,
            operator: Some(operator),
            list: None,
        };
        let sequence = self.append(event, None, None);
        self.device_changed(sequence, device);
        self.reply_after(sequence, ticket, Reply::Operator(OperatorReply::Done));
    }

    /// Takes headquarters' list. Each device's entry is its own, so a power
    /// failure may cut a list off: the same list again carries out what is
    /// left of it, and nothing twice.
    pub(crate) fn take_list(&mut self, ticket: Ticket, operator: String, taken: ListToTake) {
        let digest = Digest::of(&taken.signed);
        let again = self.state.fleet().list.is_some_and(|mark| mark.digest == digest);
        let objection = if again {
            // Its version and times were judged when it was taken.
            self.objection_to_devices(&taken.list)
        } else {
            self.objection_to_list(&taken.list, taken.key)
        };
        let objection = objection.or_else(|| self.objection_of_root_to_list(&taken.list, taken.key));
        if let Some(text) = objection {
            self.operator_reply(ticket, OperatorReply::Refused(text));
            return;
        }
        let ListToTake {
            list,
            signed,
            key,
            hub_signing_key,
        } = taken;
        let version = list.version;
        // What is left of it may have changed since a power failure: a device
        // that it names was enrolled by hand, with other keys.
        if !again || self.state.fleet().list_left != self.state.changes_by(&list) {
            let event = Event::DeviceListTaken {
                version,
                key,
                digest,
                list: signed,
                operator,
            };
            self.append(event, None, None);
        }
        let mut changes = ListChanges {
            version,
            contradicted: self.state.contradictions(&list),
            ..ListChanges::default()
        };
        // Who goes, goes first: a list that cannot be finished lets nobody in
        // beside them.
        for (device, revoked) in self.state.left_out(&list) {
            let event = Event::DeviceShutOut {
                device,
                list: version,
                revoked,
            };
            let sequence = self.append(event, None, None);
            self.device_changed(sequence, device);
            changes.shut_out += 1;
        }
        for listed in &list.devices {
            let device = listed.device;
            if changes.contradicted.iter().any(|line| line.listed == device) {
                continue;
            }
            let known = self.state.device(&device);
            let registration = Registration {
                device,
                // A list does not bring back keys that have given way.
                signing_key: known.map_or(listed.signing_key, |known| known.registration.signing_key),
                class: listed.class,
                name: listed.name.clone(),
                model: listed.model.clone(),
                hub: self.settings.hub,
                hub_signing_key,
                enrolled_ms: self.clock.effective_ms(),
            };
            let event = match self.state.device(&device) {
                Some(known) if known.settled_by(listed) => continue,
                Some(known) if known.says_what(listed) => {
                    changes.approved += 1;
                    Event::DeviceApproved {
                        device,
                        operator: None,
                        list: Some(version),
                    }
                }
                known => {
                    match known {
                        None => changes.enrolled += 1,
                        Some(known) if known.pending() || known.shut_out().is_some() => changes.approved += 1,
                        Some(_) => changes.changed += 1,
                    }
                    let enrolled_ms =
                        known.map_or(registration.enrolled_ms, |known| known.registration.enrolled_ms);
                    Event::DeviceListed {
                        registration: Registration {
                            enrolled_ms,
                            ..registration
                        },
                        list: version,
                    }
                }
            };
            let sequence = self.append(event, None, None);
            self.device_changed(sequence, device);
        }
        let blocked = |device: &DeviceId| self.state.device(device).is_some_and(|known| known.blocked);
        changes.blocked = list.devices.iter().filter(|one| blocked(&one.device)).count();
        let reply = Reply::Operator(OperatorReply::ListTaken(changes));
        self.reply_after(self.state.head().sequence, ticket, reply);
    }

    fn objection_to_list(&self, list: &DeviceList, key: KeyId) -> Option<String> {
        // As with policies: the version in force, whoever signed it, while its
        // key counts; and what this key signed before, for good.
        let ratchets = &self.state.fleet().ratchets;
        let own = ratchets.iter().find(|known| known.key == key);
        let before = self
            .list_version_to_follow()
            .max(own.map_or(0, |known| known.version));
        let tenant = self.state.policy().map(|policy| policy.tenant.as_str());
        let now_ms = self.clock.effective_ms();
        if let Err(fault) = list.check() {
            return Some(fault.to_string());
        }
        if !list.covers(&self.settings.store_id) {
            return Some(format!(
                "the list is not for this store ({})",
                self.settings.store_id
            ));
        }
        if tenant.is_some_and(|tenant| tenant != list.tenant) {
            return Some("the list is of another tenant than the policy in force".to_owned());
        }
        if list.version <= before {
            return Some(format!(
                "list version {} is not newer than version {before}, which was taken before; to go back, sign \
                 the old content under a higher version",
                list.version
            ));
        }
        if now_ms >= list.expires_ms {
            return Some("the list has expired already".to_owned());
        }
        if now_ms < list.not_before_ms {
            return Some("the list is not in force yet; take it then".to_owned());
        }
        self.objection_to_devices(list)
    }

    /// What stands against the list's devices, whenever it is taken.
    fn objection_to_devices(&self, list: &DeviceList) -> Option<String> {
        let contradicted = self.state.contradictions(list);
        let new = list
            .devices
            .iter()
            .filter(|one| contradicted.iter().all(|line| line.listed != one.device))
            .filter(|one| self.state.device(&one.device).is_none_or(DeviceRecord::pending));
        (!self.has_room_for(new.count()))
            .then(|| "more devices would be enrolled than this hub takes".to_owned())
    }

    /// Whether so many more devices may be in. Those that wait to be approved
    /// have a bound of their own ([`MAX_PENDING`]).
    pub(crate) fn has_room_for(&self, more: usize) -> bool {
        let are_in = self.state.devices().filter(|known| !known.pending());
        are_in.count().saturating_add(more) <= self.settings.max_devices
    }

    /// Whether a device that is not enrolled may not be: the list in force
    /// names it as revoked.
    pub(crate) fn is_revoked(&self, device: &DeviceId) -> bool {
        self.state.fleet().revoked.contains(device)
    }

    /// The devices' edge saw one device's requests come in turns over
    /// connections from different addresses. Said once an hour at most.
    pub(crate) fn two_places(&mut self, device: DeviceId, returns: u32) {
        let Some(known) = self.state.device(&device) else {
            return;
        };
        let before = known.admission.as_deref().and_then(|one| one.two_places);
        let now_ms = self.clock.effective_ms();
        let quiet = before.is_some_and(|before| now_ms.saturating_sub(before.at_ms) < TWO_PLACES_QUIET_MS);
        if !quiet {
            self.append(Event::DeviceInTwoPlaces { device, returns }, None, None);
        }
    }

    /// Who each device is.
    pub(crate) fn standings(&self) -> Vec<Standing> {
        let mut all: Vec<Standing> = self.state.devices().map(|known| self.standing(known)).collect();
        all.sort_unstable_by_key(|one| one.device);
        all
    }

    fn standing(&self, known: &DeviceRecord) -> Standing {
        let (own, admission) = (&known.registration, known.admission.as_deref());
        let related = |other: &DeviceId| {
            admission.is_some_and(|one| {
                one.replaces == Some(*other) || one.replaced.is_some_and(|by| by.by == *other)
            })
        };
        let like = |newer: bool| {
            let others = self.state.devices().filter(|other| {
                let other = &other.registration;
                let by_age = (other.enrolled_ms, other.device).cmp(&(own.enrolled_ms, own.device));
                other.device != own.device
                    && other.name == own.name
                    && other.model == own.model
                    && by_age.is_gt() == newer
                    && !related(&other.device)
            });
            let mut ids: Vec<DeviceId> = others.map(|other| other.registration.device).collect();
            ids.sort_unstable();
            ids
        };
        let again = known.watch.as_deref().and_then(|watch| {
            let found = watch
                .found
                .iter()
                .find(|found| found.kind == AnomalyKind::SequenceReused);
            found.map(|found| Sign::NumberAgain(found.at_ms))
        });
        let held = known.allowance.as_deref();
        let two_ends = held.filter(|held| {
            known.quarantined() && held.closed.is_some_and(|closed| !closed.lost) && held.withheld.is_some()
        });
        let old_keys = known.keys.as_deref().and_then(|keys| keys.old_used_ms);
        let old_keys = old_keys.map(Sign::OldKeys);
        let places = admission.and_then(|one| one.two_places).map(Sign::TwoPlaces);
        Standing {
            device: own.device,
            blocked: known.blocked,
            pending: known.pending(),
            token: admission.and_then(|one| one.token),
            listed: admission.and_then(|one| one.listed),
            restriction: known.restriction(),
            quarantined: known.quarantined(),
            shut_out: known.shut_out(),
            replaces: admission.and_then(|one| one.replaces),
            replaced: admission.and_then(|one| one.replaced),
            signs: again
                .into_iter()
                .chain(two_ends.map(|_| Sign::TwoEnds))
                .chain(places)
                .chain(old_keys)
                .collect(),
            like_older: like(false),
            like_newer: like(true),
        }
    }

    /// The tokens that may still be good.
    pub(crate) fn fleet_tokens(&self) -> Vec<FleetToken> {
        let now_ms = self.clock.effective_ms();
        let tokens = self.state.fleet().tokens.iter();
        tokens
            .filter(|known| now_ms < known.expires_ms)
            .copied()
            .collect()
    }

    /// Whether the device may connect has changed, or who it is.
    pub(crate) fn device_changed(&mut self, sequence: u64, device: DeviceId) {
        let known = self.state.device(&device);
        let changed = known.map(|known| Effect::DeviceChanged {
            registration: Box::new(known.registration.clone()),
            access: known.access(),
        });
        if let Some(effect) = changed {
            self.after(sequence, effect);
        }
    }
}
