//! The daemon that speaks mDNS, and the bound on what it keeps.
//!
//! It keeps what it hears for as long as that itself says, and two timers for
//! each record, from whoever has sent it and without a bound of its own.
//! Somebody who makes up names fills the machine's memory, so what it keeps is
//! looked at, and beyond a bound the daemon is ended and begins anew: all that
//! it kept goes with it, and what is really there announces itself again.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hub_protocol::MDNS_DEVICE_TYPE;
use mdns_sd::{IfKind, IfPredicate, Metrics, ServiceDaemon, ServiceInfo};

use super::bounds::{Bound, Counts, Lines};
use super::discovery::{Seen, collect, serves, takes_part};

/// The most records and timers that are kept. A device has some 6 records.
pub(super) const MOST_KEPT: i64 = 32_768;

/// How often that is looked at.
pub(super) const LOOK: Duration = Duration::from_secs(2);

/// The longest wait for an answer of the daemon, or for its end.
const PATIENCE: Duration = Duration::from_secs(5);

/// The hub's announcement, and the search for devices.
pub(super) struct Mdns {
    info: ServiceInfo,
    place: Place,
    seen: Seen,
    daemon: Mutex<ServiceDaemon>,
}

/// Where the hub is announced.
#[derive(Clone)]
pub(super) struct Place {
    /// On these interfaces, as configured.
    pub(super) interfaces: Vec<String>,
    /// Where devices connect: of these, those from which it is reached.
    pub(super) listen: SocketAddr,
    /// 5353, but in a test that must not disturb others.
    pub(super) port: u16,
}

impl Mdns {
    /// Announces the hub, and begins to look for devices.
    pub(super) fn start(info: ServiceInfo, place: Place, seen: Seen) -> Result<Self, mdns_sd::Error> {
        let daemon = begin(&info, &place, &seen)?;
        Ok(Self {
            info,
            place,
            seen,
            daemon: Mutex::new(daemon),
        })
    }

    /// Begins anew whenever more is kept than may be.
    pub(super) async fn watch(&self, counts: &Counts, monotonic_ms: fn() -> u64) {
        let mut lines = Lines::new(monotonic_ms());
        loop {
            tokio::time::sleep(LOOK).await;
            if self.kept().await <= MOST_KEPT {
                continue;
            }
            counts.count(Bound::DiscoveryRecords);
            if let Some(left_out) = lines.next(monotonic_ms()) {
                tracing::warn!(
                    left_out,
                    "somebody fills mDNS with names; all that was heard is forgotten, and discovery begins anew"
                );
            }
            self.begin_anew().await;
        }
    }

    /// What the daemon keeps; more than may be if it does not say so, because
    /// it has more to do than it can.
    async fn kept(&self) -> i64 {
        let asked = self.daemon().get_metrics();
        match asked {
            Ok(answer) => match tokio::time::timeout(PATIENCE, answer.recv_async()).await {
                Ok(Ok(metrics)) => kept(&metrics),
                _ => i64::MAX,
            },
            Err(_) => i64::MAX,
        }
    }

    /// The old daemon ends first: it would defend the hub's name against the
    /// new one.
    async fn begin_anew(&self) {
        self.end().await;
        self.seen.send_replace(std::collections::HashMap::new());
        match begin(&self.info, &self.place, &self.seen) {
            Ok(daemon) => *self.daemon() = daemon,
            Err(error) => tracing::error!(%error, "discovery did not begin anew; it is tried again"),
        }
    }

    async fn end(&self) {
        let asked = self.daemon().shutdown();
        if let Ok(done) = asked {
            let _ = tokio::time::timeout(PATIENCE, done.recv_async()).await;
        }
    }

    /// Takes the hub's leave and ends.
    pub(super) async fn stop(&self) {
        let asked = self.daemon().unregister(self.info.get_fullname());
        if let Ok(done) = asked {
            let _ = done.recv_async().await;
        }
        self.end().await;
    }

    fn daemon(&self) -> MutexGuard<'_, ServiceDaemon> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn begin(info: &ServiceInfo, place: &Place, seen: &Seen) -> Result<ServiceDaemon, mdns_sd::Error> {
    let daemon = ServiceDaemon::new_with_port(place.port)?;
    daemon.disable_interface(IfKind::All)?;
    let Place {
        interfaces, listen, ..
    } = place.clone();
    daemon.enable_interface(IfKind::Predicate(IfPredicate::new(move |interface| {
        takes_part(&interfaces, interface) && serves(listen, interface.ip())
    })))?;
    daemon.register(info.clone())?;
    let events = daemon.browse(MDNS_DEVICE_TYPE)?;
    tokio::spawn(collect(events, Arc::clone(seen)));
    Ok(daemon)
}

/// Records and timers. A record that changes all the time is one, and leaves
/// its timers.
fn kept(metrics: &Metrics) -> i64 {
    let counts = metrics
        .iter()
        .filter(|(name, _)| name.starts_with("cached-") || *name == "timer");
    counts.map(|(_, count)| *count).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::UdpSocket;

    use hub_protocol::MDNS_HUB_TYPE;
    use mdns_sd::ServiceEvent;
    use tokio::sync::watch;

    use super::*;

    const GROUP: &str = "224.0.0.251";

    /// An mDNS response with addresses of names that nobody has, for an hour.
    fn made_up(from: u32, count: u16) -> Vec<u8> {
        let mut packet = vec![0, 0, 0x84, 0, 0, 0];
        packet.extend(count.to_be_bytes());
        packet.extend([0; 4]);
        for number in from..from + u32::from(count) {
            let name = format!("n{number:07}");
            packet.push(u8::try_from(name.len()).unwrap());
            packet.extend(name.as_bytes());
            packet.extend(b"\x05local\x00\x00\x01\x00\x01\x00\x00\x0e\x10\x00\x04");
            packet.extend(number.to_be_bytes());
        }
        packet
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn names_that_somebody_makes_up_fill_no_memory_and_the_hub_is_found_again() {
        // A port of its own: nobody else on this machine is flooded.
        let port = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let listen = SocketAddr::from(([127, 0, 0, 1], 7411));
        let place = Place {
            interfaces: vec!["lo".into()],
            listen,
            port,
        };
        let info = ServiceInfo::new(
            MDNS_HUB_TYPE,
            "hub",
            "hub-1.local.",
            listen.ip(),
            7411,
            &[("v", "6")][..],
        );
        let seen = Seen::new(watch::Sender::new(HashMap::new()));
        let mdns = Arc::new(Mdns::start(info.unwrap(), place.clone(), seen).unwrap());
        let counts = Arc::<Counts>::default();
        let watching = {
            let (mdns, counts) = (Arc::clone(&mdns), Arc::clone(&counts));
            tokio::spawn(async move { mdns.watch(&counts, || 0).await })
        };
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut number = 0;
        let flood = async {
            while !counts.report().contains_key("discovery-records") {
                if sender.send_to(&made_up(number, 32), (GROUP, port)).is_err() || number > 2_000_000 {
                    return false;
                }
                number += 32;
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
            true
        };
        if !tokio::time::timeout(Duration::from_secs(120), flood)
            .await
            .unwrap()
        {
            eprintln!("skipped: no multicast on loopback here");
            return;
        }
        let device = ServiceDaemon::new_with_port(port).unwrap();
        device.disable_interface(IfKind::All).unwrap();
        device.enable_interface("lo").unwrap();
        let events = device.browse(MDNS_HUB_TYPE).unwrap();
        let found = async {
            while let Ok(event) = events.recv_async().await {
                if matches!(event, ServiceEvent::ServiceResolved(_)) {
                    return;
                }
            }
            panic!("the daemon is gone");
        };
        tokio::time::timeout(Duration::from_secs(60), found)
            .await
            .unwrap();
        assert!(mdns.kept().await < MOST_KEPT, "what was made up is forgotten");
        watching.abort();
        mdns.stop().await;
        device.shutdown().unwrap();
    }
}
