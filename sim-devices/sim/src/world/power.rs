//! The hub's life: starts, stops, crashes; what it wants done, and its index.

use hub_core::Now;
use hub_protocol::entry::{Event, StorageLevel};

use crate::disk::{Damage, Index};
use crate::profile::pick;
use crate::shell::{Out, Shell, index_from_scratch};
use crate::violation::{Checked, Rule, hold};

use super::{Down, Happening, World};

const HOUR_MS: u64 = 3_600_000;

impl World {
    pub(super) fn start(&mut self) -> Checked {
        if self.hub.is_some() {
            return Ok(());
        }
        let Down {
            off,
            long,
            torn_bytes,
            ..
        } = core::mem::take(&mut self.down);
        if off {
            self.booted_ms = self.now_ms;
        }
        if long {
            self.ask_again();
        }
        self.boot += 1;
        self.restarts += u64::from(self.boot > 1);
        self.stopping = false;
        self.wake_at_ms = None;
        let now = self.now();
        let seed = self.seed ^ self.boot;
        let index = self.disk.index.head();
        let started = Shell::start(
            &mut self.disk,
            &self.profile,
            self.boot,
            seed,
            (torn_bytes, off),
            now,
        );
        let (hub, outs) = match started {
            Ok(started) => started,
            Err(error) => {
                return hold(false, Rule::Broken, || {
                    format!("the ledger cannot be opened: {}", error.0)
                });
            }
        };
        let reported = outs.iter().any(|out| {
            let Out::Append { payload, .. } = out else {
                return false;
            };
            crate::wire::read_entry(payload).is_ok_and(
                |entry| matches!(entry.event, Event::HubStarted { torn_bytes: cut, .. } if cut == torn_bytes),
            )
        });
        hold(reported, Rule::NothingLost, || {
            format!("{torn_bytes} bytes were cut off, and no entry says so")
        })?;
        self.note(|w| {
            format!(
                "start {} from entry {index} of the index, {} on disk",
                w.boot, w.disk.durable
            )
        });
        self.hub = Some(hub);
        if self.rng.chance(250) {
            self.compare_index()?;
        }
        let newest_ms = self.check.ledger.newest_ms;
        self.carry_out(outs)?;
        let strange =
            now.wall_ms + 2 * 60_000 < newest_ms || now.wall_ms > newest_ms.saturating_add(24 * HOUR_MS);
        hold(
            newest_ms == 0 || !strange || self.check.ledger.doubt,
            Rule::SilenceMeansNo,
            || {
                format!(
                    "a start at {} trusts the clock after entries of {newest_ms}",
                    now.wall_ms
                )
            },
        )?;
        let boot = self.boot;
        if self.profile.room_changes > 0 {
            self.later(2 * self.profile.pace_ms, Happening::Room(boot));
            self.disk.room.level = StorageLevel::Enough;
            self.look_at_room()?;
        }
        self.later(self.profile.index_ms, Happening::Index(boot));
        let first = self.rng.below(5_000);
        self.later(first, Happening::Probe(boot));
        Ok(())
    }

    /// The index says what the journal says.
    fn compare_index(&mut self) -> Checked {
        let scratch = match index_from_scratch(&self.disk) {
            Ok(scratch) => scratch,
            Err(error) => return hold(false, Rule::Broken, || error.0),
        };
        let values = self.disk.index.values();
        let same = values.len() == scratch.len()
            && values
                .iter()
                .zip(&scratch)
                .all(|(a, b)| (a.0, a.1) == (&b.0, &b.1));
        hold(same, Rule::SameAgain, || {
            "the index and the tail give another state than the journal alone".to_owned()
        })
    }

    /// Power cut or kill -9.
    pub(crate) fn crash(&mut self) -> Checked {
        let damage = Damage {
            keeps_last_write: self.rng.chance(500),
            torn: pick(&mut self.rng, &[0, 1, 500, 999]),
            kept_cards: pick(&mut self.rng, &[0, 500, 1_000]),
            lost_batches: usize::try_from(self.rng.below(4)).unwrap_or_default(),
            loses_index: self.rng.chance(100),
        };
        let power = self.rng.chance(500);
        self.note(|_| format!("crash (power cut: {power}), {damage:?}"));
        let torn_bytes = self.disk.crash(damage);
        let pause = if self.calm { 100 } else { self.rng.below(10_000) };
        self.down(power, torn_bytes, pause)
    }

    pub(crate) fn stop(&mut self) -> Checked {
        self.stopping = true;
        self.note(|_| "told to stop".to_owned());
        self.with_hub(|hub, _, now| hub.stop(now))
    }

    /// There is no hub for `pause_ms`, or now and then for much longer.
    fn down(&mut self, off: bool, torn_bytes: u64, mut pause_ms: u64) -> Checked {
        self.hub = None;
        self.waiting.clear();
        let long = self.rng.chance(self.profile.long_down);
        if long {
            pause_ms = self.long_pause();
            if off {
                self.clock_without_power(pause_ms);
            }
        }
        self.down = Down {
            until_ms: self.now_ms + pause_ms,
            off,
            long,
            torn_bytes,
        };
        self.later(pause_ms, Happening::Start);
        // Events of this life are void from now on.
        self.boot += 1;
        self.check.crashed(&self.disk)
    }

    fn long_pause(&mut self) -> u64 {
        let longest = HOUR_MS * pick(&mut self.rng, &[1, 6, 30, 120]);
        let pause = self.rng.below(longest);
        self.note(|_| format!("no hub for {} minutes", pause / 60_000));
        pause
    }

    /// What the machine's clock makes of a time without power.
    fn clock_without_power(&mut self, pause_ms: u64) {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or_default();
        let wrong_by = match self.rng.below(10) {
            // It ran on, or was set right at the start.
            0..=2 => return,
            // Without a battery it goes on from where it stood.
            3..=7 => -signed(pause_ms),
            // Or from 1970 on.
            8 => {
                let wall_ms = self.now().wall_ms + pause_ms;
                signed(self.rng.below(24 * HOUR_MS)) - signed(wall_ms)
            }
            _ => signed(self.rng.below(960 * HOUR_MS)) - signed(480 * HOUR_MS),
        };
        self.jump(wrong_by);
    }

    /// A pause in which nothing needs to be told while there is no hub: days
    /// must not take more steps than minutes.
    pub(super) fn stretched(&mut self, pause_ms: u64) -> u64 {
        let left = self.down.until_ms.saturating_sub(self.now_ms);
        if left < 20 * pause_ms.max(1_000) {
            return pause_ms;
        }
        pause_ms + self.rng.below(2 * left)
    }

    /// Nobody waits for days until all faults have ceased.
    pub(crate) fn start_soon(&mut self) {
        self.later(100, Happening::Start);
    }

    pub(super) fn with_hub(&mut self, ask: impl FnOnce(&mut Shell, &Index, Now) -> Vec<Out>) -> Checked {
        let now = self.now();
        let Some(hub) = &mut self.hub else {
            return Ok(());
        };
        let mut outs = ask(hub, &self.disk.index, now);
        outs.extend(hub.load(&self.disk.index, now));
        self.carry_out(outs)
    }

    /// The newest entry, for a person.
    fn last_entry(&self) -> String {
        let Some(entry) = self.disk.records.last().map(|record| &record.entry) else {
            return String::new();
        };
        let id = entry.event.payment_id();
        let payment = id.and_then(|id| self.check.ledger.payments.get(&id));
        let reason = match &entry.event {
            Event::PaymentDecided { record, .. } => record.reason.name(),
            _ => "",
        };
        format!(
            "entry {} {} {} {} {reason}",
            entry.sequence,
            entry.event.name(),
            id.map(|id| id.to_string()).unwrap_or_default(),
            payment.map_or("", |payment| payment.state.name()),
        )
    }

    fn carry_out(&mut self, outs: Vec<Out>) -> Checked {
        for out in outs {
            match out {
                Out::Append { payload, card } => {
                    self.check.append(&mut self.disk, &payload, card)?;
                    self.note(Self::last_entry);
                }
                Out::Reply { ticket, answer } => self.reply(ticket, &answer)?,
                Out::Forward(forward) => self.forward(&forward)?,
                Out::Push(device, status) => {
                    let owner = self
                        .check
                        .ledger
                        .payments
                        .get(&status.payment_id)
                        .map(|p| p.device);
                    hold(owner == Some(device), Rule::OneCharge, || {
                        format!("{} is told to a stranger", status.payment_id)
                    })?;
                    self.check.status(&self.disk, &status)?;
                }
                Out::Broken(text) => return hold(false, Rule::Broken, || text),
                Out::EraseCard(id) => {
                    self.check.erase(&self.disk, &id)?;
                    self.disk.erase(id);
                }
            }
        }
        self.check.after(&self.disk)?;
        let most = if self.rng.chance(self.profile.cut_groups) {
            1 + usize::try_from(self.rng.below(3)).unwrap_or_default()
        } else {
            usize::MAX
        };
        if self.disk.begin_write(most) {
            let took = 1 + self.rng.below(self.profile.flush_ms);
            let boot = self.boot;
            self.later(took, Happening::Flushed(boot));
        }
        self.set_alarm();
        if self.stopping && self.hub.as_ref().is_some_and(Shell::has_stopped) {
            if let Some(hub) = &mut self.hub {
                hub.collect_changes(&mut self.disk.index);
            }
            self.disk.erase_now();
            self.disk.index.write(self.disk.durable);
            self.note(|_| "stopped in good order".to_owned());
            let off = self.rng.chance(300);
            self.down(off, 0, 1_000)?;
        }
        Ok(())
    }

    fn set_alarm(&mut self) {
        let Some(wake) = self.hub.as_ref().and_then(Shell::wake_ms) else {
            return;
        };
        let at = (wake + self.booted_ms).max(self.now_ms + 1);
        if self.wake_at_ms.is_none_or(|set| at < set) {
            self.wake_at_ms = Some(at);
            let boot = self.boot;
            self.later(at - self.now_ms, Happening::Wake(boot));
        }
    }

    pub(super) fn look_after_index(&mut self) {
        let boot = self.boot;
        self.later(self.profile.index_ms, Happening::Index(boot));
        self.disk.erase_now();
        let collects = self.rng.chance(800);
        let writes = self.rng.chance(800);
        let Some(hub) = &mut self.hub else {
            return;
        };
        if collects {
            hub.collect_changes(&mut self.disk.index);
        }
        if writes {
            let head = self.disk.index.write(self.disk.durable);
            hub.indexed(head);
        }
    }
}
