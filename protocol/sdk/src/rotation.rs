//! A device changes its keys, and stays the same device.
//!
//! In order, each on the device's disk before the next:
//!
//! 1. the new keys, in the folder `next`;
//! 2. the hub's answer, as the file `next/taken`: the new keys are the device's;
//! 3. the new keys in the place of the old ones, and then `next` goes.
//!
//! A device that was stopped before step 2 has its old keys, and asks for the
//! same change again; one that was stopped after it ends step 3 when its keys
//! are loaded.

use std::fs;
use std::path::Path;

use hub_protocol::{Answer, DeviceKeyChange, RefusalCode, Request, frame};

use crate::client::DeviceClient;
use crate::error::{PayError, RotateError, SdkError, VerifyError};
use crate::files;
use crate::identity::{DeviceIdentity, NAME_FILE, SIGNING_FILE, TLS_FILE};
use crate::options::ClientOptions;

const NEXT: &str = "next";
const TAKEN: &str = "taken";

/// The first wire version in which a device can change its keys.
const SINCE: u16 = 5;

/// Ends a change that the hub has taken.
pub(crate) fn finish(dir: &Path) -> Result<(), SdkError> {
    let next = dir.join(NEXT);
    if !next.join(TAKEN).exists() {
        return Ok(());
    }
    for name in [NAME_FILE, SIGNING_FILE, TLS_FILE] {
        let (_, bytes) = files::read(&next, name)?;
        let bytes = zeroize::Zeroizing::new(bytes);
        files::write_private(dir, name, &bytes)?;
    }
    discard(dir)
}

/// Forgets the next keys.
fn discard(dir: &Path) -> Result<(), SdkError> {
    let next = dir.join(NEXT);
    // First what says that they count.
    for name in [TAKEN, NAME_FILE, SIGNING_FILE, TLS_FILE] {
        let path = next.join(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(SdkError::File { path, source });
            }
            _ => {}
        }
    }
    let _ = fs::remove_dir(&next);
    Ok(())
}

/// The keys to change to: those of a change that came to no answer, or fresh
/// ones.
fn next_keys(dir: &Path, present: &DeviceIdentity) -> Result<DeviceIdentity, SdkError> {
    let next = dir.join(NEXT);
    let left = DeviceIdentity::load_plain(&next).ok().filter(|left| {
        left.device_id() == present.device_id() && left.key_changes() == present.key_changes() + 1
    });
    match left {
        Some(left) => Ok(left),
        None => {
            let fresh = present.successor()?;
            fresh.save(&next)?;
            Ok(fresh)
        }
    }
}

impl DeviceClient {
    /// Changes both keys of the device, whose folder `dir` is
    /// ([`DeviceIdentity::save`]). The hub keeps everything that it counts for
    /// the device. Gives the client to go on with; this one, and every other
    /// with the old keys, is refused from then on, and an
    /// [`AllowanceStore`](crate::AllowanceStore) is to be opened again.
    ///
    /// Payments that were made before stay good and may be asked for
    /// afterwards, with the new client. Make none while this is under way.
    ///
    /// # Errors
    ///
    /// When the hub refuses, is not reached, or a file cannot be written. If
    /// there was no answer, the change may have been taken: ask again, which
    /// carries on with the same new keys. Until there is an answer, a payment
    /// may be refused with
    /// [`KeysReplaced`](hub_protocol::RefusalCode::KeysReplaced); it is to be
    /// asked for again afterwards.
    pub async fn rotate_keys(&self, dir: &Path) -> Result<Self, RotateError> {
        let present = self.identity();
        let next = next_keys(dir, present)?;
        let change = DeviceKeyChange {
            hub: self.enrolled().hub,
            device: present.device_id(),
            number: next.key_changes(),
            old_key: present.signing_key().verifying_key().to_bytes(),
            new_key: next.signing_key().verifying_key().to_bytes(),
            new_tls: next.tls_digest(),
            last_sequence: self.next_sequence().saturating_sub(1),
        };
        let asked = frame::to_wire(&Request::ChangeKeys {
            change: change.sign(present.signing_key(), next.signing_key()),
        });
        let answer = self
            .persist_since(&asked, SINCE, |answer| match answer {
                Answer::KeysChanged { number } if number == change.number => Ok(()),
                Answer::KeysChanged { .. } => Err(VerifyError::Differs("the change").into()),
                Answer::Refused { refusal } => Err(PayError::Refused(refusal)),
                _ => Err(VerifyError::OtherAnswer.into()),
            })
            .await;
        let options = ClientOptions {
            next_sequence: self.next_sequence(),
            ..self.options().clone()
        };
        let client = Self::new(next, self.enrolled().clone(), options)?;
        match answer {
            Ok(()) => {}
            // Taken, and used, before this device knew of it.
            Err(error) if error.refusal_code() == Some(RefusalCode::KeysReplaced) => {
                if client.hello().await.is_err() {
                    return Err(error.into());
                }
            }
            Err(error) => {
                if !error.transient() {
                    // Another try needs other keys.
                    discard(dir)?;
                }
                return Err(error.into());
            }
        }
        files::write_private(&dir.join(NEXT), TAKEN, b"")?;
        finish(dir)?;
        self.close().await;
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_was_taken_is_ended_at_the_next_start_wherever_it_was_cut() {
        let kept = DeviceIdentity::generate().unwrap();
        // The files that had been put in place when the power failed.
        for cut in 0..=3 {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path();
            kept.save(dir).unwrap();
            let next = next_keys(dir, &kept).unwrap();
            let before = DeviceIdentity::load(dir).unwrap();
            assert_eq!(before.signing_key(), kept.signing_key(), "not taken yet");
            let again = next_keys(dir, &kept).unwrap();
            assert_eq!(
                again.signing_key(),
                next.signing_key(),
                "the same are asked for again"
            );
            files::write_private(&dir.join(NEXT), TAKEN, b"").unwrap();
            for name in [NAME_FILE, SIGNING_FILE, TLS_FILE].iter().take(cut) {
                fs::copy(dir.join(NEXT).join(name), dir.join(name)).unwrap();
            }
            for _ in 0..2 {
                let loaded = DeviceIdentity::load(dir).unwrap();
                assert_eq!(loaded.device_id(), kept.device_id(), "the same device");
                assert_eq!(loaded.signing_key(), next.signing_key());
                assert_eq!(
                    (loaded.tls_digest(), loaded.key_changes()),
                    (next.tls_digest(), 1)
                );
            }
            assert!(!dir.join(NEXT).exists());
        }
    }
}
