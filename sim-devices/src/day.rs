//! Real tickets: a file of them, day by day, through an outage each day.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hub_protocol::Currency;
use jiff::civil::{Date, Time};

use crate::generate;
use crate::limits::Limits;
use crate::player::{Pace, Playing};
use crate::progress::Progress;
use crate::report::Report;
use crate::sale::Sale;
use crate::scene::{Scene, SceneOptions};
use crate::tickets::{self, TicketFile};
use crate::wan::WanMode;

/// The longest wait for the backlog at the end of a day.
const DRAIN: Duration = Duration::from_secs(60);

/// How a file is played.
#[derive(Clone, Debug)]
pub struct DayOptions {
    /// The file.
    pub tickets: PathBuf,
    /// When the line is down, each day.
    pub outage: Window,
    /// One day of the file instead of all.
    pub day: Option<Date>,
    /// The file's currency: amounts are taken as they stand.
    pub currency: Currency,
    /// A policy (TOML) instead of the one for real days.
    pub policy: Option<PathBuf>,
    /// How many devices.
    pub devices: usize,
    /// Whether the gateway fails now and then, as in the demo's replay.
    pub faults: bool,
    /// For the cards and gestures that the file does not name.
    pub seed: u64,
    /// Where everything is kept; `None` for a folder that goes away.
    pub keep: Option<PathBuf>,
    /// Where `hubd` and `hubctl` are; `None` to find or build them.
    pub bin_dir: Option<PathBuf>,
}

/// A part of the day, from the first time up to, not including, the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The line is cut.
    pub from: Time,
    /// It is back.
    pub to: Time,
}

impl std::str::FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text}: two times of day expected, such as 11:00-14:30");
        let (from, to) = text.split_once('-').ok_or_else(wrong)?;
        let time = |text: &str| {
            let text = text.trim();
            let whole = match text.len() {
                5 => format!("{text}:00"),
                8 => text.to_owned(),
                _ => return Err(wrong()),
            };
            whole.parse::<Time>().map_err(|_| wrong())
        };
        let window = Self {
            from: time(from)?,
            to: time(to)?,
        };
        if window.from >= window.to {
            return Err(format!(
                "{text}: the outage must end after it begins, on the same day"
            ));
        }
        Ok(window)
    }
}

impl Window {
    pub(crate) fn holds(&self, time: Time) -> bool {
        self.from <= time && time < self.to
    }
}

/// One day of the file, cut where the line is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Day {
    date: Date,
    before: Vec<Sale>,
    during: Vec<Sale>,
    after: Vec<Sale>,
}

/// Plays the file.
pub async fn run(options: &DayOptions, progress: &Progress) -> Result<(Report, Scene)> {
    let limits = limits(options)?;
    let file = tickets::read_file(&options.tickets)?;
    let days = days(options, &file)?;
    let tickets: usize = days
        .iter()
        .map(|d| d.before.len() + d.during.len() + d.after.len())
        .sum();
    let mut scene = Scene::open(
        &SceneOptions {
            keep: options.keep.clone(),
            reopen: false,
            bin_dir: options.bin_dir.clone(),
            limits,
            devices: options.devices,
            discovery: true,
            seed: options.seed,
            deadline: Duration::from_secs(1),
            probe_interval: Duration::from_millis(100),
            max_in_flight: 8,
            requests_per_second: None,
        },
        &|_| {},
    )
    .await?;
    if options.faults {
        scene.set_faults(crate::demo::faults_at_replay())?;
    }
    let bar = progress.bar("Tickets joués · tickets played", tickets as u64);
    for (place, day) in days.iter().enumerate() {
        play(&mut scene, day, place == 0, &bar)
            .await
            .with_context(|| format!("while playing {}", day.date))?;
    }
    progress.finish(&bar);
    let closing = scene.close().await?;
    let report = report(options, &file, &days, tickets, &scene, closing);
    Ok((report, scene))
}

fn limits(options: &DayOptions) -> Result<Limits> {
    let Some(path) = &options.policy else {
        return Ok(Limits::real_days(options.currency));
    };
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let limits = Limits::parse(&text).with_context(|| format!("in {}", path.display()))?;
    if limits.currency != options.currency {
        bail!(
            "{} is for {}, and the file is played in {}",
            path.display(),
            limits.currency,
            options.currency
        );
    }
    Ok(limits)
}

fn days(options: &DayOptions, file: &TicketFile) -> Result<Vec<Day>> {
    let mut days: Vec<Day> = Vec::new();
    for sale in generate::from_tickets(options.seed, &file.tickets) {
        let date = sale.at.date();
        if options.day.is_some_and(|wanted| wanted != date) {
            continue;
        }
        if days.last().is_none_or(|day| day.date != date) {
            days.push(Day {
                date,
                before: Vec::new(),
                during: Vec::new(),
                after: Vec::new(),
            });
        }
        if let Some(day) = days.last_mut() {
            let time = sale.at.time();
            let part = if options.outage.holds(time) {
                &mut day.during
            } else if time < options.outage.from {
                &mut day.before
            } else {
                &mut day.after
            };
            part.push(sale);
        }
    }
    if days.is_empty() {
        let of_day = options.day.map(|day| format!(" on {day}")).unwrap_or_default();
        bail!("{} holds no card payment{of_day}", options.tickets.display());
    }
    Ok(days)
}

/// One day. The line falls silent on the first and is refused on the others,
/// so that not every day costs the customers' patience. Between the end of
/// the outage and the next customer lie minutes in the shop: the hub is given
/// the time to notice that the line is back.
async fn play(scene: &mut Scene, day: &Day, first: bool, bar: &indicatif::ProgressBar) -> Result<()> {
    let at_once =
        |scene: &Scene, sales: &[Sale]| Playing::start(&scene.fleet.tills, sales.to_vec(), Pace::AtOnce, bar);
    at_once(scene, &day.before).finish().await?;
    scene.cut(if first {
        WanMode::Blackhole
    } else {
        WanMode::Refuse
    });
    let playing = at_once(scene, &day.during);
    if first {
        playing.begun(day.during.len() / 2).await;
        scene.shop.kill_and_restart().await?;
    }
    playing.finish().await?;
    scene.mend();
    if !day.during.is_empty() || first {
        scene.shop.wait_wan("online").await?;
    }
    at_once(scene, &day.after).finish().await?;
    scene.shop.drain(DRAIN, |_| {}).await?;
    Ok(())
}

fn report(
    options: &DayOptions,
    file: &TicketFile,
    days: &[Day],
    tickets: usize,
    scene: &Scene,
    closing: crate::scene::Closing,
) -> Report {
    let name = options
        .tickets
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let (from, to) = (options.outage.from, options.outage.to);
    let during: usize = days.iter().map(|d| d.during.len()).sum();
    let mut notes = vec![(
        format!(
            "{during} clients sont venus pendant les coupures ; le premier jour, hubd a été arrêté par kill -9."
        ),
        format!("{during} customers came during the outages; on the first day hubd was killed with -9."),
    )];
    if !file.says_payment {
        notes.push((
            "Le fichier ne dit pas ce qui est payé par carte : tout ticket est joué.".to_owned(),
            "The file does not say what was paid by card: every ticket is played.".to_owned(),
        ));
    }
    let without_card = file.tickets.iter().filter(|t| t.card.is_none()).count();
    if without_card > 0 {
        notes.push((
            format!("{without_card} tickets sans carte nommée : cartes tirées selon les retours réels."),
            format!("{without_card} tickets name no card: cards are drawn by the real figures of reuse."),
        ));
    }
    notes.push((
        "Marque, type et geste de chaque carte sont tirés : aucun fichier ne les dit.".to_owned(),
        "Brand, kind and gesture of each card are drawn: no file says them.".to_owned(),
    ));
    Report {
        title: (
            format!("Tickets réels {name}, ligne coupée chaque jour de {from} à {to}"),
            format!("Real tickets {name}, the line cut each day from {from} to {to}"),
        ),
        currency: options.currency,
        devices: scene.fleet.tills.len(),
        found_by_mdns: scene.fleet.found_by_mdns(),
        tickets: tickets as u64,
        days: Some(days.len()),
        skipped: file.skipped.clone(),
        notes,
        closing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(day: Option<Date>) -> DayOptions {
        DayOptions {
            tickets: "t.csv".into(),
            outage: "11:00-14:30".parse().unwrap(),
            day,
            currency: Currency::EUR,
            policy: None,
            devices: 8,
            faults: false,
            seed: 1,
            keep: None,
            bin_dir: None,
        }
    }

    fn file() -> TicketFile {
        let text = "timestamp,ticket,amount_minor\n\
            2024-03-01T10:59:59,a,100\n2024-03-01T11:00:00,b,100\n2024-03-01T14:29:59,c,100\n\
            2024-03-01T14:30:00,d,100\n2024-03-02T12:00:00,e,100\n";
        tickets::read(std::path::Path::new("t.csv"), &mut text.as_bytes()).unwrap()
    }

    #[test]
    fn the_outage_falls_on_every_day_of_the_file_and_ends_before_its_second_time() {
        let days = days(&options(None), &file()).unwrap();
        let sizes: Vec<_> = days
            .iter()
            .map(|d| (d.before.len(), d.during.len(), d.after.len()))
            .collect();
        assert_eq!(sizes, [(1, 2, 1), (0, 1, 0)]);
    }

    #[test]
    fn one_day_can_be_picked_and_a_day_without_payments_is_said_so() {
        let second = jiff::civil::date(2024, 3, 2);
        assert_eq!(days(&options(Some(second)), &file()).unwrap().len(), 1);
        let none = days(&options(Some(jiff::civil::date(2024, 3, 3))), &file()).unwrap_err();
        assert!(none.to_string().contains("2024-03-03"), "{none}");
    }

    #[test]
    fn a_window_is_two_times_in_order() {
        let window: Window = "09:05-10:30:30".parse().unwrap();
        assert!(window.holds("10:30:29".parse().unwrap()) && !window.holds("10:30:30".parse().unwrap()));
        for wrong in ["", "11:00", "14:00-11:00", "11:00-11:00", "25:00-26:00", "11-12"] {
            assert!(wrong.parse::<Window>().is_err(), "{wrong}");
        }
    }
}
