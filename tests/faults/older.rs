//! Power cuts while a store that an earlier version wrote is taken over: the
//! fixtures of hubd, as they are and paid into.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hub_protocol::{Digest, PaymentId};
use hubd::config::HubKeys;
use hubd::ledger::STORE_FORMAT;
use serde_json::Value;
use sim_devices::check::{self, Evidence};
use sim_devices::gateway::{Gateway, GatewayOptions};
use sim_devices::rng::Rng;
use sim_devices::scene;
use sim_devices::shop::{Shop, ShopOptions};
use sim_devices::told::{Booked, Standing as Stands, Told, Waiting};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::customers::Customers;
use crate::disk::Image;
use crate::frozen::freeze;
use crate::store::{SET_ASIDE, verified};
use crate::tally::{Tally, Way};

mod making;

/// How long a queue may take to drain.
const DRAIN: Duration = Duration::from_secs(90);

/// What the hub says before it migrates, when it has, and when it is open.
const MIGRATES: &str = "it is verified and then migrated";
const MIGRATED: &str = "the store is migrated";
const READY: &str = " ready";

/// A receipt of which only the place in the ledger is kept.
struct Place {
    payment_id: PaymentId,
    sequence: usize,
    digest: Digest,
}

/// A store of an earlier format, as it is before each try.
pub(crate) struct Older {
    way: Way,
    format: u16,
    options: ShopOptions,
    keys: HubKeys,
    customers: Customers,
    /// What the devices of its time hold.
    receipts: Vec<Place>,
    /// All payments of its time.
    payments: HashSet<PaymentId>,
    /// Those of them that wait to be sent.
    waiting: Vec<PaymentId>,
    /// What `hubctl status` says once it is taken over.
    standing: Value,
    /// How long that takes when nothing is cut.
    takes: Duration,
    dir: TempDir,
}

impl Older {
    /// One store on one disk: put there as it was, opened, the power cut at a
    /// random moment, sometimes again; then opened for good, everything asked
    /// for, sent, and the gateway's book compared. Gives how many cuts there
    /// were.
    pub(crate) async fn suffer(
        &mut self,
        image: &mut Image,
        rng: &mut Rng,
        tally: &mut Tally,
    ) -> Result<usize> {
        let path = self.dir.path().to_owned();
        let (hub, there) = (path.join("hub"), image.path().join("hub"));
        let _ = fs::remove_dir_all(&hub);
        let _ = fs::remove_file(&hub);
        let _ = fs::remove_dir_all(&there);
        copy(&path.join("right"), &there)?;
        symlink(&there, &hub)?;
        run(Command::new("sync").arg("-f").arg(&there))?;
        let place = image.name();
        let mut shop = Shop::reopen(self.options.clone())?;
        let said = log_len(&shop.log_file());
        let mut cuts = 0;
        loop {
            self.cut(&mut shop, image, rng, tally).await?;
            cuts += 1;
            self.find_receipts(place, tally).await?;
            if rng.chance(700) {
                break;
            }
        }
        // Taken over: it stands as it would have without a cut.
        shop.start().await?;
        let now = standing(&shop).await?;
        ensure!(now == self.standing, "{now} instead of {}", self.standing);
        self.customers.ask_again().await?;
        shop.stop().await?;
        let aside = log_since(&shop.log_file(), said)?.matches(SET_ASIDE).count();
        tally.row(place, self.way).index_aside += aside as u64;
        ensure!(!hub.join("index.new").exists(), "half an index is left");
        self.find_receipts(place, tally).await?;
        self.send_all(place, tally).await?;
        Ok(cuts)
    }

    /// Starts the hub and cuts the power at some moment of its opening.
    async fn cut(&self, shop: &mut Shop, image: &mut Image, rng: &mut Rng, tally: &mut Tally) -> Result<()> {
        let log_flushed = rng.chance(200);
        let (log, said) = (shop.log_file(), log_len(&shop.log_file()));
        let moment = Duration::from_micros(rng.below(1_000 + self.takes.as_micros() as u64));
        // Now and then before the work, in the opening.
        let at_once = rng.chance(100);
        let format = self.format;
        let hit = async {
            if !at_once {
                begun(&log, said, format).await;
            }
            sleep(moment).await;
        };
        // Struck before it has answered anybody, or as soon as it has.
        tokio::select! {
            started = shop.start() => started?,
            () = hit => {}
        }
        freeze(shop.pid().context("the hub is not running")?)?;
        let row = tally.row(image.name(), self.way);
        row.tries += 1;
        if let Some(step) = self.step(&log_since(&shop.log_file(), said)?)? {
            row.inside += 1;
            *row.steps.entry(step).or_default() += 1;
        }
        image.cut(log_flushed)?;
        shop.kill().await?;
        image.restore()
    }

    /// At which step the work is, by what the hub has said and the files that
    /// there are; none if it has not begun or is done.
    fn step(&self, said: &str) -> Result<Option<&'static str>> {
        let hub = self.dir.path().join("hub");
        if said.contains(READY) {
            return Ok(None);
        }
        let stamp = fs::read_to_string(hub.join("format")).unwrap_or_default();
        let stamped = stamp.contains(&format!("format = {STORE_FORMAT}\n"));
        if self.format < 3 {
            if stamped || !said.contains(MIGRATES) {
                return Ok(None);
            }
            let (index, fresh) = (hub.join("index").exists(), hub.join("index.new").exists());
            return Ok(Some(match (index, fresh) {
                (true, false) if hub.join("index.before-migration").exists() => "both renamed, not stamped",
                (true, false) => "the journal is verified",
                (true, true) => "the new index is built",
                (false, _) => "between the two renames",
            }));
        }
        // The index of an earlier program has another format.
        Ok(said.contains(SET_ASIDE).then_some("the index is built anew"))
    }

    /// Looks up every receipt in the ledger as it is on the disk.
    async fn find_receipts(&self, place: &'static str, tally: &mut Tally) -> Result<()> {
        let ledger = self.dir.path().join("hub").join("ledger");
        let digests = verified(ledger, self.keys.signing.verifying_key()).await?;
        let row = tally.row(place, self.way);
        let held = self.customers.book().held();
        let slips = held.iter().filter_map(|held| {
            let slip = held.told.slip()?;
            Some((slip.sequence as usize, slip.entry_digest, held.told.payment_id))
        });
        let old = self
            .receipts
            .iter()
            .map(|old| (old.sequence, old.digest, old.payment_id));
        let mut missing = Vec::new();
        for (sequence, digest, payment) in slips.chain(old) {
            row.earlier += 1;
            if sequence.checked_sub(1).and_then(|n| digests.get(n)) != Some(&digest) {
                row.lost += 1;
                missing.push(format!(
                    "{place}, {}: payment {payment} is not in the ledger",
                    self.way.name()
                ));
            }
        }
        tally.faults.extend(missing);
        Ok(())
    }

    /// The line comes back, everything is sent, and the gateway's book is held
    /// against what customers were told.
    async fn send_all(&mut self, place: &'static str, tally: &mut Tally) -> Result<()> {
        let folder = self.dir.path().join("gateway");
        let _ = fs::remove_file(folder.join("book.jsonl"));
        let gateway = Gateway::start(GatewayOptions {
            control: None,
            ..GatewayOptions::new(&folder)
        })
        .await?;
        let mut options = self.options.clone();
        options.gateway.url = gateway.url();
        let mut shop = Shop::reopen(options)?;
        shop.start().await?;
        shop.wait_wan("online").await?;
        let left = shop.drain(DRAIN, |_| ()).await?;
        ensure!(left == 0, "{left} payments are still to be sent");
        let waiting = shop.queue().await?;
        shop.stop().await?;
        let receipts: Vec<Vec<u8>> = {
            let held = self.customers.book().held();
            held.iter().filter_map(|held| held.receipt.clone()).collect()
        };
        if let Some(fault) = shop.verify_ledger(&receipts).await?.fault {
            let fault = fault.lines().next().unwrap_or_default();
            tally.faults.push(format!("{place}: {fault}"));
        }
        let mut complain = |text: String| tally.faults.push(format!("{place}, {}: {text}", self.way.name()));
        self.customers
            .book()
            .changed()
            .into_iter()
            .for_each(&mut complain);
        let payments = gateway.payments();
        let book = payments.iter().map(scene::booked).collect::<Result<Vec<_>>>()?;
        // Of its time: sent once, or waiting for a person.
        let (of_then, of_now): (Vec<_>, Vec<_>) = book
            .into_iter()
            .partition(|booked| self.payments.contains(&booked.payment_id));
        let (mut lost, mut twice) = (0, 0);
        for fault in self.then(&of_then, &waiting) {
            match fault {
                Wrong::Lost(id) => {
                    lost += 1;
                    complain(format!("payment {id} of its time is not in the gateway's book"));
                }
                Wrong::Charged(id) => {
                    twice += 1;
                    complain(format!("payment {id} of its time is charged, and must not be"));
                }
            }
        }
        let told: Vec<Told> = {
            let held = self.customers.book().held();
            held.iter().map(|held| held.told.clone()).collect()
        };
        let verdict = check::reconcile(&Evidence {
            told: &told,
            book: &of_now,
            waiting: &waiting,
            limits: &self.options.limits,
            outages: &[],
        });
        ensure!(verdict.unsent() == 0, "{} are left unsent", verdict.unsent());
        for fault in verdict.faults() {
            complain(format!("payment {}: {}", fault.payment_id, fault.what));
        }
        let row = tally.row(place, self.way);
        row.charges +=
            verdict.gateway_charges + of_then.iter().map(|b| u64::from(b.net_charges())).sum::<u64>();
        row.lost += lost + verdict.lost.len() as u64;
        row.twice += twice + verdict.charged_twice.len() as u64 + verdict.unasked.len() as u64;
        Ok(())
    }

    /// What is wrong with the payments of its time.
    fn then(&self, book: &[Booked], waiting: &[Waiting]) -> Vec<Wrong> {
        let booked: HashMap<PaymentId, &Booked> = book.iter().map(|b| (b.payment_id, b)).collect();
        let mut wrong = Vec::new();
        for id in &self.waiting {
            let parked = waiting.iter().any(|item| item.payment_id == *id && item.parked);
            match booked.get(id).map(|b| (b.standing, b.net_charges())) {
                Some((Stands::Approved, 1) | (Stands::Declined, 0)) if !parked => {}
                None if parked => {}
                None => wrong.push(Wrong::Lost(*id)),
                Some(_) => wrong.push(Wrong::Charged(*id)),
            }
        }
        // The others had ended.
        let ended = book.iter().filter(|b| !self.waiting.contains(&b.payment_id));
        wrong.extend(
            ended
                .filter(|b| b.charges > 0)
                .map(|b| Wrong::Charged(b.payment_id)),
        );
        wrong
    }

    /// Keeps the folder and says where it is.
    pub(crate) fn keep(self) -> PathBuf {
        self.dir.keep()
    }
}

/// What may be wrong with a payment.
enum Wrong {
    /// It never came to the gateway.
    Lost(PaymentId),
    /// It was charged, and must not be, or more than once.
    Charged(PaymentId),
}

/// How a hub stands, as far as no cut may change it.
async fn standing(shop: &Shop) -> Result<Value> {
    let status = shop.status().await?;
    Ok(serde_json::json!({
        "queued": status["queued"],
        "parked": status["parked"],
        "reversals_queued": status["reversals_queued"],
        "exposure_minor": status["exposure_minor"],
        "devices_enrolled": status["devices_enrolled"],
        "policy": status["policy"]["version"],
    }))
}

/// What the hub says when the work begins that a cut is to hit.
fn mark(format: u16) -> &'static str {
    match format {
        ..3 => MIGRATES,
        _ => SET_ASIDE,
    }
}

/// Waits until the work has begun.
async fn begun(log: &Path, from: usize, format: u16) {
    while !log_since(log, from).is_ok_and(|said| said.contains(mark(format))) {
        sleep(Duration::from_millis(1)).await;
    }
}

/// How long the work takes in a hub that is just started.
async fn work(log: PathBuf, from: usize, format: u16) -> Result<Duration> {
    let end = match format {
        ..3 => MIGRATED,
        _ => READY,
    };
    let all = async {
        begun(&log, from, format).await;
        let began = Instant::now();
        while !log_since(&log, from).is_ok_and(|said| said.contains(end)) {
            sleep(Duration::from_millis(1)).await;
        }
        began.elapsed()
    };
    timeout(DRAIN, all).await.context("the hub does not open")
}

fn log_len(log: &Path) -> usize {
    fs::metadata(log).map_or(0, |log| log.len() as usize)
}

fn log_since(log: &Path, from: usize) -> Result<String> {
    let log = fs::read(log)?;
    Ok(String::from_utf8_lossy(log.get(from..).unwrap_or_default()).into_owned())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp")
        .args(["-a", "--sparse=always"])
        .arg(from)
        .arg(to))
}

fn run(command: &mut Command) -> Result<()> {
    match command.output() {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => bail!("{command:?}: {}", String::from_utf8_lossy(&done.stderr)),
        Err(error) => bail!("{command:?}: {error}"),
    }
}
