//! One device at work: asks, and asks again by whatever way there is.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use hub_protocol::DeviceDescription;
use hub_protocol::description::{Certification, Version};
use hub_protocol::frame::{self, HubInfo};
use hub_protocol::{
    ALPN, ALPN_2, ALPN_3, ALPN_4, ALPN_5, Answer, DeviceId, KeyChainError, KeyId, MOST_KEY_CHANGES, Override,
    PaymentId, Request, VoidRequest, WIRE_VERSION,
};
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::discovery::Browser;
use crate::enrolment::Enrolled;
use crate::error::{LinkError, PayError, SdkError, VerifyError};
use crate::identity::DeviceIdentity;
use crate::link::{self, Link, MAX_CANDIDATES};
use crate::options::ClientOptions;
use crate::payment::{PreparedPayment, Sale, jitter, unix_ms};
use crate::pushes::{PUSHES, PushEvent, read_pushes};
use crate::tls::{self, HubPin, Liveness};
use crate::verify::{VerifiedReceipt, VerifiedStatus, Verifier};

/// The first wire version that has allowances.
const ALLOWANCES_SINCE: u16 = 3;

/// The first wire version in which a hub tells of its keys.
const KEYS_SINCE: u16 = 4;

/// The lowest wire version that this client offers: what has not changed since.
const OLDEST_WIRE: u16 = 2;

/// The first and the longest pause between two tries, before jitter.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MOST: Duration = Duration::from_secs(2);

/// One enrolled device. Connects when it is first asked for something and
/// again whenever the connection is lost. Clones are handles of the same.
#[derive(Clone)]
pub struct DeviceClient {
    inner: Arc<Inner>,
}

struct Inner {
    me: Weak<Self>,
    /// A hello, ready for the wire.
    hello: Vec<u8>,
    identity: DeviceIdentity,
    enrolled: Enrolled,
    options: ClientOptions,
    config: quinn::ClientConfig,
    /// For sealed cards without an envelope: without wire version 4.
    bare_config: quinn::ClientConfig,
    verifier: Arc<Verifier>,
    /// Held while connecting, so that all who wait share one connection.
    link: tokio::sync::Mutex<Option<Arc<Link>>>,
    last_good: Mutex<Option<SocketAddr>>,
    browser: Option<Browser>,
    pushes: broadcast::Sender<PushEvent>,
    sequence: AtomicU64,
}

/// What a request needs of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    /// The lowest wire version that has it.
    pub(crate) wire: u16,
    /// Its sealed card has no envelope, which wire version 4 asks for.
    pub(crate) bare_card: bool,
}

impl Needs {
    /// The highest wire version that takes it.
    fn latest(self) -> u16 {
        if self.bare_card { 3 } else { WIRE_VERSION }
    }
}

impl From<u16> for Needs {
    fn from(wire: u16) -> Self {
        let bare_card = false;
        Self { wire, bare_card }
    }
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Who makes it, 1 to 64 bytes.
    pub vendor: String,
    /// Its model, 1 to 64 bytes.
    pub model: String,
    /// Its operating system, 1 to 64 bytes.
    pub os: String,
    /// And that one's version.
    pub os_version: Version,
    /// The version of its payment app.
    pub app_version: Version,
    /// What it is certified as.
    pub certification: Certification,
}

impl DeviceClient {
    /// Makes a client; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// When the enrolment is another device's, or discovery cannot start.
    pub fn new(
        identity: DeviceIdentity,
        enrolled: Enrolled,
        options: ClientOptions,
    ) -> Result<Self, SdkError> {
        if enrolled.registration.device != identity.device_id() {
            return Err(VerifyError::Differs("the device").into());
        }
        let verifier = Arc::new(Verifier {
            hub: enrolled.hub,
            keys: enrolled.hub_keys()?.clone(),
            device: identity.device_id(),
        });
        let browser = options
            .discovery
            .as_ref()
            .map(|d| Browser::start(&d.interfaces))
            .transpose()?;
        let pin = HubPin::Enrolled(Box::new(enrolled.clone()));
        let speaking =
            |versions: &[&[u8]]| tls::client_config(&identity, pin.clone(), versions, Liveness::PAYMENTS);
        let (config, bare_config) = (
            speaking(&[ALPN, ALPN_5, ALPN_4, ALPN_3, ALPN_2])?,
            speaking(&[ALPN_3, ALPN_2])?,
        );
        Ok(Self {
            inner: Arc::new_cyclic(|me| Inner {
                me: me.clone(),
                hello: frame::to_wire(&Request::Hello {
                    app: options.app.clone(),
                }),
                config,
                bare_config,
                sequence: AtomicU64::new(options.next_sequence),
                identity,
                enrolled,
                options,
                verifier,
                link: tokio::sync::Mutex::new(None),
                last_good: Mutex::new(None),
                browser,
                pushes: broadcast::Sender::new(PUSHES),
            }),
        })
    }

    /// The device's identity.
    pub fn device_id(&self) -> DeviceId {
        self.inner.identity.device_id()
    }

    /// The id of the key that the device signs with, as a verifier of devices
    /// names it after a change.
    pub fn signs_with(&self) -> KeyId {
        KeyId::of_key(self.inner.identity.signing_key().verifying_key().as_bytes())
    }

    /// What the device keeps of its enrolment.
    pub fn enrolled(&self) -> &Enrolled {
        &self.inner.enrolled
    }

    /// The number that the next request will get: to be stored, and given to
    /// [`ClientOptions::next_sequence`] after a restart.
    pub fn next_sequence(&self) -> u64 {
        self.inner.sequence.load(Ordering::SeqCst)
    }

    /// The address at which the hub is connected now.
    pub async fn connected_to(&self) -> Option<SocketAddr> {
        let link = self.inner.link.lock().await;
        link.as_ref().filter(|l| is_open(l)).map(|l| l.address)
    }

    /// Makes a payment: its id, its number, its signature. Nothing is sent.
    pub fn next_payment(&self, sale: Sale) -> PreparedPayment {
        PreparedPayment::new(&self.inner.identity, self.inner.next_number(), sale)
    }

    /// The same with a supervisor's override: `sign` is given what the
    /// supervisor signs as an
    /// [`ObjectType::Override`](hub_protocol::cose::ObjectType), and gives it
    /// back signed.
    pub fn next_payment_overridden(
        &self,
        sale: Sale,
        sign: impl FnOnce(&Override) -> Vec<u8>,
    ) -> PreparedPayment {
        PreparedPayment::overridden(&self.inner.identity, self.inner.next_number(), sale, sign)
    }

    /// Asks until there is an answer: the last address that was good, those
    /// that mDNS shows, the static ones; again under the same id, with the
    /// same bytes, until `give_up_after`.
    ///
    /// # Errors
    ///
    /// A refusal that is final, at once; [`PayError::GaveUp`] when the time is
    /// over, and then the payment may have been decided: ask again with the
    /// same `payment`.
    pub async fn pay(&self, payment: &PreparedPayment) -> Result<VerifiedReceipt, PayError> {
        let bytes = frame::to_wire(&payment.frame());
        self.inner
            .persist(&bytes, payment.needs(), |answer| self.receipt(answer, payment))
            .await
    }

    /// One try, on the present connection or a new one.
    ///
    /// # Errors
    ///
    /// As [`pay`](Self::pay), without [`PayError::GaveUp`].
    pub async fn pay_once(&self, payment: &PreparedPayment) -> Result<VerifiedReceipt, PayError> {
        let bytes = frame::to_wire(&payment.frame());
        self.inner
            .once(&bytes, payment.needs(), &|answer| self.receipt(answer, payment))
            .await
    }

    /// Asks for a payment to be voided, until there is an answer.
    ///
    /// # Errors
    ///
    /// As [`pay`](Self::pay).
    pub async fn void(&self, payment_id: PaymentId) -> Result<VerifiedStatus, PayError> {
        let request = self.inner.identity.sign_void(&VoidRequest {
            payment_id,
            device_sequence: self.inner.next_number(),
            device_time_ms: unix_ms(),
        });
        let bytes = frame::to_wire(&Request::Void { request });
        self.inner
            .persist(&bytes, OLDEST_WIRE, |answer| {
                Ok(self.status_of(answer, &payment_id)?.0)
            })
            .await
    }

    /// Asks where a payment stands, until there is an answer.
    ///
    /// # Errors
    ///
    /// As [`pay`](Self::pay).
    pub async fn status(
        &self,
        payment_id: PaymentId,
    ) -> Result<(VerifiedStatus, Option<VerifiedReceipt>), PayError> {
        let bytes = frame::to_wire(&Request::Status { payment_id });
        self.inner
            .persist(&bytes, OLDEST_WIRE, |answer| self.status_of(answer, &payment_id))
            .await
    }

    /// Asks the hub who it is, until there is an answer. To be asked when a
    /// sale begins: if the path to the hub has died since the last one, another
    /// is found while the amount is keyed in, not with the card on the reader.
    ///
    /// # Errors
    ///
    /// As [`pay`](Self::pay).
    pub async fn hello(&self) -> Result<HubInfo, PayError> {
        self.inner
            .persist(&self.inner.hello, OLDEST_WIRE, |answer| match answer {
                Answer::Hello { info } if info.hub == self.inner.enrolled.hub => Ok(info),
                Answer::Hello { .. } => Err(VerifyError::Differs("the hub").into()),
                Answer::Refused { refusal } => Err(PayError::Refused(refusal)),
                _ => Err(VerifyError::OtherAnswer.into()),
            })
            .await
    }

    /// Tells the hub what this device is, with a verifier's signed word on it
    /// if there is one, until there is an answer: whether that word counts
    /// under the policy in force. To be told again after an update, with each
    /// new word, and when another policy came into force.
    ///
    /// # Errors
    ///
    /// As [`pay`](Self::pay); [`PayError::HubTooOld`] of a hub before wire
    /// version 3.
    pub async fn describe(&self, what: Description, attestation: Option<Vec<u8>>) -> Result<bool, PayError> {
        let description = DeviceDescription {
            device: self.device_id(),
            device_time_ms: unix_ms(),
            vendor: what.vendor,
            model: what.model,
            os: what.os,
            os_version: what.os_version,
            app_version: what.app_version,
            certification: what.certification,
        };
        description.check().map_err(PayError::Refused)?;
        let description = self.inner.identity.sign_description(&description);
        let bytes = frame::to_wire(&Request::Describe {
            description,
            attestation,
        });
        self.inner
            .persist(&bytes, 3, |answer| match answer {
                Answer::Described { attested } => Ok(attested),
                Answer::Refused { refusal } => Err(PayError::Refused(refusal)),
                _ => Err(VerifyError::OtherAnswer.into()),
            })
            .await
    }

    /// Sends bytes as they are on a stream of their own, once, and gives what
    /// the hub answers: for tests of what a hub does with bad input. Not for
    /// payments: nothing of the answer is checked.
    ///
    /// # Errors
    ///
    /// As [`pay_once`](Self::pay_once), but a refusal is an answer here.
    pub async fn send_raw(&self, bytes: &[u8]) -> Result<Answer, PayError> {
        self.inner.once(bytes, OLDEST_WIRE, &Ok).await
    }

    /// Holds a receipt that was kept, as [`VerifiedReceipt::proof`] has it,
    /// against the payment it is for.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub fn check_receipt(
        &self,
        proof: Vec<u8>,
        payment: &PreparedPayment,
    ) -> Result<VerifiedReceipt, VerifyError> {
        self.inner.verifier.receipt(proof, payment)
    }

    /// What the hub says unasked, while connected. A listener that lags more
    /// than 64 behind loses the oldest; [`status`](Self::status) tells the
    /// same.
    pub fn pushes(&self) -> broadcast::Receiver<PushEvent> {
        self.inner.pushes.subscribe()
    }

    /// Closes the connection. The next request opens another.
    pub async fn close(&self) {
        self.inner.link.lock().await.take();
    }

    pub(crate) fn identity(&self) -> &DeviceIdentity {
        &self.inner.identity
    }

    pub(crate) fn options(&self) -> &ClientOptions {
        &self.inner.options
    }

    /// Asks for what came with this wire version until there is an answer.
    pub(crate) async fn persist_since<T>(
        &self,
        bytes: &[u8],
        since: u16,
        read: impl Fn(Answer) -> Result<T, PayError>,
    ) -> Result<T, PayError> {
        self.inner.persist(bytes, since, read).await
    }

    /// One try about an allowance.
    pub(crate) async fn once_for<T>(
        &self,
        bytes: &[u8],
        read: impl Fn(Answer) -> Result<T, PayError>,
    ) -> Result<T, PayError> {
        self.inner.once(bytes, ALLOWANCES_SINCE, &read).await
    }

    /// Asks about an allowance until there is an answer.
    pub(crate) async fn persist_for<T>(
        &self,
        bytes: &[u8],
        read: impl Fn(Answer) -> Result<T, PayError>,
    ) -> Result<T, PayError> {
        self.inner.persist(bytes, ALLOWANCES_SINCE, read).await
    }

    pub(crate) fn verified(
        &self,
        proof: Vec<u8>,
        payment: &PreparedPayment,
    ) -> Result<VerifiedReceipt, VerifyError> {
        self.inner.verifier.receipt(proof, payment)
    }

    fn receipt(&self, answer: Answer, payment: &PreparedPayment) -> Result<VerifiedReceipt, PayError> {
        match answer {
            Answer::Receipt { receipt } => Ok(self.inner.verifier.receipt(receipt, payment)?),
            Answer::Refused { refusal } => Err(PayError::Refused(refusal)),
            _ => Err(VerifyError::OtherAnswer.into()),
        }
    }

    fn status_of(
        &self,
        answer: Answer,
        payment_id: &PaymentId,
    ) -> Result<(VerifiedStatus, Option<VerifiedReceipt>), PayError> {
        let verifier = &self.inner.verifier;
        match answer {
            Answer::Status { status, receipt } => Ok((
                verifier.status(status, Some(payment_id))?,
                receipt.map(|r| verifier.receipt_of(r, payment_id)).transpose()?,
            )),
            Answer::Refused { refusal } => Err(PayError::Refused(refusal)),
            _ => Err(VerifyError::OtherAnswer.into()),
        }
    }
}

impl Inner {
    fn next_number(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::SeqCst)
    }

    /// Asks again, with the same bytes, while that can lead to an answer.
    async fn persist<T>(
        &self,
        bytes: &[u8],
        needs: impl Into<Needs>,
        read: impl Fn(Answer) -> Result<T, PayError>,
    ) -> Result<T, PayError> {
        let needs = needs.into();
        let give_up = Instant::now() + self.options.give_up_after;
        let mut backoff = BACKOFF_FIRST;
        let mut tries = 0;
        let mut last = None;
        loop {
            tries += 1;
            match tokio::time::timeout_at(give_up, self.once(bytes, needs, &read)).await {
                Ok(Err(error)) if error.transient() => last = Some(error),
                Ok(done) => return done,
                // Keeps what the try before said, which is more telling.
                Err(_) => _ = last.get_or_insert(LinkError::TimedOut.into()),
            }
            let pause = jitter(backoff);
            backoff = (backoff * 2).min(BACKOFF_MOST);
            if Instant::now() + pause >= give_up {
                return Err(PayError::GaveUp {
                    tries,
                    last: Box::new(last.unwrap_or(LinkError::TimedOut.into())),
                });
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// One try, on a connection that speaks this wire version or a later one.
    /// A connection that failed, that gave an answer which does not
    /// hold, or whose end a refusal announces, is not used again.
    async fn once<T>(
        &self,
        bytes: &[u8],
        needs: impl Into<Needs>,
        read: &impl Fn(Answer) -> Result<T, PayError>,
    ) -> Result<T, PayError> {
        let needs = needs.into();
        let link = self.link(needs).await?;
        if link.wire < needs.wire {
            return Err(PayError::HubTooOld);
        }
        let answer = link
            .watched_request(bytes, &self.hello, self.options.request_timeout)
            .await;
        let closes = matches!(&answer, Ok(Answer::Refused { refusal }) if refusal.code.closes_connection());
        let outcome = match answer {
            Ok(answer) => match read(answer.clone()) {
                Err(PayError::Unverifiable(error)) if error.is_other_key() => {
                    // Somebody else may have learned it meanwhile: it is
                    // looked at again in any case.
                    self.learn_keys(&link).await;
                    read(answer)
                }
                outcome => outcome,
            },
            Err(error) => Err(error),
        };
        if closes || matches!(&outcome, Err(error) if !matches!(error, PayError::Refused(_))) {
            let mut present = self.link.lock().await;
            if present.as_ref().is_some_and(|p| Arc::ptr_eq(p, &link)) {
                *present = None;
            }
        }
        outcome
    }

    /// Asks for the changes of the hub's signing key that this device has
    /// missed. Each that it takes is signed by a key that it knows.
    async fn learn_keys(&self, link: &Link) {
        // Payments without an envelope go over an earlier wire version, on
        // which nobody hears of keys.
        let newer;
        let link = if link.wire < KEYS_SINCE {
            let candidates = self.candidates().await;
            match link::connect(&self.config, &candidates, self.options.connect_timeout).await {
                Ok(other) if other.wire >= KEYS_SINCE => newer = other,
                _ => return,
            }
            &newer
        } else {
            link
        };
        // So many were before the key that this device was enrolled under.
        let mut passed = 0;
        loop {
            let known = self.verifier.keys.chain().changes().max(passed);
            let asked = frame::to_wire(&Request::Keys { known });
            let Ok(Answer::Keys { changes }) = link.request(&asked, self.options.request_timeout).await
            else {
                break;
            };
            let full = changes.len() == MOST_KEY_CHANGES;
            match self.enrolled.learn(&changes) {
                Ok(_) => {}
                Err(VerifyError::Keys(KeyChainError::Untrusted)) if full => {}
                Err(error) => {
                    tracing::warn!(%error, "the hub's signing keys do not follow the one that this device knows");
                    break;
                }
            }
            let told = u32::try_from(changes.len()).unwrap_or(u32::MAX);
            let Some(next) = known.checked_add(told).filter(|_| full) else {
                break;
            };
            passed = next;
        }
    }

    async fn link(&self, needs: Needs) -> Result<Arc<Link>, LinkError> {
        let mut present = self.link.lock().await;
        let fits = |link: &&Arc<Link>| is_open(link) && link.wire <= needs.latest();
        if let Some(link) = present.as_ref().filter(fits) {
            return Ok(Arc::clone(link));
        }
        self.connect(&mut present, needs).await
    }

    /// Connects, and puts the new link where the old one was. If it cannot,
    /// the old one stays.
    async fn connect(&self, present: &mut Option<Arc<Link>>, needs: Needs) -> Result<Arc<Link>, LinkError> {
        let candidates = self.candidates().await;
        let config = if needs.bare_card {
            &self.bare_config
        } else {
            &self.config
        };
        let mut link = link::connect(config, &candidates, self.options.connect_timeout).await?;
        let reader = read_pushes(
            link.connection.clone(),
            Arc::clone(&self.verifier),
            self.enrolled.clone(),
            self.pushes.clone(),
            missed_keys(self.me.clone()),
        );
        link.reader = Some(tokio::spawn(reader).abort_handle());
        tokio::spawn(stay_connected(self.me.clone(), link.connection.clone()));
        *lock(&self.last_good) = Some(link.address);
        let link = Arc::new(link);
        if let Some(inner) = self.me.upgrade().filter(|_| link.wire >= KEYS_SINCE) {
            let link = Arc::clone(&link);
            // What was said while this device was away.
            tokio::spawn(async move { inner.learn_keys(&link).await });
        }
        *present = Some(Arc::clone(&link));
        Ok(link)
    }

    /// Where the hub may be, best first, without doubles, at most 16.
    async fn candidates(&self) -> Vec<SocketAddr> {
        let mut candidates: Vec<SocketAddr> = lock(&self.last_good).iter().copied().collect();
        let fixed = || {
            self.options
                .static_addresses
                .iter()
                .chain(&self.enrolled.addresses)
        };
        if let (Some(browser), Some(discovery)) = (&self.browser, &self.options.discovery) {
            let short = self.enrolled.hub.short();
            let nowhere_else = candidates.is_empty() && fixed().next().is_none();
            if nowhere_else {
                browser
                    .wait_for(discovery.timeout, |hub| hub.hub_short == short)
                    .await;
            }
            let shown = browser.hubs().into_iter().filter(|hub| hub.hub_short == short);
            candidates.extend(shown.flat_map(|hub| hub.addresses));
        }
        candidates.extend(fixed());
        let mut unique = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            if !unique.contains(&candidate) && unique.len() < MAX_CANDIDATES {
                unique.push(candidate);
            }
        }
        unique
    }
}

/// Connects again when the path of a connection has died while nobody asked,
/// so that what the hub has to say reaches the device, and the next customer
/// need not wait for it. Not after a close, of whichever side: that was meant.
fn stay_connected(
    inner: Weak<Inner>,
    connection: quinn::Connection,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    use quinn::ConnectionError::{Reset, TimedOut};
    // In a box: the connection that it makes gets one of these too.
    Box::pin(async move {
        if !matches!(connection.closed().await, TimedOut | Reset) {
            return;
        }
        let mut backoff = BACKOFF_FIRST;
        loop {
            tokio::time::sleep(jitter(backoff)).await;
            backoff = (backoff * 2).min(BACKOFF_MOST);
            let Some(inner) = inner.upgrade() else { return };
            let mut present = inner.link.lock().await;
            let still_this = present
                .as_ref()
                .is_some_and(|link| link.connection.stable_id() == connection.stable_id());
            if !still_this || inner.connect(&mut present, OLDEST_WIRE.into()).await.is_ok() {
                return;
            }
        }
    })
}

/// What a reader of pushes does when it hears of a change of the hub's signing
/// key that does not follow those that are known: the missed ones are asked for.
fn missed_keys(inner: Weak<Inner>) -> impl Fn() + Send + 'static {
    move || {
        if let Some(inner) = inner.upgrade() {
            tokio::spawn(async move {
                let link = inner.link.lock().await.clone();
                if let Some(link) = link {
                    inner.learn_keys(&link).await;
                }
            });
        }
    }
}

fn is_open(link: &Arc<Link>) -> bool {
    link.connection.close_reason().is_none()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::SdkError;
    use ed25519_dalek::SigningKey;
    use hub_protocol::{DeviceClass, HubId, Registration};

    fn enrolled(identity: &DeviceIdentity, addresses: &[SocketAddr]) -> Enrolled {
        let registration = Registration {
            device: identity.device_id(),
            signing_key: identity.signing_key().verifying_key().to_bytes(),
            class: DeviceClass::Mpos,
            name: "Caisse 1".into(),
            model: "Test".into(),
            hub: HubId([2; 32]),
            hub_signing_key: SigningKey::from_bytes(&[1; 32]).verifying_key().to_bytes(),
            enrolled_ms: 1,
        };
        Enrolled::new(registration, addresses.to_vec())
    }

    #[tokio::test]
    async fn the_last_good_address_comes_first_and_none_comes_twice() {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let identity = DeviceIdentity::generate().unwrap();
        let known = enrolled(&identity, &[at(1), at(2)]);
        let options = ClientOptions {
            static_addresses: vec![at(3), at(2)],
            ..ClientOptions::default()
        };
        let client = DeviceClient::new(identity, known, options).unwrap();
        assert_eq!(client.inner.candidates().await, [at(3), at(2), at(1)]);
        *lock(&client.inner.last_good) = Some(at(1));
        assert_eq!(client.inner.candidates().await, [at(1), at(3), at(2)]);
    }

    #[tokio::test]
    async fn a_payment_that_no_hub_answers_is_given_up_and_stays_askable() {
        // Bound and silent.
        let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let identity = DeviceIdentity::generate().unwrap();
        let known = enrolled(&identity, &[nobody.local_addr().unwrap()]);
        let options = ClientOptions {
            connect_timeout: Duration::from_millis(50),
            give_up_after: Duration::from_millis(200),
            ..ClientOptions::default()
        };
        let client = DeviceClient::new(identity, known, options).unwrap();
        let error = client.hello().await.unwrap_err();
        assert!(matches!(error, PayError::GaveUp { .. }), "{error:?}");
        assert!(error.transient());
    }

    #[test]
    fn another_devices_enrolment_is_not_taken() {
        let (mine, yours) = (
            DeviceIdentity::generate().unwrap(),
            DeviceIdentity::generate().unwrap(),
        );
        let known = enrolled(&yours, &[]);
        assert!(matches!(
            DeviceClient::new(mine, known, ClientOptions::default()),
            Err(SdkError::Unverifiable(VerifyError::Differs("the device")))
        ));
    }
}
