//! What must be true at the end.

use super::*;

impl World {
    /// Nothing is lost any more: they must be in step, at once or after one handshake.
    pub(super) fn settle(&mut self) -> Outcome {
        for side in Side::BOTH {
            self.disk(side).fault = None;
        }
        self.deliver_everything()?;
        if self.disk(Side::Machine).revoked {
            return self.stays_out();
        }
        let sessions = Side::BOTH.map(|side| self.device(side).session());
        let in_reach = Side::BOTH
            .map(|side| self.position[side as usize].saturating_sub(self.reached[side as usize]) <= MAX_SKIP)
            == [true; 2];
        let must = sessions[0].is_some_and(|session| sessions[1] == Some(session) && !self.tainted.contains(&session));
        if self.round_trip()? {
            self.count("in step at once");
            return Ok(());
        }
        ensure!(!must || !in_reach, "out of step although nothing was restored");
        // PROTOCOL 5: three packets, then both can talk.
        self.clear_network();
        self.device(Side::Phone).initiator = None;
        self.start()?;
        for to in [Side::Machine, Side::Phone, Side::Machine, Side::Phone, Side::Machine] {
            self.deliver(to, 0)?; // the last two when the older secret is tried
        }
        if self.round_trip()? {
            self.count("in step after one handshake");
            return Ok(());
        }
        ensure!(self.restored, "one handshake did not help although nothing was restored");
        self.pair()?;
        ensure!(self.round_trip()?, "a new pairing did not help");
        self.count("in step after a new pairing");
        Ok(())
    }

    pub(super) fn clear_network(&mut self) {
        self.network.iter_mut().for_each(Vec::clear);
    }

    pub(super) fn deliver_everything(&mut self) -> Outcome {
        for _ in 0..400 {
            if self.network.iter().all(Vec::is_empty) {
                return Ok(());
            }
            self.deliver(Side::Machine, 0)?;
            self.deliver(Side::Phone, 0)?;
        }
        Err("the network does not come to rest".to_owned())
    }

    /// Whether a message gets there, and one gets back.
    pub(super) fn round_trip(&mut self) -> Outcome<bool> {
        for from in Side::BOTH {
            let number = self.said.len() as u64;
            self.say(from, false)?;
            // Answers of the application may go first.
            for _ in 0..MAX_UNDER_WAY {
                self.deliver(from.other(), 0)?;
            }
            if !self.disk(from.other()).contents.delivered.contains(&number) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A revoked device.
    pub(super) fn stays_out(&mut self) -> Outcome {
        let delivered = self.disk(Side::Machine).contents.delivered.len();
        self.say(Side::Phone, true)?;
        self.device(Side::Phone).initiator = None;
        self.start()?;
        self.deliver_everything()?;
        self.boot(Side::Machine)?;
        ensure!(self.device(Side::Machine).session().is_none(), "a revoked device got in");
        ensure!(self.disk(Side::Machine).contents.delivered.len() == delivered, "a revoked device was listened to");
        let phone = &self.devices[Side::Phone as usize];
        ensure!(phone.removed || phone.disk.borrow().contents.current.is_none(), "the phone was not told");
        self.count("revoked and stays out");
        Ok(())
    }

    /// No key and nonce seal two plaintexts, whatever happened; and no message key seals two messages that were released, unless
    /// a copy was alive that nobody could know of.
    pub(super) fn check_keys(&mut self, seals: &[Seal]) -> Outcome {
        let mut used = HashMap::new();
        let mut message_keys = HashSet::new();
        for seal in seals {
            let plaintext = used.entry(seal.key_and_nonce).or_insert(seal.plaintext);
            ensure!(*plaintext == seal.plaintext, "one key and nonce sealed two plaintexts ({})", seal.label);
            if let (Some(side), "happy/1 body") = (self.released.get(&seal.tag), seal.label.as_str()) {
                let new = message_keys.insert(seal.input_key);
                ensure!(new || self.copied[*side as usize], "a message key was used for two messages of {side:?}");
                if !new {
                    self.count("message key used by two copies, with other nonces");
                }
            }
        }
        *self.counts.entry("uses of the cipher").or_default() += seals.len() as u64;
        Ok(())
    }
}
