//! The shop of the vectors: its keys and what happens in it. Everything is
//! fixed, so that everybody makes the same bytes.

use ed25519_dalek::SigningKey;
use hub_protocol::entry::{
    ClockQuality, DecisionRecord, EntryTime, Finding, Lifted, ParkReason, StorageLevel, TraceRule,
    VoidEffect, WanReason, WanState,
};
use hub_protocol::frame::HubInfo;
use hub_protocol::*;

/// The device's Ed25519 seed is 32 bytes of 0x01; the hub's 0x02; that of
/// head office's policy key 0x03; that of somebody unknown 0x04; a supervisor's
/// 0x05; a verifier's of devices 0x06.
pub(crate) fn device_key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

pub(crate) fn verifier_key() -> SigningKey {
    SigningKey::from_bytes(&[6; 32])
}

pub(crate) fn device_description() -> DeviceDescription {
    DeviceDescription {
        device: device_id(),
        device_time_ms: 1_774_688_700_000,
        vendor: "Acme".into(),
        model: "Tap 3".into(),
        os: "Android".into(),
        os_version: "14.1".parse().unwrap(),
        app_version: "2.4.10".parse().unwrap(),
        certification: Certification::Mpoc,
    }
}

pub(crate) fn signed_description() -> Vec<u8> {
    cose::sign(
        &device_key(),
        cose::ObjectType::DeviceDescription,
        &cbor::encode(&device_description()),
    )
}

pub(crate) fn attestation_result() -> AttestationResult {
    AttestationResult::new(device_id(), 1_774_688_000, AttestationStatus::Affirming)
}

pub(crate) fn signed_attestation() -> Vec<u8> {
    signed_word(&attestation_result())
}

/// On the device after it has changed its keys.
pub(crate) fn later_attestation() -> AttestationResult {
    let key = KeyId::of_key(next_device_key().verifying_key().as_bytes());
    attestation_result().signing_with(key)
}

pub(crate) fn signed_word(word: &AttestationResult) -> Vec<u8> {
    cose::sign(&verifier_key(), word.object_type(), &cbor::encode(word))
}

pub(crate) fn supervisor_key() -> SigningKey {
    SigningKey::from_bytes(&[5; 32])
}

pub(crate) fn hub_key() -> SigningKey {
    SigningKey::from_bytes(&[2; 32])
}

/// The key that follows the hub's.
pub(crate) fn next_hub_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

pub(crate) fn hub_key_change() -> HubKeyChange {
    HubKeyChange {
        hub: hub_id(),
        number: 1,
        old_key: hub_key().verifying_key().to_bytes(),
        new_key: next_hub_key().verifying_key().to_bytes(),
        sequence: 1017,
        changed_ms: 1_774_688_731_000,
    }
}

pub(crate) fn signed_hub_key_change() -> SignedKeyChange {
    SignedKeyChange(hub_key_change().sign(&hub_key(), &next_hub_key()))
}

pub(crate) fn policy_key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

pub(crate) fn stranger_key() -> SigningKey {
    SigningKey::from_bytes(&[4; 32])
}

/// The TLS keys are the two simplest of P-256: private scalars 1 (hub) and
/// 2 (device).
pub(crate) const HUB_POINT: &str = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
                             4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
pub(crate) const DEVICE_POINT: &str = "7cf27b188d034f7e8a52380304b51ac3c08969e277f21b35a60b48fc47669978\
                                07775510db8ed040293d9ac69f7430dbba7dade63ce982299e04b79d227873d1";

/// The TLS key that follows the hub's: private scalar 3.
pub(crate) const NEXT_HUB_POINT: &str = "5ecbe4d1a6330a44c8f7ef951d4bf165e6c6b721efada985fb41661bc6e7fd6c\
                                         8734640c4998ff7e374b06ce1a64a2ecd82ab036384fb83d9a79b127a27d5032";

pub(crate) fn next_tls_key() -> Digest {
    Digest::of(&spki(NEXT_HUB_POINT))
}

/// While the hub's first TLS key and the next one overlap, after a change of
/// the signing key.
pub(crate) fn hub_tls_keys() -> HubTlsKeys {
    HubTlsKeys {
        hub: hub_id(),
        number: 1,
        keys: vec![next_tls_key(), Digest(hub_id().0)],
        sequence: 1020,
        changed_ms: 1_774_688_740_000,
    }
}

pub(crate) fn certificate_keys() -> CertificateKeys {
    CertificateKeys {
        changes: vec![signed_hub_key_change()],
        keys: hub_tls_keys().sign(&next_hub_key()),
    }
}

/// The keys that follow the device's: private scalar 4 for TLS.
pub(crate) const NEXT_DEVICE_POINT: &str = "e2534a3532d08fbba02dde659ee62bd0031fe2db785596ef509302446b030852\
                                            e0f1575a4c633cc719dfee5fda862d764efc96c3f30ee0055c42c23f184ed8c6";

pub(crate) fn next_device_key() -> SigningKey {
    SigningKey::from_bytes(&[8; 32])
}

pub(crate) fn device_key_change() -> DeviceKeyChange {
    DeviceKeyChange {
        hub: hub_id(),
        device: device_id(),
        number: 1,
        old_key: device_key().verifying_key().to_bytes(),
        new_key: next_device_key().verifying_key().to_bytes(),
        last_sequence: 42,
        new_tls_key: spki(NEXT_DEVICE_POINT).try_into().unwrap(),
    }
}

/// r and s by that TLS key over [`device_key_change`] as an
/// [`ObjectType::DeviceTlsKey`](cose::ObjectType), with the nonce of RFC 6979:
/// the libraries of this curve that are at hand here draw theirs.
const NEXT_DEVICE_PROOF: &str = "0ebae24313d0cdef0d64868079913da455784a52b5bf89f0cff87a68be3bc93c\
                                 ba61e3a5844e00ead91d1486ca311de4a785cad3ec660829b68234c67c180a5c";

/// The same by the TLS key that the device has now.
pub(crate) const PROOF_BY_PRESENT_KEY: &str = "121e995c4bbfc16075fa9f5135151fce9bf3613f76ffd425eb1018bdc8bb70728ed30454938efdeadb30852182417368\
     b514b344493617d77ea53cc2353d26d3";

/// The same by the next one over a change of number 2.
pub(crate) const PROOF_OF_ANOTHER_CHANGE: &str = "2635bdea4708b6193c80fdba557d0abe8d893738f180a76c42c02d5fced0b563f91a56d949743058be1fe402718cc596\
     242ea44b31e5f4c56717e08ba0b40acb";

/// [`device_key_change`] with this signature by the next TLS key.
pub(crate) fn key_change_by_tls(proof: &str) -> Vec<u8> {
    let spki = spki(NEXT_DEVICE_POINT);
    let proof: [u8; 64] = crate::files::unhex(proof).try_into().unwrap();
    let payload = cbor::encode(&device_key_change());
    let signer = |_: &[u8]| Ok::<_, std::convert::Infallible>(proof);
    cose::sign_p256(&spki, cose::ObjectType::DeviceTlsKey, &payload, signer).unwrap()
}

pub(crate) fn good_key_change_by_tls() -> Vec<u8> {
    key_change_by_tls(NEXT_DEVICE_PROOF)
}

/// Signed by both Ed25519 keys over what the new TLS key has signed.
pub(crate) fn change_over(by_tls: &[u8]) -> Vec<u8> {
    let object = cose::ObjectType::DeviceKeyChange2;
    let by_new = cose::sign(&next_device_key(), object, by_tls);
    cose::sign(&device_key(), object, &by_new)
}

pub(crate) fn signed_device_key_change() -> Vec<u8> {
    change_over(&good_key_change_by_tls())
}

/// The same change as wire version 5 had it, which stands in ledgers: with the
/// hash of the TLS key, not signed by that.
#[derive(minicbor::Encode, minicbor::Decode)]
#[cbor(map)]
pub(crate) struct FormerKeyChange {
    #[n(1)]
    hub: HubId,
    #[n(2)]
    device: DeviceId,
    #[n(3)]
    number: u32,
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    old_key: [u8; 32],
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    new_key: [u8; 32],
    #[n(6)]
    new_tls: Digest,
    #[n(7)]
    last_sequence: u64,
}

pub(crate) fn former_key_change() -> Vec<u8> {
    let change = device_key_change();
    cbor::encode(&FormerKeyChange {
        hub: change.hub,
        device: change.device,
        number: change.number,
        old_key: change.old_key,
        new_key: change.new_key,
        new_tls: change.new_tls(),
        last_sequence: change.last_sequence,
    })
}

fn signed_former_key_change() -> Vec<u8> {
    let object = cose::ObjectType::DeviceKeyChange;
    let by_new = cose::sign(&next_device_key(), object, &former_key_change());
    cose::sign(&device_key(), object, &by_new)
}

/// The code of a hub whose TLS key has changed.
pub(crate) fn later_enrolment_code() -> EnrolmentCode {
    EnrolmentCode {
        tls_key: Some(next_tls_key()),
        ..enrolment_code()
    }
}

/// SubjectPublicKeyInfo (DER) of a P-256 key.
pub(crate) fn spki(point: &str) -> Vec<u8> {
    let mut der = crate::files::unhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004");
    der.extend_from_slice(&crate::files::unhex(point));
    der
}

pub(crate) fn device_id() -> DeviceId {
    DeviceId::of_spki(&spki(DEVICE_POINT))
}

pub(crate) fn hub_id() -> HubId {
    HubId::of_spki(&spki(HUB_POINT))
}

pub(crate) fn payment_id() -> PaymentId {
    "0192f3a0-1111-7000-8000-00000000cafe".parse().unwrap()
}

pub(crate) fn sealed_card() -> SealedCard {
    SealedCard {
        salt: [0x5a; 16],
        blob: b"sealed to the gateway's key".to_vec(),
    }
}

/// A card in its envelope, sealed by HPKE for [`payment_full`] at the merchant
/// `shop-001`: the example in the document, which hub-sdk makes again.
pub(crate) fn enveloped_card() -> SealedCard {
    SealedCard {
        salt: [0x5a; 16],
        blob: crate::files::unhex(
            "a30101025077b54bd53e9da7c23a8beb0f4e87a033035844402802aae25501861e6da002ef9f3e10\
             5b9296c3e3c90c92e600ec9a0ff52657ef9f8ba1787e8fa7994a5a8cc26ff996265d1859393b1093\
             44329d1cfc67d9351cbbf1f2",
        ),
    }
}

/// An envelope with a key id of this length, and nothing in it that opens.
pub(crate) fn envelope(scheme: SealScheme, key_id: usize) -> Vec<u8> {
    CardBlob {
        scheme,
        key_id: vec![0x77; key_id],
        ciphertext: vec![0xcc; 80],
    }
    .to_blob()
}

pub(crate) fn payment_full() -> PaymentRequest {
    PaymentRequest {
        payment_id: payment_id(),
        device_sequence: 42,
        amount: 2590.into(),
        currency: Currency::EUR,
        order_id: "190328106044-104".into(),
        card: CardFacts {
            token: "tok_9f86d081884c7d65".into(),
            scheme: CardScheme::Cb,
            funding: Funding::Debit,
            issuer_country: Some("FR".into()),
            bin: Some("49700000".into()),
            last4: Some("1234".into()),
        },
        entry_mode: EntryMode::Contactless,
        verification: Verification::None,
        cryptogram: Cryptogram::AsksOnline,
        sealed_card_digest: sealed_card().digest(),
        device_time_ms: 1_774_688_730_000,
        terms: None,
    }
}

/// Only what must be there.
pub(crate) fn payment_least() -> PaymentRequest {
    PaymentRequest {
        device_sequence: 1,
        amount: 1.into(),
        order_id: "1".into(),
        card: CardFacts {
            token: "t".into(),
            scheme: CardScheme::Other,
            funding: Funding::Unknown,
            issuer_country: None,
            bin: None,
            last4: None,
        },
        entry_mode: EntryMode::Chip,
        verification: Verification::OfflinePin,
        cryptogram: Cryptogram::CardApproved,
        device_time_ms: 0,
        ..payment_full()
    }
}

/// Everything that wire version 3 states.
pub(crate) fn payment_with_terms() -> PaymentRequest {
    PaymentRequest {
        terms: Some(Box::new(Terms {
            transaction_type: TransactionType::CashBack,
            cash_back_minor: Some(1000),
            staff: Some("anna".into()),
            training: false,
            card_expiry: Some(CardExpiry(2711)),
            supervisor: Some(cose::sign(
                &supervisor_key(),
                cose::ObjectType::Override,
                &cbor::encode(&supervisors_word()),
            )),
        })),
        ..payment_full()
    }
}

pub(crate) fn supervisors_word() -> Override {
    Override {
        payment_id: payment_id(),
        device: device_id(),
        amount_minor: 2590,
        currency: Currency::EUR,
        time_ms: 1_774_688_729_000,
    }
}

pub(crate) fn signed_payment() -> Vec<u8> {
    cose::sign(
        &device_key(),
        cose::ObjectType::PaymentRequest,
        &cbor::encode(&payment_full()),
    )
}

pub(crate) fn void_request() -> VoidRequest {
    VoidRequest {
        payment_id: payment_id(),
        device_sequence: 43,
        device_time_ms: 1_774_688_760_000,
    }
}

pub(crate) fn signed_void() -> Vec<u8> {
    cose::sign(
        &device_key(),
        cose::ObjectType::VoidRequest,
        &cbor::encode(&void_request()),
    )
}

pub(crate) fn time(offset_ms: u64) -> EntryTime {
    EntryTime {
        wall_ms: 1_774_688_731_000 + offset_ms,
        monotonic_ms: 86_400_000 + offset_ms,
        boot: [0xb0; 16],
        quality: ClockQuality::Synchronised,
    }
}

pub(crate) fn gateway_yes() -> GatewayResult {
    GatewayResult {
        approved: true,
        response_code: "00".into(),
        authorisation_code: Some("A1B2C3".into()),
        reference: Some("gw-000017".into()),
    }
}

fn advice(code: &str) -> MerchantAdvice {
    code.parse().unwrap()
}

pub(crate) fn gateway_no() -> GatewayResult {
    GatewayResult {
        approved: false,
        response_code: "51".into(),
        authorisation_code: None,
        reference: None,
    }
}

fn record(decision: Decision, reason: Reason) -> DecisionRecord {
    DecisionRecord {
        decision,
        reason,
        fallback: None,
        submission: None,
        gateway: None,
        reversal_queued: false,
        percent: None,
        score: None,
        lifted: None,
        allowance: None,
        moved_percent: None,
    }
}

/// One record for each decision, and the cases in between.
pub(crate) fn decisions() -> Vec<(&'static str, DecisionRecord)> {
    vec![
        (
            "approved-online",
            DecisionRecord {
                submission: Some(Submission::Online),
                gateway: Some(gateway_yes()),
                ..record(Decision::ApprovedOnline, Reason::None)
            },
        ),
        (
            "approved-offline-deferred",
            DecisionRecord {
                submission: Some(Submission::Deferred),
                ..record(Decision::ApprovedOffline, Reason::None)
            },
        ),
        (
            "approved-offline-advice",
            DecisionRecord {
                submission: Some(Submission::Advice),
                percent: Some(75),
                moved_percent: Some(100),
                ..record(Decision::ApprovedOffline, Reason::None)
            },
        ),
        (
            "approved-by-the-device",
            DecisionRecord {
                submission: Some(Submission::Deferred),
                allowance: Some(3),
                ..record(Decision::ApprovedOffline, Reason::None)
            },
        ),
        (
            "declined-by-the-gateway",
            DecisionRecord {
                gateway: Some(gateway_no()),
                ..record(Decision::Declined, Reason::GatewayDeclined)
            },
        ),
        (
            "declined-offline-after-silence",
            DecisionRecord {
                reversal_queued: true,
                ..record(Decision::Declined, Reason::CardCeiling)
            },
        ),
        (
            "approved-offline-by-a-supervisor",
            DecisionRecord {
                submission: Some(Submission::Deferred),
                lifted: Some(Lifted {
                    reason: Reason::CardConsecutiveLowerLimit,
                    supervisor: KeyId::of_key(supervisor_key().verifying_key().as_bytes()),
                }),
                ..record(Decision::ApprovedOffline, Reason::None)
            },
        ),
        (
            "declined-by-the-score",
            DecisionRecord {
                score: Some(Box::new(Score {
                    points: 80,
                    parts: [(ScoreFactor::NewCard, 30), (ScoreFactor::NoChip, 50)]
                        .map(|(factor, points)| ScorePart { factor, points })
                        .to_vec(),
                })),
                ..record(Decision::Declined, Reason::ScoreTooHigh)
            },
        ),
        (
            "fallback",
            DecisionRecord {
                fallback: Some(FallbackAction::InsertCardEnterPin),
                ..record(Decision::Fallback, Reason::VerificationRequired)
            },
        ),
    ]
}

pub(crate) fn receipts() -> Vec<(&'static str, Receipt)> {
    let receipt = |record: DecisionRecord| Receipt {
        hub: hub_id(),
        device: device_id(),
        payment_id: payment_id(),
        request_digest: Digest::of(&signed_payment()),
        amount_minor: 2590,
        currency: Currency::EUR,
        decision: record.decision,
        reason: record.reason,
        fallback: record.fallback,
        submission: record.submission,
        gateway: record.gateway,
        sequence: 1017,
        entry_digest: Digest([0xed; 32]),
        time: time(0),
        policy_version: 7,
        transaction_type: (record.lifted.is_some() || record.score.is_some())
            .then_some(TransactionType::CashBack),
        score: record.score,
    };
    decisions()
        .into_iter()
        .map(|(name, record)| (name, receipt(record)))
        .collect()
}

/// The commit of entries 1014 to 1020, with these receipts.
pub(crate) fn ledger_commit(receipts: Option<ReceiptsRoot>) -> LedgerCommit {
    LedgerCommit {
        hub: hub_id(),
        first: 1014,
        last: 1020,
        last_digest: Digest([0xee; 32]),
        receipts,
    }
}

fn ledger_totals() -> LedgerTotals {
    let total = |count, minor| Total { count, minor };
    LedgerTotals {
        currency: Currency::EUR,
        approved_online: total(310, 912_345),
        approved_offline: total(31, 60_210),
        settled: total(29, 55_010),
        declined_at_replay: total(2, 5_200),
        voided: total(1, 1_990),
        refunded: Some(total(3, 7_450)),
        refunds_voided: Some(total(0, 0)),
    }
}

/// The closure of a day.
fn closure() -> Closure {
    let totals = ledger_totals();
    Closure {
        period: Period::Day,
        name: "2026-03-28".into(),
        number: 2,
        first: 1018,
        last: 2040,
        totals: vec![totals],
        running: LedgerTotals::sum(&[totals], &[totals]),
        since: 1,
    }
}

/// The archive of entries 1018 to 2040.
pub(crate) fn archive_manifest() -> ArchiveManifest {
    let totals = ledger_totals();
    // Counted by a hub that did not tell refunds apart.
    let earlier = LedgerTotals {
        approved_online: Total {
            count: 2,
            minor: 5_000,
        },
        ..LedgerTotals::none_with_refunds_as_sales("CHF".parse().unwrap())
    };
    ArchiveManifest {
        hub: hub_id(),
        number: 2,
        format: 2,
        first: 1018,
        last: 2040,
        before: Digest([0xed; 32]),
        last_digest: Digest([0xef; 32]),
        from_ms: time(0).wall_ms,
        to_ms: time(86_400_000).wall_ms,
        segment_digest: Digest::of(b"segment"),
        archive_digest: Digest::of(b"archive"),
        ids_digest: Digest::of(b"ids"),
        totals: vec![totals],
        running: LedgerTotals::sum(&[earlier, totals], &[totals]),
        previous: Digest::of(b"manifest of archive 1"),
    }
}

/// The first root comes into force: as installed, or by a person.
fn root_applied(operator: Option<&str>) -> Event {
    let root = crate::roots::signed_root(crate::roots::first_root(), &[1, 2]);
    Event::RootApplied {
        version: 1,
        digest: SignedRoot::parse(&root).unwrap().digest(),
        root,
        operator: operator.map(str::to_owned),
    }
}

pub(crate) fn base_policy() -> BasePolicy {
    BasePolicy {
        sequence: 2,
        policy: cose::sign(&policy_key(), cose::ObjectType::Policy, b"format = 1\n"),
    }
}

pub(crate) fn ledger_base(policy: Option<BasePolicy>) -> LedgerBase {
    LedgerBase {
        hub: hub_id(),
        archive: 2,
        sequence: 3011,
        digest: Digest([0xf0; 32]),
        file: 3,
        file_digest: Digest::of(b"records"),
        records: 1204,
        records_format: policy.as_ref().map(|_| 5),
        root: policy.as_ref().map(|_| BaseRoot {
            sequence: 1,
            root: crate::roots::signed_root(crate::roots::first_root(), &[1, 2]),
        }),
        policy,
    }
}

/// So many receipts of one group, from entry 1014 on; the fourth is the second
/// of [`receipts`].
pub(crate) fn group(receipts: u64) -> ReceiptGroup {
    let one = |sequence: u64| {
        let receipt = if sequence == 1017 {
            self::receipts()[1].1.clone()
        } else {
            Receipt {
                sequence,
                payment_id: PaymentId([sequence as u8; 16]),
                ..self::receipts()[1].1.clone()
            }
        };
        (sequence, cbor::encode(&receipt))
    };
    ReceiptGroup::new((1014..1014 + receipts).map(one).collect()).unwrap()
}

/// The second of [`receipts`] as it goes over the wire: one of five.
pub(crate) fn committed_receipt() -> CommittedReceipt {
    let group = group(5);
    let signed = ledger_commit(Some(group.root())).sign(&hub_key());
    group.committed(signed).receipt(1017).unwrap()
}

/// With every field; the least has no ceiling for taps.
pub(crate) fn allowance() -> Allowance {
    Allowance {
        hub: hub_id(),
        device: device_id(),
        number: 3,
        amount_minor: 20_000,
        count: 20,
        transaction_ceiling_minor: 5_000,
        card_ceiling_minor: 10_000,
        currency: Currency::EUR,
        schemes: vec![CardScheme::Cb, CardScheme::Visa, CardScheme::Mastercard],
        funding: vec![Funding::Credit, Funding::Debit],
        entry_modes: vec![EntryMode::Chip, EntryMode::Contactless],
        unverified_tap_ceiling_minor: Some(5_000),
        issued_ms: 1_774_688_700_000,
        expires_ms: 1_774_692_300_000,
        policy_version: 7,
    }
}

/// The first receipt under [`allowance`].
pub(crate) fn device_receipt() -> DeviceReceipt {
    let at_ms = payment_full().device_time_ms;
    AllowanceChain::new(&allowance()).receipt(3, &payment_full(), &signed_payment(), at_ms)
}

pub(crate) fn signed_device_receipt() -> Vec<u8> {
    cose::sign(
        &device_key(),
        cose::ObjectType::DeviceReceipt,
        &cbor::encode(&device_receipt()),
    )
}

/// Behind the one receipt.
pub(crate) fn allowance_chain() -> AllowanceChain {
    AllowanceChain::new(&allowance()).after(&device_receipt())
}

pub(crate) fn allowance_return() -> AllowanceReturn {
    AllowanceReturn::new(3, &allowance_chain())
}

pub(crate) fn signed_return() -> Vec<u8> {
    cose::sign(
        &device_key(),
        cose::ObjectType::AllowanceReturn,
        &cbor::encode(&allowance_return()),
    )
}

/// One status for each state.
pub(crate) fn statuses() -> Vec<PaymentStatus> {
    let gateway = |state| match state {
        PaymentState::Settled | PaymentState::Reversed => Some(gateway_yes()),
        PaymentState::SettledDeclined => Some(gateway_no()),
        _ => None,
    };
    PaymentState::ALL
        .iter()
        .map(|state| PaymentStatus {
            hub: hub_id(),
            payment_id: payment_id(),
            state: *state,
            gateway: gateway(*state),
            sequence: 1018,
        })
        .collect()
}

pub(crate) fn hub_info() -> HubInfo {
    HubInfo {
        hub: hub_id(),
        wire_version: WIRE_VERSION,
        store: "Épicerie du Port".into(),
        time_ms: 1_774_688_731_000,
        policy_version: 7,
        wan: WanState::Offline,
    }
}

pub(crate) fn token() -> [u8; 16] {
    core::array::from_fn(|i| 0xa0 + i as u8)
}

pub(crate) fn enrolment_request() -> EnrolmentRequest {
    EnrolmentRequest {
        token: token(),
        hub: hub_id(),
        device: device_id(),
        signing_key: device_key().verifying_key().to_bytes(),
        class: DeviceClass::Softpos,
        name: "Caisse 3 – entrée".into(),
        model: "Acme Tap 2".into(),
    }
}

pub(crate) fn registration() -> Registration {
    Registration {
        device: device_id(),
        signing_key: device_key().verifying_key().to_bytes(),
        class: DeviceClass::Softpos,
        name: "Caisse 3 – entrée".into(),
        model: "Acme Tap 2".into(),
        hub: hub_id(),
        hub_signing_key: hub_key().verifying_key().to_bytes(),
        enrolled_ms: 1_774_688_700_000,
    }
}

pub(crate) fn enrolment_code() -> EnrolmentCode {
    EnrolmentCode {
        hub: hub_id(),
        token: token(),
        enrol_addresses: vec!["192.0.2.10:7412".into(), "[2001:db8::10]:7412".into()],
        addresses: vec!["192.0.2.10:7411".into()],
        tls_key: None,
    }
}

/// Every event, in an order in which it could have happened.
/// What stands for a token in the ledger.
fn fleet_token() -> Digest {
    Digest::of(&[0x46; 16])
}

pub(crate) fn device_list() -> DeviceList {
    DeviceList {
        tenant: "acme".into(),
        stores: vec!["store-0042".into(), "store-0043".into()],
        version: 3,
        not_before_ms: 1_774_688_700_000,
        expires_ms: 1_774_688_700_000 + 30 * 86_400_000,
        devices: vec![ListedDevice {
            device: device_id(),
            signing_key: device_key().verifying_key().to_bytes(),
            class: DeviceClass::Mpos,
            name: "Caisse 3".into(),
            model: "Example M1".into(),
        }],
        revoked: vec![DeviceId([0x22; 32])],
    }
}

pub(crate) fn signed_device_list() -> Vec<u8> {
    cose::sign(
        &policy_key(),
        cose::ObjectType::DeviceList,
        &cbor::encode(&device_list()),
    )
}

pub(crate) fn events() -> Vec<Event> {
    let operator = || "marie".to_owned();
    let payment_id = payment_id();
    let device = device_id();
    let policy = cose::sign(&policy_key(), cose::ObjectType::Policy, b"format = 1\n");
    let mut events = vec![
        Event::HubStarted {
            version: "0.1.0".into(),
            torn_bytes: 0,
            traces: None,
            away: None,
            closes: None,
        },
        Event::HubStarted {
            version: "0.1.0".into(),
            torn_bytes: 0,
            traces: Some(TraceRule::PaymentAndDevice),
            away: Some(true),
            closes: Some(true),
        },
        Event::PolicyActivated {
            version: 7,
            key: KeyId::of_key(policy_key().verifying_key().as_bytes()),
            policy,
        },
        root_applied(None),
        root_applied(Some("marie")),
        Event::DeviceEnrolled {
            registration: registration(),
        },
        Event::WanChanged {
            from: WanState::Online,
            to: WanState::Offline,
            reason: WanReason::ManyFailed,
        },
        Event::PaymentOpened {
            payment_id,
            device,
            request: signed_payment(),
        },
    ];
    for (place, (_, record)) in decisions().into_iter().enumerate() {
        let request = (place > 0).then(signed_payment);
        events.push(Event::PaymentDecided {
            payment_id,
            device,
            request,
            record,
        });
    }
    events.extend([
        Event::PaymentSettled {
            payment_id,
            gateway: gateway_yes(),
            advice: None,
        },
        Event::PaymentVoided {
            payment_id,
            request: signed_void(),
            effect: VoidEffect::ReversalQueued,
        },
        Event::PaymentReversed {
            payment_id,
            gateway: gateway_yes(),
        },
        Event::PaymentParked {
            payment_id,
            reason: ParkReason::GatewayConflict,
            detail: "422: used with other content".into(),
        },
        Event::PaymentReleased {
            payment_id,
            operator: operator(),
            finding: None,
        },
        Event::PaymentReleased {
            payment_id,
            operator: operator(),
            finding: Some(Finding::NotThere),
        },
        Event::PaymentClosed {
            payment_id,
            finding: Finding::Taken,
            note: "desk 2026-11-27, 00123".into(),
            operator: operator(),
        },
        Event::PeriodClosed { closure: closure() },
        Event::PaymentRetryScheduled {
            payment_id,
            gateway: gateway_no(),
            presentation: 1,
            due_ms: 1_774_692_331_000,
            advice: None,
        },
        Event::PaymentRetryDue { payment_id },
        Event::DeviceDescribed {
            device,
            description: signed_description(),
            attestation: Some(signed_attestation()),
        },
        Event::DeviceDescribed {
            device,
            description: signed_description(),
            attestation: None,
        },
        Event::DeviceDescribed {
            device,
            description: signed_description(),
            attestation: Some(signed_word(&later_attestation())),
        },
        Event::DeviceBlocked {
            device,
            blocked: true,
            operator: operator(),
        },
        Event::ClockChanged {
            quality: ClockQuality::Suspect,
            jump_ms: -120_001,
        },
        Event::OperatorActed {
            operator: operator(),
            action: "queue drain".into(),
        },
        Event::StorageChanged {
            level: StorageLevel::Full,
            free_bytes: 4096,
        },
        Event::AnomalyFound {
            device: device_id(),
            shown_by: Some(payment_id),
            kind: AnomalyKind::CardTesting,
            points: 40,
        },
        Event::AnomalyFound {
            device: device_id(),
            shown_by: None,
            kind: AnomalyKind::BadSignatures,
            points: 20,
        },
        Event::AnomalyFound {
            device: device_id(),
            shown_by: Some(payment_id),
            kind: AnomalyKind::Refunds,
            points: 40,
        },
        Event::RestrictionChanged {
            device: Some(device_id()),
            restriction: Restriction::Stopped,
            cause: RestrictionCause::Anomalies,
            operator: None,
        },
        Event::RestrictionChanged {
            device: None,
            restriction: Restriction::None,
            cause: RestrictionCause::Operator,
            operator: Some(operator()),
        },
        Event::AllowanceGiven {
            allowance: allowance(),
        },
        Event::AllowanceSpent {
            device,
            receipt: signed_device_receipt(),
            card: [0x3c; 16],
        },
        Event::AllowanceReturned {
            device,
            number: 3,
            statement: Some(signed_return()),
            operator: None,
        },
        Event::AllowanceReturned {
            device,
            number: 4,
            statement: None,
            operator: Some(operator()),
        },
        Event::AllowanceMisused {
            device,
            number: 3,
            kind: AllowanceMisuse::Reused,
            evidence: signed_device_receipt(),
        },
        Event::AllowancePaymentRefused {
            device,
            receipt: signed_device_receipt(),
            refusal: RefusalCode::SealedCardSize,
        },
        Event::AllowanceForked {
            device,
            number: 3,
            amount_minor: 27_410,
            count: 31,
        },
        Event::FleetTokenMade {
            token: fleet_token(),
            class: DeviceClass::Softpos,
            most: 40,
            expires_ms: 1_774_688_700_000 + 86_400_000,
            operator: operator(),
        },
        Event::FleetTokenWithdrawn {
            token: fleet_token(),
            operator: operator(),
        },
        Event::FleetDeviceEnrolled {
            registration: registration(),
            token: fleet_token(),
        },
        Event::DeviceApproved {
            device,
            operator: Some(operator()),
            list: None,
        },
        Event::DeviceApproved {
            device,
            operator: None,
            list: Some(3),
        },
        Event::DeviceListTaken {
            version: 3,
            key: KeyId::of_key(policy_key().verifying_key().as_bytes()),
            digest: Digest::of(&signed_device_list()),
            list: signed_device_list(),
            operator: operator(),
        },
        Event::DeviceListed {
            registration: registration(),
            list: 3,
        },
        Event::DeviceShutOut {
            device,
            list: 4,
            revoked: false,
        },
        Event::DeviceReplaced {
            registration: registration(),
            replaces: DeviceId([0x22; 32]),
            lost: true,
            operator: operator(),
        },
        Event::DeviceInTwoPlaces { device, returns: 3 },
        Event::CardNumbersSent { device, count: 3 },
        Event::SegmentArchived {
            number: 1,
            last: 12,
            digest: Digest::of(b"archive"),
        },
        Event::ArchiveExported {
            number: 1,
            digest: Digest::of(b"archive"),
            operator: operator(),
        },
        Event::ArchiveRemoved {
            number: 1,
            digest: Digest::of(b"archive"),
        },
        Event::DeviceKeysChanged {
            device,
            number: 1,
            signing_key: next_device_key().verifying_key().to_bytes(),
            tls_key: device_key_change().new_tls(),
            last_sequence: 42,
            statement: signed_device_key_change(),
        },
        Event::DeviceKeysSettled { device, number: 1 },
        Event::DeviceOldKeysUsed { device },
        Event::DeviceKeysChanged {
            device,
            number: 1,
            signing_key: next_device_key().verifying_key().to_bytes(),
            tls_key: device_key_change().new_tls(),
            last_sequence: 42,
            statement: signed_former_key_change(),
        },
        Event::HubTlsKeyAdded {
            number: 1,
            key: next_tls_key(),
            beside: Digest(hub_id().0),
            operator: operator(),
        },
        Event::HubTlsKeyDropped {
            number: 2,
            key: next_tls_key(),
            dropped: Digest(hub_id().0),
            operator: operator(),
        },
        Event::HubStopped,
    ]);
    events.push(Event::VaultKeyChanged {
        key: [0x22; 8],
        old_key: [0x11; 8],
        operator: operator(),
    });
    events.extend([
        Event::RecoveryKeyChanged {
            key: Some([0x33; 8]),
            old_key: None,
        },
        Event::StoreRecovered {
            vault_key: [0x44; 8],
            recovery_key: [0x33; 8],
            operator: operator(),
        },
        Event::RecoveryKeyChanged {
            key: None,
            old_key: Some([0x33; 8]),
        },
    ]);
    events.extend([
        Event::PaymentRetryScheduled {
            payment_id,
            gateway: gateway_no(),
            presentation: 2,
            due_ms: 1_774_692_331_000,
            advice: Some(advice("24")),
        },
        Event::PaymentSettled {
            payment_id,
            gateway: gateway_no(),
            advice: Some(advice("03")),
        },
    ]);
    // Behind it another key would sign.
    let change = HubKeyChange {
        sequence: events.len() as u64 + 1,
        ..hub_key_change()
    };
    events.push(Event::HubKeyChanged {
        statement: SignedKeyChange(change.sign(&hub_key(), &next_hub_key())),
        operator: operator(),
    });
    events
}
