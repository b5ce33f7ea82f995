//! ISO 8583: dialect files, length headers, messages.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

use hubd::fuzzing::AcquirerAnswers;
use hubd::iso8583::Dialect;

static ANSWERS: LazyLock<Vec<AcquirerAnswers>> = LazyLock::new(|| {
    [
        include_str!("../../../config/dialects/ascii.toml"),
        include_str!("../../../config/dialects/bcd.toml"),
        include_str!("../../../config/dialects/ebcdic.toml"),
    ]
    .iter()
    .map(|text| AcquirerAnswers::new(Dialect::parse(text).unwrap()))
    .collect()
});

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Dialect::parse(text);
    }
    let Some((which, bytes)) = bytes.split_first() else { return };
    let answers = &ANSWERS[usize::from(*which) % ANSWERS.len()];
    let dialect = answers.dialect();
    let _ = dialect.framing.body_size(bytes);
    // What was understood can be said again, and is then understood the same.
    if let Ok(message) = dialect.format.decode(dialect.framing.message(bytes)) {
        answers.read(&message);
        if let Ok(wire) = dialect.format.encode(&message) {
            assert_eq!(dialect.format.decode(&wire).as_ref(), Ok(&message));
        }
    }
});
