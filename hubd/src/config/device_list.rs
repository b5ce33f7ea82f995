//! Headquarters' signed list of devices: whose it is.

use ed25519_dalek::VerifyingKey;
use hub_protocol::cose::{CoseError, ObjectType, Unverified};
use hub_protocol::device_list::{DeviceListError, MAX_DEVICE_LIST};
use hub_protocol::{DeviceList, KeyId, cbor};

/// A list whose signature was checked against the trusted keys.
#[derive(Clone, Debug)]
pub struct SignedList {
    /// What it says.
    pub list: DeviceList,
    /// Who signed it.
    pub key: KeyId,
}

/// Why a signed list is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceListFileError {
    /// Longer than any list.
    #[error("longer than {MAX_DEVICE_LIST} bytes: not a signed list of devices")]
    TooLong,
    /// Not an object as `hubctl fleet sign` makes it.
    #[error("not a signed list of devices: {0}; `hubctl fleet sign` makes one from a TOML file")]
    Cose(#[from] CoseError),
    /// Signed by somebody this hub does not obey.
    #[error(
        "signed by key {0}, which is not among [policy] trusted_keys, nor delegated for lists of devices by the root in force"
    )]
    UnknownSigner(KeyId),
    /// Well signed, and not a list.
    #[error("what was signed is not a list of devices: {0}")]
    Payload(#[from] cbor::CborError),
    /// A list with faults.
    #[error("the list has a fault: {0}")]
    Fault(#[from] DeviceListError),
}

/// Checks the signature of a signed list against the trusted keys and reads
/// what it says. Whether it is in force, or older than the present one, is
/// for the core to say.
///
/// # Errors
/// The first fault found.
pub fn verify_device_list(
    signed: &[u8],
    trusted: &[VerifyingKey],
) -> Result<SignedList, DeviceListFileError> {
    if signed.len() > MAX_DEVICE_LIST {
        return Err(DeviceListFileError::TooLong);
    }
    let unverified = Unverified::parse(signed)?;
    let key = unverified.kid();
    let signer = trusted
        .iter()
        .find(|trusted| KeyId::of_key(trusted.as_bytes()) == key)
        .ok_or(DeviceListFileError::UnknownSigner(key))?;
    let payload = unverified.verify(ObjectType::DeviceList, signer)?;
    let list: DeviceList = cbor::decode(&payload)?;
    list.check()?;
    Ok(SignedList { list, key })
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use hub_protocol::cose;

    use super::*;

    #[test]
    fn only_a_list_by_a_trusted_key_is_taken_and_no_policy_passes_for_one() {
        let (trusted, stranger) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let list = DeviceList {
            tenant: "acme".to_owned(),
            stores: vec!["*".to_owned()],
            version: 1,
            not_before_ms: 0,
            expires_ms: 1,
            devices: Vec::new(),
            revoked: Vec::new(),
        };
        let bytes = cbor::encode(&list);
        let keys = [trusted.verifying_key()];
        let verified = |key: &SigningKey, object, payload: &[u8]| {
            verify_device_list(&cose::sign(key, object, payload), &keys)
        };
        assert_eq!(
            verified(&trusted, ObjectType::DeviceList, &bytes).unwrap().list,
            list
        );
        let refused = [
            verified(&stranger, ObjectType::DeviceList, &bytes),
            verified(&trusted, ObjectType::Policy, &bytes),
            verified(&trusted, ObjectType::DeviceList, b"format = 1"),
            verified(
                &trusted,
                ObjectType::DeviceList,
                &cbor::encode(&DeviceList { version: 0, ..list }),
            ),
            verify_device_list(&vec![0; MAX_DEVICE_LIST + 1], &keys),
        ];
        let refused = refused.map(|one| one.unwrap_err().to_string());
        for (text, expected) in refused.iter().zip([
            "not among [policy] trusted_keys",
            "does not verify",
            "not a list of devices",
            "version",
            "longer than",
        ]) {
            assert!(text.contains(expected), "{text}");
        }
    }
}
