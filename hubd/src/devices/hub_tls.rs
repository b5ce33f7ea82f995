//! Which TLS key the hub presents, and what its certificate says of it.
//!
//! Two keys overlap while one gives way to the other. A device that follows
//! such a change (from wire version 5 on) is shown the new one, with the statement
//! that it is the hub's; others know the hub by the old one and are shown
//! that, until the change is finished.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use hub_protocol::{
    ALPN, ALPN_5, CertificateKeys, Digest, HubId, HubTlsKeys, MOST_CHANGES_IN_CERTIFICATE, SignedTlsKeys,
};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::crypto::{CryptoError, HmacKey};
use quinn_proto::{ConnectionId, ConnectionIdGenerator, HashedConnectionIdGenerator, InvalidCid};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::tls::{Admit, HubIdentity, QuicSecrets, TlsError};
use crate::key_ring::KeyRing;

/// The TLS keys under which the hub is reached. Clones share them: they can
/// change while devices connect.
#[derive(Clone)]
pub struct HubTls {
    hub: HubId,
    signing: KeyRing,
    present: Arc<RwLock<Present>>,
}

struct Present {
    /// The keys whose private halves are here.
    held: Vec<HubIdentity>,
    /// What the ledger says of them; nothing while there is only the first.
    stated: Option<HubTlsKeys>,
    /// For devices that follow a change: the newest of the keys.
    following: Arc<CertifiedKey>,
    /// For those of an earlier wire version, and for enrolment, while two
    /// keys overlap: the older.
    other: Arc<CertifiedKey>,
    /// Of the newest of the keys: a key that gives way makes no more ids and
    /// resets from then on. Connections that are open keep theirs.
    quic: QuicSecrets,
}

impl fmt::Debug for HubTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HubTls({})", self.hub)
    }
}

impl HubTls {
    /// The keys of this hub whose private halves are `held`, and what the
    /// ledger says of them. The statement is signed with the hub's signing key.
    ///
    /// # Errors
    /// [`TlsError::NoKey`] if none of them is one under which the hub is
    /// reached.
    pub fn new(
        hub: HubId,
        signing: KeyRing,
        held: Vec<HubIdentity>,
        stated: Option<HubTlsKeys>,
    ) -> Result<Self, TlsError> {
        let present = Present::of(hub, &signing, held, stated)?;
        Ok(Self {
            hub,
            signing,
            present: Arc::new(RwLock::new(present)),
        })
    }

    /// The hub's name.
    pub fn hub_id(&self) -> HubId {
        self.hub
    }

    /// What the ledger says of the keys.
    pub fn stated(&self) -> Option<HubTlsKeys> {
        self.read().stated.clone()
    }

    /// The key that devices enrol under: SHA-256 over its
    /// SubjectPublicKeyInfo, if it is not the one that the hub is named after.
    pub(super) fn enrolled_under(&self) -> Option<Digest> {
        let present = self.read();
        let key = present
            .stated
            .as_ref()
            .and_then(|stated| stated.keys.last().copied())?;
        (key.0 != self.hub.0).then_some(key)
    }

    /// The statement as devices get it, signed with the present signing key.
    pub(super) fn signed(&self) -> Option<SignedTlsKeys> {
        let stated = self.stated()?;
        Some(self.signing.with(|key| stated.sign(key)))
    }

    /// Another key is here, in case the ledger comes to name it.
    pub fn hold(&self, identity: HubIdentity) {
        let mut present = self.write();
        if present
            .held
            .iter()
            .all(|known| known.digest() != identity.digest())
        {
            present.held.push(identity);
        }
    }

    /// Whether the private half of this key is here.
    #[cfg(test)]
    pub(crate) fn holds(&self, key: &Digest) -> bool {
        self.read().held.iter().any(|identity| identity.digest() == *key)
    }

    /// From now on what the ledger says of the keys is this; connections that
    /// are open stay.
    ///
    /// # Errors
    /// As [`new`](Self::new); the hub is then reached as before.
    pub fn state(&self, stated: HubTlsKeys) -> Result<(), TlsError> {
        let mut present = self.write();
        *present = Present::of(self.hub, &self.signing, present.held.clone(), Some(stated))?;
        Ok(())
    }

    /// The signing key has changed: its successor states the same.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn sign_anew(&self) -> Result<(), TlsError> {
        let mut present = self.write();
        let (held, stated) = (present.held.clone(), present.stated.clone());
        *present = Present::of(self.hub, &self.signing, held, stated)?;
        Ok(())
    }

    /// These keys in the containers of another's.
    #[cfg(test)]
    pub(super) fn saying_of(&self, other: &Self) -> Self {
        let (mine, theirs) = (self.read(), other.read());
        let mixed = |mine: &CertifiedKey, theirs: &CertifiedKey| {
            let said = hub_protocol::CertificateKeys::in_certificate(theirs.cert[0].as_ref()).unwrap();
            let held = self.read().held[0].certified(Some(&said)).unwrap();
            assert_eq!(mine.cert.len(), 1);
            Arc::new(held)
        };
        Self {
            hub: self.hub,
            signing: self.signing.clone(),
            present: Arc::new(RwLock::new(Present {
                held: mine.held.clone(),
                stated: mine.stated.clone(),
                following: mixed(&mine.following, &theirs.following),
                other: mixed(&mine.other, &theirs.other),
                quic: mine.quic.clone(),
            })),
        }
    }

    pub(super) fn crypto(&self, admit: Admit, alpn: &[&[u8]]) -> Result<QuicServerConfig, TlsError> {
        HubIdentity::crypto(Arc::new(self.clone()), admit, alpn)
    }

    /// A QUIC endpoint's configuration that makes ids of connections and
    /// stateless resets with the newest TLS key of the moment.
    pub(super) fn endpoint_config(&self) -> quinn::EndpointConfig {
        let mut config = quinn::EndpointConfig::new(Arc::new(self.clone()));
        let ids = self.clone();
        config.cid_generator(move || Box::new(ConnectionIds(ids.clone())));
        config
    }

    /// Whether the hub has made this id of a connection.
    pub(super) fn has_made(&self, id: &[u8]) -> bool {
        let ids = ConnectionIds(self.clone()).of_the_moment();
        id.len() == ids.cid_len() && ids.validate(&ConnectionId::new(id)).is_ok()
    }

    #[cfg(test)]
    pub(super) fn new_id(&self) -> Vec<u8> {
        ConnectionIds(self.clone()).generate_cid().to_vec()
    }

    fn quic_secrets(&self) -> QuicSecrets {
        self.read().quic.clone()
    }

    fn read(&self) -> RwLockReadGuard<'_, Present> {
        self.present.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Present> {
        self.present.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Present {
    fn of(
        hub: HubId,
        signing: &KeyRing,
        held: Vec<HubIdentity>,
        stated: Option<HubTlsKeys>,
    ) -> Result<Self, TlsError> {
        let wanted = stated
            .as_ref()
            .map_or_else(|| vec![Digest(hub.0)], |stated| stated.keys.clone());
        let found: Vec<&HubIdentity> = wanted
            .iter()
            .filter_map(|key| held.iter().find(|identity| identity.digest() == *key))
            .collect();
        let says = stated.as_ref().map(|stated| {
            let mut changes = signing.chain().statements(0);
            let surplus = changes.len().saturating_sub(MOST_CHANGES_IN_CERTIFICATE);
            changes.drain(..surplus);
            let keys = signing.with(|key| stated.sign(key));
            CertificateKeys { changes, keys }
        });
        let (Some(newest), Some(oldest)) = (found.first(), found.last()) else {
            return Err(TlsError::NoKey);
        };
        let following = Arc::new(newest.certified(says.as_ref())?);
        let other = Arc::new(oldest.certified(says.as_ref())?);
        let quic = newest.quic_secrets();
        Ok(Self {
            following,
            other,
            quic,
            held,
            stated,
        })
    }
}

/// The tokens of stateless resets.
impl HmacKey for HubTls {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        self.quic_secrets().reset.sign(data, signature_out);
    }

    fn signature_len(&self) -> usize {
        self.quic_secrets().reset.signature_len()
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        self.quic_secrets().reset.verify(data, signature)
    }
}

/// Ids of connections by which the hub knows that it has made them.
struct ConnectionIds(HubTls);

impl ConnectionIds {
    fn of_the_moment(&self) -> HashedConnectionIdGenerator {
        HashedConnectionIdGenerator::from_key(self.0.read().quic.ids)
    }
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.of_the_moment().generate_cid()
    }

    fn validate(&self, cid: &ConnectionId) -> Result<(), InvalidCid> {
        self.of_the_moment().validate(cid)
    }

    fn cid_len(&self) -> usize {
        self.of_the_moment().cid_len()
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

impl ResolvesServerCert for HubTls {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let follows = hello
            .alpn()
            .is_some_and(|mut names| names.any(|name| name == ALPN || name == ALPN_5));
        let present = self.read();
        let key = if follows {
            &present.following
        } else {
            &present.other
        };
        Some(Arc::clone(key))
    }
}
