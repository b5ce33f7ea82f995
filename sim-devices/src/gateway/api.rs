//! The routes of `docs/gateway-api.md`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use tokio::sync::oneshot;

use super::book::{BookPayment, BookStatus};
use super::check::{self, Checked};
use super::faults::{Canned, Dice, Faults};
use super::problem::{Problem, with_retry_after};
use super::state::{Shared, Verdict};
use super::tls::Peer;

/// The longest body that is read, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// How long "never" is, at most.
const NEVER: Duration = Duration::from_secs(600);

/// The response code of an authorisation that comes after its reversal.
const REVERSED_BEFORE: &str = "R1";

/// Every route, for the test that holds the documents to them.
pub(super) const ROUTES: [&str; 5] = [
    "/v1/payments",
    "/v1/payments/{payment_id}",
    "/v1/payments/{payment_id}/presentation",
    "/v1/payments/{payment_id}/reversal",
    "/v1/health",
];

pub(super) fn router(shared: Arc<Shared>) -> Router {
    let [payments, payment, presentation, reversal, probe] = ROUTES;
    Router::new()
        .route(payments, post(authorise))
        .route(payment, get(look_up))
        .route(presentation, post(present))
        .route(reversal, post(reverse))
        .route(probe, get(health))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(shared)
}

async fn authorise(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let call = admit(&shared, &headers, body, |headers, body| {
        let call = check::payment(headers, body)?;
        shared
            .card_key
            .check(&call.sealed_card, &call.request, &call.store_id)
            .map_err(Problem::card_not_opened)?;
        Ok(call)
    });
    serve(&shared, &peer, call, Shared::authorise).await
}

async fn present(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(payment_id): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let call = admit(&shared, &headers, body, |headers, body| {
        check::presentation(&payment_id, headers, body)
    });
    serve(&shared, &peer, call, Shared::authorise).await
}

async fn reverse(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(payment_id): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let call = admit(&shared, &headers, body, |headers, body| {
        check::reversal(&payment_id, headers, body)
    });
    serve(&shared, &peer, call, Shared::reverse).await
}

async fn look_up(
    State(shared): State<Arc<Shared>>,
    Path(payment_id): Path<String>,
    headers: HeaderMap,
) -> Response {
    shared.count(|counts| {
        counts.calls += 1;
        counts.look_ups += 1;
    });
    if !check::authorised(&headers, &shared.credential) {
        shared.count(|counts| counts.unauthorised += 1);
        return Problem::unauthorised().into_response();
    }
    match shared.payment(&payment_id) {
        Some(payment) => answer(&payment, payment.status),
        None => Problem::unknown(&payment_id).into_response(),
    }
}

async fn health(State(shared): State<Arc<Shared>>, ConnectInfo(peer): ConnectInfo<Peer>) -> Response {
    shared.count(|counts| counts.probes += 1);
    let faults = shared.faults();
    if faults.health_too {
        let ask = u32::try_from(shared.counts().probes).unwrap_or(u32::MAX);
        let dice = Dice {
            seed: shared.seed,
            payment_id: "probe",
        };
        if dice.falls("never_answer", ask, faults.never_answer) {
            return swallow(&shared, &peer).await;
        }
        if dice.falls("unavailable", ask, faults.unavailable) {
            return Problem::unavailable(faults.retry_after).into_response();
        }
        if dice.falls("slow", ask, faults.slow) {
            tokio::time::sleep(Duration::from_millis(faults.delay_ms)).await;
        }
    }
    // The `Date` header comes with every answer.
    let mut response = json_response(StatusCode::OK, &json!({ "status": "ok" }));
    if let Some(seconds) = faults.replay_spread {
        response.headers_mut().insert("replay-spread", seconds.into());
    }
    response
}

/// Credential first, then the size, then the content.
fn admit(
    shared: &Shared,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
    read: impl FnOnce(&HeaderMap, &[u8]) -> Result<Checked, Problem>,
) -> Result<Checked, Problem> {
    shared.count(|counts| counts.calls += 1);
    if !check::authorised(headers, &shared.credential) {
        shared.count(|counts| counts.unauthorised += 1);
        return Err(Problem::unauthorised());
    }
    let refused = |problem| {
        shared.count(|counts| counts.refused += 1);
        problem
    };
    let body = body.map_err(|rejection| {
        refused(if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            Problem::too_large()
        } else {
            Problem::malformed("the body could not be read")
        })
    })?;
    read(headers, &body).map_err(refused)
}

/// Faults, then the work itself, then the answer.
async fn serve(
    shared: &Arc<Shared>,
    peer: &Peer,
    call: Result<Checked, Problem>,
    work: fn(&Shared, &Checked) -> Verdict,
) -> Response {
    let call = match call {
        Ok(call) => call,
        Err(problem) => return problem.into_response(),
    };
    let under_way = shared.under_way.begins(&call.operation);
    let faults = shared.faults();
    let ask = shared.ask(&call.payment_id);
    let payment_id = call.payment_id.clone();
    let dice = Dice {
        seed: shared.seed,
        payment_id: &payment_id,
    };
    if dice.falls("never_answer", ask, faults.never_answer) {
        return swallow(shared, peer).await;
    }
    if let Some(response) = turned_away(&faults, dice, ask) {
        shared.count(|counts| counts.turned_away += 1);
        return response;
    }
    let Some(working) = shared.begin(&call.payment_id) else {
        shared.count(|counts| counts.overlapped += 1);
        return Problem::in_progress().into_response();
    };
    let delay = dice
        .falls("slow", ask, faults.slow)
        .then(|| Duration::from_millis(faults.delay_ms));
    let job = {
        let shared = Arc::clone(shared);
        async move {
            let _place = shared.place(faults.places).await;
            if let Some(delay) = delay {
                tokio::time::sleep(delay).await;
            }
            let response = conclude(&call, work(&shared, &call)).await;
            drop((working, under_way));
            response
        }
    };
    // A task of its own: an asker who hangs up does not undo the work.
    let response = tokio::spawn(job).await.ok().flatten();
    let drop_line = dice.falls("commit_then_drop", ask, faults.commit_then_drop);
    if drop_line {
        shared.count(|counts| counts.dropped += 1);
    }
    match response {
        Some(response) if !drop_line => response,
        _ => cut(peer),
    }
}

/// Waits for the flush, then says what is written. `None` if it was not.
async fn conclude(call: &Checked, verdict: Verdict) -> Option<Response> {
    match verdict {
        Verdict::Conflict => Some(Problem::conflict().into_response()),
        Verdict::NotDeclined => {
            let problem = Problem::malformed("presentation: the one before has not been declined here");
            Some(problem.into_response())
        }
        Verdict::Closed => None,
        Verdict::Pending(flushed) => {
            flushed.await.ok()?;
            let body = json!({ "payment_id": call.payment_id, "status": "pending" });
            let mut response = json_response(StatusCode::ACCEPTED, &body);
            with_retry_after(response.headers_mut(), Some("1"));
            Some(response)
        }
        Verdict::Stands(payment, flushed) => {
            wait(flushed).await?;
            let status = match (call.operation.as_str(), payment.status) {
                ("reversal", status) => status,
                (_, BookStatus::Reversed) => BookStatus::Declined,
                (_, status) => status,
            };
            Some(answer(&payment, status))
        }
    }
}

async fn wait(flushed: oneshot::Receiver<()>) -> Option<()> {
    flushed.await.ok()
}

fn answer(payment: &BookPayment, status: BookStatus) -> Response {
    let mut body = json!({
        "payment_id": payment.payment_id,
        "status": status.name(),
        "reference": payment.reference,
    });
    if payment.presentation > 1 {
        body["presentation"] = json!(payment.presentation);
    }
    let late = payment.status == BookStatus::Reversed && status == BookStatus::Declined;
    if late {
        body["response_code"] = json!(REVERSED_BEFORE);
    } else if status != BookStatus::Pending {
        body["response_code"] = json!(payment.response_code);
    }
    if let (BookStatus::Declined, false, Some(code)) = (status, late, &payment.merchant_advice_code) {
        body["merchant_advice_code"] = json!(code);
    }
    if let (BookStatus::Approved, Some(code)) = (status, &payment.authorisation_code) {
        body["authorisation_code"] = json!(code);
    }
    json_response(StatusCode::OK, &body)
}

fn turned_away(faults: &Faults, dice: Dice<'_>, ask: u32) -> Option<Response> {
    if let Some(canned) = &faults.canned {
        return Some(canned_response(canned, dice.payment_id));
    }
    if dice.falls("throttle", ask, faults.throttle) {
        return Some(Problem::throttled(faults.retry_after.clone()).into_response());
    }
    if dice.falls("unavailable", ask, faults.unavailable) {
        return Some(Problem::unavailable(faults.retry_after.clone()).into_response());
    }
    dice.falls("conflict", ask, faults.conflict)
        .then(|| Problem::conflict().into_response())
}

fn canned_response(canned: &Canned, payment_id: &str) -> Response {
    let status = StatusCode::from_u16(canned.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = canned.body.replace("{payment_id}", payment_id);
    let mut response = (status, body).into_response();
    with_retry_after(response.headers_mut(), canned.retry_after.as_deref());
    response
}

/// Says nothing until the gateway stops or the asker has long gone.
async fn swallow(shared: &Shared, peer: &Peer) -> Response {
    shared.count(|counts| counts.swallowed += 1);
    let mut stopping = shared.stopping.subscribe();
    let _ = tokio::time::timeout(NEVER, stopping.wait_for(|stopping| *stopping)).await;
    cut(peer)
}

/// Drops the line; what is returned is never heard.
fn cut(peer: &Peer) -> Response {
    if let Some(connection) = &peer.0 {
        connection.cut();
    }
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

pub(super) fn json_response(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, axum::Json(body)).into_response()
}
