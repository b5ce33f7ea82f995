//! Power cuts while the segments of days long past move to archives, and
//! devices pay.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use hub_core::Reply;
use hub_protocol::{Digest, Receipt};
use hub_tests::shop::{self, DAY_MS};
use hubd::config::Config;
use hubd::ledger::{Contents, IdsFound, check_archive, list_archives};
use sim_devices::binaries::Binaries;
use sim_devices::rng::Rng;
use tokio::time::{sleep, timeout};

use super::{DRAIN, PATIENCE, Place, Store, configure};
use crate::tally::{Tally, Way};

/// Payments that the shop has had: about 1,400 make a segment of 1 MiB, which
/// makes an archive.
const PAYMENTS: u64 = 13_000;

/// So many of them share a flush.
const TOGETHER: u64 = 64;

/// How long ago that was, and how much is kept as it is.
const AGO_MS: u64 = 100 * DAY_MS;
const RETENTION_DAYS: u32 = 30;
/// The most that is possible: nothing is due.
const FOR_EVER_DAYS: u32 = 3660;

/// A cut falls so long after the first file of an archive at the latest.
const LATEST: Duration = Duration::from_millis(350);

/// One in so many of the earlier payments is asked for again in the end.
const ASKED_AGAIN: usize = 7;

/// What the hub says when a round is over.
const ROUND_DONE: &str = "archived written=";

/// What a shop has had before its devices of now were enrolled.
#[derive(Default)]
pub(super) struct Past {
    receipts: Vec<Receipt>,
    /// How many archives will be made of it.
    archives: usize,
}

impl Past {
    /// Lets payments pass through core, journal, index and vault in virtual
    /// time: some offline and replayed, all final, the last of them an hour
    /// ago.
    fn make(hub: &Path) -> Result<Self> {
        configure(hub, "retention_days", FOR_EVER_DAYS)?;
        configure(hub, "reserve_mib", 16)?;
        let config = shop::load(hub)?;
        let now_ms = now_ms()?;
        let (mut shop, _) = shop::Shop::open(&config, now_ms - AGO_MS - DAY_MS)?;
        shop.declines_every = 7;
        shop.line(true)?;
        let mut receipts = Vec::new();
        for first in (0..PAYMENTS).step_by(TOGETHER as usize) {
            match first / TOGETHER % 10 {
                6 => shop.line(false)?,
                7 => shop.line(true)?,
                _ => {}
            }
            shop.pass(60_000);
            let numbers = first..PAYMENTS.min(first + TOGETHER);
            let sent = numbers.map(|number| shop.send(number, 100 + number));
            let tickets = sent.collect::<Result<Vec<_>>>()?;
            shop.settle()?;
            for ticket in tickets {
                receipts.push(receipt(shop.answer(ticket)?)?);
            }
        }
        shop.line(true)?;
        let until_ms = now_ms - 60 * 60 * 1000;
        shop.pass(until_ms.saturating_sub(shop.now_ms()));
        // The segment with this one is too young.
        receipts.push(receipt(shop.pay(PAYMENTS, 100 + PAYMENTS)?)?);
        shop.close()?;
        let archives = segments(&config.layout.ledger)?.saturating_sub(1);
        ensure!(archives >= 5, "only {archives} segments to be archived");
        Ok(Self { receipts, archives })
    }
}

impl Store {
    /// Opens a shop with a past, most of which is due to be archived, and
    /// enrolled devices; its hub stopped.
    pub(crate) async fn open_aged(place: Place, binaries: &Binaries, rng: Rng) -> Result<Self> {
        let store = Self::open_with(place, binaries, rng, Past::make).await?;
        configure(&store.shop.hub_dir(), "retention_days", RETENTION_DAYS)?;
        Ok(store)
    }

    /// Starts the hub, which archives at once, beside devices that pay; cuts
    /// the power at a random moment from the first file of an archive on; and
    /// holds everything against what is then on the disk. `false` if nothing
    /// is left to be archived.
    pub(crate) async fn suffer_archiving(&mut self, log_flushed: bool, tally: &mut Tally) -> Result<bool> {
        let way = Way::Archiving { log_flushed };
        tally.row(self.place, way).tries += 1;
        let customers = self.customers.take().context("the devices are gone")?;
        let folder = self.ledger().join("archive");
        let (before, said) = (listing(&folder), self.log_len());
        let moment = self.rng.below(LATEST.as_micros() as u64);
        let paying = customers.start(way);
        {
            let begun = async {
                while listing(&folder) == before {
                    sleep(Duration::from_millis(1)).await;
                }
                sleep(Duration::from_micros(moment)).await;
            };
            tokio::pin!(begun);
            let started = tokio::select! {
                started = self.shop.start() => Some(started),
                () = &mut begun => None,
            };
            // Otherwise it is struck before it has answered anybody.
            if let Some(started) = started {
                started?;
                if timeout(PATIENCE, begun).await.is_err() {
                    bail!(
                        "the hub archives nothing; its log says:\n{}",
                        self.shop.log_tail()
                    );
                }
            }
        }
        self.freeze()?;
        if !self.log_since(said)?.contains(ROUND_DONE) {
            let row = tally.row(self.place, way);
            row.inside += 1;
            *row.steps.entry(step(&self.ledger())).or_default() += 1;
        }
        self.image.as_ref().context("no power to cut")?.cut(log_flushed)?;
        self.shop.kill().await?;
        self.note_index(Some(way), tally)?;
        self.customers = Some(paying.stop().await?);
        self.image.as_mut().context("no power")?.restore()?;
        let digests = self.verified().await?;
        self.find_receipts(&digests, tally)?;
        self.find_past(&digests, way, tally);
        Ok(self.check_archives()? < self.past.archives)
    }

    /// Archiving comes to its end, the books are compared, and all of the past
    /// is still known: by the index, and without it by the archives alone.
    pub(crate) async fn close_aged(&mut self, way: Way, tally: &mut Tally) -> Result<()> {
        self.shop.start().await?;
        let round = async {
            loop {
                let status = self.shop.status().await?;
                let archives = status["archives"].as_u64().unwrap_or(0);
                if archives == self.past.archives as u64 && status["archive_trouble"].is_null() {
                    return anyhow::Ok(());
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        match timeout(DRAIN, round).await {
            Ok(done) => done?,
            Err(_) => bail!(
                "not all is archived in the end; the log says:\n{}",
                self.shop.log_tail()
            ),
        }
        self.shop.stop().await?;
        self.close(tally).await?;
        let digests = self.verified().await?;
        self.find_past(&digests, way, tally);
        let archives = self.check_archives()?;
        ensure!(archives == self.past.archives, "{archives} archives");
        for without_index in [false, true] {
            let unknown = tokio::task::block_in_place(|| self.ask_again(without_index))?;
            for text in unknown {
                tally.row(self.place, way).lost += 1;
                tally.faults.push(format!("{}: {text}", self.place));
            }
        }
        Ok(())
    }

    /// Asks for payments of the past again, with the same bytes: which have
    /// another answer than the first.
    fn ask_again(&self, without_index: bool) -> Result<Vec<String>> {
        let config = Config::load(&self.shop.hub_dir()).map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
        if without_index {
            fs::remove_dir_all(&config.layout.index)?;
        }
        let (mut shop, _) = shop::Shop::open(&config, now_ms()?)?;
        let mut other = Vec::new();
        for (number, held) in self.past.receipts.iter().enumerate().step_by(ASKED_AGAIN) {
            let again = receipt(shop.pay(number as u64, held.amount_minor)?);
            if !again.as_ref().is_ok_and(|again| again == held) {
                other.push(format!(
                    "payment {} of the past, asked for again: {again:?}",
                    held.payment_id
                ));
            }
        }
        shop.close()?;
        Ok(other)
    }

    /// Looks up every receipt of the past.
    fn find_past(&self, digests: &[Digest], way: Way, tally: &mut Tally) {
        tally.row(self.place, way).earlier += self.past.receipts.len() as u64;
        for held in &self.past.receipts {
            let place = usize::try_from(held.sequence).ok().and_then(|n| n.checked_sub(1));
            if place.and_then(|n| digests.get(n)) != Some(&held.entry_digest) {
                tally.row(self.place, way).lost += 1;
                tally.faults.push(format!(
                    "{}, {}: payment {} of the past is not in the ledger",
                    self.place,
                    way.name(),
                    held.payment_id
                ));
            }
        }
    }

    /// Verifies each archive by its manifest, with the hub's public key. Gives
    /// how many there are.
    fn check_archives(&self) -> Result<usize> {
        let key = self.keys.signing.verifying_key();
        let listed = list_archives(&self.ledger(), &key)?;
        let mut before = None;
        for archive in &listed {
            let found = check_archive(&archive.packed, &key, Contents::Unread, before)?;
            ensure!(found.ids == IdsFound::Good, "archive without its payments");
            before = Some((&archive.manifest, archive.digest));
        }
        Ok(listed.len())
    }

    fn ledger(&self) -> PathBuf {
        self.shop.hub_dir().join("ledger")
    }
}

/// At which step archiving is, by the files that there are.
fn step(ledger: &Path) -> &'static str {
    let names: Vec<String> = listing(&ledger.join("archive")).into_keys().collect();
    if names.iter().any(|name| name.ends_with(".base.tmp")) {
        return "the base";
    }
    let archives = names.iter().filter(|name| !name.ends_with(".base"));
    let newest = archives
        .filter_map(|name| name.get(..8)?.parse::<u32>().ok())
        .max();
    let Some(number) = newest else {
        return "what a cut has left is removed";
    };
    let is = |extension: &str| names.contains(&format!("{number:08}.{extension}"));
    if is("manifest") {
        match ledger.join(format!("{number:08}.seg")).exists() {
            true => "manifest there, segment too",
            false => "segment removed, next or base",
        }
    } else if is("seg.gz") {
        "compressed, no manifest"
    } else if is("seg.gz.tmp") {
        "compressing"
    } else {
        "the table of payments"
    }
}

/// The files of a folder and how long they are; none if there is no folder.
fn listing(dir: &Path) -> BTreeMap<String, u64> {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    files
        .map(|file| {
            let len = file.metadata().map_or(0, |found| found.len());
            (file.file_name().to_string_lossy().into_owned(), len)
        })
        .collect()
}

fn segments(ledger: &Path) -> Result<usize> {
    let mut count = 0;
    for item in fs::read_dir(ledger)? {
        count += usize::from(item?.path().extension().is_some_and(|found| found == "seg"));
    }
    Ok(count)
}

fn receipt(reply: Reply) -> Result<Receipt> {
    match reply {
        Reply::Receipt(receipt) => Ok(*receipt),
        other => bail!("a receipt expected, not {other:?}"),
    }
}

fn now_ms() -> Result<u64> {
    Ok(u64::try_from(UNIX_EPOCH.elapsed()?.as_millis())?)
}
