//! The invitation (PROTOCOL 4): what a machine shows and a phone scans.

use std::fmt;

use happy_crypto::handshake::InvitationKey;
use happy_crypto::{VERSION, labelled_hash, labelled_key};
use rand_core::CryptoRng;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{Origin, OriginError, Role, decimal};

const FIELDS: usize = 1 + 1 + 4 + 16 + 32;
const CHECK: usize = 2;
/// The digits of 56 bytes whose first one is not zero.
const DIGITS: std::ops::RangeInclusive<usize> = 133..=135;
/// A link is shorter: an origin of 255, a separator, 135 digits. Longer text is not looked at.
const MAX_TEXT: usize = 1_024;

/// A secret that lets one device pair with this machine, once.
#[derive(Clone, PartialEq, Eq)]
pub struct Invitation {
    role: Role,
    expires: u32,
    secret: Zeroizing<[u8; 16]>,
    bundle_hash: [u8; 32],
}

impl Invitation {
    /// A new invitation to the device with this bundle. `expires_unix` (seconds) is a courtesy to the scanner: the
    /// [`Host`](crate::Host) goes by its own clock.
    pub fn new(rng: &mut impl CryptoRng, role: Role, expires_unix: u32, bundle_hash: [u8; 32]) -> Self {
        let mut secret = Zeroizing::new([0; 16]);
        rng.fill_bytes(&mut *secret);
        Self { role, expires: expires_unix, secret, bundle_hash }
    }

    /// The link to show, as text and as a [QR code](crate::qr). Who sees it can try to pair.
    #[must_use]
    pub fn link(&self, origin: &Origin) -> String {
        format!("{origin}/#{}", decimal::encode(&self.encode()))
    }

    /// Reads a link that was scanned, opened or pasted. White space, as a terminal adds where it breaks lines, does not matter.
    ///
    /// # Errors
    /// When the text is not such a link, is damaged, or comes from another version.
    pub fn parse_link(text: &str) -> Result<(Origin, Self), InvitationError> {
        if text.len() > MAX_TEXT {
            return Err(InvitationError::NotALink);
        }
        let text: Zeroizing<String> = Zeroizing::new(text.chars().filter(|c| !c.is_ascii_whitespace()).collect());
        let (origin, digits) = text.split_once("/#").ok_or(InvitationError::NotALink)?;
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvitationError::NotALink);
        }
        let origin = Origin::parse(origin)?;
        Self::decode(digits).map(|invitation| (origin, invitation))
    }

    fn decode(digits: &str) -> Result<Self, InvitationError> {
        // One number has one text: a link with zeros in front was changed by somebody.
        if !DIGITS.contains(&digits.len()) || digits.starts_with('0') {
            return Err(InvitationError::Damaged);
        }
        let bytes = Zeroizing::new(decimal::decode::<{ FIELDS + CHECK }>(digits).ok_or(InvitationError::Damaged)?);
        let (fields, check) = bytes.split_at(FIELDS);
        // The check comes first: a digit that was misread must not look like another version.
        if check != check_of(fields) {
            return Err(InvitationError::Damaged);
        }
        if fields[0] != VERSION {
            return Err(InvitationError::UnsupportedVersion(fields[0]));
        }
        let role = Role::try_from(fields[1]).map_err(|_| InvitationError::UnknownRole(fields[1]))?;
        let part = |at: usize| std::array::from_fn(|i| fields[at + i]);
        Ok(Self {
            role,
            expires: u32::from_be_bytes(std::array::from_fn(|i| fields[2 + i])),
            secret: Zeroizing::new(std::array::from_fn(|i| fields[6 + i])),
            bundle_hash: part(22),
        })
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(FIELDS + CHECK));
        bytes.extend_from_slice(&[VERSION, self.role.into()]);
        bytes.extend_from_slice(&self.expires.to_be_bytes());
        bytes.extend_from_slice(&*self.secret);
        bytes.extend_from_slice(&self.bundle_hash);
        let check = check_of(&bytes);
        bytes.extend_from_slice(&check);
        bytes
    }

    /// What the scanning device will be allowed to do.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// When it ends, Unix seconds, by the clock of the machine.
    #[must_use]
    pub fn expires(&self) -> u32 {
        self.expires
    }

    /// The hash of the bundle that the machine will show.
    #[must_use]
    pub fn bundle_hash(&self) -> [u8; 32] {
        self.bundle_hash
    }

    /// What admits the scanner to the rendezvous. The relay sees it; nothing else can be derived from it.
    #[must_use]
    pub fn ticket(&self) -> [u8; 32] {
        *labelled_key(&*self.secret, "happy/1 rendezvous ticket")
    }

    /// What the machine registers at the relay.
    #[must_use]
    pub fn ticket_hash(&self) -> [u8; 32] {
        labelled_hash("happy/1 ticket hash", &[&self.ticket()])
    }

    /// The key that the handshake mixes in. It never travels.
    #[must_use]
    pub fn key(&self) -> InvitationKey {
        InvitationKey::new(self.psk())
    }

    fn psk(&self) -> Zeroizing<[u8; 32]> {
        labelled_key(&*self.secret, "happy/1 invitation key")
    }
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation").field("role", &self.role).field("expires", &self.expires).finish_non_exhaustive()
    }
}

fn check_of(fields: &[u8]) -> [u8; CHECK] {
    let [first, second, ..] = labelled_hash("happy/1 invitation", &[fields]);
    [first, second]
}

/// A link was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvitationError {
    /// Something else than a link of ours.
    #[error("this is not an invitation link; it looks like https://relay.example/#123…")]
    NotALink,
    /// The address in it cannot be used.
    #[error("the address in this link cannot be used: {0}")]
    Origin(#[from] OriginError),
    /// A digit is missing or wrong.
    #[error("this link is incomplete or damaged; scan or copy it again")]
    Damaged,
    /// Made by another version.
    #[error("this link was made by another version ({0}) of Happy Remote; update the older side")]
    UnsupportedVersion(u8),
    /// It offers a role that this version does not know.
    #[error("this link offers a role ({0}) that is not known here; update this side")]
    UnknownRole(u8),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    fn invitation(seed: u64) -> Invitation {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        Invitation::new(&mut rng, Role::Operator, 1_700_000_000, [seed as u8; 32])
    }

    fn origin() -> Origin {
        Origin::parse("https://relay.example").unwrap()
    }

    #[test]
    fn a_link_comes_back_as_what_it_was() {
        let link = invitation(1).link(&origin());
        assert!(link.starts_with("https://relay.example/#"));
        assert_eq!(Invitation::parse_link(&link), Ok((origin(), invitation(1))));
        let as_text = link.replace("https://", "happy://");
        assert_eq!(Invitation::parse_link(&as_text), Ok((origin(), invitation(1))));
        let broken_by_a_terminal = format!(" {}\r\n{}\n", &link[..80], &link[80..]);
        assert_eq!(Invitation::parse_link(&broken_by_a_terminal), Ok((origin(), invitation(1))));
    }

    #[test]
    fn each_changed_missing_or_additional_digit_is_noticed() {
        let link = invitation(2).link(&origin());
        let start = link.find('#').unwrap() + 1;
        for at in start..link.len() {
            for digit in b'0'..=b'9' {
                let mut changed = link.clone().into_bytes();
                if changed[at] == digit {
                    continue;
                }
                changed[at] = digit;
                let changed = String::from_utf8(changed).unwrap();
                assert_eq!(Invitation::parse_link(&changed), Err(InvitationError::Damaged), "{changed}");
            }
            let mut missing = link.clone();
            missing.remove(at);
            assert_eq!(Invitation::parse_link(&missing), Err(InvitationError::Damaged));
        }
        assert_eq!(Invitation::parse_link(&format!("{link}0")), Err(InvitationError::Damaged));
        assert_eq!(Invitation::parse_link(&link.replace('#', "#0")), Err(InvitationError::Damaged));
    }

    #[test]
    fn each_mistake_has_its_own_message() {
        let link = invitation(3).link(&origin());
        let digits = link.split_once('#').unwrap().1;
        for text in ["", "https://relay.example", "https://relay.example/#", "https://relay.example/#abc", digits] {
            assert_eq!(Invitation::parse_link(text), Err(InvitationError::NotALink), "{text}");
        }
        assert_eq!(Invitation::parse_link(&"9".repeat(2_000)), Err(InvitationError::NotALink));
        let plain = link.replace("https", "http");
        assert_eq!(Invitation::parse_link(&plain), Err(InvitationError::Origin(OriginError::PlainHttp)));

        let with = |at: usize, value: u8| {
            let mut bytes = invitation(3).encode().to_vec();
            bytes[at] = value;
            let check = check_of(&bytes[..FIELDS]);
            bytes[FIELDS..].copy_from_slice(&check);
            Invitation::parse_link(&format!("https://relay.example/#{}", decimal::encode(&bytes)))
        };
        assert_eq!(with(0, 2), Err(InvitationError::UnsupportedVersion(2)));
        assert_eq!(with(0, 255), Err(InvitationError::UnsupportedVersion(255)));
        assert_eq!(with(1, 9), Err(InvitationError::UnknownRole(9)));
    }

    #[test]
    fn keys_differ_by_purpose_and_invitation() {
        let (a, b) = (invitation(1), invitation(2));
        assert_ne!(a.ticket(), *a.psk());
        assert_ne!(a.ticket(), a.ticket_hash());
        assert_ne!(a.ticket(), b.ticket());
        assert_ne!(a.psk(), b.psk());
    }

    #[test]
    fn the_secret_does_not_print() {
        assert_eq!(format!("{:?}", invitation(1)), "Invitation { role: Operator, expires: 1700000000, .. }");
    }

    proptest! {
        #[test]
        fn round_trip(seed: u64, expires: u32, hash: [u8; 32], role in 1_u8..=4) {
            let mut rng = ChaCha20Rng::seed_from_u64(seed);
            let made = Invitation::new(&mut rng, Role::try_from(role).unwrap(), expires, hash);
            let link = made.link(&origin());
            prop_assert!(DIGITS.contains(&(link.len() - "https://relay.example/#".len())));
            prop_assert_eq!(Invitation::parse_link(&link), Ok((origin(), made)));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}", digits in "[0-9]{130,140}") {
            let _ = Invitation::parse_link(&text);
            let _ = Invitation::parse_link(&format!("https://relay.example/#{digits}"));
        }
    }
}
