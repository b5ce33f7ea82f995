//! One request: from the bytes of a stream to what the hub is asked.
//!
//! Everything that can be checked without the hub's state is checked here,
//! in this order: frame, signature, encoding, ranges, sealed card. The first
//! fault is the answer.

use std::time::Duration;

use ed25519_dalek::VerifyingKey;
use hub_protocol::cbor::CborError;
use hub_protocol::cose::{CoseError, ObjectType, Unverified};
use hub_protocol::frame::{self, MAX_FRAME};
use hub_protocol::{
    AllowanceReturn, Answer, CardBlob, DeviceDescription, DeviceId, DeviceKeyChange, DeviceReceipt,
    PaymentId, PaymentRequest, Refusal, RefusalCode, Request, SealedCard, VoidRequest, cbor,
};
use quinn::{ReadError, RecvStream};

use super::bounds::{Bound, Counts};
use super::registry::{RequestKeys, Standing};
use super::session::Peer;
use super::shared::{Shared, WireVersion};
use super::signatures::Signed;
use super::tls;
use crate::port::{Ask, Tell};

/// How long a device may take to send one frame.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest frame with its length before it.
const LONGEST: usize = 4 + MAX_FRAME;

/// Reads one frame, up to and including FIN. `None` if the peer reset the
/// stream or the connection is gone, so that nobody waits for an answer.
pub(super) async fn read_frame(
    counts: &Counts,
    recv: &mut RecvStream,
    wire: WireVersion,
) -> Option<Result<Request, Refusal>> {
    match tokio::time::timeout(READ_TIMEOUT, read_to_fin(recv)).await {
        Ok(Ok(Some(bytes))) => Some(Request::from_wire(&bytes, wire.number())),
        Ok(Ok(None)) => {
            counts.count(Bound::LongFrames);
            Some(Err(frame::oversized()))
        }
        Ok(Err(_)) => None,
        Err(_) => {
            counts.count(Bound::SlowStreams);
            Some(Err(Refusal::new(
                RefusalCode::Truncated,
                "the frame was not sent to its end within 5 seconds",
            )))
        }
    }
}

/// The bytes of a stream up to FIN; `None` if they are more than the longest
/// frame.
///
/// Read in order and copied, a piece at a time. A piece is a slice of the
/// packet that it came in, and keeps all of that: whoever sends one byte a
/// packet would have the hub keep a thousand times what it sent, since a
/// piece that is read counts against no window any more. In order, the
/// transport itself bounds what it keeps of pieces that wait for others.
async fn read_to_fin(recv: &mut RecvStream) -> Result<Option<Vec<u8>>, ReadError> {
    let mut bytes = Vec::new();
    // One byte more shows that it is too long.
    while let Some(piece) = recv.read_chunk(LONGEST + 1 - bytes.len(), true).await? {
        // Doubled as usual, but never beyond a frame.
        let wanted = bytes.len() + piece.bytes.len();
        if wanted > bytes.capacity() {
            let most = wanted.max(bytes.capacity() * 2).min(LONGEST + 1);
            bytes.reserve_exact(most - bytes.len());
        }
        bytes.extend_from_slice(&piece.bytes);
        if bytes.len() > LONGEST {
            return Ok(None);
        }
    }
    Ok(Some(bytes))
}

/// Answers a request of a device. That one held a clear card number is told
/// to the hub, and nothing else of it.
pub(super) async fn answer(shared: &Shared, peer: &Peer, request: Request) -> Result<Answer, Refusal> {
    let answer = checked_answer(shared, peer, request).await;
    if answer
        .as_ref()
        .is_err_and(|refusal| refusal.code == RefusalCode::ClearCardNumber)
    {
        let device = peer.device;
        shared.port.hint(Tell::CardNumber { device });
    }
    answer
}

async fn checked_answer(shared: &Shared, peer: &Peer, request: Request) -> Result<Answer, Refusal> {
    if shared.is_stopping() {
        return Err(stopping());
    }
    let (device, wire) = (peer.device, peer.wire);
    // Asked anew for each request: a device may be blocked while connected.
    let standing = shared.registry.owner(&peer.key).map(|(_, standing)| standing);
    let Some((keys, standing)) = shared.registry.request_keys(&device).zip(standing) else {
        return Err(Refusal::new(
            RefusalCode::DeviceNotAllowed,
            "this device is blocked or not enrolled; ask the manager",
        ));
    };
    request.check()?;
    let heard = match standing {
        Standing::Own { .. } => true,
        Standing::GivingWay => matches!(request, Request::Hello { .. } | Request::ChangeKeys { .. }),
        // The connection is about to be closed.
        Standing::Before => false,
    };
    if !heard {
        return Err(for_wire(replaced(), wire));
    }
    let key = keys.own;
    let ask = match request {
        Request::Hello { .. } => return Ok(shared.hello(wire)),
        Request::Keys { known } => return Ok(shared.key_changes(known)),
        Request::Pay {
            request: signed,
            sealed_card,
        } => {
            let object_type = payment_type(wire, &signed);
            let (key, last) = key_for(&keys, &signed);
            let (signed, payload) = verified(shared, peer, signed, object_type, key).await?;
            let request = Box::new(check_payment(&payload, object_type, &sealed_card)?);
            in_time(request.device_sequence, last, wire)?;
            if wire.number() >= 4
                && let Err(refusal) = CardBlob::from_blob(&sealed_card.blob)
                && !knows(shared, wire, device, request.payment_id).await?
            {
                return Err(refusal);
            }
            Ask::Pay {
                device,
                request,
                signed,
                sealed_card,
            }
        }
        Request::Void { request: signed } => {
            let (key, last) = key_for(&keys, &signed);
            let (signed, payload) = verified(shared, peer, signed, ObjectType::VoidRequest, key).await?;
            let request: VoidRequest = cbor::decode(&payload)?;
            in_time(request.device_sequence, last, wire)?;
            Ask::Void {
                device,
                request,
                signed,
            }
        }
        Request::ChangeKeys { change: signed } => {
            let change = match DeviceKeyChange::open(&signed, tls::check_p256) {
                Err(refusal) => {
                    if refusal.code == RefusalCode::SignatureBad {
                        shared.port.hint(Tell::BadSignature { device });
                    }
                    return Err(refusal);
                }
                Ok(change) => Box::new(change),
            };
            Ask::ChangeDeviceKeys {
                device,
                change,
                signed,
            }
        }
        Request::Describe {
            description: signed,
            attestation,
        } => {
            let (signed, payload) =
                verified(shared, peer, signed, ObjectType::DeviceDescription, key).await?;
            let description: DeviceDescription = cbor::decode(&payload)?;
            description.check()?;
            Ask::Describe {
                device,
                description: Box::new(description),
                signed,
                attestation,
            }
        }
        Request::Allowance { closed } => Ask::Allowance { device, closed },
        Request::Sync {
            number,
            request: signed,
            sealed_card,
            receipt,
        } => {
            let object_type = payment_type(wire, &signed);
            let ((key, last), (receipt_key, _)) = (key_for(&keys, &signed), key_for(&keys, &receipt));
            let payment =
                verified(shared, peer, signed, object_type, key)
                    .await
                    .and_then(|(signed, payload)| {
                        let request = check_payment(&payload, object_type, &sealed_card)?;
                        in_time(request.device_sequence, last, wire)?;
                        Ok((signed, Box::new(request)))
                    });
            let (signed_receipt, payload) =
                match verified(shared, peer, receipt, ObjectType::DeviceReceipt, receipt_key).await {
                    Ok(verified) => verified,
                    // The payment's own fault is told first.
                    Err(refusal) => return Err(payment.err().unwrap_or(refusal)),
                };
            let receipt: Box<DeviceReceipt> = match cbor::decode(&payload) {
                Ok(receipt) => Box::new(receipt),
                Err(error) => return Err(payment.err().unwrap_or_else(|| error.into())),
            };
            // Whatever becomes of the payment, its receipt is kept.
            receipt.check_ids()?;
            let checked = payment.and_then(|(signed, request)| {
                receipt.check(number, &request, &signed)?;
                Ok((signed, request))
            });
            match checked {
                Ok((signed, request)) => Ask::Sync {
                    device,
                    request,
                    signed,
                    sealed_card,
                    receipt,
                    signed_receipt,
                },
                Err(refusal) if refusal.code.transient() => return Err(refusal),
                // The device has approved it all the same.
                Err(refusal) => Ask::SyncRefused {
                    device,
                    receipt,
                    signed_receipt,
                    refusal,
                },
            }
        }
        Request::Return { statement: signed } => {
            let (signed, payload) = verified(shared, peer, signed, ObjectType::AllowanceReturn, key).await?;
            let statement: AllowanceReturn = cbor::decode(&payload)?;
            statement.check_ids()?;
            Ask::Return {
                device,
                statement,
                signed,
            }
        }
        Request::Status { payment_id } => Ask::Status { device, payment_id },
        Request::Enrol { .. } => {
            return Err(Refusal::new(
                RefusalCode::UnknownFrame,
                "devices are enrolled on the enrolment endpoint",
            ));
        }
    };
    let answer = shared.ask(ask, wire).await;
    answer.map_err(|refusal| for_wire(refusal, wire))
}

/// The key that a payment, a void or a receipt of the device's is checked
/// with: its own, or one that it had when it signed; and the highest number
/// that counts of what that one signed.
fn key_for(keys: &RequestKeys, signed: &[u8]) -> (VerifyingKey, Option<u64>) {
    keys.before(signed)
        .map_or((keys.own, None), |(key, last)| (key, Some(last)))
}

/// Refuses what a key signed that had given way by then.
fn in_time(sequence: u64, last: Option<u64>, wire: WireVersion) -> Result<(), Refusal> {
    match last {
        Some(last) if sequence > last => Err(for_wire(replaced(), wire)),
        _ => Ok(()),
    }
}

/// The refusal of keys that have given way.
pub(super) fn replaced() -> Refusal {
    Refusal::new(
        RefusalCode::KeysReplaced,
        "these keys have been replaced by others of the same device; if you did not do that, tell the manager that \
         somebody has copied the device",
    )
}

/// A refusal with a number that this wire version has.
pub(super) fn for_wire(refusal: Refusal, wire: WireVersion) -> Refusal {
    let since = match refusal.code {
        RefusalCode::DevicePending => 4,
        RefusalCode::KeysReplaced => 5,
        _ => 1,
    };
    match wire.number() < since {
        true => Refusal::new(RefusalCode::DeviceNotAllowed, refusal.text),
        false => refusal,
    }
}

/// A signed request and its payload, once the signature is checked.
///
/// That is done on the runtime's own threads: it costs some 20 to 50
/// microseconds, less than a hand-over to a pool and back.
async fn verified(
    shared: &Shared,
    peer: &Peer,
    bytes: Vec<u8>,
    object_type: ObjectType,
    key: VerifyingKey,
) -> Result<(Vec<u8>, Vec<u8>), Refusal> {
    let signed = Signed {
        bytes,
        object_type,
        key,
    };
    let checked = shared.signatures.check(&peer.conduct, shared.is_alone(), signed);
    let (bytes, payload) = checked.await.ok_or_else(stopping)?;
    if payload == Err(CoseError::BadSignature) {
        let device = peer.device;
        shared.port.hint(Tell::BadSignature { device });
    }
    Ok((bytes, payload?))
}

/// Whether the hub knows a payment. One that was taken on a connection of an
/// earlier version, without an envelope around its card, keeps its answer for
/// life on every connection.
async fn knows(
    shared: &Shared,
    wire: WireVersion,
    device: DeviceId,
    payment_id: PaymentId,
) -> Result<bool, Refusal> {
    match shared.ask(Ask::Status { device, payment_id }, wire).await {
        Err(refusal) if refusal.code == RefusalCode::PaymentUnknown => Ok(false),
        Err(refusal) if refusal.code.transient() => Err(refusal),
        _ => Ok(true),
    }
}

fn stopping() -> Refusal {
    Refusal::new(RefusalCode::Stopping, "the hub is stopping; try again shortly")
}

/// As what a payment request is signed, by what it says.
fn payment_type(wire: WireVersion, signed: &[u8]) -> ObjectType {
    match Unverified::payload_of(signed) {
        Ok(payload) if wire.number() >= 3 => PaymentRequest::object_type_of(payload),
        _ => ObjectType::PaymentRequest,
    }
}

fn check_payment(
    payload: &[u8],
    object_type: ObjectType,
    sealed_card: &SealedCard,
) -> Result<PaymentRequest, Refusal> {
    let request: PaymentRequest = cbor::decode(payload)?;
    if request.object_type() != object_type {
        return Err(CborError::NotCanonical.into());
    }
    request.check()?;
    sealed_card.check(&request.sealed_card_digest)?;
    Ok(request)
}
