use super::*;
use crate::payment::Sale;
use ed25519_dalek::SigningKey;
use hub_protocol::{
    CardFacts, CardScheme, Cryptogram, Currency, DeviceClass, EntryMode, Funding, Registration, Verification,
};

const NOW: u64 = 1_800_000_000_000;

/// A device, a hub that gives it allowances, and the device's folder.
struct Setting {
    dir: tempfile::TempDir,
    identity: DeviceIdentity,
    enrolled: Enrolled,
    hub_key: SigningKey,
}

impl Setting {
    fn new() -> Self {
        let identity = DeviceIdentity::generate().unwrap();
        let hub_key = SigningKey::from_bytes(&[1; 32]);
        let registration = Registration {
            device: identity.device_id(),
            signing_key: identity.signing_key().verifying_key().to_bytes(),
            class: DeviceClass::Mpos,
            name: "Caisse 1".into(),
            model: "Test".into(),
            hub: HubId([2; 32]),
            hub_signing_key: hub_key.verifying_key().to_bytes(),
            enrolled_ms: 1,
        };
        Self {
            dir: tempfile::tempdir().unwrap(),
            enrolled: Enrolled::new(registration, vec![]),
            identity,
            hub_key,
        }
    }

    /// As after a restart of the device.
    fn store(&self) -> AllowanceStore {
        AllowanceStore::open(self.dir.path(), self.identity.clone(), &self.enrolled).unwrap()
    }

    fn allowance(&self, number: u64) -> Allowance {
        Allowance {
            hub: HubId([2; 32]),
            device: self.identity.device_id(),
            number,
            amount_minor: 10_000,
            count: 3,
            transaction_ceiling_minor: 5_000,
            card_ceiling_minor: 6_000,
            currency: Currency::EUR,
            schemes: vec![CardScheme::Cb],
            funding: vec![Funding::Debit],
            entry_modes: vec![EntryMode::Chip],
            unverified_tap_ceiling_minor: None,
            issued_ms: NOW,
            expires_ms: NOW + 3_600_000,
            policy_version: 1,
        }
    }

    fn signed(&self, allowance: &Allowance) -> Vec<u8> {
        cose::sign(&self.hub_key, ObjectType::Allowance, &cbor::encode(allowance))
    }

    fn give(&self, store: &AllowanceStore, number: u64) {
        let allowance = self.allowance(number);
        let chain = AllowanceChain::new(&allowance);
        store.take_at(&self.signed(&allowance), chain, NOW).unwrap();
    }

    fn payment(&self, amount_minor: u64, token: &str) -> PreparedPayment {
        PreparedPayment::new(
            &self.identity,
            1,
            Sale {
                amount_minor,
                currency: Currency::EUR,
                order_id: "T-1".into(),
                card: CardFacts {
                    token: token.into(),
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
        )
    }
}

fn reason(result: Result<OfflineApproval, NotApproved>) -> Option<Reason> {
    result.unwrap_err().reason()
}

#[test]
fn rule_1_an_approval_is_on_disk_before_it_is_given_and_the_same_after_a_restart() {
    let setting = Setting::new();
    let store = setting.store();
    setting.give(&store, 1);
    let payment = setting.payment(4_000, "a");
    let first = store.approve_at(&payment, NOW).unwrap();
    // Nobody heard of it before the device was switched off.
    let store = setting.store();
    assert_eq!(store.unsynced(), 1);
    assert_eq!(store.approve_at(&payment, NOW + 1).unwrap(), first);
    assert_eq!(store.unsynced(), 1, "approved once");
    let second = store.approve_at(&setting.payment(100, "b"), NOW + 1).unwrap();
    assert_eq!(second.receipt.previous, first.receipt.digest());
    assert_eq!((second.receipt.index, second.receipt.total_minor), (2, 4_100));
    let key = setting.identity.signing_key().verifying_key();
    let opened: DeviceReceipt = cose::open(&second.signed, ObjectType::DeviceReceipt, &key).unwrap();
    assert_eq!(opened, second.receipt);
}

#[test]
fn rule_1_what_cannot_be_written_is_not_approved() {
    let setting = Setting::new();
    let store = setting.store();
    setting.give(&store, 1);
    std::fs::remove_dir_all(setting.dir.path()).unwrap();
    std::fs::write(setting.dir.path(), "no folder").unwrap();
    let refused = store.approve_at(&setting.payment(4_000, "a"), NOW).unwrap_err();
    assert!(matches!(refused, NotApproved::File(_)), "{refused:?}");
    assert_eq!(store.unsynced(), 0);
    std::fs::remove_file(setting.dir.path()).unwrap();
    let first = store.approve_at(&setting.payment(4_000, "a"), NOW).unwrap();
    assert_eq!(first.receipt.index, 1, "its place in the chain is still free");
}

#[test]
fn rule_4_nothing_beyond_the_allowance_is_approved() {
    let setting = Setting::new();
    let store = setting.store();
    let small = |token: &str| setting.payment(10, token);
    assert_eq!(
        reason(store.approve_at(&small("a"), NOW)),
        Some(Reason::NoPolicy),
        "none is held"
    );
    setting.give(&store, 1);
    let approve = |amount, token: &str| store.approve_at(&setting.payment(amount, token), NOW);
    assert_eq!(reason(approve(5_001, "a")), Some(Reason::TransactionCeiling));
    approve(5_000, "a").unwrap();
    assert_eq!(reason(approve(1_001, "a")), Some(Reason::CardCeiling));
    assert_eq!(
        reason(approve(5_000, "b").and_then(|_| approve(1, "c"))),
        Some(Reason::DeviceCeiling)
    );
    let left = |at_ms| store.left_at(at_ms).map(|left| (left.amount_minor, left.count));
    assert_eq!(left(NOW), Some((0, 1)));
    assert_eq!(left(NOW + 3_600_000), None);
    let store = setting.store();
    assert_eq!(
        reason(store.approve_at(&small("d"), NOW)),
        Some(Reason::DeviceCeiling),
        "nor after a restart"
    );
    assert!(matches!(
        store.approve_at(&setting.payment(0, "a"), NOW),
        Err(NotApproved::Malformed(_))
    ));
}

#[test]
fn rule_4_a_number_of_payments_is_not_passed() {
    let setting = Setting::new();
    let store = setting.store();
    setting.give(&store, 1);
    for card in ["a", "b", "c"] {
        store.approve_at(&setting.payment(10, card), NOW).unwrap();
    }
    assert_eq!(
        reason(store.approve_at(&setting.payment(10, "d"), NOW)),
        Some(Reason::DeviceConsecutiveLimit)
    );
}

#[test]
fn an_expired_allowance_approves_nothing_whatever_the_clock_does_then() {
    let setting = Setting::new();
    let store = setting.store();
    setting.give(&store, 1);
    store
        .approve_at(&setting.payment(10, "a"), NOW + 3_599_999)
        .unwrap();
    let late = |at| reason(store.approve_at(&setting.payment(10, "b"), at));
    assert_eq!(late(NOW + 3_600_000), Some(Reason::OfflineTooLong));
    // A clock that goes back: time stands still.
    let back = store
        .approve_at(&setting.payment(10, "b"), NOW - 86_400_000)
        .unwrap();
    assert_eq!(back.receipt.device_time_ms, NOW + 3_599_999);
    let store = setting.store();
    let back = store.approve_at(&setting.payment(10, "c"), 0).unwrap();
    assert_eq!(
        back.receipt.device_time_ms,
        NOW + 3_599_999,
        "also after a restart"
    );
}

#[test]
fn a_clock_that_is_behind_the_hubs_is_set_by_it_and_one_ahead_is_not_believed_longer() {
    let setting = Setting::new();
    let store = setting.store();
    let allowance = setting.allowance(1);
    let chain = AllowanceChain::new(&allowance);
    let hour = 3_600_000;
    store
        .take_at(&setting.signed(&allowance), chain, NOW - 5 * hour)
        .unwrap();
    let first = store
        .approve_at(&setting.payment(10, "a"), NOW - 5 * hour + 1_000)
        .unwrap();
    assert_eq!(first.receipt.device_time_ms, NOW + 1_000);
    assert_eq!(
        reason(store.approve_at(&setting.payment(10, "b"), NOW - 4 * hour)),
        Some(Reason::OfflineTooLong)
    );
    let ahead = Setting::new();
    let store = ahead.store();
    let allowance = ahead.allowance(1);
    let chain = AllowanceChain::new(&allowance);
    store
        .take_at(&ahead.signed(&allowance), chain, NOW + 5 * hour)
        .unwrap();
    assert_eq!(
        reason(store.approve_at(&ahead.payment(10, "a"), NOW + 5 * hour)),
        Some(Reason::OfflineTooLong)
    );
}

#[test]
fn rule_2_a_payment_stays_until_the_hub_has_it_and_is_told_with_the_same_bytes() {
    let setting = Setting::new();
    let store = setting.store();
    setting.give(&store, 1);
    let payments = ["a", "b"].map(|card| setting.payment(10, card));
    for payment in &payments {
        store.approve_at(payment, NOW).unwrap();
    }
    let (first, frame) = store.next_unsynced().unwrap().unwrap();
    assert_eq!(first.signed(), payments[0].signed(), "in the order of the chain");
    let store = setting.store();
    let (_, again) = store.next_unsynced().unwrap().unwrap();
    assert_eq!(again, frame);
    store.synced(&first.payment_id(), false).unwrap();
    store.synced(&first.payment_id(), false).unwrap();
    let store = setting.store();
    let (second, _) = store.next_unsynced().unwrap().unwrap();
    assert_eq!(second.payment_id(), payments[1].payment_id());
    store.synced(&second.payment_id(), true).unwrap();
    assert!(setting.store().next_unsynced().unwrap().is_none());
    let refused = setting.store().refused();
    assert_eq!(refused.len(), 1, "set aside, not forgotten");
    assert_eq!(refused[0].receipt.payment_id, payments[1].payment_id());
}

#[test]
fn rule_4_from_the_return_on_nothing_is_approved_also_after_a_restart() {
    let setting = Setting::new();
    let store = setting.store();
    assert!(store.begin_return().unwrap().is_none());
    setting.give(&store, 1);
    store.approve_at(&setting.payment(10, "a"), NOW).unwrap();
    let (number, frame) = store.begin_return().unwrap().unwrap();
    assert_eq!(number, 1);
    let store = setting.store();
    assert_eq!(
        reason(store.approve_at(&setting.payment(10, "b"), NOW)),
        Some(Reason::NoPolicy)
    );
    assert_eq!(store.held(), None);
    assert_eq!(store.begin_return().unwrap().unwrap().1, frame, "the same bytes");
    // The hub gives the same again as long as it has not closed it.
    setting.give(&store, 1);
    assert_eq!(store.held(), None);
    store.returned(1).unwrap();
    assert_eq!(setting.store().closed(), Some(1));
    let late = setting.allowance(1);
    let chain = AllowanceChain::new(&late);
    assert!(
        store.take_at(&setting.signed(&late), chain, NOW).is_err(),
        "an answer that comes late"
    );
    setting.give(&store, 2);
    assert_eq!(store.held().unwrap().number, 2);
    assert_eq!(store.unsynced(), 1, "what was approved before is still told");
}

#[test]
fn only_the_own_hubs_allowance_for_this_device_is_taken() {
    let setting = Setting::new();
    let store = setting.store();
    let good = setting.allowance(1);
    let chain = AllowanceChain::new(&good);
    let refused =
        |signed: &[u8]| matches!(store.take_at(signed, chain, NOW), Err(TakeError::Unverifiable(_)));
    let other_hub = Allowance {
        hub: HubId([3; 32]),
        ..good.clone()
    };
    let other_device = Allowance {
        device: DeviceId([3; 32]),
        ..good.clone()
    };
    assert!(refused(&setting.signed(&other_hub)));
    assert!(refused(&setting.signed(&other_device)));
    let stranger = SigningKey::from_bytes(&[9; 32]);
    assert!(refused(&cose::sign(
        &stranger,
        ObjectType::Allowance,
        &cbor::encode(&good)
    )));
    assert!(refused(&cose::sign(
        &setting.hub_key,
        ObjectType::Receipt,
        &cbor::encode(&good)
    )));
    store.take_at(&setting.signed(&good), chain, NOW).unwrap();
    let larger = Allowance {
        amount_minor: 1_000_000,
        ..good
    };
    assert!(refused(&setting.signed(&larger)), "one number is one allowance");
}

#[test]
fn a_device_that_lost_its_folder_goes_on_where_the_hub_knows_it_to_be() {
    let setting = Setting::new();
    let store = setting.store();
    setting.give(&store, 1);
    let told = store.approve_at(&setting.payment(4_000, "a"), NOW).unwrap();
    let known = AllowanceChain::new(&setting.allowance(1)).after(&told.receipt);
    std::fs::remove_file(setting.dir.path().join(FILE)).unwrap();
    let store = setting.store();
    store
        .take_at(&setting.signed(&setting.allowance(1)), known, NOW)
        .unwrap();
    let next = store.approve_at(&setting.payment(100, "b"), NOW).unwrap();
    assert_eq!(
        (next.receipt.index, next.receipt.total_minor),
        (2, 4_100),
        "no fork"
    );
}

#[test]
fn a_damaged_file_is_not_taken_for_an_empty_one() {
    let setting = Setting::new();
    setting.give(&setting.store(), 1);
    let path = setting.dir.path().join(FILE);
    #[cfg(unix)]
    {
        let mode = std::fs::metadata(&path).unwrap().permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
    }
    std::fs::write(&path, "zz").unwrap();
    let opened = AllowanceStore::open(setting.dir.path(), setting.identity.clone(), &setting.enrolled);
    assert!(matches!(opened, Err(SdkError::Damaged { path }) if path.ends_with(FILE)));
}
