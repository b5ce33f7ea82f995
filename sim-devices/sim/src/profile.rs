//! What goes wrong in one run, and how often. Every run has its own mixture:
//! each kind of fault is absent from half of them, so that rare combinations
//! are not always drowned by loud ones.

use crate::limits::{Score, Windows, draw_score};
use crate::rng::Rng;

/// Chances are per thousand, times in milliseconds.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) devices: usize,
    pub(crate) cards: u64,
    /// Between two acts in the shop, about.
    pub(crate) pace_ms: u64,
    pub(crate) flush_ms: u64,
    pub(crate) index_ms: u64,
    /// A group is written before all that waits has arrived.
    pub(crate) cut_groups: u64,
    // Each step.
    pub(crate) crash: u64,
    pub(crate) clock_jump: u64,
    pub(crate) operator: u64,
    /// Somebody looks at how the hub stands.
    pub(crate) looks: u64,
    pub(crate) policy: u64,
    pub(crate) stop: u64,
    /// Of those two: it takes hours or days until the hub starts again.
    pub(crate) long_down: u64,
    /// A payment's sealed card cannot be read.
    pub(crate) card_lost: u64,
    // Between devices and hub.
    pub(crate) lan_drop: u64,
    pub(crate) lan_double: u64,
    pub(crate) lan_delay_ms: u64,
    pub(crate) liar: u64,
    // Between hub and gateway.
    pub(crate) wan_drop: u64,
    pub(crate) wan_double: u64,
    pub(crate) wan_delay_ms: u64,
    pub(crate) wan_up_ms: u64,
    /// 0: it never goes down.
    pub(crate) wan_down_ms: u64,
    // The gateway.
    pub(crate) late: u64,
    pub(crate) silent: u64,
    pub(crate) throttles: u64,
    pub(crate) broken: u64,
    pub(crate) pending: u64,
    /// For how long it does not know at the most.
    pub(crate) pending_ms: u64,
    /// For how long the hub lets it, and then parks; reversals are left
    /// undecided too. 0: as long as usual, which no run takes.
    pub(crate) undecided_ms: u64,
    pub(crate) refuses_hub: u64,
    pub(crate) refuses_message: u64,
    pub(crate) declines: u64,
    pub(crate) refuses_reversal: u64,
    /// It tells the time with its answer to a probe.
    pub(crate) tells_time: u64,
    /// After so long the gateway takes a known id for a new one. 0: never.
    pub(crate) retention_ms: u64,
    // The core's settings.
    pub(crate) max_remembered: usize,
    pub(crate) max_queue: usize,
    pub(crate) max_in_flight: usize,
    pub(crate) abandoned_after_ms: u64,
    pub(crate) starts_with_policy: bool,
    pub(crate) windows: Windows,
    pub(crate) score: Option<Score>,
    /// A payment states terms: its device speaks wire version 3.
    pub(crate) terms: u64,
    /// Of those: a supervisor has signed it.
    pub(crate) overrides: u64,
    /// A policy says something of who stands at the device.
    pub(crate) people: u64,
    /// A payment that is settled comes back.
    pub(crate) regrets: u64,
    /// A sale is a tap without verification.
    pub(crate) taps: u64,
    /// A sale is a tap or shows a PIN, by few cards, in long outages, under
    /// policies in which what was tapped before is all that binds. 0: as the
    /// rest has it.
    pub(crate) tapping: u64,
    /// So many sales in an outage at the beginning, under limits that let
    /// them pass. 0 in most runs: a long queue takes long.
    pub(crate) stock: u64,
    /// A policy gives allowances. 0: none does, and devices do not ask.
    pub(crate) allowances: u64,
    /// How long a device is out of the hub's reach, at the most.
    pub(crate) apart_ms: u64,
    /// What a device does with its allowance is not as it should be.
    pub(crate) rogues: u64,
    /// A device that is out of reach is never seen again.
    pub(crate) losses: u64,
    /// A policy looks for anomalies.
    pub(crate) oddities: u64,
    /// A request that its device has not signed comes over its connection.
    pub(crate) bad_signatures: u64,
    /// A policy says which devices, and asks for verifiers' words on them.
    pub(crate) devices_known: u64,
    /// A device says what it is.
    pub(crate) descriptions: u64,
    /// Others take room on the disk, or give it back, when it is looked at.
    pub(crate) room_changes: u64,
    /// A policy begins just now, or comes before its time.
    pub(crate) early: u64,
    /// It is an acquirer, which cannot be asked what it has: people ask its
    /// desk.
    pub(crate) acquirer: bool,
}

impl Profile {
    /// `own` is a sequence for what is newer than seeds.
    pub(crate) fn draw(rng: &mut Rng, own: &mut Rng) -> Self {
        let mut profile = Self::draw_small(rng);
        profile.terms = pick(own, &[0, 0, 300, 800, 1_000]);
        profile.people = pick(own, &[0, 0, 500, 900, 1_000]);
        if own.chance(400) {
            // Or an override would seldom meet what it may lift.
            profile.overrides = pick(own, &[300, 700]);
            profile.terms = profile.terms.max(800);
            profile.people = 950;
        }
        if rng.chance(20) {
            profile.grow(rng);
        }
        profile
    }

    /// Whether it is an acquirer, from a sequence of its own likewise.
    pub(crate) fn draw_acquirer(&mut self, own: &mut Rng) {
        self.acquirer = own.chance(250);
        if self.acquirer && own.chance(600) {
            // It forgets soon, outages are long, and people see to things.
            self.retention_ms = pick(own, &[5 * 60_000, 20 * 60_000]);
            self.silent = self.silent.max(pick(own, &[100, 400]));
            self.pace_ms = self.pace_ms.max(60_000);
            self.wan_up_ms = self.pace_ms * pick(own, &[2, 5]);
            self.wan_down_ms = self.pace_ms * pick(own, &[5, 20]);
            self.operator = self.operator.max(150);
        }
    }

    /// What is newer than the rest, from a sequence of its own: a run without
    /// it is the run that the seed gave before.
    pub(crate) fn draw_newer(&mut self, newer: &mut Rng) {
        if self.stock > 0 {
            return;
        }
        if newer.chance(500) {
            self.allowances = pick(newer, &[500, 950, 950, 1_000]);
            self.apart_ms = self.pace_ms * pick(newer, &[4, 15, 60]);
            self.rogues = pick(newer, &[0, 0, 0, 60, 250]);
            self.losses = pick(newer, &[0, 0, 30, 120]);
        }
        if newer.chance(350) {
            self.oddities = pick(newer, &[600, 1_000]);
            self.bad_signatures = pick(newer, &[0, 20, 80]);
        }
        if newer.chance(300) {
            self.devices_known = pick(newer, &[600, 1_000]);
            self.descriptions = pick(newer, &[20, 80]);
        }
        if newer.chance(250) {
            self.room_changes = pick(newer, &[60, 250, 500]);
        }
        self.early = pick(newer, &[0, 0, 300, 600]);
    }

    /// A shop whose customers tap, and now and then show a PIN, while the line
    /// is down and the power fails: what was tapped before a restart or before
    /// a PIN decides seldom otherwise. From a sequence of its own: any other
    /// run is what the seed gave before.
    pub(crate) fn draw_taps(&mut self, own: &mut Rng) {
        if self.stock > 0 || !own.chance(60) {
            return;
        }
        self.tapping = pick(own, &[700, 950]);
        self.cards = 1 + own.below(3);
        self.crash = pick(own, &[10, 30]);
        self.index_ms = self.pace_ms;
        self.wan_up_ms = self.pace_ms * pick(own, &[3, 10]);
        self.wan_down_ms = self.pace_ms * 60;
        self.max_queue = 1_000;
        self.starts_with_policy = true;
        self.windows = Windows::default();
        self.score = None;
    }

    /// A gateway that leaves payments undecided for longer than the hub lets it.
    /// From a sequence of its own: any other run is what the seed gave before.
    pub(crate) fn draw_undecided(&mut self, own: &mut Rng) {
        if self.stock > 0 || !own.chance(25) {
            return;
        }
        self.undecided_ms = pick(own, &[10_000, 20_000, 60_000]);
        self.pending_ms = self.undecided_ms * pick(own, &[10, 60]);
        self.pending = pick(own, &[400, 800]);
    }

    /// A shop with a long queue, most of it outside of the core's window.
    /// What goes wrong at any step is rarer: there are many more steps.
    fn grow(&mut self, rng: &mut Rng) {
        self.stock = pick(rng, &[200, 300, 300, 400, 400, 800, 800, 2_500]);
        self.cards = 10 + rng.below(200);
        self.pace_ms = 120;
        self.wan_up_ms = 60_000;
        self.wan_down_ms = pick(rng, &[0, 5_000]);
        let room = pick(rng, &[self.stock / 2, 2 * self.stock]);
        self.max_queue = usize::try_from(room).unwrap_or_default();
        for chance in [
            &mut self.crash,
            &mut self.clock_jump,
            &mut self.policy,
            &mut self.stop,
        ] {
            *chance = (*chance).min(rng.below(3));
        }
        self.refuses_message = pick(rng, &[0, 50, 400]);
        self.card_lost = pick(rng, &[0, 0, 100]);
        self.starts_with_policy = true;
        self.windows = Windows::default();
        self.score = None;
    }

    fn draw_small(rng: &mut Rng) -> Self {
        // Half of the runs do not know a fault; in the others it is as
        // frequent as chance has it, up to `most`.
        fn some(rng: &mut Rng, most: u64) -> u64 {
            if rng.chance(500) { 0 } else { 1 + rng.below(most) }
        }
        let pace_ms = pick(rng, &[120, 1_500, 1_500, 20_000, 150_000]);
        Self {
            devices: 2 + usize::try_from(rng.below(4)).unwrap_or_default(),
            cards: 2 + rng.below(6),
            pace_ms,
            flush_ms: pick(rng, &[2, 40, 900]),
            index_ms: pick(rng, &[200, 1_000, 10_000]).max(pace_ms),
            cut_groups: some(rng, 700),
            crash: some(rng, 40),
            clock_jump: some(rng, 15),
            operator: some(rng, 40),
            looks: some(rng, 250),
            policy: some(rng, 15),
            stop: some(rng, 8),
            long_down: some(rng, 700),
            card_lost: some(rng, 40),
            lan_drop: some(rng, 250),
            lan_double: some(rng, 250),
            lan_delay_ms: pick(rng, &[10, 200, 5_000]),
            liar: some(rng, 250),
            wan_drop: some(rng, 250),
            wan_double: some(rng, 250),
            wan_delay_ms: pick(rng, &[50, 50, 1_500, 40_000]),
            wan_up_ms: pace_ms * pick(rng, &[5, 20, 60]),
            wan_down_ms: if rng.chance(250) {
                0
            } else {
                pace_ms * pick(rng, &[5, 20, 60])
            },
            late: some(rng, 300),
            silent: some(rng, 300),
            throttles: some(rng, 250),
            broken: some(rng, 250),
            pending: some(rng, 250),
            pending_ms: 120_000,
            undecided_ms: 0,
            refuses_hub: some(rng, 150),
            refuses_message: some(rng, 150),
            declines: some(rng, 250),
            refuses_reversal: some(rng, 200),
            tells_time: pick(rng, &[50, 700, 700]),
            acquirer: false,
            retention_ms: pick(rng, &[0, 20 * 60_000, 20 * 60_000, 60 * 60_000, 24 * 60 * 60_000]),
            max_remembered: usize::try_from(pick(rng, &[0, 2, 50])).unwrap_or_default(),
            max_queue: usize::try_from(pick(rng, &[6, 1_000, 1_000])).unwrap_or_default(),
            max_in_flight: usize::try_from(pick(rng, &[1, 4, 8, 8])).unwrap_or_default(),
            abandoned_after_ms: pick(rng, &[5_000, 60_000]),
            starts_with_policy: !rng.chance(150),
            windows: Windows::draw(rng, pace_ms),
            score: draw_score(rng, pace_ms),
            terms: 0,
            overrides: 0,
            people: 0,
            regrets: some(rng, 500),
            taps: some(rng, 600),
            tapping: 0,
            stock: 0,
            allowances: 0,
            apart_ms: 0,
            rogues: 0,
            losses: 0,
            oddities: 0,
            bad_signatures: 0,
            devices_known: 0,
            descriptions: 0,
            room_changes: 0,
            early: 0,
        }
    }

    /// Everything works again. What the gateway thinks of single payments
    /// stays.
    pub(crate) fn calm(&mut self) {
        self.flush_ms = 2;
        for chance in [
            &mut self.cut_groups,
            &mut self.crash,
            &mut self.clock_jump,
            &mut self.operator,
            &mut self.looks,
            &mut self.policy,
            &mut self.stop,
            &mut self.long_down,
            &mut self.card_lost,
            &mut self.lan_drop,
            &mut self.lan_double,
            &mut self.liar,
            &mut self.wan_drop,
            &mut self.wan_double,
            &mut self.wan_down_ms,
            &mut self.late,
            &mut self.silent,
            &mut self.throttles,
            &mut self.broken,
            &mut self.pending,
            &mut self.refuses_hub,
            &mut self.refuses_message,
            &mut self.refuses_reversal,
            &mut self.rogues,
            &mut self.losses,
            &mut self.bad_signatures,
            &mut self.descriptions,
        ] {
            *chance = 0;
        }
        self.tells_time = 700;
        self.lan_delay_ms = 10;
        self.wan_delay_ms = 50;
    }
}

pub(crate) fn pick(rng: &mut Rng, from: &[u64]) -> u64 {
    let place = rng.below(u64::try_from(from.len()).unwrap_or_default());
    usize::try_from(place)
        .ok()
        .and_then(|place| from.get(place))
        .copied()
        .unwrap_or_default()
}
