//! Texts from the gateway, made fit to be written down.

use hub_protocol::card_number::holds_card_number;

/// The longest detail taken over from an answer, in bytes: what a ledger
/// entry keeps.
pub(super) const MAX_DETAIL: usize = 200;

/// What stands in place of a text that held a clear card number.
const WITHHELD: &str = "(withheld: held a clear card number)";

/// `text` without control characters and runs of blanks, at most `max` bytes,
/// and without a clear card number.
pub(super) fn clean(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    // Blanks and control characters between words become one blank. The whole
    // text is looked at before it is shortened: half a card number is too
    // much as well.
    for word in text
        .split(|c: char| c.is_whitespace() || c.is_control() || is_invisible(c))
        .filter(|word| !word.is_empty())
    {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    let joined: String = text
        .chars()
        .filter(|c| !c.is_control() && !is_invisible(*c))
        .collect();
    if holds_card_number(&out) || holds_card_number(&joined) {
        return shorten(WITHHELD, max).to_owned();
    }
    let short = shorten(&out, max);
    if holds_card_number(short) {
        return shorten(WITHHELD, max).to_owned();
    }
    short.to_owned()
}

/// Characters that take no room or turn text around: they could hide things
/// from a person who reads a log.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The longest beginning of `text` that is at most `max` bytes.
fn shorten(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What an answer's texts hold to, whatever came.
#[cfg(fuzzing)]
pub(super) fn hold(answer: &hub_core::GatewayAnswer) {
    use hub_core::GatewayAnswer;
    let texts = match answer {
        GatewayAnswer::Final(result) | GatewayAnswer::Advised { result, .. } => {
            let optional = [&result.authorisation_code, &result.reference];
            let texts = optional.into_iter().flatten().map(String::as_str);
            texts.chain([result.response_code.as_str()]).collect()
        }
        GatewayAnswer::Conflict { detail }
        | GatewayAnswer::RefusesHub { detail }
        | GatewayAnswer::RefusesMessage { detail }
        | GatewayAnswer::NoAnswer { detail }
        | GatewayAnswer::Broken { detail, .. } => vec![detail.as_str()],
        _ => Vec::new(),
    };
    for text in texts {
        assert!(!holds_card_number(text), "a card number is written down");
        assert!(text.len() <= MAX_DETAIL && !text.chars().any(char::is_control));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_a_character_and_lose_control_characters() {
        assert_eq!(clean("a\u{1b}[31mb\r\n\tc\0d", 200), "a [31mb c d");
        assert_eq!(clean("éééé", 5), "éé");
        assert_eq!(clean("\u{202e}right to left", 200), "right to left");
        assert_eq!(clean("", 200), "");
        assert_eq!(clean(&"x".repeat(500), MAX_DETAIL).len(), MAX_DETAIL);
    }

    #[test]
    fn rule_6_a_clear_card_number_never_comes_in() {
        for text in [
            "card 4111111111111111 refused",
            "card 4111 1111 1111 1111 refused",
            "4111\u{0}1111\u{0}1111\u{0}1111",
            "4111\u{200b}11111111\u{200b}1111",
            "41111111\r\n11111111",
        ] {
            let told = clean(text, 200);
            assert!(told.starts_with("(withheld"), "{told}");
        }
        let far = format!("{}4111111111111111", "x ".repeat(95));
        assert!(!clean(&far, 200).contains("4111"));
    }
}
