//! The one connection to the acquirer: connect, sign on, keep it alive,
//! connect again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::mapping::{ECHO, Mapping, SIGN_ON};
use super::session::{LineFault, Outgoing, Session};
use crate::clock;
use crate::iso8583::dialect::Meaning;
use crate::iso8583::trace::stan_of;

/// How long connecting and the TLS handshake may take together, and then the
/// sign-on.
const CONNECT: Duration = Duration::from_secs(10);

/// How long an idle echo test may take.
const ECHO_ANSWER: Duration = Duration::from_secs(10);

/// A connection that lived for this long was a good one: the next try comes
/// at once.
const GOOD_MS: u64 = 5_000;

/// Where the acquirer is and how long to wait for what.
pub(super) struct Road {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) name: ServerName<'static>,
    pub(super) tls: Arc<ClientConfig>,
    /// After so long without a message, an echo test.
    pub(super) idle: Duration,
    /// How long writing a message may take, and reading one that has begun.
    pub(super) one_message: Duration,
    /// The first pause between two tries to connect, and the longest.
    pub(super) pauses: (Duration, Duration),
}

/// How the line stands.
#[derive(Clone, Debug)]
pub(super) enum LineState {
    /// No try has failed yet: worth waiting for.
    Connecting,
    /// Signed on.
    Up(Arc<Session>),
    /// The acquirer did not take the sign-on; nothing was sent.
    Refused(LineFault),
    /// Not reached, or cut; the next try comes after a pause.
    Down(LineFault),
}

/// What the tasks of the line have in common.
pub(super) struct Line {
    pub(super) mapping: Arc<Mapping>,
    pub(super) road: Road,
    pub(super) state: watch::Sender<LineState>,
    network_stan: AtomicU64,
}

/// Why a connection ended.
enum End {
    Refused(LineFault),
    Fault(LineFault),
}

impl Line {
    pub(super) fn new(mapping: Arc<Mapping>, road: Road) -> Self {
        Self {
            mapping,
            road,
            state: watch::Sender::new(LineState::Connecting),
            network_stan: AtomicU64::new(0),
        }
    }

    /// Keeps a connection, for as long as it is polled.
    pub(super) async fn keep(&self) {
        let mut failures = 0;
        loop {
            let start = clock::monotonic_ms();
            let end = self.connect_and_serve().await;
            let lived = clock::monotonic_ms().saturating_sub(start);
            let was_up = matches!(*self.state.borrow(), LineState::Up(_));
            let (state, fault) = match end {
                End::Refused(fault) => (LineState::Refused(fault.clone()), fault),
                End::Fault(fault) => (LineState::Down(fault.clone()), fault),
            };
            if was_up && lived >= GOOD_MS {
                tracing::warn!(%fault, "the line to the acquirer was cut; connecting again");
                failures = 0;
                self.state.send_replace(LineState::Connecting);
                continue;
            }
            failures += 1;
            let pause = self.pause(failures);
            tracing::warn!(%fault, pause_ms = pause.as_millis(), "no line to the acquirer");
            self.state.send_replace(state);
            sleep(pause).await;
        }
    }

    /// Doubles up to a bound. Half of it differs from hub to hub, so that a
    /// chain's shops do not come back all at once.
    fn pause(&self, failures: u32) -> Duration {
        let (first, longest) = self.road.pauses;
        let whole = first
            .saturating_mul(1 << failures.saturating_sub(1).min(16))
            .min(longest);
        let identity = &self.mapping.identity;
        let spread = format!("{}{}{failures}", identity.merchant_id, identity.terminal_id)
            .bytes()
            .fold(7_u32, |hash, byte| {
                hash.wrapping_mul(31).wrapping_add(u32::from(byte))
            });
        whole / 2 + (whole / 2).mul_f64(f64::from(spread % 1000) / 1000.0)
    }

    async fn connect_and_serve(&self) -> End {
        let stream = match timeout(CONNECT, self.connect()).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(fault)) => return End::Fault(fault),
            Err(_) => return End::Fault(LineFault::new("not reached in time")),
        };
        let (session, unwritten) = Session::new(Arc::clone(&self.mapping));
        let end = self.serve(stream, &session, unwritten).await;
        let fault = match &end {
            End::Refused(fault) | End::Fault(fault) => fault.clone(),
        };
        session.end(fault);
        end
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>, LineFault> {
        let road = &self.road;
        let not_reached = |error: std::io::Error| LineFault::new(format!("not reached: {error}"));
        let tcp = TcpStream::connect((road.host.as_str(), road.port))
            .await
            .map_err(not_reached)?;
        tcp.set_nodelay(true).map_err(not_reached)?;
        TlsConnector::from(Arc::clone(&road.tls))
            .connect(road.name.clone(), tcp)
            .await
            .map_err(|error| LineFault::new(format!("no TLS: {error}")))
    }

    async fn serve(
        &self,
        stream: TlsStream<TcpStream>,
        session: &Arc<Session>,
        unwritten: mpsc::Receiver<Outgoing>,
    ) -> End {
        let (read, write) = tokio::io::split(stream);
        let line = async {
            tokio::select! {
                fault = self.read(read, session) => fault,
                fault = self.write(write, unwritten, session) => fault,
                fault = session.silence() => fault,
            }
        };
        let mut line = std::pin::pin!(line);
        let signed_on = tokio::select! {
            fault = &mut line => return End::Fault(fault),
            signed_on = self.sign_on(session) => signed_on,
        };
        if let Err(end) = signed_on {
            return end;
        }
        tracing::info!("signed on to the acquirer");
        self.state.send_replace(LineState::Up(Arc::clone(session)));
        tokio::select! {
            fault = line => End::Fault(fault),
            () = self.echo_when_idle(session) => End::Fault(LineFault::new("ended")),
        }
    }

    async fn read<R: AsyncRead + Unpin>(&self, mut stream: R, session: &Session) -> LineFault {
        loop {
            let message = match self.read_message(&mut stream).await {
                Ok(message) => message,
                Err(fault) => return fault,
            };
            if let Err(fault) = session.receive(message) {
                return fault;
            }
        }
    }

    async fn read_message<R: AsyncRead + Unpin>(
        &self,
        stream: &mut R,
    ) -> Result<crate::iso8583::Message, LineFault> {
        let dialect = &self.mapping.dialect;
        let cut = |error: std::io::Error| LineFault::new(format!("the acquirer hung up: {error}"));
        let mut head = vec![0; dialect.framing.length.size()];
        // Between messages, silence is as it should be.
        stream.read_exact(&mut head[..1]).await.map_err(cut)?;
        let body = timeout(self.road.one_message, async {
            stream.read_exact(&mut head[1..]).await.map_err(cut)?;
            let size = dialect
                .framing
                .body_size(&head)
                .map_err(|fault| LineFault::new(fault.to_string()))?;
            let mut body = vec![0; size];
            stream.read_exact(&mut body).await.map_err(cut)?;
            Ok(body)
        });
        let body = body
            .await
            .map_err(|_| LineFault::new("the acquirer stopped in the middle of a message"))??;
        dialect
            .format
            .decode(dialect.framing.message(&body))
            .map_err(|fault| LineFault::new(format!("a message that cannot be read: {fault}")))
    }

    async fn sign_on(&self, session: &Session) -> Result<(), End> {
        let question = self.network(SIGN_ON);
        let answer = timeout(CONNECT, session.ask(&question)).await;
        let code = match answer {
            Ok(Ok(answer)) => answer.text(39).unwrap_or_default().to_owned(),
            Ok(Err(fault)) => return Err(End::Fault(fault)),
            Err(_) => return Err(End::Fault(LineFault::new("the sign-on was not answered"))),
        };
        match self.mapping.dialect.codes.meaning(&code) {
            Meaning::Approved => Ok(()),
            _ => Err(End::Refused(LineFault::new(format!(
                "the acquirer refuses the sign-on: response code {code}"
            )))),
        }
    }

    fn network(&self, information: &str) -> crate::iso8583::Message {
        let count = self.network_stan.fetch_add(1, Ordering::Relaxed) + 1;
        self.mapping
            .network(information, stan_of(count), clock::wall_ms())
    }

    /// An echo test on this connection; whether it was answered in time and
    /// well.
    pub(super) async fn echo(&self, session: &Session, within: Duration) -> bool {
        let question = self.network(ECHO);
        match timeout(within, session.ask(&question)).await {
            Ok(Ok(answer)) => {
                let code = answer.text(39).unwrap_or_default();
                self.mapping.dialect.codes.meaning(code) == Meaning::Approved
            }
            Ok(Err(_)) => false,
            Err(_) => {
                session.echo_unanswered();
                false
            }
        }
    }

    async fn echo_when_idle(&self, session: &Session) {
        let mut seen = session.received();
        loop {
            sleep(self.road.idle).await;
            if session.received() == seen {
                self.echo(session, ECHO_ANSWER).await;
            }
            seen = session.received();
        }
    }

    async fn write<W: AsyncWrite + Unpin>(
        &self,
        mut stream: W,
        mut unwritten: mpsc::Receiver<Outgoing>,
        session: &Session,
    ) -> LineFault {
        while let Some(outgoing) = unwritten.recv().await {
            // Decided otherwise meanwhile: it would only arrive too late.
            if !session.wanted(&outgoing) {
                continue;
            }
            let written = timeout(self.road.one_message, async {
                stream.write_all(&outgoing.frame).await?;
                stream.flush().await
            });
            match written.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return LineFault::new(format!("the acquirer hung up: {error}")),
                Err(_) => return LineFault::new("the acquirer does not read"),
            }
        }
        LineFault::new("the hub is stopping")
    }
}
