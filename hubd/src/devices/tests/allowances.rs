//! Allowances from the SDK to the core and back: real QUIC, the real core, a
//! disk that is a list.

use hub_core::admission::Access;
use hub_core::policy::Policy;
use hub_core::state::State;
use hub_core::{Core, Forward, OperatorCommand, OperatorReply, Overview, Probe, Settings as CoreSettings};
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::entry::{Entry, WanReason, WanState};
use hub_protocol::{
    ALPN_1, ALPN_2, AllowanceMisuse, AllowanceReturn, Answer, CommittedGroup, DeviceReceipt, HubKeyChange,
    HubTlsKeys, KeyId, LedgerCommit, ReceiptGroup, Request, Restriction, RestrictionCause, SealedCard,
    SignedKeyChange, cbor, frame,
};
use hub_sdk::{AllowanceError, AllowanceStore, NotApproved};

use super::*;
use crate::clock;
use crate::hub::{Edges, Hub, IndexBatch, Marks, Records};
use crate::key_ring::KeyRing;
use crate::port::Tell;

const POLICY: &str = concat!(
    include_str!("../../../../config/policies/france-cautious.toml"),
    "\n[allowance]\namount = 10000\ncount = 5\ntransaction_ceiling = 4000\nminutes = 60\nclasses = [\"mpos\"]\n\
     card_ceiling = 4000\ndevices = 3\n"
);

/// A disk on which everything is at once, and nothing else.
struct Memory {
    hub: HubId,
    signing: KeyRing,
    marks: Arc<Marks>,
    head: Head,
    misused: Arc<Mutex<Vec<AllowanceMisuse>>>,
    /// Every entry, one after the other.
    written: Arc<Mutex<Vec<u8>>>,
}

impl Edges for Memory {
    fn outage(&mut self, _: u64, _: bool) {}
    fn push_tls_keys(&mut self, _: HubTlsKeys) {}
    fn device_keys(&mut self, _: DeviceId, _: hub_core::device_keys::DeviceKeys) {}
    fn append(
        &mut self,
        sequence: u64,
        payload: Vec<u8>,
        _: Option<(PaymentId, SealedCard)>,
        receipt: Option<Vec<u8>>,
    ) -> bool {
        let digest = Entry::digest(&payload);
        self.head = Head { sequence, digest };
        self.written.lock().unwrap().extend_from_slice(&payload);
        let group = receipt.and_then(|receipt| ReceiptGroup::new(vec![(sequence, receipt)]));
        let commit = LedgerCommit {
            hub: self.hub,
            first: sequence,
            last: sequence,
            last_digest: digest,
            receipts: group.as_ref().map(ReceiptGroup::root),
        };
        let group: Option<CommittedGroup> =
            group.map(|group| group.committed(self.signing.with(|key| commit.sign(key))));
        self.marks.committed(sequence, group);
        true
    }
    fn durable_head(&self) -> Head {
        self.head
    }
    fn sign_key_change(&mut self, sequence: u64, next: SigningKey, changed_ms: u64) -> SignedKeyChange {
        let change = HubKeyChange {
            hub: self.hub,
            number: 1,
            old_key: self.signing.chain().current().to_bytes(),
            new_key: next.verifying_key().to_bytes(),
            sequence,
            changed_ms,
        };
        SignedKeyChange(self.signing.with(|old| change.sign(old, &next)))
    }
    fn change_key(&mut self, _: u64) -> bool {
        true
    }
    fn push_key_change(&mut self, _: SignedKeyChange) {}
    fn erase_card(&mut self, _: PaymentId) {}
    fn forward(&mut self, _: Forward) {}
    fn push_status(&mut self, _: DeviceId, _: PaymentStatus) {}
    fn push_policy(&mut self, _: u64) {}
    fn device_changed(&mut self, _: &Registration, _: Access) {}
    fn fleet_tokens(&mut self, _: Vec<hub_core::admission::FleetToken>) {}
    fn wan_changed(&mut self, _: WanState, _: WanReason) {}
    fn restriction_changed(&mut self, _: Option<DeviceId>, _: Restriction, _: RestrictionCause) {}
    fn allowance_misused(&mut self, _: DeviceId, _: u64, kind: AllowanceMisuse) {
        self.misused.lock().unwrap().push(kind);
    }
    fn index(&mut self, _: IndexBatch) -> Option<IndexBatch> {
        None
    }
    fn finish(self, _: std::collections::VecDeque<IndexBatch>) -> bool {
        true
    }
    fn recall(&self, _: &[u8]) -> Result<Option<Vec<u8>>, String> {
        Ok(None)
    }
    fn recall_range(&self, _: &[u8], _: &[u8], _: usize) -> Result<Records, String> {
        Ok(Vec::new())
    }
    fn distrust_index(&self) {}
    fn indexed(&self) -> u64 {
        0
    }
}

/// A hub without the network, with a policy that gives allowances.
struct Shop {
    hub: FakeHub,
    port: HubPort,
    misused: Arc<Mutex<Vec<AllowanceMisuse>>>,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Shop {
    async fn open() -> Self {
        Self::open_as(&pem()).await
    }

    /// The hub with this key.
    async fn open_as(pem: &str) -> Self {
        let keys = keys_of(pem);
        let (hub, signing) = (keys.tls.hub_id(), keys.signing.clone());
        let (port, messages) = HubPort::new();
        let settings = CoreSettings::new(hub, "shop-001", Currency::EUR);
        let (core, effects) = Core::start(settings, State::default(), 0, "test", clock::now());
        let marks = Arc::new(Marks::default());
        let (misused, written) = (Arc::default(), Arc::default());
        let memory = Memory {
            hub,
            signing,
            marks: Arc::clone(&marks),
            head: Head::EMPTY,
            misused: Arc::clone(&misused),
            written: Arc::clone(&written),
        };
        let runtime = tokio::runtime::Handle::current();
        let running = Hub::new(core, effects, memory, messages, marks).unwrap();
        std::thread::spawn(move || running.run(&runtime));
        let devices = Devices::start(super::settings(), keys, port.clone(), Registry::default()).unwrap();
        let (_, asked) = watch::channel(0);
        let hub = FakeHub {
            devices,
            book: Arc::default(),
            asked,
        };
        let shop = Self {
            hub,
            port,
            misused,
            written,
        };
        for _ in 0..10 {
            let probe = Probe {
                ok: false,
                latency_ms: 1,
                gateway_time_ms: None,
            };
            assert!(shop.port.tell(Tell::Probe(probe)).await);
        }
        let key = SigningKey::from_bytes(&[50; 32]);
        let activated = shop.port.ask(Ask::Activate {
            policy: Box::new(Policy::parse(POLICY.as_bytes()).unwrap()),
            signed: cose::sign(&key, ObjectType::Policy, POLICY.as_bytes()),
            key: KeyId::of_key(key.verifying_key().as_bytes()),
        });
        let activated = within(activated).await.unwrap();
        assert!(
            matches!(activated, Reply::PolicyActive { version: 1 }),
            "{activated:?}"
        );
        shop
    }

    /// An enrolled device with its folder.
    async fn device(&self) -> (DeviceClient, tempfile::TempDir, DeviceIdentity) {
        let identity = DeviceIdentity::generate().unwrap();
        let enrolled = self.hub.enrol(&identity).await;
        let client = DeviceClient::new(identity.clone(), enrolled, options()).unwrap();
        (client, tempfile::tempdir().unwrap(), identity)
    }

    async fn overview(&self) -> Box<Overview> {
        let asked = self.port.ask(Ask::Operator {
            operator: "anna".into(),
            command: OperatorCommand::Overview,
        });
        match within(asked).await.unwrap() {
            Reply::Operator(OperatorReply::Overview(overview)) => overview,
            other => panic!("{other:?}"),
        }
    }

    fn misused(&self) -> Vec<AllowanceMisuse> {
        self.misused.lock().unwrap().clone()
    }
}

fn store(dir: &std::path::Path, client: &DeviceClient, identity: &DeviceIdentity) -> AllowanceStore {
    AllowanceStore::open(dir, identity.clone(), client.enrolled()).unwrap()
}

fn sale_of(amount_minor: u64, token: &str) -> Sale {
    let mut sale = sale(amount_minor);
    sale.card.token = token.into();
    sale
}

async fn sync(client: &DeviceClient, store: &AllowanceStore) -> Vec<Receipt> {
    let mut told = Vec::new();
    within(client.sync(store, |receipt| told.push(receipt.receipt)))
        .await
        .unwrap();
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_4_a_device_approves_while_the_hub_is_out_of_reach_and_nothing_passes_a_ceiling() {
    let shop = Shop::open().await;
    let (client, dir, identity) = shop.device().await;
    let kept = store(dir.path(), &client, &identity);
    let allowance = within(client.ask_allowance(&kept)).await.unwrap();
    assert_eq!((allowance.amount_minor, allowance.count), (10_000, 5));
    assert_eq!(
        shop.overview().await.exposure_minor,
        10_000,
        "all of it is at risk"
    );
    assert_eq!(within(client.ask_allowance(&kept)).await.unwrap(), allowance);
    assert_eq!(shop.overview().await.exposure_minor, 10_000, "given once");

    // Out of reach.
    let payments: Vec<_> = [("a", 4_000), ("b", 3_000)]
        .map(|(card, amount)| client.next_payment(sale_of(amount, card)))
        .into();
    for payment in &payments {
        kept.approve_offline(payment).unwrap();
    }
    let too_much = kept.approve_offline(&client.next_payment(sale_of(3_001, "c")));
    assert!(
        matches!(too_much, Err(NotApproved::Reason(Reason::DeviceCeiling))),
        "{too_much:?}"
    );
    drop(kept);

    // Back, after a restart of the device.
    let kept = store(dir.path(), &client, &identity);
    assert!(matches!(
        within(client.ask_allowance(&kept)).await,
        Err(AllowanceError::Unsynced(2))
    ));
    let told = sync(&client, &kept).await;
    assert_eq!(told.len(), 2);
    assert!(
        told.iter()
            .all(|receipt| receipt.decision == Decision::ApprovedOffline)
    );
    assert_eq!(
        shop.overview().await.exposure_minor,
        10_000,
        "7 000 real, 3 000 kept back"
    );
    assert_eq!(shop.overview().await.queued, 2, "and will be sent");
    let again = within(client.pay(&payments[0])).await.unwrap();
    assert_eq!(
        again.receipt, told[0],
        "rule 3: the same answer however it is asked for"
    );
    within(client.return_unused(&kept)).await.unwrap();
    assert_eq!(shop.overview().await.exposure_minor, 7_000);
    within(client.return_unused(&kept)).await.unwrap();
    let next = within(client.ask_allowance(&kept)).await.unwrap();
    assert_eq!(next.number, 2);
    assert_eq!(shop.misused(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_2_every_step_of_a_device_may_be_repeated_after_a_crash() {
    let shop = Shop::open().await;
    let (client, dir, identity) = shop.device().await;
    let kept = store(dir.path(), &client, &identity);
    within(client.ask_allowance(&kept)).await.unwrap();
    kept.approve_offline(&client.next_payment(sale_of(4_000, "a")))
        .unwrap();
    let file = dir.path().join("allowance.cbor");
    // The device is switched off before it could write down what it heard.
    let before = std::fs::read(&file).unwrap();
    let told = sync(&client, &kept).await;
    std::fs::write(&file, before).unwrap();
    let kept = store(dir.path(), &client, &identity);
    assert_eq!(sync(&client, &kept).await, told);
    let before = std::fs::read(&file).unwrap();
    within(client.return_unused(&kept)).await.unwrap();
    std::fs::write(&file, before).unwrap();
    let kept = store(dir.path(), &client, &identity);
    within(client.return_unused(&kept)).await.unwrap();
    assert_eq!(shop.overview().await.exposure_minor, 4_000);
    // A return that came too early is brought to its end before more is asked.
    within(client.ask_allowance(&kept)).await.unwrap();
    kept.approve_offline(&client.next_payment(sale_of(1_000, "b")))
        .unwrap();
    let early = within(client.return_unused(&kept)).await.unwrap_err();
    assert_eq!(early.refusal_code(), Some(RefusalCode::AllowanceNotSynced));
    let none = kept.approve_offline(&client.next_payment(sale_of(1_000, "c")));
    assert!(matches!(none, Err(NotApproved::NoAllowance)), "{none:?}");
    sync(&client, &kept).await;
    let next = within(client.ask_allowance(&kept)).await.unwrap();
    assert_eq!((next.number, kept.held()), (3, Some(next.clone())));
    assert_eq!(shop.overview().await.exposure_minor, 5_000 + next.amount_minor);
    assert_eq!(shop.misused(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_device_is_found_at_sync_and_its_payments_are_kept() {
    let shop = Shop::open().await;
    let (client, dir, identity) = shop.device().await;
    let kept = store(dir.path(), &client, &identity);
    within(client.ask_allowance(&kept)).await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(
        dir.path().join("allowance.cbor"),
        copy.path().join("allowance.cbor"),
    )
    .unwrap();
    let copied = store(copy.path(), &client, &identity);
    kept.approve_offline(&client.next_payment(sale_of(4_000, "a")))
        .unwrap();
    copied
        .approve_offline(&client.next_payment(sale_of(3_500, "b")))
        .unwrap();
    sync(&client, &kept).await;
    assert_eq!(shop.misused(), []);
    let told = sync(&client, &copied).await;
    assert_eq!(
        told[0].decision,
        Decision::ApprovedOffline,
        "the customer has left"
    );
    let kept_id = told[0].payment_id;
    assert_eq!(shop.misused(), [AllowanceMisuse::Forked]);
    assert_eq!(shop.overview().await.queued, 2);
    // Nothing more is approved offline.
    let payment = client.next_payment(sale_of(100, "c"));
    let told = within(client.pay(&payment)).await.unwrap();
    assert_eq!(told.receipt.decision, Decision::Declined);
    let refused = within(client.ask_allowance(&kept)).await.unwrap_err();
    assert_eq!(refused.refusal_code(), Some(RefusalCode::AllowanceNotGiven));
    // It may still void.
    let voided = within(client.void(kept_id)).await.unwrap();
    assert_eq!(voided.status.state, PaymentState::Voided);
    let lifted = shop.port.ask(Ask::Operator {
        operator: "anna".into(),
        command: OperatorCommand::Lift(Some(identity.device_id())),
    });
    assert_eq!(
        within(lifted).await.unwrap(),
        Reply::Operator(OperatorReply::Done)
    );
    within(client.return_unused(&kept)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_is_refused_for_good_holds_up_neither_sync_nor_return() {
    let shop = Shop::open().await;
    let (client, dir, identity) = shop.device().await;
    let kept = store(dir.path(), &client, &identity);
    within(client.ask_allowance(&kept)).await.unwrap();
    let payments: Vec<_> = [("a", 4_000), ("b", 3_000), ("c", 500)]
        .map(|(card, amount)| client.next_payment(sale_of(amount, card)))
        .into();
    let approved: Vec<_> = payments
        .iter()
        .map(|payment| kept.approve_offline(payment).unwrap())
        .collect();
    // What lies on its disk of the first two is damaged: the sealed card of the
    // one, the signature of the other.
    let mut cards = payments[0].sealed_card().clone();
    cards.blob[0] ^= 1;
    let mut signed = payments[1].signed().to_vec();
    *signed.last_mut().unwrap() ^= 1;
    let damaged = [
        (
            payments[0].signed().to_vec(),
            cards,
            RefusalCode::SealedCardDigest,
        ),
        (
            signed,
            payments[1].sealed_card().clone(),
            RefusalCode::SignatureBad,
        ),
    ];
    for ((request, sealed_card, code), approval) in damaged.into_iter().zip(&approved) {
        let frame = Request::Sync {
            number: 1,
            request,
            sealed_card,
            receipt: approval.signed.clone(),
        };
        match within(client.send_raw(&frame::to_wire(&frame))).await.unwrap() {
            Answer::Refused { refusal } => assert_eq!(refusal.code, code),
            other => panic!("{other:?}"),
        }
        assert_eq!(shop.misused(), [AllowanceMisuse::PaymentUnusable]);
    }
    assert_eq!(shop.overview().await.exposure_minor, 10_000);
    // The third, whose turn it is, and the end of the chain.
    let third = Request::Sync {
        number: 1,
        request: payments[2].signed().to_vec(),
        sealed_card: payments[2].sealed_card().clone(),
        receipt: approved[2].signed.clone(),
    };
    let answer = within(client.send_raw(&frame::to_wire(&third))).await.unwrap();
    assert!(matches!(answer, Answer::Synced { .. }), "{answer:?}");
    within(client.return_unused(&kept)).await.unwrap();
    let overview = shop.overview().await;
    assert_eq!(
        overview.exposure_minor, 7_500,
        "500 real, 7 000 that nobody can send"
    );
    assert_eq!(overview.allowances[0].reserved.minor, 7_000, "and shown");
    let lifted = shop.port.ask(Ask::Operator {
        operator: "anna".into(),
        command: OperatorCommand::Lift(Some(identity.device_id())),
    });
    assert_eq!(
        within(lifted).await.unwrap(),
        Reply::Operator(OperatorReply::Done)
    );
    assert_eq!(shop.overview().await.exposure_minor, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowance_that_the_hub_does_not_know_does_not_hold_the_device_up() {
    let pem = pem();
    let shop = Shop::open_as(&pem).await;
    let (client, dir, identity) = shop.device().await;
    let kept = store(dir.path(), &client, &identity);
    within(client.ask_allowance(&kept)).await.unwrap();
    // The same hub, restored from a backup of before.
    let restored = Shop::open_as(&pem).await;
    let other = DeviceClient::new(identity.clone(), restored.hub.enrol(&identity).await, options()).unwrap();
    within(other.return_unused(&kept)).await.unwrap();
    assert_eq!(kept.held(), None);
    let next = within(other.ask_allowance(&kept)).await.unwrap();
    assert_eq!(next.number, 2, "above the one that it had");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_of_another_key_or_for_another_payment_is_refused_and_set_aside() {
    let shop = Shop::open().await;
    let (client, dir, identity) = shop.device().await;
    let kept = store(dir.path(), &client, &identity);
    within(client.ask_allowance(&kept)).await.unwrap();
    let payment = client.next_payment(sale_of(4_000, "a"));
    let approval = kept.approve_offline(&payment).unwrap();
    let send = async |number, receipt: Vec<u8>| {
        let frame = Request::Sync {
            number,
            request: payment.signed().to_vec(),
            sealed_card: payment.sealed_card().clone(),
            receipt,
        };
        match within(client.send_raw(&frame::to_wire(&frame))).await.unwrap() {
            Answer::Refused { refusal } => refusal.code,
            other => panic!("{other:?}"),
        }
    };
    let payload = cbor::encode(&approval.receipt);
    let stranger = SigningKey::from_bytes(&[9; 32]);
    let forged = cose::sign(&stranger, ObjectType::DeviceReceipt, &payload);
    assert_eq!(send(1, forged).await, RefusalCode::SignatureUnknownKey);
    let other_kind = cose::sign(identity.signing_key(), ObjectType::AllowanceReturn, &payload);
    assert_eq!(send(1, other_kind).await, RefusalCode::SignatureBad);
    assert_eq!(
        send(2, approval.signed.clone()).await,
        RefusalCode::DeviceReceiptMismatch
    );
    assert_eq!(shop.overview().await.queued, 0);
    // Under this id the hub knows another payment.
    let mut other = payment.request().clone();
    other.amount = 1.into();
    let other = Request::Pay {
        request: identity.sign_request(&other),
        sealed_card: payment.sealed_card().clone(),
    };
    within(client.send_raw(&frame::to_wire(&other))).await.unwrap();
    let refused = within(client.sync_next(&kept)).await.unwrap_err();
    assert_eq!(refused.refusal_code(), Some(RefusalCode::PaymentIdConflict));
    assert_eq!(
        (kept.unsynced(), kept.refused().len()),
        (0, 1),
        "it holds up nothing behind it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_an_older_wire_version_has_no_allowances() {
    let shop = Shop::open().await;
    let (_, _, identity) = shop.device().await;
    let asked = frame::to_wire(&Request::Allowance { closed: None });
    // [7, {1: null}]
    let malformed = [&[0, 0, 0, 5][..], b"\x82\x07\xa1\x01\xf6"].concat();
    for alpn in [ALPN_1, ALPN_2] {
        let old = raw::connect(&shop.hub, Some(&identity), alpn).await.unwrap();
        for bytes in [&asked, &malformed] {
            assert_eq!(raw::ask(&old, bytes).await, Some(RefusalCode::UnknownFrame));
        }
    }
    assert_eq!(shop.overview().await.exposure_minor, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_6_a_devices_receipt_that_hides_a_card_number_is_refused_and_not_kept() {
    const NUMBER: &[u8; 16] = b"4929123456789015";
    let shop = Shop::open().await;
    let (client, dir, identity) = shop.device().await;
    let kept = store(dir.path(), &client, &identity);
    let allowance = within(client.ask_allowance(&kept)).await.unwrap();
    let payment = client.next_payment(sale_of(1_000, "a"));
    let good = DeviceReceipt {
        number: allowance.number,
        index: 1,
        previous: allowance.digest(),
        payment_id: payment.payment_id(),
        request_digest: Digest::of(payment.signed()),
        amount_minor: 1_000,
        total_minor: 1_000,
        device_time_ms: clock::wall_ms(),
    };
    let mut digest = [7; 32];
    digest[..16].copy_from_slice(NUMBER);
    let hiding = [
        DeviceReceipt {
            payment_id: PaymentId(*NUMBER),
            ..good
        },
        DeviceReceipt {
            previous: Digest(digest),
            ..good
        },
        DeviceReceipt {
            request_digest: Digest(digest),
            ..good
        },
    ];
    let code = async |frame: &Request| match within(client.send_raw(&frame::to_wire(frame))).await.unwrap() {
        Answer::Refused { refusal } => refusal.code,
        other => panic!("{other:?}"),
    };
    let sign = |object, payload: &[u8]| cose::sign(identity.signing_key(), object, payload);
    for receipt in hiding {
        let frame = Request::Sync {
            number: allowance.number,
            request: payment.signed().to_vec(),
            sealed_card: payment.sealed_card().clone(),
            receipt: sign(ObjectType::DeviceReceipt, &cbor::encode(&receipt)),
        };
        assert_eq!(code(&frame).await, RefusalCode::ClearCardNumber);
    }
    let statement = AllowanceReturn {
        number: allowance.number,
        count: 0,
        total_minor: 0,
        head: Digest(digest),
    };
    let statement = sign(ObjectType::AllowanceReturn, &cbor::encode(&statement));
    assert_eq!(
        code(&Request::Return { statement }).await,
        RefusalCode::ClearCardNumber
    );
    let written = shop.written.lock().unwrap().clone();
    assert!(
        written.windows(32).any(|part| part == identity.device_id().0),
        "entries are looked at in clear"
    );
    assert!(!written.windows(NUMBER.len()).any(|part| part == NUMBER));
    assert_eq!(shop.misused(), []);
}
