//! Which devices, and how fresh a verifier's word on them: as drawn.

use std::fmt::Write as _;

use hub_protocol::DeviceClass;

use crate::attested;
use crate::profile::{Profile, pick};
use crate::rng::Rng;

/// See the module's documentation. Times in minutes.
#[derive(Clone, Debug)]
pub(crate) struct Devices {
    /// Only certified models: of the vendor that all have here, from version 10
    /// of the system on, by PTS or CPoC with a PIN.
    pub(crate) models: bool,
    /// And those of CPoC, model One, take a PIN on their glass.
    pub(crate) pin_on_glass: bool,
    /// Those that need a verifier's word.
    pub(crate) classes: Vec<DeviceClass>,
    pub(crate) max_age: u64,
    /// From which age on, and what is left of the ceilings.
    pub(crate) stale: Option<(u64, u64)>,
    pub(crate) online: Option<u64>,
    /// By number.
    pub(crate) verifiers: Vec<usize>,
}

impl Devices {
    /// From a sequence of the policy's own.
    pub(super) fn draw(own: &mut Rng, profile: &Profile) -> Option<Self> {
        if !own.chance(profile.devices_known) {
            return None;
        }
        let mut classes = DeviceClass::ALL.to_vec();
        classes.retain(|_| own.chance(650));
        let stale = 1 + own.below(2 + profile.pace_ms * 40 / 60_000);
        let max_age = stale + 1 + own.below(2 + profile.pace_ms * 80 / 60_000);
        Some(Self {
            models: own.chance(500),
            pin_on_glass: own.chance(700),
            classes,
            max_age,
            stale: own.chance(700).then(|| (stale, pick(own, &[0, 40, 75]))),
            online: own.chance(350).then(|| max_age + own.below(60)),
            verifiers: match own.below(5) {
                0 => vec![1],
                1 => vec![1, 0],
                _ => vec![0],
            },
        })
    }

    pub(super) fn text(&self) -> String {
        let classes: Vec<_> = self
            .classes
            .iter()
            .map(|class| format!("\"{}\"", class.name()))
            .collect();
        let mut text = format!(
            "[attestation]\nclasses = [{}]\nmax_age_minutes = {}\n",
            classes.join(", "),
            self.max_age
        );
        // Writing to a String cannot fail.
        if let Some((after, percent)) = self.stale {
            let _ = write!(text, "stale_minutes = {after}\nstale_percent = {percent}\n");
        }
        if let Some(minutes) = self.online {
            let _ = writeln!(text, "online_max_age_minutes = {minutes}");
        }
        for verifier in &self.verifiers {
            let key = attested::public_key(*verifier).map(|byte| format!("{byte:02x}"));
            let _ = write!(
                text,
                "[[attestation.verifier]]\nname = \"Verifier {verifier}\"\nkey = \"{}\"\n",
                key.concat()
            );
        }
        if self.models {
            text += "[[model]]\nvendor = \"Acme\"\nmodel = \"*\"\nos_version = \"10\"\n\
                     certification = [\"pts\", \"cpoc-pin\"]\n";
            let _ = write!(
                text,
                "[[model]]\nvendor = \"Acme\"\nmodel = \"One\"\nos_version = \"10\"\n\
                 certification = [\"cpoc-pin\"]\npin_on_glass = {}\n",
                self.pin_on_glass
            );
        }
        text
    }

    /// Ages, in minutes, at which something changes.
    pub(crate) fn ages(&self) -> Vec<u64> {
        let edges = [
            Some(self.max_age),
            self.stale.map(|(after, _)| after),
            self.online,
        ];
        edges.into_iter().flatten().chain([0]).collect()
    }
}
