//! Allowances over the wire: ask, sync, return. Every step may be repeated
//! after a crash or a lost answer.

use hub_protocol::{Allowance, Answer, RefusalCode, Request, frame};

use crate::allowance::{AllowanceStore, TakeError};
use crate::client::DeviceClient;
use crate::error::{AllowanceError, PayError, VerifyError};
use crate::verify::VerifiedReceipt;

impl DeviceClient {
    /// Asks for an allowance, once, when all payments are told
    /// ([`sync`](Self::sync)). While one is open the hub gives the same again:
    /// return one that has expired or is used up. A return that was begun is
    /// brought to its end first.
    ///
    /// # Errors
    ///
    /// [`RefusalCode::AllowanceNotGiven`] when there is none for this device
    /// now: it asks for each payment, as ever, and for an allowance again after
    /// a while.
    pub async fn ask_allowance(&self, store: &AllowanceStore) -> Result<Allowance, AllowanceError> {
        if store.unsynced() > 0 {
            return Err(AllowanceError::Unsynced(store.unsynced()));
        }
        if store.returning() {
            // Or the hub would give the one that is used no more.
            self.return_unused(store).await?;
        }
        let request = Request::Allowance {
            closed: store.closed(),
        };
        let bytes = frame::to_wire(&request);
        let answer = self.once_for(&bytes, |answer| match answer {
            Answer::Allowance { allowance, chain } => Ok((allowance, chain)),
            other => Err(unexpected(other)),
        });
        let (signed, chain) = answer.await?;
        store.take(&signed, chain).map_err(|error| match error {
            TakeError::Unverifiable(error) => PayError::from(error).into(),
            TakeError::File(error) => error.into(),
        })
    }

    /// Tells the hub of the next payment that this device approved by itself,
    /// until there is an answer; `None` when all are told.
    ///
    /// The receipt is the hub's decision for life. It is the device's approval,
    /// unless the hub had decided before.
    ///
    /// # Errors
    ///
    /// As [`pay`](Self::pay). A payment that the hub refuses for good is set
    /// aside ([`AllowanceStore::refused`]), and the next is told the next time.
    pub async fn sync_next(&self, store: &AllowanceStore) -> Result<Option<VerifiedReceipt>, AllowanceError> {
        let Some((payment, request)) = store.next_unsynced().map_err(PayError::from)? else {
            return Ok(None);
        };
        let answered = self
            .persist_for(&frame::to_wire(&request), |answer| match answer {
                Answer::Synced { receipt } => Ok(self.verified(receipt, &payment)?),
                other => Err(unexpected(other)),
            })
            .await;
        match answered {
            Ok(receipt) => {
                store.synced(&payment.payment_id(), false)?;
                Ok(Some(receipt))
            }
            Err(error) => {
                if let PayError::Refused(refusal) = &error
                    && never_taken(refusal.code)
                {
                    store.synced(&payment.payment_id(), true)?;
                }
                Err(error.into())
            }
        }
    }

    /// [`sync_next`](Self::sync_next) until all are told, in the order of the
    /// chain. `told` gets each receipt.
    ///
    /// # Errors
    ///
    /// As [`sync_next`](Self::sync_next), at the first that fails.
    pub async fn sync(
        &self,
        store: &AllowanceStore,
        mut told: impl FnMut(VerifiedReceipt),
    ) -> Result<(), AllowanceError> {
        while let Some(receipt) = self.sync_next(store).await? {
            told(receipt);
        }
        Ok(())
    }

    /// Closes the allowance: nothing more is approved under it from the moment
    /// this is called, and the hub gives back what is left of it. All payments
    /// must be told before ([`sync`](Self::sync)). Without an allowance it does
    /// nothing. One that the hub does not know is closed as well: nothing is
    /// kept back for it.
    ///
    /// # Errors
    ///
    /// [`RefusalCode::AllowanceNotSynced`] when payments are missing; else as
    /// [`pay`](Self::pay).
    pub async fn return_unused(&self, store: &AllowanceStore) -> Result<(), AllowanceError> {
        let Some((number, request)) = store.begin_return()? else {
            return Ok(());
        };
        let answered = self
            .persist_for(&frame::to_wire(&request), |answer| match answer {
                Answer::Returned { number: closed } if closed == number => Ok(()),
                Answer::Returned { .. } => Err(VerifyError::Differs("the allowance").into()),
                other => Err(unexpected(other)),
            })
            .await;
        match answered {
            Ok(()) => {}
            // A hub restored from a backup: it keeps nothing back for it.
            Err(PayError::Refused(refusal)) if refusal.code == RefusalCode::AllowanceUnknown => {}
            Err(error) => return Err(error.into()),
        }
        Ok(store.returned(number)?)
    }
}

fn unexpected(answer: Answer) -> PayError {
    match answer {
        Answer::Refused { refusal } => PayError::Refused(refusal),
        _ => VerifyError::OtherAnswer.into(),
    }
}

/// The payment itself is wrong, or its receipt, and the one behind it may be
/// good.
fn never_taken(code: RefusalCode) -> bool {
    let signed_or_content = (2000..4000).contains(&code.number());
    signed_or_content
        || matches!(
            code,
            RefusalCode::NotCanonical
                | RefusalCode::Malformed
                | RefusalCode::PaymentIdConflict
                | RefusalCode::DeviceReceiptMismatch
        )
}
