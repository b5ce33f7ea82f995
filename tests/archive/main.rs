//! Archives of a real store, in virtual time: nothing lost, nothing forgotten,
//! everything verified, wherever the power fails.
#![allow(missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result, bail};
use hub_core::Reply;
use hub_protocol::{Decision, EntrySeal, PaymentState, Receipt, RefusalCode};
use hub_tests::shop::{DAY_MS, OPENING_MS, Shop, install_root, load, make_store};
use hubd::config::Config;
use hubd::data_key::StoreKey;
use hubd::ledger::{
    ArchiveSettings, Archiver, Contents, Round, VerifyReport, check_archive, copy_archive, read_each, verify,
};
use tempfile::TempDir;

mod base;
mod cut_off;
mod damage;
mod finality;
mod programs;

/// More than two segments of 1 MiB hold.
const PAYMENTS: u64 = 4_000;
/// So many share a flush.
const TOGETHER: usize = 8;
/// One that was voided before it was sent.
const CANCELLED: u64 = 430;

const SETTINGS: ArchiveSettings = ArchiveSettings {
    retention_ms: 90 * DAY_MS,
    most_bytes: u64::MAX,
};

/// What devices hold of the payments in the store.
struct Made {
    dir: TempDir,
    receipts: Vec<Receipt>,
}

/// A store with a few days' payments, some of them offline, a hundred days
/// before one more. Made once; each test has a copy.
fn make(opening_ms: u64) -> Result<Made> {
    let dir = tempfile::tempdir()?;
    make_store(&dir.path().join("hub"), 1)?;
    let config = install_root(&dir.path().join("hub"))?;
    let (mut shop, _) = Shop::open(&config, opening_ms)?;
    shop.declines_every = 7;
    shop.line(true)?;
    let mut receipts = Vec::new();
    for first in (0..PAYMENTS).step_by(TOGETHER) {
        match first {
            400 | 1_600 => shop.line(false)?,
            480 | 1_720 => shop.line(true)?,
            _ => {}
        }
        shop.pass(120_000);
        let sent = (first..first + TOGETHER as u64).map(|number| shop.send(number, 100 + number));
        let tickets = sent.collect::<Result<Vec<_>>>()?;
        shop.settle()?;
        for ticket in tickets {
            receipts.push(receipt(shop.answer(ticket)?)?);
        }
        if first == 440 {
            // Cancelled before it is sent.
            shop.void(CANCELLED)?;
        }
    }
    shop.pass(100 * DAY_MS);
    receipts.push(receipt(shop.pay(PAYMENTS, 1_250)?)?);
    shop.close()?;
    Ok(Made { dir, receipts })
}

/// A copy of the store in `dir`, and the receipts.
fn store(dir: &Path) -> Result<(Config, &'static [Receipt])> {
    static MADE: OnceLock<Made> = OnceLock::new();
    static MAKING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let made = match MADE.get() {
        Some(made) => made,
        None => {
            let made = make(OPENING_MS)?;
            MADE.get_or_init(|| made)
        }
    };
    let copied = Command::new("cp")
        .arg("-r")
        .arg(made.dir.path().join("hub"))
        .arg(dir)
        .status()?;
    anyhow::ensure!(copied.success(), "cp");
    Ok((load(&dir.join("hub"))?, &made.receipts))
}

fn receipt(reply: Reply) -> Result<Receipt> {
    match reply {
        Reply::Receipt(receipt) => Ok(*receipt),
        other => bail!("a receipt expected, not {other:?}"),
    }
}

fn refusal(reply: Reply) -> Result<RefusalCode> {
    match reply {
        Reply::Refused(refusal) => Ok(refusal.code),
        other => bail!("a refusal expected, not {other:?}"),
    }
}

/// A few hours after it was closed: a clock that had jumped would be in doubt.
fn open(config: &Config) -> Result<(Shop, Archiver)> {
    Shop::open(config, OPENING_MS + 101 * DAY_MS)
}

fn archive(shop: &mut Shop, archiver: &mut Archiver) -> Result<Round> {
    Ok(shop.archive(archiver, SETTINGS, &mut |_| Ok(()))?)
}

fn verified(config: &Config) -> Result<VerifyReport> {
    let key = config.keys.signing.verifying_key();
    // What needs no secret, and what the entries say.
    let by_public_key = verify(&config.layout.ledger, &key, &mut |_| ())?;
    let seal = StoreKey::open(&config.layout, &[&config.keys.vault])?;
    let seal = EntrySeal::new(seal.key());
    let contents = Contents::Sealed(&seal);
    let report = read_each(&config.layout.ledger, &key, contents, &mut |_| (), &mut |_| ())?;
    assert_eq!(
        (&by_public_key.broken, by_public_key.head),
        (&report.broken, report.head)
    );
    assert_eq!(report.unread(), 0);
    Ok(report)
}

fn archives(config: &Config) -> Result<Vec<PathBuf>> {
    files(&config.layout.ledger.join("archive"), "gz")
}

fn files(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for item in fs::read_dir(dir)? {
        all.push(item?.path());
    }
    all.retain(|path| path.extension().is_some_and(|found| found == extension));
    all.sort();
    Ok(all)
}

/// Every receipt is given again for the same bytes, and is a conflict for
/// others.
fn assert_known(shop: &mut Shop, receipts: &[Receipt], every: usize) -> Result<()> {
    for (number, held) in receipts.iter().enumerate().step_by(every) {
        let number = number as u64;
        let amount = held.amount_minor;
        assert_eq!(receipt(shop.pay(number, amount)?)?, *held, "payment {number}");
        let other = refusal(shop.pay(number, amount + 1)?)?;
        assert_eq!(other, RefusalCode::PaymentIdConflict, "payment {number}");
    }
    Ok(())
}

/// Copies away what the ledger tells of.
fn export(shop: &mut Shop, archiver: &Archiver, to: &Path) -> Result<()> {
    use hubd::ledger::ArchiveHub as _;
    for archive in archiver.archives().list() {
        if archive.bytes().is_some() && archive.manifest.number <= shop.state().archives().written {
            let digest = archive.manifest.archive_digest;
            copy_archive(&archive.path, to, digest)?;
            let change = hub_core::ArchiveChange::Exported {
                number: archive.manifest.number,
                digest,
                operator: "anna".to_owned(),
            };
            shop.record(change)?;
        }
    }
    Ok(())
}

#[test]
fn rule_3_a_payment_is_known_for_life_after_it_was_archived() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (config, receipts) = store(dir.path())?;
    let before = verified(&config)?;
    let (mut shop, mut archiver) = open(&config)?;
    let round = archive(&mut shop, &mut archiver)?;
    assert!(round.written >= 2 && round.trouble.is_none(), "{round:?}");
    assert_eq!(archive(&mut shop, &mut archiver)?, Round::default(), "once");
    assert_known(&mut shop, receipts, 1)?;
    let status = shop.status(0)?;
    assert!(
        matches!(&status, Reply::Status { status, .. } if status.state == PaymentState::Settled),
        "{status:?}"
    );
    assert_eq!(refusal(shop.void(0)?)?, RefusalCode::PaymentArchived);
    assert!(
        matches!(shop.void(PAYMENTS)?, Reply::Status { .. }),
        "not archived"
    );
    shop.close()?;

    let after = verified(&config)?;
    assert_eq!(after.broken, None);
    assert_eq!(after.archives as u32, round.written);
    assert!(after.entries > before.entries && after.away.is_empty());
    let (mut shop, _) = open(&config)?;
    assert_known(&mut shop, receipts, 10)?;
    Ok(())
}

#[test]
fn a_parked_payment_keeps_its_segment() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let config = make_store(&dir.path().join("hub"), 1)?;
    let (mut shop, mut archiver) = Shop::open(&config, OPENING_MS)?;
    shop.refuse_replays(true);
    shop.line(false)?;
    shop.pay(0, 500)?;
    shop.line(true)?;
    for first in (1..1_400).step_by(TOGETHER) {
        for number in first..first + TOGETHER as u64 {
            shop.send(number, 100)?;
        }
        shop.settle()?;
    }
    shop.pass(100 * DAY_MS);
    shop.pay(PAYMENTS, 100)?;
    assert!(shop.journal().reader().first_plain() == 1 && verified(&config)?.segments > 1);
    let round = archive(&mut shop, &mut archiver)?;
    assert_eq!(round.written, 0);
    let trouble = round.trouble.context("it says why")?;
    assert!(trouble.starts_with("segment 1 waits for payment"), "{trouble}");
    assert_eq!(archive(&mut shop, &mut archiver)?.trouble, Some(trouble));
    // A person sees to it, and it is sent.
    shop.refuse_replays(false);
    shop.release(0)?;
    let round = archive(&mut shop, &mut archiver)?;
    assert!(round.written >= 1 && round.trouble.is_none(), "{round:?}");
    let status = shop.status(0)?;
    assert!(matches!(&status, Reply::Status { status, .. } if status.state == PaymentState::Settled));
    Ok(())
}

#[test]
fn rule_7_an_archive_verifies_alone_and_by_gunzip() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (config, receipts) = store(dir.path())?;
    let (mut shop, mut archiver) = open(&config)?;
    archive(&mut shop, &mut archiver)?;
    let away = dir.path().join("away");
    fs::create_dir(&away)?;
    let key = config.keys.signing.verifying_key();
    let list = archiver.archives().list();
    let seal = StoreKey::open(&config.layout, &[&config.keys.vault])?;
    let seal = EntrySeal::new(seal.key());
    let mut before = None;
    let mut approved = 0;
    for archive in &list {
        for (extension, digest) in [
            ("seg.gz", archive.manifest.archive_digest),
            ("manifest", archive.digest),
        ] {
            let file = archive.path.with_extension("").with_extension(extension);
            copy_archive(&file, &away, digest)?;
        }
        let copy = away.join(archive.path.file_name().context("a name")?);
        let earlier = before.as_ref().map(|(manifest, digest)| (manifest, *digest));
        let found = check_archive(&copy, &key, Contents::Unread, earlier)?;
        assert_eq!(found.manifest, archive.manifest);
        assert!(!found.kinds.contains_key("payment-decided"), "encrypted");
        let found = check_archive(&copy, &key, Contents::Sealed(&seal), earlier)?;
        approved += found.kinds["payment-decided"];
        // What anybody can do without hubd.
        let sum = Command::new("sh")
            .arg("-c")
            .arg(format!("gunzip -c {} | sha256sum", copy.display()))
            .output()?;
        let sum = String::from_utf8(sum.stdout)?;
        assert!(
            sum.starts_with(&archive.manifest.segment_digest.to_string()),
            "{sum}"
        );
        before = Some((found.manifest, found.digest));
    }
    // The running totals are those of the receipts.
    let last = list.last().context("an archive")?;
    let totals = last.manifest.running[0];
    let decided = receipts.iter().filter(|held| held.sequence <= last.manifest.last);
    let of = |decision: Decision| {
        let all = decided.clone().filter(|held| held.decision == decision);
        all.fold((0, 0), |(count, minor), held| {
            (count + 1, minor + held.amount_minor)
        })
    };
    assert_eq!(approved as usize, decided.clone().count());
    assert_eq!(
        of(Decision::ApprovedOnline),
        (totals.approved_online.count, totals.approved_online.minor)
    );
    assert_eq!(
        of(Decision::ApprovedOffline),
        (totals.approved_offline.count, totals.approved_offline.minor)
    );
    let ended = totals.settled.count + totals.declined_at_replay.count + totals.voided.count;
    assert_eq!(ended, totals.approved_offline.count);
    assert!(totals.declined_at_replay.count > 0);
    assert_eq!(totals.voided.count, 1);
    Ok(())
}

#[test]
fn what_was_not_copied_away_is_never_removed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (config, receipts) = store(dir.path())?;
    let away = dir.path().join("away");
    fs::create_dir(&away)?;
    let (mut shop, mut archiver) = open(&config)?;
    let narrow = ArchiveSettings {
        most_bytes: 0,
        ..SETTINGS
    };
    let round = shop.archive(&mut archiver, narrow, &mut |_| Ok(()))?;
    let count = archives(&config)?.len();
    assert_eq!((round.written as usize, round.removed), (count, 0));
    assert!(round.trouble.context("it says why")?.contains("archive export"));
    let refused = archiver
        .remove(&mut shop, 1, Some("anna"), &mut |_| Ok(()))
        .unwrap_err();
    assert!(refused.to_string().contains("was not copied away"), "{refused}");
    export(&mut shop, &archiver, &away)?;
    // In their order.
    let refused = archiver
        .remove(&mut shop, 2, Some("anna"), &mut |_| Ok(()))
        .unwrap_err();
    assert!(refused.to_string().contains("in their order"), "{refused}");
    archiver.remove(&mut shop, 1, Some("anna"), &mut |_| Ok(()))?;
    assert_eq!(archives(&config)?.len(), count - 1);
    let round = shop.archive(&mut archiver, narrow, &mut |_| Ok(()))?;
    assert_eq!((round.removed as usize, round.trouble), (count - 1, None));
    assert!(archives(&config)?.is_empty());
    assert_known(&mut shop, receipts, 11)?;
    assert_eq!(refusal(shop.void(0)?)?, RefusalCode::PaymentArchived);
    shop.close()?;
    let report = verified(&config)?;
    assert_eq!((report.broken.clone(), report.away.len()), (None, count));
    for (kind, times) in [
        ("segment-archived", count),
        ("archive-exported", count),
        ("archive-removed", count),
        ("operator-acted", 1),
    ] {
        assert_eq!(report.kinds.get(kind).copied(), Some(times as u64), "{kind}");
    }
    let (mut shop, _) = open(&config)?;
    assert_known(&mut shop, receipts, 11)
}

/// Card tokens, as the shop makes them, in clear and in hex.
fn holds_a_token(bytes: &[u8]) -> bool {
    bytes.windows(4).any(|part| part == b"tok_") || bytes.windows(8).any(|part| part == b"746f6b5f")
}

#[test]
fn a_thief_of_archives_tables_and_bases_reads_no_card_token() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (config, _) = store(dir.path())?;
    let (mut shop, mut archiver) = open(&config)?;
    archive(&mut shop, &mut archiver)?;
    shop.close()?;
    let layout = &config.layout;
    let folder = layout.ledger.join("archive");
    let mut looked_at = 0;
    for folder in [&layout.ledger, &folder, &layout.index, &layout.vault] {
        for item in fs::read_dir(folder)? {
            let path = item?.path();
            if !path.is_file() {
                continue;
            }
            let mut bytes = fs::read(&path)?;
            if path.extension().is_some_and(|found| found == "gz") {
                bytes = Command::new("gunzip").arg("-c").arg(&path).output()?.stdout;
                assert!(!bytes.is_empty());
            }
            assert!(!holds_a_token(&bytes), "{}", path.display());
            looked_at += 1;
        }
    }
    assert!(looked_at > 10, "{looked_at} files");
    // The control: whoever has the key finds them.
    let key = StoreKey::open(layout, &[&config.keys.vault])?;
    let seal = EntrySeal::new(key.key());
    let mut found = 0;
    read_each(
        &layout.ledger,
        &config.keys.signing.verifying_key(),
        Contents::Sealed(&seal),
        &mut |verified| {
            let bytes = verified
                .entry
                .map(hub_protocol::Entry::encode)
                .unwrap_or_default();
            found += u64::from(holds_a_token(&bytes));
        },
        &mut |_| (),
    )?;
    assert!(found >= PAYMENTS, "{found}");
    Ok(())
}
