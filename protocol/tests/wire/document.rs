//! `docs/protocol.md`, held to the code: its tables are made from it, its
//! grammar is checked against the vectors, its example is a vector.

use hub_protocol::cose::{self, ObjectType};
use hub_protocol::*;

use crate::cddl::Cddl;
use crate::files::{committed, hex, hold_text, repository, unhex};
use crate::fixtures::*;
use crate::source::{Enum, enums};
use crate::tree::{Tree, bytes, diagnostic, text};

fn document() -> String {
    std::fs::read_to_string(repository().join("docs/protocol.md")).unwrap()
}

fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let heads: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let rule: Vec<String> = head.iter().map(|_| "---".to_owned()).collect();
    let rows: String = rows.into_iter().map(|row| line(&row)).collect();
    line(&heads) + &line(&rule) + &rows
}

fn yes(value: bool) -> String {
    if value { "yes" } else { "" }.into()
}

fn refusals(all: &[Enum]) -> String {
    let meanings = &all.iter().find(|one| one.name == "RefusalCode").unwrap().variants;
    assert_eq!(meanings.len(), RefusalCode::ALL.len());
    table(
        &["number", "name", "meaning", "may pass later", "closes"],
        RefusalCode::ALL.iter().zip(meanings).map(|(code, meaning)| {
            assert_eq!(code.name(), meaning.text);
            vec![
                code.number().to_string(),
                format!("`{}`", code.name()),
                meaning.doc.clone(),
                yes(code.transient()),
                yes(code.closes_connection()),
            ]
        }),
    )
}

fn reasons(all: &[Enum]) -> String {
    let meanings = &all.iter().find(|one| one.name == "Reason").unwrap().variants;
    assert!(
        Reason::ALL
            .windows(2)
            .all(|pair| pair[0].number() < pair[1].number()),
        "in order of precedence"
    );
    let retry = |reason: &Reason| match reason.retry() {
        Retry::Final => "final",
        Retry::WhenOnline => "when online",
        Retry::Otherwise => "otherwise",
    };
    table(
        &["number", "name", "meaning", "retry", "French", "English"],
        Reason::ALL.iter().zip(meanings).map(|(reason, meaning)| {
            assert_eq!(reason.name(), meaning.text);
            vec![
                reason.number().to_string(),
                format!("`{}`", reason.name()),
                meaning.doc.clone(),
                retry(reason).into(),
                reason.text_fr().into(),
                reason.text_en().into(),
            ]
        }),
    )
}

/// Every enum but the two that have tables of their own.
fn numbers(all: &[Enum]) -> String {
    let listed = all
        .iter()
        .filter(|one| !["RefusalCode", "Reason"].contains(&one.name.as_str()));
    let tables = listed.map(|one| {
        let rows = one.variants.iter().map(|variant| {
            vec![
                variant.number.to_string(),
                format!("`{}`", variant.text),
                variant.doc.clone(),
            ]
        });
        format!(
            "### {}\n\n{}\n\n{}",
            one.rule(),
            one.doc,
            table(&["number", "name", "meaning"], rows)
        )
    });
    tables.collect::<Vec<_>>().join("\n").trim_end().to_owned() + "\n"
}

fn grammar_of_numbers(all: &[Enum]) -> String {
    let rules = all.iter().map(|one| {
        let numbers: Vec<String> = one
            .variants
            .iter()
            .map(|variant| variant.number.to_string())
            .collect();
        let mut lines = Vec::new();
        for chunk in numbers.chunks(18) {
            lines.push(chunk.join(" / "));
        }
        format!("{} = {}\n", one.rule(), lines.join(" /\n    "))
    });
    format!("```cddl\n{}```\n", rules.collect::<String>())
}

fn objects() -> String {
    let who = |object: ObjectType| match object {
        ObjectType::PaymentRequest => ("device", "`payment-request` without `terms`"),
        ObjectType::PaymentRequest2 => ("device", "`payment-request` with `terms`; from wire version 3 on"),
        ObjectType::Override => ("supervisor", "`override`"),
        ObjectType::VoidRequest => ("device", "`void-request`"),
        ObjectType::DeviceDescription => ("device", "`device-description`"),
        ObjectType::AttestationResult => ("verifier", "`attestation-result` without key 8"),
        ObjectType::AttestationResult2 => (
            "verifier",
            "`attestation-result` with key 8; from wire version 6 on",
        ),
        ObjectType::Enrolment => ("device", "`enrolment-request`"),
        ObjectType::Receipt => ("hub", "`receipt`; wire version 1 only"),
        ObjectType::Status => ("hub", "`payment-status`"),
        ObjectType::Registration => ("hub", "`registration`"),
        ObjectType::Allowance => ("hub", "`allowance`"),
        ObjectType::DeviceReceipt => ("device", "`device-receipt`"),
        ObjectType::AllowanceReturn => ("device", "`allowance-return`"),
        ObjectType::DeviceTlsKey => (
            "device, with the new TLS key",
            "`device-key-change`; from wire version 6 on",
        ),
        ObjectType::DeviceKeyChange2 => (
            "device, with the new Ed25519 key; then over that with the old",
            "`device-key-change-by-tls`; then `device-key-change-by-new`; from wire version 6 on",
        ),
        ObjectType::DeviceKeyChange => (
            "device, with the new Ed25519 key; then over that with the old",
            "`former-key-change`; then `former-key-change-by-new`; wire version 5 only, and in ledgers since",
        ),
        ObjectType::HubTlsKeys => ("hub", "`hub-tls-keys`; from wire version 5 on"),
        ObjectType::HubKeyChange => (
            "hub, with the new key; then over that with the old",
            "`hub-key-change`; then `key-change-by-new`",
        ),
        ObjectType::LedgerEntry => ("hub", "`entry`; ledger files of format 1 only"),
        ObjectType::LedgerCommit => ("hub", "`ledger-commit`"),
        ObjectType::SegmentFooter => ("hub", "the end of a ledger file"),
        ObjectType::ArchiveManifest => ("hub", "`archive-manifest`"),
        ObjectType::LedgerBase => ("hub", "`ledger-base`"),
        ObjectType::Root => ("head office", "`root`; several sign it, see [below](#the-root)"),
        ObjectType::Policy => ("head office", "the policy's TOML text as it stands"),
        ObjectType::DeviceList => ("head office", "`device-list`"),
    };
    table(
        &["`external_aad` (ASCII)", "signed by", "payload"],
        crate::objects::ALL_OBJECTS.iter().map(|object| {
            let (signer, payload) = who(*object);
            vec![format!("`{}`", object.aad()), signer.into(), payload.into()]
        }),
    )
}

fn bounds() -> String {
    let ascii = |bytes: &[u8]| format!("`{}`", String::from_utf8_lossy(bytes));
    let rows = [
        ("wire version", WIRE_VERSION.to_string()),
        ("ALPN for payments", ascii(ALPN)),
        ("ALPN for enrolment", ascii(ALPN_ENROL)),
        ("DNS-SD type of hubs", format!("`{MDNS_HUB_TYPE}`")),
        ("DNS-SD type of devices", format!("`{MDNS_DEVICE_TYPE}`")),
        (
            "COSE algorithm",
            format!(
                "{} (Ed25519, RFC 9864); by TLS keys -9 (ESP256)",
                cose::algorithm_number()
            ),
        ),
        (
            "longest frame, without its length",
            format!("{} bytes", frame::MAX_FRAME),
        ),
        ("deepest nesting of CBOR", format!("{} levels", cbor::MAX_DEPTH)),
        (
            "longest order id, token, name",
            format!("{} bytes", payment::MAX_TEXT),
        ),
        (
            "longest sealed card",
            format!("{} bytes", payment::MAX_SEALED_CARD),
        ),
        (
            "longest override, signed",
            format!("{} bytes", payment::MAX_OVERRIDE),
        ),
        (
            "longest root, without signatures",
            format!("{} bytes", root::MAX_ROOT),
        ),
        (
            "longest path of a receipt",
            format!("{} digests", merkle::MAX_PATH),
        ),
        (
            "most payments under an allowance",
            MAX_ALLOWANCE_COUNT.to_string(),
        ),
        ("largest amount", format!("{MAX_AMOUNT_MINOR} minor units")),
        (
            "life of an enrolment code",
            format!("{} seconds", enrolment::CODE_LIFETIME_SECONDS),
        ),
        (
            "longest enrolment code",
            format!("{} characters", enrolment::MAX_CODE_TEXT),
        ),
    ];
    table(
        &["what", "value"],
        rows.map(|(what, value)| vec![what.into(), value]),
    )
}

/// Hex in lines of 32 bytes.
fn lines(bytes: &[u8]) -> String {
    let lines: Vec<String> = bytes.chunks(32).map(hex).collect();
    lines.join("\n")
}

fn example() -> String {
    let payload = cbor::encode(&payment_full());
    let key = device_key().verifying_key();
    let kid = KeyId::of_key(key.as_bytes());
    let Tree::Tag(_, sign1) = Tree::parse(&signed_payment()) else {
        panic!()
    };
    let Tree::Array(parts) = *sign1 else { panic!() };
    let [Tree::Bytes(protected), _, _, Tree::Bytes(signature)] = &parts[..] else {
        panic!()
    };
    let to_be_signed = Tree::Array(vec![
        text("Signature1"),
        bytes(protected),
        bytes(ObjectType::PaymentRequest.aad().as_bytes()),
        bytes(&payload),
    ]);
    let held = committed_receipt();
    let commit = cose::Unverified::payload_of(&held.commit).unwrap();
    let block =
        |title: &str, language: &str, body: &str| format!("{title}\n\n```{language}\n{body}\n```\n\n");
    let mut out = String::new();
    out += &block(
        "The device's Ed25519 seed is 32 bytes of `01`; its public key and the `kid`, the first 16 bytes of \
         SHA-256 over it:",
        "text",
        &format!("{}\n{kid}", hex(key.as_bytes())),
    );
    out += &block(
        "The payment request in CBOR diagnostic notation:",
        "cbor-diag",
        &diagnostic(&payload),
    );
    out += &block(
        &format!("Encoded, {} bytes, the payload:", payload.len()),
        "text",
        &lines(&payload),
    );
    out += &block(
        "The protected header, `{1: -19, 4: kid}`:",
        "text",
        &hex(protected),
    );
    out += &block(
        "What is signed, the Sig_structure:",
        "text",
        &lines(&to_be_signed.encode()),
    );
    out += &block("The signature:", "text", &lines(signature));
    out += &block(
        &format!("The signed object, {} bytes:", signed_payment().len()),
        "text",
        &lines(&signed_payment()),
    );
    let wire = frame::to_wire(&crate::frames::pay());
    out += &block(
        &format!(
            "The frame as it goes out on the stream, {} bytes: its length, then frame 2 with the signed object and \
             the sealed card:",
            wire.len()
        ),
        "text",
        &lines(&wire),
    );
    out += &block(
        "The receipt that comes back, the fourth of five that were committed together:",
        "cbor-diag",
        &diagnostic(&held.receipt),
    );
    out += &block(
        "Key 4 of it, the digest of the signed object above:",
        "text",
        &Digest::of(&signed_payment()).to_string(),
    );
    let leaf = merkle::leaf(&held.receipt).to_string();
    let path: Vec<String> = held.path.iter().map(Digest::to_string).collect();
    out += &block(
        "Its leaf, SHA-256 over a zero byte and the encoded receipt; then the path: its neighbour on the left, \
         the pair on the left of both, and the fifth leaf on the right:",
        "text",
        &format!("{leaf}\n\n{}", path.join("\n")),
    );
    out += &block(
        "What the hub signed; key 5 holds how many receipts there are and the root that leaf and path lead to:",
        "cbor-diag",
        &diagnostic(commit),
    );
    out.trim_end().to_owned() + "\n"
}

/// The text between the markers of every generated part.
fn generated() -> Vec<(&'static str, String)> {
    let all = enums();
    vec![
        ("bounds", bounds()),
        ("objects", objects()),
        ("refusals", refusals(&all)),
        ("reasons", reasons(&all)),
        ("numbers", numbers(&all)),
        ("grammar-of-numbers", grammar_of_numbers(&all)),
        ("example", example()),
    ]
}

#[test]
fn the_tables_and_the_example_of_the_document_are_what_the_code_says() {
    let path = repository().join("docs/protocol.md");
    let mut made = document();
    for (name, content) in generated() {
        let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
        let from = made.find(&begin).unwrap_or_else(|| panic!("no marker {begin}")) + begin.len();
        let to = made.find(&end).unwrap_or_else(|| panic!("no marker {end}"));
        made.replace_range(from..to, &format!("\n{content}\n"));
    }
    hold_text(&path, &made);
}

fn grammar() -> Cddl {
    let document = document();
    let blocks = document.split("```cddl\n").skip(1);
    let blocks = blocks.map(|block| block.split("```").next().unwrap_or_default());
    Cddl::parse(&blocks.collect::<Vec<_>>().join("\n"))
}

/// The rule of the document for a type of `objects.json`.
fn rule_of(kind: &str) -> &'static str {
    match kind {
        "PaymentRequest" => "payment-request",
        "VoidRequest" => "void-request",
        "EnrolmentRequest" => "enrolment-request",
        "Override" => "override",
        "DeviceDescription" => "device-description",
        "AttestationResult" => "attestation-result",
        "Registration" => "registration",
        "Receipt" => "receipt",
        "LedgerCommit" => "ledger-commit",
        "ArchiveManifest" => "archive-manifest",
        "LedgerBase" => "ledger-base",
        "PaymentStatus" => "payment-status",
        "Allowance" => "allowance",
        "DeviceReceipt" => "device-receipt",
        "AllowanceReturn" => "allowance-return",
        "HubKeyChange" => "hub-key-change",
        "HubTlsKeys" => "hub-tls-keys",
        "DeviceKeyChange" => "device-key-change",
        "FormerDeviceKeyChange" => "former-key-change",
        "DeviceList" => "device-list",
        _ => panic!("no rule for {kind}"),
    }
}

#[test]
fn the_grammar_of_the_document_fits_every_vector_and_says_no_more() {
    let cddl = grammar();
    let parse = |value: &serde_json::Value| Tree::parse(&unhex(value.as_str().unwrap()));
    let all = |name: &str| committed::<Vec<serde_json::Value>>(name);
    for vector in all("objects.json") {
        let rule = rule_of(vector["type"].as_str().unwrap());
        let checked = cddl.check(rule, &parse(&vector["payload"]));
        assert_eq!(checked, Ok(()), "{}", vector["name"]);
    }
    for vector in all("frames.json") {
        let wire = unhex(vector["wire"].as_str().unwrap());
        let rule = match vector["number"].as_u64().unwrap() {
            0..=99 => "request",
            100..=199 => "answer",
            _ => "push",
        };
        assert_eq!(
            cddl.check(rule, &Tree::parse(&wire[4..])),
            Ok(()),
            "{}",
            vector["name"]
        );
    }
    for vector in all("ledger.json") {
        let checked = cddl.check("entry", &parse(&vector["payload"]));
        assert_eq!(checked, Ok(()), "{}", vector["event"]);
        let checked = cddl.check("signed-entry", &parse(&vector["signed"]));
        assert_eq!(checked, Ok(()), "{}", vector["event"]);
    }
    let sealed = committed::<serde_json::Value>("sealed.json");
    for vector in sealed["entries"].as_array().unwrap() {
        let checked = cddl.check("stored-entry", &parse(&vector["payload"]));
        assert_eq!(checked, Ok(()), "{}", vector["event"]);
        if !vector["place"].is_null() {
            let checked = cddl.check("sealed-place", &parse(&vector["place"]));
            assert_eq!(checked, Ok(()), "{}", vector["event"]);
        }
    }
    for vector in all("roots.json")
        .iter()
        .filter(|vector| vector["fault"].is_null())
    {
        assert_eq!(
            cddl.check("root", &parse(&vector["payload"])),
            Ok(()),
            "{}",
            vector["name"]
        );
        assert_eq!(
            cddl.check("signed-root", &parse(&vector["signed"])),
            Ok(()),
            "{}",
            vector["name"]
        );
    }
    let code: serde_json::Value = committed("enrolment-code.json");
    for code in [&code["cbor"], &code["later_cbor"]] {
        assert_eq!(cddl.check("enrolment-code", &parse(code)), Ok(()));
    }
    let certificate: serde_json::Value = committed("certificate.json");
    let says = parse(&certificate["cbor"]);
    assert_eq!(cddl.check("certificate-keys", &says), Ok(()));
    assert_eq!(
        cddl.not_seen(),
        Vec::<String>::new(),
        "rules and optional fields without a vector"
    );
}

/// What the decoder and [`PaymentRequest::check`] refuse for a value's own
/// sake, the grammar refuses too, but for what it cannot say: characters,
/// card numbers, digests.
#[test]
fn the_grammar_of_the_document_refuses_wrong_types_and_sizes() {
    let cddl = grammar();
    let good = Tree::parse(&cbor::encode(&payment_full()));
    assert_eq!(cddl.check("payment-request", &good), Ok(()));
    let without = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11].map(|key| good.clone().without(key));
    let with = [
        (&[3][..], Tree::Int(0)),
        (&[3], Tree::Int(-1)),
        (&[3], Tree::Int(1_000_000_000_000)),
        (&[4], text("EURO")),
        (&[5], text("")),
        (&[5], text(&"x".repeat(65))),
        (&[6, 2], Tree::Int(9)),
        (&[6, 5], text("49700")),
        (&[6, 6], text("12345")),
        (&[9], Tree::Int(0)),
        (&[10], bytes(&[0; 31])),
    ]
    .map(|(path, value)| good.clone().with(path, value));
    for bad in without.iter().chain(&with) {
        assert!(cddl.check("payment-request", bad).is_err(), "{bad}");
        let decoded = cbor::decode::<PaymentRequest>(&bad.encode());
        assert!(
            decoded
                .map_err(Refusal::from)
                .and_then(|request| request.check())
                .is_err(),
            "{bad}"
        );
    }
    let longer = good.and(Tree::Int(12), Tree::Int(0));
    assert!(cddl.check("payment-request", &longer).is_err());
}

#[test]
fn links_in_the_documents_lead_to_files() {
    let docs = repository().join("docs");
    let mut pages = vec![docs.join("protocol.md")];
    pages.extend(
        std::fs::read_dir(docs.join("adr"))
            .unwrap()
            .map(|entry| entry.unwrap().path()),
    );
    assert!(pages.len() > 5);
    for page in pages {
        let content = std::fs::read_to_string(&page).unwrap();
        for link in content
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let target = link.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") {
                let path = page.parent().unwrap().join(target);
                assert!(path.exists(), "{} links to {link}", page.display());
            }
        }
    }
}
