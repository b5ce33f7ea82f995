//! The HTTPS client.

use std::sync::Arc;
use std::time::Duration;

use hub_core::{Forward, GatewayAnswer, Operation, Probe};
use hub_protocol::SealedCard;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url, redirect, retry};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::answer::{self, Received};
use super::message::{self, Unsendable};
use super::settings::{Settings, UpstreamError, authorization, base_url, tls};
use super::text::{MAX_DETAIL, clean};
use crate::clock;

/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// The most live calls at one time: more than a shop has devices.
const LIVE_IN_FLIGHT: usize = 64;

/// A live call waits so much of its deadline for a free connection, as a
/// divisor. Then the hub decides without the gateway, for which it is no
/// failure.
const WAIT_FOR_PLACE: u32 = 3;

/// The longest that any call may take, whatever its deadline says.
const MAX_DEADLINE: Duration = Duration::from_secs(120);

/// How long an unused connection is kept. Longer than the probe's usual
/// interval, so that a live sale finds one open, and shorter than the minute
/// or so after which routers forget.
const IDLE: Duration = Duration::from_secs(45);

/// How long sent bytes may stay unacknowledged before the connection counts
/// as dead.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Connections to the gateway. Cheap to share; see [`Gateway::submit`].
#[derive(Debug)]
pub struct Gateway {
    base: Url,
    store_id: String,
    probe_timeout: Duration,
    live: Lane,
    backlog: Lane,
}

/// A pool of connections and how many calls may use it at a time.
#[derive(Debug)]
struct Lane {
    client: Client,
    permits: Arc<Semaphore>,
}

impl Gateway {
    /// Reads the CA file and sets the clients up; opens no connection yet.
    ///
    /// # Errors
    /// [`UpstreamError`] says which setting to mend.
    pub fn new(settings: Settings) -> Result<Self, UpstreamError> {
        let base = base_url(&settings.url)?;
        let tls = tls(settings.ca_file.as_deref())?;
        let mut headers = HeaderMap::new();
        if let Some(credential) = &settings.credential {
            headers.insert(AUTHORIZATION, authorization(credential)?);
        }
        let lane = |in_flight: usize| -> Result<Lane, UpstreamError> {
            let client = Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .default_headers(headers.clone())
                .user_agent(concat!("hubd/", env!("CARGO_PKG_VERSION")))
                .https_only(true)
                .http1_only()
                // Payments go to the configured host and nowhere else: no
                // redirects and no proxy out of the environment.
                .redirect(redirect::Policy::none())
                .no_proxy()
                // When to ask again is for the core to say.
                .retry(retry::never())
                .pool_max_idle_per_host(in_flight)
                .pool_idle_timeout(IDLE)
                .tcp_keepalive(Duration::from_secs(15))
                .tcp_user_timeout(UNACKNOWLEDGED)
                .build()
                .map_err(|error| UpstreamError::Client(words(&error)))?;
            Ok(Lane {
                client,
                permits: Arc::new(Semaphore::new(in_flight)),
            })
        };
        Ok(Self {
            base,
            store_id: settings.store_id,
            probe_timeout: settings.probe_timeout,
            live: lane(LIVE_IN_FLIGHT)?,
            backlog: lane(settings.max_in_flight.max(1))?,
        })
    }

    /// Makes one attempt and says what came of it and how many milliseconds
    /// it took. Ends at `forward.deadline_ms` at the latest, waiting for a
    /// free connection included. `sealed_card` is needed for the first
    /// presentation of a payment only.
    ///
    /// Never asks twice: a call that may have reached the gateway comes back
    /// as [`GatewayAnswer::NoAnswer`], and asking again under the same id is
    /// the core's decision.
    pub async fn submit(
        &self,
        forward: &Forward,
        signed_request: &[u8],
        sealed_card: Option<&SealedCard>,
    ) -> (GatewayAnswer, u64) {
        let start = clock::monotonic_ms();
        let deadline = Duration::from_millis(forward.deadline_ms).min(MAX_DEADLINE);
        let answer = match message::build(&self.store_id, forward, signed_request, sealed_card) {
            Err(Unsendable::Card) => GatewayAnswer::CardMissing,
            Err(Unsendable::Request(detail)) => GatewayAnswer::Unsendable {
                detail: clean(&detail, MAX_DETAIL),
            },
            Ok(call) => timeout(deadline, self.call(forward, call))
                .await
                .unwrap_or_else(|_| GatewayAnswer::NoAnswer {
                    detail: format!("no answer within {} ms", deadline.as_millis()),
                }),
        };
        (answer, clock::monotonic_ms().saturating_sub(start))
    }

    async fn call(&self, forward: &Forward, call: message::Call) -> GatewayAnswer {
        // A look-up is for whoever waits for it; the core gives those of
        // customers, as all that they wait for, the shorter deadline.
        let lane = match forward.operation {
            Operation::AuthoriseOnline => &self.live,
            Operation::AuthoriseDeferred | Operation::Advice | Operation::Reverse | Operation::LookUp => {
                &self.backlog
            }
        };
        let no_answer = |detail: String| GatewayAnswer::NoAnswer {
            detail: clean(&detail, MAX_DETAIL),
        };
        let place = Duration::from_millis(forward.deadline_ms) / WAIT_FOR_PLACE;
        let _permit = match timeout(place, lane.permits.acquire()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => {
                return GatewayAnswer::NotSent {
                    detail: "the hub is stopping".to_owned(),
                };
            }
            Err(_) => {
                return GatewayAnswer::NotSent {
                    detail: "no free connection to the gateway".to_owned(),
                };
            }
        };
        let (Ok(url), Ok(key)) = (
            self.base.join(&call.path),
            HeaderValue::from_str(&format!("\"{}\"", forward.payment_id)),
        ) else {
            return no_answer("the address cannot be built".to_owned());
        };
        let request = match call.body {
            Some(body) => lane
                .client
                .post(url)
                .header(IDEMPOTENCY_KEY, key)
                .header(CONTENT_TYPE, "application/json")
                .body(body),
            None => lane.client.get(url),
        };
        let sent = request.send().await;
        let mut response = match sent {
            Ok(response) => response,
            Err(error) => return no_answer(words(&error)),
        };
        let (body, cut) = body_of(&mut response).await;
        let received = Received {
            status: response.status(),
            headers: response.headers(),
            body: &body,
            cut: cut.as_deref(),
        };
        answer::read(forward, &received, clock::wall_ms())
    }

    /// Asks the gateway how it is, on the connections of the live sales: what
    /// is measured is the way that a sale would take, and one connection
    /// stays open for it.
    pub async fn probe(&self, within: Duration) -> Probe {
        let start = clock::monotonic_ms();
        self.probe_for_spread(within, start).await.0
    }

    /// [`probe`](Self::probe) within the time of the settings, and the window
    /// over which the gateway wants first contact spread, in milliseconds, if
    /// it answered.
    pub(super) async fn probe_as_set(&self) -> (Probe, Option<u64>) {
        self.probe_for_spread(self.probe_timeout, clock::monotonic_ms())
            .await
    }

    async fn probe_for_spread(&self, within: Duration, start: u64) -> (Probe, Option<u64>) {
        let found = timeout(within.min(MAX_DEADLINE), self.health()).await;
        let (ok, gateway_time_ms, spread_ms) = found.unwrap_or((false, None, None));
        let probe = Probe {
            ok,
            latency_ms: clock::monotonic_ms().saturating_sub(start),
            gateway_time_ms,
        };
        (probe, spread_ms)
    }

    async fn health(&self) -> (bool, Option<u64>, Option<u64>) {
        let Ok(url) = self.base.join("v1/health") else {
            return (false, None, None);
        };
        match self.live.client.get(url).send().await {
            Ok(mut response) => {
                let ok = response.status() == StatusCode::OK;
                let time = answer::date_ms(response.headers());
                let spread = answer::spread_ms(response.headers());
                // Read to the end, so that the connection can be used again.
                let _ = body_of(&mut response).await;
                (ok, time, Some(spread))
            }
            Err(error) => {
                tracing::debug!(error = clean(&words(&error), MAX_DETAIL), "the probe failed");
                (false, None, None)
            }
        }
    }
}

/// The body, up to [`MAX_ANSWER`] bytes, and why it is not all there.
async fn body_of(response: &mut Response) -> (Vec<u8>, Option<String>) {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => return (body, None),
            Ok(Some(chunk)) => {
                let room = MAX_ANSWER - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if chunk.len() > room {
                    return (body, Some(format!("its body is longer than {MAX_ANSWER} bytes")));
                }
            }
            Err(error) => return (body, Some(words(&error))),
        }
    }
}

/// An error with its causes, without the address: that is known, and holds
/// the payment's id.
fn words(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() {
        "timed out".to_owned()
    } else if error.is_connect() {
        "not reached".to_owned()
    } else if error.is_body() || error.is_decode() {
        "the answer was cut off".to_owned()
    } else {
        "the connection failed".to_owned()
    };
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
