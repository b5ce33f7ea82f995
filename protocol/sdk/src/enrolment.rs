//! Enrolment: how a device becomes known to a hub, and what it keeps of it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use hub_protocol::cose::{self, CoseError, ObjectType};
use hub_protocol::{
    ALPN_ENROL, Answer, CertificateKeys, DeviceClass, Digest, EnrolmentCode, EnrolmentRequest, HubId,
    ProofError, Registration, Request, SignedKeyChange, SignedTlsKeys, TlsKeysError, cbor, frame,
};
use minicbor::{Decode, Encode};

use crate::error::{LinkError, PayError, SdkError, VerifyError};
use crate::files;
use crate::hub_keys::HubKeys;
use crate::identity::DeviceIdentity;
use crate::link::{self, MAX_CANDIDATES};
use crate::payment::jitter;
use crate::tls::{self, HubPin, Liveness};

const FILE: &str = "enrolled.cbor";

/// The hub answers once the enrolment is on its disk.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often an enrolment is tried; the token is good for one device, so
/// asking again with the same keys is safe.
const TRIES: u32 = 4;
const BACKOFF: Duration = Duration::from_millis(500);

/// What a device knows of the hub that it is enrolled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// The hub's identity: no other is talked to.
    pub hub: HubId,
    /// The Ed25519 keys that the hub signs receipts with; `None` if what it
    /// named at the enrolment is no key.
    pub hub_keys: Option<HubKeys>,
    /// Where the hub listens for payments, best first: the static addresses.
    pub addresses: Vec<SocketAddr>,
    /// What the hub wrote down.
    pub registration: Registration,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Stored {
    #[n(1)]
    registration: Registration,
    #[n(2)]
    addresses: Vec<String>,
    /// Changes of the hub's signing key since.
    #[n(3)]
    key_changes: Option<Vec<SignedKeyChange>>,
    /// The newest statement of the hub's TLS keys.
    #[n(4)]
    tls_keys: Option<SignedTlsKeys>,
    /// The TLS key that the device was enrolled under, if that is not the one
    /// that the hub is named after.
    #[n(5)]
    tls_key: Option<Digest>,
}

impl Enrolled {
    /// From the hub's registration and its addresses.
    pub fn new(registration: Registration, addresses: Vec<SocketAddr>) -> Self {
        Self {
            hub: registration.hub,
            hub_keys: cose::verifying_key(&registration.hub_signing_key)
                .map(|key| HubKeys::new(registration.hub, key)),
            addresses,
            registration,
        }
    }

    /// Enrolled under this TLS key: until the hub states its keys it is known
    /// by this one and no other. The one it is named after may be retired.
    fn under(self, key: Digest) -> Self {
        if let Some(keys) = &self.hub_keys {
            keys.known_under(key);
        }
        self
    }

    /// Writes it into `dir`, readable by its owner only (0600).
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), SdkError> {
        let changes = self.hub_keys.as_ref().map(|keys| keys.chain().statements(0));
        let stored = Stored {
            registration: self.registration.clone(),
            addresses: self.addresses.iter().map(SocketAddr::to_string).collect(),
            key_changes: changes.filter(|changes| !changes.is_empty()),
            tls_keys: self
                .hub_keys
                .as_ref()
                .and_then(|keys| keys.tls().signed().cloned()),
            tls_key: self
                .hub_keys
                .as_ref()
                .map(|keys| keys.tls().unstated())
                .filter(|key| key.0 != self.hub.0),
        };
        files::write_private(dir, FILE, &cbor::encode(&stored))?;
        if let Some(keys) = &self.hub_keys {
            keys.keep_in(dir);
        }
        Ok(())
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    ///
    /// When the file is missing or damaged.
    pub fn load(dir: &Path) -> Result<Self, SdkError> {
        let (path, bytes) = files::read(dir, FILE)?;
        cbor::decode(&bytes)
            .ok()
            .and_then(|stored: Stored| {
                let addresses = stored.addresses.iter().map(|a| a.parse().ok());
                let mut enrolled = Self::new(stored.registration, addresses.collect::<Option<_>>()?);
                if let Some(key) = stored.tls_key {
                    enrolled = enrolled.under(key);
                }
                if let Some(keys) = &enrolled.hub_keys {
                    keys.learn(&stored.key_changes.unwrap_or_default()).ok()?;
                    match stored.tls_keys.map(|signed| keys.learn_tls(&signed)) {
                        // By a signing key that has given way: dropped.
                        Some(Err(TlsKeysError::Statement(ProofError::Commit(CoseError::UnknownKey)))) => {}
                        Some(Err(_)) => return None,
                        Some(Ok(_)) | None => {}
                    }
                    keys.keep_in(dir);
                }
                Some(enrolled)
            })
            .ok_or(SdkError::Damaged { path })
    }

    /// Takes changes of the hub's signing key, and keeps them where the
    /// enrolment is kept. Whether there was anything new.
    pub(crate) fn learn(&self, changes: &[SignedKeyChange]) -> Result<bool, VerifyError> {
        let new = self.hub_keys()?.learn(changes)?;
        self.keep(new);
        Ok(new)
    }

    /// Takes a statement of the hub's TLS keys, and keeps it. Whether it said
    /// anything new.
    pub(crate) fn learn_tls(&self, keys: &SignedTlsKeys) -> Result<bool, VerifyError> {
        let new = self.hub_keys()?.learn_tls(keys)?;
        self.keep(new);
        Ok(new)
    }

    /// Whether the TLS key with this SHA-256 over its SubjectPublicKeyInfo is
    /// the hub's, after what the certificate says of the hub's keys has been
    /// taken: that proves itself, whoever shows it.
    pub(crate) fn is_hub(&self, key: &Digest, certificate: &[u8]) -> bool {
        if let Some(says) = CertificateKeys::in_certificate(certificate) {
            match self.hub_keys().and_then(|keys| keys.learn_both(&says)) {
                Ok(new) => self.keep(new),
                Err(error) => {
                    tracing::debug!(%error, "what a certificate says of the hub's keys is not taken");
                }
            }
        }
        match &self.hub_keys {
            Some(keys) => keys.tls().accepts(key),
            None => key.0 == self.hub.0,
        }
    }

    fn keep(&self, new: bool) {
        let dir = self.hub_keys.as_ref().and_then(HubKeys::dir).filter(|_| new);
        // What could not be written is learned again after the next start.
        if let Some(Err(error)) = dir.map(|dir| self.save(&dir)) {
            tracing::warn!(%error, "the hub's new key could not be kept");
        }
    }

    pub(crate) fn hub_keys(&self) -> Result<&HubKeys, VerifyError> {
        self.hub_keys
            .as_ref()
            .ok_or(VerifyError::Differs("the hub's signing key"))
    }
}

/// Presents an enrolment code to the hub it names and checks what comes back.
///
/// The hub is known by the SHA-256 of its key in the code; addresses are only
/// where to look. Tried several times with the same token.
///
/// # Errors
///
/// When the hub is not reached, refuses, or answers with anything but this
/// device's registration.
pub async fn enrol(
    identity: &DeviceIdentity,
    code: &EnrolmentCode,
    class: DeviceClass,
    name: &str,
    model: &str,
) -> Result<Enrolled, SdkError> {
    let request = EnrolmentRequest {
        token: code.token,
        hub: code.hub,
        device: identity.device_id(),
        signing_key: identity.signing_key().verifying_key().to_bytes(),
        class,
        name: name.to_owned(),
        model: model.to_owned(),
    };
    request.check().map_err(SdkError::Refused)?;
    let candidates = resolve(&code.enrol_addresses).await;
    if candidates.is_empty() {
        return Err(SdkError::NoAddress);
    }
    let signed = cose::sign(
        identity.signing_key(),
        ObjectType::Enrolment,
        &cbor::encode(&request),
    );
    let bytes = frame::to_wire(&Request::Enrol { request: signed });
    let config = tls::client_config(
        identity,
        HubPin::Key(code.pin()),
        &[ALPN_ENROL],
        Liveness::ENROLMENT,
    )?;

    let mut tries = 0;
    let answer = loop {
        tries += 1;
        let answer = async {
            let link = link::connect(&config, &candidates, CONNECT_TIMEOUT).await?;
            link.request(&bytes, REQUEST_TIMEOUT).await
        };
        match answer.await {
            Ok(Answer::Refused { refusal }) if refusal.code.transient() && tries < TRIES => {}
            Err(PayError::NoAnswer(_)) if tries < TRIES => {}
            answer => break answer,
        }
        tokio::time::sleep(jitter(BACKOFF * tries)).await;
    };
    match answer {
        Ok(Answer::Enrolled { registration }) => {
            let registration = verify(identity, &request, &registration)?;
            Ok(Enrolled::new(registration, resolve(&code.addresses).await).under(code.pin()))
        }
        Ok(Answer::Refused { refusal }) => Err(SdkError::Refused(refusal)),
        Ok(_) => Err(VerifyError::OtherAnswer.into()),
        Err(PayError::Unverifiable(error)) => Err(error.into()),
        Err(PayError::NoAnswer(error)) => Err(SdkError::NotReached(error)),
        Err(_) => Err(SdkError::NotReached(LinkError::NoAnswer)),
    }
}

/// Class and name are the hub's to say: a device that is enrolled already gets
/// its first registration again. The hub's signing key comes with the registration, over the connection
/// that the code's pin vouches for.
fn verify(
    identity: &DeviceIdentity,
    request: &EnrolmentRequest,
    signed: &[u8],
) -> Result<Registration, VerifyError> {
    let unverified = cose::Unverified::parse(signed)?;
    let claimed: Registration = cbor::decode(unverified.payload_unverified())?;
    let key =
        cose::verifying_key(&claimed.hub_signing_key).ok_or(VerifyError::Differs("the hub's signing key"))?;
    let registration: Registration = cbor::decode(&unverified.verify(ObjectType::Registration, &key)?)?;
    for (what, same) in [
        ("the hub", registration.hub == request.hub),
        ("the device", registration.device == identity.device_id()),
        ("the signing key", registration.signing_key == request.signing_key),
    ] {
        if !same {
            return Err(VerifyError::Differs(what));
        }
    }
    Ok(registration)
}

/// `address:port` or `name:port`, in order, without doubles.
async fn resolve(addresses: &[String]) -> Vec<SocketAddr> {
    let mut found: Vec<SocketAddr> = Vec::new();
    for address in addresses.iter().take(MAX_CANDIDATES) {
        if let Ok(resolved) = tokio::net::lookup_host(address).await {
            for address in resolved {
                if !found.contains(&address) && found.len() < MAX_CANDIDATES {
                    found.push(address);
                }
            }
        }
    }
    found
}

#[cfg(test)]
#[path = "enrolment_tests.rs"]
mod tests;
