//! Changing the hub's TLS key, as operators order it, and whom a change of the
//! hub's keys leaves behind.

use std::collections::BTreeMap;

use hub_core::{OperatorCommand, OperatorReply, Reply, TlsKeyChange};
use hub_protocol::entry::StorageLevel;
use hub_protocol::{DeviceId, Digest, HubTlsKeys, RefusalCode};
use zeroize::Zeroizing;

use super::backend::HubBackend;
use super::tls_files;
use crate::admin::protocol::{RotationReport, TlsStep};
use crate::admin::{Operator, Refused};
use crate::config::{self, Config, TlsKey};
use crate::devices::{Heard, HubIdentity, HubTls, RegisteredDevice, TlsError};
use crate::key_ring::KeyRing;
use crate::port::Ask;

/// The wire version in which devices follow a change of the signing key.
pub(super) const FOLLOWS_SIGNING: u16 = 4;

/// The wire version in which devices follow a change of the TLS key.
const FOLLOWS_TLS: u16 = 5;

/// The hub's TLS keys at its start, and their files put in order.
pub(super) fn open(config: &Config, keys: &KeyRing, stated: Option<HubTlsKeys>) -> anyhow::Result<HubTls> {
    let own = &config.keys;
    let in_use = stated
        .as_ref()
        .map_or_else(|| vec![Digest(own.hub_id.0)], |stated| stated.keys.clone());
    let held: Vec<&TlsKey> = [Some(&own.tls), own.next_tls.as_ref()]
        .into_iter()
        .flatten()
        .collect();
    for key in &in_use {
        if held.iter().all(|held| held.digest != *key) {
            tracing::error!(%key, "one of the hub's TLS keys is missing: put it back, or end the change with \
                `hubctl keys rotate tls --finish` or `--abandon`");
        }
    }
    let held: Result<Vec<HubIdentity>, TlsError> = held.into_iter().map(identity).collect();
    let tls = HubTls::new(own.hub_id, keys.clone(), held?, stated)?;
    // Nothing is under way: what the ledger does not tell of came to nothing.
    let settled = tls_files::settle(&config.layout, &in_use, &mut |_| Ok(()))
        .and_then(|()| tls_files::discard_made(&config.layout, &in_use));
    if let Err(error) = settled {
        tracing::warn!(%error, "the files of the TLS key could not be put in order after its change; the next start tries again");
    }
    Ok(tls)
}

fn identity(key: &TlsKey) -> Result<HubIdentity, TlsError> {
    let pair = rcgen::KeyPair::try_from(key.pkcs8.as_slice()).map_err(TlsError::Key)?;
    HubIdentity::from_pem(&Zeroizing::new(pair.serialize_pem()))
}

impl HubBackend {
    pub(super) async fn change_tls(
        &self,
        operator: Operator,
        step: TlsStep,
        confirmed: bool,
    ) -> Result<RotationReport, Refused> {
        // One change of a key at a time.
        let mut unanswered = self.changing.lock().await;
        let overlap = self.in_use().len() > 1;
        if step == TlsStep::Begin && overlap {
            // How far has it come?
            return self.tls_report(false, false).await;
        }
        let left = match step {
            TlsStep::Begin => self.left_behind(FOLLOWS_TLS),
            TlsStep::Finish if overlap => self.not_told(),
            TlsStep::Finish | TlsStep::Abandon => LeftBehind::default(),
        };
        let shut_out = !left.too_old.is_empty() || (step == TlsStep::Finish && !left.unheard.is_empty());
        if shut_out && !confirmed {
            return self.tls_report(false, true).await;
        }
        let full = self.space.level() == StorageLevel::Full;
        if full {
            return Err(Refused::new(
                "the disk is full: make room first, then change the key",
            ));
        }
        if unanswered.tls.is_some() {
            return Err(Refused::new(
                "whether an earlier change of the key comes about is not known: restart hubd, which puts it right",
            ));
        }
        let order = match step {
            TlsStep::Begin => TlsKeyChange::Add(self.prepare()?),
            TlsStep::Finish => {
                self.has(self.in_use().first())?;
                TlsKeyChange::Finish
            }
            TlsStep::Abandon => {
                self.has(self.in_use().last())?;
                TlsKeyChange::Abandon
            }
        };
        unanswered.tls = self.in_use().first().copied();
        let ask = Ask::Operator {
            operator: operator.to_string(),
            command: OperatorCommand::ChangeTlsKey(order),
        };
        let refused = match self.port.ask(ask).await {
            Ok(Reply::Operator(OperatorReply::Done)) => None,
            Ok(Reply::Operator(OperatorReply::Refused(text))) => Some(Refused::new(text)),
            Ok(Reply::Refused(refusal)) => Some(Refused::unavailable(refusal.text)),
            Err(refusal) if refusal.code == RefusalCode::Busy => Some(Refused::unavailable(refusal.text)),
            // The entry may be in the ledger: the next start sees.
            Err(refusal) => return Err(Refused::unavailable(refusal.text)),
            Ok(_) => return Err(Refused::unavailable("the hub gave an answer to another question")),
        };
        unanswered.tls = None;
        if let Some(refused) = refused {
            if let Err(error) = tls_files::discard_made(&self.config.layout, &self.in_use()) {
                tracing::warn!(%error, "a TLS key that is not used could not be destroyed; the next change or start tries again");
            }
            return Err(refused);
        }
        let in_use = self.in_use();
        let layout = &self.config.layout;
        tls_files::settle(layout, &in_use, &mut |_| Ok(()))
            .and_then(|()| tls_files::discard_made(layout, &in_use))
            .map_err(|error| {
                Refused::new(format!(
                    "the key is changed, but its files could not be put in order: {error}. Keep both files, put \
                     right what is wrong, and restart hubd, which tries again"
                ))
            })?;
        self.tls_report(true, false).await
    }

    /// The keys that the ledger names.
    fn in_use(&self) -> Vec<Digest> {
        let tls = self.devices.tls();
        let stated = tls.stated();
        stated.map_or_else(|| vec![Digest(tls.hub_id().0)], |stated| stated.keys)
    }

    /// A key to be reached under, at hand when the ledger names it.
    fn prepare(&self) -> Result<Digest, Refused> {
        let in_use = self.in_use();
        let layout = &self.config.layout;
        tls_files::settle(layout, &in_use, &mut |_| Ok(())).map_err(|error| {
            Refused::new(format!(
                "the files of the TLS key cannot be put in order: {error}"
            ))
        })?;
        let key = tls_files::next_key(layout, self.config.keys.hub_id, &in_use)
            .map_err(|error| Refused::new(error.to_string()))?;
        let identity = identity(&key).map_err(|error| Refused::new(error.to_string()))?;
        self.devices.tls().hold(identity);
        Ok(key.digest)
    }

    /// Without the key that is left nobody would reach the hub.
    fn has(&self, key: Option<&Digest>) -> Result<(), Refused> {
        // What is in memory only would be gone with the next start.
        let has = key.is_none_or(|key| config::has_tls_key(&self.config.layout, key));
        has.then_some(()).ok_or_else(|| {
            Refused::new(
                "the TLS key that would be left is not here: put its file in keys/ back, or end the change the other \
                 way (--finish, --abandon)",
            )
        })
    }

    async fn tls_report(&self, changed: bool, unconfirmed: bool) -> Result<RotationReport, Refused> {
        let overlap = self.in_use().len() > 1;
        let left = match overlap {
            true => self.not_told(),
            false => self.left_behind(FOLLOWS_TLS),
        };
        self.rotation("tls", left, (changed, unconfirmed, overlap)).await
    }

    pub(super) async fn rotation(
        &self,
        which: &str,
        left: LeftBehind,
        (changed, unconfirmed, overlap): (bool, bool, bool),
    ) -> Result<RotationReport, Refused> {
        use crate::admin::Backend as _;
        Ok(RotationReport {
            which: which.to_owned(),
            changed,
            overlap,
            unconfirmed,
            enrolled: left.enrolled,
            too_old: left.too_old,
            unheard: left.unheard,
            keys: self.keys().await?,
        })
    }

    /// Who cannot follow a change that came with this wire version, as far as
    /// has been heard since the hub started.
    pub(super) fn left_behind(&self, follows: u16) -> LeftBehind {
        self.compare(follows, 0)
    }

    /// The same, with those that have not been told of the newest TLS key.
    fn not_told(&self) -> LeftBehind {
        let number = self.devices.tls().stated().map_or(0, |stated| stated.number);
        self.compare(FOLLOWS_TLS, number)
    }

    fn compare(&self, follows: u16, number: u32) -> LeftBehind {
        let enrolled = self.devices.registry().list().into_iter();
        let enrolled = enrolled
            .filter(|device| !device.blocked)
            .map(|RegisteredDevice { device, name, .. }| (device, name));
        LeftBehind::of(enrolled, &self.devices.heard(), follows, number)
    }
}

/// The devices that a change leaves behind, by name.
#[derive(Debug, Default)]
pub(super) struct LeftBehind {
    /// All that may connect.
    enrolled: usize,
    /// That speak too old a wire version.
    pub(super) too_old: Vec<String>,
    /// Of which it is not known.
    unheard: Vec<String>,
}

impl LeftBehind {
    /// Of devices that may connect, by what has been heard of them: whether
    /// they speak this wire version, and know this statement of TLS keys.
    fn of(
        enrolled: impl Iterator<Item = (DeviceId, String)>,
        heard: &BTreeMap<DeviceId, Heard>,
        follows: u16,
        number: u32,
    ) -> Self {
        let mut left = Self::default();
        for (device, name) in enrolled {
            left.enrolled += 1;
            match heard.get(&device) {
                Some(heard) if heard.wire < follows => left.too_old.push(name),
                Some(heard) if heard.tls_keys >= number => {}
                _ => left.unheard.push(name),
            }
        }
        left.too_old.sort();
        left.unheard.sort();
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_names_the_devices_that_it_leaves_behind() {
        // What was heard of each: the wire version and the newest statement.
        let devices = [
            ("old", Some((3, 0))),
            ("told", Some((5, 2))),
            ("not told", Some((5, 1))),
            ("away", None),
        ];
        let id = |place: usize| DeviceId([u8::try_from(place).unwrap(); 32]);
        let enrolled = || {
            devices
                .iter()
                .enumerate()
                .map(|(place, (name, _))| (id(place), (*name).to_owned()))
        };
        let heard = devices.iter().enumerate().filter_map(|(place, (_, heard))| {
            let (wire, tls_keys) = (*heard)?;
            Some((id(place), Heard { wire, tls_keys }))
        });
        let heard: BTreeMap<DeviceId, Heard> = heard.collect();
        for (follows, number, too_old, unheard) in [
            (FOLLOWS_SIGNING, 0, &["old"][..], &["away"][..]),
            (FOLLOWS_TLS, 0, &["old"], &["away"]),
            (FOLLOWS_TLS, 2, &["old"], &["away", "not told"]),
            (3, 0, &[], &["away"]),
        ] {
            let left = LeftBehind::of(enrolled(), &heard, follows, number);
            assert_eq!(left.enrolled, 4);
            assert_eq!(left.too_old, too_old, "{follows} {number}");
            assert_eq!(left.unheard, unheard, "{follows} {number}");
        }
    }
}
