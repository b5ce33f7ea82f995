//! Offline decisions as a table: one line a case, in the order of precedence,
//! ending in the expected reason. The policy is `config/policies/
//! france-cautious.toml`; its values stand in the cases.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

#[path = "decisions/cases.rs"]
mod cases;

use cases::{
    Change, LATELY, SHOPS, TAPPED, at_risk, bins, cash_back, ceilings, countries, foreign_debit, held, hours,
    liftable, lower, moving, moving_more, overridden, pin_on_glass, reason, scored, signed_for, staff, stale,
    stated, tapped, tightened, typed_in, unproven, usual, windows,
};
use hub_core::decide::{Situation, decide_offline, refuse};
use hub_core::policy::device::Attestation;
use hub_protocol::{
    CardExpiry, CardScheme, Cryptogram, Decision, DeviceClass, EntryMode, FallbackAction, Funding, Reason,
    Restriction, ScoreFactor, Submission, TransactionType, Verification,
};

#[rustfmt::skip]
const TABLE: &[(&str, Change, Reason)] = &[
    ("the usual payment",                       |_| {},                                                            Reason::None),
    ("somebody practises",                      |c| stated(c, TransactionType::Sale).training = true,              Reason::TrainingMode),
    ("the card itself refused",                 |c| c.request.cryptogram = Cryptogram::Refused,                    Reason::CardRefused),
    ("the chip approved",                       |c| c.request.cryptogram = Cryptogram::CardApproved,               Reason::None),
    ("another currency than the hub's",         |c| c.request.currency = "CHF".parse().unwrap(),                   Reason::CurrencyNotAccepted),
    ("another currency than the policy's",      |c| c.policy.currency = "CHF".parse().unwrap(),                    Reason::CurrencyNotAccepted),
    ("no room in the queue",                    |c| c.situation.queue_has_room = false,                            Reason::QueueFull),
    ("no room on the disk",                     |c| c.situation.storage_full = true,                               Reason::StorageFull),
    ("at the policy's first instant",           |c| c.policy.not_before_ms = c.situation.now_ms,                   Reason::None),
    ("before the policy's first instant",       |c| c.policy.not_before_ms = c.situation.now_ms + 1,               Reason::PolicyNotYetValid),
    ("in the policy's last millisecond",        |c| c.policy.expires_ms = c.situation.now_ms + 1,                  Reason::None),
    ("at the policy's expiry",                  |c| c.policy.expires_ms = c.situation.now_ms,                      Reason::PolicyExpired),
    ("offline switched off",                    |c| c.policy.offline.enabled = false,                              Reason::OfflineDisabled),
    ("a class that the policy does not name",   |c| { c.policy.classes.remove(&DeviceClass::Mpos); },              Reason::ClassNotAllowed),
    ("offline for 240 minutes",                 |c| c.situation.offline_ms = 240 * 60_000,                         Reason::None),
    ("offline for a millisecond more",          |c| c.situation.offline_ms = 240 * 60_000 + 1,                     Reason::OfflineTooLong),
    ("unsent for 60 minutes",                   |c| { c.policy.offline.oldest_unsent_ms = Some(60 * 60_000); c.situation.oldest_unsent_ms = 60 * 60_000; }, Reason::None),
    ("unsent for a millisecond more",           |c| { c.policy.offline.oldest_unsent_ms = Some(60 * 60_000); c.situation.oldest_unsent_ms = 60 * 60_000 + 1; }, Reason::UnsentTooLong),
    ("offline stopped in the store",            |c| c.situation.store_restriction = Restriction::Stopped,          Reason::StoreSuspended),
    ("offline stopped at the device",           |c| c.situation.device_restriction = Restriction::Stopped,         Reason::DeviceSuspended),
    ("in the last minute that the shop is open", |c| hours(c, "00:00-04:27", false),                               Reason::None),
    ("in the minute after",                     |c| hours(c, "00:00-04:26", false),                                Reason::OutsideHours),
    ("closed, and that may pass",               |c| hours(c, "00:00-04:26", true),                                 Reason::None),
    ("a model that is not certified",           |c| c.situation.standing.certified = false,                        Reason::ModelNotCertified),
    ("no verifier's word on it",                |c| c.situation.standing.attestation = Attestation::Missing,       Reason::AttestationMissing),
    ("too old a word to ask online",            |c| c.situation.standing.online = false,                           Reason::None),
    ("the device only watched",                 |c| c.situation.device_restriction = Restriction::Warned,          Reason::None),
    ("a sale that says so",                     |c| { stated(c, TransactionType::Sale); },                         Reason::None),
    ("a refund",                                |c| { stated(c, TransactionType::Refund); },                       Reason::TransactionTypeNotAllowed),
    ("a refund where refunds are allowed",      |c| { stated(c, TransactionType::Refund); c.policy.offline.transaction_types.push(TransactionType::Refund); }, Reason::None),
    ("in the card's last month",                |c| stated(c, TransactionType::Sale).card_expiry = Some(CardExpiry(2612)), Reason::None),
    ("in the month after",                      |c| stated(c, TransactionType::Sale).card_expiry = Some(CardExpiry(2611)), Reason::CardExpired),
    ("expired, and that may pass",              |c| { stated(c, TransactionType::Sale).card_expiry = Some(CardExpiry(2611)); c.policy.offline.expired_cards = true; }, Reason::None),
    ("cash of 20,00",                           |c| cash_back(c, 2_000),                                           Reason::None),
    ("cash of 20,01",                           |c| cash_back(c, 2_001),                                           Reason::CashBackCeiling),
    ("clock in doubt, cash of 10,00",           |c| { cash_back(c, 1_000); c.situation.clock_suspect = true; },    Reason::None),
    ("clock in doubt, cash of 10,01",           |c| { cash_back(c, 1_001); c.situation.clock_suspect = true; },    Reason::ClockInDoubt),
    ("a scheme not in the list",                |c| c.request.card.scheme = CardScheme::Amex,                      Reason::SchemeNotAllowed),
    ("a funding not in the list",               |c| c.request.card.funding = Funding::Prepaid,                     Reason::FundingNotAllowed),
    ("funding unknown",                         |c| c.request.card.funding = Funding::Unknown,                     Reason::FundingNotAllowed),
    ("a card on the exception list",            |c| { c.policy.cards.exceptions.insert("card".into(), None); },       Reason::CardOnExceptionList),
    ("listed until a millisecond from now",     |c| { c.policy.cards.exceptions.insert("card".into(), Some(support::NOON_MS + 1)); }, Reason::CardOnExceptionList),
    ("listed until now",                        |c| { c.policy.cards.exceptions.insert("card".into(), Some(support::NOON_MS)); }, Reason::None),
    ("another card on the exception list",      |c| { c.policy.cards.exceptions.insert("card 2".into(), None); },     Reason::None),
    ("of an accepted country",                  |c| { countries(c, &["FR", "BE"]); c.request.card.issuer_country = Some("BE".into()); }, Reason::None),
    ("of another country",                      |c| { countries(c, &["FR", "BE"]); c.request.card.issuer_country = Some("NL".into()); }, Reason::CountryNotAllowed),
    ("of a country not known",                  |c| { countries(c, &["FR"]); c.request.card.issuer_country = None; }, Reason::CountryNotAllowed),
    ("not known, and that may pass",            |c| { countries(c, &["FR"]); c.policy.cards.unknown_country = true; c.request.card.issuer_country = None; }, Reason::None),
    ("BIN in an accepted range",                |c| bins(c, "497019", &["497010-497019"], &[]),                       Reason::None),
    ("BIN behind an accepted range",            |c| bins(c, "497020", &["497010-497019"], &[]),                       Reason::BinNotAllowed),
    ("BIN in a denied range",                   |c| bins(c, "497010", &[], &["497010"]),                              Reason::BinNotAllowed),
    ("BIN beside a denied range",               |c| bins(c, "497011", &[], &["497010"]),                              Reason::None),
    ("8 digits denied in 6 accepted",           |c| bins(c, "49701234", &["497012"], &["49701234"]),                  Reason::BinNotAllowed),
    ("8 digits accepted in 6 denied",           |c| bins(c, "49701234", &["49701234"], &["497012"]),                  Reason::None),
    ("accepted and denied in 8 digits",         |c| bins(c, "49701234", &["49701234"], &["49701234"]),                Reason::BinNotAllowed),
    ("6 digits that may be a denied 8",         |c| bins(c, "497012", &["497012"], &["49701234"]),                    Reason::BinNotAllowed),
    ("6 digits that cannot be a denied 8",      |c| bins(c, "497013", &["497013"], &["49701234"]),                    Reason::None),
    ("6 digits that may be an accepted 8",      |c| bins(c, "497012", &["49701234"], &[]),                            Reason::BinNotAllowed),
    ("a BIN that is not known",                 |c| { bins(c, "497012", &[], &["510000"]); c.request.card.bin = None; }, Reason::BinNotAllowed),
    ("magnetic stripe",                         |c| c.request.entry_mode = EntryMode::MagneticStripe,              Reason::EntryModeNotAllowed),
    ("a PIN that only the issuer can check",    |c| c.request.verification = Verification::OnlinePin,              Reason::OnlinePinNotPossible),
    ("SoftPOS, PIN on glass that may not be",   |c| pin_on_glass(c, false),                                        Reason::PinOnGlassNotAllowed),
    ("SoftPOS, PIN on glass that may be",       |c| pin_on_glass(c, true),                                         Reason::None),
    ("unverified tap of 50,00",                 |c| { c.request.verification = Verification::None; c.request.amount = 5_000.into(); }, Reason::None),
    ("unverified tap of 50,01",                 |c| { c.request.verification = Verification::None; c.request.amount = 5_001.into(); }, Reason::VerificationRequired),
    ("verified tap of 50,01",                   |c| c.request.amount = 5_001.into(),                               Reason::None),
    ("mPOS: 100,00",                            |c| c.request.amount = 10_000.into(),                              Reason::None),
    ("mPOS: 100,01",                            |c| c.request.amount = 10_001.into(),                              Reason::TransactionCeiling),
    ("SoftPOS: 50,00",                          |c| { c.situation.class = DeviceClass::Softpos; c.request.amount = 5_000.into(); },  Reason::None),
    ("SoftPOS: 50,01",                          |c| { c.situation.class = DeviceClass::Softpos; c.request.amount = 5_001.into(); },  Reason::TransactionCeiling),
    ("terminal: 150,00",                        |c| { c.situation.class = DeviceClass::Terminal; c.request.amount = 15_000.into(); }, Reason::None),
    ("terminal: 150,01", |c| { c.situation.class = DeviceClass::Terminal; c.request.amount = 15_001.into(); }, Reason::TransactionCeiling),
    ("a millisecond before the first step",     |c| { moving(c); c.situation.offline_ms = 3_600_000 - 1; c.request.amount = 10_000.into(); }, Reason::None),
    ("at the first step: 75,00",                |c| { moving(c); c.situation.offline_ms = 3_600_000; c.request.amount = 7_500.into(); }, Reason::None),
    ("at the first step: 75,01",                |c| { moving(c); c.situation.offline_ms = 3_600_000; c.request.amount = 7_501.into(); }, Reason::TransactionCeiling),
    ("at the second step: 50,01",               |c| { moving(c); c.situation.offline_ms = 3 * 3_600_000; c.request.amount = 5_001.into(); }, Reason::TransactionCeiling),
    ("the card's ceiling moves too",            |c| { moving(c); c.situation.offline_ms = 3_600_000; c.situation.card = at_risk(9_250, 1); }, Reason::None),
    ("and a cent more",                         |c| { moving(c); c.situation.offline_ms = 3_600_000; c.situation.card = at_risk(9_251, 1); }, Reason::CardCeiling),
    ("the device's ceiling moves too",          |c| { moving(c); c.situation.offline_ms = 3_600_000; c.situation.device = at_risk(73_001, 1); }, Reason::DeviceCeiling),
    ("the store's ceiling stays",               |c| { moving(c); c.situation.offline_ms = 3_600_000; c.situation.store = at_risk(298_000, 1); c.request.amount = 2_000.into(); }, Reason::None),
    ("store used by 70 % less a cent: 100,00",  |c| { moving(c); c.situation.store = at_risk(209_999, 1); c.request.amount = 10_000.into(); }, Reason::None),
    ("store used by 70 %: 40,00",               |c| { moving(c); c.situation.store = at_risk(210_000, 1); c.request.amount = 4_000.into(); }, Reason::None),
    ("store used by 70 %: 40,01",               |c| { moving(c); c.situation.store = at_risk(210_000, 1); c.request.amount = 4_001.into(); }, Reason::TransactionCeiling),
    ("both: the smallest counts",               |c| { moving(c); c.situation.offline_ms = 3_600_000; c.situation.store = at_risk(210_000, 1); c.request.amount = 4_001.into(); }, Reason::TransactionCeiling),
    ("waiting for 2 hours: 75,00",              |c| { moving_more(c); c.situation.oldest_unsent_ms = 2 * 3_600_000; c.request.amount = 7_500.into(); }, Reason::None),
    ("waiting for 2 hours: 75,01",              |c| { moving_more(c); c.situation.oldest_unsent_ms = 2 * 3_600_000; c.request.amount = 7_501.into(); }, Reason::TransactionCeiling),
    ("a millisecond less",                      |c| { moving_more(c); c.situation.oldest_unsent_ms = 2 * 3_600_000 - 1; c.request.amount = 7_501.into(); }, Reason::None),
    ("a policy 30 days old: 80,00",             |c| { moving_more(c); c.policy.not_before_ms = c.situation.now_ms - 30 * 86_400_000; c.request.amount = 8_000.into(); }, Reason::None),
    ("a policy 30 days old: 80,01",             |c| { moving_more(c); c.policy.not_before_ms = c.situation.now_ms - 30 * 86_400_000; c.request.amount = 8_001.into(); }, Reason::TransactionCeiling),
    ("a millisecond younger",                   |c| { moving_more(c); c.policy.not_before_ms = c.situation.now_ms - 30 * 86_400_000 + 1; c.request.amount = 8_001.into(); }, Reason::None),
    ("5 % declined: 60,00",                     |c| { moving_more(c); c.situation.declined.store_percent = 5; c.request.amount = 6_000.into(); }, Reason::None),
    ("5 % declined: 60,01",                     |c| { moving_more(c); c.situation.declined.store_percent = 5; c.request.amount = 6_001.into(); }, Reason::TransactionCeiling),
    ("4 % declined: 60,01",                     |c| { moving_more(c); c.situation.declined.store_percent = 4; c.request.amount = 6_001.into(); }, Reason::None),
    ("5 % declined of the scheme: 60,01",       |c| { moving_more(c); c.situation.declined.own_percent = 5; c.request.amount = 6_001.into(); }, Reason::TransactionCeiling),
    ("5 % declined of the scheme: 60,00", |c| { moving_more(c); c.situation.declined.own_percent = 5; c.request.amount = 6_000.into(); }, Reason::None),
    ("4 % declined of the scheme: 60,01", |c| { moving_more(c); c.situation.declined.own_percent = 4; c.request.amount = 6_001.into(); }, Reason::None),
    ("20 % held until now: 20,00",              |c| { moving_more(c); held(c, 15 * 60_000 - 1); },                 Reason::None),
    ("20 % held until now: 20,01",              |c| { moving_more(c); held(c, 15 * 60_000 - 1); c.request.amount = 2_001.into(); }, Reason::TransactionCeiling),
    ("for 15 minutes: 30,00",                   |c| { moving_more(c); held(c, 15 * 60_000); c.request.amount = 3_000.into(); }, Reason::None),
    ("for 15 minutes: 30,01",                   |c| { moving_more(c); held(c, 15 * 60_000); c.request.amount = 3_001.into(); }, Reason::TransactionCeiling),
    ("for 2 hours: 100,00, never more",         |c| { moving_more(c); held(c, 2 * 3_600_000); c.request.amount = 10_001.into(); }, Reason::TransactionCeiling),
    ("device tightened to 50 %: 50,00",         |c| { tightened(c); c.situation.device_restriction = Restriction::Tightened; c.request.amount = 5_000.into(); }, Reason::None),
    ("device tightened to 50 %: 50,01",         |c| { tightened(c); c.situation.device_restriction = Restriction::Tightened; c.request.amount = 5_001.into(); }, Reason::TransactionCeiling),
    ("store tightened to 50 %: 50,01",          |c| { tightened(c); c.situation.store_restriction = Restriction::Tightened; c.request.amount = 5_001.into(); }, Reason::TransactionCeiling),
    ("store warned: 50,01",                     |c| { tightened(c); c.situation.store_restriction = Restriction::Warned; c.request.amount = 5_001.into(); }, Reason::None),
    ("a stale word on the device: 40,00",       |c| { stale(c); c.request.amount = 4_000.into(); },                Reason::None),
    ("a stale word on the device: 40,01",       |c| { stale(c); c.request.amount = 4_001.into(); },                Reason::TransactionCeiling),
    ("card at 130,00, 20,00 more",              |c| c.situation.card = at_risk(13_000, 2),                         Reason::None),
    ("card at 130,01, 20,00 more",              |c| c.situation.card = at_risk(13_001, 2),                         Reason::CardCeiling),
    ("device at 980,00, 20,00 more",            |c| c.situation.device = at_risk(98_000, 9),                       Reason::None),
    ("device at 980,01, 20,00 more",            |c| c.situation.device = at_risk(98_001, 9),                       Reason::DeviceCeiling),
    ("store at 2 980,00, 20,00 more",           |c| c.situation.store = at_risk(298_000, 99),                      Reason::None),
    ("store at 2 980,01, 20,00 more",           |c| c.situation.store = at_risk(298_001, 99),                      Reason::StoreCeiling),
    ("exposure that would overflow",            |c| c.situation.store = at_risk(u64::MAX, 99),                     Reason::StoreCeiling),
    ("staff at 380,00, 20,00 more",             |c| staff(c, at_risk(38_000, 9)),                                Reason::None),
    ("staff at 380,01, 20,00 more",             |c| staff(c, at_risk(38_001, 9)),                                Reason::StaffCeiling),
    ("staff's ceiling moves: 300,00",           |c| { staff(c, at_risk(28_000, 9)); moving(c); c.situation.offline_ms = 3_600_000; }, Reason::None),
    ("staff's ceiling moves: 300,01",           |c| { staff(c, at_risk(28_001, 9)); moving(c); c.situation.offline_ms = 3_600_000; }, Reason::StaffCeiling),
    ("clock in doubt, staff at 180,01",         |c| { staff(c, at_risk(18_001, 1)); c.situation.clock_suspect = true; }, Reason::ClockInDoubt),
    ("staff's 20th in a row",                   |c| staff(c, at_risk(0, 19)),                                    Reason::None),
    ("staff's 21st in a row",                   |c| staff(c, at_risk(0, 20)),                                    Reason::StaffConsecutiveLimit),
    ("staff's 10th in a row, signed for",       |c| { signed_for(c); staff(c, at_risk(0, 9)); },                 Reason::None),
    ("staff's 11th in a row, signed for",       |c| { signed_for(c); staff(c, at_risk(0, 10)); },                Reason::StaffConsecutiveLowerLimit),
    ("card's 5th in a row",                     |c| c.situation.card = at_risk(0, 4),                              Reason::None),
    ("card's 6th in a row",                     |c| c.situation.card = at_risk(0, 5),                              Reason::CardConsecutiveLimit),
    ("device's 60th in a row",                  |c| c.situation.device = at_risk(0, 59),                           Reason::None),
    ("device's 61st in a row",                  |c| c.situation.device = at_risk(0, 60),                           Reason::DeviceConsecutiveLimit),
    ("store's 300th in a row",                  |c| c.situation.store = at_risk(0, 299),                           Reason::None),
    ("store's 301st in a row",                  |c| c.situation.store = at_risk(0, 300),                           Reason::StoreConsecutiveLimit),
    ("card's 2nd in a row, signed for",            |c| { lower(c); signed_for(c); c.situation.card = at_risk(0, 1); },          Reason::None),
    ("card's 3rd in a row, signed for",            |c| { lower(c); signed_for(c); c.situation.card = at_risk(0, 2); },          Reason::CardConsecutiveLowerLimit),
    ("card's 3rd in a row, with the PIN",       |c| { lower(c); c.request.verification = Verification::OfflinePin; c.situation.card = at_risk(0, 2); }, Reason::None),
    ("card's 3rd in a row, verified on the phone", |c| { lower(c); c.request.verification = Verification::Cdcvm; c.situation.card = at_risk(0, 2); }, Reason::None),
    ("card's 6th in a row, with the PIN",       |c| { lower(c); c.request.verification = Verification::OfflinePin; c.situation.card = at_risk(0, 5); }, Reason::CardConsecutiveLimit),
    ("device's 41st in a row, signed for",         |c| { lower(c); signed_for(c); c.situation.device = at_risk(0, 40); },       Reason::DeviceConsecutiveLowerLimit),
    ("device's 40th in a row, signed for",         |c| { lower(c); signed_for(c); c.situation.device = at_risk(0, 39); },       Reason::None),
    ("store's 201st in a row, signed for",         |c| { lower(c); signed_for(c); c.situation.store = at_risk(0, 200); },       Reason::StoreConsecutiveLowerLimit),
    ("store's 200th in a row, signed for",         |c| { lower(c); signed_for(c); c.situation.store = at_risk(0, 199); },       Reason::None),
    ("card's 3rd in an hour",                   |c| { windows(c); c.situation.card_velocity = Some(&LATELY[0]); },  Reason::None),
    ("card's 4th in an hour",                   |c| { windows(c); c.situation.card_velocity = Some(&LATELY[1]); },  Reason::CardWindow),
    ("the first of them an hour ago",           |c| { windows(c); c.situation.card_velocity = Some(&LATELY[2]); },  Reason::None),
    ("device's 3rd in an hour",                 |c| { windows(c); c.situation.device_recent = Some(&LATELY[0].recent); }, Reason::None),
    ("device's 4th in an hour",                 |c| { windows(c); c.situation.device_recent = Some(&LATELY[1].recent); }, Reason::DeviceWindow),
    ("device's first of them an hour ago",      |c| { windows(c); c.situation.device_recent = Some(&LATELY[2].recent); }, Reason::None),
    ("60 points",                               |c| { scored(c); c.situation.card_known = false; c.situation.device_points = 20; }, Reason::ScoreTooHigh),
    ("30 points, signed for",                   |c| { scored(c); signed_for(c); c.situation.card_known = false; }, Reason::ScoreVerification),
    ("clock in doubt, card's 2nd in an hour",   |c| { windows(c); c.situation.clock_suspect = true; c.situation.card_velocity = Some(&LATELY[3]); }, Reason::ClockInDoubt),
    ("clock in doubt, mPOS 50,00",              |c| { c.situation.clock_suspect = true; c.request.amount = 5_000.into(); }, Reason::None),
    ("clock in doubt, mPOS 50,01",              |c| { c.situation.clock_suspect = true; c.request.amount = 5_001.into(); }, Reason::ClockInDoubt),
    ("clock in doubt, card's 3rd in a row",     |c| { c.situation.clock_suspect = true; c.situation.card = at_risk(0, 2); }, Reason::ClockInDoubt),
    ("clock in doubt, card at 55,00, 20,00 more", |c| { c.situation.clock_suspect = true; c.situation.card = at_risk(5500, 1); }, Reason::None),
    ("clock in doubt, card a cent more", |c| { c.situation.clock_suspect = true; c.situation.card = at_risk(5501, 1); }, Reason::ClockInDoubt),
    ("clock in doubt, device at 480,00, 20,00 more", |c| { c.situation.clock_suspect = true; c.situation.device = at_risk(48000, 1); }, Reason::None),
    ("clock in doubt, device a cent more", |c| { c.situation.clock_suspect = true; c.situation.device = at_risk(48001, 1); }, Reason::ClockInDoubt),
    ("clock in doubt, store at 1 480,00, 20,00 more", |c| { c.situation.clock_suspect = true; c.situation.store = at_risk(148000, 1); }, Reason::None),
    ("clock in doubt, store a cent more", |c| { c.situation.clock_suspect = true; c.situation.store = at_risk(148001, 1); }, Reason::ClockInDoubt),
    ("clock in doubt, card's 2nd in a row", |c| { c.situation.clock_suspect = true; c.situation.card = at_risk(0, 1); }, Reason::None),
    ("clock in doubt, device's 30th in a row", |c| { c.situation.clock_suspect = true; c.situation.device = at_risk(0, 29); }, Reason::None),
    ("clock in doubt, one more of the device", |c| { c.situation.clock_suspect = true; c.situation.device = at_risk(0, 30); }, Reason::ClockInDoubt),
    ("clock in doubt, store's 150th in a row", |c| { c.situation.clock_suspect = true; c.situation.store = at_risk(0, 149); }, Reason::None),
    ("clock in doubt, one more of the store", |c| { c.situation.clock_suspect = true; c.situation.store = at_risk(0, 150); }, Reason::ClockInDoubt),
    ("clock in doubt, device's 2nd in an hour", |c| { windows(c); c.situation.clock_suspect = true; c.situation.device_recent = Some(&LATELY[3].recent); }, Reason::ClockInDoubt),
    ("clock in doubt, unverified tap of 25,00", |c| { c.situation.clock_suspect = true; c.request.verification = Verification::None; c.request.amount = 2_500.into(); }, Reason::None),
    ("clock in doubt, unverified tap of 25,01", |c| { c.situation.clock_suspect = true; c.request.verification = Verification::None; c.request.amount = 2_501.into(); }, Reason::VerificationRequired),
    ("clock in doubt, above the full ceiling",  |c| { c.situation.clock_suspect = true; c.request.amount = 10_001.into(); }, Reason::TransactionCeiling),
];

/// What a supervisor's override lets pass, and what it does not. An override
/// stands against nothing, so these are no pairs below.
#[rustfmt::skip]
const OVERRIDES: &[(&str, Change, Reason)] = &[
    ("card's 3rd in a row, a supervisor says yes", |c| { lower(c); signed_for(c); c.situation.card = at_risk(0, 2); overridden(c, &LATELY[0]); }, Reason::None),
    ("the 3rd override in an hour was the last",   |c| { lower(c); signed_for(c); c.situation.card = at_risk(0, 2); overridden(c, &LATELY[1]); }, Reason::CardConsecutiveLowerLimit),
    ("unless the first was an hour ago",           |c| { lower(c); signed_for(c); c.situation.card = at_risk(0, 2); overridden(c, &LATELY[2]); }, Reason::None),
    ("a policy without overrides",                 |c| { lower(c); signed_for(c); c.situation.card = at_risk(0, 2); overridden(c, &LATELY[0]); c.policy.overrides = None; }, Reason::CardConsecutiveLowerLimit),
    ("a score that asks for the PIN",              |c| { unproven(c); c.situation.card_known = false; overridden(c, &LATELY[0]); }, Reason::None),
    ("never a score that declines",                |c| { unproven(c); c.situation.card_known = false; c.situation.device_points = 20; overridden(c, &LATELY[0]); }, Reason::ScoreTooHigh),
    ("a score that declines, where the policy says so", |c| { liftable(c); c.situation.card_known = false; c.situation.device_points = 20; overridden(c, &LATELY[0]); }, Reason::None),
    ("the same with the PIN, which does not help", |c| { liftable(c); c.request.verification = Verification::OfflinePin; c.situation.card_known = false; c.situation.device_points = 20; overridden(c, &LATELY[0]); }, Reason::None),
    ("and a lower limit beside it",                |c| { liftable(c); lower(c); c.situation.card = at_risk(0, 2); c.situation.card_known = false; c.situation.device_points = 20; overridden(c, &LATELY[0]); }, Reason::None),
    ("not without an override",                    |c| { liftable(c); c.situation.card_known = false; c.situation.device_points = 20; }, Reason::ScoreTooHigh),
    ("not after the 3rd override in an hour",      |c| { liftable(c); c.situation.card_known = false; c.situation.device_points = 20; overridden(c, &LATELY[1]); }, Reason::ScoreTooHigh),
    ("not an upper limit beside it",               |c| { liftable(c); lower(c); c.situation.card = at_risk(0, 5); c.situation.card_known = false; c.situation.device_points = 20; overridden(c, &LATELY[0]); }, Reason::CardConsecutiveLimit),
    ("not a doubtful clock beside it: mPOS 50,01", |c| { liftable(c); c.situation.clock_suspect = true; c.situation.card_known = false; c.request.amount = 5_001.into(); overridden(c, &LATELY[0]); }, Reason::ClockInDoubt),
    ("never an upper limit: card's 6th in a row",  |c| { lower(c); signed_for(c); c.situation.card = at_risk(0, 5); overridden(c, &LATELY[0]); }, Reason::CardConsecutiveLimit),
    ("never a ceiling: mPOS 100,01",               |c| { overridden(c, &LATELY[0]); c.request.amount = 10_001.into(); }, Reason::TransactionCeiling),
    ("never a doubtful clock: mPOS 50,01",         |c| { overridden(c, &LATELY[0]); c.situation.clock_suspect = true; c.request.amount = 5_001.into(); }, Reason::ClockInDoubt),
    ("never a tap: 50,01",                         |c| { overridden(c, &LATELY[0]); c.request.verification = Verification::None; c.request.amount = 5_001.into(); }, Reason::VerificationRequired),
];

/// Ceilings for kinds of payments. What a PIN would change depends on all of
/// the payment, so these are no pairs below.
#[rustfmt::skip]
const KINDS: &[(&str, Change, Reason)] = &[
    ("a sale where only refunds are allowed",   |c| c.policy.offline.transaction_types = vec![TransactionType::Refund], Reason::TransactionTypeNotAllowed),
    ("PIN at an mPOS: 200,00",                  |c| { ceilings(c); c.request.verification = Verification::OfflinePin; c.request.amount = 20_000.into(); c.policy.card.exposure_ceiling = 50_000; }, Reason::None),
    ("PIN at an mPOS: 200,01",                  |c| { ceilings(c); c.request.verification = Verification::OfflinePin; c.request.amount = 20_001.into(); c.policy.card.exposure_ceiling = 50_000; }, Reason::TransactionCeiling),
    ("signed for at an mPOS: 100,01 needs a PIN", |c| { ceilings(c); c.request.verification = Verification::Signature; c.request.amount = 10_001.into(); }, Reason::VerificationRequired),
    ("the same without a chip reader",          |c| { ceilings(c); c.request.verification = Verification::Signature; c.request.amount = 10_001.into(); c.policy.offline.entry_modes.retain(|m| *m != EntryMode::Chip); }, Reason::TransactionCeiling),
    ("200,01 helps no PIN",                     |c| { ceilings(c); c.request.verification = Verification::Signature; c.request.amount = 20_001.into(); }, Reason::TransactionCeiling),
    ("clock in doubt, signed for: 100,00",      |c| { ceilings(c); c.situation.clock_suspect = true; c.request.verification = Verification::Signature; c.request.amount = 10_000.into(); }, Reason::VerificationRequired),
    ("clock in doubt, signed for: 100,01, no PIN helps", |c| { ceilings(c); c.situation.clock_suspect = true; c.request.verification = Verification::Signature; c.request.amount = 10_001.into(); }, Reason::TransactionCeiling),
    ("foreign: 30,00",                          |c| { ceilings(c); c.request.card.issuer_country = Some("US".into()); c.request.amount = 3_000.into(); }, Reason::None),
    ("foreign: 30,01",                          |c| { ceilings(c); c.request.card.issuer_country = Some("US".into()); c.request.amount = 3_001.into(); }, Reason::VerificationRequired),
    ("not known where from: 30,01",             |c| { ceilings(c); c.request.card.issuer_country = None; c.request.amount = 3_001.into(); }, Reason::VerificationRequired),
    ("foreign debit, the chip's word: 10,00",   |c| { ceilings(c); foreign_debit(c); c.request.amount = 1_000.into(); }, Reason::None),
    ("foreign debit, the chip's word: 10,01",   |c| { ceilings(c); foreign_debit(c); c.request.amount = 1_001.into(); }, Reason::VerificationRequired),
    ("taps of 130,00, 20,00 more",              |c| { tapped(c, &TAPPED[0]); },                                    Reason::None),
    ("taps of 130,01, 20,00 more",              |c| { tapped(c, &TAPPED[1]); },                                    Reason::CardContactlessLimit),
    ("the same with the phone's own check",     |c| { tapped(c, &TAPPED[1]); c.request.verification = Verification::Cdcvm; }, Reason::None),
    ("the same inserted and signed for",        |c| { tapped(c, &TAPPED[1]); c.request.entry_mode = EntryMode::Chip; signed_for(c); }, Reason::None),
    ("the 5th tap in a row",                    |c| { tapped(c, &TAPPED[2]); },                                    Reason::None),
    ("the 6th tap in a row",                    |c| { tapped(c, &TAPPED[3]); },                                    Reason::CardContactlessLimit),
    ("clock in doubt, taps of 55,00, 20,00 more", |c| { tapped(c, &TAPPED[4]); c.situation.clock_suspect = true; }, Reason::None),
    ("clock in doubt, taps of 55,01, 20,00 more", |c| { tapped(c, &TAPPED[5]); c.situation.clock_suspect = true; }, Reason::CardContactlessLimit),
    ("contactless, signed for: 50,00",          |c| { signed_for(c); c.request.amount = 5_000.into(); },           Reason::None),
    ("contactless, signed for: 50,01",          |c| { signed_for(c); c.request.amount = 5_001.into(); },           Reason::VerificationRequired),
    ("taps of 130,01, 20,00 more signed for",   |c| { tapped(c, &TAPPED[1]); signed_for(c); },                     Reason::CardContactlessLimit),
    ("the 6th tap in a row, signed for",        |c| { tapped(c, &TAPPED[3]); signed_for(c); },                     Reason::CardContactlessLimit),
    ("typed in, said to be by PIN: 100,01",     |c| { typed_in(c, Verification::OfflinePin); ceilings(c); c.request.amount = 10_001.into(); }, Reason::VerificationRequired),
    ("typed in, said to be by the issuer's PIN", |c| typed_in(c, Verification::OnlinePin),                         Reason::OnlinePinNotPossible),
    ("typed in, card's 2nd in a row",           |c| { typed_in(c, Verification::OfflinePin); lower(c); c.situation.card = at_risk(0, 1); }, Reason::None),
    ("typed in, said to be by PIN: 3rd in a row", |c| { typed_in(c, Verification::OfflinePin); lower(c); c.situation.card = at_risk(0, 2); }, Reason::CardConsecutiveLowerLimit),
    ("typed in, said to be by phone: 3rd in a row", |c| { typed_in(c, Verification::Cdcvm); lower(c); c.situation.card = at_risk(0, 2); }, Reason::CardConsecutiveLowerLimit),
    ("beside it, a tap of 50,01",               |c| { tapped(c, &TAPPED[1]); c.request.amount = 5_001.into(); }, Reason::VerificationRequired),
    ("beside it, a tap above the mPOS's 100,00", |c| { tapped(c, &TAPPED[1]); c.policy.offline.contactless_unverified_ceiling = None; c.request.amount = 10_001.into(); }, Reason::TransactionCeiling),
    ("the same without a chip reader",          |c| { tapped(c, &TAPPED[1]); c.policy.offline.contactless_unverified_ceiling = None; c.policy.offline.entry_modes.retain(|m| *m != EntryMode::Chip); c.request.amount = 10_001.into(); }, Reason::TransactionCeiling),
];

/// Scores, each factor at its edge. What a clock in doubt changes depends on
/// all of the policy, so these are no pairs below.
#[rustfmt::skip]
const SCORES: &[(&str, Change, Reason)] = &[
    ("nothing against it",                      |c| { unproven(c); },                                              Reason::None),
    ("a new card",                              |c| { unproven(c); c.situation.card_known = false; },              Reason::ScoreVerification),
    ("a new card, verified on the phone",       |c| { scored(c); c.situation.card_known = false; },                Reason::None),
    ("a new card, with the PIN",                |c| { unproven(c); c.request.verification = Verification::OfflinePin; c.situation.card_known = false; }, Reason::None),
    ("30 of 31 points for the PIN",             |c| { unproven(c); c.situation.card_known = false; c.policy.score.as_mut().unwrap().verify_from = Some(31); }, Reason::None),
    ("the PIN is never asked for",              |c| { unproven(c); c.situation.card_known = false; c.policy.score.as_mut().unwrap().verify_from = None; }, Reason::None),
    ("60 points, with the PIN",                 |c| { unproven(c); c.request.verification = Verification::OfflinePin; c.situation.card_known = false; c.situation.device_points = 20; }, Reason::ScoreTooHigh),
    ("60 of 61 points",                         |c| { unproven(c); c.situation.card_known = false; c.situation.device_points = 20; c.policy.score.as_mut().unwrap().decline_from = Some(61); }, Reason::ScoreVerification),
    ("60 points, never declined",               |c| { unproven(c); c.situation.card_known = false; c.situation.device_points = 20; c.policy.score.as_mut().unwrap().decline_from = None; }, Reason::ScoreVerification),
    ("20,00 in a shop of 20,00",                |c| { unproven(c); c.situation.profile = Some(&SHOPS[0]); },       Reason::None),
    ("the last amount that is like 20,00",      |c| { unproven(c); c.situation.profile = Some(&SHOPS[0]); c.request.amount = 2_047.into(); }, Reason::None),
    ("the first above",                         |c| { unproven(c); c.situation.profile = Some(&SHOPS[0]); c.request.amount = 2_048.into(); }, Reason::ScoreVerification),
    ("the same with a payment too few known",   |c| { unproven(c); c.situation.profile = Some(&SHOPS[1]); c.request.amount = 2_048.into(); }, Reason::None),
    ("foreign",                                 |c| { unproven(c); c.request.card.issuer_country = Some("US".into()); }, Reason::ScoreVerification),
    ("not known where from",                    |c| { unproven(c); c.request.card.issuer_country = None; },        Reason::ScoreVerification),
    ("magnetic stripe",                         |c| { unproven(c); c.policy.offline.entry_modes = EntryMode::ALL.to_vec(); c.request.entry_mode = EntryMode::MagneticStripe; }, Reason::ScoreVerification),
    ("typed in",                                |c| { unproven(c); c.policy.offline.entry_modes = EntryMode::ALL.to_vec(); c.request.entry_mode = EntryMode::Keyed; }, Reason::ScoreVerification),
    ("typed in, said to be by PIN",             |c| { unproven(c); typed_in(c, Verification::OfflinePin); },       Reason::ScoreVerification),
    ("typed in, said to be by phone",           |c| { unproven(c); typed_in(c, Verification::Cdcvm); },            Reason::ScoreVerification),
    ("signed for, contactless",                 |c| { scored(c); signed_for(c); },                                 Reason::None),
    ("card's 2nd in an hour",                   |c| { unproven(c); c.situation.card_velocity = Some(&LATELY[3]); },  Reason::None),
    ("card's 3rd in an hour",                   |c| { unproven(c); c.situation.card_velocity = Some(&LATELY[0]); },  Reason::ScoreVerification),
    ("the first of 3 an hour ago",              |c| { unproven(c); c.situation.card_velocity = Some(&LATELY[4]); },  Reason::None),
    ("in the last minute that it is open",      |c| { unproven(c); hours(c, "00:00-04:27", true); },               Reason::None),
    ("in the minute after",                     |c| { unproven(c); hours(c, "00:00-04:26", true); },               Reason::ScoreVerification),
    ("an hour in which it sells",               |c| { unproven(c); c.situation.profile = Some(&SHOPS[0]); },       Reason::None),
    ("an hour in which it never sells",         |c| { unproven(c); c.situation.profile = Some(&SHOPS[2]); },       Reason::ScoreVerification),
    ("the same a millisecond before it is known", |c| { unproven(c); c.situation.profile = Some(&SHOPS[3]); },     Reason::None),
    ("19 points of anomalies at the device",    |c| { unproven(c); c.situation.device_points = 19; },              Reason::None),
    ("20 points of anomalies at the device",    |c| { unproven(c); c.situation.device_points = 20; },              Reason::ScoreVerification),
    ("the device warned",                       |c| { unproven(c); c.situation.device_restriction = Restriction::Warned; }, Reason::ScoreVerification),
    ("clock in doubt: the hour counts",         |c| { unproven(c); c.situation.clock_suspect = true; },            Reason::ScoreVerification),
    ("clock in doubt, card's 2nd in an hour, at any time", |c| { unproven(c); c.policy.score.as_mut().unwrap().unusual_hour = None; c.situation.clock_suspect = true; c.situation.card_velocity = Some(&LATELY[3]); }, Reason::ScoreVerification),
    ("clock in doubt, card's 1st, at any time", |c| { unproven(c); c.policy.score.as_mut().unwrap().unusual_hour = None; c.situation.clock_suspect = true; }, Reason::None),
    ("clock in doubt, and a new card",          |c| { unproven(c); c.situation.clock_suspect = true; c.situation.card_known = false; }, Reason::ScoreTooHigh),
    ("60 points, and the clock says no before", |c| { unproven(c); c.situation.clock_suspect = true; c.situation.card_known = false; c.request.amount = 5_001.into(); }, Reason::ClockInDoubt),
];

#[test]
fn offline_decisions_are_as_the_table_says() {
    for (what, change, expected) in TABLE.iter().chain(KINDS).chain(OVERRIDES).chain(SCORES) {
        assert_eq!(reason(change), *expected, "{what}");
    }
}

/// Rule 5: a clock in doubt halves every amount, the one for a tap and the one
/// that a PIN would allow among them.
#[test]
fn rule_5_a_clock_in_doubt_halves_how_many_overrides_count() {
    let in_doubt = |used: Option<usize>| {
        reason(|c| {
            lower(c);
            signed_for(c);
            overridden(c, &LATELY[used.unwrap_or_default()]);
            c.situation.overrides = used.map(|number| &LATELY[number].recent);
            c.situation.clock_suspect = true;
            c.situation.card = at_risk(0, 1);
        })
    };
    // 3 an hour become 1.
    assert_eq!(in_doubt(None), Reason::None);
    assert_eq!(in_doubt(Some(3)), Reason::CardConsecutiveLowerLimit);
}

#[test]
fn rule_5_a_clock_in_doubt_halves_what_a_tap_and_a_pin_allow() {
    let in_doubt = |amount: u64, verification| {
        reason(|case| {
            ceilings(case);
            case.situation.clock_suspect = true;
            case.policy.card.exposure_ceiling = 50_000;
            case.request.verification = verification;
            case.request.amount = amount.into();
        })
    };
    assert_eq!(in_doubt(2_500, Verification::None), Reason::None);
    assert_eq!(in_doubt(2_501, Verification::None), Reason::VerificationRequired);
    // The cashier is sent for the PIN exactly where it helps.
    for amount in [5_001, 10_000, 10_001, 20_000, 20_001] {
        let sent = in_doubt(amount, Verification::Signature) == Reason::VerificationRequired;
        let helps = in_doubt(amount, Verification::OfflinePin) == Reason::None;
        assert_eq!(sent, helps, "{amount}");
    }
}

#[test]
fn without_a_policy_silence_means_no() {
    let case = usual();
    assert_eq!(
        decide_offline(&case.request, &case.situation).reason,
        Reason::NoPolicy
    );
}

/// Each pair of neighbours in the order of precedence, both standing against
/// the payment: the smaller number is given.
#[test]
fn of_two_reasons_the_one_with_the_smaller_number_is_given() {
    let against: Vec<(&str, Change, Reason)> = TABLE
        .iter()
        .filter(|(_, _, reason)| !matches!(reason, Reason::None | Reason::ClockInDoubt))
        .copied()
        .collect();
    let mut pairs = 0;
    for (i, (what_a, a, reason_a)) in against.iter().enumerate() {
        for (what_b, b, reason_b) in &against[i + 1..] {
            // Two changes of the same field cannot both stand.
            let (mut bare_glass, mut entered) = (false, false);
            let both = reason(|case| {
                a(case);
                b(case);
                let softpos = case.situation.class == DeviceClass::Softpos;
                bare_glass = softpos && !case.situation.standing.pin_on_glass;
                entered = case.request.verification == Verification::OfflinePin;
            });
            let mut first = (*reason_a).min(*reason_b);
            let too_high = [*reason_a, *reason_b].contains(&Reason::TransactionCeiling);
            let asks_for_pin = refuse(first).fallback == Some(FallbackAction::InsertCardEnterPin);
            // Nobody is asked for a PIN that does not help, nor for one that
            // cannot be entered there.
            entered &= first > Reason::PinOnGlassNotAllowed;
            if first == Reason::VerificationRequired && too_high {
                first = Reason::TransactionCeiling;
            } else if bare_glass && (asks_for_pin || entered) {
                first = Reason::PinOnGlassNotAllowed;
            } else if asks_for_pin && too_high {
                first = Reason::TransactionCeiling;
            }
            let undone = reason(|case| {
                b(case);
                a(case);
            }) != both;
            // Another class, which the policy does name.
            let named = ["SoftPOS", "terminal"]
                .iter()
                .any(|class| what_b.starts_with(class));
            let other_class = *reason_a == Reason::ClassNotAllowed && named;
            if !undone && !other_class {
                assert_eq!(both, first, "{what_a} + {what_b}");
                pairs += 1;
            }
        }
    }
    assert!(pairs > 150, "only {pairs} pairs were compared");
}

#[test]
fn a_fallback_says_what_to_do_instead_and_a_decline_does_not() {
    let record = |change: Change| {
        let mut case = usual();
        change(&mut case);
        let situation = Situation {
            policy: Some(&case.policy),
            ..case.situation
        };
        decide_offline(&case.request, &situation)
    };
    let stripe = record(|c| c.request.entry_mode = EntryMode::MagneticStripe);
    assert_eq!(
        (stripe.decision, stripe.fallback),
        (Decision::Fallback, Some(FallbackAction::InsertCard))
    );
    let pin = record(|c| c.request.verification = Verification::OnlinePin);
    assert_eq!(
        (pin.decision, pin.fallback),
        (Decision::Fallback, Some(FallbackAction::InsertCardEnterPin))
    );
    let over = record(|c| c.request.amount = 10_001.into());
    assert_eq!((over.decision, over.fallback), (Decision::Declined, None));
}

/// Rule 7: the ledger says what was weighed, for approvals as well.
#[test]
fn rule_7_a_decision_carries_its_score_and_what_it_consists_of() {
    let score = |change: Change| {
        let mut case = usual();
        change(&mut case);
        let situation = Situation {
            policy: Some(&case.policy),
            ..case.situation
        };
        let score = decide_offline(&case.request, &situation).score?;
        let parts = score.parts.iter().map(|part| (part.factor, part.points));
        assert_eq!(
            u64::from(score.points),
            parts.clone().map(|(_, p)| u64::from(p)).sum()
        );
        Some(parts.collect::<Vec<_>>())
    };
    assert_eq!(score(|_| {}), None, "nothing is weighed");
    assert_eq!(score(scored), Some(vec![]), "nothing stands against it");
    let all = score(|c| {
        scored(c);
        c.situation.card_known = false;
        c.situation.device_points = 20;
        c.situation.profile = Some(&SHOPS[2]);
        c.situation.card_velocity = Some(&LATELY[0]);
        c.request.amount = 9_500.into();
        c.request.card.issuer_country = None;
        c.request.entry_mode = EntryMode::Keyed;
    });
    assert_eq!(
        all,
        Some(ScoreFactor::ALL.iter().map(|factor| (*factor, 30)).collect())
    );
}

#[test]
fn card_approved_and_deferred_payments_are_never_mixed() {
    let submission = |cryptogram| {
        let mut case = usual();
        case.request.cryptogram = cryptogram;
        let situation = Situation {
            policy: Some(&case.policy),
            ..case.situation
        };
        decide_offline(&case.request, &situation).submission
    };
    assert_eq!(submission(Cryptogram::CardApproved), Some(Submission::Advice));
    assert_eq!(submission(Cryptogram::AsksOnline), Some(Submission::Deferred));
    assert_eq!(submission(Cryptogram::Refused), None);
}

#[test]
fn an_old_device_is_told_by_another_reason_to_do_the_same() {
    for reason in Reason::ALL {
        let (said, told) = (refuse(*reason), refuse(reason.in_receipts()));
        assert_eq!(said.decision, told.decision, "{reason:?}");
        assert_eq!(said.fallback, told.fallback, "{reason:?}");
    }
}

#[test]
fn a_tap_that_is_too_high_by_the_pin_as_well_is_declined() {
    let tap = |amount: u64| {
        reason(|case| {
            case.request.verification = Verification::None;
            case.request.amount = amount.into();
        })
    };
    assert_eq!(tap(5_001), Reason::VerificationRequired);
    assert_eq!(tap(10_000), Reason::VerificationRequired);
    assert_eq!(tap(10_001), Reason::TransactionCeiling);
}

#[test]
fn the_ceiling_for_cash_moves_with_the_outage() {
    let handed_out = |cash_minor| {
        reason(|case| {
            moving(case);
            cash_back(case, cash_minor);
            case.situation.offline_ms = 3_600_000;
        })
    };
    assert_eq!(handed_out(1_500), Reason::None, "75 percent of 20,00");
    assert_eq!(handed_out(1_501), Reason::CashBackCeiling);
}
