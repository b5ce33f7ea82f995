use super::*;

const FAR: u64 = 4_000_000_000_000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn root_key(seed: u8) -> RootKey {
    RootKey {
        name: format!("holder {seed}"),
        key: key(seed).verifying_key().to_bytes(),
    }
}

fn delegation(seed: u8, stores: &[&str]) -> Delegation {
    Delegation {
        name: format!("policies {seed}"),
        key: key(seed).verifying_key().to_bytes(),
        stores: stores.iter().map(|store| (*store).to_owned()).collect(),
        signs: vec![Delegated::Policies],
        not_before_ms: 1_000,
        expires_ms: FAR,
        least_version: None,
    }
}

/// Two of the three keys 1, 2 and 3; key 11 signs policies.
fn first() -> Root {
    Root {
        tenant: "acme".to_owned(),
        version: 1,
        expires_ms: FAR,
        threshold: 2,
        keys: vec![root_key(1), root_key(2), root_key(3)],
        delegations: vec![delegation(11, &["*"])],
    }
}

fn next(keys: &[u8]) -> Root {
    Root {
        version: 2,
        keys: keys.iter().map(|seed| root_key(*seed)).collect(),
        ..first()
    }
}

fn signed(root: Root, by: &[u8]) -> SignedRoot {
    let mut signed = SignedRoot::unsigned(root).unwrap();
    for seed in by {
        signed.sign(&key(*seed)).unwrap();
    }
    // As it comes out of a file.
    SignedRoot::parse(&signed.to_bytes()).unwrap()
}

#[test]
fn a_root_counts_from_its_threshold_on() {
    for by in [&[1, 2][..], &[1, 3], &[2, 3], &[3, 2, 1]] {
        assert!(signed(first(), by).verify_first().is_ok(), "{by:?}");
    }
    for (by, found) in [(&[][..], 0), (&[1], 1), (&[2, 9], 1), (&[9, 8, 7], 0)] {
        let needed = 2;
        let expected = RootError::OwnThreshold {
            version: 1,
            found,
            needed,
        };
        assert_eq!(signed(first(), by).verify_first(), Err(expected), "{by:?}");
    }
}

#[test]
fn one_key_that_signs_twice_counts_once() {
    let twice = signed(first(), &[1, 1, 1]);
    assert_eq!(twice.kids().count(), 1);
    assert!(matches!(
        twice.verify_first(),
        Err(RootError::OwnThreshold { found: 1, .. })
    ));
    // And a file into which the signature was copied once more is no root.
    let bytes = twice.to_bytes();
    let at = bytes.windows(2).position(|pair| pair == [0x81, 0x83]).unwrap();
    let mut copied = bytes.clone();
    copied[at] = 0x82;
    copied.extend_from_slice(&bytes[at + 1..]);
    assert_eq!(
        SignedRoot::parse(&copied),
        Err(RootError::Cose(CoseError::Malformed))
    );
}

#[test]
fn the_next_root_needs_the_thresholds_of_both() {
    let before = first();
    // One holder is replaced: 1 and 2 sign for both.
    assert!(signed(next(&[1, 2, 4]), &[1, 2]).verify_next(&before).is_ok());
    // All are replaced: two of each.
    assert!(
        signed(next(&[4, 5, 6]), &[1, 2, 4, 5])
            .verify_next(&before)
            .is_ok()
    );
    let by_new_alone = signed(next(&[4, 5, 6]), &[4, 5, 6]);
    assert!(by_new_alone.verify_first().is_ok());
    assert_eq!(
        by_new_alone.verify_next(&before),
        Err(RootError::ThresholdBefore {
            before: 1,
            found: 0,
            needed: 2
        })
    );
    let by_one_old = signed(next(&[1, 5, 6]), &[1, 5, 6]);
    assert!(matches!(
        by_one_old.verify_next(&before),
        Err(RootError::ThresholdBefore { found: 1, .. })
    ));
    let by_old_alone = signed(next(&[4, 5, 6]), &[1, 2, 3]);
    assert_eq!(
        by_old_alone.verify_next(&before),
        Err(RootError::OwnThreshold {
            version: 2,
            found: 0,
            needed: 2
        })
    );
}

#[test]
fn the_signature_of_a_removed_key_counts_no_more() {
    let second = signed(next(&[1, 2, 4]), &[1, 2]);
    let third = Root {
        version: 3,
        ..next(&[1, 2, 4])
    };
    let by_removed = signed(third.clone(), &[1, 3]);
    assert!(matches!(
        by_removed.verify_next(second.root()),
        Err(RootError::ThresholdBefore { found: 1, .. })
    ));
    assert!(signed(third, &[1, 4]).verify_next(second.root()).is_ok());
}

#[test]
fn roots_neither_skip_a_version_nor_go_back() {
    let before = next(&[1, 2, 3]);
    for version in [1, 2, 4, u32::MAX] {
        let other = signed(Root { version, ..first() }, &[1, 2, 3]);
        let expected = RootError::Version {
            expected: 3,
            found: version,
        };
        assert_eq!(other.verify_next(&before), Err(expected));
    }
    // No version comes after the last one, and none wraps around.
    let last = Root {
        version: u32::MAX,
        ..first()
    };
    assert!(signed(first(), &[1, 2]).verify_next(&last).is_err());
}

#[test]
fn a_root_of_another_tenant_does_not_follow() {
    let other = Root {
        tenant: "other".to_owned(),
        ..next(&[1, 2, 3])
    };
    assert!(matches!(
        signed(other, &[1, 2, 3]).verify_next(&first()),
        Err(RootError::Tenant { .. })
    ));
}

/// Signatures of one content put beside another: mix-and-match.
#[test]
fn signatures_of_another_content_do_not_count_and_are_told() {
    let good = signed(first(), &[1, 2]);
    let laxer = signed(
        Root {
            threshold: 1,
            ..first()
        },
        &[],
    );
    let (good, laxer) = (good.to_bytes(), laxer.to_bytes());
    // Its signatures are the end of it, behind the payload.
    let signatures = &good[good.len() - (laxer_tail(&good))..];
    let mixed = [&laxer[..laxer.len() - 1], signatures].concat();
    let mixed = SignedRoot::parse(&mixed).unwrap();
    assert_eq!(mixed.root().threshold, 1);
    assert_eq!(
        mixed.verify_first(),
        Err(RootError::Cose(CoseError::BadSignature))
    );
}

/// How long the array of two signatures is: each 3 + 21 + 1 + 66 bytes or so.
fn laxer_tail(signed: &[u8]) -> usize {
    let array = signed.windows(2).rposition(|pair| pair == [0x82, 0x83]).unwrap();
    signed.len() - array
}

#[test]
fn a_policy_signature_is_none_under_a_root() {
    let mut object = Several::unsigned(cbor::encode(&first()));
    assert!(object.sign(&key(1), ObjectType::Policy) && object.sign(&key(2), ObjectType::Policy));
    let read = SignedRoot::parse(&object.to_bytes()).unwrap();
    assert_eq!(read.verify_first(), Err(RootError::Cose(CoseError::BadSignature)));
}

#[test]
fn every_flipped_bit_of_a_signed_root_is_refused() {
    let bytes = signed(first(), &[1, 2]).to_bytes();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let read = SignedRoot::parse(&damaged);
        assert!(
            read.is_err() || read.is_ok_and(|root| root.verify_first().is_err()),
            "bit {bit}"
        );
    }
    for length in 0..bytes.len() {
        assert!(SignedRoot::parse(&bytes[..length]).is_err());
    }
}

#[test]
fn what_a_root_may_not_say_is_refused() {
    type Change = fn(&mut Root);
    let cases: [(&str, Change); 18] = [
        ("no tenant", |r| r.tenant.clear()),
        ("a tenant that is too long", |r| r.tenant = "t".repeat(65)),
        ("version 0", |r| r.version = 0),
        ("a threshold of none", |r| r.threshold = 0),
        ("a threshold above its keys", |r| r.threshold = 4),
        ("no keys", |r| r.keys.clear()),
        ("too many keys", |r| r.keys = (1..=17).map(root_key).collect()),
        ("a root key twice", |r| r.keys[2] = root_key(1)),
        ("a root key that is delegated too", |r| {
            r.delegations[0].key = root_key(1).key
        }),
        ("a delegated key twice", |r| {
            r.delegations.push(delegation(11, &["0042"]))
        }),
        ("a weak root key", |r| r.keys[0].key = [0; 32]),
        ("a weak delegated key", |r| r.delegations[0].key = [0; 32]),
        ("a name that moves the cursor", |r| {
            r.keys[0].name = "\u{1b}[2J".to_owned()
        }),
        ("no stores", |r| r.delegations[0].stores.clear()),
        ("all stores and one", |r| {
            r.delegations[0].stores = vec!["*".to_owned(), "0042".to_owned()]
        }),
        ("nothing to sign", |r| r.delegations[0].signs.clear()),
        ("an end before the beginning", |r| {
            r.delegations[0].expires_ms = 1_000
        }),
        ("a least version of 0", |r| {
            r.delegations[0].least_version = Some(0)
        }),
    ];
    assert_eq!(first().check(), Ok(()));
    for (what, change) in cases {
        let mut root = first();
        change(&mut root);
        assert!(root.check().is_err(), "{what}");
        let forged = Several::unsigned(cbor::encode(&root)).to_bytes();
        assert!(SignedRoot::parse(&forged).is_err(), "{what}");
    }
}

#[test]
fn a_key_signs_what_the_root_says_for_its_stores_and_in_its_time() {
    let id = |seed: u8| KeyId::of_key(&root_key(seed).key);
    let mut root = first();
    root.expires_ms = 9_000;
    root.delegations = vec![delegation(11, &["0042"]), delegation(12, &["*"])];
    root.delegations[1].signs = vec![Delegated::DeviceLists];
    root.delegations[0].expires_ms = 5_000;
    let authority = Authority::Root(Box::new(root));
    let may = |seed, what, store: &str, at_ms| authority.may_sign(id(seed), what, store, at_ms);
    assert!(may(11, Delegated::Policies, "0042", 1_000).is_ok());
    assert!(may(11, Delegated::Policies, "0042", 4_999).is_ok());
    assert!(may(12, Delegated::DeviceLists, "0043", 8_999).is_ok());
    let refused = [
        (may(11, Delegated::Policies, "0042", 999), "does not count yet"),
        (may(11, Delegated::Policies, "0042", 5_000), "has expired"),
        (may(12, Delegated::DeviceLists, "0043", 9_000), "has expired"),
        (
            may(11, Delegated::Policies, "0043", 2_000),
            "not for this store (0043)",
        ),
        (
            may(11, Delegated::DeviceLists, "0042", 2_000),
            "may not sign device-lists",
        ),
        (
            may(12, Delegated::Policies, "0042", 2_000),
            "may not sign policies",
        ),
        (
            may(1, Delegated::Policies, "0042", 2_000),
            "not delegated by root 1",
        ),
    ];
    for (answer, expected) in refused {
        let text = answer.unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
    let trusted = Authority::Keys(vec![key(11).verifying_key()]);
    assert_eq!(
        trusted.may_sign(id(11), Delegated::Policies, "0042", 0),
        Ok(Term::ALWAYS)
    );
    assert_eq!(
        trusted.may_sign(id(12), Delegated::Policies, "0042", 0),
        Err(NotAuthorised::NotTrusted(id(12)))
    );
}
