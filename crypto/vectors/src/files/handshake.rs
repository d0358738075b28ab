//! PROTOCOL 5: a pairing and the link after it.

use happy_crypto::{
    Bundle,
    handshake::{Established, Initiator, PairSecret, Responder, Shared},
};

use super::{
    invitation::{self, ORIGIN},
    world::{Page, World, cut, drawn},
};
use crate::{
    Randomness,
    json::Json,
    object,
    page::{self, HelloFields, HelloKeys, Key, SessionKeys, Turn, kem},
};

/// A handshake in which both sides agreed with each other and with the page.
pub struct Shaken {
    pub at_phone: Established,
    pub at_machine: Established,
    pub page: ByPage,
}

impl Shaken {
    /// What the next handshake mixes in.
    fn next(&self) -> PairSecret {
        self.at_phone.next_pair_secret()
    }
}

pub fn pairing() -> Json {
    pair(&World::new()).page.json
}

pub fn link() -> Json {
    let world = World::new();
    let paired = pair(&world);
    let secret = paired.next();
    let (number, bytes) = (secret.number(), secret.to_bytes());
    let psk = cut(&bytes[..], 8);
    let mut rng = Randomness::new("happy vectors: the link");
    let bundle = world.bundle().without_one_time();
    assert_eq!(secret.name(), page::secret_name(&psk));
    // PROTOCOL 8: the session of the pairing gets new keys, and R has it.
    let context = (&paired.page.keys.session_id[..], 1);
    shake(&mut rng, &world, &bundle, Shared::Pair(&secret), &psk, number, context).page.json
}

/// The pairing of all vectors.
pub fn pair(world: &World) -> Shaken {
    let invitation = invitation::invitation(world);
    let (psk, key) = (invitation.psk(), invitation::ours(&invitation).key());
    let mut rng = Randomness::new("happy vectors: the pairing");
    shake(&mut rng, world, &world.bundle(), Shared::Invitation(&key), &psk, 0, (ORIGIN.as_bytes(), 0))
}

fn shake(
    rng: &mut Randomness,
    world: &World,
    bundle: &Bundle,
    shared: Shared<'_>,
    psk: &[u8; 32],
    secret_number: u64,
    (context, reply): (&[u8], u8),
) -> Shaken {
    let is_pairing = matches!(shared, Shared::Invitation(_));
    let one_time = is_pairing.then_some(&world.one_time);
    let lives @ [initiator_life, responder_life] = [[0xA1; 16], [0xB2; 16]];

    // Ours: three messages, and what was drawn for each.
    let (initiator, hello) =
        Initiator::start(rng, &world.phone, bundle, shared, initiator_life, context).expect("the bundle is sound");
    let for_hello = drawn(rng);
    let (responder, welcome) =
        Responder::answer(rng, &world.machine, &world.signed, one_time, &hello, (responder_life, reply), shared)
            .expect("the Hello is genuine");
    let for_welcome = drawn(rng);
    let (at_phone, confirm) = initiator.welcome(rng, &welcome).expect("the Welcome is genuine");
    let randomness = Drawn { for_hello, for_welcome, for_confirm: drawn(rng) };
    let at_machine = responder.confirm(&confirm).expect("the Confirm is genuine");

    // The page: the same messages from the same randomness.
    let setting = Setting { page: &world.page, is_pairing, psk, secret_number, lives, context, reply };
    let page = by_page(&setting, &randomness);
    assert_eq!((&hello, &welcome, &confirm), (&page.hello, &page.welcome, &page.confirm));
    let keys = &page.keys;
    for side in [&at_phone, &at_machine] {
        assert_eq!(side.reply, reply);
        assert_eq!(side.session_id, keys.session_id);
        assert_eq!(u64::from(side.confirmation_code()), keys.confirmation_code);
        let next = side.next_pair_secret();
        assert_eq!((next.number(), &next.to_bytes()[8..]), (secret_number + 1, &keys.next_pair_secret[..]));
    }
    Shaken { at_phone, at_machine, page }
}

/// What both sides know before a handshake, and what they say beside it.
pub struct Setting<'a> {
    pub page: &'a Page,
    pub is_pairing: bool,
    pub psk: &'a [u8; 32],
    pub secret_number: u64,
    /// Of I and of R.
    pub lives: [[u8; 16]; 2],
    pub context: &'a [u8],
    pub reply: u8,
}

/// What the two draw.
pub struct Drawn {
    pub for_hello: [u8; 96],
    pub for_welcome: [u8; 96],
    pub for_confirm: [u8; 32],
}

/// A handshake as the page has it.
pub struct ByPage {
    pub hello: Vec<u8>,
    pub welcome: Vec<u8>,
    pub confirm: Vec<u8>,
    pub keys: SessionKeys,
    /// RK_R, with its secret.
    responder_ratchet: Key,
    /// The first ratchet key of I, with its secret.
    initiator_ratchet: Key,
    json: Json,
}

impl ByPage {
    /// The ratchets of I and R, and the first root step of I.
    pub fn ratchets(&self) -> ([page::Ratchet; 2], Turn) {
        let keys = &self.keys;
        let (header, next_header) = (keys.header_from_initiator, keys.next_header_from_responder);
        let (initiator, first) = page::Ratchet::initiator(
            keys.session_id,
            &keys.root,
            self.initiator_ratchet,
            &self.responder_ratchet.public,
            header,
            next_header,
        );
        let responder =
            page::Ratchet::responder(keys.session_id, keys.root, self.responder_ratchet, header, next_header);
        ([initiator, responder], first)
    }

    /// A file of this section that begins where the handshake ended.
    pub fn beginning(&self, section: &str) -> Json {
        let (keys, (_, first)) = (&self.keys, self.ratchets());
        object! {
            "section": section,
            "session id": keys.session_id,
            "root": keys.root,
            "header key from I to R": keys.header_from_initiator,
            "next header key from R to I": keys.next_header_from_responder,
            "RK_R scalar": self.responder_ratchet.secret(),
            "RK_R": self.responder_ratchet.public,
            "first ratchet scalar of I": self.initiator_ratchet.secret(),
            "first ratchet key of I": self.initiator_ratchet.public,
            "first root step of I": turn(&first),
        }
    }
}

/// The messages that follow from this randomness, and everything between.
pub fn by_page(setting: &Setting<'_>, drawn: &Drawn) -> ByPage {
    let Setting { page, is_pairing, psk, secret_number, lives, context, reply } = *setting;
    let Drawn { for_hello, for_welcome, for_confirm } = *drawn;
    let [initiator_life, responder_life] = lives;
    let secret_name = if is_pairing { [0; 8] } else { page::secret_name(psk) };
    let (identity_i, identity_r) = (&page.phone.agreement, &page.machine.agreement);
    let (signed, ephemeral_i) = (&page.signed.key, Key::new(cut(&for_hello, 0)));
    let kem_seed = cut(&for_hello, 32);
    let one_time = is_pairing.then_some(&page.one_time);
    let hello_without_mac = page::hello_without_mac(&HelloFields {
        purpose: if is_pairing { 1 } else { 2 },
        initiator: &page.phone.record(),
        responder: &page.machine.id(),
        ephemeral: &ephemeral_i.public,
        kem_key: &kem::public(&kem_seed),
        signed_prekey_id: page.signed.id,
        one_time_prekey_id: one_time.map_or(0, |prekey| prekey.id),
        secret_name,
        life: &initiator_life,
        context,
    });
    let dh1 = both(identity_i, signed);
    let dh2 = both(&ephemeral_i, identity_r);
    let dh3 = both(&ephemeral_i, signed);
    let dh4 = one_time.map(|prekey| both(&ephemeral_i, &prekey.key));
    let dhs = [vec![dh1, dh2, dh3], dh4.into_iter().collect()].concat();
    let one_time_public = one_time.map(|prekey| &prekey.key.public);
    let record_r = page.machine.record();
    let hello_keys = HelloKeys::derive(&hello_without_mac, &record_r, &signed.public, one_time_public, &dhs, psk);
    let hello = [&hello_without_mac[..], &hello_keys.mac_1].concat();

    let kem_message = cut(&for_welcome, 0);
    let (ephemeral_r, ratchet_r) = (Key::new(cut(&for_welcome, 32)), Key::new(cut(&for_welcome, 64)));
    let (kem_ciphertext, kem_shared) = kem::encapsulate(&kem::public(&kem_seed), &kem_message);
    assert_eq!(kem::decapsulate(&kem_seed, &kem_ciphertext), kem_shared);
    let welcome_without_mac = page::welcome_without_mac(
        &hello_keys.t1,
        &ephemeral_r.public,
        &kem_ciphertext,
        &ratchet_r.public,
        &responder_life,
        reply,
    );
    let (dh5, dh6) = (both(&ephemeral_i, &ephemeral_r), both(identity_i, &ephemeral_r));
    let keys = SessionKeys::derive(&hello_keys, &welcome_without_mac, &dh5, &dh6, &kem_shared);
    let welcome = [&welcome_without_mac[..], &keys.mac_2].concat();
    let confirm = keys.confirm();

    let json = object! {
        "section": "PROTOCOL 5",
        "purpose": if is_pairing { "pairing" } else { "link" },
        "initiator": object! {
            "identity record": page.phone.record(),
            "X25519 identity scalar": identity_i.secret(),
            "life nonce": initiator_life,
            "context": context,
            "randomness for Hello": for_hello,
            "EK_I scalar": ephemeral_i.secret(),
            "EK_I": ephemeral_i.public,
            "KEM seed, d and z": kem_seed,
            "KEM key": kem::public(&kem_seed),
            "randomness after Welcome": for_confirm,
            "first ratchet scalar": for_confirm,
            "first ratchet key": Key::new(for_confirm).public,
        },
        "responder": object! {
            "identity record": record_r,
            "X25519 identity scalar": identity_r.secret(),
            "signed prekey id": page.signed.id,
            "signed prekey scalar": signed.secret(),
            "signed prekey": signed.public,
            "one-time prekey id": one_time.map_or(0, |prekey| prekey.id),
            "one-time prekey scalar": one_time.map(|prekey| prekey.key.secret()),
            "one-time prekey": one_time.map(|prekey| prekey.key.public),
            "life nonce": responder_life,
            "reply": reply,
            "randomness for Welcome": for_welcome,
            "KEM message": kem_message,
            "EK_R scalar": ephemeral_r.secret(),
            "EK_R": ephemeral_r.public,
            "RK_R scalar": ratchet_r.secret(),
            "RK_R": ratchet_r.public,
        },
        "psk": psk,
        "pair secret number": secret_number,
        "pair secret name": secret_name,
        "hello without mac_1": hello_without_mac,
        "T1": hello_keys.t1,
        "DH1": dh1,
        "DH2": dh2,
        "DH3": dh3,
        "DH4": dh4,
        "prk1": hello_keys.prk1,
        "hello key": hello_keys.hello_key,
        "chain secret": hello_keys.chain_secret,
        "mac_1": hello_keys.mac_1,
        "KEM ciphertext": kem_ciphertext,
        "KEM shared secret": kem_shared,
        "welcome without mac_2": welcome_without_mac,
        "T2": keys.t2,
        "DH5": dh5,
        "DH6": dh6,
        "prk2": keys.prk2,
        "confirm_R": keys.confirm_responder,
        "confirm_I": keys.confirm_initiator,
        "root": keys.root,
        "header key from I to R": keys.header_from_initiator,
        "next header key from R to I": keys.next_header_from_responder,
        "exporter": keys.exporter,
        "mac_2": keys.mac_2,
        "mac_3": keys.mac_3,
        "Hello": &hello,
        "Welcome": &welcome,
        "Confirm": &confirm,
        "session id": keys.session_id,
        "confirmation code": format!("{:06}", keys.confirmation_code),
        "next pair secret number": secret_number + 1,
        "next pair secret": keys.next_pair_secret,
        "next pair secret name": page::secret_name(&keys.next_pair_secret),
    };
    let initiator_ratchet = Key::new(for_confirm);
    ByPage { hello, welcome, confirm, keys, responder_ratchet: ratchet_r, initiator_ratchet, json }
}

/// A root step.
pub fn turn(turn: &Turn) -> Json {
    object! {
        "DH": turn.dh,
        "extracted": turn.prk,
        "root": turn.root,
        "chain key": turn.chain,
        "next header key": turn.next_header,
    }
}

/// The agreement as both sides compute it.
fn both(a: &Key, b: &Key) -> [u8; 32] {
    let shared = a.dh(&b.public);
    assert_eq!(shared, b.dh(&a.public));
    shared
}
