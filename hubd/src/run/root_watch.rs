//! Says in good time that the root, or the key that signed the policy, ends.

use std::sync::Arc;
use std::time::Duration;

use hub_core::{OperatorCommand, OperatorReply, Overview, Reply, RootStanding};

use crate::clock;
use crate::config::{Config, NEAR_END_OF_ROOT_MS};
use crate::port::{Ask, HubPort};

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(6 * 60 * 60);

pub(super) async fn watch(config: Arc<Config>, port: HubPort) {
    let mut ticks = tokio::time::interval(EVERY);
    let mut first = true;
    loop {
        ticks.tick().await;
        let ask = Ask::Operator {
            operator: "root".to_owned(),
            command: OperatorCommand::Overview,
        };
        if let Ok(Reply::Operator(OperatorReply::Overview(overview))) = port.ask(ask).await {
            if std::mem::take(&mut first) {
                compare(&config, &overview);
            }
            match &overview.root {
                Some(root) => tell(root, clock::wall_ms()),
                None if overview.root_unreadable => {
                    tracing::error!("the root in force cannot be read: nothing is approved offline");
                }
                None => {}
            }
        }
    }
}

/// The configuration only says with which root a hub begins.
fn compare(config: &Config, overview: &Overview) {
    match (&overview.root, &config.policy.root) {
        (Some(root), Some(pinned)) if pinned.root.version > root.version => tracing::warn!(
            in_force = root.version,
            file = %pinned.file.display(),
            "[policy] root_file names root {}, which does not count: the ledger has one already; \
             `hubctl root apply` each root after it",
            pinned.root.version
        ),
        (Some(root), None) => tracing::warn!(
            in_force = root.version,
            "[policy] trusted_keys does not count: the ledger has a root, and it stays in force"
        ),
        _ => {}
    }
}

/// Says how a root stands, if somebody should know.
pub(super) fn tell(root: &RootStanding, now_ms: u64) {
    match root.expires_ms.checked_sub(now_ms) {
        None | Some(0) => tracing::error!(
            root = root.version,
            "the root has expired: nothing is approved offline until `hubctl root apply` has brought the next one"
        ),
        Some(left) if left < NEAR_END_OF_ROOT_MS => tracing::warn!(
            root = root.version,
            days = left / 86_400_000,
            "the root ends soon: ask headquarters for the next one, or nothing is approved offline then"
        ),
        Some(_) => {}
    }
    if let Some(objection) = &root.policy_objection {
        tracing::error!(
            root = root.version,
            "the policy in force does not count: {objection}"
        );
    }
}
