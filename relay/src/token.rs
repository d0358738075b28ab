//! Tokens for REST (`PROTOCOL 7`): JSON Web Tokens (RFC 7519) signed with Ed25519 (RFC 8037).
//!
//! There is one algorithm and one shape of header, and every node makes its own key at its start. So nothing in a token
//! decides how it is checked, which is what goes wrong with general libraries for them, and a key lives no longer than its
//! process.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use happy_crypto::DeviceId;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::records::unix_ms;

const AUDIENCE: &str = "happy-relay";
/// Longer than any that we make: two names, two numbers, a signature.
const MAX_LEN: usize = 1_024;

/// What makes the tokens of this node.
pub(crate) struct Signer {
    key: SigningKey,
    lasts: Duration,
}

/// A token and when it ends, Unix ms. It does not print, and is wiped.
pub(crate) struct Token {
    pub(crate) text: Zeroizing<String>,
    pub(crate) expires: u64,
}

/// A token that is well formed, and for whose key has to be asked before it is believed.
pub(crate) struct Unverified<'a> {
    /// The node that is said to have made it.
    pub(crate) node: String,
    signed: &'a str,
    signature: Signature,
    claims: Value,
}

/// Whom a token speaks for, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bearer {
    pub(crate) device: DeviceId,
    /// Unix seconds.
    pub(crate) expires: u64,
}

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenError {
    Invalid,
    Expired,
}

impl Signer {
    /// Tokens last so long.
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub(crate) fn new(lasts: Duration) -> Result<Self, getrandom::Error> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut())?;
        Ok(Self { key: SigningKey::from_bytes(&seed), lasts })
    }

    pub(crate) fn public(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// A token for a device that has logged in under this name of the relay.
    pub(crate) fn sign(&self, node: &str, relay: &str, device: &DeviceId) -> Token {
        let now = unix_ms() / 1_000;
        let expires = now + self.lasts.as_secs();
        let header = json!({ "alg": "EdDSA", "kid": node, "typ": "JWT" });
        let claims = json!({ "iss": relay, "aud": AUDIENCE, "sub": device.to_string(), "iat": now, "exp": expires });
        let mut text = Zeroizing::new(String::with_capacity(MAX_LEN));
        text.push_str(&BASE64URL.encode(header.to_string()));
        text.push('.');
        text.push_str(&BASE64URL.encode(claims.to_string()));
        let signature = self.key.sign(text.as_bytes());
        text.push('.');
        text.push_str(&BASE64URL.encode(signature.to_bytes()));
        Token { text, expires: expires * 1_000 }
    }
}

/// Reads a token. Nothing in it is true yet.
pub(crate) fn read(text: &str) -> Result<Unverified<'_>, TokenError> {
    let parsed = || {
        let text = Some(text).filter(|text| text.len() <= MAX_LEN)?;
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let json = |part: &str| serde_json::from_slice::<Value>(&BASE64URL.decode(part).ok()?).ok();
        let (header, claims) = (json(header)?, json(claims)?);
        let node = header.get("kid")?.as_str()?.to_owned();
        // Exactly ours: no other algorithm, and no field that would have to be understood.
        if header != json!({ "alg": "EdDSA", "kid": node, "typ": "JWT" }) {
            return None;
        }
        let signature = Signature::from_slice(&BASE64URL.decode(signature).ok()?).ok()?;
        Some(Unverified { node, signed, signature, claims })
    };
    parsed().ok_or(TokenError::Invalid)
}

impl Unverified<'_> {
    /// Checks it with the key of its node. `names` are the names of the relay on this connection.
    pub(crate) fn verify(&self, key: &[u8; 32], names: &[String]) -> Result<Bearer, TokenError> {
        let key = VerifyingKey::from_bytes(key).map_err(|_| TokenError::Invalid)?;
        key.verify_strict(self.signed.as_bytes(), &self.signature).map_err(|_| TokenError::Invalid)?;
        let claim = |name: &str| self.claims.get(name);
        let text = |name: &str| claim(name).and_then(Value::as_str);
        let device = text("sub").and_then(|device| device.parse().ok()).ok_or(TokenError::Invalid)?;
        let expires = claim("exp").and_then(Value::as_u64).ok_or(TokenError::Invalid)?;
        let ours = text("iss").is_some_and(|relay| names.iter().any(|name| name == relay));
        if !ours || text("aud") != Some(AUDIENCE) {
            return Err(TokenError::Invalid);
        }
        if expires <= unix_ms() / 1_000 {
            return Err(TokenError::Expired);
        }
        Ok(Bearer { device, expires })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        Signer::new(Duration::from_secs(60)).unwrap()
    }

    fn names() -> Vec<String> {
        vec!["relay.example".to_owned()]
    }

    fn device() -> DeviceId {
        DeviceId::from_bytes([7; 32])
    }

    fn check(signer: &Signer, text: &str, names: &[String]) -> Result<Bearer, TokenError> {
        read(text)?.verify(&signer.public(), names)
    }

    /// Signed by `signer`, whatever stands in it.
    fn forged(signer: &Signer, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", BASE64URL.encode(header.to_string()), BASE64URL.encode(claims.to_string()));
        format!("{signed}.{}", BASE64URL.encode(signer.key.sign(signed.as_bytes()).to_bytes()))
    }

    #[test]
    fn a_token_says_who_and_until_when() {
        let signer = signer();
        let token = signer.sign("00ff", "relay.example", &device());
        let bearer = check(&signer, &token.text, &names()).unwrap();
        assert_eq!((bearer.device, bearer.expires * 1_000), (device(), token.expires));
        assert_eq!(read(&token.text).map(|read| read.node).ok().as_deref(), Some("00ff"));
    }

    #[test]
    fn another_key_another_relay_and_any_changed_byte_are_refused() {
        let (signer, other) = (signer(), signer());
        let token = signer.sign("00ff", "relay.example", &device()).text;
        assert_eq!(check(&other, &token, &names()), Err(TokenError::Invalid));
        assert_eq!(check(&signer, &token, &["else.example".to_owned()]), Err(TokenError::Invalid));
        for at in 0..token.len() {
            let mut bytes = token.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            // The last character of a signature has bits that stand for nothing; the decoder refuses those, too.
            assert!(check(&signer, &changed, &names()).is_err(), "{at}");
        }
        for bad in ["", ".", "..", "a.b", "a.b.c.d", &"x".repeat(MAX_LEN + 1), &format!("{}.x", *token)] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_header_decides_nothing() {
        let signer = signer();
        let now = unix_ms() / 1_000;
        let claims = |iat: u64, exp: u64| json!({ "iss": "relay.example", "aud": AUDIENCE, "sub": device().to_string(), "iat": iat, "exp": exp });
        let header = json!({ "alg": "EdDSA", "kid": "0", "typ": "JWT" });
        let good = claims(now, now + 60);
        assert!(check(&signer, &forged(&signer, &header, &good), &names()).is_ok());
        for bad in [
            json!({ "alg": "none", "kid": "0", "typ": "JWT" }),
            json!({ "alg": "HS256", "kid": "0", "typ": "JWT" }),
            json!({ "alg": "EdDSA", "typ": "JWT" }),
            json!({ "alg": "EdDSA", "kid": "0", "typ": "JWT", "jwk": {} }),
            json!({ "alg": "EdDSA", "kid": "0", "typ": "JWT", "crit": ["x"] }),
        ] {
            assert!(check(&signer, &forged(&signer, &bad, &good), &names()).is_err(), "{bad}");
        }
        let old = claims(now - 700, now);
        assert_eq!(check(&signer, &forged(&signer, &header, &old), &names()), Err(TokenError::Expired));
        for (field, value) in [("aud", json!("else")), ("iss", json!("")), ("sub", json!("x")), ("exp", json!("1"))] {
            let mut claims = good.clone();
            claims[field] = value;
            assert!(check(&signer, &forged(&signer, &header, &claims), &names()).is_err(), "{field}");
        }
    }
}
