//! Logins on their way from the directory to their seat (`PROTOCOL 15`).
//!
//! Between these two a login is nowhere that another node could find it: what is said of it meanwhile is remembered, and it comes to an
//! end of its own although nobody may wait for it any more.

use std::collections::HashMap;
use std::sync::Arc;

use happy_crypto::DeviceId;
use parking_lot::Mutex;

use super::{Counted, Hub, Seat};
use crate::bus::{Claim, Login};
use crate::login::Refusal;
use crate::mailbox::Mailbox;

/// The devices of which a login is under way. There are no more than sockets without a proven device, and those that were cut within the last second.
#[derive(Default)]
pub(super) struct Coming(Mutex<HashMap<DeviceId, Logins>>);

#[derive(Default)]
struct Logins {
    count: usize,
    /// The newest of which another node has said that it displaces older ones.
    newest: Option<Login>,
}

impl Coming {
    fn begin(&self, device: DeviceId) -> UnderWay<'_> {
        self.0.lock().entry(device).or_default().count += 1;
        UnderWay { coming: self, device }
    }

    /// A newer login of a device was accepted at another node.
    pub(super) fn displaced(&self, device: &DeviceId, by: Login) {
        if let Some(logins) = self.0.lock().get_mut(device) {
            logins.newest = logins.newest.max(Some(by));
        }
    }

    /// Whether a login that is under way is not the newest of its device any more.
    pub(super) fn is_displaced(&self, device: &DeviceId, login: Login) -> bool {
        self.0.lock().get(device).is_some_and(|logins| logins.newest > Some(login))
    }
}

/// A login that is under way until this is dropped.
struct UnderWay<'a> {
    coming: &'a Coming,
    device: DeviceId,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut devices = self.coming.0.lock();
        if let Some(logins) = devices.get_mut(&self.device) {
            logins.count -= 1;
            if logins.count == 0 {
                devices.remove(&self.device);
            }
        }
    }
}

impl Hub {
    /// Enters a login in the directory and seats it. Once it is claimed it has displaced the older one, so it is not left halfway when its
    /// connection ends meanwhile: it is seated, and the seat given up like any other.
    pub(super) async fn seat(self: &Arc<Self>, mailbox: Arc<Mailbox>, counted: Counted) -> Result<Seat, Refusal> {
        let hub = self.clone();
        let seated = tokio::spawn(async move {
            hub.claim_and_register(&mailbox).await?;
            Ok(Seat { hub, mailbox, _counted: counted })
        });
        // The task is ended by nobody but a runtime that shuts down.
        seated.await.unwrap_or(Err(Refusal::CLOSING))
    }

    async fn claim_and_register(&self, mailbox: &Arc<Mailbox>) -> Result<(), Refusal> {
        let _under_way = self.coming.begin(mailbox.device);
        if self.bus.claim(&mailbox.device, mailbox.login).await == Claim::Newer {
            return Err(Refusal::OLDER);
        }
        self.register(mailbox).inspect_err(|_| {
            // The directory said that the device is ours under this login; nobody else would strike it out.
            self.bus.release(&mailbox.device, mailbox.login);
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use happy_wire::relay::{Credential, LOGIN_LABEL, ToRelay, login_message};
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;
    use tokio::sync::{Notify, Semaphore};

    use super::*;
    use crate::access::Vouching;
    use crate::bus::{Answer, Apart, Bus, Inbox, MemoryBus, Message, NodeId, Unsent};
    use crate::config::Config;
    use crate::login::Proven;
    use crate::records::{Known, NewRecord, Put};

    /// A bus that enters a login and takes its time to say so.
    struct Slow {
        bus: MemoryBus,
        /// A login has been entered.
        entered: Notify,
        /// So many may be told.
        told: Semaphore,
    }

    impl Slow {
        fn new(bus: MemoryBus) -> Arc<Self> {
            Arc::new(Self { bus, entered: Notify::new(), told: Semaphore::new(0) })
        }
    }

    impl Bus for Slow {
        fn claim<'a>(&'a self, device: &'a DeviceId, login: Login) -> Answer<'a, Claim> {
            let claim = self.bus.claim(device, login);
            Box::pin(async move {
                self.entered.notify_one();
                self.told.acquire().await.unwrap().forget();
                claim.await
            })
        }

        fn join(&self, inbox: Weak<dyn Inbox>, token_key: [u8; 32]) {
            self.bus.join(inbox, token_key);
        }

        fn node(&self) -> String {
            self.bus.node()
        }

        fn id(&self) -> NodeId {
            self.bus.id()
        }

        fn open_ticket<'a>(&'a self, host: &'a DeviceId, hash: &'a [u8; 32], seconds: u64) -> Answer<'a, bool> {
            self.bus.open_ticket(host, hash, seconds)
        }

        fn keep_ticket(&self, host: &DeviceId, hash: &[u8; 32], seconds: u64) {
            self.bus.keep_ticket(host, hash, seconds);
        }

        fn close_ticket(&self, hash: &[u8; 32]) {
            self.bus.close_ticket(hash);
        }

        fn ticket<'a>(&'a self, hash: &'a [u8; 32]) -> Answer<'a, Result<Option<NodeId>, Apart>> {
            self.bus.ticket(hash)
        }

        fn post_to(&self, node: NodeId, message: Message) -> Result<(), Unsent> {
            self.bus.post_to(node, message)
        }

        fn token_key<'a>(&'a self, node: &'a str) -> Answer<'a, Result<Option<[u8; 32]>, Apart>> {
            self.bus.token_key(node)
        }

        fn release(&self, device: &DeviceId, login: Login) {
            self.bus.release(device, login);
        }

        fn post(&self, device: &DeviceId, message: Message) -> Result<(), Unsent> {
            self.bus.post(device, message)
        }

        fn vouch(&self, by: &DeviceId, login: Login, vouching: Vouching<'_>) {
            self.bus.vouch(by, login, vouching);
        }

        fn vouched<'a>(&'a self, device: &'a DeviceId) -> Answer<'a, Option<bool>> {
            self.bus.vouched(device)
        }

        fn put_record(&self, new: NewRecord) -> Answer<'_, Put> {
            self.bus.put_record(new)
        }

        fn known<'a>(
            &'a self,
            machine: &'a DeviceId,
            reader: &'a DeviceId,
        ) -> Answer<'a, Result<Option<Known>, Apart>> {
            self.bus.known(machine, reader)
        }

        fn read_by(&self, machine: &DeviceId, readers: &[DeviceId]) {
            self.bus.read_by(machine, readers);
        }

        fn alive(&self, machine: &DeviceId) {
            self.bus.alive(machine);
        }
    }

    fn hub(bus: Arc<dyn Bus>) -> Arc<Hub> {
        Hub::of_a_test(&Config { bus: Some(bus), ..Config::default() })
    }

    /// One device, by its epoch.
    fn proven(epoch: u64) -> Proven {
        let identity = happy_crypto::Identity::generate(&mut ChaCha20Rng::seed_from_u64(1));
        let device = identity.device_id();
        let message = login_message("relay.example", &[0; 32], &device, epoch, &[0; 16], &Credential::None);
        let signature = identity.sign(LOGIN_LABEL, &message);
        let login = ToRelay::Login { device, epoch, client_nonce: [0; 16], credential: Credential::None, signature };
        let mut frame = Vec::new();
        login.encode(&mut frame);
        let names = ["relay.example".into()];
        crate::login::check(&crate::Access::default(), || Ok(()), &names, &[0; 32], &frame).ok().unwrap()
    }

    #[tokio::test]
    async fn a_login_that_is_displaced_before_it_has_its_seat_gets_none() {
        let medium = MemoryBus::default();
        let slow = Slow::new(medium.another());
        let (left, right) = (hub(slow.clone()), hub(Arc::new(medium)));
        let older = tokio::spawn({
            let left = left.clone();
            async move { left.enter(&proven(1)).await.err() }
        });
        slow.entered.notified().await;
        let newer = right.enter(&proven(2)).await.ok().unwrap();
        slow.told.add_permits(1);
        assert_eq!(older.await.unwrap(), Some(Refusal::OLDER));
        assert!(newer.mailbox.lock().is_live());
        assert_eq!((left.connections(), left.coming.0.lock().len()), (0, 0));
    }

    /// Its socket made room for another one, or its time was over.
    #[tokio::test]
    async fn a_login_that_nobody_waits_for_any_more_leaves_nothing_in_the_directory() {
        let medium = MemoryBus::default();
        let slow = Slow::new(medium.another());
        let (left, right) = (hub(slow.clone()), hub(Arc::new(medium.clone())));
        let older = right.enter(&proven(1)).await.ok().unwrap();
        let login = tokio::spawn({
            let left = left.clone();
            async move { left.enter(&proven(2)).await.err() }
        });
        slow.entered.notified().await;
        login.abort();
        assert!(login.await.is_err_and(|error| error.is_cancelled()));
        slow.told.add_permits(1);
        let given_up = async {
            while left.connections() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), given_up).await.unwrap();
        let device = older.mailbox.device;
        assert!(!older.mailbox.lock().is_live(), "the newer was accepted");
        let by = Login { epoch: 0, number: 0 };
        let third = medium.another();
        assert_eq!(third.post(&device, Message::Displaced { device, by }), Err(Unsent::Nowhere));
        assert!(left.coming.0.lock().is_empty());
    }
}
