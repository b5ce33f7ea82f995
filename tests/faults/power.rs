//! Power cuts, kill -9 and failing disks, many times over.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use sim_devices::binaries::Binaries;
use sim_devices::rng::Rng;
use tokio::task::JoinSet;

use crate::disk::{Failure, FileSystem, Image};
use crate::older::Older;
use crate::progress::Progress;
use crate::store::{Place, Store};
use crate::tally::{Tally, Way};

/// How often one shop suffers before its books are compared and another one
/// opens: the whole ledger is verified after each time.
const TRIES_A_STORE: usize = 40;

/// The older stores in the order of their turns: the format, and whether it
/// was paid into. Formats 1 and 2 are migrated; a store of a later one is
/// stamped, and its index built anew.
const OLDER: [(u16, bool); 12] = [
    (1, true),
    (6, true),
    (2, true),
    (3, true),
    (5, true),
    (1, false),
    (4, true),
    (6, false),
    (2, false),
    (3, false),
    (5, false),
    (4, false),
];

/// How often the same older store is put on one disk.
const STORES_A_TURN: usize = 3;

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

    /// So many cuts amid archiving on each of the file systems.
    pub(crate) async fn archiving(&self, systems: &[FileSystem], cuts: usize) -> Result<Tally> {
        let began = Instant::now();
        let progress = Progress::over("tries", (cuts * systems.len()) as u64);
        let mut running = JoinSet::new();
        for fs in systems {
            let rng = Rng::of(self.seed, &format!("archiving {}", fs.name()));
            let place = Place::Image(*fs);
            running.spawn(archiving_lane(
                place,
                cuts,
                rng,
                self.binaries.clone(),
                progress.clone(),
            ));
        }
        all_of(running, &progress, began).await
    }

    /// So many cuts while older stores are taken over, on each of the file
    /// systems in turn.
    pub(crate) async fn migration(&self, systems: &[FileSystem], cuts: usize) -> Result<Tally> {
        let began = Instant::now();
        let progress = Progress::over("tries", (cuts * systems.len()) as u64);
        let mut rng = Rng::of(self.seed, "migration");
        let mut tally = Tally::default();
        let mut left: BTreeMap<&str, usize> = systems.iter().map(|fs| (fs.name(), cuts)).collect();
        let mut turns = OLDER.iter().cycle();
        while left.values().any(|left| *left > 0) {
            let (format, enlarged) = *turns.next().context("no older stores")?;
            let mut older = Older::make(format, enlarged, &self.binaries, &mut rng).await?;
            for fs in systems {
                let left = left.entry(fs.name()).or_default();
                let dir = tempfile::Builder::new().prefix("hubd-disk-").tempdir()?;
                let mut image = Image::make(dir.path(), *fs)?;
                for _ in 0..STORES_A_TURN {
                    if *left == 0 {
                        break;
                    }
                    let cuts = match older.suffer(&mut image, &mut rng, &mut tally).await {
                        Ok(cuts) => cuts,
                        Err(error) => return Err(error.context(evidence(older.keep()))),
                    };
                    *left = left.saturating_sub(cuts);
                    (0..cuts).for_each(|_| progress.one());
                    if !tally.clean() {
                        tally.faults.push(evidence(older.keep()));
                        return Ok(tally);
                    }
                }
            }
        }
        progress.finish();
        tally.seconds = began.elapsed().as_secs_f64();
        Ok(tally)
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
        all_of(running, &progress, began).await
    }
}

/// What came of all lanes.
async fn all_of(mut running: JoinSet<Result<Tally>>, progress: &Progress, began: Instant) -> Result<Tally> {
    let mut tally = Tally::default();
    while let Some(lane) = running.join_next().await {
        tally.add(lane.context("a lane came to grief")??);
    }
    progress.finish();
    tally.seconds = began.elapsed().as_secs_f64();
    Ok(tally)
}

/// One shop after the other, each until all of its past is archived.
async fn archiving_lane(
    place: Place,
    cuts: usize,
    mut rng: Rng,
    binaries: Binaries,
    progress: Progress,
) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut left = cuts;
    while left > 0 {
        let mut store = Store::open_aged(place, &binaries, Rng::new(rng.next_u64())).await?;
        let suffered = async {
            let mut way = Way::Archiving { log_flushed: false };
            let mut more = true;
            while more && left > 0 {
                let log_flushed = rng.chance(200);
                way = Way::Archiving { log_flushed };
                more = store.suffer_archiving(log_flushed, &mut tally).await?;
                left -= 1;
                progress.one();
            }
            store.close_aged(way, &mut tally).await
        };
        match suffered.await {
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
