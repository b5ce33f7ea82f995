//! A card number in every string of every message that a device can send, as
//! the protocol's vectors have them: a field that is added to the protocol is
//! in a vector, and so in this test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};
use ed25519_dalek::SigningKey;
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::{Answer, DeviceClass, EnrolmentCode, RefusalCode, cbor};
use hub_sdk::{CardData, ClientOptions, DeviceClient, DeviceIdentity};
use serde_json::Value;
use sim_devices::gateway::{Canned, Faults};
use sim_devices::scene::Scene;

use crate::raw::{NUMBER, files, holder, sale, scene, spelled, talkative};
use crate::tree::Tree;

const FRAMES: &str = include_str!("../../protocol/vectors/frames.json");
const KEYS: &str = include_str!("../../protocol/vectors/keys.json");

/// What devices sign, and others beside them.
const OBJECTS: [ObjectType; 8] = [
    ObjectType::PaymentRequest,
    ObjectType::PaymentRequest2,
    ObjectType::Override,
    ObjectType::DeviceDescription,
    ObjectType::AttestationResult,
    ObjectType::VoidRequest,
    ObjectType::DeviceReceipt,
    ObjectType::AllowanceReturn,
];

/// A message to be built again, as the vectors' device would have.
struct Message<'a> {
    /// The device that plays it here, and the vectors' own identity.
    identity: &'a DeviceIdentity,
    theirs: &'a [u8],
    /// The keys of the vectors.
    keys: &'a [SigningKey],
    /// Which string is replaced, counted in the order in which they lie, and
    /// by what.
    at: usize,
    by: &'a [u8],
    /// How many were passed, and what was replaced.
    passed: usize,
    replaced: Option<String>,
}

impl Message<'_> {
    fn change(&mut self, tree: &Tree, path: &str) -> Tree {
        match tree {
            Tree::Text(text) => match self.is_it(path, "text") {
                true => Tree::Text(self.by.to_vec()),
                false => Tree::Text(text.clone()),
            },
            Tree::Bytes(bytes) if bytes == self.theirs => Tree::Bytes(self.identity.device_id().0.to_vec()),
            Tree::Bytes(bytes) => {
                if let Some(signed) = self.signed(bytes, path) {
                    return Tree::Bytes(signed);
                }
                match self.is_it(path, "bytes") {
                    true => Tree::Bytes(self.as_long_as(bytes.len())),
                    false => Tree::Bytes(bytes.clone()),
                }
            }
            Tree::Parts(head, parts) => {
                let changed = parts.iter().enumerate();
                let changed = changed.map(|(place, part)| self.change(part, &format!("{path}.{place}")));
                Tree::Parts(head.clone(), changed.collect())
            }
        }
    }

    fn is_it(&mut self, path: &str, kind: &str) -> bool {
        let it = self.passed == self.at;
        self.passed += 1;
        if it {
            self.replaced = Some(format!("{path} {kind}"));
        }
        it
    }

    /// The replacement at the length that the field has, if it has room.
    fn as_long_as(&self, length: usize) -> Vec<u8> {
        let mut by = self.by.to_vec();
        if by.len() < length {
            by.resize(length, 0);
        }
        by
    }

    /// A signed object, signed again over what has become of its payload; the
    /// device's by the device that plays it, others' by their own key.
    fn signed(&mut self, bytes: &[u8], path: &str) -> Option<Vec<u8>> {
        let payload = cose::Unverified::payload_of(bytes).ok()?;
        let by = self.keys.iter().enumerate();
        let (who, object) = by
            .flat_map(|(who, key)| OBJECTS.map(|object| (who, key, object)))
            .find(|(_, key, object)| cose::sign(key, *object, payload) == bytes)
            .map(|(who, _, object)| (who, object))?;
        let key = if who == 0 {
            self.identity.signing_key().clone()
        } else {
            self.keys[who].clone()
        };
        let payload = self.change(&Tree::parse(payload)?, path).encode();
        Some(cose::sign(&key, object, &payload))
    }
}

async fn code(scene: &Scene) -> Result<EnrolmentCode> {
    Ok(scene.shop.enrolment_code(DeviceClass::Terminal).await?.parse()?)
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
    text.as_bytes()
        .chunks(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

fn holds(bytes: &[u8]) -> bool {
    spelled()
        .iter()
        .any(|number| bytes.windows(number.len()).any(|window| window == number))
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_6_a_card_number_in_any_field_is_refused_and_lies_nowhere() -> Result<()> {
    let mut scene = scene().await?;
    talkative(&mut scene).await?;

    let identity = DeviceIdentity::generate()?;
    let class = DeviceClass::Terminal;
    for (name, model) in [(NUMBER, "Tap 3"), ("Caisse 2", "4929 1234 5678 9015")] {
        let refused = hub_sdk::enrol(&identity, &code(&scene).await?, class, name, model).await;
        let said = format!(
            "{:?}",
            refused.err().context("enrolled with a card number for a name")?
        );
        ensure!(
            said.contains("ClearCardNumber") && !holds(said.as_bytes()),
            "{said}"
        );
    }
    let enrolled = hub_sdk::enrol(&identity, &code(&scene).await?, class, "Caisse 2", "Tap 3").await?;
    let client = DeviceClient::new(identity.clone(), enrolled, ClientOptions::default())?;

    let keys: Value = serde_json::from_str(KEYS)?;
    let named = |list: &str, name: &str, field: &str| -> Result<Vec<u8>> {
        let all = keys[list].as_array().context("no keys")?;
        let one = all
            .iter()
            .find(|key| key["name"] == name)
            .context("no such key")?;
        Ok(hex(one[field].as_str().context("no such field")?))
    };
    let mut signing = Vec::new();
    for name in ["device", "supervisor", "verifier"] {
        let seed: [u8; 32] = named("signing", name, "seed")?.as_slice().try_into()?;
        signing.push(SigningKey::from_bytes(&seed));
    }
    let theirs = named("tls", "device", "identity")?;

    let frames: Vec<Value> = serde_json::from_str(FRAMES)?;
    let mut outcomes: BTreeMap<String, BTreeSet<u16>> = BTreeMap::new();
    let mut numbers = BTreeSet::new();
    for frame in frames
        .iter()
        .filter(|frame| frame["sent_by"] == "device" && frame["number"] != 5)
    {
        let name = frame["name"].as_str().context("no name")?;
        numbers.insert(frame["number"].as_u64().context("no number")?);
        let wire = hex(frame["wire"].as_str().context("no bytes")?);
        let tree = Tree::parse(&wire[4..]).context("no CBOR")?;
        ensure!(tree.encode() == wire[4..], "the tree is what the vector is");
        for by in spelled().iter().filter(|by| by.len() <= 20) {
            for at in 0.. {
                let mut message = Message {
                    identity: &identity,
                    theirs: &theirs,
                    keys: &signing,
                    at,
                    by,
                    passed: 0,
                    replaced: None,
                };
                let changed = message.change(&tree, "").encode();
                let Some(what) = message.replaced else { break };
                let length = u32::try_from(changed.len())?.to_be_bytes();
                let sent = [&length[..], &changed].concat();
                let answer = client
                    .send_raw(&sent)
                    .await
                    .with_context(|| format!("{name} {what}"))?;
                ensure!(
                    !holds(&cbor::encode(&answer)),
                    "{name} {what}: the number is echoed"
                );
                // A verifier's word that does not count is not kept.
                if matches!(answer, Answer::Described { attested: false }) {
                    continue;
                }
                let Answer::Refused { refusal } = answer else {
                    anyhow::bail!("{name} {what}: taken with a card number: {answer:?}");
                };
                outcomes
                    .entry(format!("{name}{what}"))
                    .or_default()
                    .insert(refusal.code.number());
            }
        }
    }
    ensure!(
        numbers == BTreeSet::from([1, 2, 3, 4, 6, 7, 8, 9, 10, 11]),
        "every frame was tried: {numbers:?}"
    );

    // Texts are searched, but for those that are too short for a number.
    let searched = RefusalCode::ClearCardNumber.number();
    let short = [
        RefusalCode::CurrencyMalformed.number(),
        RefusalCode::FieldMalformed.number(),
    ];
    let texts = outcomes.iter().filter(|(what, _)| what.ends_with("text"));
    let mut found = 0;
    for (what, codes) in texts {
        let in_clear = codes.contains(&searched);
        found += usize::from(in_clear);
        let only_short = codes
            .iter()
            .all(|code| short.contains(code) || *code == RefusalCode::Malformed.number());
        ensure!(in_clear || only_short, "{what}: {codes:?}");
    }
    ensure!(found >= 13, "{found} texts were searched: {outcomes:?}");
    let in_bytes = |what: &str| {
        let of = outcomes
            .iter()
            .filter(|(name, _)| name.ends_with("bytes") && name.starts_with(what));
        of.filter(|(_, codes)| codes.contains(&searched)).count()
    };
    // The payment's id, the salt and the blob; the id; the verifier's word.
    ensure!(in_bytes("request: pay.") >= 3, "{outcomes:?}");
    ensure!(in_bytes("request: status") >= 1, "{outcomes:?}");

    // What a gateway can say, in every field of its answers.
    scene.set_faults(Faults {
        canned: Some(Canned {
            status: 200,
            retry_after: None,
            body: format!(
                r#"{{"payment_id":"{{payment_id}}","status":"approved","response_code":"{NUMBER}","authorisation_code":"{NUMBER}","reference":"{NUMBER}","x":"{NUMBER}"}}"#
            ),
        }),
        ..Faults::default()
    })?;
    let till = scene.fleet.tills[0].clone();
    let paid = till
        .client()
        .pay(
            &till
                .client()
                .next_payment(sale("G1", CardData::dukpt(&[1; 10], &[2; 96]))),
        )
        .await?;
    ensure!(!holds(&paid.proof), "the receipt repeats the gateway");
    scene.set_faults(Faults {
        canned: Some(Canned {
            status: 400,
            retry_after: None,
            body: format!(r#"{{"title":"{NUMBER}","detail":"card 4929 1234 5678 9015","status":400}}"#),
        }),
        ..Faults::default()
    })?;
    let paid = till
        .client()
        .pay(
            &till
                .client()
                .next_payment(sale("G2", CardData::dukpt(&[1; 10], &[3; 96]))),
        )
        .await?;
    ensure!(!holds(&paid.proof), "the receipt repeats the gateway");

    // What an operator can say.
    for arguments in [
        &["devices", "block", NUMBER][..],
        &["restrictions", "lift", NUMBER],
        &["queue", "release", NUMBER],
        &["queue", "park", NUMBER],
        &["queue", "close", NUMBER, "--taken", "--note", NUMBER],
        &["enrol", "--class", NUMBER],
    ] {
        let _ = scene.shop.ctl(arguments).await;
    }

    // The device is quarantined, and the ledger says why and not what.
    let restrictions = scene.shop.ctl(&["restrictions"]).await?;
    ensure!(restrictions.to_string().contains("stopped"), "{restrictions}");
    scene.shop.stop().await?;
    let all = files(&scene.shop.hub_dir())?;
    let log = fs::read(scene.shop.log_file())?;
    ensure!(
        log.windows(5).any(|line| line == b"TRACE"),
        "the log says everything"
    );
    for number in spelled() {
        ensure!(
            holder(&all, &number).is_none(),
            "the number lies in {:?}",
            holder(&all, &number)
        );
        ensure!(
            !log.windows(number.len()).any(|part| part == number),
            "the log shows the number"
        );
    }
    Ok(())
}
