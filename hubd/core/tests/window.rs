//! The window of the queue: whatever part of queue, payments and cards is in
//! memory, the same is decided, sent and remembered.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::collections::BTreeMap;

use hub_core::state::{CardKey, CardRecord, Head, Lane, PaymentRecord, Recalled, State};
use hub_core::{Forward, GatewayAnswer, Input, OperatorCommand, OperatorReply, Reply, Ticket};
use hub_protocol::{
    Cryptogram, Decision, DeviceClass, DeviceId, Entry, PaymentId, PaymentRequest, PaymentState, Reason, cbor,
};
use proptest::prelude::*;
use support::{MPOS, POLICY, SOFTPOS, Shop, approved, no_answer, payment_id, request, sealed_card, sign};

const DEVICES: [(DeviceId, DeviceClass); 3] = [
    (MPOS, DeviceClass::Mpos),
    (SOFTPOS, DeviceClass::Softpos),
    (DeviceId([3; 32]), DeviceClass::Terminal),
];

/// A hub with an index, that lets go of everything that it may.
struct Hub {
    shop: Shop,
    index: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Up to where the index holds.
    head: Head,
    sent: Vec<Forward>,
    told: BTreeMap<PaymentId, (Decision, Reason)>,
    asked: BTreeMap<Ticket, PaymentId>,
    loads: usize,
    /// Nothing is written to the index for now.
    lags: bool,
}

impl Hub {
    fn new(window: usize) -> Self {
        let mut shop = Shop::empty_with(|settings| {
            settings.queue_window = window;
            settings.max_remembered = window;
            settings.max_cards = window;
            settings.max_in_flight = 4;
        });
        for (device, class) in DEVICES {
            shop.enrol(device, class);
        }
        shop.install(&generous());
        shop.go_offline();
        shop.replies.clear();
        Self {
            shop,
            index: BTreeMap::new(),
            head: Head::EMPTY,
            sent: Vec::new(),
            told: BTreeMap::new(),
            asked: BTreeMap::new(),
            loads: 0,
            lags: false,
        }
    }

    fn input(&mut self, input: Input) {
        self.shop.input(input);
        self.settle();
    }

    /// What a shell does beside: writes the index, serves loads, listens.
    fn settle(&mut self) {
        loop {
            if !self.lags {
                self.write_index();
            }
            let Some((lane, after, limit)) = self.shop.loads.pop() else {
                break;
            };
            self.loads += 1;
            assert!(self.loads < 10_000, "it asks for the same again and again");
            let (found, end) = self.load(lane, after, limit);
            self.shop.input(Input::QueueLoaded { lane, found, end });
        }
        for (ticket, reply) in self.shop.replies.drain() {
            if let (Some(id), Reply::Receipt(receipt)) = (self.asked.get(&ticket), reply) {
                self.told.insert(*id, (receipt.decision, receipt.reason));
            }
        }
    }

    fn write_index(&mut self) {
        for (key, value) in self.shop.core.state_mut().take_dirty() {
            match value {
                Some(value) => self.index.insert(key, value),
                None => self.index.remove(&key),
            };
        }
        self.head = self.shop.core.state().head();
        self.shop.core.indexed(self.head.sequence);
    }

    /// What waits for a person, of what is in memory, and how much in all.
    fn parked(&mut self) -> (Vec<PaymentId>, usize) {
        let command = OperatorCommand::Queue {
            limit: 1_000,
            parked_only: true,
        };
        match self.shop.operate(command) {
            OperatorReply::Queue { items, parked, .. } => {
                (items.into_iter().map(|item| item.payment_id).collect(), parked)
            }
            other => panic!("a list expected, not {other:?}"),
        }
    }

    fn load(&self, lane: Lane, after: u64, limit: usize) -> (Vec<(u64, Recalled)>, bool) {
        let prefix = lane.prefix();
        let mut behind = self
            .index
            .range(lane.key(after + 1)..)
            .take_while(|(key, _)| key.starts_with(&prefix));
        let found = behind.by_ref().take(limit).map(|(key, id)| {
            let sequence = u64::from_be_bytes(key[prefix.len()..].try_into().unwrap());
            (
                sequence,
                self.recalled(PaymentId(id.as_slice().try_into().unwrap()))
                    .unwrap(),
            )
        });
        let found: Vec<_> = found.collect();
        let end = behind.next().is_none();
        (found, end)
    }

    fn recalled(&self, payment_id: PaymentId) -> Option<Recalled> {
        let record: PaymentRecord = cbor::decode(self.index.get(&State::payment_key(&payment_id))?).unwrap();
        let card = self.card(&record.card);
        Some(Recalled {
            payment_id,
            record,
            card,
        })
    }

    fn card(&self, card: &CardKey) -> CardRecord {
        self.index
            .get(&State::card_key(card))
            .map_or_else(CardRecord::default, |value| cbor::decode(value).unwrap())
    }

    /// Hands over what the core does not know any more.
    fn recall(&mut self, id: PaymentId, card: Option<&str>) {
        let payments = if self.shop.core.knows(&id) {
            Vec::new()
        } else {
            self.recalled(id).into_iter().collect()
        };
        let card = card.map(CardKey::of_token);
        let cards = card
            .filter(|card| !self.shop.core.knows_card(card))
            .map(|card| (card, self.card(&card)));
        // Nothing may come between this and the input that it is for.
        self.shop.input(Input::Recalled {
            payments,
            cards: cards.into_iter().collect(),
        });
    }

    fn pay(&mut self, device: DeviceId, request: &PaymentRequest) {
        self.recall(request.payment_id, Some(&request.card.token));
        let ticket = self.shop.ticket();
        self.asked.insert(ticket, request.payment_id);
        self.input(Input::Pay {
            ticket,
            device,
            request: Box::new(request.clone()),
            signed: sign(device, request),
            sealed_card: sealed_card(request.payment_id),
            recalled: None,
        });
    }

    fn void(&mut self, device: DeviceId, id: PaymentId) {
        self.recall(id, None);
        self.shop.void(device, id);
        self.settle();
    }

    fn operate(&mut self, command: OperatorCommand) {
        if let OperatorCommand::Release { payment_id: id, .. } | OperatorCommand::Park(id) = command {
            self.recall(id, None);
        }
        self.shop.operate(command);
        self.settle();
    }

    /// Answers everything that is under way, in the order of the ids, so that
    /// it does not matter who went first.
    fn answer_all(&mut self, answer: impl Fn(&Forward) -> GatewayAnswer) {
        let mut under_way: Vec<Forward> = self.shop.forwards.drain(..).collect();
        under_way.sort_by_key(|forward| forward.payment_id);
        for forward in under_way {
            let said = answer(&forward);
            self.sent.push(forward.clone());
            self.shop.answer(forward.attempt, said);
            self.settle();
        }
    }

    /// Kill -9 and open again: from the index, as far as it holds.
    fn crash(&mut self, from_index: bool) {
        if !from_index {
            self.shop.crash();
            self.settle();
            return;
        }
        let mut state = State::default();
        for (key, value) in self
            .index
            .iter()
            .filter(|(key, _)| State::RESTORED.iter().any(|prefix| key.starts_with(prefix)))
        {
            state.restore(key, value).unwrap();
        }
        let policy = self.shop.disk.iter().rev().find_map(|payload| {
            match cbor::decode::<Entry>(payload).unwrap().event {
                hub_protocol::entry::Event::PolicyActivated { policy, .. } => Some(policy),
                _ => None,
            }
        });
        state.restored(self.head, policy.as_deref());
        for payload in self.shop.disk.iter().skip(self.head.sequence as usize) {
            let entry: Entry = cbor::decode(payload).unwrap();
            let unknown = entry.event.payment_id().filter(|id| state.payment(id).is_none());
            if let Some(recalled) = unknown.and_then(|id| self.recalled(id)) {
                state.recall(recalled);
            }
            state.apply(&entry, Entry::digest(payload)).unwrap();
        }
        let held = self.index.iter().filter(|(key, _)| key.starts_with(State::HELD));
        for (_, id) in held {
            let recalled = self.recalled(PaymentId(id.as_slice().try_into().unwrap()));
            state.recall(recalled.unwrap());
        }
        self.shop.restart(state);
        self.settle();
    }

    fn standing(&self, id: PaymentId) -> Option<PaymentState> {
        let in_memory = self.shop.core.state().payment(&id).map(|payment| payment.state);
        in_memory.or_else(|| self.recalled(id).map(|recalled| recalled.record.state))
    }

    fn finish(&mut self) {
        self.shop.go_online();
        self.settle();
        for _ in 0..200 {
            self.answer_all(|_| approved());
            self.shop.pass(61_000);
            self.settle();
            self.shop.probe(true);
            self.settle();
        }
    }
}

/// The sample policy with room for a long queue.
fn generous() -> String {
    let mut text = String::new();
    for line in POLICY.lines() {
        let line = match line.split_once('=').map(|(key, _)| key.trim()) {
            Some(key) if key.ends_with("ceiling") => format!("{key} = 10_000_000"),
            Some(key) if key.ends_with("consecutive_limit") => format!("{key} = 10_000"),
            Some("longest_minutes") => "longest_minutes = 43_000".to_owned(),
            _ => line.to_owned(),
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

#[derive(Clone, Debug)]
enum Step {
    Pay { device: usize, card: u8, amount: u64 },
    Answer { yes: bool },
    Void { which: usize },
    Again { which: usize },
    Release { which: usize },
    Wan { up: bool },
    Pass { ms: u64 },
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..3_usize, 0..5_u8, 1..2_000_u64)
            .prop_map(|(device, card, amount)| Step::Pay { device, card, amount }),
        3 => any::<bool>().prop_map(|yes| Step::Answer { yes }),
        2 => any::<usize>().prop_map(|which| Step::Void { which }),
        1 => any::<usize>().prop_map(|which| Step::Again { which }),
        1 => any::<usize>().prop_map(|which| Step::Release { which }),
        1 => any::<bool>().prop_map(|up| Step::Wan { up }),
        2 => (0..70_000_u64).prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Crash),
    ]
}

/// One history; `window` and where a restart opens from are what must not
/// matter.
struct Run {
    hub: Hub,
    asked: Vec<(DeviceId, PaymentRequest)>,
    from_index: bool,
}

impl Run {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Pay { device, card, amount } => {
                let number = self.asked.len() as u64 + 1;
                let mut request = request(number, *amount, &format!("card-{card}"));
                request.cryptogram = Cryptogram::CardApproved;
                let device = DEVICES[*device].0;
                self.hub.pay(device, &request);
                self.asked.push((device, request));
            }
            Step::Answer { yes } => self.hub.answer_all(|forward| {
                // Some are refused for good, whatever is tried.
                if forward.payment_id.0[15].is_multiple_of(7) {
                    GatewayAnswer::RefusesMessage {
                        detail: "no".to_owned(),
                    }
                } else if *yes {
                    approved()
                } else {
                    no_answer()
                }
            }),
            Step::Void { which } => {
                if let Some((device, request)) = self.pick(*which) {
                    self.hub.void(device, request.payment_id);
                }
            }
            Step::Again { which } => {
                if let Some((device, request)) = self.pick(*which) {
                    self.hub.pay(device, &request);
                }
            }
            Step::Release { which } => {
                if let Some((_, request)) = self.pick(*which) {
                    self.hub.operate(OperatorCommand::Release {
                        payment_id: request.payment_id,
                        not_there: false,
                    });
                }
            }
            Step::Wan { up: true } => self.hub.shop.go_online(),
            Step::Wan { up: false } => self.hub.shop.go_offline(),
            Step::Pass { ms } => self.hub.shop.pass(*ms),
            Step::Crash => self.hub.crash(self.from_index),
        }
        self.hub.settle();
    }

    fn pick(&self, which: usize) -> Option<(DeviceId, PaymentRequest)> {
        let at = which.checked_rem(self.asked.len())?;
        self.asked.get(at).cloned()
    }
}

fn run(steps: &[Step], window: usize) -> Run {
    let mut run = Run {
        hub: Hub::new(window),
        asked: Vec::new(),
        from_index: window < 1_000,
    };
    for step in steps {
        run.step(step);
    }
    run
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_tiny_window_decides_sends_and_remembers_what_a_huge_one_does(
        steps in prop::collection::vec(step(), 1..90)
    ) {
        let (mut tiny, mut huge) = (run(&steps, 2), run(&steps, 1_000_000));
        prop_assert_eq!(huge.hub.loads, 0);
        prop_assert_eq!(&tiny.hub.told, &huge.hub.told);
        let queue = |run: &Run| run.hub.shop.core.state().store().queue;
        prop_assert_eq!(queue(&tiny), queue(&huge));
        let store = |run: &Run| run.hub.shop.core.state().store().subject;
        prop_assert_eq!(store(&tiny), store(&huge));
        for (_, request) in &tiny.asked {
            let id = request.payment_id;
            prop_assert_eq!(tiny.hub.standing(id), huge.hub.standing(id));
            let card = CardKey::of_token(&request.card.token);
            prop_assert_eq!(tiny.hub.card(&card), huge.hub.card(&card));
        }
        let sent = |run: &Run| {
            let mut by_device: BTreeMap<DeviceId, Vec<PaymentId>> = BTreeMap::new();
            for forward in &run.hub.sent {
                by_device.entry(forward.device).or_default().push(forward.payment_id);
            }
            by_device
        };
        prop_assert_eq!(sent(&tiny), sent(&huge));
        tiny.hub.finish();
        huge.hub.finish();
        for (_, request) in &tiny.asked {
            prop_assert_eq!(tiny.hub.standing(request.payment_id), huge.hub.standing(request.payment_id));
        }
        prop_assert_eq!(queue(&tiny).queued + queue(&tiny).reversals_queued, 0, "nothing is left waiting");
        prop_assert_eq!(tiny.hub.index, huge.hub.index);
    }
}

fn card_approved(number: u64, card: &str) -> PaymentRequest {
    let mut request = request(number, 100, card);
    request.cryptogram = Cryptogram::CardApproved;
    request
}

#[test]
fn a_stuck_device_holds_up_no_other_however_much_waits_on_it() {
    let mut hub = Hub::new(6);
    for number in 0..300 {
        let device = if number % 2 == 0 { MPOS } else { SOFTPOS };
        hub.pay(device, &card_approved(number, &format!("card-{number}")));
    }
    hub.shop.go_online();
    hub.settle();
    for _ in 0..400 {
        hub.answer_all(|forward| {
            if forward.device == MPOS {
                GatewayAnswer::Pending { retry_after_ms: None }
            } else {
                approved()
            }
        });
        hub.shop.pass(1_000);
        hub.settle();
    }
    let standing: Vec<_> = (0..300)
        .map(|number| hub.standing(payment_id(number)).unwrap())
        .collect();
    for (number, state) in standing.iter().enumerate() {
        let expected = if number % 2 == 0 {
            PaymentState::Queued
        } else {
            PaymentState::Settled
        };
        assert_eq!(*state, expected, "payment {number}");
    }
    let lanes: Vec<_> = hub
        .sent
        .iter()
        .filter(|f| f.device == SOFTPOS)
        .map(|f| f.payment_id)
        .collect();
    assert!(lanes.is_sorted(), "in order");
    assert!(hub.loads > 0, "the window was smaller than the queue");
}

#[test]
fn what_is_parked_is_found_behind_what_the_index_does_not_know_to_be_released() {
    let mut hub = Hub::new(100);
    for number in 0..40 {
        hub.pay(MPOS, &card_approved(number, &format!("card-{number}")));
        hub.operate(OperatorCommand::Park(payment_id(number)));
    }
    hub.lags = true;
    for number in 0..35 {
        hub.operate(OperatorCommand::Release {
            payment_id: payment_id(number),
            not_there: false,
        });
    }
    hub.loads = 0;
    hub.crash(true);
    let left: Vec<_> = (35..40).map(payment_id).collect();
    assert_eq!(hub.parked(), (left, 5));
}

#[test]
fn where_the_index_has_nothing_of_what_is_parked_it_is_asked_when_it_has_more() {
    // As many as are kept in memory, and one more.
    let most = 1_000;
    let mut hub = Hub::new(4);
    hub.lags = true;
    for number in 0..=most {
        hub.pay(MPOS, &card_approved(number, &format!("card-{number}")));
        hub.operate(OperatorCommand::Park(payment_id(number)));
    }
    for number in 0..most {
        hub.operate(OperatorCommand::Release {
            payment_id: payment_id(number),
            not_there: false,
        });
    }
    assert_eq!(hub.parked(), (Vec::new(), 1));
    hub.lags = false;
    hub.settle();
    hub.shop.pass(1_000);
    hub.settle();
    assert_eq!(hub.parked(), (vec![payment_id(most)], 1));
}

#[test]
fn a_card_with_more_payments_than_its_record_names_keeps_their_order() {
    let mut hub = Hub::new(6);
    for number in 0..200 {
        let device = DEVICES[number as usize % 3].0;
        hub.pay(device, &card_approved(number, "one card"));
    }
    hub.crash(true);
    hub.shop.go_online();
    hub.settle();
    for _ in 0..300 {
        hub.answer_all(|_| approved());
        hub.shop.pass(1_000);
        hub.settle();
    }
    let order: Vec<_> = hub.sent.iter().map(|forward| forward.payment_id).collect();
    assert_eq!(order, (0..200).map(payment_id).collect::<Vec<_>>());
}

#[test]
fn what_is_nearest_expiry_goes_first_and_of_that_the_largest() {
    // By the policy: a payment of cb is worth sending for a day, one of visa for
    // two hours.
    let mut shop = one_at_a_time(&worth_sending("cb", 24, "visa", 2));
    shop.pay(MPOS, &request(1, 100, "a"));
    shop.pay(SOFTPOS, &request(2, 900, "b"));
    shop.pass(60 * 60 * 1000);
    shop.pay(DEVICES[2].0, &visa(request(3, 50, "c")));
    shop.go_online();
    assert_eq!(order(&mut shop), [3, 2, 1].map(payment_id));
}

#[test]
fn where_no_policy_says_how_long_it_is_a_day_for_every_scheme() {
    let mut shop = one_at_a_time(&generous().replace("worth_sending_h = 24", ""));
    shop.pay(MPOS, &request(1, 100, "a"));
    shop.pass(2 * 60 * 60 * 1000);
    shop.pay(SOFTPOS, &visa(request(2, 900, "b")));
    shop.go_online();
    assert_eq!(order(&mut shop), [1, 2].map(payment_id));
}

#[test]
fn a_new_policy_puts_what_waits_into_its_order_and_so_does_a_restart() {
    for restart in [false, true] {
        let mut shop = one_at_a_time(&worth_sending("cb", 2, "visa", 48));
        shop.pay(MPOS, &request(1, 100, "a"));
        shop.pay(SOFTPOS, &visa(request(2, 900, "b")));
        let next = worth_sending("cb", 48, "visa", 2).replace("version = 1 ", "version = 2 ");
        assert_eq!(shop.install(&next), Some(2));
        if restart {
            shop.crash();
        }
        shop.go_online();
        assert_eq!(order(&mut shop), [2, 1].map(payment_id), "restart {restart}");
    }
}

#[test]
fn what_has_expired_is_sent_too_and_first() {
    let mut shop = one_at_a_time(&worth_sending("cb", 24, "visa", 1));
    shop.pay(MPOS, &request(1, 100, "a"));
    shop.pay(SOFTPOS, &visa(request(2, 50, "b")));
    shop.pass(10 * 24 * 60 * 60 * 1000);
    shop.go_online();
    assert_eq!(order(&mut shop), [2, 1].map(payment_id));
}

fn visa(mut request: PaymentRequest) -> PaymentRequest {
    request.card.scheme = hub_protocol::CardScheme::Visa;
    request
}

/// The policy under which approvals of two schemes are worth sending for so
/// many hours.
fn worth_sending(one: &str, hours: u64, other: &str, other_hours: u64) -> String {
    let mut text = generous();
    for (scheme, hours) in [(one, hours), (other, other_hours)] {
        let key = format!("worth_sending_h = {hours}\n");
        let table = format!("[replay.scheme.{scheme}]\n");
        text = match text.contains(&table) {
            true => text.replace(&table, &format!("{table}{key}")),
            false => format!("{text}{table}{key}"),
        };
    }
    text
}

fn one_at_a_time(policy: &str) -> Shop {
    let mut shop = Shop::empty_with(|settings| settings.max_in_flight = 1);
    for (device, class) in DEVICES {
        shop.enrol(device, class);
    }
    shop.install(policy);
    shop.go_offline();
    shop
}

fn order(shop: &mut Shop) -> Vec<hub_protocol::PaymentId> {
    let mut order = Vec::new();
    while !shop.forwards.is_empty() {
        order.push(shop.gateway(approved()).payment_id);
    }
    order
}

#[test]
fn rule_4_nothing_is_decided_on_a_card_that_nobody_recalled() {
    let mut hub = Hub::new(1);
    for number in 0..20 {
        hub.pay(MPOS, &card_approved(number, &format!("card-{number}")));
    }
    let forgotten = CardKey::of_token("card-10");
    assert!(!hub.shop.core.knows_card(&forgotten));
    let ticket = hub.shop.send(MPOS, &card_approved(100, "card-10"));
    let refusal = hub.shop.refusal(ticket);
    assert_eq!(refusal.code, hub_protocol::RefusalCode::LedgerUnavailable);
    hub.pay(MPOS, &card_approved(100, "card-10"));
    assert_eq!(hub.told[&payment_id(100)].0, Decision::ApprovedOffline);
    assert_eq!(hub.card(&forgotten).subject.exposure_minor, 200);
}

#[test]
fn memory_holds_the_window_and_not_the_queue() {
    let mut hub = Hub::new(6);
    for number in 0..500 {
        hub.pay(MPOS, &card_approved(number, &format!("card-{number}")));
    }
    assert!(hub.shop.core.state().payments().count() < 30);
    assert_eq!(hub.shop.core.state().store().queue.queued, 500);
}
