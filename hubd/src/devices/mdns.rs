//! The mDNS library's daemon, kept within bounds.
//!
//! The library keeps every record that it takes for wanted for as long as its
//! sender says, and has no bound of its own. What it takes is not only what is
//! browsed for: an answer with no PTR record in it is kept by a daemon that
//! only announces, too. So a second daemon for the announcement would have to
//! be watched as well, and there is one: it is asked how much it holds every
//! second, ended when that is too much, and its memory with it, and another
//! one announces the hub at once. Devices are browsed for again after a pause.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use mdns_sd::{Error, IfKind, IfPredicate, Metrics, Receiver, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::bounds::{Bound, Counts, Lines};
use super::discovery::{self, Seen};

/// The most records that the library may hold. A shop's network has some ten
/// for each thing that announces itself.
pub(super) const MAX_RECORDS: i64 = 4096;

/// Of these, the most texts: one fills a packet of 9000 bytes, the others are
/// names.
pub(super) const MAX_TEXTS: i64 = 1024;

/// The most moments at which it wants to wake, of 16 bytes: each record that
/// comes again adds two that stay until it would expire.
pub(super) const MAX_TIMERS: i64 = 262_144;

/// The most names of devices that it may have met: it forgets none.
pub(super) const MAX_NAMES: usize = 4096;

/// How often it is asked what it holds: what strangers send meanwhile comes on
/// top. Also the least time from one daemon to the next.
pub(super) const WATCH: Duration = Duration::from_secs(1);

/// How long it may take to say so.
const ANSWER: Duration = Duration::from_secs(5);

/// How long no device is browsed for after too much was held.
pub(super) const PAUSE: Duration = Duration::from_secs(60);

/// What is announced, and where.
pub(super) struct Announcement {
    pub(super) info: ServiceInfo,
    pub(super) interfaces: IfPredicate,
    pub(super) port: u16,
    /// [`PAUSE`].
    pub(super) pause: Duration,
}

impl Announcement {
    /// A daemon that announces the hub and browses for nothing.
    pub(super) fn begin(&self) -> Result<ServiceDaemon, Error> {
        let daemon = ServiceDaemon::new_with_port(self.port)?;
        self.announce(&daemon).inspect_err(|_| {
            // Its thread would stay for ever.
            let _ = daemon.shutdown();
        })?;
        Ok(daemon)
    }

    fn announce(&self, daemon: &ServiceDaemon) -> Result<(), Error> {
        daemon.disable_interface(IfKind::All)?;
        daemon.enable_interface(IfKind::Predicate(self.interfaces.clone()))?;
        daemon.register(self.info.clone())
    }

    /// Announces and browses until it is to leave, or nobody is there who
    /// could say so.
    pub(super) async fn keep_up(
        self,
        mut daemon: ServiceDaemon,
        seen: Seen,
        counts: Arc<Counts>,
        mut leave: watch::Receiver<bool>,
    ) {
        let began = Instant::now();
        let mut lines = Lines::new(0);
        let mut browse_at = began;
        loop {
            tokio::select! {
                () = filled(&daemon) => {}
                () = browse(&daemon, browse_at, &seen) => {}
                () = told(&mut leave) => return self.take_leave(&daemon).await,
            }
            counts.count(Bound::MdnsRecords);
            if let Some(left_out) = lines.next(began.elapsed().as_millis() as u64) {
                tracing::warn!(
                    left_out,
                    "somebody fills the network with mDNS announcements: all of them were dropped; the hub is \
                     announced anew, and looks for devices again in {} s. Find out who sends them if this goes on",
                    self.pause.as_secs()
                );
            }
            vanish(&daemon).await;
            daemon = tokio::select! {
                daemon = self.begin_again() => daemon,
                () = told(&mut leave) => return,
            };
            browse_at = Instant::now() + self.pause;
        }
    }

    async fn begin_again(&self) -> ServiceDaemon {
        loop {
            match self.begin() {
                Ok(daemon) => return daemon,
                Err(error) => {
                    tracing::warn!(
                        %error,
                        "the hub cannot be announced over mDNS and tries again in {} s; devices find it at the \
                         addresses that they know",
                        self.pause.as_secs()
                    );
                    sleep(self.pause).await;
                }
            }
        }
    }

    /// Tells the network that the hub goes, and ends the daemon.
    async fn take_leave(&self, daemon: &ServiceDaemon) {
        if let Ok(done) = daemon.unregister(self.info.get_fullname()) {
            let _ = done.recv_async().await;
        }
        shut_down(daemon).await;
    }
}

/// Ends when the hub is to leave.
async fn told(leave: &mut watch::Receiver<bool>) {
    let _ = leave.wait_for(|leave| *leave).await;
}

/// Ends the daemon without a word to the network: devices go on knowing the
/// hub until it is announced anew. Without interfaces it takes no leave.
async fn vanish(daemon: &ServiceDaemon) {
    let _ = daemon.disable_interface(IfKind::All);
    shut_down(daemon).await;
}

/// Waits for its end, so that there is one daemon at a time whatever comes in.
async fn shut_down(daemon: &ServiceDaemon) {
    loop {
        match daemon.shutdown() {
            Ok(done) => {
                let _ = done.recv_async().await;
                return;
            }
            Err(Error::Again) => sleep(WATCH).await,
            Err(_) => return,
        }
    }
}

/// Ends when the daemon holds too much, or does not say what it holds: it
/// reads what comes in before it answers.
async fn filled(daemon: &ServiceDaemon) {
    loop {
        sleep(WATCH).await;
        let Ok(answer) = daemon.get_metrics() else { return };
        match timeout(ANSWER, answer.recv_async()).await {
            Ok(Ok(metrics)) if !is_too_much(&metrics) => {}
            _ => return,
        }
    }
}

/// All records of others and the hub's own, by the library's counters.
fn is_too_much(metrics: &Metrics) -> bool {
    let of = |name: &str| metrics.get(name).copied().unwrap_or_default();
    let records = metrics
        .iter()
        .filter(|(name, _)| name.starts_with("cached-") || name.starts_with("dns-registry-"))
        .fold(0_i64, |sum, (_, count)| sum.saturating_add(*count));
    records > MAX_RECORDS || of("cached-txt") > MAX_TEXTS || of("timer") > MAX_TIMERS
}

/// Browses from a moment on. Ends when too many names were heard, or the
/// library ended it: it does so if events come faster than they are read.
async fn browse(daemon: &ServiceDaemon, at: Instant, seen: &Seen) {
    sleep_until(at).await;
    if let Ok(events) = daemon.browse(hub_protocol::MDNS_DEVICE_TYPE) {
        hear(events, seen).await;
    }
}

async fn hear(events: Receiver<ServiceEvent>, seen: &Seen) {
    let mut names = Names::default();
    // What the daemon before has shown, and this one has not: who went while
    // nobody listened takes no leave.
    let mut before: HashSet<String> = seen.borrow().keys().cloned().collect();
    let settled = Instant::now() + PAUSE;
    loop {
        tokio::select! {
            event = events.recv_async() => {
                let Ok(event) = event else { return };
                match &event {
                    ServiceEvent::ServiceFound(_, name) if names.are_too_many(name) => return,
                    ServiceEvent::ServiceResolved(service) => {
                        before.remove(&service.fullname);
                    }
                    _ => {}
                }
                seen.send_modify(|seen| discovery::note(seen, event));
            }
            () = sleep_until(settled), if !before.is_empty() => {
                let gone = std::mem::take(&mut before);
                seen.send_modify(|seen| seen.retain(|name, _| !gone.contains(name)));
            }
        }
    }
}

/// How many different names were heard.
#[derive(Default)]
struct Names {
    by: RandomState,
    heard: HashSet<u64>,
}

impl Names {
    fn are_too_many(&mut self, name: &str) -> bool {
        self.heard.insert(self.by.hash_one(name));
        self.heard.len() > MAX_NAMES
    }
}

#[cfg(test)]
#[path = "mdns_tests.rs"]
mod tests;
