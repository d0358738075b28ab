//! Messages: said, opened, handed to the application.

use super::*;

impl World {
    pub(super) fn say(&mut self, from: Side, kept: bool) -> Outcome {
        let number = self.said.len() as u64;
        let mut text = vec![if kept { 4 } else { 0 }];
        text.extend_from_slice(&number.to_be_bytes());
        let length = self.rng.next_u32() as usize % 40;
        text.resize(9 + length, number as u8);
        self.said.push((from, text.clone()));
        let sent = self.send(from, kept, &text)?;
        if sent && kept {
            self.count("send: outbox");
        } else if sent {
            self.count("send: lease");
        }
        Ok(())
    }

    pub(super) fn tell(&mut self, from: Side, text: &Text) -> Outcome {
        let (kind, number) = match text {
            Text::Ack(number) => (1, *number),
            Text::Stored(number) => (2, *number),
            Text::Resume => (3, 0),
        };
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&number.to_be_bytes());
        self.send(from, false, &bytes).map(drop)
    }

    /// Sends, and tries again when the storage refused. Says whether it was sent.
    pub(super) fn send(&mut self, from: Side, kept: bool, text: &[u8]) -> Outcome<bool> {
        for attempt in 0..2 {
            let rng = &mut self.rng;
            let Some(ratchet) = &mut self.devices[from as usize].ratchet else { return Ok(false) };
            let session = ratchet.session_id();
            let outcome = if kept {
                ratchet.send(rng, text).map(|kept| (kept.bytes().to_vec(), kept.id()))
            } else {
                let mut message = Vec::new();
                ratchet.send_leased(rng, text, &mut message).map(|()| (message, 0))
            };
            match outcome {
                Ok((message, id)) => {
                    if let (true, Some(number)) = (kept, self.said.len().checked_sub(1)) {
                        self.kept.insert(number as u64, id);
                    }
                    self.release(from, session, message);
                    self.after(from)?;
                    return Ok(true);
                }
                Err(SendError::Commit(CommitError::Refused(_))) => {
                    ensure!(attempt == 0, "a storage without a fault refused");
                    self.count("commit refused");
                }
                Err(SendError::Commit(error)) => {
                    self.lost(from, &error)?;
                    return Ok(false);
                }
                Err(SendError::Encrypt(_)) => {
                    ensure!(from == Side::Machine, "the phone can always send");
                    return Ok(false);
                }
                Err(SendError::OutboxFull) => {
                    self.count("outbox full");
                    return Ok(false);
                }
                Err(error) => return Err(format!("sending: {error}")),
            }
        }
        Ok(false)
    }

    pub(super) fn release(&mut self, from: Side, session: [u8; 16], message: Vec<u8>) {
        if let Some(tag) = message.last_chunk() {
            self.released.insert(*tag, from);
        }
        self.position[from as usize] += 1;
        let position = self.position[from as usize];
        self.put(from.other(), Packet::Sealed { session, message, position });
    }

    pub(super) fn resend(&mut self, from: Side) {
        let device = self.device(from);
        let confirm = device.confirm.clone();
        let session = device.session();
        let again: Vec<_> = device.ratchet.iter().flat_map(|r| r.pending()).map(|kept| kept.bytes().to_vec()).collect();
        if let Some(confirm) = confirm {
            self.put(Side::Machine, Packet::Confirm(confirm));
        }
        for message in again {
            self.count("sent again");
            let position = self.position[from as usize];
            if let Some(session) = session {
                self.put(from.other(), Packet::Sealed { session, message, position });
            }
        }
    }

    pub(super) fn open(&mut self, to: Side, session: [u8; 16], message: &[u8], position: u64, forged: bool) -> Outcome {
        if to == Side::Machine && self.disk(to).revoked {
            self.count("message of a revoked device");
            return Ok(());
        }
        if self.device(to).session() != Some(session) {
            if to == Side::Machine {
                self.put(Side::Phone, Packet::UnknownSession(session));
            }
            return Ok(());
        }
        let mut refused = false;
        let tag = message.last_chunk().copied().unwrap_or_default();
        loop {
            let rng = &mut self.rng;
            let Some(ratchet) = &mut self.devices[to as usize].ratchet else { return Ok(()) };
            match ratchet.receive(rng, message).map(drop) {
                Ok(()) => break,
                Err(ReceiveError::Commit(CommitError::Refused(_))) => {
                    ensure!(!refused, "a storage without a fault refused");
                    self.count("commit refused");
                    refused = true;
                }
                Err(ReceiveError::Commit(error)) => {
                    self.opened[to as usize].insert(tag);
                    return self.lost(to, &error);
                }
                Err(ReceiveError::Open(error)) => {
                    ensure!(!refused, "a message that could not be stored is lost: {error}");
                    let repeated = error == OpenError::Repeated;
                    let excused = forged
                        || self.expired[to as usize]
                        || self.tainted.contains(&session)
                        || self.position[to.other() as usize] > MAX_SKIP;
                    ensure!(
                        !repeated || excused || self.opened[to as usize].contains(&tag),
                        "the key of a message is gone that was never opened"
                    );
                    self.count(if repeated { "repetition told apart" } else { "not opened" });
                    if !repeated && !forged && to == Side::Machine {
                        self.put(Side::Phone, Packet::UnknownSession(session));
                    }
                    return Ok(());
                }
                Err(error) => return Err(format!("receiving: {error}")),
            }
        }
        ensure!(!forged, "a forged message was opened");
        self.count("message opened");
        self.opened[to as usize].insert(tag);
        let from = to.other() as usize;
        self.reached[from] = self.reached[from].max(position);
        if to == Side::Phone {
            self.device(to).confirm = None;
        }
        self.after(to)?;
        self.handle_all(to)
    }

    /// Hands what was received to the application.
    pub(super) fn handle_all(&mut self, side: Side) -> Outcome {
        loop {
            let Some(ratchet) = &self.device(side).ratchet else { return Ok(()) };
            let session = ratchet.session_id();
            let Some((id, text)) = ratchet.unhandled().next().map(|kept| (kept.id(), kept.bytes().to_vec())) else {
                return Ok(());
            };
            if self.disk(side).fault(|fault| matches!(fault, Fault::CrashBeforeHandling)) {
                self.count("crash before handling");
                return self.boot(side);
            }
            let new = id > self.disk(side).contents.handled;
            self.count(if new { "handled" } else { "came again after a crash" });
            let deeds = if new { self.handle(side, id, &text)? } else { Vec::new() };
            self.know(side);
            if self.disk(side).fault(|fault| matches!(fault, Fault::CrashAfterHandling)) {
                self.count("crash after handling");
                return self.boot(side);
            }
            if let Some(ratchet) = &mut self.device(side).ratchet {
                ratchet.handled(id);
            }
            for deed in deeds {
                // What it has to say goes out in the session in which it was asked.
                if self.device(side).session() == Some(session) {
                    self.tell(side, &deed)?;
                }
            }
        }
    }

    /// One transaction of the application: the effect of a message and its id. Returns what to answer.
    pub(super) fn handle(&mut self, side: Side, id: u64, text: &[u8]) -> Outcome<Vec<Text>> {
        let session = self.device(side).session().unwrap_or_default();
        self.disk(side).contents.handled = id;
        let (Some(kind), Some(number)) = (text.first(), text.get(1..9)) else { return Err("altered".to_owned()) };
        let number = u64::from_be_bytes(number.try_into().unwrap_or_default());
        match kind {
            0 | 4 => {
                let said = self.said.get(number as usize).cloned();
                ensure!(said.is_some_and(|said| said == (side.other(), text.to_vec())), "message {number} was altered");
                ensure!(self.disk(side).contents.delivered.insert(number), "message {number} was delivered twice");
                self.count("delivered");
                Ok(if *kind == 4 { vec![Text::Ack(number)] } else { Vec::new() })
            }
            1 => {
                if let (Some(id), Some(ratchet)) = (self.kept.get(&number), &mut self.devices[side as usize].ratchet)
                    && ratchet.acknowledge(*id)
                {
                    self.count("acknowledged");
                }
                Ok(Vec::new())
            }
            2 => Ok(self.peer_has_stored(side, session, number)),
            3 => {
                let mine = self.disk(side).contents.left_by == session;
                Ok(if mine { vec![Text::Stored(short(&session))] } else { Vec::new() })
            }
            _ => Err("altered".to_owned()),
        }
    }
}
