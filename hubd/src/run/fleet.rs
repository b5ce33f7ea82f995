//! What operators ask about enrolling, carried to the hub and its edges.

use hub_core::admission::FleetToken;
use hub_core::{Contradiction, ListToTake, OperatorCommand, OperatorReply, Sign, Standing};
use hub_protocol::enrolment::CODE_LIFETIME_SECONDS;
use hub_protocol::{DeviceClass, DeviceId, Digest, EnrolmentCode};

use super::backend::HubBackend;
use crate::admin::protocol::{
    ContradictionReport, EnrolReport, FleetOrder, FleetReport, ListReport, SignReport, StandingReport,
    TokenReport,
};
use crate::admin::{EnrolOrder, Operator, Refused};
use crate::clock;
use crate::config::verify_device_list;
use crate::devices::{Grant, Replacement};
use hub_protocol::root::Delegated;

impl HubBackend {
    pub(super) async fn enrolment_code(
        &self,
        operator: Operator,
        order: EnrolOrder,
    ) -> Result<EnrolReport, Refused> {
        // A code for one device changes nothing by itself; the enrolment that
        // it leads to is the ledger's entry.
        match order {
            EnrolOrder::One(class) => self.code_of(class.into()),
            EnrolOrder::Replacing { class, device, lost } => {
                let operator = operator.to_string();
                let replaces = Some(Replacement {
                    device,
                    lost,
                    operator,
                });
                let report = self.code_of(Grant { class, replaces })?;
                Ok(EnrolReport {
                    replaces: Some(device.to_string()),
                    ..report
                })
            }
            EnrolOrder::Fleet(class, order) => self.fleet_code(operator, class, order).await,
        }
    }

    fn code_of(&self, grant: Grant) -> Result<EnrolReport, Refused> {
        let class = grant.class;
        let code = self
            .devices
            .issue_code(grant)
            .map_err(|error| Refused::new(error.to_string()))?;
        Ok(report(code, class, CODE_LIFETIME_SECONDS))
    }

    async fn fleet_code(
        &self,
        operator: Operator,
        class: DeviceClass,
        FleetOrder { most, valid_seconds }: FleetOrder,
    ) -> Result<EnrolReport, Refused> {
        let code = self
            .devices
            .fleet_code()
            .map_err(|error| Refused::new(error.to_string()))?;
        let token = Digest::of(&code.token);
        // Nobody has the code before the ledger knows of it.
        self.change(
            operator,
            OperatorCommand::MakeFleetToken {
                token,
                class,
                most,
                valid_ms: valid_seconds.saturating_mul(1000),
            },
        )
        .await?;
        Ok(EnrolReport {
            most,
            token: Some(token.to_string()),
            ..report(code, class, valid_seconds)
        })
    }

    pub(super) async fn fleet_report(&self) -> Result<FleetReport, Refused> {
        let told = self.operate("fleet".to_owned(), OperatorCommand::Fleet).await?;
        let OperatorReply::Fleet {
            tokens,
            list,
            list_left,
        } = told
        else {
            return Err(Refused::unavailable("the hub did not say which tokens there are"));
        };
        Ok(FleetReport {
            tokens: tokens.iter().map(token_report).collect(),
            list_version: list.map(|list| list.version),
            list_key: list.map(|list| list.key.to_string()),
            list_taken_ms: list.map(|list| list.taken_ms),
            list_left,
        })
    }

    pub(super) async fn take_signed_list(
        &self,
        operator: Operator,
        signed: Vec<u8>,
    ) -> Result<ListReport, Refused> {
        let keys = self.authority().await?.keys(Delegated::DeviceLists);
        let found = verify_device_list(&signed, &keys).map_err(|error| Refused::new(error.to_string()))?;
        let taken = ListToTake {
            list: found.list,
            signed,
            key: found.key,
            hub_signing_key: self.keys.signing().verifying_key().to_bytes(),
        };
        let command = OperatorCommand::TakeList(Box::new(taken));
        match self.operate(operator.to_string(), command).await? {
            OperatorReply::ListTaken(changes) => Ok(ListReport {
                version: changes.version,
                enrolled: changes.enrolled,
                approved: changes.approved,
                shut_out: changes.shut_out,
                changed: changes.changed,
                blocked: changes.blocked,
                contradicted: changes.contradicted.iter().map(contradiction_report).collect(),
            }),
            _ => Err(Refused::unavailable("the hub gave an answer to another question")),
        }
    }

    pub(super) async fn standings(&self) -> Result<Vec<Standing>, Refused> {
        let told = self
            .operate("devices".to_owned(), OperatorCommand::Standings)
            .await?;
        match told {
            OperatorReply::Standings(all) => Ok(all),
            _ => Err(Refused::unavailable("the hub did not say who devices are")),
        }
    }
}

fn report(code: EnrolmentCode, class: DeviceClass, valid_seconds: u64) -> EnrolReport {
    EnrolReport {
        class: class.to_string(),
        code: code.to_string(),
        most: 1,
        token: None,
        replaces: None,
        expires_ms: clock::wall_ms().saturating_add(valid_seconds.saturating_mul(1000)),
        valid_seconds,
        hub_id: code.hub.to_string(),
        enrol_addresses: code.enrol_addresses,
        addresses: code.addresses,
    }
}

fn token_report(token: &FleetToken) -> TokenReport {
    TokenReport {
        token: token.token.to_string(),
        class: token.class.to_string(),
        most: token.most,
        used: token.used,
        expires_ms: token.expires_ms,
    }
}

fn contradiction_report(line: &Contradiction) -> ContradictionReport {
    ContradictionReport {
        listed: line.listed.to_string(),
        known: line.known.to_string(),
        name: line.name.clone(),
    }
}

pub(super) fn standing_report(standing: &Standing) -> StandingReport {
    let texts = |devices: &[DeviceId]| devices.iter().map(ToString::to_string).collect();
    StandingReport {
        blocked_here: standing.blocked,
        pending: standing.pending,
        token: standing.token.map(|token| token.to_string()),
        listed: standing.listed,
        restriction: standing.restriction.to_string(),
        quarantined: standing.quarantined,
        shut_out: standing.shut_out.map(|out| out.list),
        revoked: standing.shut_out.is_some_and(|out| out.revoked),
        replaces: standing.replaces.map(|device| device.to_string()),
        replaced_by: standing.replaced.map(|replaced| replaced.by.to_string()),
        lost: standing.replaced.is_some_and(|replaced| replaced.lost),
        signs: standing.signs.iter().map(sign_report).collect(),
        like_older: texts(&standing.like_older),
        like_newer: texts(&standing.like_newer),
    }
}

fn sign_report(sign: &Sign) -> SignReport {
    let (sign, at_ms) = match sign {
        Sign::NumberAgain(at_ms) => ("number-again", Some(*at_ms)),
        Sign::TwoEnds => ("two-ends", None),
        Sign::TwoPlaces(places) => ("two-places", Some(places.at_ms)),
        Sign::OldKeys(at_ms) => ("old-keys", Some(*at_ms)),
    };
    SignReport {
        sign: sign.to_owned(),
        at_ms,
    }
}
