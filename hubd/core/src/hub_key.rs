//! The hub's signing key, or its TLS key, gives way to another; the store's key
//! is wrapped under another.

use hub_protocol::{Digest, Entry, Event, HubKeyChange, SignedKeyChange};

use crate::core::Core;
use crate::effect::{Effect, OperatorReply, Reply};
use crate::input::{Ticket, TlsKeyChange};
use crate::state::{State, TlsKeysRecord};

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

impl Core {
    /// Writes down under which TLS keys the hub is reached from here on.
    pub(crate) fn change_tls_key(&mut self, ticket: Ticket, operator: String, change: TlsKeyChange) {
        let present = self.state.tls_keys().cloned();
        let number = present.as_ref().map_or(0, |known| known.number);
        let keys = present.map_or_else(|| vec![Digest(self.settings.hub.0)], |known| known.keys);
        let event = match (change, keys.as_slice()) {
            (TlsKeyChange::Add(key), [beside]) if key != *beside => Ok(Event::HubTlsKeyAdded {
                number: number.saturating_add(1),
                key,
                beside: *beside,
                operator,
            }),
            (TlsKeyChange::Add(_), [_]) => Err("this is the key that the hub has already"),
            (TlsKeyChange::Add(_), _) => {
                Err("the TLS key is being changed already; end that first, with --finish or --abandon")
            }
            (TlsKeyChange::Finish | TlsKeyChange::Abandon, [new, old]) => {
                let (key, dropped) = match change {
                    TlsKeyChange::Finish => (*new, *old),
                    _ => (*old, *new),
                };
                Ok(Event::HubTlsKeyDropped {
                    number: number.saturating_add(1),
                    key,
                    dropped,
                    operator,
                })
            }
            _ => Err("the TLS key is not being changed; `hubctl keys rotate tls` begins it"),
        };
        match event {
            Ok(event) => {
                let sequence = self.append(event, None, None);
                if let Some(keys) = self.state.tls_keys() {
                    let keys = keys.statement(self.settings.hub);
                    self.after(sequence, Effect::HubTlsKeys { keys });
                }
                self.reply_after(sequence, ticket, Reply::Operator(OperatorReply::Done));
            }
            Err(text) => self.operator_reply(ticket, OperatorReply::Refused(text.to_owned())),
        }
    }
}

impl State {
    /// The hub is reached under these keys from this entry on.
    pub(crate) fn reached_under(&mut self, number: u32, keys: Vec<Digest>, entry: &Entry) {
        self.set_tls_keys(TlsKeysRecord {
            number,
            keys,
            sequence: entry.sequence,
            changed_ms: entry.time.wall_ms,
        });
    }
}

impl Core {
    /// Writes down what was done with the store's key before this start.
    pub(crate) fn tell_of_recovery(&mut self) {
        if let Some(recovered) = self.settings.recovered.take()
            && self.state.store().vault_key != Some(recovered.vault_key)
        {
            let event = Event::StoreRecovered {
                vault_key: recovered.vault_key,
                recovery_key: recovered.recovery_key,
                operator: recovered.operator,
            };
            self.append(event, None, None);
        }
        let (key, old_key) = (self.settings.recovery_key, self.state.store().recovery_key);
        if key != old_key {
            self.append(Event::RecoveryKeyChanged { key, old_key }, None, None);
        }
    }
}
