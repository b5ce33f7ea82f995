//! The signatures of requests that arrive together are checked together,
//! which costs half.
//!
//! Nobody waits for company: a request that is alone is checked at once, and
//! several are those that had arrived when the first one's turn came. One bad
//! signature makes the check of all in its company dear. So a device that
//! sent one is checked alone for as long as its connection lasts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ed25519_dalek::VerifyingKey;
use hub_protocol::cose::{Claim, CoseError, MOST_TOGETHER, ObjectType, Unverified, verify_together};
use tokio::sync::oneshot;

/// A request whose signature is to be checked.
pub(super) struct Signed {
    /// As received.
    pub(super) bytes: Vec<u8>,
    pub(super) object_type: ObjectType,
    /// Who must have signed it.
    pub(super) key: VerifyingKey,
}

/// A request, and its payload or what is wrong with it.
pub(super) type Checked = (Vec<u8>, Result<Vec<u8>, CoseError>);

/// What came on one connection: while all its signatures were good, they are
/// checked in company.
#[derive(Default)]
pub(super) struct Conduct {
    sent_bad_signature: AtomicBool,
}

struct Waiting {
    signed: Signed,
    checked: oneshot::Sender<Checked>,
}

/// Requests that wait for their signatures to be checked. There are never more
/// than streams that devices may open.
#[derive(Default)]
pub(super) struct Signatures {
    waiting: Mutex<Vec<Waiting>>,
}

impl Signatures {
    /// Checks a request: by itself if no other is being answered (`alone`) or
    /// its connection sent a bad signature before, or with what else there
    /// is. `None` if the hub is stopping.
    pub(super) async fn check(
        self: &Arc<Self>,
        conduct: &Conduct,
        alone: bool,
        signed: Signed,
    ) -> Option<Checked> {
        let (bytes, found) = if alone || conduct.sent_bad_signature.load(Ordering::Relaxed) {
            Self::check_alone(signed)
        } else {
            self.check_together(signed).await?
        };
        if found == Err(CoseError::BadSignature) {
            conduct.sent_bad_signature.store(true, Ordering::Relaxed);
        }
        Some((bytes, found))
    }

    fn check_alone(signed: Signed) -> Checked {
        let found = found(std::slice::from_ref(&signed)).pop();
        (signed.bytes, found.unwrap_or(Err(CoseError::Malformed)))
    }

    async fn check_together(self: &Arc<Self>, signed: Signed) -> Option<Checked> {
        let (checked, answer) = oneshot::channel();
        let first = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.push(Waiting { signed, checked });
            waiting.len() == 1
        };
        if first {
            // In a task of its own, since this one ends when its device hangs
            // up, and the others must not.
            tokio::spawn(Arc::clone(self).check_all());
        }
        answer.await.ok()
    }

    /// Lets all that is ready to run come in, and checks it.
    async fn check_all(self: Arc<Self>) {
        tokio::task::yield_now().await;
        let mut all = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *waiting)
        };
        while !all.is_empty() {
            let rest = all.split_off(all.len().min(MOST_TOGETHER));
            let (signed, answers): (Vec<Signed>, Vec<_>) =
                all.into_iter().map(|one| (one.signed, one.checked)).unzip();
            let found = found(&signed);
            for ((signed, found), answer) in signed.into_iter().zip(found).zip(answers) {
                // Whoever hung up asks again under the same id.
                let _ = answer.send((signed.bytes, found));
            }
            all = rest;
        }
    }
}

fn found(signed: &[Signed]) -> Vec<Result<Vec<u8>, CoseError>> {
    let parsed = signed.iter().map(|one| {
        Ok(Claim {
            object: Unverified::parse(&one.bytes)?,
            object_type: one.object_type,
            key: one.key,
        })
    });
    let parsed: Vec<Result<Claim<'_>, CoseError>> = parsed.collect();
    let claims: Vec<Claim<'_>> = parsed.iter().flatten().cloned().collect();
    let mut checked = verify_together(&claims).into_iter();
    let each = parsed
        .into_iter()
        .map(|claim| claim.and_then(|_| checked.next().unwrap_or(Err(CoseError::BadSignature))));
    each.collect()
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use hub_protocol::cose;

    use super::*;

    fn signed(n: u8) -> Signed {
        let key = SigningKey::from_bytes(&[n; 32]);
        Signed {
            bytes: cose::sign(&key, ObjectType::PaymentRequest, &[n; 20]),
            object_type: ObjectType::PaymentRequest,
            key: key.verifying_key(),
        }
    }

    async fn each(all: Vec<Signed>) -> Vec<Option<Checked>> {
        let signatures = Arc::new(Signatures::default());
        let asked = all.into_iter().map(|one| {
            let signatures = Arc::clone(&signatures);
            tokio::spawn(async move { signatures.check_together(one).await })
        });
        let asked: Vec<_> = asked.collect();
        let mut found = Vec::new();
        for one in asked {
            found.push(one.await.unwrap());
        }
        found
    }

    #[tokio::test]
    async fn each_gets_its_own_payload_and_fault() {
        let mut all: Vec<Signed> = (0..40).map(signed).collect();
        all[3].bytes.truncate(10);
        *all[20].bytes.last_mut().unwrap() ^= 1;
        for (n, found) in each(all).await.into_iter().enumerate() {
            let expected = match n {
                3 => Err(CoseError::Malformed),
                20 => Err(CoseError::BadSignature),
                _ => Ok(vec![n as u8; 20]),
            };
            assert_eq!(found.unwrap().1, expected, "request {n}");
        }
    }

    #[tokio::test]
    async fn whoever_hangs_up_takes_nobody_along() {
        let signatures = Arc::new(Signatures::default());
        let first = {
            let signatures = Arc::clone(&signatures);
            tokio::spawn(async move { signatures.check_together(signed(1)).await })
        };
        while signatures.waiting.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let mut second = Box::pin(signatures.check_together(signed(2)));
        std::future::poll_fn(|context| {
            assert!(second.as_mut().poll(context).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        assert_eq!(signatures.waiting.lock().unwrap().len(), 2);
        first.abort();
        assert_eq!(second.await.unwrap().1, Ok(vec![2; 20]));
    }

    fn bad(n: u8) -> Signed {
        let mut bad = signed(n);
        *bad.bytes.last_mut().unwrap() ^= 1;
        bad
    }

    /// Checks one, and says whether it waited for the others' turn.
    async fn waits(signatures: &Arc<Signatures>, conduct: &Conduct, signed: Signed) -> (bool, Checked) {
        let mut check = Box::pin(signatures.check(conduct, false, signed));
        let first = std::future::poll_fn(|context| std::task::Poll::Ready(check.as_mut().poll(context)));
        match first.await {
            std::task::Poll::Ready(checked) => (false, checked.unwrap()),
            std::task::Poll::Pending => (true, check.await.unwrap()),
        }
    }

    #[tokio::test]
    async fn a_connection_that_sent_a_bad_signature_is_checked_alone_from_then_on() {
        let signatures = Arc::new(Signatures::default());
        let [conduct, other] = [Conduct::default(), Conduct::default()];
        let (waited, checked) = waits(&signatures, &conduct, signed(1)).await;
        assert!(waited);
        assert_eq!(checked.1, Ok(vec![1; 20]));
        let (waited, checked) = waits(&signatures, &conduct, bad(2)).await;
        assert!(waited);
        assert_eq!(checked.1, Err(CoseError::BadSignature));
        for n in 3..5 {
            let (waited, checked) = waits(&signatures, &conduct, signed(n)).await;
            assert!(!waited, "request {n}");
            assert_eq!(checked.1, Ok(vec![n; 20]));
        }
        let (waited, checked) = waits(&signatures, &conduct, bad(5)).await;
        assert!(!waited, "held to the same");
        assert_eq!(checked.1, Err(CoseError::BadSignature));
        assert!(waits(&signatures, &other, signed(6)).await.0, "others are not");
    }
}
