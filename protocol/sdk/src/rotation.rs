//! A device changes its keys, and stays the same device.
//!
//! In order, each on the device's disk before the next:
//!
//! 1. the new keys, in the folder `next`;
//! 2. the hub's answer, as the file `next/taken`: the new keys are the device's;
//! 3. the new keys in the place of the old ones, and then `next` goes.
//!
//! A device that was stopped before step 2 has its old keys, and asks for the
//! same change again when it is opened; one that was stopped after it ends step
//! 3 when its keys are loaded.

use std::fs;
use std::path::Path;
use std::time::Duration;

use hub_protocol::{Answer, DeviceKeyChange, RefusalCode, Request, frame};

use crate::client::DeviceClient;
use crate::enrolment::Enrolled;
use crate::error::{PayError, RotateError, SdkError, VerifyError};
use crate::files;
use crate::identity::{DeviceIdentity, NAME_FILE, SIGNING_FILE, TLS_FILE};
use crate::options::ClientOptions;

const NEXT: &str = "next";
const TAKEN: &str = "taken";

/// The first wire version in which a device can change its keys.
const SINCE: u16 = 6;

/// The longest that a device asks for a change that was cut off before it goes
/// on with its old keys.
const CARRY_ON_FOR: Duration = Duration::from_secs(5);

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
/// ones if there are none, or not all of them: what was not written whole was
/// never sent. Keys that cannot be read at the moment may be the device's
/// already, and are left alone.
fn next_keys(dir: &Path, present: &DeviceIdentity) -> Result<DeviceIdentity, SdkError> {
    let next = dir.join(NEXT);
    match DeviceIdentity::load_plain(&next) {
        Ok(left) if follows(&left, present) => return Ok(left),
        // Another device's, or from before the present ones.
        Ok(_) => {}
        Err(SdkError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let fresh = present.successor()?;
    fresh.save(&next)?;
    Ok(fresh)
}

/// Whether the hub has judged this very change and not taken it, so that
/// another try needs other keys. Whoever is barred, or speaks to a hub that
/// is too old, has not been judged: the change may have been taken before.
fn needs_other_keys(error: &PayError) -> bool {
    matches!(
        error.refusal_code(),
        Some(RefusalCode::EnrolledAlready | RefusalCode::EnrolmentKey | RefusalCode::FieldMalformed)
    )
}

/// Whether there are next keys that the hub may have been asked for.
fn is_under_way(dir: &Path, present: &DeviceIdentity) -> bool {
    match DeviceIdentity::load_plain(&dir.join(NEXT)) {
        Ok(next) => follows(&next, present),
        // Not whole, and so never sent; or to be looked at by whoever changes
        // the keys next.
        Err(_) => false,
    }
}

fn follows(next: &DeviceIdentity, present: &DeviceIdentity) -> bool {
    next.device_id() == present.device_id() && next.key_changes() == present.key_changes().saturating_add(1)
}

impl DeviceClient {
    /// A client of the device whose keys and enrolment are in `dir`
    /// ([`DeviceIdentity::save`], [`Enrolled::save`]), after a change of its
    /// keys that was cut off has been carried on.
    ///
    /// A device that was stopped between the request and the answer does not
    /// know whether the hub has taken its change, and with its old keys it may
    /// be refused. So the same change is asked for again, for 5 seconds at
    /// most, before there is a client. Without an answer the device goes on
    /// with its old keys, which are good for approvals under an allowance, and
    /// the next call of this asks again. Prepare no payment before it, and open
    /// an [`AllowanceStore`](crate::AllowanceStore) after it, with the keys
    /// that are in `dir` then.
    ///
    /// # Errors
    ///
    /// When a file is missing or damaged, or discovery cannot start.
    pub async fn open(dir: &Path, options: ClientOptions) -> Result<Self, SdkError> {
        let (identity, enrolled) = (DeviceIdentity::load(dir)?, Enrolled::load(dir)?);
        if is_under_way(dir, &identity) {
            let asking = ClientOptions {
                give_up_after: options.give_up_after.min(CARRY_ON_FOR),
                ..options.clone()
            };
            let asking = Self::new(identity.clone(), enrolled.clone(), asking)?;
            match asking.rotate_keys(dir).await {
                Ok(changed) => changed.close().await,
                Err(error) => {
                    tracing::warn!(%error, "a change of this device's keys is still under way; it goes on with the old ones");
                }
            }
            asking.close().await;
        }
        Self::new(DeviceIdentity::load(dir)?, enrolled, options)
    }

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
    /// carries on with the same new keys, also once a device that was barred
    /// is barred no more. Until there is an answer, a payment
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
            last_sequence: self.next_sequence().saturating_sub(1),
            new_tls_key: next.tls_key_info().ok_or(SdkError::Signing)?,
        };
        let (old, new) = (present.signing_key(), next.signing_key());
        let change_signed = change.sign(old, new, |message| next.sign_with_tls(message))?;
        let asked = frame::to_wire(&Request::ChangeKeys {
            change: change_signed,
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
                if needs_other_keys(&error) {
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
    fn rule_2_the_next_keys_are_discarded_after_a_refusal_that_judged_them_alone() {
        let refused = |code| PayError::Refused(hub_protocol::Refusal::new(code, ""));
        let judged: Vec<_> = RefusalCode::ALL
            .iter()
            .filter(|code| needs_other_keys(&refused(**code)))
            .collect();
        let expected = [
            RefusalCode::FieldMalformed,
            RefusalCode::EnrolmentKey,
            RefusalCode::EnrolledAlready,
        ];
        assert_eq!(judged, expected.iter().collect::<Vec<_>>());
        assert!(!needs_other_keys(&PayError::NotAllowed), "blocked for a moment");
        assert!(!needs_other_keys(&PayError::HubTooOld));
    }

    #[test]
    fn rule_2_next_keys_that_cannot_be_read_are_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let kept = DeviceIdentity::generate().unwrap();
        let sent = next_keys(dir, &kept).unwrap();
        for name in [NAME_FILE, SIGNING_FILE, TLS_FILE] {
            let path = dir.join(NEXT).join(name);
            let whole = fs::read(&path).unwrap();
            // Damaged; and not to be read at all, as under another user.
            fs::write(&path, b"?").unwrap();
            assert!(next_keys(dir, &kept).is_err(), "{name}");
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
            assert!(next_keys(dir, &kept).is_err(), "{name}");
            fs::remove_dir(&path).unwrap();
            fs::write(&path, whole).unwrap();
            let again = next_keys(dir, &kept).unwrap();
            assert_eq!(again.signing_key(), sent.signing_key(), "{name}");
        }
        for name in [NAME_FILE, SIGNING_FILE, TLS_FILE] {
            let before = next_keys(dir, &kept).unwrap();
            fs::remove_file(dir.join(NEXT).join(name)).unwrap();
            let fresh = next_keys(dir, &kept).unwrap();
            assert_ne!(fresh.signing_key(), before.signing_key(), "{name}: never sent");
        }
    }

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
