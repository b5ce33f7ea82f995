//! The shop: virtual time, and everything that happens in it one after the
//! other, each step drawn from the seed.

use std::collections::BTreeMap;
use std::rc::Rc;

use hub_core::Now;
use hub_protocol::{DeviceClass, Digest, PaymentId, RefusalCode};

use crate::Options;
use crate::checker::{Checker, Waiting};
use crate::disk::{Damage, Disk};
use crate::gateway::{Call, Gateway, Said, What};
use crate::limits::Limits;
use crate::profile::Profile;
use crate::rng::Rng;
use crate::shell::{Answer, Ask, Forward, Out, Shell, index_from_scratch};
use crate::violation::{Checked, Rule, hold};
use crate::wire::{self, PayMessage};

/// When every run begins: milliseconds since 1970 UTC.
pub(crate) const BEGIN_MS: u64 = 1_798_000_000_000;

/// A question on its way to the hub.
#[derive(Clone, Debug)]
pub(crate) enum Question {
    Pay(Rc<PayMessage>),
    Void(usize, PaymentId),
    Status(usize, PaymentId),
    Enrol(usize),
    Activate(Rc<Limits>),
    Block(usize, bool),
    Drain,
    Release(PaymentId),
    Overview,
}

/// Something that is going to happen.
#[derive(Clone, Debug)]
enum Happening {
    Act,
    AtHub(Question),
    AtDevice(PaymentId, bool),
    Impatient(usize),
    Flushed(u64),
    Index(u64),
    Wake(u64),
    AtGateway(Rc<Call>, u64),
    FromGateway {
        boot: u64,
        attempt: u64,
        said: Said,
        sent_ms: u64,
    },
    Probe(u64),
    Line(bool),
    Start {
        torn_bytes: u64,
    },
}

/// A sale that a device wants to make.
#[derive(Debug)]
pub(crate) struct Sale {
    pub(crate) device: usize,
    pub(crate) message: Rc<PayMessage>,
    pub(crate) tries: u32,
    /// Answered, or given up.
    pub(crate) closed: bool,
}

/// One run.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) rng: Rng,
    pub(crate) profile: Profile,
    pub(crate) now_ms: u64,
    wall_offset_ms: i64,
    booted_ms: u64,
    pub(crate) boot: u64,
    happenings: BTreeMap<(u64, u64), Happening>,
    happened: u64,
    pub(crate) hub: Option<Shell>,
    pub(crate) disk: Disk,
    pub(crate) check: Checker,
    pub(crate) gateway: Gateway,
    line_up: bool,
    wake_at_ms: Option<u64>,
    stopping: bool,
    pub(crate) waiting: BTreeMap<u64, Waiting>,
    tickets: u64,
    pub(crate) sales: Vec<Sale>,
    pub(crate) policy_version: u64,
    pub(crate) calm: bool,
    pub(crate) steps: u64,
    pub(crate) restarts: u64,
    trace: Option<Vec<String>>,
}

impl World {
    pub(crate) fn new(seed: u64, options: &Options) -> Self {
        let mut rng = Rng::new(seed);
        // Neighbouring seeds begin far apart.
        let mut rng = Rng::new(rng.next_u64());
        let profile = Profile::draw(&mut rng);
        let mut world = Self {
            seed,
            rng,
            now_ms: 0,
            wall_offset_ms: 0,
            booted_ms: 0,
            boot: 0,
            happenings: BTreeMap::new(),
            happened: 0,
            hub: None,
            disk: Disk::default(),
            check: Checker::new(profile.max_queue),
            gateway: Gateway::default(),
            line_up: true,
            wake_at_ms: None,
            stopping: false,
            waiting: BTreeMap::new(),
            tickets: 0,
            sales: Vec::new(),
            policy_version: 0,
            calm: false,
            steps: 0,
            restarts: 0,
            trace: options.trace.then(Vec::new),
            profile,
        };
        world.note(|w| format!("{:?}", w.profile));
        world.later(0, Happening::Start { torn_bytes: 0 });
        for device in 0..world.profile.devices {
            world.later(1, Happening::AtHub(Question::Enrol(device)));
        }
        if world.profile.starts_with_policy {
            world.new_policy(2);
        }
        world.later(10, Happening::Act);
        if world.profile.wan_down_ms > 0 {
            let up = world.rng.below(world.profile.wan_up_ms);
            world.later(up, Happening::Line(false));
        }
        world
    }

    pub(crate) fn into_trace(self) -> Vec<String> {
        self.trace.unwrap_or_default()
    }

    pub(crate) fn note(&mut self, text: impl FnOnce(&Self) -> String) {
        if self.trace.is_some() {
            let line = format!("{:>10} {}", self.now_ms, text(self));
            if let Some(trace) = &mut self.trace {
                trace.push(line);
            }
        }
    }

    fn later(&mut self, delay_ms: u64, what: Happening) {
        self.happened += 1;
        self.happenings
            .insert((self.now_ms + delay_ms, self.happened), what);
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            wall_ms: (BEGIN_MS + self.now_ms).saturating_add_signed(self.wall_offset_ms),
            monotonic_ms: self.now_ms - self.booted_ms,
        }
    }

    /// One thing happens.
    pub(crate) fn step(&mut self) -> Checked {
        let Some(((at, _), what)) = self.happenings.pop_first() else {
            return Ok(());
        };
        self.now_ms = at;
        self.steps += 1;
        self.happen(what)?;
        if !self.calm {
            self.mischief()?;
        }
        Ok(())
    }

    fn happen(&mut self, what: Happening) -> Checked {
        match what {
            Happening::Act => {
                if !self.calm {
                    let pause = self.rng.below(2 * self.profile.pace_ms);
                    self.later(pause, Happening::Act);
                    self.act();
                }
                Ok(())
            }
            Happening::AtHub(question) => self.at_hub(&question),
            Happening::AtDevice(id, last) => {
                if last && let Some(sale) = self.sale_of(&id) {
                    sale.closed = true;
                }
                Ok(())
            }
            Happening::Impatient(sale) => {
                self.impatient(sale);
                Ok(())
            }
            Happening::Flushed(boot) if boot == self.boot => {
                let durable = self.disk.flushed();
                self.note(|_| format!("flushed up to entry {durable}"));
                self.with_hub(|hub, _, now| hub.appended(durable, now))
            }
            Happening::Index(boot) if boot == self.boot => {
                self.look_after_index();
                Ok(())
            }
            Happening::Wake(boot) if boot == self.boot => {
                self.wake_at_ms = None;
                self.with_hub(|hub, _, now| hub.tick(now))
            }
            Happening::AtGateway(call, sent_ms) => {
                self.at_gateway(&call, sent_ms);
                Ok(())
            }
            Happening::FromGateway {
                boot,
                attempt,
                said,
                sent_ms,
            } if boot == self.boot => self.attempt_ends(attempt, &said, sent_ms),
            Happening::Probe(boot) if boot == self.boot => self.probe(),
            Happening::Line(up) => {
                self.line(up);
                Ok(())
            }
            Happening::Start { torn_bytes } => self.start(torn_bytes),
            // Of an earlier life of the hub.
            Happening::Flushed(_)
            | Happening::Index(_)
            | Happening::Wake(_)
            | Happening::FromGateway { .. }
            | Happening::Probe(_) => Ok(()),
        }
    }

    // ---- the hub's life ----------------------------------------------------

    fn start(&mut self, torn_bytes: u64) -> Checked {
        if self.hub.is_some() {
            return Ok(());
        }
        self.boot += 1;
        self.restarts += u64::from(self.boot > 1);
        self.stopping = false;
        self.wake_at_ms = None;
        let now = self.now();
        let seed = self.seed ^ self.boot;
        let index = self.disk.index.head();
        let started = Shell::start(&mut self.disk, &self.profile, self.boot, seed, torn_bytes, now);
        let (hub, outs) = match started {
            Ok(started) => started,
            Err(error) => {
                return hold(false, Rule::Broken, || {
                    format!("the ledger cannot be opened: {}", error.0)
                });
            }
        };
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
        self.carry_out(outs)?;
        let boot = self.boot;
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
            lost_batches: usize::try_from(self.rng.below(4)).unwrap_or_default(),
            loses_index: self.rng.chance(100),
        };
        let power = self.rng.chance(500);
        self.note(|_| format!("crash (power cut: {power}), {damage:?}"));
        let torn_bytes = self.disk.crash(damage);
        self.down(power)?;
        let pause = if self.calm { 100 } else { self.rng.below(10_000) };
        self.later(pause, Happening::Start { torn_bytes });
        Ok(())
    }

    fn down(&mut self, power: bool) -> Checked {
        self.hub = None;
        self.waiting.clear();
        if power {
            self.booted_ms = self.now_ms;
        }
        // Events of this life are void from now on.
        self.boot += 1;
        self.check.crashed(&self.disk)
    }

    fn with_hub(&mut self, ask: impl FnOnce(&mut Shell, &crate::disk::Index, Now) -> Vec<Out>) -> Checked {
        let now = self.now();
        let Some(hub) = &mut self.hub else {
            return Ok(());
        };
        let mut outs = ask(hub, &self.disk.index, now);
        outs.extend(hub.load(&self.disk.index, now));
        self.carry_out(outs)
    }

    fn carry_out(&mut self, outs: Vec<Out>) -> Checked {
        for out in outs {
            match out {
                Out::Append { payload, card } => {
                    self.check.append(&mut self.disk, &payload, card)?;
                    self.note(|w| {
                        let entry = w.disk.records.last().map(|record| &record.entry);
                        entry.map_or(String::new(), |entry| {
                            let id = entry.event.payment_id().map(|id| id.to_string());
                            let state = entry
                                .event
                                .payment_id()
                                .and_then(|id| w.check.ledger.payments.get(&id))
                                .map(|p| p.state);
                            format!(
                                "entry {} {} {} {}",
                                entry.sequence,
                                entry.event.name(),
                                id.unwrap_or_default(),
                                state.map_or("", |s| s.name())
                            )
                        })
                    });
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
                Out::EraseCard(id) => {
                    self.check.erase(&self.disk, &id)?;
                    self.disk.cards.remove(&id);
                }
            }
        }
        self.check.after(&self.disk, &self.profile)?;
        if self.disk.begin_write() {
            let took = 1 + self.rng.below(self.profile.flush_ms);
            let boot = self.boot;
            self.later(took, Happening::Flushed(boot));
        }
        self.set_alarm();
        if self.stopping && self.hub.as_ref().is_some_and(Shell::has_stopped) {
            if let Some(hub) = &mut self.hub {
                hub.collect_changes(&mut self.disk.index);
            }
            self.disk.index.write(self.disk.durable);
            self.note(|_| "stopped in good order".to_owned());
            self.down(false)?;
            self.later(1_000, Happening::Start { torn_bytes: 0 });
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

    fn look_after_index(&mut self) {
        let boot = self.boot;
        self.later(self.profile.index_ms, Happening::Index(boot));
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

    // ---- between devices and hub -------------------------------------------

    /// Sends a question over the shop's network.
    pub(crate) fn ask(&mut self, question: &Question) {
        let copies = if self.rng.chance(self.profile.lan_drop) {
            0
        } else {
            1 + u32::from(self.rng.chance(self.profile.lan_double))
        };
        for _ in 0..copies {
            let delay = 1 + self.rng.below(self.profile.lan_delay_ms);
            self.later(delay, Happening::AtHub(question.clone()));
        }
    }

    fn at_hub(&mut self, question: &Question) -> Checked {
        if self.hub.is_none() {
            return Ok(());
        }
        self.tickets += 1;
        let ticket = self.tickets;
        let device = |number: &usize| Some(wire::device_id(*number));
        let (asker, payment, request) = match question {
            Question::Pay(message) => (
                Some(message.device),
                Some(message.request.payment_id),
                Some(Digest::of(&message.signed)),
            ),
            Question::Void(number, id) | Question::Status(number, id) => (device(number), Some(*id), None),
            _ => (None, None, None),
        };
        self.note(|_| format!("ticket {ticket}: {}", describe(question)));
        self.waiting.insert(
            ticket,
            Waiting {
                device: asker,
                payment,
                request,
                head: None,
            },
        );
        let ask = match question {
            Question::Pay(message) => Ask::Pay(message),
            Question::Void(number, id) => Ask::Void(wire::device_id(*number), *id),
            Question::Status(number, id) => Ask::Status(wire::device_id(*number), *id),
            Question::Enrol(number) => Ask::Enrol(wire::device_id(*number), class_of(*number)),
            Question::Activate(limits) => Ask::Activate(limits),
            Question::Block(number, blocked) => Ask::Block(wire::device_id(*number), *blocked),
            Question::Drain => Ask::Drain,
            Question::Release(id) => Ask::Release(*id),
            Question::Overview => Ask::Overview,
        };
        self.with_hub(|hub, index, now| hub.ask(&ask, ticket, index, now))?;
        let head = self.disk.records.len();
        if let Some(waiting) = self.waiting.get_mut(&ticket) {
            waiting.head = Some(head);
        }
        Ok(())
    }

    fn reply(&mut self, ticket: u64, answer: &Answer) -> Checked {
        let Some(waiting) = self.waiting.remove(&ticket) else {
            return hold(false, Rule::OneCharge, || {
                format!("ticket {ticket} is answered twice")
            });
        };
        self.check.reply(&self.disk, &waiting, answer)?;
        self.note(|_| format!("ticket {ticket} is answered: {}", told(answer)));
        let last = match answer {
            Answer::Receipt(_) => true,
            Answer::Refused(code) => {
                waiting.request.is_some() && !code.transient() && *code != RefusalCode::Stopping
            }
            _ => false,
        };
        // The answer may be lost on its way, or its reader may have moved to
        // another network.
        if let Some(id) = waiting.payment
            && !self.rng.chance(self.profile.lan_drop)
        {
            let delay = 1 + self.rng.below(self.profile.lan_delay_ms);
            self.later(delay, Happening::AtDevice(id, last));
        }
        Ok(())
    }

    pub(crate) fn impatient_after(&mut self, sale: usize, delay_ms: u64) {
        self.later(delay_ms, Happening::Impatient(sale));
    }

    fn sale_of(&mut self, id: &PaymentId) -> Option<&mut Sale> {
        self.sales
            .iter_mut()
            .find(|sale| sale.message.request.payment_id == *id)
    }

    // ---- between hub and gateway -------------------------------------------

    fn forward(&mut self, forward: &Forward) -> Checked {
        let signed = self.check.forward(&self.disk, forward, self.now_ms)?;
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

    fn at_gateway(&mut self, call: &Rc<Call>, sent_ms: u64) {
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
    fn attempt_ends(&mut self, attempt: u64, said: &Said, sent_ms: u64) -> Checked {
        if self.hub.is_none() || !self.check.attempts.contains_key(&attempt) {
            return Ok(());
        }
        self.note(|_| format!("attempt {attempt} ends: {said:?}"));
        self.hold_book()?;
        self.check.answered(attempt, said, self.now_ms);
        let latency = self.now_ms - sent_ms;
        self.with_hub(|hub, _, now| hub.gateway(attempt, said, latency, now))
    }

    fn hold_book(&self) -> Checked {
        let twice = self.gateway.book.iter().find(|(_, account)| account.charges > 1);
        hold(twice.is_none(), Rule::OneCharge, || {
            format!("{:?} is charged twice", twice.map(|(id, _)| id))
        })
    }

    fn probe(&mut self) -> Checked {
        let boot = self.boot;
        let every = if self.calm {
            5_000
        } else {
            self.profile.pace_ms.max(5_000)
        };
        self.later(every, Happening::Probe(boot));
        let ok = self.line_up && !self.rng.chance(self.profile.wan_drop);
        let time = self.rng.chance(700).then_some(BEGIN_MS + self.now_ms);
        self.with_hub(|hub, _, now| hub.probe(ok, time, now))
    }

    fn line(&mut self, up: bool) {
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
        self.later(lasts, Happening::Line(!up));
    }

    pub(crate) fn line_is_up_for_good(&mut self) {
        self.line_up = true;
    }

    // ---- what people and clocks do -----------------------------------------

    pub(crate) fn new_policy(&mut self, delay_ms: u64) {
        let version = if self.rng.chance(850) || self.policy_version == 0 {
            self.policy_version += 1;
            self.policy_version
        } else {
            // Somebody installs an old one.
            1 + self.rng.below(self.policy_version)
        };
        let wall = BEGIN_MS + self.now_ms;
        let limits = Rc::new(Limits::draw(&mut self.rng, version, wall, self.profile.pace_ms));
        self.check
            .signed
            .policies
            .insert(limits.signed(), Rc::clone(&limits));
        self.later(delay_ms, Happening::AtHub(Question::Activate(limits)));
    }

    pub(crate) fn tell_hub(&mut self, question: Question) {
        self.later(1, Happening::AtHub(question));
    }

    pub(crate) fn jump(&mut self, ms: i64) {
        self.wall_offset_ms = self.wall_offset_ms.saturating_add(ms);
        self.note(|_| format!("the wall clock jumps by {ms} ms"));
    }

    pub(crate) fn stop(&mut self) -> Checked {
        self.stopping = true;
        self.note(|_| "told to stop".to_owned());
        self.with_hub(|hub, _, now| hub.stop(now))
    }
}

/// The class of a device, which it keeps.
pub(crate) fn class_of(number: usize) -> DeviceClass {
    match number % 3 {
        0 => DeviceClass::Mpos,
        1 => DeviceClass::Softpos,
        _ => DeviceClass::Terminal,
    }
}

fn describe(question: &Question) -> String {
    match question {
        Question::Pay(m) => format!(
            "device {} pays {} with {} as {}",
            m.device.0[31],
            m.request.amount_minor(),
            m.request.card.token,
            m.request.payment_id
        ),
        Question::Activate(limits) => format!("{limits:?}"),
        other => format!("{other:?}"),
    }
}

fn told(answer: &Answer) -> String {
    match answer {
        Answer::Receipt(r) => format!("{} {} {}", r.payment_id, r.decision, r.reason),
        Answer::Status(s, _) => format!("{} {}", s.payment_id, s.state),
        other => format!("{other:?}"),
    }
}
