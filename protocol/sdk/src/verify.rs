//! What the hub answers, held to what was asked.

use hub_protocol::cose::{self, ObjectType};
use hub_protocol::{CommittedReceipt, DeviceId, HubId, PaymentId, PaymentStatus, Receipt, cbor};

use crate::error::VerifyError;
use crate::hub_keys::HubKeys;
use crate::payment::PreparedPayment;

/// A receipt whose proof, hub, device and payment have been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedReceipt {
    /// The decision.
    pub receipt: Receipt,
    /// As the hub sent it: receipt, path and signed commit
    /// ([`CommittedReceipt`]), to be kept.
    pub proof: Vec<u8>,
}

/// A status whose signature, hub and payment have been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedStatus {
    /// Where the payment stands.
    pub status: PaymentStatus,
    /// As the hub signed it.
    pub signed: Vec<u8>,
}

/// Who answers, and to whom.
pub(crate) struct Verifier {
    pub(crate) hub: HubId,
    pub(crate) keys: HubKeys,
    pub(crate) device: DeviceId,
}

impl Verifier {
    /// A receipt for a payment of which all is known.
    pub(crate) fn receipt(
        &self,
        proof: Vec<u8>,
        payment: &PreparedPayment,
    ) -> Result<VerifiedReceipt, VerifyError> {
        let verified = self.receipt_of(proof, &payment.payment_id())?;
        let (receipt, request) = (&verified.receipt, payment.request());
        differs("the signed request", receipt.request_digest == payment.digest())?;
        differs("the amount", receipt.amount_minor == request.amount_minor())?;
        differs("the currency", receipt.currency == request.currency)?;
        let stated = request.terms.as_ref().map(|terms| terms.transaction_type);
        differs("what it is", receipt.transaction_type == stated)?;
        Ok(verified)
    }

    /// A receipt for a payment of which only the id is known.
    pub(crate) fn receipt_of(
        &self,
        proof: Vec<u8>,
        payment_id: &PaymentId,
    ) -> Result<VerifiedReceipt, VerifyError> {
        let receipt = CommittedReceipt::open_by(&proof, &self.keys.chain())?;
        differs("the hub", receipt.hub == self.hub)?;
        differs("the device", receipt.device == self.device)?;
        differs("the payment", receipt.payment_id == *payment_id)?;
        Ok(VerifiedReceipt { receipt, proof })
    }

    /// A status of a payment, or of any payment if none is given.
    pub(crate) fn status(
        &self,
        signed: Vec<u8>,
        payment_id: Option<&PaymentId>,
    ) -> Result<VerifiedStatus, VerifyError> {
        let status: PaymentStatus = by_present_key(&self.keys, &signed, ObjectType::Status)?;
        differs("the hub", status.hub == self.hub)?;
        differs(
            "the payment",
            payment_id.is_none_or(|id| status.payment_id == *id),
        )?;
        Ok(VerifiedStatus { status, signed })
    }
}

/// What names no place in the ledger is believed of the present key alone.
pub(crate) fn by_present_key<T>(keys: &HubKeys, signed: &[u8], object: ObjectType) -> Result<T, VerifyError>
where
    T: minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()>,
{
    let payload = cose::verify(signed, object, keys.chain().current())?;
    Ok(cbor::decode(&payload)?)
}

fn differs(what: &'static str, same: bool) -> Result<(), VerifyError> {
    if same {
        Ok(())
    } else {
        Err(VerifyError::Differs(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::DeviceIdentity;
    use crate::payment::Sale;
    use ed25519_dalek::SigningKey;
    use hub_protocol::ProofError;
    use hub_protocol::cose::{CoseError, Unverified};
    use hub_protocol::entry::{ClockQuality, EntryTime};
    use hub_protocol::{
        CardFacts, CardScheme, Cryptogram, Currency, Decision, Digest, EntryMode, Funding, HubKeyChange,
        PaymentState, Reason, SignedKeyChange, Verification,
    };

    fn hub_key() -> SigningKey {
        SigningKey::from_bytes(&[1; 32])
    }

    fn setting() -> (Verifier, PreparedPayment, Receipt) {
        let identity = DeviceIdentity::generate().unwrap();
        let payment = PreparedPayment::new(
            &identity,
            1,
            Sale {
                amount_minor: 1250,
                currency: Currency::EUR,
                order_id: "T-1".into(),
                card: CardFacts {
                    token: "tok_1".into(),
                    scheme: CardScheme::Cb,
                    funding: Funding::Debit,
                    issuer_country: None,
                    bin: None,
                    last4: None,
                },
                entry_mode: EntryMode::Chip,
                verification: Verification::OfflinePin,
                cryptogram: Cryptogram::AsksOnline,
                sealed_card: vec![7; 64].into(),
                terms: None,
            },
        );
        let verifier = Verifier {
            hub: HubId([2; 32]),
            keys: HubKeys::new(HubId([2; 32]), hub_key().verifying_key()),
            device: identity.device_id(),
        };
        let receipt = Receipt {
            hub: verifier.hub,
            device: verifier.device,
            payment_id: payment.payment_id(),
            request_digest: payment.digest(),
            amount_minor: 1250,
            currency: Currency::EUR,
            decision: Decision::ApprovedOffline,
            reason: Reason::None,
            fallback: None,
            submission: None,
            gateway: None,
            sequence: 1,
            entry_digest: Digest::ZERO,
            time: EntryTime {
                wall_ms: 1,
                monotonic_ms: 1,
                boot: [0; 16],
                quality: ClockQuality::Synchronised,
            },
            policy_version: 1,
            transaction_type: None,
            score: None,
        };
        (verifier, payment, receipt)
    }

    fn signed(receipt: &Receipt) -> Vec<u8> {
        cbor::encode(&committed(&hub_key(), receipt))
    }

    fn committed(key: &SigningKey, receipt: &Receipt) -> CommittedReceipt {
        CommittedReceipt::restated(key, receipt, receipt.sequence + 1, Digest::ZERO)
    }

    #[test]
    fn a_receipt_holds_for_its_own_hub_device_and_payment_only() {
        let (verifier, payment, good) = setting();
        let held = verifier.receipt(signed(&good), &payment).unwrap();
        assert_eq!(held.receipt, good);

        type Change = fn(&mut Receipt);
        let changes: [(&str, Change); 6] = [
            ("the hub", |r| r.hub = HubId([3; 32])),
            ("the device", |r| r.device = DeviceId([3; 32])),
            ("the payment", |r| r.payment_id = PaymentId([3; 16])),
            ("the signed request", |r| r.request_digest = Digest::ZERO),
            ("the amount", |r| r.amount_minor = 125),
            ("the currency", |r| r.currency = "USD".parse().unwrap()),
        ];
        for (what, change) in changes {
            let mut other = good.clone();
            change(&mut other);
            assert_eq!(
                verifier.receipt(signed(&other), &payment),
                Err(VerifyError::Differs(what))
            );
        }
    }

    #[test]
    fn a_receipt_that_the_hub_did_not_sign_does_not_hold() {
        let (verifier, payment, receipt) = setting();
        let stranger = SigningKey::from_bytes(&[9; 32]);
        let by_stranger = cbor::encode(&committed(&stranger, &receipt));
        assert_eq!(
            verifier.receipt(by_stranger, &payment),
            Err(ProofError::Commit(CoseError::UnknownKey).into())
        );
        let mut as_status = committed(&hub_key(), &receipt);
        let commit = Unverified::payload_of(&as_status.commit).unwrap();
        as_status.commit = cose::sign(&hub_key(), ObjectType::Status, commit);
        assert_eq!(
            verifier.receipt(cbor::encode(&as_status), &payment),
            Err(ProofError::Commit(CoseError::BadSignature).into())
        );
    }

    #[test]
    fn rule_1_a_receipt_that_the_hub_has_not_on_disk_does_not_hold() {
        let (verifier, payment, receipt) = setting();
        let ahead = CommittedReceipt::restated(&hub_key(), &receipt, receipt.sequence - 1, Digest::ZERO);
        assert_eq!(
            verifier.receipt(cbor::encode(&ahead), &payment),
            Err(ProofError::NotOnDisk.into())
        );
    }

    #[test]
    fn a_status_holds_for_the_payment_asked_about_only() {
        let (verifier, payment, _) = setting();
        let status = PaymentStatus {
            hub: verifier.hub,
            payment_id: payment.payment_id(),
            state: PaymentState::Settled,
            gateway: None,
            sequence: 2,
        };
        let signed = cose::sign(&hub_key(), ObjectType::Status, &cbor::encode(&status));
        assert!(verifier.status(signed.clone(), None).is_ok());
        assert!(
            verifier
                .status(signed.clone(), Some(&payment.payment_id()))
                .is_ok()
        );
        assert_eq!(
            verifier.status(signed, Some(&PaymentId([3; 16]))),
            Err(VerifyError::Differs("the payment"))
        );
    }

    fn change(number: u8, sequence: u64) -> SignedKeyChange {
        let key = |n: u8| SigningKey::from_bytes(&[n; 32]);
        let (old, new) = (key(number), key(number + 1));
        let change = HubKeyChange {
            hub: HubId([2; 32]),
            number: number.into(),
            old_key: old.verifying_key().to_bytes(),
            new_key: new.verifying_key().to_bytes(),
            sequence,
            changed_ms: 1,
        };
        SignedKeyChange(change.sign(&old, &new))
    }

    #[test]
    fn a_device_that_missed_two_changes_catches_up_and_old_keys_speak_for_nothing_later() {
        let (verifier, payment, receipt) = setting();
        let key = |n: u8| SigningKey::from_bytes(&[n; 32]);
        // Each commit ends one entry behind the receipt's.
        let end = receipt.sequence + 1;
        let by = |n: u8| cbor::encode(&committed(&key(n), &receipt));
        let unknown = verifier.receipt(by(3), &payment).unwrap_err();
        assert!(unknown.is_other_key(), "a reason to ask for changes: {unknown}");
        let wrong = verifier.keys.learn(&[change(2, end + 5)]);
        assert!(
            wrong.is_err() && verifier.keys.chain().changes() == 0,
            "one left out"
        );
        assert_eq!(
            verifier.keys.learn(&[change(1, end), change(2, end + 5)]),
            Ok(true)
        );
        assert_eq!(
            verifier.keys.learn(&[change(1, end)]),
            Ok(false),
            "told again, it is nothing new"
        );
        for n in [1, 2, 3] {
            assert!(
                verifier.receipt(by(n), &payment).is_ok(),
                "kept, or stated anew: {n}"
            );
        }
        let later = |n: u8, by: u64| {
            let digest = Digest([1; 32]);
            let stated = CommittedReceipt::restated(&key(n), &receipt, end + by, digest);
            verifier.receipt(cbor::encode(&stated), &payment)
        };
        assert!(later(1, 1).unwrap_err().is_other_key(), "behind its change");
        assert!(later(2, 1).is_ok() && later(2, 5).is_ok());
        assert!(later(2, 6).unwrap_err().is_other_key(), "behind its change");
        assert!(later(3, 6).is_ok());
    }

    #[test]
    fn a_status_is_believed_of_the_present_key_alone() {
        let (verifier, payment, _) = setting();
        let status = PaymentStatus {
            hub: verifier.hub,
            payment_id: payment.payment_id(),
            state: PaymentState::Settled,
            gateway: None,
            sequence: 1,
        };
        let by = |n: u8| {
            let key = SigningKey::from_bytes(&[n; 32]);
            let signed = cose::sign(&key, ObjectType::Status, &cbor::encode(&status));
            verifier.status(signed, Some(&payment.payment_id()))
        };
        assert!(by(1).is_ok() && by(2).is_err());
        verifier.keys.learn(&[change(1, 9)]).unwrap();
        assert!(by(1).unwrap_err().is_other_key() && by(2).is_ok());
    }

    #[test]
    fn what_a_device_has_learned_of_keys_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let identity = DeviceIdentity::generate().unwrap();
        let registration = hub_protocol::Registration {
            device: identity.device_id(),
            signing_key: identity.signing_key().verifying_key().to_bytes(),
            class: hub_protocol::DeviceClass::Mpos,
            name: "Caisse 1".into(),
            model: "Test".into(),
            hub: HubId([2; 32]),
            hub_signing_key: hub_key().verifying_key().to_bytes(),
            enrolled_ms: 1,
        };
        let enrolled = crate::Enrolled::new(registration, Vec::new());
        enrolled.save(dir.path()).unwrap();
        assert_eq!(enrolled.learn(&[change(1, 9), change(2, 12)]), Ok(true));
        let again = crate::Enrolled::load(dir.path()).unwrap();
        assert_eq!(again, enrolled);
        assert_eq!(again.hub_keys().unwrap().chain().changes(), 2);
    }

    #[test]
    fn a_device_that_was_enrolled_after_a_change_follows_the_next_ones_and_keeps_them() {
        for told in [vec![change(1, 9), change(2, 12)], vec![change(2, 12)]] {
            let dir = tempfile::tempdir().unwrap();
            let enrolled = enrolled_under(2);
            enrolled.save(dir.path()).unwrap();
            assert_eq!(enrolled.learn(&[change(1, 9)]), Ok(false), "it has that key");
            assert_eq!(enrolled.learn(&told), Ok(true));
            assert_eq!(enrolled.learn(&told), Ok(false), "told again, it is nothing new");
            let again = crate::Enrolled::load(dir.path()).unwrap();
            assert_eq!(again, enrolled);
            assert_eq!(
                again.learn(&[change(3, 15)]),
                Ok(true),
                "a push after the restart"
            );
            assert_eq!(crate::Enrolled::load(dir.path()).unwrap(), again);
            assert_eq!(again.hub_keys().unwrap().chain().changes(), 3);
        }
        let enrolled = enrolled_under(3);
        let untrusted = Err(hub_protocol::KeyChainError::Untrusted.into());
        assert_eq!(
            enrolled.learn(&[change(1, 9)]),
            untrusted,
            "its key is still to come"
        );
        assert_eq!(enrolled.learn(&[change(4, 12)]), untrusted, "some were missed");
        assert_eq!(enrolled.learn(&[change(2, 12), change(3, 15)]), Ok(true));
    }

    fn enrolled_under(key: u8) -> crate::Enrolled {
        let identity = DeviceIdentity::generate().unwrap();
        let hub_key = SigningKey::from_bytes(&[key; 32]);
        let registration = hub_protocol::Registration {
            device: identity.device_id(),
            signing_key: identity.signing_key().verifying_key().to_bytes(),
            class: hub_protocol::DeviceClass::Mpos,
            name: "Caisse 1".into(),
            model: "Test".into(),
            hub: HubId([2; 32]),
            hub_signing_key: hub_key.verifying_key().to_bytes(),
            enrolled_ms: 1,
        };
        crate::Enrolled::new(registration, Vec::new())
    }
}
