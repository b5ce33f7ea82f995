//! What is known when a payment is decided offline, taken from the folded
//! state: the same for the hub that decides and for whoever tries a policy out.

use hub_protocol::entry::StorageLevel;
use hub_protocol::root::Term;
use hub_protocol::{Currency, DeviceClass, DeviceId, PaymentRequest, Restriction};

use crate::core::Core;
use crate::decide::{Assessment, Situation, assess_offline};
use crate::policy::device::Standing;
use crate::policy::{Policy, moving};
use crate::queue::Oldest;
use crate::risk::Declined;
use crate::state::{CardKey, DeviceRecord, StaffKey, State, Subject};

/// What the folded state does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Effective time, milliseconds since 1970 UTC.
    pub now_ms: u64,
    /// How long the oldest payment has waited to be sent, milliseconds.
    pub oldest_unsent_ms: u64,
    /// Whether the clock is in doubt.
    pub clock_suspect: bool,
    /// Whether the queue can take another payment.
    pub queue_has_room: bool,
    /// Whether the disk has no room for more.
    pub storage_full: bool,
    /// For how long the policy counts, beside what it says itself.
    pub policy_term: Term,
}

impl<'a> Situation<'a> {
    /// A shop with nothing at risk that has just lost the gateway, at the
    /// beginning of a policy: nothing odd has come, the card is known, and
    /// what is usual is not.
    #[must_use]
    pub fn fresh(policy: &'a Policy, class: DeviceClass) -> Self {
        Self {
            policy: Some(policy),
            currency: policy.currency,
            class,
            card: Subject::default(),
            device: Subject::default(),
            store: Subject::default(),
            staff: Subject::default(),
            standing: Standing::best(&policy.models, class),
            supervisor: None,
            overrides: None,
            card_velocity: None,
            card_known: true,
            device_recent: None,
            device_reserved: 0,
            allowed_card_minor: 0,
            hub_card_minor: policy.hub_card_minor(),
            held: None,
            declined: Declined::default(),
            store_restriction: Restriction::None,
            device_restriction: Restriction::None,
            device_points: 0,
            profile: None,
            oldest_unsent_ms: 0,
            now_ms: policy.not_before_ms,
            offline_ms: 0,
            clock_suspect: false,
            queue_has_room: true,
            storage_full: false,
            policy_term: Term::ALWAYS,
        }
    }

    /// What a device that asks for this payment finds, under the policy of
    /// the state.
    #[must_use]
    pub fn of(
        state: &'a State,
        currency: Currency,
        asking: &'a DeviceRecord,
        request: &PaymentRequest,
        moment: Moment,
    ) -> Self {
        let card = CardKey::of_token(&request.card.token);
        Self {
            card: state.card(&card),
            card_velocity: state.card_velocity(&card),
            declined: state.percent_declined(request.card.scheme, asking, moment.now_ms),
            // Whoever it is may stand at every device that is out of reach.
            staff: state
                .staff(StaffKey::of(request.staff()))
                .with(state.store().reserved()),
            supervisor: state
                .policy()
                .and_then(|policy| policy.overrides.as_ref())
                .and_then(|rules| rules.supervisor_of(asking.registration.device, request)),
            card_known: state.card_is_known(&card),
            ..Self::of_device(state, currency, asking, moment)
        }
    }

    /// What a device finds, whatever the card.
    fn of_device(state: &'a State, currency: Currency, asking: &'a DeviceRecord, moment: Moment) -> Self {
        let store = state.store();
        Self {
            policy: state.policy(),
            currency,
            class: asking.registration.class,
            card: Subject::default(),
            device: asking.at_risk(),
            store: store.at_risk(),
            staff: Subject::default(),
            standing: asking.standing(state.policy(), moment.now_ms),
            supervisor: None,
            overrides: store.overrides.as_ref(),
            card_velocity: None,
            card_known: false,
            device_recent: asking.recent.as_ref(),
            device_reserved: asking.reserved().count,
            allowed_card_minor: state.allowed_card_minor(),
            hub_card_minor: state.hub_card_minor(),
            held: store.held,
            declined: Declined::default(),
            store_restriction: state.alert().restriction,
            device_restriction: asking.restriction(),
            device_points: state.points_at(asking, moment.now_ms),
            profile: state.profile(),
            oldest_unsent_ms: moment.oldest_unsent_ms,
            now_ms: moment.now_ms,
            offline_ms: store
                .offline_since_ms
                .map_or(0, |since| moment.now_ms.saturating_sub(since)),
            clock_suspect: moment.clock_suspect,
            queue_has_room: moment.queue_has_room,
            storage_full: moment.storage_full,
            policy_term: moment.policy_term,
        }
    }
}

impl DeviceRecord {
    /// How it stands to the policy's rules for devices.
    pub(crate) fn standing(&self, policy: Option<&Policy>, now_ms: u64) -> Standing {
        policy.map_or_else(Standing::default, |policy| {
            let rules = policy.attestation.as_ref();
            let (described, attested) = (self.described.as_deref(), self.attested());
            Standing::of(
                &policy.models,
                rules,
                self.registration.class,
                described,
                attested,
                now_ms,
            )
        })
    }
}

impl Core {
    /// What the answer to this payment of an enrolled device would be without
    /// the gateway, and what leads to it. Decides nothing.
    pub fn assess_for(&self, device: DeviceId, request: &PaymentRequest) -> Option<Assessment> {
        Some(self.assess(self.state.device(&device)?, request))
    }

    pub(crate) fn assess(&self, asking: &DeviceRecord, request: &PaymentRequest) -> Assessment {
        let moment = self.moment();
        let situation = Situation::of(&self.state, self.settings.currency, asking, request, moment);
        assess_offline(request, &situation)
    }

    /// What a device finds that wants an allowance: of declines, those of the
    /// scheme that has most.
    pub(crate) fn situation_of_any<'a>(&'a self, asking: &'a DeviceRecord) -> Situation<'a> {
        let moment = self.moment();
        let schemes = self
            .state
            .policy()
            .map_or(&[][..], |policy| &policy.offline.schemes);
        let declined = schemes
            .iter()
            .map(|scheme| self.state.percent_declined(*scheme, asking, moment.now_ms))
            .max_by_key(|declined| declined.own_percent);
        Situation {
            declined: declined.unwrap_or_default(),
            staff: self.state.staff_most().with(self.state.store().reserved()),
            ..Situation::of_device(&self.state, self.settings.currency, asking, moment)
        }
    }

    fn moment(&self) -> Moment {
        // What is kept back for allowances comes, or is returned.
        let kept_back = usize::try_from(self.state.store().reserved().count).unwrap_or(usize::MAX);
        let waiting = self.queue.len() + self.retries.len();
        Moment {
            now_ms: self.clock.effective_ms(),
            oldest_unsent_ms: self.oldest_unsent_ms(),
            clock_suspect: self.clock.suspect(),
            queue_has_room: waiting.saturating_add(kept_back) < self.settings.max_queue,
            storage_full: self.storage == StorageLevel::Full,
            policy_term: self.policy_term(),
        }
    }

    /// The share of the signed ceilings that holds in the store by moving
    /// limits, percent.
    pub(crate) fn store_percent(&self) -> u64 {
        let Some(policy) = self.state.policy() else {
            return 100;
        };
        let (now_ms, store) = (self.clock.effective_ms(), self.state.store());
        let outcomes = store.outcomes.as_ref().map(|outcomes| outcomes.all);
        let least = policy.moving.declined_least();
        let now = moving::Moment {
            now_ms,
            offline_ms: store
                .offline_since_ms
                .map_or(0, |since| now_ms.saturating_sub(since)),
            oldest_unsent_ms: self.oldest_unsent_ms(),
            policy_age_ms: now_ms.saturating_sub(policy.not_before_ms),
            store_exposure_minor: store.at_risk().exposure_minor,
            store_ceiling_minor: policy.store.exposure_ceiling,
            declined: Declined {
                store_percent: outcomes.map_or(0, |all| all.percent_declined(least, now_ms)),
                own_percent: 0,
            },
            held: store.held,
        };
        policy.moving.shares(&now).store
    }

    /// How long the oldest payment or reversal has waited to be sent that is not
    /// parked, if the policy asks for it. What nobody can tell is older than
    /// every limit (rule 5): before the queue is in memory, or since the clock
    /// was set back.
    fn oldest_unsent_ms(&self) -> u64 {
        let asked = self.state.policy().is_some_and(|policy| {
            policy.offline.oldest_unsent_ms.is_some() || !policy.moving.oldest_unsent.is_empty()
        });
        if !asked {
            return 0;
        }
        let id = match self.queue.oldest() {
            Oldest::Nothing => return 0,
            Oldest::Unknown => return u64::MAX,
            Oldest::Payment(id) => id,
        };
        let since = self.state.payment(id).and_then(|payment| {
            let decided = payment.decided.as_ref()?;
            // One that is presented again waits since it was put back.
            let since_ms = match &payment.retry {
                Some(retry) => retry.queued_ms,
                None => decided.time.wall_ms,
            };
            Some((payment.queue_sequence.unwrap_or(decided.sequence), since_ms))
        });
        match since {
            Some((sequence, since_ms)) if self.comparable_ms(sequence, since_ms) != 0 => {
                self.clock.effective_ms().saturating_sub(since_ms)
            }
            _ => u64::MAX,
        }
    }
}
