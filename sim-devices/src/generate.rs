//! The demo's own shop day, drawn from the figures in [`profile`].

use std::time::Duration;

use jiff::ToSpan;
use jiff::civil::{Date, DateTime};

use crate::profile;
use crate::rng::Rng;
use crate::sale::{self, Sale};
use crate::tickets::{Ticket, order_id};

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
        let uses = (rng.weighted(&profile::CARD_USES_A_DAY) + 1).min(count - visits.len());
        let mut at = arrival(&mut rng, date);
        for _ in 0..uses {
            visits.push((at, token.clone()));
            let gap = profile::at(&profile::REUSE_GAP_MINUTES, rng.unit()) * 60 + rng.below(60);
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
            let grosz = profile::at(&profile::AMOUNTS_GROSZ, rng.unit());
            let amount_minor = (grosz * 100 / profile::GROSZ_PER_100_CENTS).max(1);
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

/// The sales of real tickets. A ticket without a card of its own gets one by
/// the reuse figures: a fresh card, or the one of a ticket shortly before.
pub fn from_tickets(seed: u64, tickets: &[Ticket]) -> Vec<Sale> {
    let mut rng = Rng::new(seed);
    let mut drawn = DrawnCards::default();
    tickets
        .iter()
        .map(|ticket| {
            let token = match &ticket.card {
                Some(token) => token.clone(),
                None => drawn.next(seed, &mut rng, ticket.at.date()),
            };
            Sale {
                order_id: order_id(&ticket.ticket),
                at: ticket.at,
                amount_minor: ticket.amount_minor,
                service: service(&mut rng),
                card: sale::card(seed, token),
                gesture: sale::gesture(&mut rng, ticket.amount_minor),
            }
        })
        .collect()
}

/// Cards for tickets that name none: a card drawn to be used k times on a
/// day pays k of the next tickets of that day.
#[derive(Debug, Default)]
struct DrawnCards {
    made: u64,
    day: Option<Date>,
    /// Cards that will come again today, with the uses they have left.
    waiting: Vec<(String, usize)>,
}

impl DrawnCards {
    fn next(&mut self, seed: u64, rng: &mut Rng, day: Date) -> String {
        if self.day != Some(day) {
            self.waiting.clear();
            self.day = Some(day);
        }
        // Seven in ten of those who come again do so within two minutes, so
        // the next ticket is likely theirs.
        if !self.waiting.is_empty() && rng.chance(500) {
            let place = usize::try_from(rng.below(self.waiting.len() as u64)).unwrap_or(0);
            let (token, left) = &mut self.waiting[place];
            let token = token.clone();
            *left -= 1;
            if *left == 0 {
                self.waiting.swap_remove(place);
            }
            return token;
        }
        self.made += 1;
        let token = token(seed, self.made);
        let again = rng.weighted(&profile::CARD_USES_A_DAY);
        if again > 0 {
            self.waiting.push((token.clone(), again));
        }
        token
    }
}

fn token(seed: u64, number: u64) -> String {
    // Letters in between: a token must not pass for a card number.
    format!("sim{:04x}x{number:06}", seed & 0xffff)
}

fn arrival(rng: &mut Rng, date: Date) -> DateTime {
    let hour = i8::try_from(rng.weighted(&profile::ARRIVALS_BY_HOUR)).unwrap_or(12);
    let seconds = i64::try_from(rng.below(3600)).unwrap_or(0);
    date.at(hour, 0, 0, 0).saturating_add(seconds.seconds())
}

fn service(rng: &mut Rng) -> Duration {
    Duration::from_secs(profile::at(&profile::SERVICE_SECONDS, rng.unit()))
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

    #[test]
    fn real_tickets_keep_their_card_and_others_get_one_by_the_figures() {
        let at = jiff::civil::date(2024, 3, 1).at(10, 0, 0, 0);
        let tickets: Vec<Ticket> = (0..3000)
            .map(|n| Ticket {
                at,
                ticket: format!("A{n}"),
                amount_minor: 100 + n,
                card: (n % 2 == 0).then(|| "tok-file".to_owned()),
            })
            .collect();
        let sales = from_tickets(1, &tickets);
        assert!(sales.iter().step_by(2).all(|s| s.card.token == "tok-file"));
        let drawn: std::collections::HashSet<_> = sales
            .iter()
            .skip(1)
            .step_by(2)
            .map(|s| s.card.token.clone())
            .collect();
        let again = 1500 - drawn.len();
        assert!(
            (230..450).contains(&again),
            "about 22 % come again, got {again} of 1,500"
        );
        assert_eq!(sales[5].amount_minor, 105);
    }
}
