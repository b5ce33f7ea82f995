//! Amounts, instants and spans as people read them.

use jiff::{SignedDuration, Timestamp};

/// Whose way of writing numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    French,
    English,
}

impl Language {
    /// The language of whoever asks, by the POSIX locale variables.
    pub(super) fn of_environment() -> Self {
        Self::of(["LC_ALL", "LC_MONETARY", "LANG"].map(|name| std::env::var(name).ok()))
    }

    fn of(variables: [Option<String>; 3]) -> Self {
        // The first that is set and not empty counts.
        match variables.into_iter().flatten().find(|value| !value.is_empty()) {
            Some(value) if value.starts_with("fr") => Self::French,
            _ => Self::English,
        }
    }
}

/// "12,50 EUR" or "12.50 EUR".
pub(super) fn amount(minor: u64, currency: &str, language: Language) -> String {
    let digits = minor_digits(currency);
    let separator = match language {
        Language::French => ',',
        Language::English => '.',
    };
    let unit = 10_u64.pow(digits);
    match digits {
        0 => format!("{minor} {currency}"),
        _ => format!(
            "{}{separator}{:0width$} {currency}",
            minor / unit,
            minor % unit,
            width = digits as usize
        ),
    }
}

/// ISO 4217: how many digits the minor unit has.
fn minor_digits(currency: &str) -> u32 {
    match currency {
        "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX" | "UYI"
        | "VND" | "VUV" | "XAF" | "XOF" | "XPF" => 0,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
        "CLF" | "UYW" => 4,
        _ => 2,
    }
}

/// "1 payment", "2 payments".
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// RFC 3339 in UTC, to the second.
pub(super) fn instant(ms: u64) -> String {
    i64::try_from(ms / 1000)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .map_or_else(|| "?".to_owned(), |instant| instant.to_string())
}

/// "4h 3m 12s".
pub(super) fn span(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    format!("{:#}", SignedDuration::from_secs(seconds))
}

/// "4h 3m 12s ago".
pub(super) fn ago(then_ms: u64, now_ms: u64) -> String {
    match now_ms.checked_sub(then_ms) {
        Some(age) => format!("{} ago", span(age / 1000)),
        None => instant(then_ms),
    }
}

/// The first digits, enough for people; the whole with `--json`.
pub(super) fn short(id: &str) -> &str {
    id.get(..16).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_as_the_reader_writes_them() {
        for (minor, currency, language, expected) in [
            (1250, "EUR", Language::French, "12,50 EUR"),
            (1250, "EUR", Language::English, "12.50 EUR"),
            (5, "EUR", Language::French, "0,05 EUR"),
            (0, "CHF", Language::English, "0.00 CHF"),
            (1250, "JPY", Language::French, "1250 JPY"),
            (1250, "TND", Language::French, "1,250 TND"),
            (999_999_999_999, "EUR", Language::English, "9999999999.99 EUR"),
        ] {
            assert_eq!(amount(minor, currency, language), expected);
        }
    }

    #[test]
    fn the_first_locale_variable_that_is_set_counts() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(Language::of([None, None, some("fr_FR.UTF-8")]), Language::French);
        assert_eq!(
            Language::of([some("C"), None, some("fr_FR.UTF-8")]),
            Language::English
        );
        assert_eq!(
            Language::of([some(""), some("fr_BE"), some("en_GB")]),
            Language::French
        );
        assert_eq!(Language::of([None, None, None]), Language::English);
    }

    #[test]
    fn instants_and_spans_are_readable() {
        assert_eq!(instant(1_767_225_600_999), "2026-01-01T00:00:00Z");
        assert_eq!(span(14_592), "4h 3m 12s");
        assert_eq!(ago(1000, 61_000), "1m ago");
        assert_eq!(ago(61_000, 1000), "1970-01-01T00:01:01Z");
    }
}
