//! Several hosts on one machine: network namespaces, joined by bridges.
//!
//! Everything carries this process's id in its name and is taken down when
//! the test ends. Nothing reaches the machine's own network.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::machine;

/// Why namespaces cannot be had here, if so; in CI that is a failure.
pub fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root");
    }
    let works = Command::new("ip")
        .args(["netns", "list"])
        .output()
        .is_ok_and(|out| out.status.success());
    (!works).then_some("needs iproute2 and network namespaces")
}

/// Prints the one line and says whether to skip. In CI nothing is skipped.
pub fn skip(suite: &str) -> bool {
    machine::skip(suite, missing().map(str::to_owned))
}

/// The machine's hosts and the networks between them.
pub struct Hosts {
    tag: String,
    names: Vec<String>,
}

impl Hosts {
    /// A switch with the named networks, and nothing plugged in.
    pub fn new(networks: &[&str]) -> Result<Self> {
        let mut hosts = Self {
            tag: format!("h{}", std::process::id()),
            names: Vec::new(),
        };
        hosts.add("sw")?;
        for network in networks {
            hosts.ip(
                "sw",
                &["link", "add", network, "type", "bridge", "mcast_snooping", "0"],
            )?;
            hosts.ip("sw", &["link", "set", network, "up"])?;
        }
        Ok(hosts)
    }

    fn full(&self, host: &str) -> String {
        format!("{}-{host}", self.tag)
    }

    /// A new host.
    pub fn add(&mut self, host: &str) -> Result<()> {
        let name = self.full(host);
        run(Command::new("ip").args(["netns", "add", &name]))?;
        self.names.push(name);
        self.ip(host, &["link", "set", "lo", "up"])
    }

    /// `ip …` on a host.
    pub fn ip(&self, host: &str, args: &[&str]) -> Result<()> {
        run(Command::new("ip").arg("-n").arg(self.full(host)).args(args))
    }

    /// Plugs a host's interface into a network, with an address.
    pub fn plug(&self, host: &str, interface: &str, network: &str, address: &str) -> Result<()> {
        let port = format!("{host}-{interface}");
        let (name, switch) = (self.full(host), self.full("sw"));
        run(Command::new("ip").args([
            "-n", &switch, "link", "add", &port, "type", "veth", "peer", "name", interface, "netns", &name,
        ]))?;
        self.ip("sw", &["link", "set", &port, "master", network, "up"])?;
        self.ip(host, &["addr", "add", address, "dev", interface])?;
        self.ip(host, &["link", "set", interface, "up"])?;
        // One for each interface of a host.
        self.ip(host, &["route", "append", "224.0.0.0/4", "dev", interface])
    }

    /// The interface falls off its network.
    pub fn unplug(&self, host: &str, interface: &str) -> Result<()> {
        self.ip("sw", &["link", "set", &format!("{host}-{interface}"), "nomaster"])?;
        self.ip(host, &["addr", "flush", "dev", interface])
    }

    /// The interface comes up on another network, with another address.
    pub fn replug(&self, host: &str, interface: &str, network: &str, address: &str) -> Result<()> {
        self.ip(
            "sw",
            &["link", "set", &format!("{host}-{interface}"), "master", network],
        )?;
        self.ip(host, &["addr", "add", address, "dev", interface])?;
        // The kernel took the multicast route away with the old address.
        self.ip(host, &["route", "replace", "224.0.0.0/4", "dev", interface])
    }

    /// A command that runs on a host.
    pub fn command(&self, host: &str, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.full(host)]).arg(program);
        command
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in self.names.iter().rev() {
            // One that is gone already is as good.
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let done = command.output().context("cannot start ip")?;
    if !done.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}
