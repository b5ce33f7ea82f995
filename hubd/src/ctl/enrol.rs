//! `hubctl enrol`: codes as text, on the terminal as QR code, and as a picture.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use hub_core::{MAX_FLEET_MS, MAX_FLEET_SIZE};
use hub_protocol::DeviceClass;

use super::client::Client;
use super::devices;
use super::failure::Failure;
use super::output::Output;
use super::show::{instant, short, span};
use crate::admin::protocol::{Answer, EnrolReport, FleetOrder, Request};
use crate::qr::{Ink, Qr};

/// What `hubctl enrol` takes.
fn class(text: &str) -> Result<DeviceClass, String> {
    text.parse()
        .map_err(|_| "mpos, softpos or terminal expected".to_owned())
}

#[derive(Args)]
pub(super) struct EnrolArgs {
    /// What the device is: mpos, softpos or terminal [default: softpos]. Its
    /// limits depend on it, so the device does not choose; softpos has the
    /// strictest
    #[arg(long, value_parser = class)]
    class: Option<DeviceClass>,
    /// Make a code for several devices, which are pending until somebody
    /// approves them: `hubctl devices approve`, or headquarters' list
    #[arg(long, conflicts_with = "replaces")]
    fleet: bool,
    /// For how long such a code is good, such as "8h"; a minute to 30 days
    #[arg(long, default_value = "24h", requires = "fleet", value_parser = valid)]
    valid: Duration,
    /// For how many devices
    #[arg(long, default_value_t = 40, requires = "fleet", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_FLEET_SIZE)))]
    most: u32,
    /// The device takes the place of this one, which is blocked at that
    /// moment: its id, or as many first digits as tell it from the others.
    /// Name and class stay
    #[arg(long, value_name = "DEVICE", conflicts_with = "class")]
    replaces: Option<String>,
    /// The device replaced is lost: nothing is kept back for its allowance any
    /// more, as with `hubctl devices lost`
    #[arg(long, requires = "replaces")]
    lost: bool,
    #[command(flatten)]
    shown: Shown,
}

/// What a token may live.
fn valid(text: &str) -> Result<Duration, String> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|span| Duration::try_from(span).ok())
        .or_else(|| {
            // jiff's plain durations know no days.
            let days = text.trim().strip_suffix('d')?.trim().parse::<u64>().ok()?;
            Some(Duration::from_secs(days.checked_mul(86_400)?))
        })
        .filter(|span| (60..=MAX_FLEET_MS / 1000).contains(&span.as_secs()))
        .ok_or_else(|| "a duration such as \"8h\" or \"7d\" expected, a minute to 30 days".to_owned())
}

/// How a code is shown.
#[derive(Args)]
struct Shown {
    /// Draw the QR code although this is no terminal
    #[arg(long)]
    qr: bool,
    /// Write the QR code as a picture (SVG) to show or to print, into a new
    /// file. Whoever sees it can use it: remove it afterwards
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

pub(super) fn enrol(client: &Client, output: &Output, args: &EnrolArgs) -> Result<(), Failure> {
    let mut picture = args.shown.svg.as_deref().map(Picture::create).transpose()?;
    let mut class = args.class.unwrap_or(DeviceClass::Softpos).to_string();
    let mut replaces = None;
    let known;
    if let Some(prefix) = &args.replaces {
        known = devices::ask(client)?;
        let old = devices::find(&known, prefix)?;
        class.clone_from(&old.class);
        replaces = Some(old);
    }
    let request = Request::Enrol {
        class,
        fleet: args.fleet.then_some(FleetOrder {
            most: args.most,
            valid_seconds: args.valid.as_secs(),
        }),
        replaces: replaces.map(|old| old.id.clone()),
        lost: args.lost,
    };
    match client.ask(&request)? {
        Answer::Enrol(code) => {
            show(output, args.shown.qr, picture.as_mut(), &code.code)?;
            output.print(&code, || match (args.fleet, replaces) {
                (true, _) => fleet_instructions(&code),
                (false, Some(old)) => replacement(&code, &old.name, short(&old.id)),
                (false, None) => instructions(&code),
            })
        }
        other => Err(Client::unexpected(&other)),
    }
}

/// Draws the code where that was asked for, or somebody watches. The text is
/// printed in any case, so what cannot be drawn is only said.
fn show(output: &Output, wanted: bool, picture: Option<&mut Picture>, code: &str) -> Result<(), Failure> {
    let qr = Qr::of(code);
    if let Some(picture) = picture {
        let qr = qr.as_ref().map_err(|error| Failure::Refused(error.to_string()))?;
        picture.draw(&qr.svg())?;
    }
    let drawn = wanted || output.is_terminal();
    if output.is_json() || !drawn {
        return Ok(());
    }
    match (qr, output.columns()) {
        (Err(error), _) => output.note(&error.to_string()),
        (Ok(qr), Some(columns)) if columns < qr.columns() && !wanted => output.note(&format!(
            "the terminal is {columns} columns wide and the QR code takes {}: widen it, or write a picture with --svg",
            qr.columns()
        )),
        (Ok(qr), _) => {
            let ink = if output.is_terminal() { Ink::Coloured } else { Ink::WhiteDrawn };
            return output.drawing(&qr.half_blocks(ink));
        }
    }
    Ok(())
}

/// The file of a picture, for the operator's eyes alone: it is as good as the
/// code. Always a new one, because whoever has made one that is there may read
/// it; and made before the hub is asked, so that no code is outstanding that
/// nobody was shown. Removed again unless the picture is in it.
struct Picture {
    path: PathBuf,
    file: File,
    drawn: bool,
}

impl Picture {
    fn create(path: &Path) -> Result<Self, Failure> {
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        Ok(Self {
            path: path.to_owned(),
            file: made.map_err(|error| Failure::new_file(path, error))?,
            drawn: false,
        })
    }

    fn draw(&mut self, svg: &str) -> Result<(), Failure> {
        let written = self.file.write_all(svg.as_bytes());
        written.map_err(|error| Failure::file(&self.path, "write", error))?;
        self.drawn = true;
        Ok(())
    }
}

impl Drop for Picture {
    fn drop(&mut self) {
        if !self.drawn {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn instructions(code: &EnrolReport) -> String {
    let EnrolReport {
        code: text,
        enrol_addresses,
        class,
        ..
    } = code;
    let until = instant(code.expires_ms);
    let valid = span(code.valid_seconds);
    let addresses = enrol_addresses.join(", ");
    format!(
        "Code d'enrôlement, à usage unique, pour un appareil {class}, valable {valid} (jusqu'à {until}) :\n\n    {text}\n\n\
         À faire : reliez l'appareil au réseau du magasin, ouvrez son application de paiement, choisissez\n\
         « Enrôler » et saisissez ou scannez le code. L'appareil joint le hub à l'adresse {addresses}.\n\
         Vérifiez ensuite avec `hubctl devices`. Ne montrez ce code à personne d'autre.\n\n\
         Enrolment code, good once, for a device of class {class}, for {valid} (until {until}): the text above.\n\n\
         What to do: bring the device into the shop's network, open its payment application, choose\n\
         \"Enrol\" and type or scan the code. The device reaches the hub at {addresses}.\n\
         Then check with `hubctl devices`. Show this code to nobody else.\n"
    )
}

fn replacement(code: &EnrolReport, name: &str, old: &str) -> String {
    format!(
        "L'appareil enrôlé par ce code prend la place de {name} ({old}), qui est bloqué à cet instant.\n\
         The device enrolled by this code takes the place of {name} ({old}), which is blocked at that moment.\n\n{}",
        instructions(code)
    )
}

fn fleet_instructions(code: &EnrolReport) -> String {
    let EnrolReport {
        code: text,
        most,
        class,
        ..
    } = code;
    let valid = span(code.valid_seconds);
    let until = instant(code.expires_ms);
    let token = code.token.as_deref().map(short).unwrap_or_default();
    format!(
        "Code d'enrôlement pour {most} appareils {class} au plus, valable {valid} (jusqu'à {until}) :\n\n    {text}\n\n\
         Les appareils enrôlés ainsi attendent d'être approuvés : `hubctl devices`, puis\n\
         `hubctl devices approve`, ou la liste du siège. Pour retirer le code : `hubctl fleet withdraw {token}`.\n\n\
         Enrolment code for {most} devices of class {class} at the most, for {valid} (until {until}): the text above.\n\n\
         Devices enrolled by it wait to be approved: `hubctl devices`, then `hubctl devices approve`, or\n\
         headquarters' list. To withdraw the code: `hubctl fleet withdraw {token}`.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_enrolment_code_is_explained_in_french_first_and_then_in_english() {
        let text = instructions(&EnrolReport {
            code: "HUB1-ABC".to_owned(),
            valid_seconds: 600,
            enrol_addresses: vec!["192.0.2.10:7412".to_owned()],
            ..EnrolReport::default()
        });
        let french = text.find("Code d'enrôlement").unwrap();
        assert!(french < text.find("Enrolment code").unwrap());
        assert!(text.contains("    HUB1-ABC\n") && text.contains("10m") && text.contains("192.0.2.10:7412"));
    }
}
