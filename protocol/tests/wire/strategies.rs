//! Values of every message, any that the types can hold.

use hub_protocol::entry::{
    ClockQuality, DecisionRecord, EntryTime, Finding, Lifted, ParkReason, StorageLevel, TraceRule,
    VoidEffect, WanReason, WanState,
};
use hub_protocol::frame::HubInfo;
use hub_protocol::*;
use proptest::option::of;
use proptest::prelude::*;

fn one_of<T: Copy + core::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    proptest::sample::select(all)
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..300)
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn device() -> impl Strategy<Value = DeviceId> {
    any::<[u8; 32]>().prop_map(DeviceId)
}

fn hub() -> impl Strategy<Value = HubId> {
    any::<[u8; 32]>().prop_map(HubId)
}

pub(crate) fn payment_id() -> impl Strategy<Value = PaymentId> {
    any::<[u8; 16]>().prop_map(PaymentId)
}

fn currency() -> impl Strategy<Value = Currency> {
    "[A-Z]{3}".prop_map(|text| text.parse().unwrap())
}

fn card_facts() -> impl Strategy<Value = CardFacts> {
    let facts = (
        any::<String>(),
        one_of(CardScheme::ALL),
        one_of(Funding::ALL),
        of(any::<String>()),
        of(any::<String>()),
        of(any::<String>()),
    );
    facts.prop_map(|(token, scheme, funding, issuer_country, bin, last4)| CardFacts {
        token,
        scheme,
        funding,
        issuer_country,
        bin,
        last4,
    })
}

fn amount() -> impl Strategy<Value = minicbor::data::Int> {
    let all = -(1i128 << 64)..1i128 << 64;
    prop_oneof![all, -2i128..2_000, Just(0)].prop_map(|value| value.try_into().unwrap())
}

pub(crate) fn payment_request() -> impl Strategy<Value = PaymentRequest> {
    let who = (
        payment_id(),
        any::<u64>(),
        amount(),
        currency(),
        any::<String>(),
        card_facts(),
    );
    let how = (
        one_of(EntryMode::ALL),
        one_of(Verification::ALL),
        one_of(Cryptogram::ALL),
        digest(),
        any::<u64>(),
        of(terms()),
    );
    (who, how).prop_map(|(who, how)| PaymentRequest {
        payment_id: who.0,
        device_sequence: who.1,
        amount: who.2,
        currency: who.3,
        order_id: who.4,
        card: who.5,
        entry_mode: how.0,
        verification: how.1,
        cryptogram: how.2,
        sealed_card_digest: how.3,
        device_time_ms: how.4,
        terms: how.5.map(Box::new),
    })
}

fn terms() -> impl Strategy<Value = Terms> {
    let all = (
        one_of(TransactionType::ALL),
        of(any::<u64>()),
        of(any::<String>()),
        any::<bool>(),
        of(any::<u16>().prop_map(CardExpiry)),
        of(bytes()),
    );
    all.prop_map(
        |(transaction_type, cash_back_minor, staff, training, card_expiry, supervisor)| Terms {
            transaction_type,
            cash_back_minor,
            staff,
            training,
            card_expiry,
            supervisor,
        },
    )
}

pub(crate) fn void_request() -> impl Strategy<Value = VoidRequest> {
    (payment_id(), any::<u64>(), any::<u64>()).prop_map(|(payment_id, device_sequence, device_time_ms)| {
        VoidRequest {
            payment_id,
            device_sequence,
            device_time_ms,
        }
    })
}

fn sealed_card() -> impl Strategy<Value = SealedCard> {
    (any::<[u8; 16]>(), bytes()).prop_map(|(salt, blob)| SealedCard { salt, blob })
}

fn time() -> impl Strategy<Value = EntryTime> {
    (
        any::<u64>(),
        any::<u64>(),
        any::<[u8; 16]>(),
        one_of(ClockQuality::ALL),
    )
        .prop_map(|(wall_ms, monotonic_ms, boot, quality)| EntryTime {
            wall_ms,
            monotonic_ms,
            boot,
            quality,
        })
}

fn gateway() -> impl Strategy<Value = GatewayResult> {
    (
        any::<bool>(),
        any::<String>(),
        of(any::<String>()),
        of(any::<String>()),
    )
        .prop_map(
            |(approved, response_code, authorisation_code, reference)| GatewayResult {
                approved,
                response_code,
                authorisation_code,
                reference,
            },
        )
}

fn record() -> impl Strategy<Value = DecisionRecord> {
    let record = (
        one_of(Decision::ALL),
        one_of(Reason::ALL),
        of(one_of(FallbackAction::ALL)),
        of(one_of(Submission::ALL)),
        of(gateway()),
        any::<bool>(),
        of(0..100_u8),
        of(score()),
        of(any::<u64>()),
        any::<bool>(),
        of(0..=100_u8),
    );
    record.prop_map(
        |(
            decision,
            reason,
            fallback,
            submission,
            gateway,
            reversal_queued,
            percent,
            score,
            allowance,
            lifted,
            moved_percent,
        )| {
            DecisionRecord {
                decision,
                reason,
                fallback,
                submission,
                gateway,
                reversal_queued,
                percent,
                score: score.map(Box::new),
                lifted: lifted.then_some(Lifted {
                    reason: Reason::CardConsecutiveLowerLimit,
                    supervisor: KeyId([7; 16]),
                }),
                allowance,
                moved_percent,
            }
        },
    )
}

fn score() -> impl Strategy<Value = Score> {
    let part = (one_of(ScoreFactor::ALL), any::<u16>());
    let parts = proptest::collection::vec(
        part.prop_map(|(factor, points)| ScorePart { factor, points }),
        0..8,
    );
    (any::<u16>(), parts).prop_map(|(points, parts)| Score { points, parts })
}

pub(crate) fn receipt() -> impl Strategy<Value = Receipt> {
    let what = (hub(), device(), payment_id(), digest(), any::<u64>(), currency());
    (what, record(), any::<u64>(), digest(), time(), any::<u64>()).prop_map(
        |(what, record, sequence, entry_digest, time, policy_version)| Receipt {
            hub: what.0,
            device: what.1,
            payment_id: what.2,
            request_digest: what.3,
            amount_minor: what.4,
            currency: what.5,
            decision: record.decision,
            reason: record.reason,
            fallback: record.fallback,
            submission: record.submission,
            gateway: record.gateway,
            sequence,
            entry_digest,
            time,
            policy_version,
            transaction_type: record.lifted.map(|_| TransactionType::Refund),
            score: record.score,
        },
    )
}

pub(crate) fn committed_receipt() -> impl Strategy<Value = CommittedReceipt> {
    let path = proptest::collection::vec(digest(), 0..20);
    (bytes(), any::<u32>(), path, bytes()).prop_map(|(receipt, index, path, commit)| CommittedReceipt {
        receipt,
        index,
        path,
        commit,
    })
}

pub(crate) fn ledger_commit() -> impl Strategy<Value = LedgerCommit> {
    let receipts = (any::<u32>(), digest()).prop_map(|(count, root)| ReceiptsRoot { count, root });
    (hub(), any::<u64>(), any::<u64>(), digest(), of(receipts)).prop_map(
        |(hub, first, last, last_digest, receipts)| LedgerCommit {
            hub,
            first,
            last,
            last_digest,
            receipts,
        },
    )
}

fn totals() -> impl Strategy<Value = Vec<LedgerTotals>> {
    let total = || (any::<u64>(), any::<u64>()).prop_map(|(count, minor)| Total { count, minor });
    let five = (total(), total(), total(), total(), total());
    let one = (currency(), five, of(total()), of(total())).prop_map(
        |(currency, five, refunded, refunds_voided)| LedgerTotals {
            currency,
            approved_online: five.0,
            approved_offline: five.1,
            settled: five.2,
            declined_at_replay: five.3,
            voided: five.4,
            refunded,
            refunds_voided,
        },
    );
    proptest::collection::vec(one, 0..3)
}

fn closure() -> impl Strategy<Value = Closure> {
    let places = (any::<u32>(), any::<[u64; 3]>());
    (one_of(Period::ALL), any::<String>(), places, totals(), totals()).prop_map(
        |(period, name, (number, [first, last, since]), totals, running)| Closure {
            period,
            name,
            number,
            first,
            last,
            totals,
            running,
            since,
        },
    )
}

pub(crate) fn archive_manifest() -> impl Strategy<Value = ArchiveManifest> {
    let place = (hub(), any::<u32>(), any::<u16>(), any::<[u64; 4]>());
    let digests = (digest(), digest(), digest(), digest(), digest(), digest());
    (place, digests, totals(), totals()).prop_map(
        |((hub, number, format, [first, last, from_ms, to_ms]), digests, totals, running)| ArchiveManifest {
            hub,
            number,
            format,
            first,
            last,
            before: digests.0,
            last_digest: digests.1,
            from_ms,
            to_ms,
            segment_digest: digests.2,
            archive_digest: digests.3,
            ids_digest: digests.4,
            totals,
            running,
            previous: digests.5,
        },
    )
}

pub(crate) fn ledger_base() -> impl Strategy<Value = LedgerBase> {
    let policy = (any::<u64>(), bytes()).prop_map(|(sequence, policy)| BasePolicy { sequence, policy });
    let root = (any::<u64>(), bytes()).prop_map(|(sequence, root)| BaseRoot { sequence, root });
    let numbers = (any::<u32>(), any::<u64>(), any::<u32>(), any::<u64>());
    (hub(), numbers, digest(), digest(), of(policy), of(root)).prop_map(
        |(hub, (archive, sequence, file, records), digest, file_digest, policy, root)| LedgerBase {
            hub,
            archive,
            sequence,
            digest,
            file,
            file_digest,
            records,
            policy,
            records_format: Some(5),
            root,
        },
    )
}

pub(crate) fn status() -> impl Strategy<Value = PaymentStatus> {
    (
        hub(),
        payment_id(),
        one_of(PaymentState::ALL),
        of(gateway()),
        any::<u64>(),
    )
        .prop_map(|(hub, payment_id, state, gateway, sequence)| PaymentStatus {
            hub,
            payment_id,
            state,
            gateway,
            sequence,
        })
}

pub(crate) fn registration() -> impl Strategy<Value = Registration> {
    let device = (
        device(),
        any::<[u8; 32]>(),
        one_of(DeviceClass::ALL),
        any::<String>(),
        any::<String>(),
    );
    (device, hub(), any::<[u8; 32]>(), any::<u64>()).prop_map(
        |(device, hub, hub_signing_key, enrolled_ms)| Registration {
            device: device.0,
            signing_key: device.1,
            class: device.2,
            name: device.3,
            model: device.4,
            hub,
            hub_signing_key,
            enrolled_ms,
        },
    )
}

pub(crate) fn enrolment_request() -> impl Strategy<Value = EnrolmentRequest> {
    (any::<[u8; 16]>(), registration()).prop_map(|(token, r)| EnrolmentRequest {
        token,
        hub: r.hub,
        device: r.device,
        signing_key: r.signing_key,
        class: r.class,
        name: r.name,
        model: r.model,
    })
}

pub(crate) fn enrolment_code() -> impl Strategy<Value = EnrolmentCode> {
    let addresses = || proptest::collection::vec(any::<String>(), 0..4);
    let tls_key = proptest::option::of(digest());
    (hub(), any::<[u8; 16]>(), addresses(), addresses(), tls_key).prop_map(
        |(hub, token, enrol_addresses, addresses, tls_key)| EnrolmentCode {
            hub,
            token,
            enrol_addresses,
            addresses,
            tls_key,
        },
    )
}

pub(crate) fn allowance() -> impl Strategy<Value = Allowance> {
    use proptest::collection::vec;
    let sums = (any::<u64>(), any::<u32>(), any::<u64>(), any::<u64>(), currency());
    let cards = (
        vec(one_of(CardScheme::ALL), 0..4),
        vec(one_of(Funding::ALL), 0..4),
        vec(one_of(EntryMode::ALL), 0..4),
        of(any::<u64>()),
    );
    (hub(), device(), any::<u64>(), sums, cards, any::<[u64; 3]>()).prop_map(
        |(hub, device, number, sums, cards, [issued_ms, expires_ms, policy_version])| Allowance {
            hub,
            device,
            number,
            amount_minor: sums.0,
            count: sums.1,
            transaction_ceiling_minor: sums.2,
            card_ceiling_minor: sums.3,
            currency: sums.4,
            schemes: cards.0,
            funding: cards.1,
            entry_modes: cards.2,
            unverified_tap_ceiling_minor: cards.3,
            issued_ms,
            expires_ms,
            policy_version,
        },
    )
}

pub(crate) fn allowance_chain() -> impl Strategy<Value = AllowanceChain> {
    (any::<u32>(), any::<u64>(), digest(), any::<u64>()).prop_map(|(index, total_minor, head, last_ms)| {
        AllowanceChain {
            index,
            total_minor,
            head,
            last_ms,
        }
    })
}

pub(crate) fn device_receipt() -> impl Strategy<Value = DeviceReceipt> {
    (any::<u32>(), digest(), payment_id(), digest(), any::<[u64; 4]>()).prop_map(
        |(index, previous, payment_id, request_digest, numbers)| DeviceReceipt {
            number: numbers[0],
            index,
            previous,
            payment_id,
            request_digest,
            amount_minor: numbers[1],
            total_minor: numbers[2],
            device_time_ms: numbers[3],
        },
    )
}

pub(crate) fn allowance_return() -> impl Strategy<Value = AllowanceReturn> {
    (any::<u64>(), allowance_chain()).prop_map(|(number, chain)| AllowanceReturn::new(number, &chain))
}

pub(crate) fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        any::<String>().prop_map(|app| Request::Hello { app }),
        (bytes(), sealed_card()).prop_map(|(request, sealed_card)| Request::Pay { request, sealed_card }),
        bytes().prop_map(|request| Request::Void { request }),
        payment_id().prop_map(|payment_id| Request::Status { payment_id }),
        bytes().prop_map(|request| Request::Enrol { request }),
        (bytes(), of(bytes())).prop_map(|(description, attestation)| Request::Describe {
            description,
            attestation,
        }),
        of(any::<u64>()).prop_map(|closed| Request::Allowance { closed }),
        (any::<u64>(), bytes(), sealed_card(), bytes()).prop_map(
            |(number, request, sealed_card, receipt)| {
                Request::Sync {
                    number,
                    request,
                    sealed_card,
                    receipt,
                }
            }
        ),
        bytes().prop_map(|statement| Request::Return { statement }),
        any::<u32>().prop_map(|known| Request::Keys { known }),
        bytes().prop_map(|change| Request::ChangeKeys { change }),
    ]
}

fn hub_info() -> impl Strategy<Value = HubInfo> {
    (
        hub(),
        any::<u16>(),
        any::<String>(),
        any::<u64>(),
        any::<u64>(),
        one_of(WanState::ALL),
    )
        .prop_map(
            |(hub, wire_version, store, time_ms, policy_version, wan)| HubInfo {
                hub,
                wire_version,
                store,
                time_ms,
                policy_version,
                wan,
            },
        )
}

pub(crate) fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        hub_info().prop_map(|info| Answer::Hello { info }),
        bytes().prop_map(|receipt| Answer::Receipt { receipt }),
        (bytes(), of(bytes())).prop_map(|(status, receipt)| Answer::Status { status, receipt }),
        bytes().prop_map(|registration| Answer::Enrolled { registration }),
        any::<bool>().prop_map(|attested| Answer::Described { attested }),
        (bytes(), allowance_chain()).prop_map(|(allowance, chain)| Answer::Allowance { allowance, chain }),
        bytes().prop_map(|receipt| Answer::Synced { receipt }),
        any::<u64>().prop_map(|number| Answer::Returned { number }),
        any::<u32>().prop_map(|number| Answer::KeysChanged { number }),
        proptest::collection::vec(bytes().prop_map(SignedKeyChange), 0..3)
            .prop_map(|changes| Answer::Keys { changes }),
        (one_of(RefusalCode::ALL), any::<String>()).prop_map(|(code, text)| Answer::Refused {
            refusal: Refusal { code, text }
        }),
    ]
}

pub(crate) fn push() -> impl Strategy<Value = Push> {
    prop_oneof![
        bytes().prop_map(|status| Push::Status { status }),
        any::<u64>().prop_map(|version| Push::Policy { version }),
        bytes().prop_map(|change| Push::KeyChanged {
            change: SignedKeyChange(change)
        }),
        bytes().prop_map(|keys| Push::TlsKeys {
            keys: SignedTlsKeys(keys)
        }),
    ]
}

fn merchant_advice() -> impl Strategy<Value = MerchantAdvice> {
    (0..100_u8).prop_map(|code| format!("{code:02}").parse().unwrap())
}

fn event() -> impl Strategy<Value = Event> {
    let payments = prop_oneof![
        (payment_id(), device(), bytes()).prop_map(|(payment_id, device, request)| Event::PaymentOpened {
            payment_id,
            device,
            request
        }),
        (payment_id(), device(), of(bytes()), record()).prop_map(|(payment_id, device, request, record)| {
            Event::PaymentDecided {
                payment_id,
                device,
                request,
                record,
            }
        }),
        (payment_id(), gateway(), of(merchant_advice())).prop_map(|(payment_id, gateway, advice)| {
            Event::PaymentSettled {
                payment_id,
                gateway,
                advice,
            }
        }),
        (payment_id(), bytes(), one_of(VoidEffect::ALL)).prop_map(|(payment_id, request, effect)| {
            Event::PaymentVoided {
                payment_id,
                request,
                effect,
            }
        }),
        (payment_id(), gateway())
            .prop_map(|(payment_id, gateway)| Event::PaymentReversed { payment_id, gateway }),
        (payment_id(), one_of(ParkReason::ALL), any::<String>()).prop_map(|(payment_id, reason, detail)| {
            Event::PaymentParked {
                payment_id,
                reason,
                detail,
            }
        }),
        (payment_id(), any::<String>(), of(one_of(Finding::ALL))).prop_map(
            |(payment_id, operator, finding)| Event::PaymentReleased {
                payment_id,
                operator,
                finding,
            }
        ),
        (
            payment_id(),
            one_of(Finding::ALL),
            any::<String>(),
            any::<String>()
        )
            .prop_map(|(payment_id, finding, note, operator)| Event::PaymentClosed {
                payment_id,
                finding,
                note,
                operator,
            }),
        (
            payment_id(),
            gateway(),
            any::<u32>(),
            any::<u64>(),
            of(merchant_advice())
        )
            .prop_map(|(payment_id, gateway, presentation, due_ms, advice)| {
                Event::PaymentRetryScheduled {
                    payment_id,
                    gateway,
                    presentation,
                    due_ms,
                    advice,
                }
            }),
        payment_id().prop_map(|payment_id| Event::PaymentRetryDue { payment_id }),
    ];
    let others = prop_oneof![
        (
            any::<String>(),
            any::<u64>(),
            of(one_of(TraceRule::ALL)),
            of(any::<bool>()),
            of(any::<bool>())
        )
            .prop_map(|(version, torn_bytes, traces, away, closes)| Event::HubStarted {
                version,
                torn_bytes,
                traces,
                away,
                closes,
            }),
        closure().prop_map(|closure| Event::PeriodClosed { closure }),
        Just(Event::HubStopped),
        registration().prop_map(|registration| Event::DeviceEnrolled { registration }),
        (device(), bytes(), of(bytes())).prop_map(|(device, description, attestation)| {
            Event::DeviceDescribed {
                device,
                description,
                attestation,
            }
        }),
        (device(), any::<bool>(), any::<String>()).prop_map(|(device, blocked, operator)| {
            Event::DeviceBlocked {
                device,
                blocked,
                operator,
            }
        }),
        (any::<u64>(), any::<[u8; 16]>(), bytes()).prop_map(|(version, key, policy)| {
            Event::PolicyActivated {
                version,
                key: KeyId(key),
                policy,
            }
        }),
        (any::<u32>(), digest(), bytes(), of(any::<String>())).prop_map(
            |(version, digest, root, operator)| Event::RootApplied {
                version,
                digest,
                root,
                operator,
            }
        ),
        (
            one_of(WanState::ALL),
            one_of(WanState::ALL),
            one_of(WanReason::ALL)
        )
            .prop_map(|(from, to, reason)| Event::WanChanged { from, to, reason }),
        (one_of(ClockQuality::ALL), any::<i64>())
            .prop_map(|(quality, jump_ms)| Event::ClockChanged { quality, jump_ms }),
        (any::<String>(), any::<String>())
            .prop_map(|(operator, action)| Event::OperatorActed { operator, action }),
    ];
    let storage =
        prop_oneof![
            (one_of(StorageLevel::ALL), any::<u64>())
                .prop_map(|(level, free_bytes)| Event::StorageChanged { level, free_bytes }),
            (any::<u32>(), any::<u64>(), digest())
                .prop_map(|(number, last, digest)| Event::SegmentArchived { number, last, digest }),
            (any::<u32>(), digest(), any::<String>()).prop_map(|(number, digest, operator)| {
                Event::ArchiveExported {
                    number,
                    digest,
                    operator,
                }
            }),
            (any::<u32>(), digest()).prop_map(|(number, digest)| Event::ArchiveRemoved { number, digest }),
            (any::<[u8; 8]>(), any::<[u8; 8]>(), any::<String>()).prop_map(|(key, old_key, operator)| {
                Event::VaultKeyChanged {
                    key,
                    old_key,
                    operator,
                }
            }),
            (bytes(), any::<String>()).prop_map(|(statement, operator)| Event::HubKeyChanged {
                statement: SignedKeyChange(statement),
                operator
            }),
            (
                device(),
                any::<u32>(),
                any::<[u8; 32]>(),
                digest(),
                any::<u64>(),
                bytes()
            )
                .prop_map(
                    |(device, number, signing_key, tls_key, last_sequence, statement)| {
                        Event::DeviceKeysChanged {
                            device,
                            number,
                            signing_key,
                            tls_key,
                            last_sequence,
                            statement,
                        }
                    }
                ),
            (device(), any::<u32>()).prop_map(|(device, number)| Event::DeviceKeysSettled { device, number }),
            device().prop_map(|device| Event::DeviceOldKeysUsed { device }),
            (any::<Option<[u8; 8]>>(), any::<Option<[u8; 8]>>())
                .prop_map(|(key, old_key)| Event::RecoveryKeyChanged { key, old_key }),
            (any::<[u8; 8]>(), any::<[u8; 8]>(), any::<String>()).prop_map(
                |(vault_key, recovery_key, operator)| Event::StoreRecovered {
                    vault_key,
                    recovery_key,
                    operator,
                }
            ),
            (any::<u32>(), digest(), digest(), any::<String>()).prop_map(
                |(number, key, beside, operator)| Event::HubTlsKeyAdded {
                    number,
                    key,
                    beside,
                    operator
                }
            ),
            (any::<u32>(), digest(), digest(), any::<String>()).prop_map(
                |(number, key, dropped, operator)| Event::HubTlsKeyDropped {
                    number,
                    key,
                    dropped,
                    operator
                }
            ),
        ];
    let anomalies = prop_oneof![
        (device(), of(payment_id()), one_of(AnomalyKind::ALL), any::<u16>()).prop_map(
            |(device, shown_by, kind, points)| Event::AnomalyFound {
                device,
                shown_by,
                kind,
                points
            }
        ),
        (
            of(device()),
            one_of(Restriction::ALL),
            one_of(RestrictionCause::ALL),
            of(any::<String>())
        )
            .prop_map(
                |(device, restriction, cause, operator)| Event::RestrictionChanged {
                    device,
                    restriction,
                    cause,
                    operator
                }
            ),
    ];
    let allowances = prop_oneof![
        allowance().prop_map(|allowance| Event::AllowanceGiven { allowance }),
        (device(), bytes(), any::<[u8; 16]>()).prop_map(|(device, receipt, card)| Event::AllowanceSpent {
            device,
            receipt,
            card
        }),
        (device(), any::<u64>(), of(bytes()), of(any::<String>())).prop_map(
            |(device, number, statement, operator)| Event::AllowanceReturned {
                device,
                number,
                statement,
                operator
            }
        ),
        (device(), any::<u64>(), one_of(AllowanceMisuse::ALL), bytes()).prop_map(
            |(device, number, kind, evidence)| Event::AllowanceMisused {
                device,
                number,
                kind,
                evidence
            }
        ),
        (device(), bytes(), one_of(RefusalCode::ALL)).prop_map(|(device, receipt, refusal)| {
            Event::AllowancePaymentRefused {
                device,
                receipt,
                refusal,
            }
        }),
        (device(), any::<u64>(), any::<u64>(), any::<u32>()).prop_map(
            |(device, number, amount_minor, count)| Event::AllowanceForked {
                device,
                number,
                amount_minor,
                count
            }
        ),
        (device(), any::<u32>()).prop_map(|(device, count)| Event::CardNumbersSent { device, count }),
    ];
    prop_oneof![payments, others, storage, anomalies, allowances, fleets()]
}

fn fleets() -> impl Strategy<Value = Event> {
    let text = any::<String>;
    prop_oneof![
        (
            digest(),
            one_of(DeviceClass::ALL),
            any::<u32>(),
            any::<u64>(),
            text()
        )
            .prop_map(
                |(token, class, most, expires_ms, operator)| Event::FleetTokenMade {
                    token,
                    class,
                    most,
                    expires_ms,
                    operator
                }
            ),
        (digest(), text()).prop_map(|(token, operator)| Event::FleetTokenWithdrawn { token, operator }),
        (registration(), digest())
            .prop_map(|(registration, token)| Event::FleetDeviceEnrolled { registration, token }),
        (device(), of(text()), of(any::<u64>())).prop_map(|(device, operator, list)| {
            Event::DeviceApproved {
                device,
                operator,
                list,
            }
        }),
        (any::<u64>(), any::<[u8; 16]>(), digest(), bytes(), text()).prop_map(
            |(version, key, digest, list, operator)| Event::DeviceListTaken {
                version,
                key: KeyId(key),
                digest,
                list,
                operator
            }
        ),
        (registration(), any::<u64>())
            .prop_map(|(registration, list)| Event::DeviceListed { registration, list }),
        (device(), any::<u64>(), any::<bool>()).prop_map(|(device, list, revoked)| Event::DeviceShutOut {
            device,
            list,
            revoked
        }),
        (registration(), device(), any::<bool>(), text()).prop_map(
            |(registration, replaces, lost, operator)| Event::DeviceReplaced {
                registration,
                replaces,
                lost,
                operator
            }
        ),
        (device(), any::<u32>()).prop_map(|(device, returns)| Event::DeviceInTwoPlaces { device, returns }),
    ]
}

pub(crate) fn device_list() -> impl Strategy<Value = DeviceList> {
    let listed = (
        device(),
        any::<[u8; 32]>(),
        one_of(DeviceClass::ALL),
        any::<String>(),
        any::<String>(),
    )
        .prop_map(|(device, signing_key, class, name, model)| ListedDevice {
            device,
            signing_key,
            class,
            name,
            model,
        });
    (
        any::<String>(),
        proptest::collection::vec(any::<String>(), 0..4),
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
        proptest::collection::vec(listed, 0..4),
        proptest::collection::vec(device(), 0..4),
    )
        .prop_map(
            |(tenant, stores, version, not_before_ms, expires_ms, devices, revoked)| DeviceList {
                tenant,
                stores,
                version,
                not_before_ms,
                expires_ms,
                devices,
                revoked,
            },
        )
}

pub(crate) fn entry() -> impl Strategy<Value = Entry> {
    (any::<u64>(), digest(), time(), any::<u64>(), event()).prop_map(
        |(sequence, previous, time, policy_version, event)| Entry {
            sequence,
            previous,
            time,
            policy_version,
            event,
        },
    )
}
