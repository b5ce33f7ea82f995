//! The hub's signing key gives way to another.

use hub_protocol::{Event, HubKeyChange, SignedKeyChange};

use crate::core::Core;
use crate::effect::{Effect, OperatorReply, Reply};
use crate::input::Ticket;

impl Core {
    /// Writes the change down, if it is for the entry that comes next.
    pub(crate) fn change_hub_key(&mut self, ticket: Ticket, statement: SignedKeyChange, operator: String) {
        if self.refuse_if_stopping(ticket) {
            return;
        }
        let next = self.state.head().sequence + 1;
        let signed = HubKeyChange::open(&statement.0).ok();
        let here = signed.is_some_and(|change| change.hub == self.settings.hub && change.sequence == next);
        if !here || self.hub_key_changes > self.durable {
            let text = "the ledger went on meanwhile, or another change is under way; nothing was changed, try again";
            self.operator_reply(ticket, OperatorReply::Refused(text.to_owned()));
            return;
        }
        self.out.push(Effect::ChangeHubKey { sequence: next });
        let event = Event::HubKeyChanged {
            statement: statement.clone(),
            operator,
        };
        let sequence = self.append(event, None, None);
        self.hub_key_changes = sequence;
        self.after(sequence, Effect::HubKeyChanged { statement });
        self.reply_after(sequence, ticket, Reply::Operator(OperatorReply::Done));
    }
}
