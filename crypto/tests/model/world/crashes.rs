//! Crashes, copies that were put back, and a second writer.

use super::*;

impl World {
    /// Notes the generation that the application has seen.
    pub(super) fn know(&mut self, side: Side) {
        if let Some(ratchet) = &self.device(side).ratchet {
            let generation = ratchet.generation();
            let mut disk = self.disk(side);
            disk.contents.known = disk.contents.known.max(generation);
        }
    }

    /// After a step that went well.
    pub(super) fn after(&mut self, side: Side) -> Outcome {
        ensure!(!self.disk(side).crashed, "something was released that was not stored");
        self.know(side);
        Ok(())
    }

    /// A commit did not happen, or perhaps did: the value has to be loaded again.
    pub(super) fn lost(&mut self, side: Side, error: &CommitError<&'static str>) -> Outcome {
        let rng = &mut self.rng;
        let crashed = self.devices[side as usize].disk.borrow().crashed;
        if let (Some(ratchet), false) = (&mut self.devices[side as usize].ratchet, crashed) {
            let again = ratchet.flush(rng);
            ensure!(again == Err(CommitError::Stale), "a value went on that does not know what is stored");
        }
        match error {
            CommitError::Unsettled(why) => self.count(why),
            CommitError::Conflict => return Err("a conflict without a second writer".to_owned()),
            other => return Err(format!("unexpected: {other}")),
        }
        self.boot(side)
    }

    /// The process starts (again) from what is stored.
    pub(super) fn boot(&mut self, side: Side) -> Outcome {
        let device = self.device(side);
        device.forget();
        let place = device.place();
        self.disk(side).crashed = false;
        self.position[side as usize] += LEASE;
        let contents = self.disk(side).contents.clone();
        let at_least = contents.known.max(contents.handled);
        if let Some((generation, record)) = &contents.record {
            match DurableRatchet::load(place, &KEY, id_of(side.other()), record, at_least) {
                Ok(ratchet) => {
                    ensure!(*generation >= at_least, "an old copy was loaded");
                    ensure!(ratchet.generation() == *generation, "the generation inside is another one");
                    self.device(side).ratchet = Some(ratchet);
                }
                Err(LoadError::RolledBack { .. }) => {
                    ensure!(*generation < at_least, "a current record was taken for an old copy");
                    self.count("old copy recognised");
                }
                Err(error) => return Err(format!("loading: {error}")),
            }
        }
        self.know(side);
        self.handle_all(side)
    }

    pub(super) fn restore(&mut self, side: Side, nth: u8, record_only: bool) -> Outcome {
        let mut disk = self.disk(side);
        if disk.snapshots.is_empty() || (side == Side::Machine && disk.revoked) {
            return Ok(());
        }
        let snapshot = disk.snapshots[usize::from(nth) % disk.snapshots.len()].clone();
        let before = disk.stored();
        if record_only {
            disk.contents.record = snapshot.record;
        } else {
            disk.contents = snapshot;
        }
        let after = disk.stored();
        drop(disk);
        self.count(if record_only { "restore: the record" } else { "restore: the device" });
        self.restored |= !record_only;
        // Whoever wrote is gone, and so is what it would have known.
        self.device(side).forget();
        self.boot(side)?;
        if let Some(session) = self.device(side).session()
            && (after != before || !record_only)
        {
            self.tainted.insert(session);
            self.copied[side as usize] = true;
            self.count("old copy not recognised");
        }
        Ok(())
    }

    /// A process that came without the lock.
    pub(super) fn second_writer(&mut self, side: Side) -> Outcome {
        let contents = self.disk(side).contents.clone();
        let (Some((_, record)), true) = (contents.record, self.device(side).ratchet.is_some()) else { return Ok(()) };
        self.disk(side).fault = None;
        let place = self.device(side).place();
        let at_least = contents.known.max(contents.handled);
        let mut second = DurableRatchet::load(place, &KEY, id_of(side.other()), &record, at_least)
            .map_err(|error| format!("the second writer: {error}"))?;
        let session = second.session_id();
        if !second.can_send() {
            return Ok(());
        }
        self.count("two writers");
        let mut message = Vec::new();
        second.send_leased(&mut self.rng, b"x", &mut message).map_err(|error| format!("the second writer: {error}"))?;
        // A lease of the first is still good, for no other writer has these numbers.
        let compares = self.disk(side).compares;
        if !compares {
            self.tainted.insert(session);
            self.copied[side as usize] = true;
        }
        let rng = &mut self.rng;
        let Some(first) = &mut self.devices[side as usize].ratchet else { return Ok(()) };
        let number = self.said.len() as u64;
        let texts = [number, number + 1].map(|number| [&[0], &number.to_be_bytes()[..]].concat());
        let mut leased = Vec::new();
        let in_lease = first.send_leased(rng, &texts[0], &mut leased).is_ok();
        let kept = first.send(rng, &texts[1]).map(|kept| kept.bytes().to_vec());
        self.said.extend(texts.map(|text| (side, text)));
        if in_lease {
            self.release(side, session, leased);
        }
        match kept {
            Ok(message) => {
                ensure!(!compares, "two writers have written");
                self.release(side, session, message);
            }
            Err(SendError::Commit(CommitError::Conflict | CommitError::Stale)) => {
                ensure!(compares, "a storage that does not compare found a conflict");
                self.count("second writer found");
            }
            Err(SendError::OutboxFull) => {}
            Err(error) => return Err(format!("the first writer: {error}")),
        }
        // The numbers of both.
        self.position[side as usize] += 2 * LEASE;
        self.boot(side)
    }
}
