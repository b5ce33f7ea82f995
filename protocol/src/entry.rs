//! The ledger entry: what a hub writes down, chained.
//!
//! The chain runs over the encoded entries: `previous` is SHA-256 of the one
//! before. The hub signs where a group of entries ends
//! ([`LedgerCommit`](crate::LedgerCommit)), and through the chain the
//! signature covers them all. Journals of format 1 hold each entry as a
//! COSE_Sign1 of its own ([`ObjectType::LedgerEntry`](crate::cose::ObjectType)).

use minicbor::{Decode, Encode};

use crate::allowance::{Allowance, AllowanceMisuse};
use crate::anomaly::{AnomalyKind, Restriction, RestrictionCause};
use crate::cbor;
use crate::closure::Closure;
use crate::codes::codes;
use crate::enrolment::Registration;
use crate::id::{DeviceId, Digest, KeyId, PaymentId};
use crate::key_change::SignedKeyChange;
use crate::merchant_advice::MerchantAdvice;
use crate::payment::DeviceClass;
use crate::reason::Reason;
use crate::receipt::{Decision, FallbackAction, GatewayResult, Submission};
use crate::refusal::RefusalCode;
use crate::score::Score;

codes! {
    /// How far the hub's clock can be trusted.
    pub enum ClockQuality {
        /// Never compared with the gateway's since the hub started.
        Unsynchronised = 1, "unsynchronised";
        /// Agrees with the gateway's time.
        Synchronised = 2, "synchronised";
        /// Jumped; limits are reduced.
        Suspect = 3, "suspect";
    }
}

/// When an entry was made. Order is the sequence, never a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct EntryTime {
    /// Wall clock, milliseconds since 1970 UTC.
    #[n(1)]
    pub wall_ms: u64,
    /// Monotonic clock, milliseconds since an arbitrary point of this boot.
    #[n(2)]
    pub monotonic_ms: u64,
    /// Which boot the monotonic clock belongs to.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub boot: [u8; 16],
    /// How far the wall clock can be trusted.
    #[n(4)]
    pub quality: ClockQuality,
}

/// A ledger entry.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Entry {
    /// Counts entries from 1 without gaps.
    #[n(1)]
    pub sequence: u64,
    /// [`Entry::digest`] of the entry before; [`Digest::ZERO`] for the first.
    #[n(2)]
    pub previous: Digest,
    /// When.
    #[n(3)]
    pub time: EntryTime,
    /// The policy in force; 0 for none.
    #[n(4)]
    pub policy_version: u64,
    /// What happened.
    #[n(5)]
    pub event: Event,
}

impl Entry {
    /// The digest that the next entry chains to, given the entry's payload.
    pub fn digest(payload: &[u8]) -> Digest {
        Digest::of(payload)
    }

    /// Encodes the payload.
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }
}

codes! {
    /// What a void leads to.
    pub enum VoidEffect {
        /// The payment had not been sent and never will be.
        CancelledBeforeSending = 1, "cancelled-before-sending";
        /// The payment was or may have been sent; a reversal is queued.
        ReversalQueued = 2, "reversal-queued";
    }
}

codes! {
    /// Why an item waits for a person instead of being sent.
    pub enum ParkReason {
        /// The gateway says that the id was used with other content.
        GatewayConflict = 1, "gateway-conflict";
        /// The gateway refuses the message itself.
        GatewayRefusesMessage = 2, "gateway-refuses-message";
        /// The most attempts have been made.
        AttemptsExhausted = 3, "attempts-exhausted";
        /// The sealed card is missing or does not match.
        SealedCardMissing = 4, "sealed-card-missing";
        /// The gateway refuses the hub's credentials.
        GatewayRefusesHub = 5, "gateway-refuses-hub";
        /// The hub cannot make a message of it; the detail says what a person
        /// can do.
        CannotBeSent = 6, "cannot-be-sent";
        /// The gateway has had it for long and does not decide. Ask the
        /// gateway; once released it is asked for again.
        GatewayUndecided = 7, "gateway-undecided";
        /// A person keeps it back.
        KeptBack = 8, "kept-back";
    }
}

codes! {
    /// What a person has found out about a payment where the hub could not.
    pub enum Finding {
        /// The gateway or acquirer does not have it, and took nothing.
        NotThere = 1, "not-there";
        /// It has it and approved it: the customer is charged.
        Taken = 2, "taken";
        /// It had it and has undone it, there.
        Undone = 3, "undone";
    }
}

codes! {
    /// From what an acquirer's trace number, retrieval reference and
    /// transmission time (ISO 8583, fields 11, 37 and 7) of a payment are
    /// found, for all its messages.
    pub enum TraceRule {
        /// All from the ledger entry with its request.
        Entry = 1, "entry";
        /// Reference and time from the signed request, the trace number from
        /// the ledger entry.
        Payment = 2, "payment";
        /// All from the signed request.
        PaymentAndDevice = 3, "payment-and-device";
    }
}

codes! {
    /// How the hub stands to the gateway.
    pub enum WanState {
        /// The gateway answers in time.
        Online = 1, "online";
        /// The gateway answers late or not always; it is still asked.
        Degraded = 2, "degraded";
        /// The gateway does not answer; the hub decides.
        Offline = 3, "offline";
    }
}

codes! {
    /// Why the connectivity changed.
    pub enum WanReason {
        /// The hub has just started.
        Starting = 1, "starting";
        /// Enough good answers in a row.
        AnswersGood = 2, "answers-good";
        /// A probe or payment failed.
        SomeFailed = 3, "some-failed";
        /// Too many failures in a row.
        ManyFailed = 4, "many-failed";
        /// Answers take too long.
        AnswersSlow = 5, "answers-slow";
    }
}

codes! {
    /// How much room the hub's disk has.
    pub enum StorageLevel {
        /// Enough.
        Enough = 1, "enough";
        /// Little: somebody should make room. Nothing is refused yet.
        Low = 2, "low";
        /// So little that nothing more is approved offline. What is left is
        /// for what was accepted before.
        Full = 3, "full";
    }
}

/// The decision on a payment.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DecisionRecord {
    /// The decision.
    #[n(1)]
    pub decision: Decision,
    /// Why.
    #[n(2)]
    pub reason: Reason,
    /// What to do instead, with a fallback.
    #[n(3)]
    pub fallback: Option<FallbackAction>,
    /// As what an approved payment goes to the gateway.
    #[n(4)]
    pub submission: Option<Submission>,
    /// The gateway's word, if it was asked and answered in time.
    #[n(5)]
    pub gateway: Option<GatewayResult>,
    /// Whether the gateway was asked and may have taken the payment although
    /// the answer was no: a reversal is then queued.
    #[n(6)]
    pub reversal_queued: bool,
    /// The share of the signed ceilings that held in the whole store, 0 to
    /// 99, if moving limits had made them smaller.
    #[n(7)]
    pub percent: Option<u8>,
    /// How risky the payment looked, if the policy weighs that. In a box: few
    /// have it.
    #[n(8)]
    pub score: Option<Box<Score>>,
    /// A supervisor's override that let it pass.
    #[n(9)]
    pub lifted: Option<Lifted>,
    /// The allowance under which the device itself had approved it, if it did.
    #[n(10)]
    pub allowance: Option<u64>,
    /// The share that what moves the ceilings gave by itself, 0 to 100, where
    /// a smaller one ([`percent`](Self::percent)) still held from before.
    #[n(11)]
    pub moved_percent: Option<u8>,
}

/// What a supervisor's [`Override`](crate::Override) let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Lifted {
    /// What stood against the payment.
    #[n(1)]
    pub reason: Reason,
    /// Whose override: the key.
    #[n(2)]
    pub supervisor: KeyId,
}

/// What happened. Numbers are never reused.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Event {
    /// The hub started. The first entry of every ledger is one.
    #[n(1)]
    #[cbor(map)]
    HubStarted {
        /// The program's version.
        #[n(1)]
        version: String,
        /// Bytes of an unfinished write that were cut off the journal's end.
        #[n(2)]
        torn_bytes: u64,
        /// How payments are named to an acquirer from here on. Absent: by the
        /// first rule, and by a hub which sends out of its queue before the
        /// ledger says that the gateway is back.
        #[n(3)]
        traces: Option<TraceRule>,
        /// Whether, in an outage, the ledger may have been elsewhere meanwhile:
        /// the machine was off, or this is a copy that was put back. Absent: it
        /// was not, or there was no outage.
        #[n(4)]
        away: Option<bool>,
        /// Whether payments count towards closures from here on. Absent: by a
        /// hub that closed no periods.
        #[n(5)]
        closes: Option<bool>,
    },
    /// The hub stopped in good order.
    #[n(2)]
    HubStopped,
    /// A payment was received and is being asked online.
    #[n(10)]
    #[cbor(map)]
    PaymentOpened {
        /// Which.
        #[n(1)]
        payment_id: PaymentId,
        /// Who asks.
        #[n(2)]
        device: DeviceId,
        /// The signed request as received.
        #[n(3)]
        #[cbor(with = "minicbor::bytes")]
        request: Vec<u8>,
    },
    /// A payment was decided.
    #[n(11)]
    #[cbor(map)]
    PaymentDecided {
        /// Which.
        #[n(1)]
        payment_id: PaymentId,
        /// Who asked.
        #[n(2)]
        device: DeviceId,
        /// The signed request as received, unless
        /// [`Event::PaymentOpened`] holds it.
        #[n(3)]
        #[cbor(with = "minicbor::bytes")]
        request: Option<Vec<u8>>,
        /// The decision.
        #[n(4)]
        record: DecisionRecord,
    },
    /// The gateway gave its final answer to a payment that was decided
    /// offline.
    #[n(12)]
    #[cbor(map)]
    PaymentSettled {
        /// Which.
        #[n(1)]
        payment_id: PaymentId,
        /// The gateway's word.
        #[n(2)]
        gateway: GatewayResult,
        /// What the issuer advised with a decline.
        #[n(3)]
        advice: Option<MerchantAdvice>,
    },
    /// A device voided a payment.
    #[n(13)]
    #[cbor(map)]
    PaymentVoided {
        /// Which.
        #[n(1)]
        payment_id: PaymentId,
        /// The signed request as received.
        #[n(2)]
        #[cbor(with = "minicbor::bytes")]
        request: Vec<u8>,
        /// What follows.
        #[n(3)]
        effect: VoidEffect,
    },
    /// The gateway confirmed a reversal.
    #[n(14)]
    #[cbor(map)]
    PaymentReversed {
        /// Which.
        #[n(1)]
        payment_id: PaymentId,
        /// The gateway's word.
        #[n(2)]
        gateway: GatewayResult,
    },
    /// A payment or its reversal waits for a person.
    #[n(15)]
    #[cbor(map)]
    PaymentParked {
        /// Which.
        #[n(1)]
        payment_id: PaymentId,
        /// Why.
        #[n(2)]
        reason: ParkReason,
        /// The gateway's words, shortened to 200 bytes.
        #[n(3)]
        detail: String,
    },
    /// A person put a parked payment back into the queue.
    #[n(16)]
    #[cbor(map)]
    PaymentReleased {
        /// Which.
        #[n(1)]
        payment_id: PaymentId,
        /// Who.
        #[n(2)]
        operator: String,
        /// What that person had found out, if anything:
        /// [`Finding::NotThere`], so that it counts as never sent.
        #[n(3)]
        finding: Option<Finding>,
    },
    /// A person ended a parked payment, by what they had found out elsewhere.
    #[n(109)]
    #[cbor(map)]
    PaymentClosed {
        /// Which.
        #[n(1)]
        payment_id: PaymentId,
        /// What they had found out.
        #[n(2)]
        finding: Finding,
        /// From whom, and what else is to be kept: 1 to 200 bytes.
        #[n(3)]
        note: String,
        /// Who.
        #[n(4)]
        operator: String,
    },
    /// The issuer declined a payment that was decided offline, and its
    /// scheme's rules allow another presentation.
    #[n(17)]
    #[cbor(map)]
    PaymentRetryScheduled {
        /// Which.
        #[n(1)]
        payment_id: PaymentId,
        /// The gateway's word on this presentation.
        #[n(2)]
        gateway: GatewayResult,
        /// Which presentation was declined, from 1.
        #[n(3)]
        presentation: u32,
        /// Not presented again before this, milliseconds since 1970 UTC.
        #[n(4)]
        due_ms: u64,
        /// What the issuer advised with the decline.
        #[n(5)]
        advice: Option<MerchantAdvice>,
    },
    /// A declined payment is due and goes back into the queue.
    #[n(18)]
    #[cbor(map)]
    PaymentRetryDue {
        /// Which.
        #[n(1)]
        payment_id: PaymentId,
    },
    /// A device was enrolled.
    #[n(20)]
    #[cbor(map)]
    DeviceEnrolled {
        /// The device.
        #[n(1)]
        registration: Registration,
    },
    /// A device was blocked or unblocked.
    #[n(21)]
    #[cbor(map)]
    DeviceBlocked {
        /// Which.
        #[n(1)]
        device: DeviceId,
        /// Blocked (true) or unblocked (false).
        #[n(2)]
        blocked: bool,
        /// Who.
        #[n(3)]
        operator: String,
    },
    /// A device said what it is.
    #[n(22)]
    #[cbor(map)]
    DeviceDescribed {
        /// Which.
        #[n(1)]
        device: DeviceId,
        /// The signed [`DeviceDescription`](crate::DeviceDescription) as
        /// received.
        #[n(2)]
        #[cbor(with = "minicbor::bytes")]
        description: Vec<u8>,
        /// The signed [`AttestationResult`](crate::AttestationResult) as
        /// received, if it counted and was newer than the one before.
        #[n(3)]
        #[cbor(with = "minicbor::bytes")]
        attestation: Option<Vec<u8>>,
    },
    /// A policy was activated.
    #[n(30)]
    #[cbor(map)]
    PolicyActivated {
        /// Its version.
        #[n(1)]
        version: u64,
        /// The key that signed it.
        #[n(2)]
        key: KeyId,
        /// The signed policy as received.
        #[n(3)]
        #[cbor(with = "minicbor::bytes")]
        policy: Vec<u8>,
    },
    /// A root came into force: whose signatures count from now on.
    #[n(110)]
    #[cbor(map)]
    RootApplied {
        /// Its version.
        #[n(1)]
        version: u32,
        /// SHA-256 over its content, without signatures.
        #[n(2)]
        digest: Digest,
        /// The signed [`Root`](crate::Root) as received.
        #[n(3)]
        #[cbor(with = "minicbor::bytes")]
        root: Vec<u8>,
        /// Who applied it; `None`: the hub was installed with it.
        #[n(4)]
        operator: Option<String>,
    },
    /// The connectivity changed.
    #[n(40)]
    #[cbor(map)]
    WanChanged {
        /// From.
        #[n(1)]
        from: WanState,
        /// To.
        #[n(2)]
        to: WanState,
        /// Why.
        #[n(3)]
        reason: WanReason,
    },
    /// The clock became suspect, or trusted again.
    #[n(50)]
    #[cbor(map)]
    ClockChanged {
        /// How far it can be trusted from now on.
        #[n(1)]
        quality: ClockQuality,
        /// By how much the wall clock jumped, in milliseconds.
        #[n(2)]
        jump_ms: i64,
    },
    /// Somebody did something by hand that no other event records.
    #[n(60)]
    #[cbor(map)]
    OperatorActed {
        /// Who.
        #[n(1)]
        operator: String,
        /// What.
        #[n(2)]
        action: String,
    },
    /// The room on the hub's disk became scarce, or is enough again.
    #[n(70)]
    #[cbor(map)]
    StorageChanged {
        /// From now on.
        #[n(1)]
        level: StorageLevel,
        /// What the file system has free, in bytes.
        #[n(2)]
        free_bytes: u64,
    },
    /// Something is odd about a device, or a payment that it asked for.
    #[n(80)]
    #[cbor(map)]
    AnomalyFound {
        /// Which device.
        #[n(1)]
        device: DeviceId,
        /// The payment that showed it, if one did. It is decided by a later
        /// entry.
        #[n(2)]
        shown_by: Option<PaymentId>,
        /// What.
        #[n(3)]
        kind: AnomalyKind,
        /// What the policy counts for it.
        #[n(4)]
        points: u16,
    },
    /// Offline approvals became restricted, or free again.
    #[n(81)]
    #[cbor(map)]
    RestrictionChanged {
        /// At which device; `None`: in the whole store.
        #[n(1)]
        device: Option<DeviceId>,
        /// From now on.
        #[n(2)]
        restriction: Restriction,
        /// Why.
        #[n(3)]
        cause: RestrictionCause,
        /// Who, if it was a person.
        #[n(4)]
        operator: Option<String>,
    },
    /// A device may approve by itself while it cannot reach the hub. The whole
    /// amount and count are at risk from here on.
    #[n(90)]
    #[cbor(map)]
    AllowanceGiven {
        /// What it may.
        #[n(1)]
        allowance: Allowance,
    },
    /// A payment that a device approved under its allowance has arrived, the
    /// next in the chain: so much less is kept back for the allowance. The
    /// payment itself is decided by an earlier entry.
    #[n(91)]
    #[cbor(map)]
    AllowanceSpent {
        /// Which device.
        #[n(1)]
        device: DeviceId,
        /// The signed [`DeviceReceipt`](crate::DeviceReceipt) as received.
        #[n(2)]
        #[cbor(with = "minicbor::bytes")]
        receipt: Vec<u8>,
        /// Which card: the first 16 bytes of SHA-256 over its token.
        #[n(3)]
        #[cbor(with = "minicbor::bytes")]
        card: [u8; 16],
    },
    /// An allowance is closed, and nothing is kept back for it any more.
    #[n(92)]
    #[cbor(map)]
    AllowanceReturned {
        /// Which device.
        #[n(1)]
        device: DeviceId,
        /// The allowance's number.
        #[n(2)]
        number: u64,
        /// The signed [`AllowanceReturn`](crate::AllowanceReturn) as received,
        /// if the device returned it.
        #[n(3)]
        #[cbor(with = "minicbor::bytes")]
        statement: Option<Vec<u8>>,
        /// Who declared the device lost, if somebody did.
        #[n(4)]
        operator: Option<String>,
    },
    /// A device did with an allowance what it does not permit. From here on
    /// nothing is approved offline for it until a person lifts that.
    #[n(93)]
    #[cbor(map)]
    AllowanceMisused {
        /// Which device.
        #[n(1)]
        device: DeviceId,
        /// The allowance's number, as the device has it.
        #[n(2)]
        number: u64,
        /// What it did.
        #[n(3)]
        kind: AllowanceMisuse,
        /// What shows it: the signed
        /// [`DeviceReceipt`](crate::DeviceReceipt) or
        /// [`AllowanceReturn`](crate::AllowanceReturn) as received.
        #[n(4)]
        #[cbor(with = "minicbor::bytes")]
        evidence: Vec<u8>,
    },
    /// A payment that a device approved under its allowance was refused for
    /// good, and its place in the chain is taken all the same: the customer
    /// has left with the goods. Its amount stays at risk until a person lifts
    /// the device's quarantine.
    #[n(94)]
    #[cbor(map)]
    AllowancePaymentRefused {
        /// Which device.
        #[n(1)]
        device: DeviceId,
        /// The signed [`DeviceReceipt`](crate::DeviceReceipt) as received, the
        /// next in the chain.
        #[n(2)]
        #[cbor(with = "minicbor::bytes")]
        receipt: Vec<u8>,
        /// Why the payment was refused.
        #[n(3)]
        refusal: RefusalCode,
    },
    /// An allowance has more than one end, as a copy of the device or an old
    /// backup of it brings about: it is closed. What may still come of either
    /// end stays at risk until a person lifts the device's quarantine.
    #[n(95)]
    #[cbor(map)]
    AllowanceForked {
        /// Which device.
        #[n(1)]
        device: DeviceId,
        /// The allowance's number.
        #[n(2)]
        number: u64,
        /// How much of both ends stays at risk, minor units.
        #[n(3)]
        amount_minor: u64,
        /// How many payments of both.
        #[n(4)]
        count: u32,
    },
    /// A person made a token by which several devices may enrol, until it
    /// expires, is used up or is withdrawn.
    #[n(100)]
    #[cbor(map)]
    FleetTokenMade {
        /// SHA-256 over the token's 16 bytes. The token itself is nowhere.
        #[n(1)]
        token: Digest,
        /// What kind of devices.
        #[n(2)]
        class: DeviceClass,
        /// How many devices.
        #[n(3)]
        most: u32,
        /// From when on it is not good, milliseconds since 1970 UTC.
        #[n(4)]
        expires_ms: u64,
        /// Who.
        #[n(5)]
        operator: String,
    },
    /// A person withdrew such a token.
    #[n(101)]
    #[cbor(map)]
    FleetTokenWithdrawn {
        /// Which.
        #[n(1)]
        token: Digest,
        /// Who.
        #[n(2)]
        operator: String,
    },
    /// A device enrolled by such a token. It is pending: nothing is decided
    /// for it until it is approved.
    #[n(102)]
    #[cbor(map)]
    FleetDeviceEnrolled {
        /// The device.
        #[n(1)]
        registration: Registration,
        /// By which token.
        #[n(2)]
        token: Digest,
    },
    /// A device that was pending, or that headquarters' list had shut out, may
    /// pay from here on.
    #[n(103)]
    #[cbor(map)]
    DeviceApproved {
        /// Which.
        #[n(1)]
        device: DeviceId,
        /// Who, if it was a person at the hub.
        #[n(2)]
        operator: Option<String>,
        /// The version of headquarters' list, if that names it.
        #[n(3)]
        list: Option<u64>,
    },
    /// Headquarters' list of devices was taken. What it changes follows, one
    /// entry a device.
    #[n(104)]
    #[cbor(map)]
    DeviceListTaken {
        /// Its version.
        #[n(1)]
        version: u64,
        /// The key that signed it.
        #[n(2)]
        key: KeyId,
        /// SHA-256 over the signed list as received.
        #[n(3)]
        digest: Digest,
        /// The signed [`DeviceList`](crate::DeviceList) as received.
        #[n(4)]
        #[cbor(with = "minicbor::bytes")]
        list: Vec<u8>,
        /// Who brought it.
        #[n(5)]
        operator: String,
    },
    /// Headquarters' list enrolled a device.
    #[n(105)]
    #[cbor(map)]
    DeviceListed {
        /// The device.
        #[n(1)]
        registration: Registration,
        /// The list's version.
        #[n(2)]
        list: u64,
    },
    /// Headquarters' list shut a device out.
    #[n(106)]
    #[cbor(map)]
    DeviceShutOut {
        /// Which.
        #[n(1)]
        device: DeviceId,
        /// The list's version.
        #[n(2)]
        list: u64,
        /// Whether it names the device as revoked; otherwise it leaves out a
        /// device that an earlier list had enrolled or approved.
        #[n(3)]
        revoked: bool,
    },
    /// A device was enrolled in the place of another, which is blocked by
    /// this.
    #[n(107)]
    #[cbor(map)]
    DeviceReplaced {
        /// The new device, with name and class of the old one.
        #[n(1)]
        registration: Registration,
        /// The old one.
        #[n(2)]
        replaces: DeviceId,
        /// Whether the old one is lost.
        #[n(3)]
        lost: bool,
        /// Who made the code.
        #[n(4)]
        operator: String,
    },
    /// Requests of one device came in turns over connections from different
    /// addresses: its keys are in two places.
    #[n(108)]
    #[cbor(map)]
    DeviceInTwoPlaces {
        /// Which.
        #[n(1)]
        device: DeviceId,
        /// How often it went back to an address that it had left.
        #[n(2)]
        returns: u32,
    },
    /// A device has sent clear card numbers again and again, which were
    /// refused: nothing is approved offline for it until a person lifts that.
    #[n(130)]
    #[cbor(map)]
    CardNumbersSent {
        /// Which device.
        #[n(1)]
        device: DeviceId,
        /// How many requests within an hour held one.
        #[n(2)]
        count: u32,
    },
    /// A closed segment of the journal was written to an archive.
    #[n(71)]
    #[cbor(map)]
    SegmentArchived {
        /// The segment's number, and the archive's.
        #[n(1)]
        number: u32,
        /// The last entry in it.
        #[n(2)]
        last: u64,
        /// SHA-256 over the archive file.
        #[n(3)]
        digest: Digest,
    },
    /// A person copied an archive away from the hub.
    #[n(72)]
    #[cbor(map)]
    ArchiveExported {
        /// Which.
        #[n(1)]
        number: u32,
        /// SHA-256 over the archive file, read back from the copy.
        #[n(2)]
        digest: Digest,
        /// Who.
        #[n(3)]
        operator: String,
    },
    /// The hub signs with another key from the next entry on. This one is the
    /// last of its group.
    #[n(120)]
    #[cbor(map)]
    HubKeyChanged {
        /// The signed [`HubKeyChange`](crate::HubKeyChange).
        #[n(1)]
        statement: SignedKeyChange,
        /// Who.
        #[n(2)]
        operator: String,
    },
    /// The key of the store is wrapped under another vault key. The old wrap
    /// is destroyed after this entry.
    #[n(111)]
    #[cbor(map)]
    VaultKeyChanged {
        /// The new vault key's id: the first 8 bytes of HMAC-SHA-256 of
        /// `hub-vault-key/1` under it.
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        key: [u8; 8],
        /// The old one's.
        #[n(2)]
        #[cbor(with = "minicbor::bytes")]
        old_key: [u8; 8],
        /// Who.
        #[n(3)]
        operator: String,
    },
    /// The hub is reached under another TLS key from here on, and under the
    /// one until now as well.
    #[n(121)]
    #[cbor(map)]
    HubTlsKeyAdded {
        /// The number of the [`HubTlsKeys`](crate::HubTlsKeys) that says so.
        #[n(1)]
        number: u32,
        /// SHA-256 over the new key's SubjectPublicKeyInfo.
        #[n(2)]
        key: Digest,
        /// The same of the one until now.
        #[n(3)]
        beside: Digest,
        /// Who.
        #[n(4)]
        operator: String,
    },
    /// Of the two TLS keys under which the hub was reached one is left.
    #[n(122)]
    #[cbor(map)]
    HubTlsKeyDropped {
        /// The number of the [`HubTlsKeys`](crate::HubTlsKeys) that says so.
        #[n(1)]
        number: u32,
        /// The one that is left.
        #[n(2)]
        key: Digest,
        /// The one that counts no more.
        #[n(3)]
        dropped: Digest,
        /// Who.
        #[n(4)]
        operator: String,
    },
    /// A device connects and signs with other keys from here on. It is the same
    /// device: nothing that is counted for it changes.
    #[n(125)]
    #[cbor(map)]
    DeviceKeysChanged {
        /// Which, by its name.
        #[n(1)]
        device: DeviceId,
        /// Counts its changes from 1.
        #[n(2)]
        number: u32,
        /// The Ed25519 public key from here on.
        #[n(3)]
        #[cbor(with = "minicbor::bytes")]
        signing_key: [u8; 32],
        /// SHA-256 over the new TLS key's SubjectPublicKeyInfo.
        #[n(4)]
        tls_key: Digest,
        /// The highest number of a request that the old key has signed.
        #[n(5)]
        last_sequence: u64,
        /// The signed [`DeviceKeyChange`](crate::DeviceKeyChange) as received.
        #[n(6)]
        #[cbor(with = "minicbor::bytes")]
        statement: Vec<u8>,
    },
    /// A device has connected with its new TLS key: the one before lets nobody
    /// in any more.
    #[n(126)]
    #[cbor(map)]
    DeviceKeysSettled {
        /// Which.
        #[n(1)]
        device: DeviceId,
        /// The number of the change.
        #[n(2)]
        number: u32,
    },
    /// Somebody connected with a TLS key that a device had before, and was
    /// turned away: a copy of the device.
    #[n(127)]
    #[cbor(map)]
    DeviceOldKeysUsed {
        /// Which.
        #[n(1)]
        device: DeviceId,
    },
    /// The key of the store is wrapped under another recovery key of
    /// headquarters', or under none any more, as the hub's configuration has
    /// it.
    #[n(128)]
    #[cbor(map)]
    RecoveryKeyChanged {
        /// The recovery key's id: the first 8 bytes of SHA-256 of
        /// `hub-recovery-key/1` and the public key. `None`: there is none.
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        key: Option<[u8; 8]>,
        /// The one until now.
        #[n(2)]
        #[cbor(with = "minicbor::bytes")]
        old_key: Option<[u8; 8]>,
    },
    /// The key of the store was unwrapped by a recovery key, while the hub did
    /// not run, and is wrapped under a new vault key since.
    #[n(129)]
    #[cbor(map)]
    StoreRecovered {
        /// The new vault key's id, as in [`VaultKeyChanged`](Self::VaultKeyChanged).
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        vault_key: [u8; 8],
        /// The recovery key's id.
        #[n(2)]
        #[cbor(with = "minicbor::bytes")]
        recovery_key: [u8; 8],
        /// Who.
        #[n(3)]
        operator: String,
    },
    /// A day, month or year is over.
    #[n(112)]
    #[cbor(map)]
    PeriodClosed {
        /// What was done in it.
        #[n(1)]
        closure: Closure,
    },
    /// An archive that had been copied away was removed from the hub's disk.
    #[n(73)]
    #[cbor(map)]
    ArchiveRemoved {
        /// Which.
        #[n(1)]
        number: u32,
        /// SHA-256 over the archive file.
        #[n(2)]
        digest: Digest,
    },
}

impl Event {
    /// The event's number.
    pub const fn number(&self) -> u16 {
        match self {
            Self::HubStarted { .. } => 1,
            Self::HubStopped => 2,
            Self::PaymentOpened { .. } => 10,
            Self::PaymentDecided { .. } => 11,
            Self::PaymentSettled { .. } => 12,
            Self::PaymentVoided { .. } => 13,
            Self::PaymentReversed { .. } => 14,
            Self::PaymentParked { .. } => 15,
            Self::PaymentReleased { .. } => 16,
            Self::PaymentClosed { .. } => 109,
            Self::PaymentRetryScheduled { .. } => 17,
            Self::PaymentRetryDue { .. } => 18,
            Self::DeviceEnrolled { .. } => 20,
            Self::DeviceBlocked { .. } => 21,
            Self::DeviceDescribed { .. } => 22,
            Self::PolicyActivated { .. } => 30,
            Self::RootApplied { .. } => 110,
            Self::WanChanged { .. } => 40,
            Self::ClockChanged { .. } => 50,
            Self::OperatorActed { .. } => 60,
            Self::StorageChanged { .. } => 70,
            Self::AnomalyFound { .. } => 80,
            Self::RestrictionChanged { .. } => 81,
            Self::AllowanceGiven { .. } => 90,
            Self::AllowanceSpent { .. } => 91,
            Self::AllowanceReturned { .. } => 92,
            Self::AllowanceMisused { .. } => 93,
            Self::AllowancePaymentRefused { .. } => 94,
            Self::AllowanceForked { .. } => 95,
            Self::FleetTokenMade { .. } => 100,
            Self::FleetTokenWithdrawn { .. } => 101,
            Self::FleetDeviceEnrolled { .. } => 102,
            Self::DeviceApproved { .. } => 103,
            Self::DeviceListTaken { .. } => 104,
            Self::DeviceListed { .. } => 105,
            Self::DeviceShutOut { .. } => 106,
            Self::DeviceReplaced { .. } => 107,
            Self::DeviceInTwoPlaces { .. } => 108,
            Self::CardNumbersSent { .. } => 130,
            Self::SegmentArchived { .. } => 71,
            Self::ArchiveExported { .. } => 72,
            Self::ArchiveRemoved { .. } => 73,
            Self::HubKeyChanged { .. } => 120,
            Self::VaultKeyChanged { .. } => 111,
            Self::PeriodClosed { .. } => 112,
            Self::HubTlsKeyAdded { .. } => 121,
            Self::HubTlsKeyDropped { .. } => 122,
            Self::DeviceKeysChanged { .. } => 125,
            Self::DeviceKeysSettled { .. } => 126,
            Self::DeviceOldKeysUsed { .. } => 127,
            Self::RecoveryKeyChanged { .. } => 128,
            Self::StoreRecovered { .. } => 129,
        }
    }

    /// The event's name, as people see it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::HubStarted { .. } => "hub-started",
            Self::HubStopped => "hub-stopped",
            Self::PaymentOpened { .. } => "payment-opened",
            Self::PaymentDecided { .. } => "payment-decided",
            Self::PaymentSettled { .. } => "payment-settled",
            Self::PaymentVoided { .. } => "payment-voided",
            Self::PaymentReversed { .. } => "payment-reversed",
            Self::PaymentParked { .. } => "payment-parked",
            Self::PaymentReleased { .. } => "payment-released",
            Self::PaymentClosed { .. } => "payment-closed",
            Self::PaymentRetryScheduled { .. } => "payment-retry-scheduled",
            Self::PaymentRetryDue { .. } => "payment-retry-due",
            Self::DeviceEnrolled { .. } => "device-enrolled",
            Self::DeviceBlocked { .. } => "device-blocked",
            Self::DeviceDescribed { .. } => "device-described",
            Self::PolicyActivated { .. } => "policy-activated",
            Self::RootApplied { .. } => "root-applied",
            Self::WanChanged { .. } => "wan-changed",
            Self::ClockChanged { .. } => "clock-changed",
            Self::OperatorActed { .. } => "operator-acted",
            Self::StorageChanged { .. } => "storage-changed",
            Self::AnomalyFound { .. } => "anomaly-found",
            Self::RestrictionChanged { .. } => "restriction-changed",
            Self::AllowanceGiven { .. } => "allowance-given",
            Self::AllowanceSpent { .. } => "allowance-spent",
            Self::AllowanceReturned { .. } => "allowance-returned",
            Self::AllowanceMisused { .. } => "allowance-misused",
            Self::AllowancePaymentRefused { .. } => "allowance-payment-refused",
            Self::AllowanceForked { .. } => "allowance-forked",
            Self::FleetTokenMade { .. } => "fleet-token-made",
            Self::FleetTokenWithdrawn { .. } => "fleet-token-withdrawn",
            Self::FleetDeviceEnrolled { .. } => "fleet-device-enrolled",
            Self::DeviceApproved { .. } => "device-approved",
            Self::DeviceListTaken { .. } => "device-list-taken",
            Self::DeviceListed { .. } => "device-listed",
            Self::DeviceShutOut { .. } => "device-shut-out",
            Self::DeviceReplaced { .. } => "device-replaced",
            Self::DeviceInTwoPlaces { .. } => "device-in-two-places",
            Self::CardNumbersSent { .. } => "card-numbers-sent",
            Self::SegmentArchived { .. } => "segment-archived",
            Self::ArchiveExported { .. } => "archive-exported",
            Self::ArchiveRemoved { .. } => "archive-removed",
            Self::PeriodClosed { .. } => "period-closed",
            Self::HubKeyChanged { .. } => "hub-key-changed",
            Self::VaultKeyChanged { .. } => "vault-key-changed",
            Self::HubTlsKeyAdded { .. } => "hub-tls-key-added",
            Self::HubTlsKeyDropped { .. } => "hub-tls-key-dropped",
            Self::DeviceKeysChanged { .. } => "device-keys-changed",
            Self::DeviceKeysSettled { .. } => "device-keys-settled",
            Self::DeviceOldKeysUsed { .. } => "device-old-keys-used",
            Self::RecoveryKeyChanged { .. } => "recovery-key-changed",
            Self::StoreRecovered { .. } => "store-recovered",
        }
    }

    /// Whether it stands in clear in a ledger whose entries are
    /// [sealed](crate::EntrySeal): what is needed before there is a key, and
    /// names no person, card or payment.
    pub const fn is_in_clear(&self) -> bool {
        matches!(
            self,
            Self::HubStarted { .. }
                | Self::HubStopped
                | Self::SegmentArchived { .. }
                | Self::ArchiveRemoved { .. }
                | Self::HubKeyChanged { .. }
                | Self::VaultKeyChanged { .. }
        )
    }

    /// The payment that the event is about, if it is about one.
    pub const fn payment_id(&self) -> Option<PaymentId> {
        match self {
            Self::PaymentOpened { payment_id, .. }
            | Self::PaymentDecided { payment_id, .. }
            | Self::PaymentSettled { payment_id, .. }
            | Self::PaymentVoided { payment_id, .. }
            | Self::PaymentReversed { payment_id, .. }
            | Self::PaymentParked { payment_id, .. }
            | Self::PaymentReleased { payment_id, .. }
            | Self::PaymentClosed { payment_id, .. }
            | Self::PaymentRetryScheduled { payment_id, .. }
            | Self::PaymentRetryDue { payment_id } => Some(*payment_id),
            _ => None,
        }
    }
}
