//! Handshakes, and what they leave.

use super::*;

impl World {
    pub(super) fn start(&mut self) -> Outcome {
        let current = self.disk(Side::Phone).contents.current.clone();
        current.map_or(Ok(()), |secret| self.start_with(secret))
    }

    pub(super) fn start_with(&mut self, secret: PairSecret) -> Outcome {
        if self.device(Side::Phone).removed {
            return Ok(());
        }
        let who = people();
        let shared = Shared::Pair(&secret);
        let (initiator, hello) = Initiator::start(&mut self.rng, &who.phone, &who.bundle, shared, [1; 16], b"")
            .map_err(|error| format!("start: {error}"))?;
        let before = self.device(Side::Phone).initiator.replace((initiator, secret));
        self.count(if before.is_some() { "handshake started while another waits" } else { "handshake started" });
        self.put(Side::Machine, Packet::Hello(hello));
        Ok(())
    }

    /// The pair secret with this name, if the machine still takes it.
    pub(super) fn accepted(&self, name: [u8; 8]) -> Option<PairSecret> {
        let disk = self.disk(Side::Machine);
        let contents = &disk.contents;
        contents.current.iter().chain(&contents.previous).find(|secret| secret.name() == name).cloned()
    }

    pub(super) fn answer(&mut self, hello: &[u8]) -> Outcome {
        let Ok(view) = HelloView::parse(hello) else { return Ok(()) };
        let who = people();
        if view.initiator().device_id() != who.phone.device_id() {
            return Ok(());
        }
        if self.disk(Side::Machine).revoked {
            self.count("handshake of a revoked device refused");
            self.put(Side::Phone, Packet::Refused(Refused::sign(&who.machine, Refused::REVOKED, hello)));
            return Ok(());
        }
        let Some(secret) = self.accepted(view.secret_name()) else {
            self.count("unknown pair secret refused");
            self.put(Side::Phone, Packet::Refused(Refused::sign(&who.machine, UNKNOWN_SECRET, hello)));
            return Ok(());
        };
        let shared = Shared::Pair(&secret);
        match Responder::answer(&mut self.rng, &who.machine, &who.prekey, None, hello, ([2; 16], 0), shared) {
            Ok((responder, welcome)) => {
                let waiting = &mut self.device(Side::Machine).responders;
                if waiting.len() == MAX_UNCONFIRMED {
                    waiting.remove(0);
                }
                waiting.push((responder, secret));
                self.put(Side::Phone, Packet::Welcome(welcome));
            }
            Err(HandshakeError::NotAuthentic) => self.count("hello not authentic"),
            Err(_) => self.count("hello refused"),
        }
        Ok(())
    }

    pub(super) fn welcome(&mut self, welcome: &[u8]) -> Outcome {
        let rng = &mut self.rng;
        let phone = &mut self.devices[Side::Phone as usize];
        let Some((initiator, used)) = &phone.initiator else { return Ok(()) };
        let Ok((established, confirm)) = initiator.welcome(rng, welcome) else { return Ok(()) };
        let candidate =
            Candidate { next: established.next_pair_secret(), used: used.clone(), session: established.session_id };
        phone.initiator = None;
        // What the session will leave before the session, and the session before Confirm.
        self.disk(Side::Phone).contents.candidate = Some(candidate);
        if self.establish(Side::Phone, established.ratchet)? {
            self.device(Side::Phone).confirm = Some(confirm.clone());
            self.put(Side::Machine, Packet::Confirm(confirm));
            self.tell(Side::Phone, &Text::Resume)?;
        }
        Ok(())
    }

    pub(super) fn confirm(&mut self, confirm: &[u8]) -> Outcome {
        let waiting = &self.device(Side::Machine).responders;
        let Some(index) = waiting.iter().position(|(responder, _)| responder.matches_confirm(confirm)) else {
            return Ok(());
        };
        let (responder, used) = &waiting[index];
        let (Ok(established), used) = (responder.confirm(confirm), used.clone()) else { return Ok(()) };
        // Of several handshakes under way the phone goes on with one.
        self.device(Side::Machine).responders.clear();
        if self.accepted(used.name()).is_none() {
            self.count("confirmed too late");
            return Ok(());
        }
        ensure!(!self.disk(Side::Machine).revoked, "a revoked device got in");
        self.count("handshake confirmed");
        {
            // PROTOCOL 5: R stores both before it says so.
            let mut disk = self.disk(Side::Machine);
            disk.contents.current = Some(established.next_pair_secret());
            disk.contents.left_by = established.session_id;
            disk.contents.previous = Some(used);
        }
        self.establish(Side::Machine, established.ratchet).map(drop)
    }

    /// Stores the new session in the place of the old one. Says whether it was.
    pub(super) fn establish(&mut self, side: Side, ratchet: Ratchet) -> Outcome<bool> {
        let before = {
            let disk = self.disk(side);
            Predecessor { stored: disk.stored(), known: disk.contents.known.max(disk.contents.handled) }
        };
        let old = self.device(side).session();
        let rng = &mut self.rng;
        let device = &mut self.devices[side as usize];
        let outcome = match &mut device.ratchet {
            Some(old) => old.renew(rng, ratchet).map(drop),
            None => DurableRatchet::create(rng, device.place(), &KEY, id_of(side.other()), ratchet, before)
                .map(|created| device.ratchet = Some(created)),
        };
        match outcome {
            Ok(()) => {
                self.position[side as usize] = 0;
                self.reached[side.other() as usize] = 0;
                self.expired[side as usize] = false;
                self.after(side)?;
                Ok(true)
            }
            Err(CommitError::Refused(_)) => {
                ensure!(self.device(side).session() == old, "a session that was not stored has begun");
                self.count("session not stored");
                Ok(false)
            }
            Err(error) => self.lost(side, &error).map(|()| false),
        }
    }

    /// The other side has shown that it has stored what the handshake of this session left. Returns what to answer.
    pub(super) fn peer_has_stored(&mut self, side: Side, session: [u8; 16], of: u64) -> Vec<Text> {
        if of != short(&session) {
            return Vec::new();
        }
        let disk = self.devices[side as usize].disk.clone();
        let contents = &mut disk.borrow_mut().contents;
        match side {
            Side::Phone => {
                if let Some(Candidate { next, used, .. }) =
                    contents.candidate.take_if(|candidate| candidate.session == session)
                {
                    contents.left_by = session;
                    let old = (contents.current.replace(next), contents.previous.replace(used));
                    self.old_secrets.extend(old.0.into_iter().chain(old.1));
                    self.count("pair secret moved on");
                }
                if contents.left_by == session { vec![Text::Stored(of)] } else { Vec::new() }
            }
            Side::Machine => {
                if contents.left_by == session && contents.previous.take().is_some() {
                    self.count("pair secret before it deleted");
                }
                Vec::new()
            }
        }
    }

    pub(super) fn refused(&mut self, refused: &[u8]) -> Outcome {
        let Some((initiator, used)) = &self.device(Side::Phone).initiator else { return Ok(()) };
        let (hash, used) = (initiator.hello_hash(), used.name());
        let Ok(reason) = Refused::verify(&people().machine.device_id(), &hash, refused) else { return Ok(()) };
        self.device(Side::Phone).initiator = None;
        match reason {
            Refused::REVOKED => self.device(Side::Phone).removed = true,
            UNKNOWN_SECRET => {
                let older = self.disk(Side::Phone).contents.previous.clone();
                if let Some(older) = older.filter(|older| older.name() != used) {
                    self.count("older pair secret tried");
                    self.start_with(older)?;
                }
            }
            other => return Err(format!("refused with reason {other}")),
        }
        Ok(())
    }

    /// Somebody with the phone's keys and an old copy of its storage.
    pub(super) fn thief(&mut self, nth: u8) -> Outcome {
        if self.old_secrets.is_empty() {
            return Ok(());
        }
        let stolen = self.old_secrets[usize::from(nth) % self.old_secrets.len()].clone();
        let (current, previous) = {
            let disk = self.disk(Side::Machine);
            (disk.contents.current.clone(), disk.contents.previous.clone())
        };
        let Some(current) = current else { return Ok(()) };
        if [Some(&current), previous.as_ref()].into_iter().flatten().any(|secret| secret.name() == stolen.name()) {
            return Ok(());
        }
        self.count("thief with an old copy");
        let who = people();
        let (_, hello) = Initiator::start(&mut self.rng, &who.phone, &who.bundle, Shared::Pair(&stolen), [3; 16], b"")
            .map_err(|error| error.to_string())?;
        // Under its own name, and under that of the secret which the machine takes.
        let mut renamed = hello.clone();
        renamed[SECRET_NAME_AT..SECRET_NAME_AT + 8].copy_from_slice(&current.name());
        for hello in [hello, renamed] {
            let before = self.device(Side::Machine).responders.len();
            self.answer(&hello)?;
            ensure!(self.device(Side::Machine).responders.len() == before, "an old pair secret was accepted");
        }
        Ok(())
    }

    pub(super) fn revoke(&mut self) {
        self.count("revoke");
        {
            let mut disk = self.disk(Side::Machine);
            disk.revoked = true;
            disk.contents.record = None;
            disk.contents.current = None;
            disk.contents.previous = None;
        }
        self.device(Side::Machine).forget();
    }

    /// A pairing in one go: what comes before a run, and after copies that nothing else helps against.
    pub(super) fn pair(&mut self) -> Outcome {
        for side in Side::BOTH {
            self.device(side).forget();
            self.disk(side).fault = None;
            self.network[side as usize].clear();
        }
        let (who, key) = (people(), InvitationKey::new([9; 32].into()));
        let shared = || Shared::Invitation(&key);
        let why = |error: HandshakeError| format!("pairing: {error}");
        let rng = &mut self.rng;
        let (initiator, hello) =
            Initiator::start(rng, &who.phone, &who.bundle, shared(), [1; 16], b"https://relay.example").map_err(why)?;
        let (responder, welcome) =
            Responder::answer(rng, &who.machine, &who.prekey, None, &hello, ([2; 16], 0), shared()).map_err(why)?;
        let (at_phone, confirm) = initiator.welcome(rng, &welcome).map_err(why)?;
        let at_machine = responder.confirm(&confirm).map_err(why)?;
        for (side, established) in [(Side::Phone, at_phone), (Side::Machine, at_machine)] {
            {
                let mut disk = self.disk(side);
                disk.contents.current = Some(established.next_pair_secret());
                disk.contents.left_by = established.session_id;
                disk.contents.previous = None;
                disk.contents.candidate = None;
            }
            ensure!(self.establish(side, established.ratchet)?, "the pairing was not stored");
        }
        self.restored = false;
        self.tell(Side::Phone, &Text::Resume)?;
        self.deliver(Side::Machine, 0)
    }
}
