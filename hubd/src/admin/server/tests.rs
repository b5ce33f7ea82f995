use std::sync::Mutex;

use hub_core::Disclosed;
use hub_protocol::entry::Finding;
use hub_protocol::{DeviceId, Digest, PaymentId};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::admin::protocol::{
    DeviceReport, EnrolReport, FleetReport, KeyReport, ListReport, PolicyReport, QueueReport, RootReport,
    RotationReport, StatusReport, TlsStep,
};

/// Notes what it is asked.
#[derive(Default)]
struct Notebook {
    asked: Mutex<Vec<String>>,
}

impl Notebook {
    fn note(&self, text: String) {
        self.asked.lock().unwrap().push(text);
    }
}

impl Backend for Notebook {
    async fn status(&self) -> Result<StatusReport, Refused> {
        Ok(StatusReport {
            store: "Épicerie du Port".to_owned(),
            ..StatusReport::default()
        })
    }
    async fn devices(&self) -> Result<Vec<DeviceReport>, Refused> {
        // Longer than any answer may be.
        let device = DeviceReport {
            name: "x".repeat(MAX_ANSWER),
            ..DeviceReport::default()
        };
        Ok(vec![device])
    }
    async fn enrol(&self, operator: Operator, _order: EnrolOrder) -> Result<EnrolReport, Refused> {
        self.note(format!("{operator} enrol"));
        Ok(EnrolReport::default())
    }
    async fn fleet(&self) -> Result<FleetReport, Refused> {
        Ok(FleetReport::default())
    }
    async fn withdraw(&self, operator: Operator, token: Digest) -> Result<(), Refused> {
        self.note(format!("{operator} withdraw {token}"));
        Ok(())
    }
    async fn take_list(&self, operator: Operator, signed: Vec<u8>) -> Result<ListReport, Refused> {
        self.note(format!("{operator} list {}", signed.len()));
        Ok(ListReport::default())
    }
    async fn approve(&self, operator: Operator, device: DeviceId) -> Result<(), Refused> {
        self.note(format!("{operator} approve {device}"));
        Ok(())
    }
    async fn block(&self, operator: Operator, device: DeviceId) -> Result<(), Refused> {
        self.note(format!("{operator} block {device}"));
        Ok(())
    }
    async fn lost(&self, operator: Operator, device: DeviceId) -> Result<(), Refused> {
        self.note(format!("{operator} lost {device}"));
        Ok(())
    }
    async fn unblock(&self, _: Operator, device: DeviceId) -> Result<(), Refused> {
        Err(Refused::new(format!("no device {device}")))
    }
    async fn queue(&self, limit: usize, parked_only: bool) -> Result<QueueReport, Refused> {
        self.note(format!("queue {limit} {parked_only}"));
        Ok(QueueReport::default())
    }
    async fn drain(&self, _: Operator) -> Result<(), Refused> {
        Err(Refused::unavailable("stopping"))
    }
    async fn disclosed(&self, operator: Operator, disclosed: Disclosed) -> Result<(), Refused> {
        self.note(format!("{operator} disclosed {}", disclosed.entries));
        Ok(())
    }
    async fn release(&self, operator: Operator, payment: PaymentId, not_there: bool) -> Result<(), Refused> {
        self.note(format!("{operator} release {payment} {not_there}"));
        Ok(())
    }
    async fn close(
        &self,
        operator: Operator,
        payment: PaymentId,
        finding: Finding,
        note: String,
    ) -> Result<(), Refused> {
        self.note(format!("{operator} close {payment} {finding} {note}"));
        Ok(())
    }
    async fn park(&self, operator: Operator, payment: PaymentId) -> Result<(), Refused> {
        self.note(format!("{operator} park {payment}"));
        Ok(())
    }
    async fn lift(&self, operator: Operator, device: Option<DeviceId>) -> Result<(), Refused> {
        self.note(format!("{operator} lift {device:?}"));
        Ok(())
    }
    async fn confirm_clock(&self, operator: Operator, told_ms: u64) -> Result<(), Refused> {
        self.note(format!("{operator} clock {told_ms}"));
        Ok(())
    }
    async fn archive_exported(&self, operator: Operator, number: u32, digest: Digest) -> Result<(), Refused> {
        self.note(format!("{operator} exported {number} {digest}"));
        Ok(())
    }
    async fn remove_archives(&self, operator: Operator, through: u32) -> Result<(), Refused> {
        self.note(format!("{operator} remove {through}"));
        Ok(())
    }
    async fn keys(&self) -> Result<Vec<KeyReport>, Refused> {
        Ok(vec![KeyReport {
            purpose: "signing".to_owned(),
            holder: "the hub".to_owned(),
            id: Some("ab".repeat(16)),
            public: Some("cd".repeat(32)),
            since_ms: Some(1_767_225_600_000),
            changes: Some(2),
        }])
    }
    async fn rotate_signing_key(
        &self,
        operator: Operator,
        confirmed: bool,
    ) -> Result<RotationReport, Refused> {
        self.note(format!("{operator} rotate signing {confirmed}"));
        Ok(RotationReport {
            which: "signing".to_owned(),
            changed: true,
            keys: self.keys().await?,
            ..RotationReport::default()
        })
    }
    async fn rotate_tls_key(
        &self,
        operator: Operator,
        step: TlsStep,
        confirmed: bool,
    ) -> Result<RotationReport, Refused> {
        self.note(format!("{operator} rotate tls {step:?} {confirmed}"));
        Ok(RotationReport {
            which: "tls".to_owned(),
            unconfirmed: !confirmed,
            overlap: step == TlsStep::Begin,
            enrolled: 3,
            too_old: vec!["Caisse 1".to_owned()],
            keys: self.keys().await?,
            ..RotationReport::default()
        })
    }

    async fn rotate_vault_key(&self, operator: Operator) -> Result<Vec<KeyReport>, Refused> {
        self.note(format!("{operator} rotate vault"));
        self.keys().await
    }
    async fn apply_root(&self, operator: Operator, signed: Vec<u8>) -> Result<RootReport, Refused> {
        self.note(format!("{operator} root {signed:?}"));
        Ok(RootReport::default())
    }
    async fn install_policy(&self, _: Operator, signed: Vec<u8>) -> Result<PolicyReport, Refused> {
        self.note(format!("policy {signed:?}"));
        Ok(PolicyReport {
            version: 2,
            expires_ms: None,
        })
    }
}

struct Running {
    _dir: TempDir,
    path: PathBuf,
    backend: Arc<Notebook>,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

fn start() -> Running {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hubd.sock");
    let settings = Settings { socket: path.clone() };
    let server = AdminServer::bind(&settings).unwrap();
    let backend = Arc::new(Notebook::default());
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(server.serve(backend.clone(), async {
        let _ = stopped.await;
    }));
    Running {
        _dir: dir,
        path,
        backend,
        stop: Some(stop),
        task,
    }
}

struct Peer {
    read: BufReader<tokio::net::unix::OwnedReadHalf>,
    write: tokio::net::unix::OwnedWriteHalf,
}

impl Peer {
    async fn connect(path: &Path) -> Self {
        let (read, write) = UnixStream::connect(path).await.unwrap().into_split();
        Self {
            read: BufReader::new(read),
            write,
        }
    }

    async fn answer(&mut self) -> Answer {
        let mut line = String::new();
        timeout(Duration::from_secs(20), self.read.read_line(&mut line))
            .await
            .expect("an answer in time")
            .unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    async fn ask(&mut self, line: &str) -> Answer {
        self.write.write_all(line.as_bytes()).await.unwrap();
        self.write.write_all(b"\n").await.unwrap();
        self.answer().await
    }

    async fn closed(&mut self) -> bool {
        let mut rest = Vec::new();
        let read = timeout(Duration::from_secs(20), self.read.read_to_end(&mut rest)).await;
        // A reset is as closed as an end.
        !matches!(read.expect("closed in time"), Ok(1..))
    }
}

fn code(answer: &Answer) -> Option<ErrorCode> {
    match answer {
        Answer::Error { code, .. } => Some(*code),
        _ => None,
    }
}

#[tokio::test]
async fn one_connection_gets_a_line_for_a_line() {
    let running = start();
    let mut peer = Peer::connect(&running.path).await;
    let Answer::Status(status) = peer.ask(r#"{"command":"status"}"#).await else {
        panic!("a status expected")
    };
    assert_eq!(status.store, "Épicerie du Port");
    let device = "ab".repeat(32);
    let block = format!(r#"{{"command":"block","device":"{device}"}}"#);
    assert_eq!(peer.ask(&block).await, Answer::Done);
    let payment = "00112233-4455-6677-8899-aabbccddeeff";
    let release = format!(r#"{{"command":"release","payment_id":"{payment}"}}"#);
    assert_eq!(peer.ask(&release).await, Answer::Done);
    let not_there = format!(r#"{{"command":"release","payment_id":"{payment}","not_there":true}}"#);
    assert_eq!(peer.ask(&not_there).await, Answer::Done);
    let close = format!(r#"{{"command":"close","payment_id":"{payment}","finding":"undone","note":"desk"}}"#);
    assert_eq!(peer.ask(&close).await, Answer::Done);
    let park = format!(r#"{{"command":"park","payment_id":"{payment}"}}"#);
    assert_eq!(peer.ask(&park).await, Answer::Done);
    let install = peer.ask(r#"{"command":"policy-install","policy":"AQI="}"#).await;
    assert!(matches!(install, Answer::Policy(PolicyReport { version: 2, .. })));
    let uid = rustix::process::geteuid().as_raw();
    assert_eq!(
        *running.backend.asked.lock().unwrap(),
        [
            format!("uid {uid} block {device}"),
            format!("uid {uid} release {payment} false"),
            format!("uid {uid} release {payment} true"),
            format!("uid {uid} close {payment} undone desk"),
            format!("uid {uid} park {payment}"),
            "policy [1, 2]".to_owned()
        ]
    );
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_connection_goes_on() {
    let running = start();
    let mut peer = Peer::connect(&running.path).await;
    let malformed = [
        "",
        "status",
        r#"{"command":"stop"}"#,
        r#"{"command":"queue","limit":10,"offset":3}"#,
        r#"{"command":"queue","limit":0}"#,
        r#"{"command":"queue","limit":1001}"#,
        r#"{"command":"block","device":"abc"}"#,
        r#"{"command":"close","payment_id":"00112233-4455-6677-8899-aabbccddeeff","finding":"lost","note":"x"}"#,
        r#"{"command":"close","payment_id":"00112233-4455-6677-8899-aabbccddeeff","finding":"taken"}"#,
        r#"{"command":"release","payment_id":"00112233445566778899aabbccddeeff"}"#,
        r#"{"command":"policy-install","policy":"*"}"#,
    ];
    for line in malformed {
        let answer = peer.ask(line).await;
        assert_eq!(code(&answer), Some(ErrorCode::Malformed), "{line}: {answer:?}");
    }
    assert!(matches!(
        peer.ask(r#"{"command":"status"}"#).await,
        Answer::Status(_)
    ));
    assert!(running.backend.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_refusal_of_the_hub_comes_through_with_its_kind() {
    let running = start();
    let mut peer = Peer::connect(&running.path).await;
    let unblock = format!(r#"{{"command":"unblock","device":"{}"}}"#, "cd".repeat(32));
    assert_eq!(code(&peer.ask(&unblock).await), Some(ErrorCode::Refused));
    assert_eq!(
        code(&peer.ask(r#"{"command":"drain"}"#).await),
        Some(ErrorCode::Unavailable)
    );
}

#[tokio::test]
async fn a_line_that_is_too_long_is_refused_and_the_connection_closed() {
    let running = start();
    let mut peer = Peer::connect(&running.path).await;
    // The server stops reading in the middle, so the write may fail.
    let _ = peer.write.write_all(&vec![b'x'; MAX_REQUEST + 1]).await;
    assert_eq!(code(&peer.answer().await), Some(ErrorCode::Malformed));
    assert!(peer.closed().await);
}

#[tokio::test]
async fn an_answer_that_is_too_long_becomes_a_refusal() {
    let running = start();
    let mut peer = Peer::connect(&running.path).await;
    assert_eq!(
        code(&peer.ask(r#"{"command":"devices"}"#).await),
        Some(ErrorCode::Refused)
    );
}

#[tokio::test]
async fn one_connection_too_many_is_told_to_come_again() {
    let running = start();
    let mut open = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut peer = Peer::connect(&running.path).await;
        assert!(matches!(
            peer.ask(r#"{"command":"status"}"#).await,
            Answer::Status(_)
        ));
        open.push(peer);
    }
    let mut extra = Peer::connect(&running.path).await;
    assert_eq!(code(&extra.answer().await), Some(ErrorCode::Unavailable));
    assert!(extra.closed().await);
    assert!(matches!(
        open[0].ask(r#"{"command":"status"}"#).await,
        Answer::Status(_)
    ));
}

#[tokio::test]
async fn the_socket_is_private_and_goes_with_the_server() {
    let mut running = start();
    let mode = running.path.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let mut peer = Peer::connect(&running.path).await;
    running.stop.take().unwrap().send(()).unwrap();
    (&mut running.task).await.unwrap();
    assert!(!running.path.exists());
    assert!(peer.closed().await);
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let running = start();
    let settings = Settings {
        socket: running.path.clone(),
    };
    assert!(matches!(AdminServer::bind(&settings), Err(AdminError::InUse(_))));
    running.task.abort();
    let _ = running.task.await;
    assert!(running.path.exists(), "an aborted server leaves its socket");
    AdminServer::bind(&settings).unwrap();
    std::fs::remove_file(&running.path).unwrap();
    std::fs::write(&running.path, "precious").unwrap();
    assert!(matches!(
        AdminServer::bind(&settings),
        Err(AdminError::NotASocket(_))
    ));
    assert_eq!(std::fs::read(&running.path).unwrap(), b"precious");
}

#[test]
fn only_root_and_the_hubs_own_user_may_ask() {
    for (peer, own, expected) in [
        (0, 990, true),
        (990, 990, true),
        (991, 990, false),
        (1000, 0, false),
        (0, 0, true),
    ] {
        assert_eq!(may_ask(peer, own), expected, "{peer} asks {own}");
    }
}
