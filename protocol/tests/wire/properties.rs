//! What holds for any value and for any bytes.

use hub_protocol::cose::{self, ObjectType};
use hub_protocol::*;
use minicbor::{Decode, Encode};
use proptest::prelude::*;

use crate::fixtures::{device_key, hub_key};
use crate::judge::{judge_device, judge_hub, wire};
use crate::strategies;

/// Encode, decode, encode: the same value and the same bytes.
fn round_trip<T>(value: &T) -> Result<(), TestCaseError>
where
    T: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + core::fmt::Debug,
{
    let bytes = cbor::encode(value);
    let decoded = cbor::decode::<T>(&bytes);
    prop_assert_eq!(decoded.as_ref(), Ok(value));
    prop_assert_eq!(cbor::encode(value), bytes);
    Ok(())
}

/// One message has one byte string: other bytes are refused or are another
/// value, and whatever is accepted encodes to what was received.
fn no_second_form<T>(value: &T, other: &[u8]) -> Result<(), TestCaseError>
where
    T: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + core::fmt::Debug,
{
    if let Ok(decoded) = cbor::decode::<T>(other) {
        prop_assert_eq!(&decoded == value, cbor::encode(value) == other);
        prop_assert_eq!(cbor::encode(&decoded), other);
    }
    Ok(())
}

/// Some damage to a message.
#[derive(Clone, Debug)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    /// Bytes written a second time behind themselves.
    Double(prop::sample::Index, prop::sample::Index),
    /// A head of one byte written as two.
    Lengthen(prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let place = any::<prop::sample::Index>;
    let one = prop_oneof![
        (place(), 1u8..).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        (place(), any::<u8>()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        place().prop_map(Damage::Remove),
        (place(), place()).prop_map(|(from, to)| Damage::Double(from, to)),
        place().prop_map(Damage::Lengthen),
    ];
    proptest::collection::vec(one, 1..4)
}

fn damaged(mut bytes: Vec<u8>, damage: &[Damage]) -> Vec<u8> {
    for one in damage {
        if bytes.is_empty() {
            break;
        }
        let length = bytes.len();
        match one {
            Damage::Flip(at, bits) => bytes[at.index(length)] ^= bits,
            Damage::Insert(at, byte) => bytes.insert(at.index(length), *byte),
            Damage::Remove(at) => drop(bytes.remove(at.index(length))),
            Damage::Double(from, to) => {
                let (from, to) = (from.index(length), to.index(length));
                let part = bytes[from.min(to)..=from.max(to)].to_vec();
                let end = from.max(to) + 1;
                bytes.splice(end..end, part);
            }
            Damage::Lengthen(at) => {
                let at = at.index(length);
                if bytes[at] & 0x1f < 24 {
                    let short = bytes[at] & 0x1f;
                    bytes[at] = bytes[at] & 0xe0 | 24;
                    bytes.insert(at + 1, short);
                }
            }
        }
    }
    bytes
}

/// A property for each message: it survives the way there and back, and
/// damage to it is refused or makes another message.
macro_rules! messages {
    ($($name:ident: $strategy:expr;)+) => { $(
        mod $name {
            use super::*;
            proptest! {
                #[test]
                fn survives_encoding_and_has_one_byte_string(value in $strategy, damage in damage()) {
                    round_trip(&value)?;
                    no_second_form(&value, &damaged(cbor::encode(&value), &damage))?;
                }
            }
        }
    )+ };
}

messages! {
    payment_request: strategies::payment_request();
    void_request: strategies::void_request();
    receipt: strategies::receipt();
    committed_receipt: strategies::committed_receipt();
    ledger_commit: strategies::ledger_commit();
    archive_manifest: strategies::archive_manifest();
    ledger_base: strategies::ledger_base();
    allowance: strategies::allowance();
    device_receipt: strategies::device_receipt();
    allowance_return: strategies::allowance_return();
    device_list: strategies::device_list();
    payment_status: strategies::status();
    registration: strategies::registration();
    enrolment_request: strategies::enrolment_request();
    enrolment_code: strategies::enrolment_code();
    request_frame: strategies::request();
    answer_frame: strategies::answer();
    push_frame: strategies::push();
    ledger_entry: strategies::entry();
}

/// Bytes that look like CBOR more often than noise does.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        proptest::sample::select(
            &[
                0x01u8, 0x40, 0x60, 0x80, 0x82, 0xa0, 0xa1, 0xd2, 0x84, 0xf6, 0xff, 0x5f, 0x9f, 0xbf
            ][..]
        )
        .prop_map(|byte| vec![byte]),
        (any::<u8>(), any::<u64>())
            .prop_map(|(major, argument)| { [&[major & 0xe0 | 27][..], &argument.to_be_bytes()].concat() }),
    ];
    proptest::collection::vec(token, 0..200).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_in_any_decoder(bytes in any_bytes()) {
        for input in [bytes.clone(), wire(&bytes)] {
            let _ = frame::from_wire::<Request>(&input);
            let _ = frame::from_wire::<Answer>(&input);
            let _ = frame::from_wire::<Push>(&input);
        }
        let _ = cbor::decode::<Entry>(&bytes);
        let _ = cbor::decode::<PaymentRequest>(&bytes);
        let _ = cbor::decode::<VoidRequest>(&bytes);
        let _ = cbor::decode::<Allowance>(&bytes);
        let _ = cbor::decode::<DeviceReceipt>(&bytes);
        let _ = cbor::decode::<AllowanceReturn>(&bytes);
        let _ = cbor::decode::<DeviceList>(&bytes);
        let _ = cbor::decode::<Receipt>(&bytes);
        let _ = cbor::decode::<PaymentStatus>(&bytes);
        let _ = cbor::decode::<Registration>(&bytes);
        let _ = cbor::decode::<EnrolmentRequest>(&bytes);
        let _ = cbor::decode::<EnrolmentCode>(&bytes);
        let _ = cose::Unverified::parse(&bytes);
        let _ = EnrolmentRequest::open(&bytes);
        let _ = cbor::decode::<LedgerCommit>(&bytes);
        let _ = CommittedReceipt::open(&bytes, &hub_key().verifying_key());
        let _ = cose::open::<Receipt>(&bytes, ObjectType::Receipt, &hub_key().verifying_key());
    }

    #[test]
    fn arbitrary_text_never_panics_in_any_parser(text in prop_oneof![any::<String>(), "HUB1-[A-Z2-7]{0,80}", "[0-9a-f-]{30,40}"]) {
        let _ = text.parse::<EnrolmentCode>();
        let _ = text.parse::<DeviceId>();
        let _ = text.parse::<Currency>();
        let _ = text.parse::<Reason>();
        let _ = card_number::holds_card_number(&text);
        // What is read as a payment id is written the same way again.
        if let Ok(id) = text.parse::<PaymentId>() {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn a_payment_id_and_a_code_are_read_as_they_were_written(id in strategies::payment_id(), code in strategies::enrolment_code()) {
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        let text = code.to_string();
        match text.parse::<EnrolmentCode>() {
            Ok(read) => prop_assert_eq!(read, code),
            Err(_) => prop_assert!(text.len() > enrolment::MAX_CODE_TEXT),
        }
    }

    #[test]
    fn a_frame_is_read_as_it_was_written_and_every_cut_of_it_is_refused(request in strategies::request(), cut in any::<prop::sample::Index>()) {
        let bytes = frame::to_wire(&request);
        prop_assert_eq!(frame::from_wire::<Request>(&bytes), Ok(request));
        let short = &bytes[..cut.index(bytes.len())];
        let refused = frame::from_wire::<Request>(short).map_err(|refusal| refusal.code);
        prop_assert_eq!(refused, Err(RefusalCode::Truncated));
    }

    /// Whatever is damaged in a signed payment or a receipt on the wire, it is
    /// refused or still the very same signed object.
    #[test]
    fn damage_to_a_signed_object_on_the_wire_is_refused(damage in damage()) {
        let pay = frame::to_wire(&crate::frames::pay());
        if let Ok(Request::Pay { request, sealed_card }) = judge_hub(&damaged(pay, &damage)) {
            prop_assert_eq!(request, crate::fixtures::signed_payment());
            prop_assert_eq!(sealed_card, crate::fixtures::sealed_card());
        }
        let receipt = cbor::encode(&crate::fixtures::committed_receipt());
        let answer = frame::to_wire(&Answer::Receipt { receipt: receipt.clone() });
        if let Ok(Answer::Receipt { receipt: read }) = judge_device(&damaged(answer, &damage)) {
            prop_assert_eq!(read, receipt);
        }
    }

    #[test]
    fn what_was_signed_verifies_and_nothing_else_does(payload in proptest::collection::vec(any::<u8>(), 0..400), damage in damage()) {
        let signed = cose::sign(&device_key(), ObjectType::PaymentRequest, &payload);
        let key = device_key().verifying_key();
        let verified = cose::verify(&signed, ObjectType::PaymentRequest, &key);
        prop_assert_eq!(verified.as_ref(), Ok(&payload));
        let other = damaged(signed.clone(), &damage);
        let verified = cose::verify(&other, ObjectType::PaymentRequest, &key);
        prop_assert_eq!(verified.is_ok(), other == signed);
    }
}
