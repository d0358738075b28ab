//! The first message.

use crate::{
    DecodeError, DeviceId, IdentityRecord, SUITE, VERSION, agreement::AgreementKey, kem, labelled_hash, reader::Reader,
};

use super::MAX_CONTEXT;

/// What a handshake is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// Two devices meet for the first time; the invitation's key is mixed in.
    Pairing = 1,
    /// Two paired devices connect.
    Link = 2,
}

/// The hash that a [`Refused`](super::Refused) names.
#[must_use]
pub fn hello_hash(hello: &[u8]) -> [u8; 32] {
    labelled_hash("happy/1 hello bytes", &[hello])
}

/// A Hello that was read but not verified: what a responder looks at to find the right prekey, and to decide whether it
/// wants to answer at all. Only [`Responder::answer`](super::Responder::answer) shows that it is genuine.
#[derive(Clone)]
pub struct HelloView<'a> {
    purpose: Purpose,
    initiator: IdentityRecord,
    responder: DeviceId,
    ephemeral: AgreementKey,
    kem_key: &'a [u8; kem::KEY],
    signed_prekey_id: u32,
    one_time_prekey_id: u32,
    secret_name: [u8; 8],
    life: [u8; 16],
    context: &'a [u8],
    without_mac: &'a [u8],
    mac_1: [u8; 32],
}

impl<'a> HelloView<'a> {
    /// Reads a Hello.
    ///
    /// # Errors
    /// When it is malformed, of another version or suite, or when its identity record does not hold.
    pub fn parse(hello: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(hello);
        reader.version_and_suite()?;
        let purpose = match reader.u8()? {
            1 => Purpose::Pairing,
            2 => Purpose::Link,
            _ => return Err(DecodeError::Field("purpose")),
        };
        let initiator: &[u8; IdentityRecord::LEN] = reader.array()?;
        let responder = DeviceId::from_bytes(*reader.array()?);
        let ephemeral = AgreementKey::decode(reader.array()?)?;
        let kem_key = reader.array()?;
        let signed_prekey_id = reader.u32()?;
        let one_time_prekey_id = reader.u32()?;
        let secret_name = *reader.array()?;
        let life = *reader.array()?;
        let context = reader.bytes16()?;
        if context.len() > MAX_CONTEXT {
            return Err(DecodeError::Field("context"));
        }
        let mac_1: [u8; 32] = *reader.array()?;
        reader.finish()?;
        Ok(Self {
            purpose,
            initiator: IdentityRecord::decode(initiator)?,
            responder,
            ephemeral,
            kem_key,
            signed_prekey_id,
            one_time_prekey_id,
            secret_name,
            life,
            context,
            without_mac: &hello[..hello.len() - mac_1.len()],
            mac_1,
        })
    }

    /// What it is for.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Who claims to have sent it.
    #[must_use]
    pub fn initiator(&self) -> &IdentityRecord {
        &self.initiator
    }

    /// Whom it is for.
    #[must_use]
    pub fn responder(&self) -> DeviceId {
        self.responder
    }

    /// The life nonce of the initiator.
    #[must_use]
    pub fn life(&self) -> [u8; 16] {
        self.life
    }

    /// Which signed prekey was used.
    #[must_use]
    pub fn signed_prekey_id(&self) -> u32 {
        self.signed_prekey_id
    }

    /// Which one-time prekey was used; 0 for none.
    #[must_use]
    pub fn one_time_prekey_id(&self) -> u32 {
        self.one_time_prekey_id
    }

    /// Which pair secret was used; zeros for an invitation.
    #[must_use]
    pub fn secret_name(&self) -> [u8; 8] {
        self.secret_name
    }

    /// For a pairing the origin that the initiator used; empty for a link.
    #[must_use]
    pub fn context(&self) -> &'a [u8] {
        self.context
    }

    pub(super) fn ephemeral(&self) -> &AgreementKey {
        &self.ephemeral
    }

    pub(super) fn kem_key(&self) -> &'a [u8; kem::KEY] {
        self.kem_key
    }

    pub(super) fn without_mac(&self) -> &'a [u8] {
        self.without_mac
    }

    pub(super) fn mac_1(&self) -> &[u8; 32] {
        &self.mac_1
    }
}

/// The fields of a Hello in the order of the wire, without the authentication code.
pub(super) struct HelloFields<'a> {
    pub purpose: Purpose,
    pub initiator: &'a IdentityRecord,
    pub responder: DeviceId,
    pub ephemeral: &'a AgreementKey,
    pub kem_key: &'a [u8; kem::KEY],
    pub signed_prekey_id: u32,
    pub one_time_prekey_id: u32,
    pub secret_name: [u8; 8],
    pub life: &'a [u8; 16],
    /// At most [`MAX_CONTEXT`] bytes.
    pub context: &'a [u8],
}

impl HelloFields<'_> {
    pub fn encode(&self) -> Vec<u8> {
        let context_length = self.context.len() as u16;
        [
            &[VERSION, SUITE, self.purpose as u8],
            &self.initiator.as_bytes()[..],
            self.responder.as_bytes(),
            self.ephemeral.as_bytes(),
            self.kem_key,
            &self.signed_prekey_id.to_be_bytes(),
            &self.one_time_prekey_id.to_be_bytes(),
            &self.secret_name,
            self.life,
            &context_length.to_be_bytes(),
            self.context,
        ]
        .concat()
    }
}
