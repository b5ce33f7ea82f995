//! Why a payment was declined or sent another way. A contract: numbers are
//! never reused, and smaller numbers take precedence.

use crate::codes::codes;

codes! {
    /// The reason of a decision, in order of precedence: of several that
    /// apply, the one with the smallest number is given.
    pub enum Reason {
        /// Approved: nothing stands against it.
        None = 0, "none";
        /// Somebody practises: nothing is charged.
        TrainingMode = 105, "training-mode";
        /// The card itself refused (AAC).
        CardRefused = 110, "card-refused";
        /// The device is blocked.
        DeviceBlocked = 120, "device-blocked";
        /// The hub takes payments in another currency.
        CurrencyNotAccepted = 130, "currency-not-accepted";
        /// The gateway, online, said no.
        GatewayDeclined = 150, "gateway-declined";
        /// The device voided the payment before it was answered; what may
        /// have reached the gateway is being reversed.
        Cancelled = 155, "cancelled";
        /// The device stopped asking before an answer was found; what may
        /// have reached the gateway is being reversed.
        Abandoned = 160, "abandoned";
        /// The queue of payments to send is full.
        QueueFull = 170, "queue-full";
        /// The hub's disk is nearly full: what room is left is for what was
        /// accepted before.
        StorageFull = 171, "storage-full";
        /// There is no policy, so nothing may be approved offline.
        NoPolicy = 210, "no-policy";
        /// The policy is not in force yet.
        PolicyNotYetValid = 211, "policy-not-yet-valid";
        /// The policy has expired.
        PolicyExpired = 212, "policy-expired";
        /// The policy does not allow offline approvals.
        OfflineDisabled = 213, "offline-disabled";
        /// The policy does not allow this class of device offline.
        ClassNotAllowed = 214, "class-not-allowed";
        /// The shop has been offline for longer than the policy allows.
        OfflineTooLong = 215, "offline-too-long";
        /// The hub cannot tell how long the shop has been offline, because
        /// its clock is in doubt, and the limits for that case are reached.
        ClockInDoubt = 216, "clock-in-doubt";
        /// A payment has been waiting to be sent for longer than the policy
        /// allows.
        UnsentTooLong = 217, "unsent-too-long";
        /// Anomalies have ended offline approvals in the whole store.
        StoreSuspended = 218, "store-suspended";
        /// Anomalies have ended offline approvals at this device.
        DeviceSuspended = 219, "device-suspended";
        /// The shop is closed, and nothing is approved offline then.
        OutsideHours = 220, "outside-hours";
        /// The device's model is not certified, or it does not say which it is.
        ModelNotCertified = 221, "model-not-certified";
        /// No verifier has lately said that the device is as it should be.
        AttestationMissing = 222, "attestation-missing";
        /// What is asked for, such as a refund, is not approved offline.
        TransactionTypeNotAllowed = 230, "transaction-type-not-allowed";
        /// The card is on the policy's exception list.
        CardOnExceptionList = 305, "card-on-exception-list";
        /// The card has expired.
        CardExpired = 306, "card-expired";
        /// The card's scheme is not accepted offline.
        SchemeNotAllowed = 310, "scheme-not-allowed";
        /// The card's funding is not accepted offline.
        FundingNotAllowed = 311, "funding-not-allowed";
        /// Cards issued in this country, or in one that is not known, are not
        /// accepted offline.
        CountryNotAllowed = 312, "country-not-allowed";
        /// The card's BIN, or one that is not known, is not accepted offline.
        BinNotAllowed = 313, "bin-not-allowed";
        /// This way of reading the card is not accepted offline.
        EntryModeNotAllowed = 320, "entry-mode-not-allowed";
        /// The PIN would have to be checked by the issuer.
        OnlinePinNotPossible = 321, "online-pin-not-possible";
        /// The PIN may not be entered on the glass of this device.
        PinOnGlassNotAllowed = 322, "pin-on-glass-not-allowed";
        /// Above the limit for payments verified like this; with the PIN, or
        /// on the customer's own device, it would not be.
        VerificationRequired = 330, "verification-required";
        /// The card has been tapped without verification for as much, or as
        /// often, as the policy allows; with the PIN, or on the customer's own
        /// device, it goes on.
        CardContactlessLimit = 331, "card-contactless-limit";
        /// The amount is above the ceiling for one payment.
        TransactionCeiling = 410, "transaction-ceiling";
        /// The cash handed out is above its ceiling.
        CashBackCeiling = 411, "cash-back-ceiling";
        /// The card's exposure would pass its ceiling.
        CardCeiling = 420, "card-ceiling";
        /// The device's exposure would pass its ceiling.
        DeviceCeiling = 421, "device-ceiling";
        /// The store's exposure would pass its ceiling.
        StoreCeiling = 422, "store-ceiling";
        /// The exposure of the member of staff would pass its ceiling.
        StaffCeiling = 423, "staff-ceiling";
        /// Too many consecutive offline payments with this card.
        CardConsecutiveLimit = 520, "card-consecutive-limit";
        /// Too many consecutive offline payments at this device.
        DeviceConsecutiveLimit = 521, "device-consecutive-limit";
        /// Too many consecutive offline payments in the store.
        StoreConsecutiveLimit = 522, "store-consecutive-limit";
        /// Too many consecutive offline payments by this member of staff.
        StaffConsecutiveLimit = 523, "staff-consecutive-limit";
        /// As many offline payments with this card lately as the policy allows.
        CardWindow = 530, "card-window";
        /// As many offline payments at this device lately as the policy
        /// allows.
        DeviceWindow = 531, "device-window";
        /// The payment looks too risky, by the points of the policy.
        ScoreTooHigh = 540, "score-too-high";
        /// The card's lower consecutive limit is reached: with the PIN it goes
        /// on.
        CardConsecutiveLowerLimit = 620, "card-consecutive-lower-limit";
        /// The same for the device.
        DeviceConsecutiveLowerLimit = 621, "device-consecutive-lower-limit";
        /// The same for the store.
        StoreConsecutiveLowerLimit = 622, "store-consecutive-lower-limit";
        /// The same for the member of staff.
        StaffConsecutiveLowerLimit = 623, "staff-consecutive-lower-limit";
        /// The payment looks risky, by the points of the policy; with the PIN
        /// it goes on.
        ScoreVerification = 630, "score-verification";
    }
}

/// Whether asking again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// No: the answer for this card or device stays the same.
    Final,
    /// Yes, as a new payment, once the network is back or the queue is sent.
    WhenOnline,
    /// Yes, as a new payment, the card read or the holder verified otherwise.
    Otherwise,
}

impl Reason {
    /// As receipts of the wire versions up to 2 say it, to requests without
    /// terms: devices of these
    /// refuse a number that they do not know. What stands here for another
    /// asks the cashier for the same; the ledger has the reason itself.
    pub const fn in_receipts(self) -> Self {
        match self {
            Self::CardOnExceptionList | Self::CountryNotAllowed | Self::BinNotAllowed => {
                Self::FundingNotAllowed
            }
            Self::CardContactlessLimit
            | Self::CardConsecutiveLowerLimit
            | Self::DeviceConsecutiveLowerLimit
            | Self::StoreConsecutiveLowerLimit
            | Self::StaffConsecutiveLowerLimit
            | Self::ScoreVerification => Self::VerificationRequired,
            // Not the amount's, which would ask for two smaller payments.
            Self::ScoreTooHigh => Self::CardCeiling,
            Self::StaffCeiling => Self::StoreCeiling,
            Self::StaffConsecutiveLimit => Self::StoreConsecutiveLimit,
            Self::UnsentTooLong => Self::OfflineTooLong,
            Self::StoreSuspended | Self::OutsideHours | Self::TransactionTypeNotAllowed => {
                Self::OfflineDisabled
            }
            // Each asks for another device.
            Self::DeviceSuspended
            | Self::ModelNotCertified
            | Self::AttestationMissing
            | Self::PinOnGlassNotAllowed => Self::ClassNotAllowed,
            Self::CardWindow => Self::CardConsecutiveLimit,
            Self::DeviceWindow => Self::DeviceConsecutiveLimit,
            other => other,
        }
    }

    /// Whether asking again (under a new payment id) can help.
    pub const fn retry(self) -> Retry {
        match self {
            Self::None
            | Self::TrainingMode
            | Self::CardExpired
            | Self::CardRefused
            | Self::DeviceBlocked
            | Self::CurrencyNotAccepted
            | Self::GatewayDeclined => Retry::Final,
            Self::EntryModeNotAllowed
            | Self::OnlinePinNotPossible
            | Self::VerificationRequired
            | Self::CardContactlessLimit
            | Self::CardConsecutiveLowerLimit
            | Self::DeviceConsecutiveLowerLimit
            | Self::StoreConsecutiveLowerLimit
            | Self::StaffConsecutiveLowerLimit
            | Self::ScoreVerification => Retry::Otherwise,
            _ => Retry::WhenOnline,
        }
    }

    /// What the cashier reads, in French.
    pub const fn text_fr(self) -> &'static str {
        match self {
            Self::None => "Paiement accepté.",
            Self::CardRefused => "Carte refusée par la carte elle-même. Demandez un autre moyen de paiement.",
            Self::TrainingMode => "Mode formation : rien n’est encaissé.",
            Self::TransactionTypeNotAllowed => {
                "Pas de réseau : cette opération n’est pas possible hors ligne. Attendez le retour du réseau."
            }
            Self::CardExpired => "Carte expirée. Demandez une autre carte.",
            Self::ModelNotCertified => {
                "Pas de réseau : ce modèle d’appareil n’est pas admis. Utilisez un autre appareil."
            }
            Self::AttestationMissing => {
                "Cet appareil doit d’abord être contrôlé en ligne. Utilisez un autre appareil et prévenez le responsable."
            }
            Self::PinOnGlassNotAllowed => {
                "Le code ne peut pas être composé sur cet appareil. Proposez le téléphone du client, ou utilisez un appareil avec clavier."
            }
            Self::CashBackCeiling => {
                "Pas de réseau : trop d’espèces demandées. Proposez moins d’espèces, ou le paiement seul."
            }
            Self::StaffCeiling | Self::StaffConsecutiveLimit => {
                "Pas de réseau : votre limite hors ligne est atteinte. Appelez un collègue ou le responsable."
            }
            Self::DeviceBlocked => {
                "Cet appareil est bloqué. Utilisez un autre appareil et prévenez le responsable."
            }
            Self::CurrencyNotAccepted => "Devise non acceptée. Encaissez dans la devise du magasin.",
            Self::GatewayDeclined => "Paiement refusé par la banque. Demandez un autre moyen de paiement.",
            Self::Cancelled => "Paiement annulé avant la réponse. Rien n’est encaissé.",
            Self::Abandoned => "Paiement interrompu et annulé. Recommencez.",
            Self::QueueFull => "Trop de paiements en attente d’envoi. Demandez un autre moyen de paiement.",
            Self::StorageFull => {
                "Le boîtier n’a plus de place pour noter ce paiement. Demandez un autre moyen de paiement et prévenez le responsable."
            }
            Self::NoPolicy => {
                "Pas de réseau, et aucune règle hors ligne n’est installée. Demandez un autre moyen de paiement."
            }
            Self::PolicyNotYetValid => {
                "Pas de réseau, et les règles hors ligne ne sont pas encore en vigueur. Demandez un autre moyen de paiement."
            }
            Self::PolicyExpired => {
                "Pas de réseau, et les règles hors ligne ont expiré. Demandez un autre moyen de paiement."
            }
            Self::OfflineDisabled => {
                "Pas de réseau, et le mode hors ligne est désactivé. Demandez un autre moyen de paiement."
            }
            Self::ClassNotAllowed => {
                "Pas de réseau : ce type d’appareil n’accepte pas de carte hors ligne. Utilisez un autre appareil."
            }
            Self::OfflineTooLong => {
                "Le magasin est hors ligne depuis trop longtemps. Demandez un autre moyen de paiement."
            }
            Self::ClockInDoubt => {
                "L’horloge du boîtier est douteuse et la limite prudente est atteinte. Demandez un autre moyen de paiement."
            }
            Self::CardOnExceptionList => {
                "Pas de réseau : cette carte n’est pas acceptée hors ligne. Demandez un autre moyen de paiement."
            }
            Self::CountryNotAllowed | Self::BinNotAllowed => {
                "Pas de réseau : cette carte n’est pas acceptée hors ligne. Demandez une autre carte."
            }
            Self::SchemeNotAllowed => {
                "Pas de réseau : cette marque de carte n’est pas acceptée hors ligne. Demandez une autre carte."
            }
            Self::FundingNotAllowed => {
                "Pas de réseau : ce type de carte n’est pas accepté hors ligne. Demandez une autre carte."
            }
            Self::EntryModeNotAllowed => {
                "Pas de réseau : la carte ne peut pas être lue ainsi. Lisez-la autrement, ou utilisez un autre appareil."
            }
            Self::OnlinePinNotPossible => {
                "Pas de réseau : la banque ne peut pas vérifier le code. Carte insérée et code, ou téléphone du client ; sinon, un autre appareil."
            }
            Self::VerificationRequired => {
                "Montant trop élevé sans code : carte insérée et code, ou téléphone du client ; sinon, un autre appareil."
            }
            Self::TransactionCeiling => {
                "Pas de réseau : montant trop élevé pour un paiement hors ligne. Demandez un autre moyen de paiement."
            }
            Self::CardCeiling => {
                "Pas de réseau : cette carte a atteint sa limite hors ligne. Demandez une autre carte."
            }
            Self::DeviceCeiling => {
                "Pas de réseau : cet appareil a atteint sa limite hors ligne. Utilisez un autre appareil."
            }
            Self::StoreCeiling => {
                "Pas de réseau : le magasin a atteint sa limite hors ligne. Demandez un autre moyen de paiement."
            }
            Self::CardConsecutiveLimit => {
                "Pas de réseau : trop de paiements de suite avec cette carte. Demandez une autre carte."
            }
            Self::DeviceConsecutiveLimit => {
                "Pas de réseau : trop de paiements de suite sur cet appareil. Utilisez un autre appareil."
            }
            Self::StoreConsecutiveLimit => {
                "Pas de réseau : trop de paiements hors ligne de suite. Demandez un autre moyen de paiement."
            }
            Self::UnsentTooLong => {
                "Des paiements attendent depuis trop longtemps d’être envoyés. Demandez un autre moyen de paiement et prévenez le responsable."
            }
            Self::StoreSuspended => {
                "Le mode hors ligne est suspendu dans ce magasin. Demandez un autre moyen de paiement et prévenez le responsable."
            }
            Self::DeviceSuspended => {
                "Le mode hors ligne est suspendu sur cet appareil. Utilisez un autre appareil et prévenez le responsable."
            }
            Self::OutsideHours => {
                "Pas de réseau, et le magasin est fermé à cette heure. Demandez un autre moyen de paiement."
            }
            Self::CardWindow => {
                "Pas de réseau : trop de paiements en peu de temps avec cette carte. Demandez une autre carte."
            }
            Self::DeviceWindow => {
                "Pas de réseau : trop de paiements en peu de temps sur cet appareil. Utilisez un autre appareil."
            }
            Self::ScoreTooHigh => {
                "Pas de réseau : ce paiement n’est pas accepté hors ligne avec cette carte. Demandez une autre carte."
            }
            Self::CardContactlessLimit
            | Self::CardConsecutiveLowerLimit
            | Self::DeviceConsecutiveLowerLimit
            | Self::StoreConsecutiveLowerLimit
            | Self::StaffConsecutiveLowerLimit
            | Self::ScoreVerification => {
                "Pas de réseau : un code est demandé. Carte insérée et code, ou téléphone du client ; sinon, un autre appareil."
            }
        }
    }

    /// What the cashier reads, in English.
    pub const fn text_en(self) -> &'static str {
        match self {
            Self::None => "Payment accepted.",
            Self::CardRefused => "The card itself refused. Ask for another means of payment.",
            Self::TrainingMode => "Training: nothing is charged.",
            Self::TransactionTypeNotAllowed => {
                "No network: this cannot be done offline. Wait until the network is back."
            }
            Self::CardExpired => "The card has expired. Ask for another card.",
            Self::ModelNotCertified => {
                "No network: this model of device is not admitted. Use another device."
            }
            Self::AttestationMissing => {
                "This device must first be checked online. Use another device and tell the manager."
            }
            Self::PinOnGlassNotAllowed => {
                "The PIN cannot be entered on this device. Offer the customer's own phone, or use a device with a keypad."
            }
            Self::CashBackCeiling => {
                "No network: too much cash asked for. Offer less cash, or the payment alone."
            }
            Self::StaffCeiling | Self::StaffConsecutiveLimit => {
                "No network: you have reached your offline limit. Call a colleague or the manager."
            }
            Self::DeviceBlocked => "This device is blocked. Use another device and tell the manager.",
            Self::CurrencyNotAccepted => "Currency not accepted. Charge in the shop's currency.",
            Self::GatewayDeclined => "Declined by the bank. Ask for another means of payment.",
            Self::Cancelled => "The payment was cancelled before its answer. Nothing is charged.",
            Self::Abandoned => "The payment was interrupted and cancelled. Start again.",
            Self::QueueFull => "Too many payments wait to be sent. Ask for another means of payment.",
            Self::StorageFull => {
                "The hub has no room left to record this payment. Ask for another means of payment and tell the manager."
            }
            Self::NoPolicy => {
                "No network, and no offline policy is installed. Ask for another means of payment."
            }
            Self::PolicyNotYetValid => {
                "No network, and the offline policy is not in force yet. Ask for another means of payment."
            }
            Self::PolicyExpired => {
                "No network, and the offline policy has expired. Ask for another means of payment."
            }
            Self::OfflineDisabled => {
                "No network, and offline payments are switched off. Ask for another means of payment."
            }
            Self::ClassNotAllowed => {
                "No network: this kind of device takes no cards offline. Use another device."
            }
            Self::OfflineTooLong => {
                "The shop has been offline for too long. Ask for another means of payment."
            }
            Self::ClockInDoubt => {
                "The hub's clock is in doubt and the cautious limit is reached. Ask for another means of payment."
            }
            Self::CardOnExceptionList => {
                "No network: this card is not taken offline. Ask for another means of payment."
            }
            Self::CountryNotAllowed | Self::BinNotAllowed => {
                "No network: this card is not taken offline. Ask for another card."
            }
            Self::SchemeNotAllowed => {
                "No network: this brand of card is not taken offline. Ask for another card."
            }
            Self::FundingNotAllowed => {
                "No network: this type of card is not taken offline. Ask for another card."
            }
            Self::EntryModeNotAllowed => {
                "No network: the card cannot be read this way. Read it another way, or use another device."
            }
            Self::OnlinePinNotPossible => {
                "No network: the bank cannot check the PIN. Card inserted and PIN, or the customer's own phone; otherwise another device."
            }
            Self::VerificationRequired => {
                "Amount too high without a PIN: card inserted and PIN, or the customer's own phone; otherwise another device."
            }
            Self::TransactionCeiling => {
                "No network: amount too high for an offline payment. Ask for another means of payment."
            }
            Self::CardCeiling => "No network: this card has reached its offline limit. Ask for another card.",
            Self::DeviceCeiling => {
                "No network: this device has reached its offline limit. Use another device."
            }
            Self::StoreCeiling => {
                "No network: the shop has reached its offline limit. Ask for another means of payment."
            }
            Self::CardConsecutiveLimit => {
                "No network: too many payments in a row with this card. Ask for another card."
            }
            Self::DeviceConsecutiveLimit => {
                "No network: too many payments in a row on this device. Use another device."
            }
            Self::StoreConsecutiveLimit => {
                "No network: too many offline payments in a row. Ask for another means of payment."
            }
            Self::UnsentTooLong => {
                "Payments have been waiting to be sent for too long. Ask for another means of payment and tell the manager."
            }
            Self::StoreSuspended => {
                "Offline payments are suspended in this shop. Ask for another means of payment and tell the manager."
            }
            Self::DeviceSuspended => {
                "Offline payments are suspended on this device. Use another device and tell the manager."
            }
            Self::OutsideHours => {
                "No network, and the shop is closed at this hour. Ask for another means of payment."
            }
            Self::CardWindow => {
                "No network: too many payments with this card in a short time. Ask for another card."
            }
            Self::DeviceWindow => {
                "No network: too many payments on this device in a short time. Use another device."
            }
            Self::ScoreTooHigh => {
                "No network: this payment is not accepted offline with this card. Ask for another card."
            }
            Self::CardContactlessLimit
            | Self::CardConsecutiveLowerLimit
            | Self::DeviceConsecutiveLowerLimit
            | Self::StoreConsecutiveLowerLimit
            | Self::StaffConsecutiveLowerLimit
            | Self::ScoreVerification => {
                "No network: a PIN is asked for. Card inserted and PIN, or the customer's own phone; otherwise another device."
            }
        }
    }
}
