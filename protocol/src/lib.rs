//! What goes over the wire between payment devices and a hub, and what is
//! signed: the payment request, the receipt, the ledger entry, the enrolment.
//!
//! Pure: no I/O, no clock, no randomness, no async. Devices link this crate
//! too. `docs/protocol.md` is the contract in words and `protocol/vectors`
//! holds the bytes.
//!
//! Standards followed: CBOR in its deterministic form (RFC 8949 §4.2), COSE
//! (RFC 9052) with the fully specified algorithm Ed25519 (RFC 9864),
//! currencies by ISO 4217, countries by ISO 3166-1, amounts in minor units.

pub mod allowance;
pub mod anomaly;
mod archive;
pub mod card_blob;
pub mod card_number;
pub mod cbor;
mod closure;
mod codes;
pub mod commit;
pub mod cose;
pub mod description;
mod device_keys;
pub mod device_list;
pub mod discovery;
pub mod enrolment;
pub mod entry;
pub mod frame;
pub mod id;
mod key_change;
mod merchant_advice;
pub mod merkle;
pub mod money;
pub mod payment;
pub mod reason;
pub mod receipt;
pub mod refusal;
pub mod root;
pub mod score;
pub mod seal;
mod tls_keys;
mod totals;

pub use allowance::{
    Allowance, AllowanceChain, AllowanceMisuse, AllowanceReturn, DeviceReceipt, MAX_ALLOWANCE_COUNT,
};
pub use anomaly::{AnomalyKind, Restriction, RestrictionCause};
pub use archive::{ArchiveManifest, BasePolicy, BaseRoot, LedgerBase};
pub use card_blob::{CardBinding, CardBlob, SealScheme};
pub use closure::{Closure, Period};
pub use commit::{CommittedGroup, CommittedReceipt, LedgerCommit, ProofError, ReceiptGroup, ReceiptsRoot};
pub use description::{
    AttestationResult, AttestationStatus, Certification, Confirmed, DeviceDescription, Version,
};
pub use device_keys::DeviceKeyChange;
pub use device_list::{DeviceList, ListedDevice};
pub use enrolment::{EnrolmentCode, EnrolmentRequest, Registration};
pub use entry::{Entry, EntryTime, Event};
pub use frame::{Answer, Push, Request};
pub use id::{DeviceId, Digest, HubId, KeyId, PaymentId};
pub use key_change::{HubKeyChange, KeyChain, KeyChainError, MOST_KEY_CHANGES, SignedKeyChange};
pub use merchant_advice::{MerchantAdvice, MerchantAdviceError};
pub use money::{Currency, MAX_AMOUNT_MINOR};
pub use payment::{
    CardExpiry, CardFacts, CardScheme, Cryptogram, DeviceClass, EntryMode, Funding, Override, PaymentRequest,
    SealedCard, Terms, TransactionType, Verification, VoidRequest,
};
pub use reason::{Reason, Retry};
pub use receipt::{
    Decision, FallbackAction, GatewayResult, PaymentState, PaymentStatus, Receipt, Submission,
};
pub use refusal::{Refusal, RefusalCode};
pub use root::{Authority, Delegated, Delegation, NotAuthorised, Root, RootError, RootKey, SignedRoot, Term};
pub use score::{Score, ScoreFactor, ScorePart};
pub use seal::{DataKey, EntryKey, EntrySeal, SealedEntry, StoredPayload};
pub use tls_keys::{
    CertificateKeys, HubTlsKeys, MOST_CHANGES_IN_CERTIFICATE, MOST_TLS_KEYS, SignedTlsKeys, TLS_KEYS_OID,
    TlsKeysError, TlsPins,
};
pub use totals::{LedgerTotals, Total};

/// The application protocol that devices and hub agree on in the TLS
/// handshake. A wire version that is not compatible gets a new name.
pub const ALPN: &[u8] = b"store-hub/6";

/// The same of wire version 5, in which a device does not change its keys any
/// more, since it did not show that it had the TLS key that it named. Hubs
/// still speak it.
pub const ALPN_5: &[u8] = b"store-hub/5";

/// The same of wire version 4, in which a hub is known by the one TLS key that
/// it is named after. Hubs still speak it.
pub const ALPN_4: &[u8] = b"store-hub/4";

/// The same of wire version 3, whose sealed cards have no envelope
/// ([`CardBlob`]), and in which nobody hears of other keys. Hubs still speak it.
pub const ALPN_3: &[u8] = b"store-hub/3";

/// The same of wire version 2, whose requests have no
/// [`Terms`]. Hubs still speak it.
pub const ALPN_2: &[u8] = b"store-hub/2";

/// The same of wire version 1, in which every receipt has a signature of its
/// own ([`cose::ObjectType::Receipt`]). Hubs still speak it.
pub const ALPN_1: &[u8] = b"store-hub/1";

/// The application protocol of the enrolment endpoint, which is open only
/// while an enrolment code is outstanding.
pub const ALPN_ENROL: &[u8] = b"store-hub-enrol/1";

/// The wire version in mDNS TXT records and in [`frame::HubInfo`].
pub const WIRE_VERSION: u16 = 6;

/// The DNS-SD type under which a hub registers itself.
pub const MDNS_HUB_TYPE: &str = "_store-hub._udp.local.";

/// The DNS-SD type under which a payment device registers itself.
pub const MDNS_DEVICE_TYPE: &str = "_pos-device._udp.local.";
