//! `roots.json`: a root, the next one, and what is none.

use ed25519_dalek::SigningKey;
use hub_protocol::cose::{ObjectType, Several};
use hub_protocol::root::{Delegated, Delegation, Root, RootError, RootKey, SignedRoot};
use hub_protocol::*;
use serde::{Deserialize, Serialize};

use crate::files::{committed, hex, hold, unhex};
use crate::fixtures::*;
use crate::tree::{Tree, diagnostic, int, text};

#[derive(Serialize, Deserialize)]
struct RootVector {
    name: String,
    /// The signed root before it, trusted; without it this one is the first.
    before: Option<String>,
    signed: String,
    diagnostic: String,
    payload: String,
    digest: String,
    /// Why it is not accepted; without it it is.
    fault: Option<String>,
}

/// The seeds of the root keys are 32 bytes of 0x21, 0x22 and so on.
fn root_key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[0x20 + number; 32])
}

fn holder(number: u8) -> RootKey {
    RootKey {
        name: format!("holder {number}"),
        key: root_key(number).verifying_key().to_bytes(),
    }
}

/// Two of three; the policy key signs for all stores, the stranger's for one.
pub(crate) fn first_root() -> Root {
    let delegation = Delegation {
        name: "policy desk".into(),
        key: policy_key().verifying_key().to_bytes(),
        stores: vec!["*".into()],
        signs: vec![Delegated::Policies],
        not_before_ms: 1_774_000_000_000,
        expires_ms: 1_805_000_000_000,
        least_version: None,
    };
    Root {
        tenant: "example".into(),
        version: 1,
        expires_ms: 1_806_000_000_000,
        threshold: 2,
        keys: [1, 2, 3].map(holder).to_vec(),
        delegations: vec![
            delegation.clone(),
            Delegation {
                name: "region".into(),
                key: stranger_key().verifying_key().to_bytes(),
                stores: vec!["0042".into(), "0043".into()],
                signs: vec![Delegated::Policies, Delegated::DeviceLists],
                least_version: Some(7),
                ..delegation
            },
        ],
    }
}

/// Holder 3 gives way to holder 4, and the region's key goes.
fn second_root() -> Root {
    let first = first_root();
    Root {
        version: 2,
        keys: [1, 2, 4].map(holder).to_vec(),
        delegations: first.delegations[..1].to_vec(),
        ..first
    }
}

pub(crate) fn signed_root(root: Root, by: &[u8]) -> Vec<u8> {
    let mut signed = SignedRoot::unsigned(root).unwrap();
    for number in by {
        signed.sign(&root_key(*number)).unwrap();
    }
    signed.to_bytes()
}

/// Signed by the same keys, whatever the content is.
fn forced(payload: Vec<u8>, object: ObjectType) -> Vec<u8> {
    let mut several = Several::unsigned(payload);
    assert!(several.sign(&root_key(1), object) && several.sign(&root_key(2), object));
    several.to_bytes()
}

fn judged(before: Option<&[u8]>, signed: &[u8]) -> Result<(), RootError> {
    let read = SignedRoot::parse(signed)?;
    match before {
        None => read.verify_first().map(|_| ()),
        Some(before) => read.verify_next(SignedRoot::parse(before)?.root()).map(|_| ()),
    }
}

fn vector(name: &str, before: Option<&[u8]>, signed: Vec<u8>) -> RootVector {
    let payload = Several::parse(&signed).map_or_else(|_| Vec::new(), |object| object.payload().to_vec());
    RootVector {
        name: name.into(),
        before: before.map(hex),
        fault: judged(before, &signed).err().map(|error| error.to_string()),
        signed: hex(&signed),
        diagnostic: if payload.is_empty() {
            String::new()
        } else {
            diagnostic(&payload)
        },
        digest: Digest::of(&payload).to_string(),
        payload: hex(&payload),
    }
}

fn vectors() -> Vec<RootVector> {
    let good = signed_root(first_root(), &[1, 2]);
    let tree = || Tree::parse(&cbor::encode(&first_root()));
    let changed = |change: fn(&mut Root)| {
        let mut root = first_root();
        change(&mut root);
        forced(cbor::encode(&root), ObjectType::Root)
    };
    let mut all = vec![
        vector("the first root", None, good.clone()),
        vector(
            "the first root with all signatures",
            None,
            signed_root(first_root(), &[1, 2, 3]),
        ),
        vector("a root that delegates nothing", None, {
            let root = Root {
                delegations: Vec::new(),
                ..first_root()
            };
            signed_root(root, &[1, 3])
        }),
        vector("the next root", Some(&good), signed_root(second_root(), &[1, 2])),
        vector(
            "the next root, with the signature of the key that goes",
            Some(&good),
            signed_root(second_root(), &[1, 3, 4]),
        ),
        vector("nobody has signed", None, signed_root(first_root(), &[])),
        vector("one of two has signed", None, signed_root(first_root(), &[1])),
        vector(
            "one of two, and a stranger, have signed",
            None,
            signed_root(first_root(), &[1, 9]),
        ),
        vector(
            "a version is skipped",
            Some(&good),
            signed_root(
                Root {
                    version: 3,
                    ..second_root()
                },
                &[1, 2],
            ),
        ),
        vector("the same version again", Some(&good), good.clone()),
        vector(
            "not by the threshold of the root before",
            Some(&good),
            signed_root(second_root(), &[1, 4]),
        ),
        vector(
            "not by its own threshold",
            Some(&good),
            signed_root(second_root(), &[1, 3]),
        ),
        vector(
            "of another tenant",
            Some(&good),
            signed_root(
                Root {
                    tenant: "other".into(),
                    ..second_root()
                },
                &[1, 2],
            ),
        ),
        vector(
            "signed as a policy",
            None,
            forced(cbor::encode(&first_root()), ObjectType::Policy),
        ),
    ];
    let mixed = {
        let other = signed_root(
            Root {
                threshold: 1,
                ..first_root()
            },
            &[],
        );
        let signatures = good.windows(2).rposition(|pair| pair == [0x82, 0x83]).unwrap();
        [&other[..other.len() - 1], &good[signatures..]].concat()
    };
    all.push(vector("signatures of another content", None, mixed));
    let twice = {
        let one = signed_root(first_root(), &[1]);
        let at = one.windows(2).rposition(|pair| pair == [0x81, 0x83]).unwrap();
        [&one[..at], &[0x82], &one[at + 1..], &one[at + 1..]].concat()
    };
    all.push(vector("one signature twice", None, twice));
    let backwards = {
        let at = good.windows(2).rposition(|pair| pair == [0x82, 0x83]).unwrap() + 1;
        let half = (good.len() - at) / 2;
        [&good[..at], &good[at + half..], &good[at..at + half]].concat()
    };
    all.push(vector("signatures out of their order", None, backwards));
    let single = cose::sign(&root_key(1), ObjectType::Root, &cbor::encode(&first_root()));
    all.push(vector(
        "a single signature in the form of other objects",
        None,
        single,
    ));
    for (name, change) in [
        (
            "a threshold of none",
            (|root| root.threshold = 0) as fn(&mut Root),
        ),
        ("a threshold above the number of keys", |root| root.threshold = 4),
        ("version 0", |root| root.version = 0),
        ("no root keys", |root| root.keys.clear()),
        ("a root key twice", |root| root.keys[2] = holder(1)),
        ("a root key that is delegated too", |root| {
            root.delegations[0].key = holder(3).key
        }),
        ("a delegated key of small order", |root| {
            root.delegations[0].key = core::array::from_fn(|place| u8::from(place == 0));
        }),
        ("a name that turns the line", |root| {
            root.keys[0].name = "a\nb".into()
        }),
        ("a delegation for no store", |root| {
            root.delegations[0].stores.clear()
        }),
        ("stores out of their order", |root| {
            root.delegations[1].stores.reverse()
        }),
        ("a delegation of nothing", |root| {
            root.delegations[0].signs.clear()
        }),
        ("a delegation that ends before it begins", |root| {
            root.delegations[0].expires_ms = 1
        }),
        ("a least version of 0", |root| {
            root.delegations[0].least_version = Some(0)
        }),
    ] {
        all.push(vector(name, None, changed(change)));
    }
    let other = |tree: Tree| forced(tree.encode(), ObjectType::Root);
    all.push(vector(
        "a key that is not known",
        None,
        other(tree().and(int(7), int(0))),
    ));
    all.push(vector("a field that is missing", None, other(tree().without(6))));
    all.push(vector(
        "a version that is text",
        None,
        other(tree().with(&[2], text("1"))),
    ));
    all.push(vector(
        "a version beyond 32 bits",
        None,
        other(tree().with(&[2], int(1 << 32))),
    ));
    all
}

#[test]
fn the_committed_roots_are_what_the_code_makes() {
    hold("roots.json", &vectors());
}

#[test]
fn every_committed_root_is_judged_as_it_says() {
    let all: Vec<RootVector> = committed("roots.json");
    assert_eq!(all.iter().filter(|vector| vector.fault.is_none()).count(), 5);
    assert!(all.len() > 30);
    for vector in all {
        let before = vector.before.as_deref().map(unhex);
        let fault = judged(before.as_deref(), &unhex(&vector.signed)).err();
        assert_eq!(
            fault.map(|error| error.to_string()),
            vector.fault,
            "{}",
            vector.name
        );
    }
}

#[test]
fn every_cut_of_a_committed_root_is_refused_and_every_longer_one() {
    for vector in committed::<Vec<RootVector>>("roots.json") {
        let signed = unhex(&vector.signed);
        for length in 0..signed.len() {
            assert!(
                SignedRoot::parse(&signed[..length]).is_err(),
                "{} at {length}",
                vector.name
            );
        }
        assert!(
            SignedRoot::parse(&[&signed[..], &[0]].concat()).is_err(),
            "{}",
            vector.name
        );
    }
}
