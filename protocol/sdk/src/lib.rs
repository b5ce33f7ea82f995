//! The device's side of hubd: find a hub, enrol, pay, void, ask where a
//! payment stands, listen.
//!
//! ```no_run
//! # async fn example(sale: hub_sdk::Sale) -> Result<(), Box<dyn std::error::Error>> {
//! use hub_sdk::{ClientOptions, DeviceClient, DeviceIdentity, enrol};
//!
//! let identity = DeviceIdentity::generate()?;
//! let code = "HUB1-…".parse()?; // what `hubctl enrol` shows
//! let class = hub_protocol::DeviceClass::Softpos;
//! let enrolled = enrol(&identity, &code, class, "Caisse 3", "Acme Tap 1").await?;
//!
//! let client = DeviceClient::new(identity, enrolled, ClientOptions::default())?;
//! let payment = client.next_payment(sale); // keep it until it is answered
//! let receipt = client.pay(&payment).await?;
//! println!("{}: {}", receipt.receipt.decision, receipt.receipt.reason);
//! # Ok(())
//! # }
//! ```
//!
//! The one rule for whoever builds on this: a payment is asked for again with
//! the same [`PreparedPayment`], never with a new one, until there is an
//! answer. The hub answers the same bytes with the same receipt, so asking
//! again is always safe, by whatever network and however often.
//!
//! While the hub can be reached a device may hold an allowance
//! ([`AllowanceStore`]), and approve under it when it cannot:
//!
//! ```no_run
//! # async fn example(
//! #     client: hub_sdk::DeviceClient, store: hub_sdk::AllowanceStore, sale: hub_sdk::Sale,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! client.ask_allowance(&store).await?; // now and then, while connected
//! let payment = client.next_payment(sale);
//! if client.pay(&payment).await.is_err_and(|error| error.transient()) {
//!     let approval = store.approve_offline(&payment)?; // on disk by now
//!     println!("approved by this device: {}", approval.receipt.index);
//! }
//! client.sync(&store, |receipt| println!("{}", receipt.receipt.decision)).await?; // when it is back
//! client.return_unused(&store).await?; // at closing time, or when it has expired
//! # Ok(())
//! # }
//! ```

mod allowance;
mod allowance_client;
mod client;
mod discovery;
mod enrolment;
mod error;
mod files;
mod hub_keys;
mod identity;
mod link;
mod options;
mod payment;
mod pushes;
mod rotation;
mod seal;
mod tls;
mod verify;

pub use allowance::{AllowanceStore, Left, NotApproved, OfflineApproval};
pub use client::{Description, DeviceClient};
/// For `tests/fuzz` alone.
#[cfg(fuzzing)]
pub mod fuzzing {
    use ed25519_dalek::VerifyingKey;
    use hub_protocol::{Digest, Registration};

    pub use crate::allowance::fuzz as allowance;
    pub use crate::discovery::fuzz as hub_seen;

    /// An enrolled device that is shown certificates.
    pub struct Knowing(crate::Enrolled);

    impl Knowing {
        /// As the enrolment left it.
        pub fn enrolled(registration: Registration) -> Self {
            Self(crate::Enrolled::new(registration, Vec::new()))
        }

        /// Whether the device goes on with the handshake: the TLS key by its
        /// SHA-256, and the certificate that it came in.
        pub fn is_hub(&self, key: &Digest, certificate: &[u8]) -> bool {
            self.0.is_hub(key, certificate)
        }

        /// The hub's signing keys as far as the device knows them, in order.
        pub fn keys(&self) -> Vec<VerifyingKey> {
            let keys = self.0.hub_keys().map(|keys| keys.chain());
            keys.map_or_else(|_| Vec::new(), |chain| chain.keys().copied().collect())
        }
    }
}

pub use discovery::{Advertisement, DiscoveryOptions, FoundHub, advertise, find_hubs};
pub use enrolment::{Enrolled, enrol};
pub use error::{AllowanceError, LinkError, PayError, RotateError, SdkError, VerifyError};
pub use hub_keys::HubKeys;
pub use hub_protocol as protocol;
pub use identity::DeviceIdentity;
pub use options::ClientOptions;
pub use payment::{PreparedPayment, Sale};
pub use pushes::PushEvent;
pub use seal::{CardData, CardKey, SealError};
pub use verify::{VerifiedReceipt, VerifiedStatus};
