//! `hubctl devices`.

use serde::Serialize;

use super::client::Client;
use super::failure::Failure;
use super::output::{Output, table};
use super::show::{ago, short};
use super::standing;

use crate::admin::protocol::{Answer, DeviceReport, Request};
use crate::clock;

#[derive(Serialize)]
struct DeviceList {
    devices: Vec<DeviceReport>,
}

#[derive(Serialize)]
struct Blocked<'a> {
    device: &'a str,
    blocked: bool,
}

#[derive(Serialize)]
struct Approved<'a> {
    approved: &'a str,
}

#[derive(Serialize)]
struct Lost<'a> {
    lost: &'a str,
}

pub(super) fn list(client: &Client, output: &Output) -> Result<(), Failure> {
    let list = DeviceList {
        devices: ask(client)?,
    };
    output.print(&list, || listed(&list.devices, clock::wall_ms()))
}

pub(super) fn set_blocked(client: &Client, output: &Output, id: &str, blocked: bool) -> Result<(), Failure> {
    let devices = ask(client)?;
    let device = find(&devices, id)?;
    let request = if blocked {
        Request::Block {
            device: device.id.clone(),
        }
    } else {
        Request::Unblock {
            device: device.id.clone(),
        }
    };
    match client.ask(&request)? {
        Answer::Done => output.print(
            &Blocked {
                device: &device.id,
                blocked,
            },
            || {
                let done = if blocked { "blocked" } else { "may pay again" };
                format!("{} ({}) {done}", device.name, short(&device.id))
            },
        ),
        other => Err(Client::unexpected(&other)),
    }
}

/// Lets a device pay that was pending.
pub(super) fn approve(client: &Client, output: &Output, id: &str) -> Result<(), Failure> {
    let devices = ask(client)?;
    let device = find(&devices, id)?;
    let request = Request::Approve {
        device: device.id.clone(),
    };
    match client.ask(&request)? {
        Answer::Done => output.print(&Approved { approved: &device.id }, || {
            format!("{} ({}) may pay", device.name, short(&device.id))
        }),
        other => Err(Client::unexpected(&other)),
    }
}

/// Gives up what is kept back for a device's allowance.
pub(super) fn lost(client: &Client, output: &Output, id: &str) -> Result<(), Failure> {
    let devices = ask(client)?;
    let device = find(&devices, id)?;
    let request = Request::Lost {
        device: device.id.clone(),
    };
    match client.ask(&request)? {
        Answer::Done => output.print(&Lost { lost: &device.id }, || {
            format!(
                "nothing is kept back for {} ({}) any more; block it too if it is in strange hands",
                device.name,
                short(&device.id)
            )
        }),
        other => Err(Client::unexpected(&other)),
    }
}

pub(super) fn ask(client: &Client) -> Result<Vec<DeviceReport>, Failure> {
    match client.ask(&Request::Devices)? {
        Answer::Devices { devices } => Ok(devices),
        other => Err(Client::unexpected(&other)),
    }
}

/// The one enrolled device whose id begins so.
pub(super) fn find<'d>(devices: &'d [DeviceReport], prefix: &str) -> Result<&'d DeviceReport, Failure> {
    let prefix = prefix.to_ascii_lowercase();
    let mut found = devices
        .iter()
        .filter(|device| device.enrolled && !prefix.is_empty() && device.id.starts_with(&prefix));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(Failure::Refused(format!(
            "no enrolled device has an id that begins with {prefix:?}; `hubctl devices` lists them"
        ))),
        (Some(one), Some(two)) => Err(Failure::Refused(format!(
            "more than one device has an id that begins with {prefix:?}: {} ({}), {} ({}); give more digits",
            short(&one.id),
            one.name,
            short(&two.id),
            two.name
        ))),
    }
}

fn listed(devices: &[DeviceReport], now: u64) -> String {
    if devices.is_empty() {
        return "No device is enrolled and none was seen. `hubctl enrol` makes a code for one.".to_owned();
    }
    let mut table = table([
        "Id",
        "Name",
        "Class",
        "State",
        "Model",
        "Attested",
        "Seen by mDNS",
        "Addresses",
    ]);
    for device in devices {
        let standing = device.standing.as_ref();
        let shut_out = standing.is_some_and(|one| one.shut_out.is_some() && !one.blocked_here);
        let pending = standing.is_some_and(|one| one.pending);
        let state = match (device.enrolled, device.blocked, device.connected) {
            (false, ..) => "not enrolled",
            (true, true, _) if shut_out => "shut out by list",
            (true, true, _) => "blocked",
            (true, false, _) if pending => "pending",
            (true, false, true) => "connected",
            (true, false, false) => "enrolled",
        };
        let seen = device
            .seen_ms
            .map_or_else(|| "-".to_owned(), |seen| ago(seen, now));
        let described = device.described.as_ref();
        let model = described.map_or_else(
            || device.model.clone().unwrap_or_default(),
            |one| {
                format!(
                    "{} {}, {} {}, app {}",
                    one.vendor, one.model, one.os, one.os_version, one.app_version
                )
            },
        );
        let attested = described
            .and_then(|one| {
                Some(format!(
                    "{}, {}",
                    one.attestation.as_ref()?,
                    ago(one.attested_ms?, now)
                ))
            })
            .unwrap_or_else(|| "-".to_owned());
        table.add_row([
            short(&device.id),
            &device.name,
            &device.class,
            state,
            &model,
            &attested,
            &seen,
            &device.addresses.join(", "),
        ]);
    }
    let mut text = table.to_string();
    for device in devices {
        for hint in standing::hints(device, devices) {
            text.push('\n');
            text.push_str(&hint);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str, enrolled: bool) -> DeviceReport {
        DeviceReport {
            id: id.to_owned(),
            name: format!("Caisse {id}"),
            enrolled,
            ..DeviceReport::default()
        }
    }

    #[test]
    fn a_device_is_found_by_the_digits_that_tell_it_from_the_others() {
        let devices = [device("ab12", true), device("ab34", true), device("cd56", false)];
        assert_eq!(find(&devices, "AB1").unwrap().id, "ab12");
        assert_eq!(find(&devices, "ab34").unwrap().id, "ab34");
        for (prefix, expected) in [
            ("ab", "more than one"),
            ("cd", "no enrolled"),
            ("", "no enrolled"),
        ] {
            let failure = find(&devices, prefix).unwrap_err();
            assert!(failure.to_string().contains(expected), "{failure}");
        }
    }
}
