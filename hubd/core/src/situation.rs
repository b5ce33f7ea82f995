//! What is known when a payment is decided offline, taken from the folded
//! state: the same for the hub that decides and for whoever tries a policy out.

use hub_protocol::entry::StorageLevel;
use hub_protocol::{Currency, DeviceClass, DeviceId, PaymentRequest};

use crate::core::Core;
use crate::decide::{Assessment, Situation, assess_offline};
use crate::policy::Policy;
use crate::state::{CardKey, DeviceRecord, State, Subject};

/// What the folded state does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Effective time, milliseconds since 1970 UTC.
    pub now_ms: u64,
    /// Whether the clock is in doubt.
    pub clock_suspect: bool,
    /// Whether the queue can take another payment.
    pub queue_has_room: bool,
    /// Whether the disk has no room for more.
    pub storage_full: bool,
}

impl<'a> Situation<'a> {
    /// A shop with nothing at risk that has just lost the gateway, at the
    /// beginning of a policy.
    #[must_use]
    pub fn fresh(policy: &'a Policy, class: DeviceClass) -> Self {
        Self {
            policy: Some(policy),
            currency: policy.currency,
            class,
            card: Subject::default(),
            device: Subject::default(),
            store: Subject::default(),
            now_ms: policy.not_before_ms,
            offline_ms: 0,
            clock_suspect: false,
            queue_has_room: true,
            storage_full: false,
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
        let store = state.store();
        Self {
            policy: state.policy(),
            currency,
            class: asking.registration.class,
            card: state.card(&CardKey::of_token(&request.card.token)),
            device: asking.subject,
            store: store.subject,
            now_ms: moment.now_ms,
            offline_ms: store
                .offline_since_ms
                .map_or(0, |since| moment.now_ms.saturating_sub(since)),
            clock_suspect: moment.clock_suspect,
            queue_has_room: moment.queue_has_room,
            storage_full: moment.storage_full,
        }
    }
}

impl Core {
    /// What the answer to this payment of an enrolled device would be without
    /// the gateway, and what leads to it. Decides nothing.
    pub fn assess_for(&self, device: DeviceId, request: &PaymentRequest) -> Option<Assessment> {
        Some(self.assess(self.state.device(&device)?, request))
    }

    pub(crate) fn assess(&self, asking: &DeviceRecord, request: &PaymentRequest) -> Assessment {
        let moment = Moment {
            now_ms: self.clock.effective_ms(),
            clock_suspect: self.clock.suspect(),
            queue_has_room: self.queue.len() + self.retries.len() < self.settings.max_queue,
            storage_full: self.storage == StorageLevel::Full,
        };
        let situation = Situation::of(&self.state, self.settings.currency, asking, request, moment);
        assess_offline(request, &situation)
    }
}
