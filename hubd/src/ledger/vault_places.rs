//! Which cards lie where in a vault file, in little memory: 8 bytes a card
//! in a full file, so that a million cards that wait take 8 MB.
//!
//! A full file's list does not hold the ids but a piece of their hash; the id
//! stands at the start of the body, and whoever looks one up reads it there.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::os::unix::fs::FileExt;

use hub_protocol::PaymentId;

use super::vault_file::ID_LEN;

/// Where a body lies in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

/// The hash that tells ids apart. Its key is the process's own: nobody can
/// choose ids that look alike.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prints(RandomState);

impl Prints {
    pub(crate) fn of(&self, id: PaymentId) -> u32 {
        // Any half of it is as good.
        self.0.hash_one(id) as u32
    }
}

/// A card of a full file: 28 bits of its print, 25 of its offset, 11 of its
/// length. Without length, it has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Near(u64);

const OFFSET_BITS: u32 = 25;
const LEN_BITS: u32 = 11;
const PRINT_SHIFT: u32 = OFFSET_BITS + LEN_BITS;

impl Near {
    /// `None` behind 32 MiB, or for a body of 2 KiB and more.
    fn new(print: u32, span: Span) -> Option<Self> {
        let fits = span.offset < 1 << OFFSET_BITS && span.len < 1 << LEN_BITS;
        let place = u64::from(span.offset) << LEN_BITS | u64::from(span.len);
        fits.then_some(Self(Self::shorten(print) << PRINT_SHIFT | place))
    }

    /// As much of a print as is kept here.
    fn shorten(print: u32) -> u64 {
        u64::from(print >> 4)
    }

    fn print(self) -> u64 {
        self.0 >> PRINT_SHIFT
    }

    fn span(self) -> Span {
        // Both are cut to fewer bits than these types have.
        Span {
            offset: (self.0 >> LEN_BITS & ((1 << OFFSET_BITS) - 1)) as u32,
            len: (self.0 & ((1 << LEN_BITS) - 1)) as u32,
        }
    }

    fn is_there(self) -> bool {
        self.span().len > 0
    }

    /// The card has gone. Its place among the others stays.
    fn leave(&mut self) {
        self.0 &= !((1 << LEN_BITS) - 1);
    }
}

/// A card that does not fit into a [`Near`]: of a file larger than usual.
#[derive(Clone, Copy, Debug)]
struct Far {
    print: u32,
    span: Span,
}

/// The cards of one file.
#[derive(Debug)]
pub(crate) enum Cards {
    /// Of the file that is written to.
    Present(HashMap<PaymentId, Span>),
    /// Of a full one.
    Full(Listed),
}

/// Both ascending by the prints.
#[derive(Debug)]
pub(crate) struct Listed {
    near: Vec<Near>,
    far: Vec<Far>,
}

impl Default for Cards {
    fn default() -> Self {
        Self::Present(HashMap::new())
    }
}

impl Cards {
    /// Where this payment's card lies.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn find(&self, prints: &Prints, file: &File, id: PaymentId) -> std::io::Result<Option<Span>> {
        match self {
            Self::Present(cards) => Ok(cards.get(&id).copied()),
            Self::Full(listed) => {
                for span in listed.alike(prints.of(id)) {
                    if id_at(file, span)? == id {
                        return Ok(Some(span));
                    }
                }
                Ok(None)
            }
        }
    }

    /// The card is the newest of its payment in this file.
    pub(crate) fn insert(&mut self, prints: &Prints, id: PaymentId, span: Span) -> Option<Span> {
        match self {
            Self::Present(cards) => cards.insert(id, span),
            Self::Full(listed) => {
                listed.insert(prints.of(id), span);
                None
            }
        }
    }

    /// The card of this payment is no longer there.
    pub(crate) fn remove(&mut self, prints: &Prints, id: PaymentId, span: Span) {
        match self {
            Self::Present(cards) => {
                if cards.get(&id) == Some(&span) {
                    cards.remove(&id);
                }
            }
            Self::Full(listed) => {
                listed.remove(prints.of(id), span);
            }
        }
    }

    /// Those of a full file, each of another payment.
    pub(crate) fn full(prints: &Prints, cards: impl Iterator<Item = (PaymentId, Span)>) -> Self {
        let (least, _) = cards.size_hint();
        let mut near = Vec::with_capacity(least);
        let mut far = Vec::new();
        for (id, span) in cards {
            let print = prints.of(id);
            match Near::new(print, span) {
                Some(card) => near.push(card),
                None => far.push(Far { print, span }),
            }
        }
        near.sort_unstable();
        near.shrink_to_fit();
        far.sort_unstable_by_key(|card| card.print);
        Self::Full(Listed { near, far })
    }

    /// Nothing more is written to the file.
    pub(crate) fn fill(&mut self, prints: &Prints) {
        if let Self::Present(cards) = self {
            *self = Self::full(prints, cards.iter().map(|(id, span)| (*id, *span)));
        }
    }

    /// All cards that are there, in no order.
    pub(crate) fn spans(&self) -> Vec<Span> {
        match self {
            Self::Present(cards) => cards.values().copied().collect(),
            Self::Full(listed) => listed.there().collect(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Present(cards) => cards.len(),
            Self::Full(listed) => listed.there().count(),
        }
    }
}

impl Listed {
    fn insert(&mut self, print: u32, span: Span) {
        if let Some(card) = Near::new(print, span) {
            let at = self.first_near(card.print());
            self.near.insert(at, card);
        } else {
            let at = self.first_far(print);
            self.far.insert(at, Far { print, span });
        }
    }

    fn remove(&mut self, print: u32, span: Span) {
        if let Some(gone) = Near::new(print, span) {
            let from = self.first_near(gone.print());
            let alike = self.near.iter_mut().skip(from);
            alike
                .take_while(|card| card.print() == gone.print())
                .filter(|card| **card == gone)
                .for_each(Near::leave);
        } else {
            let from = self.first_far(print);
            let alike = self.far.iter_mut().skip(from);
            alike
                .take_while(|card| card.print == print)
                .filter(|card| card.span == span)
                .for_each(|card| card.span.len = 0);
        }
    }

    fn there(&self) -> impl Iterator<Item = Span> {
        let near = self.near.iter().filter(|card| card.is_there());
        let far = self.far.iter().map(|card| card.span);
        near.map(|card| card.span())
            .chain(far.filter(|span| span.len > 0))
    }

    /// Where the cards with this print lie, and perhaps some with another.
    fn alike(&self, print: u32) -> impl Iterator<Item = Span> {
        let short = Near::shorten(print);
        let near = self.near.iter().skip(self.first_near(short));
        let near = near
            .take_while(move |card| card.print() == short)
            .map(|card| card.span());
        let far = self.far.iter().skip(self.first_far(print));
        let far = far
            .take_while(move |card| card.print == print)
            .map(|card| card.span);
        near.chain(far).filter(|span| span.len > 0)
    }

    fn first_far(&self, print: u32) -> usize {
        self.far.partition_point(|card| card.print < print)
    }

    /// Where the first card with this print stands, or would. Prints are
    /// spread evenly, so that it is near where its size says.
    fn first_near(&self, print: u64) -> usize {
        let all = self.near.as_slice();
        let guess = usize::try_from((print * all.len() as u64) >> (u64::BITS - PRINT_SHIFT)).unwrap_or(0);
        let mut reach = 64;
        let mut low = guess.saturating_sub(reach);
        while low > 0 && all[low - 1].print() >= print {
            reach *= 4;
            low = guess.saturating_sub(reach);
        }
        let mut high = (guess + reach).min(all.len());
        while high < all.len() && all[high].print() < print {
            reach *= 4;
            high = (guess + reach).min(all.len());
        }
        low + all[low..high].partition_point(|card| card.print() < print)
    }
}

/// The id that a body begins with.
pub(crate) fn id_at(file: &File, span: Span) -> std::io::Result<PaymentId> {
    let mut id = [0; ID_LEN];
    // A damaged body may be shorter; what is missing counts as zero, as it
    // does when the file is walked.
    let len = ID_LEN.min(span.len as usize);
    if len == ID_LEN {
        file.read_exact_at(&mut id, u64::from(span.offset))?;
    }
    Ok(PaymentId(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> PaymentId {
        let mut id = [7; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        PaymentId(id)
    }

    /// A sparse file of 5,000 ids, each so far behind the one before.
    fn finds_what_is_there(between: u32, len: u32) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ids");
        let file = File::create_new(&path).unwrap();
        let span = |n: u32| Span {
            offset: n * between,
            len,
        };
        for n in 0..5000 {
            file.write_all_at(&id(n).0, u64::from(span(n).offset)).unwrap();
        }
        file.set_len(u64::from(5000 * between + len)).unwrap();
        let file = File::open(&path).unwrap();
        let prints = Prints::default();
        let mut cards = Cards::default();
        for n in 0..5000 {
            cards.insert(&prints, id(n), span(n));
        }
        cards.fill(&prints);
        assert_eq!(cards.len(), 5000);
        for n in (0..5000).step_by(3) {
            cards.remove(&prints, id(n), span(n));
        }
        for n in 0..5000 {
            let wanted = (n % 3 != 0).then(|| span(n));
            assert_eq!(cards.find(&prints, &file, id(n)).unwrap(), wanted);
        }
        assert_eq!(cards.find(&prints, &file, id(5001)).unwrap(), None);
        assert_eq!((cards.len(), cards.spans().len()), (3333, 3333));
    }

    #[test]
    fn a_full_file_tells_all_its_cards_and_none_that_has_gone() {
        finds_what_is_there(16, 16);
        // The first 32 MiB of 80, and longer bodies than there are.
        finds_what_is_there(16 << 10, 2047);
        finds_what_is_there(16 << 10, 2048);
    }

    #[test]
    fn a_card_in_a_full_file_of_the_usual_size_takes_8_bytes() {
        assert_eq!(size_of::<Near>(), 8);
        let longest = hub_protocol::payment::MAX_SEALED_CARD + 100;
        assert!(longest < 1 << LEN_BITS, "a card of {longest} bytes does not fit");
        let span = Span {
            offset: (1 << OFFSET_BITS) - 1,
            len: (1 << LEN_BITS) - 1,
        };
        assert_eq!(Near::new(u32::MAX, span).unwrap().span(), span);
        assert_eq!(
            Near::new(
                0,
                Span {
                    len: 1 << LEN_BITS,
                    ..span
                }
            ),
            None
        );
        assert_eq!(
            Near::new(
                0,
                Span {
                    offset: 1 << OFFSET_BITS,
                    ..span
                }
            ),
            None
        );
    }
}
