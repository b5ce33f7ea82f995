//! Errors as problem documents (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// A refusal with its HTTP status.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    title: &'static str,
    detail: String,
    retry_after: Option<String>,
    payment_id: Option<String>,
}

impl Problem {
    fn new(status: StatusCode, title: &'static str, detail: &str) -> Self {
        Self {
            status,
            title,
            detail: detail.to_owned(),
            retry_after: None,
            payment_id: None,
        }
    }

    /// 400: the message itself; the same bytes never pass.
    pub(super) fn malformed(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    /// 400: the sealed card is not the gateway's, or another payment's.
    pub(super) fn card_not_opened(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "card-not-opened", detail)
    }

    /// 401: no credential, or a wrong one.
    pub(super) fn unauthorised() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorised", "no such credential")
    }

    /// 404: nothing is known under this id.
    pub(super) fn unknown(payment_id: &str) -> Self {
        let problem = Self::new(
            StatusCode::NOT_FOUND,
            "unknown-payment",
            "no payment under this id",
        );
        Self {
            payment_id: Some(payment_id.to_owned()),
            ..problem
        }
    }

    /// 409: an earlier call about the same payment is still worked on.
    pub(super) fn in_progress() -> Self {
        let problem = Self::new(
            StatusCode::CONFLICT,
            "in-progress",
            "the payment is being worked on",
        );
        problem.after(Some("1".to_owned()))
    }

    /// 413.
    pub(super) fn too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "at most 64 KiB expected",
        )
    }

    /// 422: the id was used with another signed request.
    pub(super) fn conflict() -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "payment-id-conflict",
            "the payment id was used before with another signed request",
        )
    }

    /// 429.
    pub(super) fn throttled(retry_after: Option<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "throttled", "too many requests").after(retry_after)
    }

    /// 503.
    pub(super) fn unavailable(retry_after: Option<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "out of order").after(retry_after)
    }

    /// As an example in the OpenAPI file.
    #[cfg(test)]
    pub(super) fn example(&self) -> String {
        let Self { title, detail, .. } = self;
        let status = self.status.as_u16();
        let id = self.payment_id.as_ref();
        let id = id.map_or_else(String::new, |id| format!(", payment_id: {id}"));
        format!("{{ title: {title}, status: {status}, detail: {detail}{id} }}")
    }

    fn after(mut self, retry_after: Option<String>) -> Self {
        self.retry_after = retry_after;
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = serde_json::json!({
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(payment_id) = &self.payment_id {
            body["payment_id"] = serde_json::json!(payment_id);
        }
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        with_retry_after(headers, self.retry_after.as_deref());
        response
    }
}

/// Adds `Retry-After`, if there is one that a header can carry.
pub(super) fn with_retry_after(headers: &mut axum::http::HeaderMap, retry_after: Option<&str>) {
    if let Some(value) = retry_after.and_then(|text| HeaderValue::from_str(text).ok()) {
        headers.insert(header::RETRY_AFTER, value);
    }
}
