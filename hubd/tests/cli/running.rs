//! A hub as systemd runs it.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{HUBD, Hub, path};

/// What systemd would hear, and how long it may take.
struct Notified(UnixDatagram);

impl Notified {
    fn wait_for(&self, wanted: &str) {
        let mut heard = [0; 4096];
        loop {
            let length = self
                .0
                .recv(&mut heard)
                .unwrap_or_else(|error| panic!("no {wanted}: {error}"));
            let text = std::str::from_utf8(&heard[..length]).unwrap();
            if text.lines().any(|line| line == wanted) {
                return;
            }
        }
    }
}

/// Ends with the test, however that ends.
pub(super) struct Running {
    child: Child,
    notified: Notified,
}

impl Running {
    pub(super) fn start(hub: &Hub) -> Self {
        Self::start_with(hub, None)
    }

    /// With credentials from this folder, as systemd gives them.
    pub(super) fn start_with(hub: &Hub, credentials: Option<&Path>) -> Self {
        let socket = hub.file("notify.sock");
        let _ = std::fs::remove_file(&socket);
        let notified = UnixDatagram::bind(&socket).unwrap();
        notified.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let child = Command::new(HUBD)
            .args(["run", "--dir", path(&hub.dir)])
            .env("NOTIFY_SOCKET", &socket)
            .env_remove("RUST_LOG")
            .envs(credentials.map(|folder| ("CREDENTIALS_DIRECTORY", folder)))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let running = Self {
            child,
            notified: Notified(notified),
        };
        running.notified.wait_for("READY=1");
        running
    }

    pub(super) fn terminate(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.notified.wait_for("STOPPING=1");
        assert!(self.child.wait().unwrap().success());
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9
    pub(super) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn loopback() -> Hub {
    let hub = Hub::init(&[
        "--listen",
        "127.0.0.1:0",
        "--enrol-listen",
        "127.0.0.1:0",
        "--gateway",
        "https://127.0.0.1:9",
    ]);
    hub.edit("enabled = true", "enabled = false");
    hub
}

/// Between being ready and heeding signals there was a moment in which SIGTERM
/// ended the process as it does any other.
#[test]
fn a_hub_that_is_stopped_the_moment_it_is_ready_stops_in_good_order() {
    let hub = loopback();
    for _ in 0..5 {
        Running::start(&hub).terminate();
    }
}

#[test]
fn a_hub_says_ready_answers_hubctl_and_stops_in_good_order_on_sigterm() {
    let hub = loopback();
    let running = Running::start(&hub);
    let status = hub.hubctl(&["status", "--json"]);
    assert_eq!(status.code, 0, "{status:?}");
    assert_eq!(status.json()["store_id"], "shop-001");
    assert_eq!(status.json()["policy"]["version"], 1);
    let code = hub.hubctl(&["enrol", "--json"]).json();
    assert!(code["code"].as_str().unwrap().starts_with("HUB1-"), "{code}");
    running.terminate();
    assert!(!hub.file("hubd.sock").exists());
    let verified = hub.hubctl(&["ledger", "verify", "--json"]);
    assert_eq!(verified.code, 0, "{verified:?}");
    assert_eq!(verified.json()["kinds"]["hub-stopped"], 1, "{verified:?}");
}

#[test]
fn two_hubs_never_run_on_one_folder() {
    let hub = loopback();
    let running = Running::start(&hub);
    let second = hub.hubd("run", &[]);
    assert_eq!(second.code, 75, "systemd does not try that again: {second:?}");
    assert!(second.stderr.contains("in use by another process"), "{second:?}");
    assert_eq!(hub.hubctl(&["status"]).code, 0, "the first goes on");
    running.terminate();
}

#[test]
fn an_installed_policy_is_in_force_and_stays_so_after_a_kill() {
    let hub = loopback();
    let running = Running::start(&hub);
    let text = std::fs::read_to_string(hub.file("policy.toml")).unwrap();
    let (second, signed) = (hub.file("second.toml"), hub.file("second.cose"));
    std::fs::write(&second, text.replace("version = 1 ", "version = 2 ")).unwrap();
    let key = hub.file("keys/policy-local.key");
    let said = hub.hubctl(&[
        "policy",
        "sign",
        "--key",
        path(&key),
        path(&second),
        path(&signed),
    ]);
    assert_eq!(said.code, 0, "{said:?}");
    let said = hub.hubctl(&["policy", "install", path(&signed), "--json"]);
    assert_eq!(
        (said.code, said.json()["version"].as_u64()),
        (0, Some(2)),
        "{said:?}"
    );
    running.kill();
    let running = Running::start(&hub);
    assert_eq!(hub.hubctl(&["status", "--json"]).json()["policy"]["version"], 2);
    // An older one does not come back.
    let said = hub.hubctl(&["policy", "install", path(&hub.file("policy.cose"))]);
    assert_eq!(said.code, 0, "the one in force again changes nothing: {said:?}");
    let first = hub.file("first.cose");
    let said = hub.hubctl(&[
        "policy",
        "sign",
        "--key",
        path(&key),
        path(&hub.file("policy.toml")),
        path(&first),
    ]);
    assert_eq!(said.code, 0, "{said:?}");
    let said = hub.hubctl(&["policy", "install", path(&first)]);
    assert_eq!(said.code, 1, "{said:?}");
    running.terminate();
}
