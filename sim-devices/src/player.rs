//! Playing sales at the tills.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use hub_protocol::{Decision, Reason};
use indicatif::ProgressBar;
use jiff::civil::DateTime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::sale::Sale;
use crate::till::{Outcome, Till};

/// How fast a list of sales is played.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// As fast as the tills can.
    AtOnce,
    /// By the shop's clock, so many times faster; a till is busy with a
    /// customer for the time that serving takes.
    Faster(u32),
}

/// What came of a list of sales.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How the sales ended.
    pub decided: BTreeMap<(Decision, Reason), u64>,
    /// Sales that ended otherwise.
    pub undecided: u64,
}

impl Tally {
    /// Whether any sale ended for this reason.
    pub fn holds(&self, wanted: impl Fn(Reason) -> bool) -> bool {
        self.decided.keys().any(|(_, reason)| wanted(*reason))
    }

    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Decided(decision, reason) => *self.decided.entry((decision, reason)).or_default() += 1,
            Outcome::Refused(_) | Outcome::NoAnswer => self.undecided += 1,
        }
    }
}

/// A list of sales being played.
#[derive(Debug)]
pub struct Playing {
    started: watch::Receiver<usize>,
    tills: JoinSet<Result<Tally>>,
}

struct Line {
    waiting: Mutex<VecDeque<Sale>>,
    started: watch::Sender<usize>,
    bar: ProgressBar,
    pace: Pace,
    opened: Instant,
    from: Option<DateTime>,
}

impl Playing {
    /// Lets the tills begin. Each takes the next customer in line when it is
    /// free, so as many payments are under way as there are tills.
    pub fn start(tills: &[Arc<Till>], sales: Vec<Sale>, pace: Pace, bar: &ProgressBar) -> Self {
        let (sender, started) = watch::channel(0);
        let line = Arc::new(Line {
            from: sales.first().map(|sale| sale.at),
            waiting: Mutex::new(sales.into()),
            started: sender,
            bar: bar.clone(),
            pace,
            opened: Instant::now(),
        });
        let mut running = JoinSet::new();
        let with_slot: Vec<&Arc<Till>> = tills.iter().filter(|till| till.has_slot()).collect();
        for (place, till) in tills.iter().enumerate() {
            // Who cannot insert a card sends the customer to a till that can.
            let neighbour = with_slot
                .get(place % with_slot.len().max(1))
                .map(|till| Arc::clone(till));
            running.spawn(work(Arc::clone(till), neighbour, Arc::clone(&line)));
        }
        Self {
            started,
            tills: running,
        }
    }

    /// Waits until this many customers have been begun with, or all.
    pub fn begun(&self, count: usize) -> impl Future<Output = ()> + use<> {
        let mut started = self.started.clone();
        async move {
            // An error means that the tills have finished.
            let _ = started.wait_for(|begun| *begun >= count).await;
        }
    }

    /// Waits until the last customer has been served.
    pub async fn finish(mut self) -> Result<Tally> {
        let mut sum = Tally::default();
        while let Some(till) = self.tills.join_next().await {
            let tally = till.context("a till came to grief")??;
            for (key, count) in tally.decided {
                *sum.decided.entry(key).or_default() += count;
            }
            sum.undecided += tally.undecided;
        }
        Ok(sum)
    }
}

impl Line {
    fn next(&self) -> Option<Sale> {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }

    /// When this customer comes to the till.
    fn due(&self, sale: &Sale, speed: u32) -> Option<Instant> {
        let seconds = sale.at.duration_since(self.from?).as_millis().max(0);
        let scaled = u64::try_from(seconds).ok()? / u64::from(speed.max(1));
        Some(self.opened + Duration::from_millis(scaled))
    }
}

async fn work(till: Arc<Till>, neighbour: Option<Arc<Till>>, line: Arc<Line>) -> Result<Tally> {
    let mut tally = Tally::default();
    while let Some(sale) = line.next() {
        if let Pace::Faster(speed) = line.pace {
            if let Some(due) = line.due(&sale, speed) {
                sleep_until(due).await;
            }
            sleep(sale.service / speed.max(1)).await;
        }
        line.started.send_modify(|begun| *begun += 1);
        tally.add(till.serve(&sale, neighbour.as_deref()).await?);
        line.bar.inc(1);
    }
    Ok(tally)
}
