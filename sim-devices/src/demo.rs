//! The demo: a shop keeps selling through an outage.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use hub_protocol::Reason;
use jiff::civil::{Date, date};

use crate::gateway::Faults;
use crate::generate;
use crate::limits::Limits;
use crate::player::{Pace, Playing, Tally};
use crate::progress::Progress;
use crate::report::Report;
use crate::sale::Sale;
use crate::scene::{Scene, SceneOptions};
use crate::wan::WanMode;

/// The demo's Saturday.
const DAY: Date = date(2026, 3, 14);

/// The line is cut in the hour before the rush.
const CUT_AT: i8 = 11;

/// It comes back when the rush is over.
const MENDED_AT: i8 = 15;

/// The most customers more that come in until the limits bite.
const MOST_EXTRA: usize = 1200;

/// How a demo is played.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// At least 8 for the demo as it is told.
    pub devices: usize,
    /// Card sales of the day.
    pub tickets: usize,
    /// Of the day and the faults.
    pub seed: u64,
    /// How much faster than the clock.
    pub speed: u32,
    /// Where everything is kept; `None` for a folder that goes away.
    pub keep: Option<PathBuf>,
    /// Where `hubd` and `hubctl` are; `None` to find or build them.
    pub bin_dir: Option<PathBuf>,
}

/// Plays the demo.
pub async fn run(options: &DemoOptions, progress: &Progress) -> Result<(Report, Scene)> {
    let mut scene = Scene::open(
        &SceneOptions {
            keep: options.keep.clone(),
            reopen: false,
            bin_dir: options.bin_dir.clone(),
            limits: Limits::demo(),
            devices: options.devices,
            discovery: true,
            seed: options.seed,
            deadline: Duration::from_secs(1),
            probe_interval: Duration::from_millis(250),
            max_in_flight: 8,
            requests_per_second: None,
        },
        &|step| progress.step(opening(step)),
    )
    .await?;
    progress.step(&format!(
        "{} appareils enrôlés, {} ont trouvé le boîtier par mDNS · devices enrolled, found over mDNS",
        scene.fleet.tills.len(),
        scene.fleet.found_by_mdns()
    ));
    let sales = generate::day(options.seed, options.tickets, DAY);
    let [morning, rush, evening] = parts(sales);
    let mut tickets = options.tickets as u64;

    scene.set_faults(Faults {
        decline: 0.03,
        ..Faults::default()
    })?;
    play(
        &scene,
        morning,
        options,
        progress,
        "Matin, en ligne · morning, online",
    )
    .await?;

    progress.step("La ligne est coupée · the line is cut");
    scene.cut(WanMode::Blackhole);
    let mut tally = rush_with_kill(&mut scene, rush, options, progress).await?;
    tickets += until_limits_bite(&scene, &mut tally, options, progress).await?;

    progress.step("La ligne est rétablie · the line is back");
    scene.set_faults(faults_at_replay())?;
    scene.mend();
    replay(&scene, evening, options, progress).await?;

    progress
        .step("Fermeture, vérification du journal, comparaison des livres · closing, comparing the books");
    let closing = scene.close().await?;
    let report = Report {
        title: (
            "Épicerie du Port : une journée avec coupure de la ligne".to_owned(),
            "Épicerie du Port: a day with the line cut".to_owned(),
        ),
        currency: scene.shop.limits().currency,
        devices: scene.fleet.tills.len(),
        found_by_mdns: scene.fleet.found_by_mdns(),
        tickets,
        days: None,
        skipped: std::collections::BTreeMap::new(),
        notes: vec![(
            "Journée tirée de vrais tickets : arrivées, montants, durées, retours de cartes (voir profile.rs)."
                .to_owned(),
            "The day is drawn from figures of real tickets: arrivals, amounts, service times, reuse of cards."
                .to_owned(),
        )],
        closing,
    };
    Ok((report, scene))
}

fn opening(step: &str) -> &'static str {
    match step {
        "gateway" => "Une banque simulée, avec son propre livre · a simulated gateway with its own book",
        "hub" => "Le boîtier : un vrai processus hubd · the hub: a real hubd process",
        _ => "Les appareils cherchent le boîtier · the devices look for the hub",
    }
}

/// What goes wrong at the gateway while the backlog is sent.
pub(crate) fn faults_at_replay() -> Faults {
    Faults {
        commit_then_drop: 0.06,
        unavailable: 0.05,
        throttle: 0.02,
        retry_after: Some("1".to_owned()),
        slow: 0.10,
        delay_ms: 300,
        pending: 0.03,
        pending_times: 2,
        decline: 0.03,
        ..Faults::default()
    }
}

/// The day, cut where the line is.
fn parts(sales: Vec<Sale>) -> [Vec<Sale>; 3] {
    let mut parts = [Vec::new(), Vec::new(), Vec::new()];
    for sale in sales {
        let part = match sale.at.hour() {
            hour if hour < CUT_AT => 0,
            hour if hour < MENDED_AT => 1,
            _ => 2,
        };
        parts[part].push(sale);
    }
    parts
}

async fn play(
    scene: &Scene,
    sales: Vec<Sale>,
    options: &DemoOptions,
    progress: &Progress,
    text: &str,
) -> Result<Tally> {
    let bar = progress.bar(text, sales.len() as u64);
    let tally = Playing::start(&scene.fleet.tills, sales, Pace::Faster(options.speed), &bar)
        .finish()
        .await?;
    progress.finish(&bar);
    Ok(tally)
}

/// The rush without the bank; in the middle of it the hub is killed, with
/// payments under way, and started again.
async fn rush_with_kill(
    scene: &mut Scene,
    sales: Vec<Sale>,
    options: &DemoOptions,
    progress: &Progress,
) -> Result<Tally> {
    let middle = sales.len() / 2;
    let bar = progress.bar(
        "Midi, sans la banque · midday, without the bank",
        sales.len() as u64,
    );
    let playing = Playing::start(&scene.fleet.tills, sales, Pace::Faster(options.speed), &bar);
    playing.begun(middle).await;
    progress.step("kill -9 hubd, et redémarrage · and start again");
    scene.shop.kill_and_restart().await?;
    let tally = playing.finish().await?;
    progress.finish(&bar);
    Ok(tally)
}

/// More customers, until the store can take no more. Gives how many came.
async fn until_limits_bite(
    scene: &Scene,
    tally: &mut Tally,
    options: &DemoOptions,
    progress: &Progress,
) -> Result<u64> {
    let bitten = |tally: &Tally| {
        tally.holds(|r| matches!(r, Reason::StoreCeiling | Reason::StoreConsecutiveLimit))
            && tally.holds(|r| matches!(r, Reason::CardCeiling | Reason::CardConsecutiveLimit))
    };
    let mut came = 0;
    let mut crowd = generate::day(options.seed ^ 0xc0ffee, MOST_EXTRA, DAY).into_iter();
    while !bitten(tally) && came < MOST_EXTRA as u64 {
        let more: Vec<Sale> = crowd
            .by_ref()
            .take(40)
            .map(|sale| Sale {
                order_id: format!("X{}", sale.order_id),
                ..sale
            })
            .collect();
        came += more.len() as u64;
        let bar = progress.bar(
            "Encore des clients, jusqu’aux plafonds · until limits bite",
            more.len() as u64,
        );
        let more = Playing::start(&scene.fleet.tills, more, Pace::AtOnce, &bar)
            .finish()
            .await?;
        progress.finish(&bar);
        for (key, count) in more.decided {
            *tally.decided.entry(key).or_default() += count;
        }
        tally.undecided += more.undecided;
    }
    Ok(came)
}

/// The backlog is sent while the evening's customers are served.
async fn replay(scene: &Scene, evening: Vec<Sale>, options: &DemoOptions, progress: &Progress) -> Result<()> {
    let backlog = scene.shop.unsent().await?;
    let live = progress.bar("Soir, en ligne · evening, online", evening.len() as u64);
    let sent = progress.bar("Envoi des paiements en attente · replay", backlog);
    let playing = Playing::start(&scene.fleet.tills, evening, Pace::Faster(options.speed), &live);
    let watch = |left: u64| sent.set_position(backlog.saturating_sub(left));
    scene.shop.drain(Duration::from_secs(60), watch).await?;
    playing.finish().await?;
    progress.finish(&live);
    scene.shop.drain(Duration::from_secs(60), watch).await?;
    progress.finish(&sent);
    Ok(())
}
