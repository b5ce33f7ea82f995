//! `hubctl restrictions`.

use serde::Serialize;

use super::client::Client;
use super::devices;
use super::failure::Failure;
use super::output::{Output, table};
use super::show::short;
use crate::admin::protocol::{Answer, DeviceReport, Request, RestrictionReport, StatusReport};

#[derive(Serialize)]
struct Listed<'a> {
    restrictions: &'a [RestrictionReport],
}

#[derive(Serialize)]
struct Lifted<'a> {
    /// `None`: the store.
    lifted: Option<&'a str>,
}

/// Lists where something is restricted, or points have come together.
pub(super) fn list(client: &Client, output: &Output) -> Result<(), Failure> {
    let report = match client.ask(&Request::Status)? {
        Answer::Status(report) => report,
        other => return Err(Client::unexpected(&other)),
    };
    let devices = devices::ask(client)?;
    let listed = Listed {
        restrictions: &report.restrictions,
    };
    output.print(&listed, || shown(&report.restrictions, &devices))
}

/// Ends the restriction of a device, or of the store.
pub(super) fn lift(client: &Client, output: &Output, device: Option<&str>) -> Result<(), Failure> {
    let found = device
        .map(|prefix| devices::find(&devices::ask(client)?, prefix).cloned())
        .transpose()?;
    let id = found.as_ref().map(|device| device.id.clone());
    match client.ask(&Request::Lift { device: id.clone() })? {
        Answer::Done => output.print(
            &Lifted {
                lifted: id.as_deref(),
            },
            || match &found {
                Some(device) => format!("{} ({}) is free again", device.name, short(&device.id)),
                None => "the store is free again; devices keep restrictions of their own".to_owned(),
            },
        ),
        other => Err(Client::unexpected(&other)),
    }
}

/// What `hubctl status` says.
pub(super) fn summary(report: &StatusReport) -> String {
    let mut store = None;
    let (mut devices, mut warned) = (0, 0);
    for one in report.restrictions.iter().filter(|one| one.restriction != "none") {
        // A warning restricts nothing.
        if one.restriction == "warned" {
            warned += 1;
            continue;
        }
        match one.device {
            None => store = Some(one.restriction.as_str()),
            Some(_) => devices += 1,
        }
    }
    let mut said = match (store, devices) {
        (None, 0) => "not restricted".to_owned(),
        (None, devices) => format!("restricted at {devices} of the devices"),
        (Some(store), 0) => format!("{store} in the store"),
        (Some(store), devices) => {
            format!("{store} in the store, and restricted at {devices} of the devices")
        }
    };
    if report.ceilings_percent < 100 {
        said += &format!(", ceilings at {} %", report.ceilings_percent);
    }
    if warned > 0 {
        said += ", something odd was found";
    }
    if store.is_some() || devices + warned > 0 {
        said += " (hubctl restrictions)";
    }
    said
}

fn shown(restrictions: &[RestrictionReport], devices: &[DeviceReport]) -> String {
    if restrictions.is_empty() {
        return "Nothing is restricted, and nothing odd was found lately.".to_owned();
    }
    let mut table = table(["Where", "Name", "Offline approvals", "Points"]);
    for one in restrictions {
        let name = one
            .device
            .as_ref()
            .and_then(|id| devices.iter().find(|device| device.id == *id))
            .map_or("", |device| device.name.as_str());
        let effect = match one.restriction.as_str() {
            "none" => "free",
            "warned" => "free; somebody should look",
            "tightened" => "smaller ceilings",
            _ => "stopped",
        };
        table.add_row([
            one.device.as_deref().map_or("the store", short),
            name,
            effect,
            &one.points.to_string(),
        ]);
    }
    format!(
        "{table}\nWhat was found stands in the ledger (anomaly-found, allowance-misused, card-numbers-sent). `hubctl devices show` says more of a device."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(device: Option<&str>, restriction: &str) -> RestrictionReport {
        RestrictionReport {
            device: device.map(str::to_owned),
            restriction: restriction.to_owned(),
            points: 41,
        }
    }

    #[test]
    fn the_status_says_where_and_how_far_offline_approvals_are_restricted() {
        let said = |restrictions: Vec<RestrictionReport>| {
            summary(&StatusReport {
                restrictions,
                ceilings_percent: 100,
                ..StatusReport::default()
            })
        };
        assert_eq!(
            said(vec![one(None, "none"), one(Some("ab"), "none")]),
            "not restricted"
        );
        assert!(said(vec![one(None, "stopped")]).starts_with("stopped in the store ("));
        let warned = said(vec![one(Some("ab"), "warned")]);
        assert!(warned.starts_with("not restricted, something odd"), "{warned}");
        let both = said(vec![one(None, "tightened"), one(Some("ab"), "stopped")]);
        assert!(
            both.contains("tightened in the store") && both.contains("at 1 of the devices"),
            "{both}"
        );
    }

    #[test]
    fn a_restricted_device_is_listed_by_its_name() {
        let device = DeviceReport {
            id: "ab".repeat(32),
            name: "Caisse 2".to_owned(),
            ..DeviceReport::default()
        };
        let text = shown(&[one(Some(&device.id), "stopped")], &[device]);
        assert!(text.contains("Caisse 2") && text.contains("41"), "{text}");
    }
}
