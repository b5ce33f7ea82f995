//! For whoever folds a ledger without an index and keeps what matters only.

use hub_protocol::PaymentId;

use super::State;

impl State {
    /// Drops a payment to which nothing more will happen by itself, and its
    /// card if that has nothing to remember. Whatever an entry says of it
    /// later (a void) can no longer be folded.
    pub fn forget(&mut self, id: &PaymentId) -> bool {
        let Some(payment) = self.payments.get(id).filter(|payment| payment.is_final()) else {
            return false;
        };
        let key = payment.card;
        self.payments.remove(id);
        if let Some(card) = self.cards.get_mut(&key) {
            card.held_by = card.held_by.saturating_sub(1);
            if card.held_by == 0 && card.record.is_blank() {
                self.cards.remove(&key);
            }
        }
        // What was removed still stands in the order.
        if self.card_order.len() > 1024 + 2 * self.cards.len() {
            self.card_order = self.cards.keys().copied().collect();
        }
        true
    }

    /// Forgets what has changed, which no index asks for.
    pub fn forget_changes(&mut self) {
        self.dirty.clear();
        self.dirty_places.clear();
    }
}

#[cfg(test)]
mod tests {
    use hub_protocol::entry::{ClockQuality, DecisionRecord, Entry, EntryTime, Event};
    use hub_protocol::{
        CardFacts, CardScheme, Cryptogram, Currency, Decision, DeviceId, Digest, EntryMode, Funding,
        GatewayResult, PaymentRequest, Reason, Submission, Verification,
    };

    use super::*;
    use crate::state::CardKey;

    fn apply(state: &mut State, event: Event, request: Option<&PaymentRequest>) {
        let entry = Entry {
            sequence: state.head().sequence + 1,
            previous: state.head().digest,
            time: EntryTime {
                wall_ms: 1,
                monotonic_ms: 1,
                boot: [0; 16],
                quality: ClockQuality::Synchronised,
            },
            policy_version: 1,
            event,
        };
        state.apply_known(&entry, Digest::ZERO, request).unwrap();
    }

    #[test]
    fn what_is_final_is_forgotten_and_what_is_at_risk_never() {
        let id = PaymentId([1; 16]);
        let request = PaymentRequest {
            payment_id: id,
            device_sequence: 1,
            amount: 500_u64.into(),
            currency: Currency::EUR,
            order_id: "order".to_owned(),
            card: CardFacts {
                token: "tok".to_owned(),
                scheme: CardScheme::Cb,
                funding: Funding::Debit,
                issuer_country: None,
                bin: None,
                last4: None,
            },
            entry_mode: EntryMode::Chip,
            verification: Verification::OfflinePin,
            cryptogram: Cryptogram::AsksOnline,
            sealed_card_digest: Digest::ZERO,
            device_time_ms: 1,
            terms: None,
        };
        let card = CardKey::of_token("tok");
        let mut state = State::default();
        let decided = Event::PaymentDecided {
            payment_id: id,
            device: DeviceId([2; 32]),
            request: Some(vec![1]),
            record: DecisionRecord {
                decision: Decision::ApprovedOffline,
                reason: Reason::None,
                fallback: None,
                submission: Some(Submission::Deferred),
                gateway: None,
                reversal_queued: false,
                percent: None,
                score: None,
                lifted: None,
                allowance: None,
                moved_percent: None,
            },
        };
        apply(&mut state, decided, Some(&request));
        assert!(!state.forget(&id));
        let gateway = GatewayResult {
            approved: true,
            response_code: "00".to_owned(),
            authorisation_code: None,
            reference: None,
        };
        let settled = Event::PaymentSettled {
            payment_id: id,
            gateway,
            advice: None,
        };
        assert_eq!(state.card(&card).exposure_minor, 500);
        apply(&mut state, settled, None);
        assert!(state.forget(&id) && !state.forget(&id));
        assert!(state.payment(&id).is_none() && state.cards.is_empty() && state.knows_card(&card));
        state.forget_changes();
        assert_eq!(state.dirty_len(), 0);
    }
}
