//! What can go wrong on the device's side.

use std::io;
use std::path::PathBuf;

use hub_protocol::{Refusal, RefusalCode};

/// Keys, files, discovery and enrolment.
#[derive(Debug, thiserror::Error)]
pub enum SdkError {
    /// A file could not be read or written.
    #[error("cannot use {path}; check that the directory exists and belongs to this program")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} is damaged; enrol this device again")]
    Damaged {
        /// Which.
        path: PathBuf,
    },
    /// The TLS key could not be made or read.
    #[error("the device's TLS key could not be made")]
    Key(#[from] rcgen::Error),
    /// The TLS key would not sign.
    #[error("the device's next TLS key would not sign for itself; change the keys again")]
    Signing,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Entropy(#[from] getrandom::Error),
    /// rustls would not take key and certificate.
    #[error("the TLS configuration was refused")]
    Tls(#[from] rustls::Error),
    /// The TLS library lacks the cipher suite that QUIC begins with.
    #[error("the TLS library lacks TLS13_AES_128_GCM_SHA256, which QUIC needs")]
    Suite(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// mDNS failed.
    #[error("mDNS discovery failed; give the hub's address by hand")]
    Discovery(#[from] mdns_sd::Error),
    /// The system would not start a thread.
    #[error("a thread could not be started")]
    Thread(#[source] io::Error),
    /// The enrolment code names no address that can be tried.
    #[error("the enrolment code names no address; take another with `hubctl enrol`")]
    NoAddress,
    /// The hub was not reached.
    #[error(
        "the hub was not reached; is this device on the shop's network, and the code still good? (a code works once; `hubctl enrol` makes a new one)"
    )]
    NotReached(#[source] LinkError),
    /// The hub refused.
    #[error("the hub refused: {0}")]
    Refused(Refusal),
    /// The hub's answer does not hold.
    #[error("the hub's answer does not hold: {0}")]
    Unverifiable(#[from] VerifyError),
}

/// Why an exchange with the hub did not come to its end. Nothing is known
/// about the payment: ask again with the same bytes.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkError {
    /// No address of the hub is known.
    #[error("no address of the hub is known; enable discovery or give one")]
    NoAddress,
    /// No address answered in time.
    #[error("the hub did not answer at any of its addresses")]
    NoAnswer,
    /// No socket could be opened.
    #[error("no UDP socket could be opened: {0}")]
    Socket(io::ErrorKind),
    /// The connection was not made or broke.
    #[error("the connection failed: {0}")]
    Connection(#[from] quinn::ConnectionError),
    /// The stream broke.
    #[error("the hub broke off the exchange")]
    Stream,
    /// The request was not answered in time.
    #[error("the hub did not answer in time")]
    TimedOut,
    /// Nothing at all came from the hub while the request waited: the path to
    /// it is dead.
    #[error("nothing came from the hub any more")]
    Silent,
}

/// Why a request to the hub has no good answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PayError {
    /// A numbered refusal. Nothing was decided and nothing was charged.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The hub shuts this device out: it is blocked or not enrolled.
    #[error("the hub shuts this device out: it is blocked or not enrolled there; ask the manager")]
    NotAllowed,
    /// What came does not hold; it must not be shown as an answer. The payment
    /// may have been decided: ask again with the same bytes.
    #[error("the hub's answer does not hold: {0}")]
    Unverifiable(#[from] VerifyError),
    /// The hub was not reached or the answer did not come. The payment may
    /// have been decided: ask again with the same bytes.
    #[error("no answer: {0}; ask again with the same payment")]
    NoAnswer(#[from] LinkError),
    /// What is asked for came with a later wire version than the hub speaks:
    /// terms with version 3, other keys with version 6. Nothing was sent.
    #[error(
        "this hub is too old for refunds, cash-back, staff and training, or for a change of the device's keys; update \
         it, or make the payment without terms"
    )]
    HubTooOld,
    /// The time for trying is over. The payment may have been decided: ask
    /// again with the same bytes.
    #[error("no answer after {tries} tries: {last}; ask again with the same payment")]
    GaveUp {
        /// How many.
        tries: u32,
        /// What came of the last.
        last: Box<PayError>,
    },
}

impl PayError {
    /// Whether asking again with the same bytes, in a moment, can lead to an
    /// answer. While a device waits to be approved a person has to act first:
    /// the cashier is told at once.
    pub fn transient(&self) -> bool {
        match self {
            Self::Refused(refusal) if refusal.code == RefusalCode::DevicePending => false,
            Self::Refused(refusal) => refusal.code.transient(),
            Self::NotAllowed | Self::HubTooOld => false,
            Self::Unverifiable(_) | Self::NoAnswer(_) | Self::GaveUp { .. } => true,
        }
    }

    /// The number of the refusal, if it is one.
    pub fn refusal_code(&self) -> Option<RefusalCode> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            Self::NotAllowed => Some(RefusalCode::DeviceNotAllowed),
            Self::GaveUp { last, .. } => last.refusal_code(),
            Self::HubTooOld | Self::Unverifiable(_) | Self::NoAnswer(_) => None,
        }
    }
}

/// Why something about an allowance was not done.
#[derive(Debug, thiserror::Error)]
pub enum AllowanceError {
    /// The hub refused, was not reached, or its answer does not hold.
    #[error(transparent)]
    Hub(#[from] PayError),
    /// The hub has first to be told of so many payments
    /// ([`sync`](crate::DeviceClient::sync)), or they would belong to an
    /// allowance of the past.
    #[error("the hub has not been told of {0} payments yet; tell it first")]
    Unsynced(usize),
    /// The device's file could not be written. Nothing has changed.
    #[error(transparent)]
    File(#[from] SdkError),
}

impl AllowanceError {
    /// The number of the refusal, if it is one.
    pub fn refusal_code(&self) -> Option<RefusalCode> {
        match self {
            Self::Hub(error) => error.refusal_code(),
            Self::Unsynced(_) | Self::File(_) => None,
        }
    }
}

/// Why a device's keys were not changed.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The hub refused, was not reached, or its answer does not hold.
    #[error(transparent)]
    Hub(#[from] PayError),
    /// The new keys could not be made or written. The old ones still count.
    #[error(transparent)]
    Keys(#[from] SdkError),
}

/// What in an answer does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The frame does not decode.
    #[error("its frame is malformed ({0})")]
    Frame(RefusalCode),
    /// Another kind of answer than the one asked for.
    #[error("it is an answer to something else")]
    OtherAnswer,
    /// The signature is not the hub's.
    #[error("its signature: {0}")]
    Signature(#[from] hub_protocol::cose::CoseError),
    /// The hub has not signed that the receipt's entry is on its disk.
    #[error("its proof: {0}")]
    Proof(#[from] hub_protocol::ProofError),
    /// A change of the hub's signing key is not what the known key goes on
    /// with.
    #[error("{0}")]
    Keys(#[from] hub_protocol::KeyChainError),
    /// A statement of the hub's TLS keys does not hold.
    #[error("{0}")]
    TlsKeys(#[from] hub_protocol::TlsKeysError),
    /// The payload does not decode.
    #[error("its content: {0}")]
    Content(#[from] hub_protocol::cbor::CborError),
    /// A field is not what was asked for.
    #[error("it differs in {0} from what was asked")]
    Differs(&'static str),
}

impl VerifyError {
    /// Whether it is signed by a key that this device does not know, or that
    /// had given way by then: the hub's may have changed.
    pub(crate) fn is_other_key(&self) -> bool {
        use hub_protocol::ProofError::Commit;
        use hub_protocol::cose::CoseError::UnknownKey;
        matches!(
            self,
            Self::Signature(UnknownKey) | Self::Proof(Commit(UnknownKey))
        )
    }
}
