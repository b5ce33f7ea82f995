//! The simulated gateway: a PSP with a book of its own on disk, real
//! protection against duplicates, and faults that can be switched on while it
//! runs.
//!
//! It speaks the API of `docs/gateway-api.md` over HTTPS with a certificate
//! of its own (`gateway-ca.pem` in its folder). Files in that folder:
//! `book.jsonl` (append-only; flushed before any answer), `settlement.csv`
//! (on demand), `gateway.credential`, `card-key.json` (what devices seal cards to), and the key and TLS files. A gateway started
//! again in the same folder keeps its book, its certificate and its
//! credential.

mod api;
mod book;
mod card_key;
mod check;
mod control;
#[cfg(test)]
mod documents;
mod faults;
mod journal;
mod problem;
mod settlement;
mod state;
mod tls;
mod under_way;
mod wire;

use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hub_protocol::PaymentId;
use tokio::task::JoinHandle;

pub use book::{BookPayment, BookStatus};
pub use faults::{Canned, Faults};
pub use settlement::Settlement;
pub use state::GatewayCounts;
pub use under_way::Beside;

use card_key::CardOpener;
use state::Shared;
use tls::{Connections, Peer, TlsListener};

/// How long open calls may take to end when the gateway stops.
const STOP: Duration = Duration::from_secs(5);

/// How to start a gateway.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// Its folder; made if need be.
    pub dir: PathBuf,
    /// Where to listen for hubs; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where to listen for control calls (no TLS, no credential: loopback
    /// only); `None`: it has none.
    pub control: Option<SocketAddr>,
    /// Decides, with the payment ids, which chances fall how.
    pub seed: u64,
    /// What hubs must show; `None` for the one kept in the folder, or a new
    /// one.
    pub credential: Option<String>,
    /// What goes wrong from the start.
    pub faults: Faults,
}

impl GatewayOptions {
    /// A gateway in `dir` on free loopback ports, without faults.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            dir: dir.into(),
            listen: loopback,
            control: Some(loopback),
            seed: 1,
            credential: None,
            faults: Faults::default(),
        }
    }
}

/// Starts gateways.
#[derive(Clone, Copy, Debug)]
pub struct Gateway;

impl Gateway {
    /// Opens the book and begins to answer.
    ///
    /// # Errors
    /// Files that cannot be read or written, addresses that cannot be bound,
    /// a control address that is not loopback, faults out of range.
    pub async fn start(options: GatewayOptions) -> io::Result<RunningGateway> {
        let wrong = |fault: String| io::Error::new(io::ErrorKind::InvalidInput, fault);
        options.faults.check().map_err(wrong)?;
        if let Some(control) = options.control
            && !control.ip().is_loopback()
        {
            return Err(wrong(format!(
                "control address {control}: a loopback address expected"
            )));
        }
        fs::create_dir_all(&options.dir)?;
        let config = tls::server_config(&options.dir)?;
        let credential = tls::credential(&options.dir, options.credential)?;
        let book = options.dir.join("book.jsonl");
        let card_key = CardOpener::open(&options.dir)?;
        let shared = Arc::new(Shared::open(
            &book,
            options.seed,
            credential,
            card_key,
            options.faults,
        )?);
        let connections = Connections::default();
        let listener = tls::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let app = api::router(Arc::clone(&shared)).into_make_service_with_connect_info::<Peer>();
        let server = axum::serve(TlsListener::new(listener, config, connections.clone()), app)
            .with_graceful_shutdown(stopped(&shared));
        let mut tasks = vec![tokio::spawn(server.into_future())];
        let mut control_address = None;
        if let Some(control) = options.control {
            let listener = tls::bind(control).await?;
            control_address = Some(listener.local_addr()?);
            let app = control::router(Arc::clone(&shared), options.dir.clone());
            let server = axum::serve(listener, app).with_graceful_shutdown(stopped(&shared));
            tasks.push(tokio::spawn(server.into_future()));
        }
        Ok(RunningGateway {
            address,
            control_address,
            dir: options.dir,
            shared,
            connections,
            tasks,
        })
    }
}

/// Ends when the gateway stops.
fn stopped(shared: &Shared) -> impl Future<Output = ()> + Send + use<> {
    let mut stopping = shared.stopping.subscribe();
    async move {
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }
}

/// A gateway at work. Dropped without [`stop`](Self::stop), it dies as by
/// kill -9: lines are cut, but the book on disk is whole.
pub struct RunningGateway {
    address: SocketAddr,
    control_address: Option<SocketAddr>,
    dir: PathBuf,
    shared: Arc<Shared>,
    connections: Connections,
    tasks: Vec<JoinHandle<io::Result<()>>>,
}

impl RunningGateway {
    /// Where hubs reach it.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as a base address for hubs.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The base address of the control endpoint.
    pub fn control_url(&self) -> Option<String> {
        self.control_address.map(|address| format!("http://{address}"))
    }

    /// The certificate that hubs have to trust.
    pub fn ca_pem_path(&self) -> PathBuf {
        self.dir.join(tls::CA_FILE)
    }

    /// What hubs have to show.
    pub fn credential(&self) -> &str {
        &self.shared.credential
    }

    /// What devices of this store seal card data to.
    ///
    /// # Errors
    /// The store's id is empty or longer than 64 bytes.
    pub fn card_key(&self, store_id: &str) -> Result<hub_sdk::CardKey, hub_sdk::SealError> {
        self.shared.card_key.key_for(store_id)
    }

    /// The file with the public half of its card key, for devices.
    pub fn card_key_path(&self) -> PathBuf {
        self.dir.join(card_key::PUBLIC_FILE)
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Payments approved and not reversed.
    pub fn charges(&self) -> u64 {
        self.shared.charges()
    }

    /// Charges beyond the first for one order: what customers would have paid
    /// twice under two payment ids.
    pub fn charged_twice(&self) -> u64 {
        self.shared.charged_twice()
    }

    /// The whole book, in the order in which payments were first seen.
    pub fn payments(&self) -> Vec<BookPayment> {
        self.shared.payments()
    }

    /// What the book says of one payment.
    pub fn payment(&self, payment_id: PaymentId) -> Option<BookPayment> {
        self.shared.payment(&payment_id.to_string())
    }

    /// What came in since the start.
    pub fn counts(&self) -> GatewayCounts {
        self.shared.counts()
    }

    /// Which calls were under way beside one another since the start, or since
    /// this was asked last.
    pub fn take_beside(&self) -> Beside {
        self.shared.under_way.take()
    }

    /// What goes wrong at present.
    pub fn faults(&self) -> Faults {
        self.shared.faults()
    }

    /// Changes what goes wrong, for calls that come in from now on.
    ///
    /// # Errors
    /// Names the field that is out of range; nothing is changed then.
    pub fn set_faults(&self, faults: Faults) -> Result<(), String> {
        faults.check()?;
        self.shared.set_faults(faults);
        Ok(())
    }

    /// Drops all open connections; new ones are taken.
    pub fn cut_connections(&self) {
        self.connections.cut_all();
    }

    /// Writes the settlement file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_settlement(&self) -> io::Result<Settlement> {
        settlement::write(&self.dir, &self.shared.payments())
    }

    /// Stops: lines are cut, the book is closed. Another gateway can be
    /// started in the same folder afterwards.
    pub async fn stop(mut self) {
        self.shut();
        for task in self.tasks.drain(..) {
            let abort = task.abort_handle();
            if tokio::time::timeout(STOP, task).await.is_err() {
                abort.abort();
            }
        }
    }

    fn shut(&self) {
        // The book first: what is answered after this is not booked, and what
        // is not booked is not answered.
        self.shared.close();
        self.shared.stopping.send_replace(true);
        self.connections.cut_all();
    }
}

impl Drop for RunningGateway {
    fn drop(&mut self) {
        self.shut();
    }
}

/// Runs a gateway until Ctrl-C and says on stdout how to reach it.
///
/// # Errors
/// As [`Gateway::start`].
pub async fn run(options: GatewayOptions) -> anyhow::Result<()> {
    let gateway = Gateway::start(options).await?;
    let mut out = io::stdout();
    writeln!(out, "gateway          {}", gateway.url())?;
    writeln!(out, "ca_file          {}", gateway.ca_pem_path().display())?;
    writeln!(
        out,
        "credential_file  {}",
        gateway.dir().join("gateway.credential").display()
    )?;
    writeln!(out, "card_key         {}", gateway.card_key_path().display())?;
    if let Some(control) = gateway.control_url() {
        writeln!(out, "control          {control}")?;
    }
    out.flush()?;
    tokio::signal::ctrl_c().await?;
    let settlement = gateway.write_settlement()?;
    writeln!(
        out,
        "payments charged: {}, minor units in all: {}, each in {}",
        settlement.charges,
        settlement.total_minor,
        settlement.path.display()
    )?;
    gateway.stop().await;
    Ok(())
}
