//! Rule 4 for cards and staff: one card, or one member of staff, at several
//! devices that cannot reach the hub passes no ceiling, whoever comes back when.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::collections::BTreeMap;

use hub_protocol::{
    Decision, DeviceId, PaymentId, PaymentRequest, Reason, RefusalCode, Terms, TransactionType,
};
use proptest::prelude::*;
use support::wallet::Wallet;
use support::{MPOS, SOFTPOS, Shop, approved, request};

const CARD: u64 = 6_000;
const STAFF: u64 = 9_000;

/// `more` stands in `[allowance]`.
fn policy(version: u32, more: &str) -> String {
    let base = support::POLICY
        .replace("version = 1", &format!("version = {version}"))
        .replace(
            "[card]\nexposure_ceiling = 15000",
            &format!("[card]\nexposure_ceiling = {CARD}"),
        )
        .replace("longest_minutes = 240", "longest_minutes = 43200");
    format!(
        "{base}\n[staff]\nexposure_ceiling = {STAFF}\nconsecutive_limit = 300\n\
         [allowance]\namount = 4000\ncount = 20\ntransaction_ceiling = 3000\nminutes = 1440\n\
         classes = [\"mpos\", \"softpos\"]\n{more}\n"
    )
}

/// 15,00 of a card's 60,00 at each of two devices.
const TWO: &str = "card_ceiling = 1500\ndevices = 2";

fn by(staff: u8, number: u64, amount: u64, card: &str) -> PaymentRequest {
    PaymentRequest {
        terms: Some(Box::new(Terms {
            staff: Some(format!("staff {staff}")),
            ..Terms::of(TransactionType::Sale)
        })),
        ..request(number, amount, card)
    }
}

#[test]
fn rule_4_a_cards_ceiling_is_split_between_the_hub_and_devices() {
    let mut shop = Shop::offline_under(&policy(1, TWO));
    let told = shop.pay(MPOS, &by(1, 1, 3_000, "card"));
    assert_eq!(told.reason, Reason::None, "60,00 less twice 15,00, inclusive");
    let told = shop.pay(MPOS, &by(1, 2, 1, "card"));
    assert_eq!(told.reason, Reason::CardCeiling);
    for device in [MPOS, SOFTPOS] {
        let mut wallet = Wallet::new(device);
        assert_eq!(wallet.ask(&mut shop).unwrap().card_ceiling_minor, 1_500);
    }
}

#[test]
fn rule_4_who_asks_when_a_cards_part_is_given_away_gets_none() {
    let mut shop = Shop::offline_under(&policy(1, "card_ceiling = 1500\ndevices = 1"));
    let (mut first, mut second) = (Wallet::new(MPOS), Wallet::new(SOFTPOS));
    first.ask(&mut shop).unwrap();
    assert!(second.ask(&mut shop).is_none());
    first.approve(&by(1, 1, 1_000, "card"), shop.now.wall_ms).unwrap();
    first.sync_all(&mut shop);
    first.give_back(&mut shop);
    // 10,00 are at risk, of the card or of another: the second gets the rest.
    assert_eq!(second.ask(&mut shop).unwrap().card_ceiling_minor, 500);
    assert!(first.ask(&mut shop).is_none());
    second.give_back(&mut shop);
    shop.go_online();
    shop.gateway(approved());
    shop.crash();
    assert_eq!(
        first.ask(&mut shop).unwrap().card_ceiling_minor,
        1_500,
        "all is settled"
    );
}

#[test]
fn rule_4_what_was_given_under_another_policy_still_counts() {
    let mut shop = Shop::offline_under(&policy(1, TWO));
    let mut wallet = Wallet::new(MPOS);
    wallet.ask(&mut shop).unwrap();
    let without = policy(2, "card_ceiling = 0");
    shop.install(&without);
    let told = shop.pay(SOFTPOS, &by(1, 1, 4_501, "card"));
    assert_eq!(told.reason, Reason::CardCeiling);
    let told = shop.pay(SOFTPOS, &by(1, 2, 4_500, "card"));
    assert_eq!(told.reason, Reason::None, "60,00 less what is out");
    wallet.give_back(&mut shop);
    let told = shop.pay(SOFTPOS, &by(1, 3, 1_500, "card"));
    assert_eq!(told.reason, Reason::None, "all of it, once nothing is");
    let ticket = shop.ask_allowance(MPOS, wallet.closed);
    assert_eq!(shop.refusal(ticket).code, RefusalCode::AllowanceNotGiven);
}

#[test]
fn rule_4_whoever_is_on_duty_has_room_for_all_allowances() {
    let mut shop = Shop::offline_under(&policy(1, TWO));
    let (mut one, mut two) = (Wallet::new(MPOS), Wallet::new(SOFTPOS));
    shop.pay(MPOS, &by(1, 1, 3_000, "a"));
    assert_eq!(one.ask(&mut shop).unwrap().amount_minor, 4_000);
    assert_eq!(
        two.ask(&mut shop).unwrap().amount_minor,
        2_000,
        "90,00 less 30,00 and 40,00"
    );
    let told = shop.pay(MPOS, &by(1, 2, 1, "b"));
    assert_eq!(told.reason, Reason::StaffCeiling);
    let told = shop.pay(MPOS, &by(2, 3, 3_000, "c"));
    assert_eq!(told.reason, Reason::None, "another has 30,00 beside them");
    let told = shop.pay(MPOS, &by(2, 4, 1, "d"));
    assert_eq!(told.reason, Reason::StaffCeiling);
}

#[derive(Clone, Debug)]
enum Step {
    Ask(bool),
    Spend {
        mpos: bool,
        staff: u8,
        card: u8,
        amount: u64,
    },
    Sync(bool),
    Return(bool),
    Pay {
        mpos: bool,
        staff: u8,
        card: u8,
        amount: u64,
    },
    Settle,
    Policy(u8),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let mpos = any::<bool>;
    let pays = || (mpos(), 0..2_u8, 0..3_u8, 1..3_000_u64);
    prop_oneof![
        4 => mpos().prop_map(Step::Ask),
        8 => pays().prop_map(|(mpos, staff, card, amount)| Step::Spend { mpos, staff, card, amount }),
        5 => mpos().prop_map(Step::Sync),
        3 => mpos().prop_map(Step::Return),
        5 => pays().prop_map(|(mpos, staff, card, amount)| Step::Pay { mpos, staff, card, amount }),
        1 => Just(Step::Settle),
        1 => (0..4_u8).prop_map(Step::Policy),
        1 => Just(Step::Crash),
    ]
}

struct Run {
    shop: Shop,
    wallets: BTreeMap<DeviceId, Wallet>,
    /// Who paid by which card.
    made: BTreeMap<PaymentId, (u8, u8)>,
    next: u64,
    version: u32,
}

impl Run {
    fn request(&mut self, staff: u8, card: u8, amount: u64) -> PaymentRequest {
        let request = by(staff, self.next, amount, &format!("card {card}"));
        self.next += 1;
        self.made.insert(request.payment_id, (staff, card));
        request
    }

    fn wallet(&mut self, mpos: bool) -> (&mut Wallet, &mut Shop) {
        let id = if mpos { MPOS } else { SOFTPOS };
        (self.wallets.get_mut(&id).unwrap(), &mut self.shop)
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Ask(mpos) => {
                let (wallet, shop) = self.wallet(mpos);
                if wallet.unsynced.is_empty() {
                    wallet.ask(shop);
                }
            }
            Step::Spend {
                mpos,
                staff,
                card,
                amount,
            } => {
                let request = self.request(staff, card, amount);
                let (wallet, shop) = self.wallet(mpos);
                let _ = wallet.approve(&request, shop.now.wall_ms);
            }
            Step::Sync(mpos) => {
                let (wallet, shop) = self.wallet(mpos);
                for receipt in wallet.sync_all(shop) {
                    assert_eq!(receipt.decision, Decision::ApprovedOffline);
                }
            }
            Step::Return(mpos) => {
                let (wallet, shop) = self.wallet(mpos);
                if wallet.held.is_some() && wallet.unsynced.is_empty() {
                    wallet.give_back(shop);
                }
            }
            Step::Pay {
                mpos,
                staff,
                card,
                amount,
            } => {
                let request = self.request(staff, card, amount);
                self.shop.pay(if mpos { MPOS } else { SOFTPOS }, &request);
            }
            Step::Settle => {
                self.shop.go_online();
                while !self.shop.forwards.is_empty() {
                    self.shop.gateway(approved());
                }
                self.shop.go_offline();
            }
            Step::Policy(which) => {
                self.version += 1;
                let more = ["", TWO, "card_ceiling = 0", "card_ceiling = 6000\ndevices = 1"];
                let policy = policy(self.version, more[usize::from(which)]);
                self.shop.install(&policy);
            }
            Step::Crash => self.shop.crash(),
        }
        self.check();
    }

    /// What is approved anywhere, and what may be before any device is back.
    fn check(&self) {
        let state = self.shop.core.state();
        let mut cards = [0_u64; 3];
        let mut staff = [0_u64; 2];
        for (id, payment) in state.payments().filter(|(_, payment)| payment.exposed) {
            let (who, card) = self.made[id];
            cards[usize::from(card)] += payment.amount_minor;
            staff[usize::from(who)] += payment.amount_minor;
        }
        for wallet in self.wallets.values() {
            for one in &wallet.unsynced {
                let (who, card) = self.made[&one.request.payment_id];
                cards[usize::from(card)] += one.receipt.amount_minor;
                staff[usize::from(who)] += one.receipt.amount_minor;
            }
            let Some((allowance, chain)) = &wallet.held else {
                continue;
            };
            let left = allowance.amount_minor - chain.total_minor;
            for (card, sum) in cards.iter_mut().enumerate() {
                let spent = wallet.cards.get(&format!("card {card}")).copied().unwrap_or(0);
                *sum += left.min(allowance.card_ceiling_minor - spent);
            }
            for sum in &mut staff {
                *sum += left;
            }
        }
        assert!(
            cards.iter().all(|sum| *sum <= CARD),
            "rule 4: a card's ceiling: {cards:?}"
        );
        assert!(
            staff.iter().all(|sum| *sum <= STAFF),
            "rule 4: a person's ceiling: {staff:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn rule_4_no_ceiling_of_a_card_or_person_is_passed_under_any_partition(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut run = Run {
            shop: Shop::offline_under(&policy(1, TWO)),
            wallets: [MPOS, SOFTPOS].map(|id| (id, Wallet::new(id))).into(),
            made: BTreeMap::new(),
            next: 1,
            version: 1,
        };
        for step in &steps {
            run.step(step);
        }
    }
}
