//! What is under way between the two, and what happens to it.

use super::*;

impl World {
    pub(super) fn put(&mut self, to: Side, packet: Packet) {
        let queue = &mut self.network[to as usize];
        queue.push(UnderWay { packet, forged: false });
        if queue.len() > MAX_UNDER_WAY {
            queue.remove(0);
        }
    }

    pub(super) fn take(&mut self, to: Side, nth: u8) -> Option<UnderWay> {
        let queue = &mut self.network[to as usize];
        if queue.is_empty() { None } else { Some(queue.remove(usize::from(nth) % queue.len())) }
    }

    pub(super) fn duplicate(&mut self, to: Side, nth: u8) {
        let queue = &mut self.network[to as usize];
        if !queue.is_empty() && queue.len() < MAX_UNDER_WAY {
            let UnderWay { packet, forged } = &queue[usize::from(nth) % queue.len()];
            let copy = UnderWay { packet: packet.clone(), forged: *forged };
            queue.push(copy);
            self.count("duplicate");
        }
    }

    pub(super) fn shuffle(&mut self, to: Side) {
        let queue = &mut self.network[to as usize];
        for at in (1..queue.len()).rev() {
            queue.swap(at, self.rng.next_u32() as usize % (at + 1));
        }
        if queue.len() > 1 {
            self.count("shuffle");
        }
    }

    /// Adds a damaged copy, or sends a packet back to where it came from.
    pub(super) fn forge(&mut self, to: Side, nth: u8, at: usize) {
        let queue = &self.network[to as usize];
        if queue.is_empty() || queue.len() >= MAX_UNDER_WAY {
            return;
        }
        let UnderWay { packet, forged } = &queue[usize::from(nth) % queue.len()];
        if *forged {
            return; // done twice it might be genuine again
        }
        let mut packet = packet.clone();
        let reflected = at.is_multiple_of(8);
        if !reflected {
            let (Packet::Hello(bytes)
            | Packet::Welcome(bytes)
            | Packet::Confirm(bytes)
            | Packet::Refused(bytes)
            | Packet::Sealed { message: bytes, .. }) = &mut packet
            else {
                return;
            };
            let length = bytes.len();
            bytes[(at / 8) % length] ^= 1 << (at % 8);
        }
        let to = if reflected { to.other() } else { to };
        self.network[to as usize].insert(0, UnderWay { packet, forged: true });
        self.count(if reflected { "forge: sent back" } else { "forge: damaged" });
    }

    pub(super) fn deliver(&mut self, to: Side, nth: u8) -> Outcome {
        let Some(UnderWay { packet, forged }) = self.take(to, nth) else { return Ok(()) };
        let before = (self.device(to).session(), self.devices[to as usize].responders.len());
        match (packet, to) {
            (Packet::Sealed { session, message, position }, _) => {
                self.count("packet delivered");
                return self.open(to, session, &message, position, forged);
            }
            (Packet::Hello(hello), Side::Machine) => self.answer(&hello)?,
            (Packet::Welcome(welcome), Side::Phone) => self.welcome(&welcome)?,
            (Packet::Confirm(confirm), Side::Machine) => self.confirm(&confirm)?,
            (Packet::Refused(refused), Side::Phone) => self.refused(&refused)?,
            (Packet::UnknownSession(session), Side::Phone) => {
                let phone = self.device(Side::Phone);
                if phone.initiator.is_none() && phone.session().is_none_or(|mine| mine == session) {
                    self.start()?;
                }
            }
            _ => {} // sent back to where it came from
        }
        let after = (self.device(to).session(), self.devices[to as usize].responders.len());
        ensure!(!forged || before == after, "a forged handshake packet changed something");
        Ok(())
    }
}
