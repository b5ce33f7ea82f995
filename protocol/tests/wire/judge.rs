//! What a hub and a device make of bytes, by the rules of the document alone:
//! everything that can be judged without state.

use hub_protocol::cose::{self, ObjectType};
use hub_protocol::*;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

use crate::fixtures::{device_id, device_key, hub_key};

/// As a hub's library does it.
pub(crate) fn check_p256(point: &[u8; 65], message: &[u8], signature: &[u8; 64]) -> bool {
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    key.verify(message, signature).is_ok()
}

/// A frame with its length in front.
pub(crate) fn wire(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

/// Judges what a device sent, as the hub that has enrolled the device of the
/// fixtures.
pub(crate) fn judge_hub(wire: &[u8]) -> Result<Request, Refusal> {
    let request: Request = frame::from_wire(wire)?;
    request.check()?;
    let key = device_key().verifying_key();
    match &request {
        Request::Pay { request, sealed_card } => {
            let object = cose::Unverified::payload_of(request)
                .map_or(ObjectType::PaymentRequest, PaymentRequest::object_type_of);
            let payment: PaymentRequest = cose::open(request, object, &key)?;
            payment.check()?;
            sealed_card.check(&payment.sealed_card_digest)?;
        }
        Request::Void { request } => {
            cose::open::<VoidRequest>(request, ObjectType::VoidRequest, &key)?;
        }
        Request::Describe { description, .. } => {
            let said: DeviceDescription = cose::open(description, ObjectType::DeviceDescription, &key)?;
            said.check()?;
            if said.device != device_id() {
                return Err(Refusal::new(RefusalCode::FieldMalformed, "another device"));
            }
        }
        Request::Enrol { request } => {
            EnrolmentRequest::open(request)?;
        }
        Request::Sync {
            number,
            request,
            sealed_card,
            receipt,
        } => {
            let payment: PaymentRequest = cose::open(request, ObjectType::PaymentRequest, &key)?;
            payment.check()?;
            sealed_card.check(&payment.sealed_card_digest)?;
            let receipt: DeviceReceipt = cose::open(receipt, ObjectType::DeviceReceipt, &key)?;
            receipt.check(*number, &payment, request)?;
        }
        Request::Return { statement } => {
            cose::open::<AllowanceReturn>(statement, ObjectType::AllowanceReturn, &key)?;
        }
        Request::ChangeKeys { change } => {
            DeviceKeyChange::open(change, check_p256)?;
        }
        Request::Hello { .. } | Request::Status { .. } | Request::Allowance { .. } | Request::Keys { .. } => {
        }
    }
    Ok(request)
}

/// The same on a connection of wire version 4, of a payment that the hub does
/// not know.
pub(crate) fn judge_hub_4(wire: &[u8]) -> Result<Request, Refusal> {
    let request = judge_hub(wire)?;
    if let Request::Pay { sealed_card, .. } = &request {
        CardBlob::from_blob(&sealed_card.blob)?;
    }
    Ok(request)
}

/// Judges what a hub answered, as the device of the fixtures.
pub(crate) fn judge_device(wire: &[u8]) -> Result<Answer, Refusal> {
    let answer: Answer = frame::from_wire(wire)?;
    let key = hub_key().verifying_key();
    match &answer {
        Answer::Receipt { receipt } | Answer::Synced { receipt } => {
            CommittedReceipt::open(receipt, &key)?;
        }
        Answer::Status { status, receipt } => {
            cose::open::<PaymentStatus>(status, ObjectType::Status, &key)?;
            if let Some(receipt) = receipt {
                CommittedReceipt::open(receipt, &key)?;
            }
        }
        Answer::Enrolled { registration } => {
            cose::open::<Registration>(registration, ObjectType::Registration, &key)?;
        }
        Answer::Allowance { allowance, .. } => {
            cose::open::<Allowance>(allowance, ObjectType::Allowance, &key)?;
        }
        Answer::Keys { changes } => {
            for change in changes {
                HubKeyChange::open(&change.0)?;
            }
        }
        Answer::Hello { .. }
        | Answer::Described { .. }
        | Answer::KeysChanged { .. }
        | Answer::Returned { .. }
        | Answer::Refused { .. } => {}
    }
    Ok(answer)
}
