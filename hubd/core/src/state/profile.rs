//! What is usual in the shop, folded. Nothing is remembered while the policy
//! has no `[profile]`.

use hub_protocol::entry::EntryTime;

use super::State;
use super::stored::Key;
use crate::profile::Profile;

impl State {
    /// What is usual in the shop, if the policy asks for it and anything is
    /// known.
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_deref()
    }

    /// A payment was approved, on- or offline.
    pub(super) fn usual_amount(&mut self, amount_minor: u64) {
        if self.learns() {
            self.change_profile(|profile| profile.amounts.approved(amount_minor));
        }
    }

    /// A device asked for a payment.
    pub(super) fn usual_hour(&mut self, at: EntryTime) {
        let policy = self.policy.as_ref().filter(|policy| policy.profile.is_some());
        if let Some(hour) = policy.map(|policy| policy.hour_of_week(at.wall_ms)) {
            self.change_profile(|profile| profile.asked(hour, at));
        }
    }

    /// A policy that does not ask what is usual ends the memory of it; with
    /// another that asks, it goes on.
    pub(super) fn profile_follows_policy(&mut self) {
        if !self.learns() && self.profile.take().is_some() {
            self.dirty.insert(Key::Profile);
        }
    }

    pub(super) fn profile_set_back(&mut self, by_ms: u64) {
        if self.profile.is_some() {
            self.change_profile(|profile| profile.arrivals.set_back(by_ms));
        }
    }

    fn learns(&self) -> bool {
        self.policy
            .as_ref()
            .is_some_and(|policy| policy.profile.is_some())
    }

    fn change_profile(&mut self, change: impl FnOnce(&mut Profile)) {
        change(self.profile.get_or_insert_default());
        self.dirty.insert(Key::Profile);
    }
}
