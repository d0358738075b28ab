//! Where a connection's requests for records and tokens are answered (`PROTOCOL 7`): one at a time and in their order,
//! beside the frames, since an answer may take a round trip to Redis.

use std::sync::Arc;

use bytes::Bytes;
use happy_crypto::DeviceId;
use happy_wire::relay::{FromRelay, MAX_REQUESTS, RecordAnswer};
use tokio::sync::mpsc;

use crate::hub::Hub;
use crate::mailbox::Mailbox;
use crate::pauses::TooSoon;
use crate::records::{self, Put, Record};

/// What a device asks for.
pub(crate) enum Request {
    Put { kind: u8, version: u64, sealed: Bytes },
    Get { machine: DeviceId, kind: u8 },
    Token,
}

/// The requests of one connection that wait. Nothing is set up before the first of them.
#[derive(Default)]
pub(crate) struct Desk(Option<mpsc::Sender<Request>>);

impl Desk {
    /// Takes a request; one too many is refused at once. `relay` is the name under which the device has logged in.
    pub(crate) fn take(&mut self, hub: &Arc<Hub>, mailbox: &Arc<Mailbox>, relay: &str, request: Request) {
        let sender = self.0.get_or_insert_with(|| {
            // One request is being answered while the others wait.
            let (sender, receiver) = mpsc::channel(MAX_REQUESTS - 1);
            tokio::spawn(answer_all(hub.clone(), mailbox.clone(), relay.to_owned(), receiver));
            sender
        });
        if let Err(full) = sender.try_send(request) {
            refuse(mailbox, &full.into_inner());
        }
    }
}

fn refuse(mailbox: &Mailbox, request: &Request) {
    match request {
        Request::Put { kind, .. } => mailbox.notify(&refused(mailbox.device, *kind)),
        Request::Get { machine, kind } => mailbox.notify(&refused(*machine, *kind)),
        Request::Token => mailbox.notify(&FromRelay::Token { expires: 0, token: "" }),
    }
}

fn refused(machine: DeviceId, kind: u8) -> FromRelay<'static> {
    FromRelay::Record { machine, kind, answer: RecordAnswer::Refused, last_seen: 0, version: 0, sealed: &[] }
}

/// Until the connection ends.
async fn answer_all(hub: Arc<Hub>, mailbox: Arc<Mailbox>, relay: String, mut requests: mpsc::Receiver<Request>) {
    while let Some(request) = requests.recv().await {
        if mailbox.host.is_some() {
            // A guest is here to pair and for nothing else.
            refuse(&mailbox, &request);
            continue;
        }
        match request {
            Request::Put { kind, version, sealed } => put(&hub, &mailbox, kind, Record { version, sealed }).await,
            Request::Get { machine, kind } => get(&hub, &mailbox, machine, kind).await,
            Request::Token => {
                let token = hub.sign_token(&relay, &mailbox.device);
                mailbox.notify(&FromRelay::Token { expires: token.expires, token: &token.text });
            }
        }
    }
}

async fn put(hub: &Hub, mailbox: &Mailbox, kind: u8, record: Record) {
    let (version, sealed) = (record.version, record.sealed.clone());
    let put = loop {
        match hub.put_record(mailbox, kind, record.clone()).await {
            Ok(put) => break put,
            // Its other requests wait behind it, and a fifth is refused.
            Err(TooSoon(wait)) => tokio::time::sleep(wait).await,
        }
    };
    let (answer, version, sealed) = match put {
        Put::Stored { .. } | Put::Same => (RecordAnswer::Stored, version, sealed),
        Put::Conflict(there) => (RecordAnswer::Conflict, there.version, there.sealed),
        Put::Refused => return mailbox.notify(&refused(mailbox.device, kind)),
    };
    let machine = mailbox.device;
    mailbox.notify(&FromRelay::Record {
        machine,
        kind,
        answer,
        last_seen: records::unix_ms(),
        version,
        sealed: &sealed,
    });
}

async fn get(hub: &Hub, mailbox: &Mailbox, machine: DeviceId, kind: u8) {
    let (Some(place), Ok(known)) = (records::place(kind), hub.known(&machine, &mailbox.device).await) else {
        return mailbox.notify(&refused(machine, kind));
    };
    let mut known = known.unwrap_or_default();
    let record = known.records[place].take();
    let (version, sealed) = record.map_or((0, Bytes::new()), |record| (record.version, record.sealed));
    mailbox.notify(&FromRelay::Record {
        machine,
        kind,
        answer: RecordAnswer::Asked,
        last_seen: known.last_seen,
        version,
        sealed: &sealed,
    });
}
