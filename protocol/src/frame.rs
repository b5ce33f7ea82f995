//! Frames: what travels on a QUIC stream.
//!
//! A frame is a length (u32, big-endian) and that many bytes of CBOR, an
//! array of the frame's number and a map of its fields. One request a
//! client-opened bidirectional stream, then FIN; the answer the same way.
//! A push is one frame on a stream that the hub opens.

use minicbor::{Decode, Encode};

use crate::allowance::AllowanceChain;
use crate::card_number::bytes_hold_card_number;
use crate::cbor;
use crate::id::{HubId, PaymentId};
use crate::key_change::SignedKeyChange;
use crate::payment::{SealedCard, check_payment_id, check_text, clear_card_number};
use crate::refusal::{Refusal, RefusalCode};
use crate::tls_keys::SignedTlsKeys;

/// The longest frame, in bytes, without its length.
pub const MAX_FRAME: usize = 16 * 1024;

/// What a device asks.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// Who are you, and what time is it?
    #[n(1)]
    #[cbor(map)]
    Hello {
        /// The device app's name and version, 1 to 64 bytes.
        #[n(1)]
        app: String,
    },
    /// Decide this payment.
    #[n(2)]
    #[cbor(map)]
    Pay {
        /// A signed [`PaymentRequest`](crate::PaymentRequest).
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        request: Vec<u8>,
        /// The sealed card data.
        #[n(2)]
        sealed_card: SealedCard,
    },
    /// Void this payment.
    #[n(3)]
    #[cbor(map)]
    Void {
        /// A signed [`VoidRequest`](crate::VoidRequest).
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        request: Vec<u8>,
    },
    /// Where does this payment stand?
    #[n(4)]
    #[cbor(map)]
    Status {
        /// Which.
        #[n(1)]
        payment_id: PaymentId,
    },
    /// Enrol this device; only on the enrolment endpoint.
    #[n(5)]
    #[cbor(map)]
    Enrol {
        /// A signed [`EnrolmentRequest`](crate::EnrolmentRequest).
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        request: Vec<u8>,
    },
    /// What this device is; from wire version 3 on.
    #[n(6)]
    #[cbor(map)]
    Describe {
        /// A signed [`DeviceDescription`](crate::DeviceDescription).
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        description: Vec<u8>,
        /// A signed [`AttestationResult`](crate::AttestationResult), if it
        /// has one.
        #[n(2)]
        #[cbor(with = "minicbor::bytes")]
        attestation: Option<Vec<u8>>,
    },
    /// Give this device an allowance, or the one again that it has not
    /// returned.
    #[n(7)]
    #[cbor(map)]
    Allowance {
        /// The highest number of an allowance that the device has had and
        /// closed, if there is one: the next has a higher one.
        #[n(1)]
        closed: Option<u64>,
    },
    /// Take note of a payment that the device approved under an allowance.
    #[n(8)]
    #[cbor(map)]
    Sync {
        /// The allowance's number.
        #[n(1)]
        number: u64,
        /// A signed [`PaymentRequest`](crate::PaymentRequest).
        #[n(2)]
        #[cbor(with = "minicbor::bytes")]
        request: Vec<u8>,
        /// The sealed card data.
        #[n(3)]
        sealed_card: SealedCard,
        /// A signed [`DeviceReceipt`](crate::DeviceReceipt).
        #[n(4)]
        #[cbor(with = "minicbor::bytes")]
        receipt: Vec<u8>,
    },
    /// Close an allowance: what was not used goes back.
    #[n(9)]
    #[cbor(map)]
    Return {
        /// A signed [`AllowanceReturn`](crate::AllowanceReturn).
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        statement: Vec<u8>,
    },
    /// Which signing keys has the hub had? From wire version 4 on.
    #[n(10)]
    #[cbor(map)]
    Keys {
        /// How many of their changes the device knows.
        #[n(1)]
        known: u32,
    },
    /// This device connects and signs with other keys from now on. From wire
    /// version 6 on: in version 5 it was without the new TLS key's signature.
    #[n(11)]
    #[cbor(map)]
    ChangeKeys {
        /// A signed [`DeviceKeyChange`](crate::DeviceKeyChange).
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        change: Vec<u8>,
    },
}

impl Request {
    /// [`from_wire`] on a connection of this wire version: a frame of a later
    /// one is not known there, whatever is wrong with it besides.
    pub fn from_wire(bytes: &[u8], wire_version: u16) -> Result<Self, Refusal> {
        let read = from_wire(bytes);
        match number_on_wire(bytes) {
            Some(number) if Self::since(number) > wire_version => Err(unknown_frame(number)),
            _ => read,
        }
    }

    /// The wire version that a frame's number came with.
    const fn since(number: i64) -> u16 {
        match number {
            6..=9 => 3,
            10 => 4,
            11 => 6,
            _ => 1,
        }
    }

    /// Holds what is not signed to the ranges that the protocol states.
    pub fn check(&self) -> Result<(), Refusal> {
        match self {
            Self::Hello { app } => check_text("app", app),
            Self::Status { payment_id } => check_payment_id(payment_id),
            Self::Describe {
                attestation: Some(word),
                ..
            } if bytes_hold_card_number(word) => Err(clear_card_number("attestation")),
            _ => Ok(()),
        }
    }
}

/// Who the hub is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct HubInfo {
    /// The hub's identity.
    #[n(1)]
    pub hub: HubId,
    /// The wire version it speaks.
    #[n(2)]
    pub wire_version: u16,
    /// What people call the shop.
    #[n(3)]
    pub store: String,
    /// The hub's clock, milliseconds since 1970 UTC.
    #[n(4)]
    pub time_ms: u64,
    /// The policy in force; 0 for none.
    #[n(5)]
    pub policy_version: u64,
    /// Whether the gateway answers.
    #[n(6)]
    pub wan: crate::entry::WanState,
}

/// What the hub answers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// To [`Request::Hello`].
    #[n(101)]
    #[cbor(map)]
    Hello {
        /// Who the hub is.
        #[n(1)]
        info: HubInfo,
    },
    /// To [`Request::Pay`]: the decision.
    #[n(102)]
    #[cbor(map)]
    Receipt {
        /// A [`CommittedReceipt`](crate::CommittedReceipt).
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        receipt: Vec<u8>,
    },
    /// To [`Request::Void`] and [`Request::Status`].
    #[n(103)]
    #[cbor(map)]
    Status {
        /// A signed [`PaymentStatus`](crate::PaymentStatus).
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        status: Vec<u8>,
        /// A [`CommittedReceipt`](crate::CommittedReceipt), once there is a
        /// decision.
        #[n(2)]
        #[cbor(with = "minicbor::bytes")]
        receipt: Option<Vec<u8>>,
    },
    /// To [`Request::Enrol`].
    #[n(105)]
    #[cbor(map)]
    Enrolled {
        /// A signed [`Registration`](crate::Registration).
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        registration: Vec<u8>,
    },
    /// To [`Request::Describe`].
    #[n(106)]
    #[cbor(map)]
    Described {
        /// Whether the attestation result counts under the policy in force.
        #[n(1)]
        attested: bool,
    },
    /// To [`Request::Allowance`].
    #[n(107)]
    #[cbor(map)]
    Allowance {
        /// A signed [`Allowance`](crate::Allowance).
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        allowance: Vec<u8>,
        /// How far the hub knows its chain.
        #[n(2)]
        chain: AllowanceChain,
    },
    /// To [`Request::Sync`]: the decision, the device's or one that was made
    /// before.
    #[n(108)]
    #[cbor(map)]
    Synced {
        /// A [`CommittedReceipt`](crate::CommittedReceipt).
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        receipt: Vec<u8>,
    },
    /// To [`Request::Return`]: the allowance is closed.
    #[n(109)]
    #[cbor(map)]
    Returned {
        /// Its number.
        #[n(1)]
        number: u64,
    },
    /// To [`Request::Keys`].
    #[n(110)]
    #[cbor(map)]
    Keys {
        /// The next changes that the device does not know, each a signed
        /// [`HubKeyChange`](crate::HubKeyChange), at most
        /// [`MOST_KEY_CHANGES`](crate::MOST_KEY_CHANGES).
        #[n(1)]
        changes: Vec<SignedKeyChange>,
    },
    /// To [`Request::ChangeKeys`]: the new keys are the device's.
    #[n(111)]
    #[cbor(map)]
    KeysChanged {
        /// The number of the change.
        #[n(1)]
        number: u32,
    },
    /// To anything: a numbered error.
    #[n(199)]
    #[cbor(map)]
    Refused {
        /// Which, and why.
        #[n(1)]
        refusal: Refusal,
    },
}

/// What the hub tells a connected device unasked.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Push {
    /// A payment of this device moved on: settled, declined at replay,
    /// reversed, parked.
    #[n(201)]
    #[cbor(map)]
    Status {
        /// A signed [`PaymentStatus`](crate::PaymentStatus).
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        status: Vec<u8>,
    },
    /// Another policy is in force.
    #[n(202)]
    #[cbor(map)]
    Policy {
        /// Its version.
        #[n(1)]
        version: u64,
    },
    /// The hub signs with another key from now on; from wire version 4 on.
    #[n(203)]
    #[cbor(map)]
    KeyChanged {
        /// A signed [`HubKeyChange`](crate::HubKeyChange).
        #[n(1)]
        change: SignedKeyChange,
    },
    /// The hub is reached under other TLS keys from now on; from wire version
    /// 5 on.
    #[n(204)]
    #[cbor(map)]
    TlsKeys {
        /// A signed [`HubTlsKeys`](crate::HubTlsKeys).
        #[n(1)]
        keys: SignedTlsKeys,
    },
}

/// A frame with its length in front, ready to be written to a stream.
pub fn to_wire<T: Encode<()>>(frame: &T) -> Vec<u8> {
    let body = cbor::encode(frame);
    let mut out = Vec::with_capacity(4 + body.len());
    // A frame above 4 GiB cannot be built from parts that are each bounded.
    out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&body);
    out
}

/// Reads everything that a peer sent on one stream, up to and including FIN:
/// exactly one frame.
pub fn from_wire<T>(bytes: &[u8]) -> Result<T, Refusal>
where
    T: Encode<()> + for<'b> Decode<'b, ()>,
{
    let Some((length, body)) = bytes.split_first_chunk::<4>() else {
        return Err(Refusal::new(
            RefusalCode::Truncated,
            "the frame ends inside its length",
        ));
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > MAX_FRAME {
        return Err(oversized());
    }
    match body.len() {
        have if have < length => Err(Refusal::new(
            RefusalCode::Truncated,
            "the frame is shorter than its length says",
        )),
        have if have > length => Err(Refusal::new(RefusalCode::Trailing, "bytes follow the frame")),
        _ => decode_body(body),
    }
}

/// The refusal of a frame above [`MAX_FRAME`].
pub fn oversized() -> Refusal {
    Refusal::new(RefusalCode::Oversized, "a frame has at most 16384 bytes")
}

fn decode_body<T>(body: &[u8]) -> Result<T, Refusal>
where
    T: Encode<()> + for<'b> Decode<'b, ()>,
{
    cbor::decode(body).map_err(|error| match error {
        // How a device finds out that the hub is older, or that it used the
        // wrong endpoint. Only the frame's own number counts.
        cbor::CborError::UnknownVariant(number) if own_number(body) == Some(number) => unknown_frame(number),
        error => error.into(),
    })
}

fn unknown_frame(number: i64) -> Refusal {
    Refusal::new(
        RefusalCode::UnknownFrame,
        format!("frame number {number} is not known here"),
    )
}

/// The number of a frame whose bytes are one whole message. Faults of the
/// bytes' shape come before that of a number.
fn number_on_wire(bytes: &[u8]) -> Option<i64> {
    let (length, body) = bytes.split_first_chunk::<4>()?;
    let whole = usize::try_from(u32::from_be_bytes(*length)).ok()? == body.len() && body.len() <= MAX_FRAME;
    (whole && cbor::scan(body).is_ok())
        .then(|| own_number(body))
        .flatten()
}

fn own_number(body: &[u8]) -> Option<i64> {
    let mut decoder = minicbor::Decoder::new(body);
    decoder.array().ok()?;
    decoder.i64().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(body: &[u8]) -> Vec<u8> {
        [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
    }

    /// As a hub of that version, which does not look into it.
    #[test]
    fn a_frame_of_a_later_version_is_unknown_whatever_is_wrong_with_it() {
        for number in 6..=9_u8 {
            let bodies: [(&str, Vec<u8>); 4] = [
                ("a wrong type", vec![0x82, number, 0xa1, 0x01, 0xf6]),
                ("a field too many", vec![0x82, number, 0xa1, 0x09, 0x00]),
                ("no map", vec![0x82, number, 0x00]),
                ("a float", vec![0x82, number, 0xa1, 0x01, 0xf9, 0x3c, 0x00]),
            ];
            for (what, body) in bodies {
                for version in [1, 2] {
                    let refusal = Request::from_wire(&framed(&body), version).unwrap_err();
                    assert_eq!(refusal.code, RefusalCode::UnknownFrame, "{number}: {what}");
                }
                let refusal = Request::from_wire(&framed(&body), 3).unwrap_err();
                assert_ne!(refusal.code, RefusalCode::UnknownFrame, "{number}: {what}");
            }
        }
        let keys = to_wire(&Request::Keys { known: 0 });
        let refused = Request::from_wire(&keys, 3).unwrap_err();
        assert_eq!(refused.code, RefusalCode::UnknownFrame, "wire version 4 has it");
        assert!(Request::from_wire(&keys, 4).is_ok());
        let hello = to_wire(&Request::Hello { app: "till".into() });
        let asked = to_wire(&Request::Allowance { closed: None });
        assert!(Request::from_wire(&hello, 1).is_ok() && Request::from_wire(&asked, 3).is_ok());
        let unknown = Request::from_wire(&asked, 2).unwrap_err();
        assert_eq!(unknown.code, RefusalCode::UnknownFrame);
    }

    #[test]
    fn faults_of_the_bytes_shape_come_before_an_unknown_number() {
        let asked = to_wire(&Request::Allowance { closed: Some(1) });
        let longer = [&asked[..], &[0]].concat();
        for (bytes, code) in [
            (&asked[..asked.len() - 1], RefusalCode::Truncated),
            (&framed(&asked[4..asked.len() - 1]), RefusalCode::Truncated),
            (&longer, RefusalCode::Trailing),
            (&framed(&longer[4..]), RefusalCode::Trailing),
            (&framed(&[0x82, 0x18, 0x07, 0xa0]), RefusalCode::NotCanonical),
        ] {
            assert_eq!(Request::from_wire(bytes, 2).unwrap_err().code, code);
        }
    }
}
