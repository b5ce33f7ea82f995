//! The shop's devices: how they find the hub and are enrolled.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hub_protocol::{DeviceClass, EnrolmentCode};
use hub_sdk::{
    Advertisement, CardKey, ClientOptions, DeviceClient, DeviceIdentity, DiscoveryOptions, Enrolled, enrol,
};
use tokio::task::JoinSet;

use crate::shop::Shop;
use crate::till::Till;
use crate::witness::Witness;

/// How a device found the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// Over mDNS, after so long.
    Mdns(Duration),
    /// By the addresses in its enrolment code.
    EnrolmentCode,
}

/// All devices of a shop. While it is held, they show themselves over mDNS.
pub struct Fleet {
    /// The tills, in order.
    pub tills: Vec<Arc<Till>>,
    /// How each found the hub.
    pub found: Vec<FoundBy>,
    _advertisements: Vec<Advertisement>,
}

/// How many devices are enrolled at a time: a hub has at most 16 codes
/// outstanding.
const AT_ONCE: usize = 8;

/// How long a device looks for its hub.
const LOOK: Duration = Duration::from_secs(5);

/// The loopback interface: simulated devices and hub are on one machine, and
/// nothing leaves it.
fn loopback(timeout: Duration) -> DiscoveryOptions {
    DiscoveryOptions {
        interfaces: vec!["lo".to_owned()],
        timeout,
    }
}

/// Classes come in turn, so that every run has all three.
fn class_of(number: usize) -> DeviceClass {
    DeviceClass::ALL[number % DeviceClass::ALL.len()]
}

/// The folder of a device that is kept.
pub fn kept(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("{:04}", number + 1))
}

impl Fleet {
    /// Makes `count` devices; each looks for the hub over mDNS (if
    /// `discovery`), and is enrolled with a code of its own. With `keep` their
    /// keys and enrolments are written there ([`kept`]).
    pub async fn open(
        shop: &Shop,
        count: usize,
        discovery: bool,
        witness: &Arc<Witness>,
        keep: Option<&Path>,
    ) -> Result<Self> {
        let mut joined = Vec::with_capacity(count);
        let numbers: Vec<usize> = (0..count).collect();
        for batch in numbers.chunks(AT_ONCE) {
            let mut joining = JoinSet::new();
            for number in batch {
                // One code a device, as a technician would take them.
                let code = shop.enrolment_code(class_of(*number)).await?;
                let new = NewDevice {
                    number: *number,
                    class: class_of(*number),
                    hub_short: shop.hub_short().to_owned(),
                    code: code
                        .parse()
                        .context("hubctl enrol gave something that is no code")?,
                    currency: shop.limits().currency,
                    discovery,
                    witness: Arc::clone(witness),
                    keep: keep.map(|dir| kept(dir, *number)),
                    card_key: shop.card_key()?,
                };
                joining.spawn(new.join());
            }
            while let Some(device) = joining.join_next().await {
                joined.push(device.context("a device came to grief")??);
            }
        }
        joined.sort_by_key(|device| device.number);
        Ok(Self::of(joined))
    }

    /// The first `count` devices that were kept in `dir`, enrolled already.
    pub fn reopen(shop: &Shop, count: usize, witness: &Arc<Witness>, dir: &Path) -> Result<Self> {
        let load = |number: usize| {
            let dir = kept(dir, number);
            let read = || anyhow::Ok((DeviceIdentity::load(&dir)?, Enrolled::load(&dir)?));
            let (identity, enrolled) =
                read().with_context(|| format!("no device is kept in {}", dir.display()))?;
            let class = enrolled.registration.class;
            let device = identity.device_id();
            let client = DeviceClient::new(identity, enrolled, client_options(Vec::new(), false))?;
            let currency = shop.limits().currency;
            Ok(Joined {
                number,
                till: Till::new(number, class, device, currency, client, Arc::clone(witness))
                    .sealing_to(shop.card_key()?),
                found: FoundBy::EnrolmentCode,
                advertisement: None,
            })
        };
        (0..count).map(load).collect::<Result<_>>().map(Self::of)
    }

    fn of(joined: Vec<Joined>) -> Self {
        let mut fleet = Self {
            tills: Vec::new(),
            found: Vec::new(),
            _advertisements: Vec::new(),
        };
        for device in joined {
            fleet.tills.push(Arc::new(device.till));
            fleet.found.push(device.found);
            fleet._advertisements.extend(device.advertisement);
        }
        fleet
    }

    /// How many found the hub over mDNS.
    pub fn found_by_mdns(&self) -> usize {
        self.found
            .iter()
            .filter(|f| matches!(f, FoundBy::Mdns(_)))
            .count()
    }

    /// Hangs all up.
    pub async fn close(&self) {
        for till in &self.tills {
            till.close().await;
        }
    }
}

/// Looks until this hub is heard: there may be others on the network.
async fn look_for(hub_short: &str, until: Instant) -> Result<Option<Vec<SocketAddr>>> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let hubs = hub_sdk::find_hubs(&loopback(left)).await?;
        match hubs.into_iter().find(|hub| hub.hub_short == hub_short) {
            Some(hub) => return Ok(Some(hub.addresses)),
            None if Instant::now() >= until => return Ok(None),
            None => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

fn client_options(addresses: Vec<SocketAddr>, discovery: bool) -> ClientOptions {
    ClientOptions {
        static_addresses: addresses,
        discovery: discovery.then(|| loopback(Duration::from_secs(2))),
        app: "sim-devices".to_owned(),
        ..ClientOptions::default()
    }
}

struct NewDevice {
    number: usize,
    class: DeviceClass,
    hub_short: String,
    code: EnrolmentCode,
    currency: hub_protocol::Currency,
    discovery: bool,
    witness: Arc<Witness>,
    keep: Option<PathBuf>,
    card_key: Option<CardKey>,
}

struct Joined {
    number: usize,
    till: Till,
    found: FoundBy,
    advertisement: Option<Advertisement>,
}

impl NewDevice {
    async fn join(self) -> Result<Joined> {
        let name = format!("Caisse {}", self.number + 1);
        let identity = DeviceIdentity::generate()?;
        let mut advertisement = None;
        let mut found = FoundBy::EnrolmentCode;
        let mut addresses: Vec<SocketAddr> = Vec::new();
        if self.discovery {
            let options = loopback(LOOK);
            advertisement = Some(hub_sdk::advertise(&identity, self.class, &name, &options)?);
            let began = Instant::now();
            // A device that hears nothing is still enrolled by its code.
            if let Some(heard) = look_for(&self.hub_short, began + LOOK).await? {
                found = FoundBy::Mdns(began.elapsed());
                addresses = heard;
            }
        }
        let model = format!("sim {}", self.class);
        let enrolled = enrol(&identity, &self.code, self.class, &name, &model)
            .await
            .with_context(|| format!("{name} could not be enrolled"))?;
        if let Some(dir) = &self.keep {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
            identity.save(dir)?;
            enrolled.save(dir)?;
        }
        let device = identity.device_id();
        let client = DeviceClient::new(identity, enrolled, client_options(addresses, self.discovery))?;
        let till = Till::new(
            self.number,
            self.class,
            device,
            self.currency,
            client,
            self.witness,
        )
        .sealing_to(self.card_key);
        Ok(Joined {
            number: self.number,
            till,
            found,
            advertisement,
        })
    }
}
