//! Simulated devices that pay without end, each with one payment under way.
//!
//! What they hold lies outside the hub's disk, as in real life: the receipts,
//! and the payment that has no answer yet. They ask for that one again, with
//! the same bytes, until there is an answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hub_protocol::{
    CardFacts, CardScheme, Cryptogram, Currency, DeviceClass, DeviceId, Funding, Receipt, Verification,
};
use hub_sdk::{ClientOptions, DeviceClient, DeviceIdentity, PayError, PreparedPayment, VerifiedReceipt};
use sim_devices::rng::Rng;
use sim_devices::sale::Gesture;
use sim_devices::shop::Shop;
use sim_devices::told::{Answer, Slip, Told};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::tally::Way;

/// How long one try for an answer may take: longer than the hub waits for the
/// gateway.
const TRY: Duration = Duration::from_secs(2);

/// How long the answer to a payment that was cut off may take in the end.
const IN_THE_END: Duration = Duration::from_secs(60);

/// An answer that a device holds.
pub(crate) struct Held {
    /// What was asked and answered.
    pub(crate) told: Told,
    /// The receipt as signed; none with a refusal.
    pub(crate) receipt: Option<Vec<u8>>,
    /// What the hub was about to suffer when it answered.
    pub(crate) way: Way,
    /// Whether it was found missing in the ledger once.
    pub(crate) lost: bool,
}

/// Every answer that the devices of one shop hold.
#[derive(Default)]
pub(crate) struct Book {
    held: Mutex<Vec<Held>>,
    grown: watch::Sender<usize>,
    /// Asked again, a hub gave another answer.
    changed: Mutex<Vec<String>>,
}

impl Book {
    pub(crate) fn held(&self) -> MutexGuard<'_, Vec<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What hubs said otherwise when they were asked again.
    pub(crate) fn changed(&self) -> Vec<String> {
        self.changed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn hold(&self, held: Held) {
        let mut all = self.held();
        all.push(held);
        self.grown.send_replace(all.len());
    }

    /// Waits until there is one more than `count`.
    pub(crate) async fn grows_past(&self, count: usize) {
        // The sender is our own: no error is possible.
        let _ = self.grown.subscribe().wait_for(|now| *now > count).await;
    }
}

/// One device.
struct Device {
    number: usize,
    class: DeviceClass,
    id: DeviceId,
    client: DeviceClient,
    rng: Rng,
    sales: u64,
    /// Sent, perhaps, and not answered.
    open: Option<PreparedPayment>,
    /// The last one answered.
    last: Option<(PreparedPayment, Receipt)>,
}

/// All devices of a shop.
#[derive(Default)]
pub(crate) struct Customers {
    devices: Vec<Device>,
    book: Arc<Book>,
}

/// The devices at work.
pub(crate) struct Paying {
    stop: watch::Sender<bool>,
    running: JoinSet<Device>,
    book: Arc<Book>,
}

impl Customers {
    /// Enrols `count` devices with a hub that runs.
    pub(crate) async fn enrol(shop: &Shop, count: usize, rng: &mut Rng) -> Result<Self> {
        let mut devices = Vec::with_capacity(count);
        for number in 0..count {
            let class = DeviceClass::ALL[number % DeviceClass::ALL.len()];
            let identity = DeviceIdentity::generate()?;
            let code = shop.enrolment_code(class).await?;
            let code = code
                .parse()
                .context("hubctl enrol gave something that is no code")?;
            let enrolled =
                hub_sdk::enrol(&identity, &code, class, &format!("Caisse {number}"), "sim").await?;
            let id = identity.device_id();
            let options = ClientOptions {
                connect_timeout: Duration::from_millis(500),
                request_timeout: TRY,
                ..ClientOptions::default()
            };
            devices.push(Device {
                number,
                class,
                id,
                client: DeviceClient::new(identity, enrolled, options)?,
                rng: Rng::new(rng.next_u64()),
                sales: 0,
                open: None,
                last: None,
            });
        }
        Ok(Self {
            devices,
            book: Arc::default(),
        })
    }

    /// What they hold.
    pub(crate) fn book(&self) -> &Arc<Book> {
        &self.book
    }

    /// Lets all of them pay, one payment after the other.
    pub(crate) fn start(self, way: Way) -> Paying {
        let (stop, _) = watch::channel(false);
        let mut running = JoinSet::new();
        for device in self.devices {
            running.spawn(device.work(stop.subscribe(), Arc::clone(&self.book), way));
        }
        Paying {
            stop,
            running,
            book: self.book,
        }
    }

    /// Gets the answer to every payment that has none, and hangs up.
    pub(crate) async fn settle(&mut self, way: Way) -> Result<()> {
        for device in &mut self.devices {
            let settled = async {
                while device.open.is_some() {
                    device.step(&self.book, way).await;
                }
            };
            if timeout(IN_THE_END, settled).await.is_err() {
                bail!("device {} gets no answer to its last payment", device.number);
            }
            device.client.close().await;
        }
        Ok(())
    }
}

impl Customers {
    /// Each asks again for the last payment that it has an answer to, and hangs
    /// up. What was answered otherwise is in the book afterwards.
    pub(crate) async fn ask_again(&mut self) -> Result<()> {
        for device in &mut self.devices {
            if timeout(IN_THE_END, device.ask_again(&self.book)).await.is_err() {
                bail!("device {} gets no answer to its last payment", device.number);
            }
            device.client.close().await;
        }
        Ok(())
    }
}

impl Paying {
    /// All stop at once, wherever they are: their hub is gone.
    pub(crate) async fn stop(mut self) -> Result<Customers> {
        self.stop.send_replace(true);
        let mut devices = Vec::new();
        while let Some(device) = self.running.join_next().await {
            devices.push(device.context("a device came to grief")?);
        }
        devices.sort_by_key(|device| device.number);
        Ok(Customers {
            devices,
            book: self.book,
        })
    }
}

impl Device {
    async fn work(mut self, mut stop: watch::Receiver<bool>, book: Arc<Book>, way: Way) -> Self {
        let stopped = async move {
            // An error means that nobody waits for this any more.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        let paying = async {
            self.ask_again(&book).await;
            loop {
                self.step(&book, way).await;
                sleep(Duration::from_millis(self.rng.below(12))).await;
            }
        };
        tokio::select! {
            () = stopped => {}
            () = paying => {}
        }
        // The next request opens a connection of its own.
        self.client.close().await;
        self
    }

    /// The hub, asked again for what it answered before the cut, gives the
    /// first answer again.
    async fn ask_again(&mut self, book: &Book) {
        let Some((payment, first)) = &self.last else {
            return;
        };
        loop {
            match self.client.pay_once(payment).await {
                Ok(VerifiedReceipt { receipt, .. }) if receipt == *first => return,
                Ok(VerifiedReceipt { receipt, .. }) => {
                    let text = format!(
                        "payment {}: first {} as entry {}, then {} as entry {}",
                        first.payment_id, first.decision, first.sequence, receipt.decision, receipt.sequence
                    );
                    return book.complain(text);
                }
                Err(PayError::Refused(refusal)) if !refusal.code.transient() => {
                    return book.complain(format!(
                        "payment {}: first answered, then {refusal}",
                        first.payment_id
                    ));
                }
                Err(_) => sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// One try for the payment that is open, or for a new one.
    async fn step(&mut self, book: &Book, way: Way) {
        let payment = match self.open.take() {
            Some(open) => open,
            None => self.next_sale(),
        };
        // Noted first: this may be dropped at any await.
        self.open = Some(payment.clone());
        let (answer, receipt) = match self.client.pay_once(&payment).await {
            Ok(VerifiedReceipt { receipt, proof }) => {
                let slip = Slip {
                    decision: receipt.decision,
                    reason: receipt.reason,
                    sequence: receipt.sequence,
                    entry_digest: receipt.entry_digest,
                    decided_ms: receipt.time.wall_ms,
                    policy_version: receipt.policy_version,
                };
                self.last = Some((payment.clone(), receipt));
                (Answer::Receipt(slip), Some(proof))
            }
            Err(PayError::Refused(refusal)) if !refusal.code.transient() => {
                (Answer::Refused(refusal.code), None)
            }
            Err(_) => return sleep(Duration::from_millis(5)).await,
        };
        self.open = None;
        let request = payment.request();
        book.hold(Held {
            told: Told {
                payment_id: payment.payment_id(),
                order_id: request.order_id.clone(),
                device: self.id,
                class: self.class,
                amount_minor: request.amount_minor(),
                card: request.card.clone(),
                gesture: Gesture {
                    entry_mode: request.entry_mode,
                    verification: request.verification,
                    cryptogram: request.cryptogram,
                },
                answer,
            },
            receipt,
            way,
            lost: false,
        });
    }

    /// Every payment with a card of its own, so that no ceiling is near.
    fn next_sale(&mut self) -> PreparedPayment {
        self.sales += 1;
        let order_id = format!("F{}-{}", self.number, self.sales);
        let gesture = Gesture::inserted(match self.sales % 3 {
            0 => Cryptogram::CardApproved,
            _ => Cryptogram::AsksOnline,
        });
        let (entry_mode, verification) = match self.class {
            // A phone has no slot.
            DeviceClass::Softpos => (hub_protocol::EntryMode::Contactless, Verification::Cdcvm),
            _ => (gesture.entry_mode, gesture.verification),
        };
        self.client.next_payment(hub_sdk::Sale {
            amount_minor: 100 + self.rng.below(4000),
            currency: Currency::EUR,
            card: CardFacts {
                token: format!("card of {order_id}"),
                scheme: CardScheme::Cb,
                funding: Funding::Debit,
                issuer_country: Some("FR".to_owned()),
                bin: None,
                last4: None,
            },
            sealed_card: order_id.as_bytes().repeat(12).into(),
            order_id,
            entry_mode,
            verification,
            cryptogram: gesture.cryptogram,
            terms: None,
        })
    }
}

impl Book {
    fn complain(&self, text: String) {
        self.changed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(text);
    }
}
