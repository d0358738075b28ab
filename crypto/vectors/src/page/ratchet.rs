//! PROTOCOL 6, in the order of Signal's specification, with everything that was derived on the way; and PROTOCOL 6.1, its state.

use super::{
    Key, VERSION, expand, extract,
    fields::Reader,
    hmac,
    primitives::{cipher, open, part, seal},
};

/// A root step.
#[derive(Clone)]
pub struct Turn {
    /// DH.
    pub dh: [u8; 32],
    /// The extracted key.
    pub prk: [u8; 32],
    /// RK'.
    pub root: [u8; 32],
    /// CK.
    pub chain: [u8; 32],
    /// NHK.
    pub next_header: [u8; 32],
}

impl Turn {
    fn derive(root: &[u8; 32], dh: [u8; 32]) -> Self {
        let prk = extract(root, &[&dh]);
        let okm = expand::<96>(&prk, &[b"happy/1 ratchet root"]);
        Self { dh, prk, root: part(&okm, 0), chain: part(&okm, 1), next_header: part(&okm, 2) }
    }
}

/// A message that was sealed.
pub struct Sent {
    /// If the ratchet turned for it.
    pub turn: Option<Turn>,
    /// PN.
    pub previous_length: u32,
    /// N.
    pub number: u32,
    /// The chain key before it.
    pub chain_key: [u8; 32],
    /// MK.
    pub message_key: [u8; 32],
    /// HK.
    pub header_key: [u8; 32],
    /// Ratchet key, PN, N.
    pub header: Vec<u8>,
    /// Key and nonce of the header.
    pub header_cipher: ([u8; 32], [u8; 12]),
    /// Key and nonce of the body.
    pub body_cipher: ([u8; 32], [u8; 12]),
    /// The message.
    pub bytes: Vec<u8>,
}

/// A message that was opened.
pub struct Opened {
    /// What it said.
    pub plaintext: Vec<u8>,
    /// Which header key opened it: `current`, `next` or `older`.
    pub with: &'static str,
}

#[derive(Clone)]
struct Chain {
    header_key: [u8; 32],
    key: [u8; 32],
    next: u32,
}

impl Chain {
    /// MK of the next message.
    fn step(&mut self) -> [u8; 32] {
        let message_key = hmac(&self.key, &[&[1]]);
        self.key = hmac(&self.key, &[&[2]]);
        self.next += 1;
        message_key
    }
}

/// The key of a message that did not come yet, with its header key and number.
#[derive(Clone)]
struct Skipped {
    header_key: [u8; 32],
    number: u32,
    since: u64,
    key: [u8; 32],
}

/// A chain that the other side has finished.
#[derive(Clone)]
struct Older {
    header_key: [u8; 32],
    length: u32,
    ended_at: u64,
}

/// One side. It has no bounds, because nobody hostile speaks to it.
#[derive(Clone)]
pub struct Ratchet {
    session_id: [u8; 16],
    root: [u8; 32],
    my_key: Key,
    sending: Option<Chain>,
    next_sending_header: [u8; 32],
    previous_length: u32,
    /// The other side's key, when we have to turn before we send.
    due: Option<[u8; 32]>,
    receiving: Option<Chain>,
    next_receiving_header: [u8; 32],
    skipped: Vec<Skipped>,
    older: Vec<Older>,
    /// Seconds, as the caller counts them.
    pub now: u64,
}

impl Ratchet {
    /// Alice. Returns the root step that began her chain too.
    #[must_use]
    pub fn initiator(
        session_id: [u8; 16],
        root: &[u8; 32],
        my_key: Key,
        their_key: &[u8; 32],
        header: [u8; 32],
        next_receiving_header: [u8; 32],
    ) -> (Self, Turn) {
        let turn = Turn::derive(root, my_key.dh(their_key));
        let ratchet = Self {
            session_id,
            root: turn.root,
            my_key,
            sending: Some(Chain { header_key: header, key: turn.chain, next: 0 }),
            next_sending_header: turn.next_header,
            previous_length: 0,
            due: None,
            receiving: None,
            next_receiving_header,
            skipped: Vec::new(),
            older: Vec::new(),
            now: 0,
        };
        (ratchet, turn)
    }

    /// Bob.
    #[must_use]
    pub fn responder(
        session_id: [u8; 16],
        root: [u8; 32],
        my_key: Key,
        next_receiving_header: [u8; 32],
        next_sending_header: [u8; 32],
    ) -> Self {
        Self {
            session_id,
            root,
            my_key,
            sending: None,
            next_sending_header,
            previous_length: 0,
            due: None,
            receiving: None,
            next_receiving_header,
            skipped: Vec::new(),
            older: Vec::new(),
            now: 0,
        }
    }

    /// Whether the next message turns the ratchet, and so needs a new key of ours.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.due.is_some()
    }

    /// The number of the next message, if it is one of a chain that has begun.
    #[must_use]
    pub fn next_number(&self) -> Option<u32> {
        let chain = self.sending.as_ref().filter(|_| !self.is_due())?;
        Some(chain.next)
    }

    /// Begins a sending chain with this key when the ratchet is due.
    ///
    /// # Panics
    /// When it needs a new key and has none.
    pub fn begin_chain(&mut self, new_key: Option<Key>) -> Option<Turn> {
        self.due.take().map(|theirs| {
            self.my_key = new_key.expect("the ratchet turns, so there is a new key");
            let turn = Turn::derive(&self.root, self.my_key.dh(&theirs));
            self.root = turn.root;
            self.sending = Some(Chain { header_key: self.next_sending_header, key: turn.chain, next: 0 });
            self.next_sending_header = turn.next_header;
            turn
        })
    }

    /// Seals a message. `new_key` is used when the ratchet is due.
    ///
    /// # Panics
    /// When it may not send yet, or needs a new key and has none.
    pub fn send(&mut self, new_key: Option<Key>, salt: &[u8; 16], plaintext: &[u8]) -> Sent {
        let turn = self.begin_chain(new_key);
        let chain = self.sending.as_mut().expect("something was received");
        let (header_key, chain_key, number) = (chain.header_key, chain.key, chain.next);
        let message_key = chain.step();
        let header = [&self.my_key.public[..], &self.previous_length.to_be_bytes(), &number.to_be_bytes()].concat();

        let header_ad = [&self.session_id[..], &[VERSION], salt].concat();
        let header_cipher = cipher(&header_key, &[b"happy/1 header", salt]);
        let sealed_header = seal(&header_cipher.0, &header_cipher.1, &header_ad, &header);
        let body_ad = [&header_ad[..], &sealed_header].concat();
        let body_cipher = cipher(&message_key, &[b"happy/1 body", salt]);
        let body = seal(&body_cipher.0, &body_cipher.1, &body_ad, plaintext);
        let bytes = [&[VERSION][..], salt, &sealed_header, &body].concat();
        Sent {
            turn,
            previous_length: self.previous_length,
            number,
            chain_key,
            message_key,
            header_key,
            header,
            header_cipher,
            body_cipher,
            bytes,
        }
    }

    /// Opens a message. `None` when it does not open; then nothing has changed.
    pub fn receive(&mut self, message: &[u8]) -> Option<Opened> {
        let (version, rest) = message.split_first()?;
        let (salt, rest) = rest.split_first_chunk::<16>()?;
        let (sealed_header, sealed_body) = rest.split_first_chunk::<56>()?;
        if *version != VERSION {
            return None;
        }
        let header_ad = [&self.session_id[..], &[VERSION], salt].concat();
        let body_ad = [&header_ad[..], sealed_header].concat();
        let header = |key: &[u8; 32]| {
            let (key, nonce) = cipher(key, &[b"happy/1 header", salt]);
            let header = open(&key, &nonce, &header_ad, sealed_header)?;
            let number = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| header[at + i]));
            Some((part(&header, 0), number(32), number(36)))
        };
        let body = |key: &[u8; 32]| {
            let (key, nonce) = cipher(key, &[b"happy/1 body", salt]);
            open(&key, &nonce, &body_ad, sealed_body)
        };

        for (index, skipped) in self.skipped.iter().enumerate() {
            if header(&skipped.header_key).is_some_and(|(_, _, number)| number == skipped.number) {
                let plaintext = body(&skipped.key)?;
                let current = self.receiving.as_ref().is_some_and(|chain| chain.header_key == skipped.header_key);
                self.skipped.remove(index);
                return Some(Opened { plaintext, with: if current { "current" } else { "older" } });
            }
        }
        let mut next = self.clone();
        let current = self.receiving.as_ref().and_then(|chain| header(&chain.header_key));
        let (number, with) = if let Some((_, _, number)) = current {
            (number, "current")
        } else {
            let (theirs, previous_length, number) = header(&self.next_receiving_header)?;
            next.skip_to(previous_length);
            if let Some(Chain { header_key, .. }) = next.receiving {
                next.older.push(Older { header_key, length: previous_length, ended_at: self.now });
            }
            let turn = Turn::derive(&self.root, self.my_key.dh(&theirs));
            next.root = turn.root;
            next.receiving = Some(Chain { header_key: self.next_receiving_header, key: turn.chain, next: 0 });
            next.next_receiving_header = turn.next_header;
            next.previous_length = self.sending.as_ref().map_or(0, |chain| chain.next);
            next.due = Some(theirs);
            (number, "next")
        };
        next.skip_to(number);
        let chain = next.receiving.as_mut().filter(|chain| chain.next == number)?;
        let plaintext = body(&chain.step())?;
        *self = next;
        Some(Opened { plaintext, with })
    }

    fn skip_to(&mut self, number: u32) {
        let Some(chain) = &mut self.receiving else { return };
        while chain.next < number {
            let (header_key, number, since) = (chain.header_key, chain.next, self.now);
            self.skipped.push(Skipped { header_key, number, since, key: chain.step() });
        }
    }

    /// PROTOCOL 6.1, with the sending chain where it stands before the message with the number `at_least`, if it is not there yet.
    #[must_use]
    pub fn state(&self, at_least: u32) -> Vec<u8> {
        let mut state = [&[VERSION][..], &self.session_id, &self.root, &self.my_key.secret()].concat();
        state.extend([self.next_sending_header, self.next_receiving_header].concat());
        state.extend(self.previous_length.to_be_bytes());
        state.extend(self.now.to_be_bytes());
        match (&self.due, &self.sending) {
            (Some(theirs), _) => state.extend([&[1][..], theirs].concat()),
            (None, None) => state.push(0),
            (None, Some(chain)) => {
                let mut chain = chain.clone();
                while chain.next < at_least {
                    chain.step();
                }
                state.extend([&[2][..], &chain.header_key, &chain.key, &chain.next.to_be_bytes()].concat());
            }
        }
        match &self.receiving {
            None => state.push(0),
            Some(chain) => {
                state.extend([&[1][..], &chain.header_key, &chain.key, &chain.next.to_be_bytes()].concat());
                state.extend(self.missing(&chain.header_key));
            }
        }
        state.push(u8::try_from(self.older.len()).expect("at most 5"));
        for Older { header_key, length, ended_at } in &self.older {
            state.extend([&header_key[..], &length.to_be_bytes(), &ended_at.to_be_bytes()].concat());
            state.extend(self.missing(header_key));
        }
        state
    }

    fn missing(&self, of: &[u8; 32]) -> Vec<u8> {
        let keys = self.skipped.iter().filter(|skipped| skipped.header_key == *of);
        let count = u16::try_from(keys.clone().count()).expect("at most 1,024");
        let keys = keys.flat_map(|key| [&key.number.to_be_bytes()[..], &key.since.to_be_bytes(), &key.key].concat());
        count.to_be_bytes().into_iter().chain(keys).collect()
    }

    /// The ratchet of a state.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn read(state: &[u8]) -> Self {
        let mut reader = Reader(state);
        assert_eq!(reader.u8(), VERSION);
        let chain =
            |reader: &mut Reader<'_>| Chain { header_key: reader.array(), key: reader.array(), next: reader.u32() };
        let (session_id, root, my_key) = (reader.array(), reader.array(), Key::new(reader.array()));
        let (next_sending_header, next_receiving_header) = (reader.array(), reader.array());
        let (previous_length, now) = (reader.u32(), reader.u64());
        let (due, sending) = match reader.u8() {
            0 => (None, None),
            1 => (Some(reader.array()), None),
            2 => (None, Some(chain(&mut reader))),
            other => unreachable!("{other} is no sending chain"),
        };
        let mut skipped = Vec::new();
        let mut missing = |reader: &mut Reader<'_>, header_key| {
            for _ in 0..reader.u16() {
                skipped.push(Skipped { header_key, number: reader.u32(), since: reader.u64(), key: reader.array() });
            }
        };
        let receiving = (reader.u8() == 1).then(|| {
            let chain = chain(&mut reader);
            missing(&mut reader, chain.header_key);
            chain
        });
        let older = (0..reader.u8())
            .map(|_| {
                let chain = Older { header_key: reader.array(), length: reader.u32(), ended_at: reader.u64() };
                missing(&mut reader, chain.header_key);
                chain
            })
            .collect();
        assert!(reader.0.is_empty());
        Self {
            session_id,
            root,
            my_key,
            sending,
            next_sending_header,
            previous_length,
            due,
            receiving,
            next_receiving_header,
            skipped,
            older,
            now,
        }
    }
}
