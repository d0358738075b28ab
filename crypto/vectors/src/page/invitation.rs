//! PROTOCOL 4.

use super::{VERSION, expand, extract, hash};

/// What a machine shows.
pub struct Invitation {
    /// PROTOCOL 11.
    pub role: u8,
    /// Unix seconds.
    pub expires: u32,
    /// Out of which everything else follows.
    pub secret: [u8; 16],
    /// Of the bundle that the machine will show.
    pub bundle_hash: [u8; 32],
}

impl Invitation {
    /// The fields and their check.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes =
            [&[VERSION, self.role][..], &self.expires.to_be_bytes(), &self.secret, &self.bundle_hash].concat();
        bytes.extend_from_slice(&hash(&[b"happy/1 invitation", &bytes])[..2]);
        bytes
    }

    /// The bytes as one decimal number.
    #[must_use]
    pub fn digits(&self) -> String {
        let (mut number, mut digits) = (self.bytes(), Vec::new());
        while number.iter().any(|byte| *byte != 0) {
            let mut remainder = 0;
            for byte in &mut number {
                let value = remainder * 256 + u32::from(*byte);
                (*byte, remainder) = ((value / 10) as u8, value % 10);
            }
            digits.push(char::from(b'0' + remainder as u8));
        }
        digits.iter().rev().collect()
    }

    /// `prk`.
    #[must_use]
    pub fn prk(&self) -> [u8; 32] {
        extract(&[], &[&self.secret])
    }

    /// What the scanner shows to the relay.
    #[must_use]
    pub fn ticket(&self) -> [u8; 32] {
        expand(&self.prk(), &[b"happy/1 rendezvous ticket"])
    }

    /// What the machine gives to the relay.
    #[must_use]
    pub fn ticket_hash(&self) -> [u8; 32] {
        hash(&[b"happy/1 ticket hash", &self.ticket()])
    }

    /// What the handshake mixes in.
    #[must_use]
    pub fn psk(&self) -> [u8; 32] {
        expand(&self.prk(), &[b"happy/1 invitation key"])
    }
}
