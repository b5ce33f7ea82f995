//! One request: from the bytes of a stream to what the hub is asked.
//!
//! Everything that can be checked without the hub's state is checked here,
//! in this order: frame, signature, encoding, ranges, sealed card. The first
//! fault is the answer.

use std::time::Duration;

use hub_protocol::cose::{self, ObjectType};
use hub_protocol::frame::{self, MAX_FRAME};
use hub_protocol::{
    Answer, DeviceId, PaymentRequest, Refusal, RefusalCode, Request, SealedCard, VoidRequest, cbor,
};
use quinn::{ReadToEndError, RecvStream};

use super::shared::{Shared, WireVersion};
use crate::port::Ask;

/// How long a device may take to send one frame.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads one frame, up to and including FIN. `None` if the peer reset the
/// stream or the connection is gone, so that nobody waits for an answer.
pub(super) async fn read_frame(recv: &mut RecvStream) -> Option<Result<Request, Refusal>> {
    // One byte more than the longest frame shows that it is too long.
    match tokio::time::timeout(READ_TIMEOUT, recv.read_to_end(4 + MAX_FRAME + 1)).await {
        Ok(Ok(bytes)) => Some(frame::from_wire(&bytes)),
        Ok(Err(ReadToEndError::TooLong)) => Some(Err(frame::oversized())),
        Ok(Err(ReadToEndError::Read(_))) => None,
        Err(_) => Some(Err(Refusal::new(
            RefusalCode::Truncated,
            "the frame was not sent to its end within 5 seconds",
        ))),
    }
}

/// Answers a request that came on the connection of `device`.
///
/// Signatures are checked and made right here, in the stream's own task: they
/// cost some 40 microseconds, less than a hand-over to a pool of threads and
/// back, and the tasks of a runtime with several workers run in parallel.
pub(super) async fn answer(
    shared: &Shared,
    device: DeviceId,
    wire: WireVersion,
    request: Request,
) -> Result<Answer, Refusal> {
    if shared.is_stopping() {
        return Err(Refusal::new(
            RefusalCode::Stopping,
            "the hub is stopping; try again shortly",
        ));
    }
    // Asked anew for each request: a device may be blocked while connected.
    let Some(key) = shared.registry.verifying_key(&device) else {
        return Err(Refusal::new(
            RefusalCode::DeviceNotAllowed,
            "this device is blocked or not enrolled; ask the manager",
        ));
    };
    request.check()?;
    match request {
        Request::Hello { .. } => Ok(shared.hello(wire)),
        Request::Pay {
            request: signed,
            sealed_card,
        } => {
            let payload = cose::verify(&signed, ObjectType::PaymentRequest, &key)?;
            let request = check_payment(&payload, &sealed_card)?;
            shared
                .ask(
                    Ask::Pay {
                        device,
                        request: Box::new(request),
                        signed,
                        sealed_card,
                    },
                    wire,
                )
                .await
        }
        Request::Void { request: signed } => {
            let payload = cose::verify(&signed, ObjectType::VoidRequest, &key)?;
            let request: VoidRequest = cbor::decode(&payload)?;
            shared
                .ask(
                    Ask::Void {
                        device,
                        request,
                        signed,
                    },
                    wire,
                )
                .await
        }
        Request::Status { payment_id } => shared.ask(Ask::Status { device, payment_id }, wire).await,
        Request::Enrol { .. } => Err(Refusal::new(
            RefusalCode::UnknownFrame,
            "devices are enrolled on the enrolment endpoint",
        )),
    }
}

fn check_payment(payload: &[u8], sealed_card: &SealedCard) -> Result<PaymentRequest, Refusal> {
    let request: PaymentRequest = cbor::decode(payload)?;
    request.check()?;
    sealed_card.check(&request.sealed_card_digest)?;
    Ok(request)
}
