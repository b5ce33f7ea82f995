//! `hubctl devices show`: who a device is. A reset phone, a replaced or lost
//! one and a copied one look alike at the counter, and each wants something
//! else done.

use serde::Serialize;

use super::client::Client;
use super::devices;
use super::failure::Failure;
use super::output::Output;
use super::show::{ago, instant, short};
use crate::admin::protocol::{DeviceReport, SignReport, StandingReport};
use crate::clock;

/// What a technician is told first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    /// Nothing is odd.
    Usual,
    /// The same keys are in use twice.
    Clone,
    /// A known device with new keys.
    Reset,
    /// Two devices under one name, both in use.
    Namesake,
    /// It has another's place.
    Replacement,
    /// Another has its place.
    Replaced,
    /// The same, and it is lost.
    Lost,
    /// Blocked here, or shut out by headquarters' list.
    ShutOut,
    /// Something odd was found: it approves less offline, or nothing.
    Restricted,
}

#[derive(Serialize)]
struct Shown<'a> {
    verdict: Verdict,
    why: Vec<String>,
    device: &'a DeviceReport,
}

pub(super) fn show(client: &Client, output: &Output, id: &str) -> Result<(), Failure> {
    let all = devices::ask(client)?;
    let device = devices::find(&all, id)?;
    let now = clock::wall_ms();
    let blank = StandingReport::default();
    let standing = device.standing.as_ref().unwrap_or(&blank);
    let verdict = verdict(device, standing, &all);
    let shown = Shown {
        verdict,
        why: why(standing, &all, now),
        device,
    };
    output.print(&shown, || {
        let mut lines = vec![format!(
            "{} ({}), {}, {}",
            device.name,
            short(&device.id),
            device.class,
            device.model.as_deref().unwrap_or("-")
        )];
        lines.extend(device.enrolled_ms.map(|ms| format!("enrolled {}", instant(ms))));
        lines.push(format!("id {}", device.id));
        lines.extend(device.key.as_ref().map(|key| format!("key {key}")));
        lines.extend(admitted(device, standing));
        lines.push(String::new());
        let (french, english) = said(verdict);
        lines.push(french.to_owned());
        lines.push(english.to_owned());
        lines.extend(shown.why.iter().map(|reason| format!("- {reason}")));
        lines.join("\n")
    })
}

/// What the table of devices cannot say, a line each.
pub(super) fn hints(device: &DeviceReport, all: &[DeviceReport]) -> Vec<String> {
    let Some(standing) = device.standing.as_ref().filter(|_| !device.blocked) else {
        return Vec::new();
    };
    let (name, id) = (&device.name, short(&device.id));
    let mut hints = Vec::new();
    if standing.pending {
        hints.push(format!(
            "{name} ({id}) waits to be approved: hubctl devices approve {id}"
        ));
    }
    let odd = match verdict(device, standing, all) {
        Verdict::Clone => Some("may have been copied"),
        // Told once, at the newer of both.
        Verdict::Reset if !standing.like_older.is_empty() => {
            Some("is probably a known device, reset, with new keys")
        }
        Verdict::Restricted => Some("is restricted, because something odd was found"),
        _ => None,
    };
    hints.extend(odd.map(|what| format!("{name} ({id}) {what}: hubctl devices show {id}")));
    hints
}

fn verdict(device: &DeviceReport, standing: &StandingReport, all: &[DeviceReport]) -> Verdict {
    if !standing.signs.is_empty() {
        return Verdict::Clone;
    }
    match (&standing.replaced_by, standing.lost) {
        (Some(_), true) => return Verdict::Lost,
        (Some(_), false) => return Verdict::Replaced,
        _ => {}
    }
    if standing.replaces.is_some() {
        return Verdict::Replacement;
    }
    let in_use = |id: &String| all.iter().any(|other| other.id == *id && other.connected);
    // Keys that were erased are never heard of again: while the older of two
    // is connected, they are two.
    let older_in_use = standing.like_older.iter().any(in_use);
    let this_in_use = device.connected && !standing.like_newer.is_empty();
    if device.blocked {
        return Verdict::ShutOut;
    }
    if matches!(standing.restriction.as_str(), "tightened" | "stopped") {
        return Verdict::Restricted;
    }
    if standing.like_older.is_empty() && standing.like_newer.is_empty() {
        Verdict::Usual
    } else if older_in_use || this_in_use && standing.like_newer.iter().any(in_use) {
        Verdict::Namesake
    } else {
        Verdict::Reset
    }
}

fn said(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Usual => ("Rien d'inhabituel.", "Nothing is unusual."),
        Verdict::Clone => (
            "CLONE : les clés de cet appareil servent en deux endroits, ou une ancienne sauvegarde a été \
             restaurée. Bloquez-le et enrôlez-le avec de nouvelles clés : hubctl enrol --replaces.",
            "CLONE: this device's keys are in use twice, or an old backup of it was restored. Block it, and \
             enrol it with new keys: hubctl enrol --replaces.",
        ),
        Verdict::Reset => (
            "RÉINITIALISATION probable : même nom et même modèle, nouvelles clés, et l'ancien ne se montre \
             plus. Bloquez l'ancien une fois ses paiements envoyés.",
            "Probably a RESET: the same name and model with new keys, and the older one is not seen. Block the \
             older one once its payments are sent.",
        ),
        Verdict::Namesake => (
            "Deux appareils du même nom, en service tous les deux. Renommez-en un à son prochain enrôlement.",
            "Two devices of one name, both in use. Give one another name when it is enrolled next.",
        ),
        Verdict::Replacement => (
            "Cet appareil en remplace un autre, qui est bloqué.",
            "This device replaces another, which is blocked.",
        ),
        Verdict::Replaced => (
            "Cet appareil a été remplacé et bloqué. Ses paiements restent les siens.",
            "This device was replaced and blocked. Its payments stay its own.",
        ),
        Verdict::ShutOut => (
            "EXCLU : cet appareil est bloqué, et rien n'est décidé pour lui.",
            "SHUT OUT: this device is blocked, and nothing is decided for it.",
        ),
        Verdict::Restricted => (
            "RESTREINT : quelque chose d'anormal a été constaté sur cet appareil. Regardez-le, puis : hubctl \
             restrictions lift.",
            "RESTRICTED: something odd was found at this device. Look at it, and then: hubctl restrictions lift.",
        ),
        Verdict::Lost => (
            "PERDU : cet appareil a été déclaré perdu et remplacé. Rien n'est plus réservé pour lui.",
            "LOST: this device was declared lost and replaced. Nothing is kept back for it any more.",
        ),
    }
}

/// How it came to be enrolled, and what shuts it out.
fn admitted(device: &DeviceReport, standing: &StandingReport) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(token) = &standing.token {
        lines.push(format!(
            "enrolled by the code for several devices {}",
            short(token)
        ));
    }
    if let Some(version) = standing.listed {
        lines.push(format!("on headquarters' list since version {version}"));
    }
    if let Some(version) = standing.shut_out {
        let how = if standing.revoked {
            "names it as revoked"
        } else {
            "leaves it out"
        };
        lines.push(format!(
            "shut out: version {version} of headquarters' list {how}; only a later list lets it in again"
        ));
    }
    if standing.blocked_here {
        lines.push("blocked at this hub".to_owned());
    }
    if standing.pending {
        let id = short(&device.id);
        lines.push(format!("waits to be approved: hubctl devices approve {id}"));
    }
    lines
}

fn why(standing: &StandingReport, all: &[DeviceReport], now: u64) -> Vec<String> {
    let named = |id: &String| {
        let known = all.iter().find(|other| other.id == *id);
        match known {
            Some(known) if known.connected => format!("{} ({}), connected now", known.name, short(id)),
            Some(known) => format!("{} ({}), not connected", known.name, short(id)),
            None => short(id).to_owned(),
        }
    };
    let mut why: Vec<String> = standing.signs.iter().map(|sign| sign_said(sign, now)).collect();
    if standing.quarantined {
        why.push(
            "nothing is approved for it offline: it misused an allowance, or sent card numbers where none belong \
             (allowance-misused or card-numbers-sent in the ledger)"
                .to_owned(),
        );
    } else if matches!(standing.restriction.as_str(), "tightened" | "stopped") {
        why.push(format!(
            "its offline approvals are {} (anomaly-found in the ledger)",
            standing.restriction
        ));
    }
    why.extend(
        standing
            .replaced_by
            .as_ref()
            .map(|by| format!("replaced by {}", named(by))),
    );
    why.extend(
        standing
            .replaces
            .as_ref()
            .map(|old| format!("it replaces {}", named(old))),
    );
    let like = |ids: &[String], when: &str| {
        let all = ids.iter().take(8).map(&named).collect::<Vec<_>>();
        (!all.is_empty()).then(|| format!("{when} under the same name and model: {}", all.join("; ")))
    };
    why.extend(like(&standing.like_older, "enrolled before it"));
    why.extend(like(&standing.like_newer, "enrolled after it"));
    why
}

fn sign_said(sign: &SignReport, now: u64) -> String {
    let when = sign
        .at_ms
        .map_or_else(String::new, |ms| format!(" ({})", ago(ms, now)));
    match sign.sign.as_str() {
        "two-places" => {
            format!("its requests came in turns over two open connections from different addresses{when}")
        }
        "number-again" => format!(
            "its counter went back to numbers that it had used: a copy, or a backup that was restored{when}"
        ),
        "two-ends" => "its allowance was spent in two ways: a copy, or a backup that was restored".to_owned(),
        "old-keys" => format!("somebody came with keys that it has changed since: a copy{when}"),
        other => format!("{other}{when}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str, connected: bool, standing: StandingReport) -> DeviceReport {
        DeviceReport {
            id: id.to_owned(),
            name: "Caisse 1".to_owned(),
            enrolled: true,
            connected,
            standing: Some(standing),
            ..DeviceReport::default()
        }
    }

    fn verdicts(all: &[DeviceReport]) -> Vec<Verdict> {
        let of = |one: &DeviceReport| verdict(one, one.standing.as_ref().unwrap(), all);
        all.iter().map(of).collect()
    }

    fn pair(old_connected: bool) -> [DeviceReport; 2] {
        let older = StandingReport {
            like_newer: vec!["new".to_owned()],
            ..StandingReport::default()
        };
        let newer = StandingReport {
            like_older: vec!["old".to_owned()],
            ..StandingReport::default()
        };
        [device("old", old_connected, older), device("new", true, newer)]
    }

    #[test]
    fn a_reset_phone_has_new_keys_and_its_old_ones_are_silent() {
        assert_eq!(verdicts(&pair(false)), [Verdict::Reset, Verdict::Reset]);
        assert_eq!(verdicts(&pair(true)), [Verdict::Namesake, Verdict::Namesake]);
        let hint = hints(&pair(false)[1], &pair(false));
        assert!(hint[0].contains("probably a known device, reset"), "{hint:?}");
        assert!(hints(&pair(false)[0], &pair(false)).is_empty());
    }

    #[test]
    fn a_device_that_is_shut_out_or_restricted_is_not_called_usual() {
        let standing = StandingReport {
            restriction: "stopped".to_owned(),
            quarantined: true,
            ..StandingReport::default()
        };
        let mut all = [device("odd", true, standing)];
        assert_eq!(verdicts(&all), [Verdict::Restricted]);
        assert!(hints(&all[0], &all)[0].contains("restricted"));
        let reasons = why(all[0].standing.as_ref().unwrap(), &all, 0);
        assert!(reasons[0].contains("card-numbers-sent"), "{reasons:?}");
        all[0].blocked = true;
        assert_eq!(verdicts(&all), [Verdict::ShutOut]);
        let warned = StandingReport {
            restriction: "warned".to_owned(),
            ..StandingReport::default()
        };
        assert_eq!(verdicts(&[device("fine", true, warned)]), [Verdict::Usual]);
    }

    #[test]
    fn the_same_keys_twice_are_a_clone_whatever_else_is_so() {
        let mut copied = pair(false);
        copied[1].standing.as_mut().unwrap().signs.push(SignReport {
            sign: "two-places".to_owned(),
            at_ms: Some(1_000),
        });
        assert_eq!(verdicts(&copied), [Verdict::Reset, Verdict::Clone]);
        let reasons = why(copied[1].standing.as_ref().unwrap(), &copied, 61_000);
        assert!(reasons[0].contains("two open connections") && reasons[0].contains("1m ago"));
        assert!(reasons[1].contains("old"), "{reasons:?}");
    }

    #[test]
    fn a_replaced_device_is_told_from_a_lost_one() {
        for (lost, expected) in [(false, Verdict::Replaced), (true, Verdict::Lost)] {
            let standing = StandingReport {
                replaced_by: Some("new".to_owned()),
                lost,
                ..StandingReport::default()
            };
            assert_eq!(verdicts(&[device("old", false, standing)]), [expected]);
        }
        let (french, english) = said(Verdict::Lost);
        assert!(french.contains("PERDU") && english.contains("LOST"));
    }
}
