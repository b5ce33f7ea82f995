//! The shop: virtual time, and everything that happens in it one after the
//! other, each step drawn from the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use hub_core::Now;
use hub_protocol::entry::{Event, Finding, StorageLevel};
use hub_protocol::{PaymentId, RefusalCode};

use crate::Options;
use crate::attested::Described;
use crate::checker::{Checker, Waiting};
use crate::disk::Disk;
use crate::gateway::{Call, Gateway, Said};
use crate::limits::{self, Limits};
use crate::profile::Profile;
use crate::rng::Rng;
use crate::shell::Shell;
use crate::violation::{Checked, Rule, hold};
use crate::wallet::Wallet;
use crate::wire::{self, PayMessage};

pub(crate) use frames::Frame;
use frames::Heard;

mod apart;
mod devices;
mod frames;
mod power;
mod upstream;

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
    Release(PaymentId, bool),
    Close(PaymentId, Finding),
    Overview,
    /// Of a device with an allowance: its number, and that of the question.
    Frame(usize, u64, Frame),
    Forfeit(usize),
    Lift(Option<usize>),
    Describe(Rc<Described>),
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
    Start,
    Apart,
    ComeBack,
    Room(u64),
    AtWallet(usize, u64, Heard),
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

/// While there is no hub.
#[derive(Debug, Default)]
struct Down {
    /// When it starts again.
    until_ms: u64,
    /// Without power: the monotonic clock begins anew.
    off: bool,
    /// So long that nobody stood at the counter all the time.
    long: bool,
    /// What the last crash left of a write, to be cut off.
    torn_bytes: u64,
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
    down: Down,
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
    /// A sequence for what is newer than the rest.
    pub(crate) newer: Rng,
    /// Devices that may hold allowances.
    pub(crate) wallets: Vec<Wallet>,
    /// What devices have approved by themselves.
    pub(crate) approved: BTreeSet<PaymentId>,
    /// The last question was refused before its handling was over.
    refused_at_once: Option<RefusalCode>,
    /// An honest device whose return was not taken.
    broken_return: Option<usize>,
}

impl World {
    pub(crate) fn new(seed: u64, options: &Options) -> Self {
        let mut rng = Rng::new(seed);
        // Neighbouring seeds begin far apart.
        let mut rng = Rng::new(rng.next_u64());
        let mut profile = Profile::draw(&mut rng, &mut Rng::of(seed, "people"));
        let mut newer = Rng::of(seed, "newer");
        if !options.plain {
            profile.draw_newer(&mut newer);
            profile.draw_acquirer(&mut Rng::of(seed, "acquirer"));
            profile.draw_taps(&mut Rng::of(seed, "tap run"));
            profile.draw_undecided(&mut Rng::of(seed, "undecided"));
        }
        let mut world = Self {
            seed,
            rng,
            now_ms: 0,
            wall_offset_ms: 0,
            booted_ms: 0,
            boot: 0,
            down: Down::default(),
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
            newer,
            wallets: Vec::new(),
            approved: BTreeSet::new(),
            refused_at_once: None,
            broken_return: None,
            profile,
        };
        world.note(|w| format!("{:?}", w.profile));
        world.later(0, Happening::Start);
        for device in 0..world.profile.devices {
            world.later(1, Happening::AtHub(Question::Enrol(device)));
        }
        if world.profile.starts_with_policy {
            world.new_policy(2);
        }
        world.later(10, Happening::Act);
        world.begin_apart();
        if world.profile.devices_known > 0 {
            (0..world.profile.devices).for_each(|place| world.describe(place));
        }
        if world.profile.stock > 0 {
            world.line_up = false;
        } else if world.profile.wan_down_ms > 0 {
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

    /// The queue is still to grow.
    pub(crate) fn stocks(&self) -> bool {
        let sold = u64::try_from(self.sales.len()).unwrap_or(u64::MAX);
        !self.calm && sold < self.profile.stock
    }

    fn happen(&mut self, what: Happening) -> Checked {
        match what {
            Happening::Act => {
                if self.stocks() {
                    let pause = 1 + self.rng.below(30);
                    let pause = self.stretched(pause);
                    self.later(pause, Happening::Act);
                    self.sell();
                    if !self.stocks() {
                        self.later(1, Happening::Line(true));
                    }
                } else if !self.calm {
                    let pause = self.rng.below(2 * self.profile.pace_ms);
                    let pause = self.stretched(pause);
                    self.later(pause, Happening::Act);
                    self.act();
                }
                Ok(())
            }
            Happening::AtHub(question) => self.at_hub(&question),
            Happening::AtDevice(id, last) => {
                let apart = self.sale_of(&id).map(|sale| sale.device);
                let apart = apart.is_some_and(|device| self.is_apart(device));
                if last
                    && !apart
                    && let Some(sale) = self.sale_of(&id)
                {
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
            Happening::Start => self.start(),
            Happening::Apart => {
                self.apart();
                self.hold_apart()
            }
            Happening::Room(boot) if boot == self.boot => {
                let pause = 2 * self.profile.pace_ms.max(500);
                self.later(if self.calm { 20_000 } else { pause }, Happening::Room(boot));
                self.look_at_room()
            }
            Happening::ComeBack => {
                self.finish_apart();
                Ok(())
            }
            Happening::AtWallet(place, question, heard) => {
                self.at_wallet(place, question, &heard);
                self.hold_apart()
            }
            // Of an earlier life of the hub.
            Happening::Flushed(_)
            | Happening::Index(_)
            | Happening::Wake(_)
            | Happening::FromGateway { .. }
            | Happening::Room(_)
            | Happening::Probe(_) => Ok(()),
        }
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
        let mut own = Rng::of(self.seed, &format!("policy {version} at {wall}"));
        let mut limits = Limits::draw(&mut self.rng, &mut own, version, wall, &self.profile);
        if self.stocks() {
            limits.widen();
        }
        let here = self.now().wall_ms;
        if limits.not_before_ms == wall && here < limits.expires_ms {
            // By the hub's own clock, which the gateway may set back.
            limits.not_before_ms = here;
        }
        let limits = Rc::new(limits);
        self.check
            .signed
            .policies
            .insert(limits.signed(), Rc::clone(&limits));
        // One that comes before its time is installed again then.
        let early_ms = limits.not_before_ms.saturating_sub(wall);
        if early_ms > 0 {
            self.later(
                early_ms + delay_ms,
                Happening::AtHub(Question::Activate(Rc::clone(&limits))),
            );
        }
        self.later(delay_ms, Happening::AtHub(Question::Activate(limits)));
    }

    pub(crate) fn tell_hub(&mut self, question: Question) {
        self.later(1, Happening::AtHub(question));
    }

    /// What came later than the rest, from its own sequence.
    pub(crate) fn newer_mischief(&mut self) -> Checked {
        if self.profile.oddities + self.profile.devices_known == 0 {
            return Ok(());
        }
        let devices = u64::try_from(self.profile.devices).unwrap_or(1);
        let place = usize::try_from(self.newer.below(devices)).unwrap_or_default();
        if self.newer.chance(self.profile.bad_signatures) {
            self.note(|_| format!("a request of device {place} is not signed by it"));
            let device = wire::device_id(place);
            self.with_hub(|hub, _, now| hub.bad_signature(device, now))?;
        }
        if self.power_would_part() && self.newer.chance(300) {
            return self.crash();
        }
        if self.newer.chance(self.profile.descriptions) {
            self.describe(place);
        }
        if self.newer.chance(10) {
            let store = self.newer.chance(500);
            self.tell_hub(Question::Lift((!store).then_some(place)));
        }
        Ok(())
    }

    /// An anomaly is on disk, and what it leads to is not.
    fn power_would_part(&self) -> bool {
        let at = |place: usize| self.disk.records.get(place).map(|record| &record.entry.event);
        self.hub.is_some()
            && matches!(
                (at(self.disk.durable.wrapping_sub(1)), at(self.disk.durable)),
                (
                    Some(Event::AnomalyFound { .. }),
                    Some(Event::RestrictionChanged { .. })
                )
            )
    }

    /// A device says what it is, over a network that is faultless but slow.
    fn describe(&mut self, place: usize) {
        let rules = self.check.ledger.policy.as_ref();
        let ages = rules
            .and_then(|limits| limits.devices.as_ref())
            .map(limits::Devices::ages);
        let now_ms = self.now().wall_ms;
        let ages = ages.unwrap_or_else(|| vec![0]);
        let said = Described::draw(&mut self.newer, wire::device_id(place), now_ms, &ages);
        self.check.signed.descriptions.push(Rc::clone(&said));
        let delay = 1 + self.newer.below(self.profile.lan_delay_ms);
        self.later(delay, Happening::AtHub(Question::Describe(said)));
    }

    /// Others come and go; the hub is told what that makes of the room.
    pub(crate) fn look_at_room(&mut self) -> Checked {
        if self.calm {
            self.disk.room.all_is_free();
        } else if self.newer.chance(self.profile.room_changes) {
            self.disk.room.others(&mut self.newer);
        }
        let before = self.disk.room.level;
        let level = self.disk.room.look();
        let free = self.disk.room.free_bytes();
        if level != before {
            self.note(|_| format!("the disk has room: {}, {free} bytes", level.name()));
        }
        self.with_hub(|hub, _, now| hub.storage(level, free, now))?;
        let told = self.check.ledger.storage.unwrap_or(StorageLevel::Enough);
        hold(self.hub.is_none() || told == level, Rule::SilenceMeansNo, || {
            format!("the disk is {level}, and the ledger says {told}")
        })
    }

    pub(crate) fn jump(&mut self, ms: i64) {
        // Where times are remembered the clock is never ahead, so that the
        // gateway has nothing to set back: what that does to times of before
        // is not modelled.
        let remembers = self.profile.windows.any() || self.profile.score.is_some();
        let ms = if remembers { -ms.abs() } else { ms };
        self.wall_offset_ms = self.wall_offset_ms.saturating_add(ms);
        self.note(|_| format!("the wall clock jumps by {ms} ms"));
    }
}
