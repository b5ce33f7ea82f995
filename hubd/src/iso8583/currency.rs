//! ISO 4217 numbers of currencies, for field 49.

/// Letters and number: Europe, and where its travellers and traders go. A
/// currency that is missing is a fault of the configuration.
const NUMBERS: &[(&str, &str)] = &[
    ("AED", "784"),
    ("AUD", "036"),
    ("BGN", "975"),
    ("BRL", "986"),
    ("CAD", "124"),
    ("CHF", "756"),
    ("CNY", "156"),
    ("CZK", "203"),
    ("DKK", "208"),
    ("EUR", "978"),
    ("GBP", "826"),
    ("HKD", "344"),
    ("HUF", "348"),
    ("ILS", "376"),
    ("INR", "356"),
    ("ISK", "352"),
    ("JPY", "392"),
    ("KRW", "410"),
    ("MAD", "504"),
    ("MXN", "484"),
    ("NOK", "578"),
    ("NZD", "554"),
    ("PLN", "985"),
    ("RON", "946"),
    ("RSD", "941"),
    ("SAR", "682"),
    ("SEK", "752"),
    ("SGD", "702"),
    ("THB", "764"),
    ("TND", "788"),
    ("TRY", "949"),
    ("TWD", "901"),
    ("UAH", "980"),
    ("USD", "840"),
    ("XAF", "950"),
    ("XOF", "952"),
    ("XPF", "953"),
    ("ZAR", "710"),
];

/// The three digits of a currency.
pub(super) fn number(letters: &str) -> Option<&'static str> {
    NUMBERS
        .iter()
        .find(|(known, _)| *known == letters)
        .map(|(_, number)| *number)
}
