//! What the ledger tells of its archives.

use hub_protocol::Event;

use crate::core::Core;
use crate::effect::{OperatorReply, Reply};
use crate::input::{ArchiveChange, Ticket};

impl Core {
    /// Writes down what was done with an archive, if it is its turn.
    pub(crate) fn archive(&mut self, ticket: Ticket, change: ArchiveChange) {
        if self.refuse_if_stopping(ticket) {
            return;
        }
        if let Err(text) = self.archive_in_turn(&change) {
            let reply = Reply::Operator(OperatorReply::Refused(text));
            self.reply_after(0, ticket, reply);
            return;
        }
        let event = match change {
            ArchiveChange::Begun { last } => {
                self.archiving = last;
                self.archive_noted(ticket);
                return;
            }
            ArchiveChange::GivenUp => {
                self.archiving = 0;
                self.archive_noted(ticket);
                return;
            }
            ArchiveChange::Written { number, last, digest } => {
                Event::SegmentArchived { number, last, digest }
            }
            ArchiveChange::Exported {
                number,
                digest,
                operator,
            } => Event::ArchiveExported {
                number,
                digest,
                operator,
            },
            ArchiveChange::Removed {
                number,
                digest,
                operator,
            } => {
                if let Some(operator) = operator {
                    let action = format!("remove archive {number}");
                    self.append(Event::OperatorActed { operator, action }, None, None);
                }
                Event::ArchiveRemoved { number, digest }
            }
        };
        let sequence = self.append(event, None, None);
        self.reply_after(sequence, ticket, Reply::Operator(OperatorReply::Done));
    }

    fn archive_noted(&mut self, ticket: Ticket) {
        let sequence = self.state.head().sequence;
        self.reply_after(sequence, ticket, Reply::Operator(OperatorReply::Done));
    }

    fn archive_in_turn(&self, change: &ArchiveChange) -> Result<(), String> {
        let marks = self.state.archives();
        match *change {
            ArchiveChange::Begun { last } if last <= marks.through || last > self.durable => {
                Err(format!("entry {last} is archived already, or not on disk yet"))
            }
            ArchiveChange::Begun { .. } | ArchiveChange::GivenUp => Ok(()),
            ArchiveChange::Written { number, last, .. } => {
                let right =
                    number == marks.written.saturating_add(1) && last > marks.through && last <= self.durable;
                if !right {
                    Err(format!(
                        "archive {number} does not follow archive {}, the last in the ledger",
                        marks.written
                    ))
                } else if last > self.archiving {
                    Err(format!(
                        "archive {number} was not begun: a payment in it may have been voided since"
                    ))
                } else {
                    Ok(())
                }
            }
            ArchiveChange::Exported { number, .. } if number == 0 || number > marks.written => {
                Err(format!("there is no archive {number}"))
            }
            ArchiveChange::Exported { .. } => Ok(()),
            ArchiveChange::Removed { number, .. } if number != marks.removed.saturating_add(1) => {
                Err(format!(
                    "archives are removed in their order, and archive {number} does not follow archive {}",
                    marks.removed
                ))
            }
            ArchiveChange::Removed { number, .. } if number > marks.exported => Err(format!(
                "archive {number} was not copied away: `hubctl ledger archive export --to FOLDER` first"
            )),
            ArchiveChange::Removed { .. } => Ok(()),
        }
    }
}
