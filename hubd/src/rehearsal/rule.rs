//! Which key of a policy decided.

use hub_core::decide::{Assessment, TapLimit};
use hub_core::policy::Policy;
use hub_protocol::{DeviceClass, PaymentRequest, Reason};

/// The key of the policy that a reason stands for, as `docs/policy.md` names
/// it; a table out of several by its place in the file, from 1. `None` for a
/// reason that no policy can change, and for an approval.
pub fn key(
    reason: Reason,
    request: &PaymentRequest,
    class: DeviceClass,
    policy: &Policy,
    assessed: Option<&Assessment>,
) -> Option<String> {
    let of_class = |key: &str| Some(format!("class.{class}.{key}"));
    let fixed = |key: &str| Some(key.to_owned());
    let ceiling = || match assessed.and_then(|assessed| assessed.ceiling) {
        Some(number) => Some(format!("ceiling[{number}]")),
        None => of_class("transaction_ceiling"),
    };
    match reason {
        Reason::PolicyNotYetValid => fixed("not_before"),
        Reason::PolicyExpired => fixed("expires"),
        Reason::OfflineDisabled => fixed("offline.enabled"),
        Reason::ClassNotAllowed => Some(format!("class.{class}")),
        Reason::OfflineTooLong => fixed("offline.longest_minutes"),
        Reason::UnsentTooLong => fixed("offline.oldest_unsent_minutes"),
        Reason::StoreSuspended => fixed("anomaly.store.stop"),
        Reason::DeviceSuspended => fixed("anomaly.device.stop"),
        Reason::OutsideHours => fixed("hours"),
        Reason::CardContactlessLimit => match assessed.and_then(|assessed| assessed.tap_limit) {
            Some(TapLimit::Count) => fixed("card.contactless_consecutive_limit"),
            _ => fixed("card.contactless_cumulative_ceiling"),
        },
        Reason::CardWindow => fixed("card.window_count"),
        Reason::DeviceWindow => of_class("device_window_count"),
        Reason::ModelNotCertified => fixed("model"),
        Reason::AttestationMissing => fixed("attestation.max_age_minutes"),
        Reason::PinOnGlassNotAllowed => fixed("model.pin_on_glass"),
        Reason::TransactionTypeNotAllowed => fixed("offline.transaction_types"),
        Reason::CardExpired => fixed("offline.expired_cards"),
        Reason::CashBackCeiling => fixed("offline.cash_back_ceiling"),
        Reason::StaffCeiling => fixed("staff.exposure_ceiling"),
        Reason::StaffConsecutiveLimit => fixed("staff.consecutive_limit"),
        Reason::StaffConsecutiveLowerLimit => fixed("staff.consecutive_lower_limit"),
        Reason::CardOnExceptionList => fixed("card.exception"),
        Reason::SchemeNotAllowed => fixed("offline.schemes"),
        Reason::FundingNotAllowed => fixed("offline.funding"),
        Reason::CountryNotAllowed => fixed("card.countries"),
        Reason::BinNotAllowed if policy.cards.bin_is_denied(&request.card) => fixed("card.bins_denied"),
        Reason::BinNotAllowed => fixed("card.bins_allowed"),
        Reason::EntryModeNotAllowed => fixed("offline.entry_modes"),
        Reason::VerificationRequired => {
            let ceiling_minor = assessed.and_then(|assessed| assessed.effective_ceiling_minor);
            match ceiling_minor {
                Some(ceiling_minor) if request.amount_minor() > ceiling_minor => ceiling(),
                _ => fixed("offline.contactless_unverified_ceiling"),
            }
        }
        Reason::TransactionCeiling => match assessed.and_then(|assessed| assessed.effective_ceiling_minor) {
            Some(most) if request.is_unverified_tap() && request.amount_minor() <= most => {
                fixed("offline.contactless_unverified_ceiling")
            }
            _ => ceiling(),
        },
        Reason::CardCeiling => fixed("card.exposure_ceiling"),
        Reason::DeviceCeiling => of_class("device_exposure_ceiling"),
        Reason::StoreCeiling => fixed("store.exposure_ceiling"),
        Reason::CardConsecutiveLimit => fixed("card.consecutive_limit"),
        Reason::DeviceConsecutiveLimit => of_class("device_consecutive_limit"),
        Reason::StoreConsecutiveLimit => fixed("store.consecutive_limit"),
        Reason::CardConsecutiveLowerLimit => fixed("card.consecutive_lower_limit"),
        Reason::DeviceConsecutiveLowerLimit => of_class("device_consecutive_lower_limit"),
        Reason::StoreConsecutiveLowerLimit => fixed("store.consecutive_lower_limit"),
        Reason::ScoreTooHigh => fixed("score.decline_from"),
        Reason::ScoreVerification => fixed("score.verify_from"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hub_protocol::{CardFacts, CardScheme, Cryptogram, EntryMode, Funding, Verification};

    use super::*;
    use crate::rehearsal::highest::{Way, request};

    #[test]
    fn every_reason_that_a_policy_can_change_names_its_key() {
        const OF_NO_KEY: [Reason; 13] = [
            Reason::None,
            Reason::TrainingMode,
            Reason::CardRefused,
            Reason::DeviceBlocked,
            Reason::CurrencyNotAccepted,
            Reason::GatewayDeclined,
            Reason::Cancelled,
            Reason::Abandoned,
            Reason::QueueFull,
            Reason::StorageFull,
            Reason::NoPolicy,
            Reason::ClockInDoubt,
            Reason::OnlinePinNotPossible,
        ];
        let policy = include_bytes!("../../../config/policies/everything.toml");
        let policy = Policy::parse(policy).unwrap();
        let card = CardFacts {
            token: "tok-1".to_owned(),
            last4: None,
            bin: None,
            scheme: CardScheme::Visa,
            issuer_country: None,
            funding: Funding::Credit,
        };
        let way = Way {
            entry_mode: EntryMode::Chip,
            verification: Verification::OfflinePin,
        };
        let request = request(&policy, way, &card, Cryptogram::AsksOnline, 1);
        for reason in Reason::ALL {
            let key = key(*reason, &request, DeviceClass::Mpos, &policy, None);
            assert_eq!(key.is_none(), OF_NO_KEY.contains(reason), "{reason}");
        }
    }
}
