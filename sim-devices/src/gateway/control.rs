//! The control endpoint: faults, book and settlement by HTTP without TLS, on
//! a loopback port of its own.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;

use super::faults::Faults;
use super::problem::Problem;
use super::settlement;
use super::state::Shared;

#[derive(Clone)]
struct Control {
    shared: Arc<Shared>,
    dir: PathBuf,
}

pub(super) fn router(shared: Arc<Shared>, dir: PathBuf) -> Router {
    Router::new()
        .route("/control/faults", get(faults).post(set_faults))
        .route("/control/settle", post(settle))
        .route("/control/book", get(book))
        .route("/control/summary", get(summary))
        .with_state(Control { shared, dir })
}

async fn faults(State(control): State<Control>) -> Response {
    Json(control.shared.faults()).into_response()
}

async fn set_faults(State(control): State<Control>, body: Bytes) -> Response {
    let parsed = serde_json::from_slice::<Faults>(&body)
        .map_err(|error| error.to_string())
        .and_then(|faults| faults.check().map(|()| faults));
    match parsed {
        Ok(faults) => {
            control.shared.set_faults(faults.clone());
            Json(faults).into_response()
        }
        Err(fault) => Problem::malformed(&fault).into_response(),
    }
}

async fn settle(State(control): State<Control>) -> Response {
    match settlement::write(&control.dir, &control.shared.payments()) {
        Ok(settlement) => Json(settlement).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn book(State(control): State<Control>) -> Response {
    Json(control.shared.payments()).into_response()
}

async fn summary(State(control): State<Control>) -> Response {
    let shared = &control.shared;
    let body = json!({
        "payments": shared.payments().len(),
        "charges": shared.charges(),
        "charged_twice": shared.charged_twice(),
        "counts": shared.counts(),
    });
    Json(body).into_response()
}
