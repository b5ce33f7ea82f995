//! A shop day, drawn from the figures in [`figures`].

use std::time::Duration;

use jiff::ToSpan;
use jiff::civil::{Date, DateTime};

use crate::figures;
use crate::rng::Rng;
use crate::sale::{self, Sale};

/// A day of `count` card sales on `date`, by time. The same seed gives the
/// same day.
pub fn day(seed: u64, count: usize, date: Date) -> Vec<Sale> {
    let mut rng = Rng::new(seed);
    let closing = date.at(22, 0, 0, 0);
    let mut visits: Vec<(DateTime, String)> = Vec::with_capacity(count);
    let mut cards = 0_u64;
    while visits.len() < count {
        cards += 1;
        let token = token(seed, cards);
        let uses = (rng.weighted(&figures::CARD_USES_A_DAY) + 1).min(count - visits.len());
        let mut at = arrival(&mut rng, date);
        for _ in 0..uses {
            visits.push((at, token.clone()));
            let gap = figures::at(&figures::REUSE_GAP_MINUTES, rng.unit()) * 60 + rng.below(60);
            let later = at.saturating_add(i64::try_from(gap).unwrap_or(0).seconds());
            at = later.min(closing);
        }
    }
    // Ties by token, so that the day depends on nothing but the seed.
    visits.sort();
    visits
        .into_iter()
        .enumerate()
        .map(|(place, (at, token))| {
            let grosz = figures::at(&figures::AMOUNTS_GROSZ, rng.unit());
            let amount_minor = (grosz * 100 / figures::GROSZ_PER_100_CENTS).max(1);
            Sale {
                order_id: format!("T{:05}", place + 1),
                at,
                amount_minor,
                service: service(&mut rng),
                card: sale::card(seed, token),
                gesture: sale::gesture(&mut rng, amount_minor),
            }
        })
        .collect()
}

/// A card of a seed, by its number.
pub fn token(seed: u64, number: u64) -> String {
    // Letters in between: a token must not pass for a card number.
    format!("sim{:04x}x{number:06}", seed & 0xffff)
}

fn arrival(rng: &mut Rng, date: Date) -> DateTime {
    let hour = i8::try_from(rng.weighted(&figures::ARRIVALS_BY_HOUR)).unwrap_or(12);
    let seconds = i64::try_from(rng.below(3600)).unwrap_or(0);
    date.at(hour, 0, 0, 0).saturating_add(seconds.seconds())
}

/// How long a till is busy with one customer.
pub fn service(rng: &mut Rng) -> Duration {
    Duration::from_secs(figures::at(&figures::SERVICE_SECONDS, rng.unit()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn sample() -> Vec<Sale> {
        day(42, 4000, jiff::civil::date(2026, 3, 14))
    }

    #[test]
    fn the_same_seed_gives_the_same_day_and_another_seed_another() {
        assert_eq!(sample(), sample());
        assert_ne!(sample(), day(43, 4000, jiff::civil::date(2026, 3, 14)));
        assert_eq!(sample().len(), 4000);
    }

    #[test]
    fn the_day_follows_the_real_arrivals_amounts_and_reuse() {
        let sales = sample();
        assert!(sales.windows(2).all(|w| w[0].at <= w[1].at));
        let noon = sales.iter().filter(|s| s.at.hour() == 12).count();
        assert!(
            (380..580).contains(&noon),
            "about 120 of 1,000 at noon, got {noon} of 4,000"
        );
        assert!(sales.iter().all(|s| (7..=22).contains(&s.at.hour())));

        let mut amounts: Vec<u64> = sales.iter().map(|s| s.amount_minor).collect();
        amounts.sort_unstable();
        let median = amounts[2000];
        assert!(
            (1500..1900).contains(&median),
            "73.33 zloty are 17.05 euros, got {median}"
        );

        let mut uses: HashMap<&str, usize> = HashMap::new();
        for sale in &sales {
            *uses.entry(&sale.card.token).or_default() += 1;
        }
        let again = sales.len() - uses.len();
        assert!(
            (750..1050).contains(&again),
            "22 % of uses are not the first, got {again} of 4,000"
        );
    }

    #[test]
    fn everything_drawn_is_acceptable_to_the_protocol() {
        for sale in sample() {
            assert!(sale.amount_minor > 0);
            for text in [&sale.order_id, &sale.card.token] {
                assert!(text.len() <= 64 && !hub_protocol::card_number::holds_card_number(text));
            }
        }
    }
}
