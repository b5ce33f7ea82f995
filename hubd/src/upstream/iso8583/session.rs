//! What is asked on one connection and not yet answered.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc, oneshot};

use super::mapping::Mapping;
use crate::iso8583::{Message, Mti};

/// The most messages that wait to be written. More than can be under way.
const MOST_UNWRITTEN: usize = 256;

/// The most messages on one connection that answer nothing. Late answers are
/// such; a peer that sends nothing else is not worth its connection.
const MOST_IGNORED: u64 = 1000;

/// Echo tests in a row without any message coming in, until the connection
/// counts as dead.
const MOST_UNANSWERED: u32 = 3;

/// Why a connection was given up, or never came to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct LineFault(pub(super) String);

impl LineFault {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// A message on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) frame: Vec<u8>,
    /// Whoever waits for its answer; the acquirer's own questions are
    /// answered without one.
    ticket: Option<(Key, u64)>,
}

/// By what an answer finds its question: the type, the trace number and, but
/// for network management, the retrieval reference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    family: [u8; 3],
    stan: String,
    rrn: Option<String>,
}

impl Key {
    /// Of a question (by the type of its answer), or of an answer.
    fn of(family: Mti, message: &Message) -> Option<Self> {
        Some(Self {
            family: family.family(),
            stan: message.text(11)?.to_owned(),
            rrn: message.text(37).map(str::to_owned),
        })
    }
}

struct Waiter {
    ticket: u64,
    question: Message,
    answer: oneshot::Sender<Message>,
}

/// Questions and answers of one connection. The tasks that read and write it
/// and those that wait for an answer share it.
pub(super) struct Session {
    mapping: Arc<Mapping>,
    waiting: Mutex<Result<HashMap<Key, Waiter>, LineFault>>,
    out: mpsc::Sender<Outgoing>,
    tickets: AtomicU64,
    ignored: AtomicU64,
    received: AtomicU64,
    unanswered: AtomicU32,
    silent: Notify,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(mapping: Arc<Mapping>) -> (Arc<Self>, mpsc::Receiver<Outgoing>) {
        let (out, unwritten) = mpsc::channel(MOST_UNWRITTEN);
        let session = Self {
            mapping,
            waiting: Mutex::new(Ok(HashMap::new())),
            out,
            tickets: AtomicU64::new(0),
            ignored: AtomicU64::new(0),
            received: AtomicU64::new(0),
            unanswered: AtomicU32::new(0),
            silent: Notify::new(),
        };
        (Arc::new(session), unwritten)
    }

    fn waiting(&self) -> MutexGuard<'_, Result<HashMap<Key, Waiter>, LineFault>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a question and waits for its answer, for as long as the caller
    /// does: whoever drops this no longer waits, and a question that has not
    /// been written by then is not sent.
    pub(super) async fn ask(&self, question: &Message) -> Result<Message, LineFault> {
        let frame = self.frame(question)?;
        let key = Key::of(question.mti.answer(), question)
            .ok_or_else(|| LineFault::new("a question without a trace number"))?;
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let waiter = Waiter {
            ticket,
            question: question.clone(),
            answer,
        };
        // A newer attempt at the same takes the place of an older one.
        self.waiting()
            .as_mut()
            .map_err(|fault| fault.clone())?
            .insert(key.clone(), waiter);
        let _guard = Guard {
            session: self,
            key: &key,
            ticket,
        };
        let outgoing = Outgoing {
            frame,
            ticket: Some((key.clone(), ticket)),
        };
        if self.out.send(outgoing).await.is_err() {
            return Err(self.fault());
        }
        answered.await.map_err(|_| self.fault())
    }

    fn frame(&self, message: &Message) -> Result<Vec<u8>, LineFault> {
        self.mapping.frame(message).map_err(LineFault)
    }

    /// Whether anybody still waits for the answer to a message.
    pub(super) fn wanted(&self, outgoing: &Outgoing) -> bool {
        let Some((key, ticket)) = &outgoing.ticket else {
            return true;
        };
        self.waiting()
            .as_ref()
            .is_ok_and(|waiting| waiting.get(key).is_some_and(|waiter| waiter.ticket == *ticket))
    }

    /// Takes a message that came in. An error ends the connection.
    pub(super) fn receive(&self, message: Message) -> Result<(), LineFault> {
        self.received.fetch_add(1, Ordering::Relaxed);
        self.unanswered.store(0, Ordering::Relaxed);
        if message.mti.asks() {
            return self.asked(&message);
        }
        let key = Key::of(message.mti, &message);
        let mut waiting = self.waiting();
        let Ok(waiting) = waiting.as_mut() else {
            return Ok(());
        };
        let Some(key) = key.filter(|key| waiting.contains_key(key)) else {
            return self.ignore(&message, "late, or the answer to nothing");
        };
        let disagrees = waiting
            .get(&key)
            .and_then(|waiter| self.mapping.agrees(&waiter.question, &message).err());
        if let Some(field) = disagrees {
            return self.ignore(&message, &format!("its field {field} is not the question's"));
        }
        if let Some(waiter) = waiting.remove(&key) {
            // Whoever has just stopped waiting does not miss it.
            let _ = waiter.answer.send(message);
        }
        Ok(())
    }

    /// The acquirer asks something of the hub. Only network management has an
    /// answer.
    fn asked(&self, message: &Message) -> Result<(), LineFault> {
        if message.mti != Mti::NETWORK {
            return self.ignore(message, "not a question for a shop");
        }
        let answer = Mapping::network_answer(message);
        let Ok(frame) = self.frame(&answer) else {
            return self.ignore(message, "cannot be answered");
        };
        self.out
            .try_send(Outgoing { frame, ticket: None })
            .map_err(|_| LineFault::new("the acquirer asks and does not read the answers"))
    }

    fn ignore(&self, message: &Message, why: &str) -> Result<(), LineFault> {
        tracing::info!(mti = %message.mti, why, "a message of the acquirer is ignored");
        if self.ignored.fetch_add(1, Ordering::Relaxed) >= MOST_IGNORED {
            return Err(LineFault::new("the acquirer answers what nobody asked"));
        }
        Ok(())
    }

    /// How many messages have come in.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// An echo test was not answered in time.
    pub(super) fn echo_unanswered(&self) {
        if self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_UNANSWERED {
            self.silent.notify_one();
        }
    }

    /// Ends when so many echo tests were not answered that the connection
    /// counts as dead.
    pub(super) async fn silence(&self) -> LineFault {
        self.silent.notified().await;
        LineFault::new(format!("{MOST_UNANSWERED} echo tests in a row were not answered"))
    }

    /// The connection is gone: nobody gets an answer any more.
    pub(super) fn end(&self, fault: LineFault) {
        *self.waiting() = Err(fault);
    }

    fn fault(&self) -> LineFault {
        match self.waiting().as_ref() {
            Err(fault) => fault.clone(),
            Ok(_) => LineFault::new("asked again meanwhile"),
        }
    }
}

/// Takes a question back when nobody waits for its answer any more.
struct Guard<'s> {
    session: &'s Session,
    key: &'s Key,
    ticket: u64,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if let Ok(waiting) = self.session.waiting().as_mut()
            && waiting
                .get(self.key)
                .is_some_and(|waiter| waiter.ticket == self.ticket)
        {
            waiting.remove(self.key);
        }
    }
}
