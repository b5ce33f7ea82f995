//! The data key wrapped for headquarters' recovery key.

use hub_protocol::{DataKey, HubId};

use super::{DataKeyError, StoreKey, Stored, Wrap, WrapId, copies, merged, places};
use crate::config::Layout;
use crate::recovery_key::{RecoveryKey, RecoverySecret};

const BY_RECOVERY_KEY: u8 = 2;

impl StoreKey {
    /// The id of the recovery key that it is wrapped for, if it is for one.
    pub fn recovery(&self) -> Option<WrapId> {
        recovery_of(&self.stored)
    }

    /// Has it wrapped for this recovery key of this hub's, and for no other,
    /// durably in both copies. The wrap is made anew and held against the one
    /// that stands there: what is damaged is mended.
    ///
    /// Says whether anything was written.
    ///
    /// # Errors
    /// The system's refusal: the wraps are as they were.
    pub fn wrap_for_recovery(&mut self, hub: HubId, key: Option<&RecoveryKey>) -> Result<bool, DataKeyError> {
        let wanted: Vec<Wrap> = key
            .and_then(|key| self.recovery_wrap(hub, key))
            .into_iter()
            .collect();
        let by_recovery_key = |wrap: &&Wrap| wrap.kind == BY_RECOVERY_KEY;
        if !self.unsure && self.stored.wraps.iter().filter(by_recovery_key).eq(wanted.iter()) {
            return Ok(false);
        }
        let mut wraps = self.stored.wraps.clone();
        wraps.retain(|wrap| !by_recovery_key(&wrap));
        wraps.extend(wanted);
        self.rewrite(wraps).map(|()| true)
    }

    fn recovery_wrap(&self, hub: HubId, key: &RecoveryKey) -> Option<Wrap> {
        Some(Wrap {
            kind: BY_RECOVERY_KEY,
            key: key.id(),
            wrapped: key.wrap(hub, &self.key, &self.stored.id)?,
        })
    }

    /// The key of the store in a hub's folder, by the private half of a
    /// recovery key. Writes nothing: the next change makes both copies.
    ///
    /// # Errors
    /// [`DataKeyError`]; of the copies that are there, none is wrapped for this
    /// key.
    pub fn recover(layout: &Layout, hub: HubId, secret: &RecoverySecret) -> Result<Self, DataKeyError> {
        let places = places(layout);
        let copies = copies(&places)?;
        let opened = copies
            .iter()
            .find_map(|(_, copy)| Some((copy, unwrap(copy, hub, secret)?)));
        let Some((copy, key)) = opened else {
            let mut found: Vec<WrapId> = copies.iter().filter_map(|(_, copy)| recovery_of(copy)).collect();
            found.dedup();
            return Err(DataKeyError::OtherRecoveryKey {
                path: places[0].clone(),
                given: secret.public().id(),
                found: found.first().copied(),
            });
        };
        let stored = merged(copy, &copies);
        Ok(Self {
            key,
            stored,
            places,
            unsure: true,
            named: None,
        })
    }
}

/// The id of the recovery key that the copy written last in a hub's folder is
/// wrapped for; `None` if it is for none, or cannot be read.
pub fn recovery_key_of(layout: &Layout) -> Option<WrapId> {
    let copies = copies(&places(layout)).ok()?;
    copies.first().and_then(|(_, copy)| recovery_of(copy))
}

fn recovery_of(stored: &Stored) -> Option<WrapId> {
    let mut wraps = stored.wraps.iter();
    wraps
        .find(|wrap| wrap.kind == BY_RECOVERY_KEY)
        .map(|wrap| wrap.key)
}

fn unwrap(stored: &Stored, hub: HubId, secret: &RecoverySecret) -> Option<DataKey> {
    let id = secret.public().id();
    let mut wraps = stored.wraps.iter();
    wraps.find_map(|wrap| {
        let ours = wrap.kind == BY_RECOVERY_KEY && wrap.key == id;
        let key = ours
            .then(|| secret.unwrap(hub, &wrap.wrapped, &stored.id))
            .flatten()?;
        (super::id_of(&key) == stored.id).then_some(key)
    })
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
