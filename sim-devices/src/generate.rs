//! Sales for real tickets, drawn from the figures in [`profile`] as far as the
//! file says nothing. The demo's own day is [`day`].

use jiff::civil::Date;

pub use hub_sim::generate::day;
use hub_sim::generate::{service, token};

use crate::profile;
use crate::rng::Rng;
use crate::sale::{self, Sale};
use crate::tickets::{Ticket, order_id};

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

#[cfg(test)]
mod tests {
    use super::*;

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
