use super::*;
use crate::check::{Fault, Verdict};
use crate::sample::{answered, id, told};
use crate::scene::LedgerCheck;

fn report(verdict: Verdict) -> Report {
    let mut declined = answered(3, Decision::Declined);
    if let Answer::Receipt(slip) = &mut declined.answer {
        slip.reason = Reason::CardCeiling;
    }
    let told = vec![told(1), answered(2, Decision::ApprovedOnline), declined];
    Report {
        title: ("Une journée".to_owned(), "A day".to_owned()),
        currency: Currency::EUR,
        devices: 8,
        found_by_mdns: 8,
        tickets: 3,
        days: None,
        skipped: BTreeMap::new(),
        notes: Vec::new(),
        closing: Closing {
            told,
            verdict,
            replayed: 1,
            parked: 0,
            ledger: LedgerCheck {
                verified: true,
                entries: 12,
                receipts: 3,
                fault: None,
            },
            outages: 1,
            restarts: 1,
            settlement: "settlement.csv".into(),
        },
    }
}

fn printed(report: &Report) -> String {
    let mut out = Vec::new();
    report.print(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn the_json_has_every_field_that_is_asked_for() {
    let json = report(Verdict {
        gateway_charges: 2,
        ..Verdict::default()
    })
    .to_json();
    for key in [
        "devices",
        "tickets",
        "approved_online",
        "approved_offline",
        "declined",
        "fallback",
        "replayed",
        "parked",
        "gateway_charges",
        "lost",
        "charged_twice",
        "ceiling_breaches",
        "ledger_verified",
        "hub_restarts",
    ] {
        assert!(!json[key].is_null(), "{key}");
    }
    assert_eq!(json["declined"]["card-ceiling"], 1);
    assert_eq!(
        (&json["approved_offline"], &json["gateway_charges"]),
        (&json!(1), &json!(2))
    );
}

#[test]
fn a_clean_report_says_so_in_french_first() {
    let text = printed(&report(Verdict::default()));
    let (french, english) = (
        text.find("RIEN N’EST PERDU").unwrap(),
        text.find("Nothing lost").unwrap(),
    );
    assert!(french < english);
    assert!(text.contains("cette carte a atteint"), "{text}");
}

#[test]
fn a_fault_is_named_and_the_report_is_not_clean() {
    let fault = Fault {
        payment_id: id(1),
        order_id: "order-1".to_owned(),
        what: "approved, gone".to_owned(),
    };
    let report = report(Verdict {
        lost: vec![fault],
        ..Verdict::default()
    });
    assert!(!report.clean());
    let text = printed(&report);
    assert!(
        text.contains("order-1") && text.contains("NE SONT PAS JUSTES"),
        "{text}"
    );
}

#[test]
fn an_unverified_ledger_or_an_unanswered_customer_is_not_clean() {
    let mut unverified = report(Verdict::default());
    unverified.closing.ledger.verified = false;
    assert!(!unverified.clean());
    let mut unanswered = report(Verdict::default());
    unanswered.closing.told[0].answer = Answer::None("gave up".to_owned());
    assert!(!unanswered.clean());
}
