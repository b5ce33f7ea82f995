//! Why a line of a ticket file is not played.

/// The reason; its name stands in reports and in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Skip {
    /// Paid in cash.
    PaidCash,
    /// Paid partly by card: the file does not say how much.
    PaidMixed,
    /// Paid by something else: vouchers, account.
    PaidOther,
    /// The payment column holds a word that is not known here.
    PaymentUnknown,
    /// The amount is zero.
    AmountZero,
    /// The amount is negative: a return, not a payment.
    AmountNegative,
    /// The amount is above 12 digits.
    AmountTooLarge,
    /// The amount is not a whole number of minor units.
    AmountMalformed,
    /// The timestamp is not a date and a time of day without zone.
    TimestampMalformed,
    /// No ticket number, one above 48 bytes, or one that cannot be passed on.
    TicketNumberMalformed,
    /// The ticket number stood on an earlier line.
    TicketDoubled,
    /// Fewer or more columns than the header has.
    ColumnsWrong,
    /// Not UTF-8.
    NotUtf8,
    /// Above the longest line that is read.
    LineTooLong,
    /// The card column holds a clear card number. It is not repeated here.
    ClearCardNumber,
    /// The card column holds something that cannot be a token.
    CardMalformed,
}

impl Skip {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PaidCash => "paid-cash",
            Self::PaidMixed => "paid-mixed",
            Self::PaidOther => "paid-other",
            Self::PaymentUnknown => "payment-unknown",
            Self::AmountZero => "amount-zero",
            Self::AmountNegative => "amount-negative",
            Self::AmountTooLarge => "amount-too-large",
            Self::AmountMalformed => "amount-malformed",
            Self::TimestampMalformed => "timestamp-malformed",
            Self::TicketNumberMalformed => "ticket-number-malformed",
            Self::TicketDoubled => "ticket-doubled",
            Self::ColumnsWrong => "columns-wrong",
            Self::NotUtf8 => "not-utf8",
            Self::LineTooLong => "line-too-long",
            Self::ClearCardNumber => "clear-card-number",
            Self::CardMalformed => "card-malformed",
        }
    }

    /// For people: French and English.
    pub const fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::PaidCash => ("payé en espèces", "paid in cash"),
            Self::PaidMixed => ("payé en partie par carte", "paid partly by card"),
            Self::PaidOther => ("payé autrement", "paid otherwise"),
            Self::PaymentUnknown => ("moyen de paiement inconnu", "means of payment not known"),
            Self::AmountZero => ("montant nul", "amount of zero"),
            Self::AmountNegative => ("montant négatif (retour)", "negative amount (return)"),
            Self::AmountTooLarge => ("montant de plus de 12 chiffres", "amount above 12 digits"),
            Self::AmountMalformed => ("montant illisible", "amount not a whole number"),
            Self::TimestampMalformed => ("date ou heure illisible", "date or time not readable"),
            Self::TicketNumberMalformed => ("numéro de ticket illisible", "ticket number not usable"),
            Self::TicketDoubled => ("numéro de ticket en double", "ticket number seen before"),
            Self::ColumnsWrong => ("nombre de colonnes faux", "wrong number of columns"),
            Self::NotUtf8 => ("pas en UTF-8", "not UTF-8"),
            Self::LineTooLong => ("ligne trop longue", "line too long"),
            Self::ClearCardNumber => ("numéro de carte en clair", "clear card number"),
            Self::CardMalformed => ("jeton de carte illisible", "card token not usable"),
        }
    }
}
