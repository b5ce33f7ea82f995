//! A till: one simulated device and the cashier who holds it.

use std::sync::Arc;

use anyhow::{Context, Result};
use hub_protocol::{
    Currency, Decision, DeviceClass, DeviceId, EntryMode, FallbackAction, PaymentId, PaymentState, Reason,
    RefusalCode, Verification,
};
use hub_sdk::{CardKey, DeviceClient, PayError, VerifiedReceipt};

use crate::card_data;
use crate::sale::{Gesture, Sale, UNVERIFIED_UP_TO};
use crate::told::{Answer, Slip, Told};
use crate::witness::Witness;

/// One till.
pub struct Till {
    number: usize,
    class: DeviceClass,
    device: DeviceId,
    currency: Currency,
    client: DeviceClient,
    witness: Arc<Witness>,
    card_key: Option<CardKey>,
}

/// How a sale ended for the customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Decided: what, and why.
    Decided(Decision, Reason),
    /// Refused by a numbered error.
    Refused(RefusalCode),
    /// No answer.
    NoAnswer,
}

impl Till {
    /// A till whose device has been enrolled.
    pub fn new(
        number: usize,
        class: DeviceClass,
        device: DeviceId,
        currency: Currency,
        client: DeviceClient,
        witness: Arc<Witness>,
    ) -> Self {
        Self {
            number,
            class,
            device,
            currency,
            client,
            witness,
            card_key: None,
        }
    }

    /// The same, sealing cards to the gateway's key.
    pub fn sealing_to(self, card_key: Option<CardKey>) -> Self {
        Self { card_key, ..self }
    }

    /// What kind of device it has.
    pub fn class(&self) -> DeviceClass {
        self.class
    }

    /// Its device.
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// The device itself.
    pub fn client(&self) -> &DeviceClient {
        &self.client
    }

    /// Whether a card can be inserted: a phone has no slot.
    pub fn has_slot(&self) -> bool {
        self.class != DeviceClass::Softpos
    }

    /// Takes one sale to its end: asks under one payment id until there is an
    /// answer, and does what a fallback says, as a new payment for the same
    /// order. Where this device cannot, `neighbour` does.
    pub async fn serve(&self, sale: &Sale, neighbour: Option<&Till>) -> Result<Outcome> {
        let gesture = fitting(self.class, sale.gesture, sale.amount_minor);
        let (outcome, action) = self.ask(sale, gesture).await?;
        // A phone is not told to insert a card, but to use another device.
        let no_glass = Outcome::Decided(Decision::Declined, Reason::PinOnGlassNotAllowed);
        let no_device = Outcome::Decided(Decision::Declined, Reason::ClassNotAllowed);
        let till = match action {
            Some(FallbackAction::InsertCard | FallbackAction::InsertCardEnterPin) => Some(self),
            None if !self.has_slot() && (outcome == no_glass || outcome == no_device) => neighbour,
            None => None,
        };
        match till {
            Some(till) => {
                let inserted = Gesture::inserted(gesture.cryptogram);
                Ok(till.ask(sale, inserted).await?.0)
            }
            None => Ok(outcome),
        }
    }

    async fn ask(&self, sale: &Sale, gesture: Gesture) -> Result<(Outcome, Option<FallbackAction>)> {
        let payment = self.client.next_payment(hub_sdk::Sale {
            amount_minor: sale.amount_minor,
            currency: self.currency,
            order_id: sale.order_id.clone(),
            card: sale.card.clone(),
            entry_mode: gesture.entry_mode,
            verification: gesture.verification,
            cryptogram: gesture.cryptogram,
            sealed_card: card_data::of(&sale.order_id, self.card_key.as_ref())?,
            terms: None,
        });
        let payment_id = payment.payment_id();
        self.witness.asked(payment_id, &sale.order_id, self.number)?;
        let answered = self.client.pay(&payment).await;
        let (answer, outcome, action, receipt) = match answered {
            Ok(VerifiedReceipt { receipt, proof }) => {
                let slip = slip(&receipt);
                let outcome = Outcome::Decided(slip.decision, slip.reason);
                (Answer::Receipt(slip), outcome, receipt.fallback, Some(proof))
            }
            Err(PayError::Refused(refusal)) => (
                Answer::Refused(refusal.code),
                Outcome::Refused(refusal.code),
                None,
                None,
            ),
            Err(error) => (Answer::None(error.to_string()), Outcome::NoAnswer, None, None),
        };
        self.witness.told(
            Told {
                payment_id,
                order_id: sale.order_id.clone(),
                device: self.device,
                class: self.class,
                amount_minor: sale.amount_minor,
                card: sale.card.clone(),
                gesture,
                answer,
            },
            receipt,
        )?;
        Ok((outcome, action))
    }

    /// Where a payment stands, by the hub's signed word.
    pub async fn state_of(&self, payment_id: PaymentId) -> Result<PaymentState> {
        let (status, _) = self
            .client
            .status(payment_id)
            .await
            .context("a device asked for a status and got none")?;
        Ok(status.status.state)
    }

    /// Hangs up.
    pub async fn close(&self) {
        self.client.close().await;
    }
}

/// The part of a receipt that the reconciliation needs.
pub(crate) fn slip(receipt: &hub_protocol::Receipt) -> Slip {
    Slip {
        decision: receipt.decision,
        reason: receipt.reason,
        sequence: receipt.sequence,
        entry_digest: receipt.entry_digest,
        decided_ms: receipt.time.wall_ms,
        policy_version: receipt.policy_version,
    }
}

/// What a customer does at this class of device: on a phone there is only
/// tapping, and above the limit the PIN is the bank's to check.
pub(crate) fn fitting(class: DeviceClass, gesture: Gesture, amount_minor: u64) -> Gesture {
    if class != DeviceClass::Softpos || gesture.entry_mode == EntryMode::Contactless {
        return gesture;
    }
    let verification = if amount_minor > UNVERIFIED_UP_TO {
        Verification::OnlinePin
    } else {
        Verification::None
    };
    Gesture {
        entry_mode: EntryMode::Contactless,
        verification,
        ..gesture
    }
}

#[cfg(test)]
mod tests {
    use hub_protocol::Cryptogram;

    use super::*;

    #[test]
    fn a_phone_alone_only_takes_taps() {
        let inserted = Gesture::inserted(Cryptogram::AsksOnline);
        let small = fitting(DeviceClass::Softpos, inserted, UNVERIFIED_UP_TO);
        assert_eq!(
            (small.entry_mode, small.verification),
            (EntryMode::Contactless, Verification::None)
        );
        let large = fitting(DeviceClass::Softpos, inserted, UNVERIFIED_UP_TO + 1);
        assert_eq!(large.verification, Verification::OnlinePin);
        assert_eq!(fitting(DeviceClass::Mpos, inserted, 1), inserted);
    }
}
