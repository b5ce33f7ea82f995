//! What people ask of the hub: enrolment, policy, blocking, the queue.

use hub_protocol::entry::Event;
use hub_protocol::{DeviceId, Digest, KeyId, RefusalCode, Registration};

use crate::core::Core;
use crate::described::Described;
use crate::effect::{Effect, OperatorReply, Overview, QueueItem, Reply};
use crate::input::{OperatorCommand, Ticket};
use crate::policy::Policy;
use crate::queue::operation;
use crate::state::SENDS_NOW;

impl Core {
    pub(crate) fn enrol(&mut self, ticket: Ticket, registration: Registration) {
        if self.refuse_if_stopping(ticket) {
            return;
        }
        if let Some(registration) = self.enrol_if_not_in(ticket, registration, None) {
            let event = Event::DeviceEnrolled {
                registration: registration.clone(),
            };
            let sequence = self.append(event, None, None);
            self.registered(sequence, ticket, registration);
        }
    }

    /// As [`enrol_if_new`](Self::enrol_if_new), for a code of its own: whoever
    /// made it answers for the device, so that one which waits to be approved
    /// is let in by it too. No success is told of what was not done: a device
    /// that is in gets its registration again only from a code of its own, or
    /// from the one by which it took `replaces`' place.
    pub(crate) fn enrol_if_not_in(
        &mut self,
        ticket: Ticket,
        registration: Registration,
        replaces: Option<DeviceId>,
    ) -> Option<Registration> {
        let known = self.state.device(&registration.device);
        let Some(known) = known
            .filter(|known| !known.barred() && known.registration.signing_key == registration.signing_key)
        else {
            return self.enrol_if_new(ticket, registration);
        };
        if known.pending() {
            return self.if_there_is_room(ticket, registration);
        }
        let has_place_of = known.admission.as_deref().and_then(|one| one.replaces);
        if replaces.is_some() && has_place_of != replaces {
            let text = "this device is enrolled already and takes no other's place; block the other one at the \
                        hub instead";
            self.refuse(ticket, RefusalCode::EnrolledAlready, text);
            return None;
        }
        self.enrol_if_new(ticket, registration)
    }

    /// Answers a device that is known already, or may not be enrolled; gives
    /// the registration back if it is new.
    pub(crate) fn enrol_if_new(
        &mut self,
        ticket: Ticket,
        registration: Registration,
    ) -> Option<Registration> {
        if let Some(known) = self.state.device(&registration.device) {
            let same_key = known.registration.signing_key == registration.signing_key;
            if known.barred() {
                self.refuse(
                    ticket,
                    RefusalCode::DeviceNotAllowed,
                    "this device is blocked; unblock it first",
                );
            } else if same_key {
                let registration = Box::new(known.registration.clone());
                self.reply_after(
                    self.state.head().sequence,
                    ticket,
                    Reply::Registered(registration),
                );
            } else {
                let text =
                    "this device is enrolled with another signing key; remove its keys and enrol it as new";
                self.refuse(ticket, RefusalCode::EnrolledAlready, text);
            }
            return None;
        }
        if self.is_revoked(&registration.device) {
            let text = "headquarters' list names this device as revoked";
            self.refuse(ticket, RefusalCode::DeviceNotAllowed, text);
            return None;
        }
        if self.state.devices().any(|other| {
            other.has_had_key(&registration.signing_key) || other.has_had_tls(&Digest(registration.device.0))
        }) {
            let text = "one of these keys is another device's, or was; make new keys";
            self.refuse(ticket, RefusalCode::EnrolledAlready, text);
            return None;
        }
        self.if_there_is_room(ticket, registration)
    }

    fn if_there_is_room(&mut self, ticket: Ticket, registration: Registration) -> Option<Registration> {
        if self.has_room_for(1) {
            return Some(registration);
        }
        let text = "as many devices are enrolled as this hub takes";
        self.refuse(ticket, RefusalCode::Busy, text);
        None
    }

    /// The entry of its enrolment has been made.
    pub(crate) fn registered(&mut self, sequence: u64, ticket: Ticket, registration: Registration) {
        self.device_changed(sequence, registration.device);
        self.reply_after(sequence, ticket, Reply::Registered(Box::new(registration)));
    }

    pub(crate) fn activate(&mut self, ticket: Option<Ticket>, policy: &Policy, signed: Vec<u8>, key: KeyId) {
        match self.objection_to_policy(policy, key) {
            Some(text) => {
                if let Some(ticket) = ticket {
                    self.operator_reply(ticket, OperatorReply::Refused(text));
                }
            }
            None if self.is_in_force(policy, key) => {
                self.policy_reply(ticket, policy.version, self.state.head().sequence);
            }
            None => {
                let version = policy.version;
                let sequence = self.append(
                    Event::PolicyActivated {
                        version,
                        key,
                        policy: signed,
                    },
                    None,
                    None,
                );
                // By its time zone another day may have begun. Whoever is told
                // that it is in force waits for what it brought about as well.
                self.close_periods();
                self.after(sequence, Effect::PushPolicy { version });
                self.policy_reply(ticket, version, self.state.head().sequence);
            }
        }
    }

    /// Why a policy may not come into force now. The last good one stays.
    fn objection_to_policy(&self, policy: &Policy, key: KeyId) -> Option<String> {
        let newest = self
            .state
            .store()
            .ratchets
            .iter()
            .find(|ratchet| ratchet.key == key)
            .map_or(0, |r| r.version);
        let same = self.is_in_force(policy, key);
        // Signed once more, by another key: how a policy outlives its key.
        let known = self.state.policy() == Some(policy);
        if !policy.covers(&self.settings.store_id) {
            Some(format!(
                "the policy is not for this store ({})",
                self.settings.store_id
            ))
        } else if let Some(text) = self.objection_of_root(policy, key) {
            Some(text)
        } else if policy.version < newest || (policy.version == newest && !same) {
            Some(format!(
                "policy version {} is not newer than version {newest}, which this key has signed before; \
                 to go back, sign the old content under a higher version",
                policy.version
            ))
        } else if let Some(in_force) = self
            .version_to_follow()
            .filter(|in_force| policy.version < *in_force || (policy.version == *in_force && !known))
        {
            Some(format!(
                "policy version {} is not newer than version {in_force}, which is in force and whose key the root \
                 still delegates; versions go on from one key to the next",
                policy.version
            ))
        } else if policy.currency != self.settings.currency {
            Some(format!(
                "the policy is for {}, this hub takes {}",
                policy.currency, self.settings.currency
            ))
        } else if !same && self.clock.effective_ms() >= policy.expires_ms {
            Some("the policy has expired already".to_owned())
        } else if !same && self.clock.effective_ms() < policy.not_before_ms {
            Some("the policy is not in force yet; install it then".to_owned())
        } else {
            None
        }
    }

    fn is_in_force(&self, policy: &Policy, key: KeyId) -> bool {
        self.state.policy() == Some(policy) && self.state.policy_key() == Some(key)
    }

    fn policy_reply(&mut self, ticket: Option<Ticket>, version: u64, sequence: u64) {
        if let Some(ticket) = ticket {
            self.reply_after(sequence, ticket, Reply::PolicyActive { version });
        }
    }

    pub(crate) fn operate(&mut self, ticket: Ticket, operator: String, command: OperatorCommand) {
        match command {
            OperatorCommand::Block(device) => self.block(ticket, operator, device, true),
            OperatorCommand::Unblock(device) => self.block(ticket, operator, device, false),
            OperatorCommand::MakeFleetToken {
                token,
                class,
                most,
                valid_ms,
            } => self.make_fleet_token(ticket, operator, token, (class, most, valid_ms)),
            OperatorCommand::WithdrawFleetToken(token) => self.withdraw_fleet_token(ticket, operator, token),
            OperatorCommand::Approve(device) => self.approve(ticket, operator, device),
            OperatorCommand::TakeList(list) => self.take_list(ticket, operator, *list),
            OperatorCommand::Fleet => {
                let reply = OperatorReply::Fleet {
                    tokens: self.fleet_tokens(),
                    list: self.state.fleet().list,
                    list_left: self.state.fleet().list_left.unwrap_or(0),
                };
                self.operator_reply(ticket, reply);
            }
            OperatorCommand::Standings => {
                let reply = OperatorReply::Standings(self.standings());
                self.operator_reply(ticket, reply);
            }
            OperatorCommand::Drain => {
                self.queue
                    .force(self.now.monotonic_ms, self.state.head().sequence);
                self.pacing.hurry();
                let event = Event::OperatorActed {
                    operator,
                    action: SENDS_NOW.to_owned(),
                };
                self.outage(false);
                let sequence = self.append(event, None, None);
                self.sends_after = sequence;
                self.reply_after(sequence, ticket, Reply::Operator(OperatorReply::Done));
            }
            OperatorCommand::Disclosed(disclosed) => self.acted(ticket, operator, disclosed.action()),
            OperatorCommand::Noted(action) => self.acted(ticket, operator, action),
            OperatorCommand::Release {
                payment_id,
                not_there,
            } => self.release(ticket, operator, payment_id, not_there),
            OperatorCommand::Close {
                payment_id,
                finding,
                note,
            } => self.close(ticket, operator, payment_id, finding, note),
            OperatorCommand::Park(id) => self.keep_back(ticket, &operator, id),
            OperatorCommand::ForfeitAllowance(device) => self.forfeit_allowance(ticket, operator, device),
            OperatorCommand::Lift(device) => self.lift(ticket, operator, device),
            OperatorCommand::ConfirmClock { told_ms } => self.confirm_clock(ticket, operator, told_ms),
            OperatorCommand::ChangeVaultKey { key, old_key } => {
                let event = Event::VaultKeyChanged {
                    key,
                    old_key,
                    operator,
                };
                let sequence = self.append(event, None, None);
                self.reply_after(sequence, ticket, Reply::Operator(OperatorReply::Done));
            }
            OperatorCommand::ApplyRoot { signed } => self.apply_root(ticket, operator, signed),
            OperatorCommand::ChangeTlsKey(change) => self.change_tls_key(ticket, operator, change),
            OperatorCommand::Root => {
                let root = self.state.root().cloned().map(Box::new);
                self.operator_reply(ticket, OperatorReply::Root(root));
            }
            OperatorCommand::Queue { limit, parked_only } => {
                let items = self.queue_items(limit, parked_only);
                let total = self.queue.len() + self.retries.len();
                let parked = count(self.state.store().queue.parked);
                self.operator_reply(ticket, OperatorReply::Queue { items, total, parked });
            }
            OperatorCommand::Described => {
                let described = self.state.devices().filter_map(|device| {
                    let described = device.described.as_deref()?.clone();
                    // A word on keys that it had before is none.
                    let attested = device.attested().copied();
                    Some((
                        device.registration.device,
                        Described {
                            attested,
                            ..described
                        },
                    ))
                });
                let reply = OperatorReply::Described(described.collect());
                self.operator_reply(ticket, reply);
            }
            OperatorCommand::Overview => {
                let overview = Box::new(self.overview());
                self.operator_reply(ticket, OperatorReply::Overview(overview));
            }
        }
    }

    pub(crate) fn operator_reply(&mut self, ticket: Ticket, reply: OperatorReply) {
        self.out.push(Effect::Reply {
            ticket,
            reply: Reply::Operator(reply),
        });
    }

    fn acted(&mut self, ticket: Ticket, operator: String, action: String) {
        let sequence = self.append(Event::OperatorActed { operator, action }, None, None);
        self.reply_after(sequence, ticket, Reply::Operator(OperatorReply::Done));
    }

    fn block(&mut self, ticket: Ticket, operator: String, device: DeviceId, blocked: bool) {
        let Some(known) = self.state.device(&device) else {
            self.operator_reply(
                ticket,
                OperatorReply::Refused("no such device is enrolled".to_owned()),
            );
            return;
        };
        if !blocked && known.shut_out().is_some() {
            let text = "headquarters' list shuts this device out; only a later list lets it in again";
            self.operator_reply(ticket, OperatorReply::Refused(text.to_owned()));
            return;
        }
        // Never are both let in.
        let in_its_place = known
            .replaced()
            .and_then(|replaced| self.state.device(&replaced.by));
        if !blocked && let Some(other) = in_its_place.filter(|other| !other.barred()) {
            let text = format!(
                "device {} has this one's place; block that one first: hubctl devices block {}",
                other.registration.device.short(),
                other.registration.device
            );
            self.operator_reply(ticket, OperatorReply::Refused(text));
            return;
        }
        let event = Event::DeviceBlocked {
            device,
            blocked,
            operator,
        };
        let sequence = self.append(event, None, None);
        self.device_changed(sequence, device);
        self.reply_after(sequence, ticket, Reply::Operator(OperatorReply::Done));
    }

    fn confirm_clock(&mut self, ticket: Ticket, operator: String, told_ms: u64) {
        match self.clock.confirm(told_ms) {
            Err(off_ms) => {
                let minutes = off_ms.unsigned_abs().div_ceil(60_000);
                let text = if off_ms < 0 {
                    format!(
                        "the hub's time is {minutes} min behind that; set the machine's clock, then confirm it"
                    )
                } else {
                    format!(
                        "the hub's time is {minutes} min ahead of that, because entries of that time are in \
                         the ledger already; it does not go back by hand, only by the gateway's time. If the \
                         time given is right, wait until it has caught up, and confirm it then"
                    )
                };
                self.operator_reply(ticket, OperatorReply::Refused(text));
            }
            Ok(None) => self.reply_after(
                self.state.head().sequence,
                ticket,
                Reply::Operator(OperatorReply::Done),
            ),
            Ok(change) => {
                let event = Event::OperatorActed {
                    operator,
                    action: "clock confirm".to_owned(),
                };
                self.append(event, None, None);
                self.clock_changed(change);
                let sequence = self.state.head().sequence;
                self.reply_after(sequence, ticket, Reply::Operator(OperatorReply::Done));
            }
        }
    }

    fn queue_items(&self, limit: usize, parked_only: bool) -> Vec<QueueItem> {
        let now = self.now.monotonic_ms;
        let describe = |(item, parked): (&crate::queue::Item, bool)| {
            let payment = self.state.payment(&item.payment_id)?;
            let waits = !parked && item.in_flight.is_none();
            Some(QueueItem {
                payment_id: item.payment_id,
                state: payment.state,
                operation: operation(payment),
                amount_minor: payment.amount_minor,
                currency: payment.currency,
                device: payment.device,
                decided_ms: payment.decided.as_ref().map_or(0, |decided| decided.time.wall_ms),
                attempts: item.attempts,
                last_error: item.last_error.clone(),
                parked: payment.parked,
                next_try_ms: waits.then(|| item.not_before_ms.saturating_sub(now)),
            })
        };
        let wanted = self.queue.iter().filter(|(_, parked)| *parked || !parked_only);
        let retries = self.retry_items().filter(|_| !parked_only);
        wanted.filter_map(describe).chain(retries).take(limit).collect()
    }

    /// Payments that wait to be presented to the issuer again.
    fn retry_items(&self) -> impl Iterator<Item = QueueItem> {
        let effective_ms = self.clock.effective_ms();
        self.retries.iter().filter_map(move |(due_ms, id)| {
            let payment = self.state.payment(&id)?;
            let retry = payment.retry.as_ref()?;
            Some(QueueItem {
                payment_id: id,
                state: payment.state,
                operation: operation(payment),
                amount_minor: payment.amount_minor,
                currency: payment.currency,
                device: payment.device,
                decided_ms: payment.decided.as_ref().map_or(0, |decided| decided.time.wall_ms),
                attempts: 0,
                last_error: Some(format!(
                    "declined ({}); presentation {} is allowed by its scheme's rules",
                    retry.response_code,
                    payment.presentation()
                )),
                parked: None,
                next_try_ms: Some(due_ms.saturating_sub(effective_ms)),
            })
        })
    }

    fn overview(&self) -> Overview {
        let store = self.state.store();
        let oldest = self.queue_items(1, false).first().map(|item| item.decided_ms);
        let oldest = self.retry_items().map(|item| item.decided_ms).chain(oldest).min();
        Overview {
            wan: self.wan.state(),
            wan_reason: self.wan.reason(),
            policy_version: store.policy_version,
            policy_expires_ms: (self.state.policy())
                .map(|policy| policy.expires_ms.min(self.policy_term().until_ms)),
            root: self.root_standing(),
            root_unreadable: self.state.has_root() && self.state.root().is_none(),
            sequence: self.state.head().sequence,
            queued: count(store.queue.queued) + self.retries.len(),
            parked: count(store.queue.parked),
            reversals_queued: count(store.queue.reversals_queued),
            exposure_minor: store.at_risk().exposure_minor,
            consecutive: store.at_risk().consecutive,
            oldest_unsent_seconds: oldest.map(|at| self.clock.effective_ms().saturating_sub(at) / 1000),
            clock_suspect: self.clock.suspect(),
            time_ms: self.clock.effective_ms(),
            devices: self.state.devices().count(),
            storage: self.storage,
            archives: self.state.archives(),
            ceilings_percent: self.store_percent(),
            restricted: self.all_restricted(),
            allowances: self.open_allowances(),
        }
    }
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
