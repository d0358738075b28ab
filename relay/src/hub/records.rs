//! What the hub does with machine records and tokens (`PROTOCOL 7`): it asks the bus, and tells those who may read.

use happy_crypto::DeviceId;
use tokio::time::Instant;

use super::Hub;
use crate::bus::{Apart, Message};
use crate::changes::Watching;
use crate::mailbox::Mailbox;
use crate::pauses::TooSoon;
use crate::records::{Known, NewRecord, Put, Record};
use crate::token::{self, Bearer, Token, TokenError};

impl Hub {
    /// Keeps a record of a machine that is connected here and tells those who may read it.
    pub(crate) async fn put_record(&self, machine: &Mailbox, kind: u8, record: Record) -> Result<Put, TooSoon> {
        let readers = {
            let mut state = machine.lock();
            if !state.is_live() {
                return Ok(Put::Refused);
            }
            state.begin_put();
            state.named()
        };
        let new = NewRecord { machine: machine.device, kind, record, readers: Some(readers) };
        let put = self.store_record(new).await?;
        let is_first = matches!(put, Put::Stored { is_first: true, .. });
        if machine.lock().end_put(&machine.device, kind, is_first) {
            machine.wake();
        }
        Ok(put)
    }

    /// The same for a machine that came over REST, and may be connected anywhere or nowhere.
    pub(crate) async fn put_record_of(&self, machine: &DeviceId, kind: u8, record: Record) -> Result<Put, TooSoon> {
        match self.find(machine) {
            Some(connected) => self.put_record(&connected, kind, record).await,
            None => self.store_record(NewRecord { machine: *machine, kind, record, readers: None }).await,
        }
    }

    /// Where all ways to put a record meet, and so where a machine that puts too many is stopped.
    async fn store_record(&self, new: NewRecord) -> Result<Put, TooSoon> {
        let (machine, kind) = (new.machine, new.kind);
        self.pauses.take(&machine, Instant::now())?;
        let put = self.bus.put_record(new).await;
        self.metrics.record_put(&put);
        if let Put::Stored { readers, .. } = &put {
            self.tell_changed(&machine, readers, 1 << (kind - 1));
        }
        Ok(put)
    }

    fn tell_changed(&self, machine: &DeviceId, readers: &[DeviceId], kinds: u8) {
        self.watched.tell(machine);
        // A machine has streams about itself, too; its websocket is told nothing, since it does not name itself.
        for reader in readers.iter().chain([machine]) {
            match self.find(reader) {
                Some(reader) => self.tell_changed_here(machine, &reader, kinds),
                None => {
                    let message = Message::Changed { machine: *machine, to: *reader, kinds };
                    // Who is away asks when it is back.
                    let _ = self.bus.post(reader, message);
                }
            }
        }
    }

    /// `PROTOCOL 7`: told only to a device that names the machine, too.
    pub(super) fn tell_changed_here(&self, machine: &DeviceId, reader: &Mailbox, kinds: u8) {
        let first = reader.lock().tell_changed(machine, kinds);
        if first {
            reader.wake();
        }
    }

    /// Its records were lost, if it has put any before `asked`.
    pub(super) fn tell_lost(&self, machine: &DeviceId, asked: Option<Instant>) {
        if let Some(machine) = self.find(machine) {
            machine.lock().tell_lost(&machine.device, asked);
            machine.wake();
        }
    }

    /// Tells a stream of changes from now on.
    pub(crate) fn watch(&self, machines: &[DeviceId]) -> Watching {
        self.watched.watch(machines)
    }

    /// Whether this node hears of every change that a device may read: it is told where the device is connected.
    pub(crate) fn hears_for(&self, reader: &DeviceId) -> bool {
        self.alone || self.find(reader).is_some()
    }

    /// A sign of life of a machine that has put records.
    pub(crate) fn alive(&self, machine: &DeviceId) {
        self.bus.alive(machine);
    }

    pub(crate) async fn known(&self, machine: &DeviceId, reader: &DeviceId) -> Result<Option<Known>, Apart> {
        self.bus.known(machine, reader).await
    }

    pub(crate) fn sign_token(&self, relay: &str, device: &DeviceId) -> Token {
        self.signer.sign(&self.bus.node(), relay, device)
    }

    /// Whom a token speaks for. None when its node cannot be asked about now.
    pub(crate) async fn bearer(&self, text: &str, names: &[String]) -> Result<Result<Bearer, TokenError>, Apart> {
        let unverified = match token::read(text) {
            Ok(unverified) => unverified,
            Err(error) => return Ok(Err(error)),
        };
        let key = match unverified.node == self.bus.node() {
            true => Some(self.signer.public()),
            false => self.bus.token_key(&unverified.node).await?,
        };
        Ok(key.ok_or(TokenError::Invalid).and_then(|key| unverified.verify(&key, names)))
    }
}
