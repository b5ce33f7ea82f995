//! Between hub and gateway: calls, answers, probes, and the line itself.

use std::rc::Rc;

use hub_protocol::PaymentId;

use crate::gateway::{Call, Said, What};
use crate::shell::Forward;
use crate::violation::{Checked, Rule, hold};

use super::{BEGIN_MS, Happening, World};

impl World {
    pub(super) fn forward(&mut self, forward: &Forward) -> Checked {
        let signed = self
            .check
            .forward(&self.disk, forward, self.now_ms, &self.profile)?;
        self.note(|_| format!("attempt {}: {:?} {}", forward.attempt, forward.what, forward.id));
        let (boot, sent_ms) = (self.boot, self.now_ms);
        let back = |said: Said| Happening::FromGateway {
            boot,
            attempt: forward.attempt,
            said,
            sent_ms,
        };
        let with_card = !matches!(forward.what, What::Reverse | What::LookUp);
        let lost_card = with_card && self.rng.chance(self.profile.card_lost);
        if lost_card {
            self.disk.cards.remove(&forward.id);
        }
        if with_card && !self.disk.cards.contains(&forward.id) {
            self.later(1, back(Said::CardMissing));
            return Ok(());
        }
        if self.profile.acquirer && forward.what == What::LookUp {
            self.later(1, back(Said::CannotBeAsked));
            return Ok(());
        }
        let slack = self.rng.below(20);
        self.later(forward.deadline_ms + slack, back(Said::Silence));
        let call = Rc::new(Call {
            boot,
            attempt: forward.attempt,
            id: forward.id,
            what: forward.what,
            signed,
        });
        if !self.line_up {
            if self.rng.chance(500) {
                self.later(1, back(Said::Silence));
            }
            return Ok(());
        }
        if self.rng.chance(self.profile.wan_drop) {
            return Ok(());
        }
        for _ in 0..=u32::from(self.rng.chance(self.profile.wan_double)) {
            let delay = 1 + self.rng.below(self.profile.wan_delay_ms);
            self.later(delay, Happening::AtGateway(Rc::clone(&call), sent_ms));
        }
        Ok(())
    }

    pub(super) fn at_gateway(&mut self, call: &Rc<Call>, sent_ms: u64) {
        let (said, latency) = self.gateway.call(call, self.now_ms, &mut self.rng, &self.profile);
        self.note(|_| {
            format!(
                "gateway: attempt {} {:?} {}: {said:?}",
                call.attempt, call.what, call.id
            )
        });
        if said == Said::Silence || !self.line_up || self.rng.chance(self.profile.wan_drop) {
            return;
        }
        let delay = latency + self.rng.below(self.profile.wan_delay_ms);
        self.later(
            delay,
            Happening::FromGateway {
                boot: call.boot,
                attempt: call.attempt,
                said,
                sent_ms,
            },
        );
    }

    /// The first of answer and deadline counts.
    pub(super) fn attempt_ends(&mut self, attempt: u64, said: &Said, sent_ms: u64) -> Checked {
        if self.hub.is_none() || !self.check.attempts.contains_key(&attempt) {
            return Ok(());
        }
        self.note(|_| format!("attempt {attempt} ends: {said:?}"));
        self.hold_book()?;
        self.check.answered(attempt, said, self.now_ms);
        let latency = self.now_ms - sent_ms;
        self.with_hub(|hub, _, now| hub.gateway(attempt, said, latency, now))
    }

    /// Whether a call about this payment is still on its way there.
    pub(crate) fn on_its_way(&self, id: &PaymentId) -> bool {
        let is_it =
            |happening: &Happening| matches!(happening, Happening::AtGateway(call, _) if call.id == *id);
        self.happenings.values().any(is_it)
    }

    pub(crate) fn any_on_its_way(&self) -> bool {
        let is_it = |happening: &Happening| matches!(happening, Happening::AtGateway(..));
        self.happenings.values().any(is_it)
    }

    fn hold_book(&self) -> Checked {
        let twice = self.gateway.book.iter().find(|(_, account)| account.charges > 1);
        hold(twice.is_none(), Rule::OneCharge, || {
            format!("{:?} is charged twice", twice.map(|(id, _)| id))
        })
    }

    pub(super) fn probe(&mut self) -> Checked {
        let boot = self.boot;
        let every = if self.calm {
            5_000
        } else {
            self.profile.pace_ms.max(5_000)
        };
        self.later(every, Happening::Probe(boot));
        let ok = self.line_up && !self.rng.chance(self.profile.wan_drop);
        let time = self
            .rng
            .chance(self.profile.tells_time)
            .then_some(BEGIN_MS + self.now_ms);
        self.with_hub(|hub, _, now| hub.probe(ok, time, now))
    }

    pub(super) fn line(&mut self, up: bool) {
        if self.calm {
            return;
        }
        self.line_up = up;
        self.note(|_| format!("line up: {up}"));
        let lasts = if up {
            self.profile.wan_up_ms
        } else {
            self.profile.wan_down_ms
        };
        let lasts = 1 + self.rng.below(2 * lasts);
        let lasts = self.stretched(lasts);
        self.later(lasts, Happening::Line(!up));
    }

    pub(crate) fn line_is_up_for_good(&mut self) {
        self.line_up = true;
    }
}
