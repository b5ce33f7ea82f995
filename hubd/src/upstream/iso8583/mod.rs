//! The acquirer: payments, replay and probe in ISO 8583 over TLS.
//!
//! The second implementation of what [`Gateway`](super::Gateway) does over
//! HTTPS: one exchange for each [`hub_core::Forward`], and the same words for
//! what came of it. The messages are [`crate::iso8583`]'s and the dialect
//! file's; here is the line.
//!
//! What holds here:
//! - An answer is taken for the answer only if its type, trace number,
//!   retrieval reference and whatever else of the payment it repeats are the
//!   question's. Everything else is ignored.
//! - A peer that speaks nonsense loses its connection, and every payment on it
//!   counts as unanswered, never as declined: it may have been taken.
//! - Everything is bounded: messages under way, their length, the time to
//!   connect, to write one, to read one, and the pause before the next try.

mod line;
mod mapping;
mod session;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use hub_core::{Forward, GatewayAnswer, Operation, Probe};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::message::{Unsendable, request_of};
use super::text::{MAX_DETAIL, clean};
use crate::clock;
use crate::iso8583::trace::Trace;
use line::{Line, LineState};
#[cfg(fuzzing)]
pub use mapping::Reader;
pub use mapping::Stored;
use mapping::{Mapping, Question};
use session::{LineFault, Session};
pub use settings::Settings;

use super::UpstreamError;

/// The most live exchanges at one time: more than a shop has devices.
const LIVE_IN_FLIGHT: usize = 64;

/// The longest that any exchange may take, whatever its deadline says.
const MAX_DEADLINE: Duration = Duration::from_secs(120);

/// The line to the acquirer. Dropping it closes the connection.
pub struct Acquirer {
    line: Arc<Line>,
    keeper: JoinHandle<()>,
    live: Semaphore,
    backlog: Semaphore,
    probe_timeout: Duration,
}

impl std::fmt::Debug for Acquirer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acquirer")
            .field("dialect", &self.line.mapping.dialect.name)
            .finish_non_exhaustive()
    }
}

impl Drop for Acquirer {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Why there is no connection to ask on.
enum NoLine {
    Refused(LineFault),
    Down(LineFault),
}

impl Acquirer {
    /// Reads the certificates and begins to connect. Must be called inside a
    /// tokio runtime.
    ///
    /// # Errors
    /// [`UpstreamError`] says which setting to mend.
    pub fn new(settings: Settings) -> Result<Self, UpstreamError> {
        let road = settings.road()?;
        let mapping = Arc::new(Mapping {
            dialect: settings.dialect,
            identity: settings.identity,
        });
        let line = Arc::new(Line::new(mapping, road));
        let keeper = tokio::spawn({
            let line = Arc::clone(&line);
            async move { line.keep().await }
        });
        Ok(Self {
            line,
            keeper,
            live: Semaphore::new(LIVE_IN_FLIGHT),
            backlog: Semaphore::new(settings.max_in_flight.max(1)),
            probe_timeout: settings.probe_timeout,
        })
    }

    /// Makes one attempt and says what came of it and how many milliseconds
    /// it took. Ends at `forward.deadline_ms` at the latest, waiting for the
    /// line included.
    ///
    /// Never asks twice: what may have reached the acquirer comes back as
    /// [`GatewayAnswer::NoAnswer`], and a repeat is the core's decision.
    pub async fn submit(&self, forward: &Forward, stored: &Stored<'_>) -> (GatewayAnswer, u64) {
        let start = clock::monotonic_ms();
        if forward.operation == Operation::LookUp {
            // ISO 8583 has no question for it; a person can ask the acquirer.
            let trace = match request_of(forward, stored.signed_request) {
                Ok(request) => Trace::new(
                    forward.traces,
                    forward.request_sequence,
                    stored.requested_ms,
                    &request,
                ),
                Err(_) => Trace::of_entry(forward.request_sequence, stored.requested_ms),
            };
            let detail = format!(
                "the acquirer cannot be asked whether it has this payment: ask its desk for reference {} \
                 (field 37), trace number {} (field 11), then release it with --not-there, or close it",
                trace.rrn, trace.stan
            );
            return (GatewayAnswer::Unsendable { detail }, 0);
        }
        let deadline = Duration::from_millis(forward.deadline_ms).min(MAX_DEADLINE);
        let mapping = &self.line.mapping;
        let question = mapping.question(forward, stored, clock::wall_ms());
        let answer = match question {
            Err(Unsendable::Card) => GatewayAnswer::CardMissing,
            Err(Unsendable::Request(detail)) => GatewayAnswer::Unsendable {
                detail: clean(&detail, MAX_DETAIL),
            },
            Ok(question) => timeout(deadline, self.ask(forward.operation, &question))
                .await
                .unwrap_or_else(|_| GatewayAnswer::NoAnswer {
                    detail: format!("no answer within {} ms", deadline.as_millis()),
                }),
        };
        (answer, clock::monotonic_ms().saturating_sub(start))
    }

    async fn ask(&self, operation: Operation, question: &Question) -> GatewayAnswer {
        let no_answer = |fault: &LineFault| GatewayAnswer::NoAnswer {
            detail: clean(&fault.0, MAX_DETAIL),
        };
        let lane = match operation {
            Operation::AuthoriseOnline => &self.live,
            Operation::AuthoriseDeferred | Operation::Advice | Operation::Reverse | Operation::LookUp => {
                &self.backlog
            }
        };
        let Ok(_permit) = lane.acquire().await else {
            return no_answer(&LineFault::new("the hub is stopping"));
        };
        let session = match self.session().await {
            Ok(session) => session,
            Err(NoLine::Down(fault)) => return no_answer(&fault),
            Err(NoLine::Refused(fault)) => {
                return GatewayAnswer::RefusesHub {
                    detail: clean(&fault.0, MAX_DETAIL),
                };
            }
        };
        match session.ask(&question.message).await {
            Ok(answer) => self.line.mapping.read(operation, question, &answer),
            Err(fault) => no_answer(&fault),
        }
    }

    /// The connection, once it is signed on. Does not wait for a line that is
    /// known to be down.
    async fn session(&self) -> Result<Arc<Session>, NoLine> {
        let mut state = self.line.state.subscribe();
        let settled = state
            .wait_for(|state| !matches!(state, LineState::Connecting))
            .await;
        match settled.as_deref() {
            Ok(LineState::Up(session)) => Ok(Arc::clone(session)),
            Ok(LineState::Refused(fault)) => Err(NoLine::Refused(fault.clone())),
            Ok(LineState::Down(fault)) => Err(NoLine::Down(fault.clone())),
            Ok(LineState::Connecting) | Err(_) => Err(NoLine::Down(LineFault::new("the hub is stopping"))),
        }
    }

    /// Asks the acquirer how it is: an echo test. It carries no time that
    /// could be trusted (field 7 has no year and is often only repeated).
    pub async fn probe(&self, within: Duration) -> Probe {
        let start = clock::monotonic_ms();
        let within = within.min(MAX_DEADLINE);
        let ok = match timeout(within, self.session()).await {
            Ok(Ok(session)) => self.line.echo(&session, within).await,
            Ok(Err(_)) | Err(_) => false,
        };
        Probe {
            ok,
            latency_ms: clock::monotonic_ms().saturating_sub(start),
            gateway_time_ms: None,
        }
    }

    /// [`probe`](Self::probe) within the time of the settings.
    pub(super) async fn probe_as_set(&self) -> Probe {
        self.probe(self.probe_timeout).await
    }
}
