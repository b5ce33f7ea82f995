//! The acquirer written in Python, as a child process.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::setting::Certificates;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/peers/iso8583_acquirer.py");

/// A Python that has pyiso8583: the one named in `HUB_PEER_PYTHON`, or the
/// machine's. Without one, says so and gives `None`; in CI that is a failure.
#[allow(clippy::print_stdout)] // the line is for whoever runs the tests
pub(crate) fn python() -> Option<String> {
    let python = std::env::var("HUB_PEER_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has_it = Command::new(&python)
        .args(["-c", "import iso8583"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if has_it {
        return Some(python);
    }
    let why = format!("{python} has no pyiso8583; `.ci/run peers` makes one that has");
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!ci, "iso8583 peer: {why}, and in CI nothing is skipped");
    println!("skipped: iso8583 peer: {why}");
    None
}

pub(crate) struct Peer {
    child: Child,
    pub(crate) port: u16,
    control: BufReader<TcpStream>,
}

impl Peer {
    /// Starts an acquirer that speaks a dialect; with `known_hubs`, it wants a
    /// certificate of the CA from each hub.
    pub(crate) fn start(
        python: &str,
        dialect: &str,
        certificates: &Certificates,
        known_hubs: Option<&Path>,
    ) -> Self {
        let mut command = Command::new(python);
        command.args([PROGRAM, "serve", "--dialect", dialect]);
        command.arg("--cert").arg(&certificates.server.0);
        command.arg("--key").arg(&certificates.server.1);
        if let Some(ca) = known_hubs {
            command.arg("--client-ca").arg(ca);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ports: Value = serde_json::from_str(&line).expect("the acquirer starts");
        let port = |name: &str| u16::try_from(ports[name].as_u64().unwrap()).unwrap();
        let control = TcpStream::connect(("127.0.0.1", port("control"))).unwrap();
        Self {
            child,
            port: port("port"),
            control: BufReader::new(control),
        }
    }

    fn control(&mut self, request: &Value) -> Value {
        writeln!(self.control.get_mut(), "{request}").unwrap();
        let mut line = String::new();
        self.control.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    pub(crate) fn set(&mut self, mode: &str, code: &str) {
        self.control(&json!({"do": "set", "mode": mode, "code": code}));
    }

    pub(crate) fn cut(&mut self) {
        self.control(&json!({"do": "cut"}));
    }

    pub(crate) fn ask_for_echo(&mut self) {
        self.control(&json!({"do": "echo"}));
    }

    /// Book, faults and counts.
    pub(crate) fn state(&mut self) -> Value {
        self.control(&json!({"do": "book"}))
    }

    /// The one line of the book, where the hub did nothing wrong.
    pub(crate) fn line(&mut self) -> Value {
        let state = self.state();
        assert_eq!(state["faults"], json!([]));
        assert_eq!(state["book"].as_array().unwrap().len(), 1, "{state}");
        state["book"][0].clone()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the acquirer reads the golden messages and writes the same bytes.
pub(crate) fn check_golden(python: &str) -> Value {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/iso8583");
    let done = Command::new(python)
        .args([PROGRAM, "golden", golden])
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&done.stderr);
    serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{err}"))
}
