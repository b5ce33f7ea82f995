//! Figures of real shop days, that the demo's own day is drawn from.
//!
//! Arrivals, amounts and service times: the 4,324 card tickets of
//! T. Antczak and R. Weron, "Point of Sale (POS) Data from a Supermarket",
//! MDPI Data 2019 (grocery tills, Poland, 13 trading days of 2019).
//! Reuse of cards: 3,547 sales with an anonymised card of the set
//! ihelon/coffee-sales on Kaggle (two vending machines, 2024 to 2025).
//! Only figures are here, no row of either.

/// Card tickets by hour of the day, per 1,000.
pub const ARRIVALS_BY_HOUR: [u64; 24] = [
    0, 0, 0, 0, 0, 0, 0, 31, 60, 65, 77, 112, 120, 98, 64, 68, 77, 67, 55, 44, 29, 32, 1, 0,
];

/// One point of a distribution: this share of cases is at most this value.
#[derive(Clone, Copy, Debug)]
pub struct Quantile {
    /// In thousandths.
    pub permille: u16,
    /// In the unit of the table.
    pub value: u64,
}

const fn q(permille: u16, value: u64) -> Quantile {
    Quantile { permille, value }
}

/// Amounts of card tickets, in 1/100 zloty.
pub const AMOUNTS_GROSZ: [Quantile; 15] = [
    q(0, 25),
    q(10, 499),
    q(50, 1327),
    q(100, 2024),
    q(200, 3148),
    q(300, 4455),
    q(400, 5866),
    q(500, 7333),
    q(600, 9282),
    q(700, 11_859),
    q(800, 15_132),
    q(900, 21_249),
    q(950, 28_839),
    q(990, 42_214),
    q(1000, 91_404),
];

/// Zloty for 100 euros in 2019 (the ECB's average rate was 4.2976 for one).
pub const GROSZ_PER_100_CENTS: u64 = 430;

/// From the first item to the payment of a card ticket, in seconds.
pub const SERVICE_SECONDS: [Quantile; 15] = [
    q(0, 9),
    q(10, 13),
    q(50, 19),
    q(100, 24),
    q(200, 33),
    q(300, 42),
    q(400, 51),
    q(500, 61),
    q(600, 72),
    q(700, 84),
    q(800, 102),
    q(900, 131),
    q(950, 161),
    q(990, 223),
    q(1000, 560),
];

/// How often a card is used on a day on which it is used: once 2,086 times,
/// twice 577 times and so on.
pub const CARD_USES_A_DAY: [u64; 8] = [2086, 577, 73, 15, 4, 0, 0, 1];

/// Between two uses of a card on one day, in minutes.
pub const REUSE_GAP_MINUTES: [Quantile; 8] = [
    q(0, 0),
    q(50, 1),
    q(700, 2),
    q(800, 3),
    q(900, 163),
    q(950, 301),
    q(990, 550),
    q(1000, 753),
];

/// The value at a place between 0 and 1 of a distribution, straight lines
/// between its points.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)] // small positive figures
pub fn at(table: &[Quantile], place: f64) -> u64 {
    let wanted = place.clamp(0.0, 1.0) * 1000.0;
    let mut before = match table.first() {
        Some(first) => *first,
        None => return 0,
    };
    for point in table {
        if wanted <= f64::from(point.permille) {
            let width = f64::from(point.permille - before.permille);
            let share = if width > 0.0 {
                (wanted - f64::from(before.permille)) / width
            } else {
                1.0
            };
            let span = point.value as f64 - before.value as f64;
            return (before.value as f64 + share * span).round() as u64;
        }
        before = *point;
    }
    before.value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_rise_and_reach_from_0_to_1() {
        for table in [&AMOUNTS_GROSZ[..], &SERVICE_SECONDS, &REUSE_GAP_MINUTES] {
            assert_eq!((table[0].permille, table[table.len() - 1].permille), (0, 1000));
            assert!(
                table
                    .windows(2)
                    .all(|w| w[0].permille < w[1].permille && w[0].value <= w[1].value)
            );
        }
        assert_eq!(ARRIVALS_BY_HOUR.iter().sum::<u64>(), 1000);
    }

    #[test]
    fn values_between_two_points_lie_on_the_line() {
        assert_eq!(at(&AMOUNTS_GROSZ, 0.5), 7333);
        assert_eq!(at(&AMOUNTS_GROSZ, 0.0), 25);
        assert_eq!(at(&AMOUNTS_GROSZ, 1.0), 91_404);
        let middle = at(&SERVICE_SECONDS, 0.55);
        assert!((61..=72).contains(&middle), "{middle}");
    }
}
