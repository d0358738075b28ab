//! Secrets: types that cannot print themselves and wipe themselves when dropped.
//!
//! Every key has a type of its own, so that a root key in the place of a chain key does not compile.

use zeroize::ZeroizeOnDrop;

use crate::{
    mac::MacKey,
    wipe::{Wiped, wipe},
};

/// What all 32-byte secrets can do.
pub(crate) trait Secret32: Sized {
    /// Takes a copy and wipes the original.
    fn take(bytes: &mut [u8; 32]) -> Self;
}

macro_rules! secrets {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, ZeroizeOnDrop)]
        pub(crate) struct $name(Wiped<32>);

        impl $name {
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0.0
            }
        }

        impl Secret32 for $name {
            fn take(bytes: &mut [u8; 32]) -> Self {
                let secret = Self(Wiped(*bytes));
                wipe(bytes);
                secret
            }
        }
    )*};
}

secrets! {
    /// The result of an HKDF extraction, input of an expansion.
    PseudoRandomKey;
    /// What an encapsulation carried.
    KemShared;
    /// What two paired devices share between handshakes.
    PairKey;
    /// Authenticates a Hello.
    HelloKey;
    /// Carries the first four agreements into the session keys.
    ChainSecret;
    /// `confirm_R` or `confirm_I`.
    ConfirmKey;
    /// What else is derived from a session, such as the confirmation code.
    Exporter;
    /// The root key of the ratchet.
    RootKey;
    /// A chain key; each step replaces it.
    ChainKey;
    /// Opens or seals exactly one message.
    MessageKey;
}

/// Seals the headers of one chain. It is scheduled once, because it meets every message, and every forged one too.
#[derive(Clone, ZeroizeOnDrop)]
pub(crate) struct HeaderKey {
    bytes: Wiped<32>,
    // INVARIANT: made of `bytes`.
    scheduled: MacKey,
}

impl HeaderKey {
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes.0
    }

    pub fn scheduled(&self) -> &MacKey {
        &self.scheduled
    }
}

impl Secret32 for HeaderKey {
    fn take(bytes: &mut [u8; 32]) -> Self {
        let key = Self { bytes: Wiped(*bytes), scheduled: MacKey::new(bytes) };
        wipe(bytes);
        key
    }
}
