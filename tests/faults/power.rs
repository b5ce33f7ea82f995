//! Power cuts, kill -9 and failing disks, many times over.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use sim_devices::binaries::Binaries;
use sim_devices::rng::Rng;
use tokio::task::JoinSet;

use crate::disk::{Failure, FileSystem};
use crate::progress::Progress;
use crate::store::{Place, Store};
use crate::tally::{Tally, Way};

/// How often one shop suffers before its books are compared and another one
/// opens: the whole ledger is verified after each time.
const TRIES_A_STORE: usize = 40;

/// How often a disk may lie before one of its lies has to show.
const MOST_LIES: usize = 10;

/// A run.
pub(crate) struct Run {
    /// Where `hubd` and `hubctl` are.
    pub(crate) binaries: Binaries,
    /// For everything that is left to chance here.
    pub(crate) seed: u64,
}

impl Run {
    /// So many cuts and kills on each of the file systems.
    pub(crate) async fn power(&self, systems: &[FileSystem], cuts: usize, kills: usize) -> Result<Tally> {
        let lanes = systems.iter().map(|fs| {
            let mut rng = Rng::of(self.seed, fs.name());
            let mut ways: Vec<Way> = (0..cuts)
                .map(|_| Way::PowerCut {
                    log_flushed: rng.chance(200),
                })
                .collect();
            ways.resize(cuts + kills, Way::Kill);
            shuffle(&mut ways, &mut rng);
            (Place::Image(*fs), ways, rng)
        });
        self.all(lanes.collect()).await
    }

    /// So many failures of each kind.
    pub(crate) async fn disk(&self, each: usize) -> Result<Tally> {
        let mut rng = Rng::of(self.seed, "disk");
        let kinds = [
            Failure::FlushKeepingData,
            Failure::FlushDroppingData,
            Failure::Write,
            Failure::Full,
        ];
        let mut ways: Vec<Way> = kinds
            .into_iter()
            .flat_map(|kind| vec![Way::Disk(kind); each])
            .collect();
        shuffle(&mut ways, &mut rng);
        self.all(vec![(Place::Failing(None), ways, rng)]).await
    }

    /// A disk that says that it has flushed and has not: what no hub can
    /// stand, and a run has to find. Again until it has: the kernel may have
    /// written everything by itself before the power went.
    pub(crate) async fn lying(&self, fs: FileSystem) -> Result<Tally> {
        let mut tally = Tally::default();
        let place = Place::Failing(Some(fs));
        let mut rng = Rng::of(self.seed, "lie");
        for _ in 0..MOST_LIES {
            let mut store = Store::open(place, &self.binaries, Rng::new(rng.next_u64())).await?;
            store.suffer(Way::Disk(Failure::Lie), &mut tally).await?;
            if !tally.clean() {
                break;
            }
        }
        Ok(tally)
    }

    /// Each place's tries one after the other, the places side by side.
    async fn all(&self, lanes: Vec<(Place, Vec<Way>, Rng)>) -> Result<Tally> {
        let began = Instant::now();
        let progress = Progress::over("tries", lanes.iter().map(|(_, ways, _)| ways.len() as u64).sum());
        let mut running = JoinSet::new();
        for (place, ways, rng) in lanes {
            running.spawn(lane(place, ways, rng, self.binaries.clone(), progress.clone()));
        }
        let mut tally = Tally::default();
        while let Some(lane) = running.join_next().await {
            tally.add(lane.context("a lane came to grief")??);
        }
        progress.finish();
        tally.seconds = began.elapsed().as_secs_f64();
        Ok(tally)
    }
}

async fn lane(
    place: Place,
    ways: Vec<Way>,
    mut rng: Rng,
    binaries: Binaries,
    progress: Progress,
) -> Result<Tally> {
    let mut tally = Tally::default();
    for ways in ways.chunks(TRIES_A_STORE) {
        let mut store = Store::open(place, &binaries, Rng::new(rng.next_u64())).await?;
        match one_store(&mut store, ways, &mut tally, &progress).await {
            Ok(()) if tally.clean() => {}
            Ok(()) => {
                tally.faults.push(evidence(store.keep()));
                return Ok(tally);
            }
            Err(error) => return Err(error.context(evidence(store.keep()))),
        }
    }
    Ok(tally)
}

async fn one_store(store: &mut Store, ways: &[Way], tally: &mut Tally, progress: &Progress) -> Result<()> {
    for way in ways {
        store.suffer(*way, tally).await?;
        progress.one();
    }
    store.close(tally).await
}

fn evidence(dir: PathBuf) -> String {
    format!("the evidence is kept in {}", dir.display())
}

fn shuffle(ways: &mut [Way], rng: &mut Rng) {
    for place in (1..ways.len()).rev() {
        let other = usize::try_from(rng.below(place as u64 + 1)).unwrap_or(0);
        ways.swap(place, other);
    }
}
