//! Who may use the relay: every credential under every policy, and what happens when nobody speaks for a device any more.

use std::time::Duration;

use happy_relay::access::enrolment_key;
use happy_relay::{Access, Config, Enrolment, Policy, Timings};
use happy_wire::Code;
use happy_wire::enrolment::EnrolmentKey;
use happy_wire::relay::{Credential, FromRelay, RendezvousState, ToRelay, login_message};

use crate::harness::{Client, Device, Server, encode};
use crate::rendezvous::hash;

const SECRET: &str = "correct horse battery staple";

fn key() -> EnrolmentKey {
    enrolment_key(SECRET).unwrap()
}

fn config(policy: Policy) -> Config {
    let keys = vec![Enrolment { name: "home".into(), key: key().public() }];
    Config { access: Access { policy, keys }, ..Config::default() }
}

/// What became of a login.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    In,
    Refused(Code),
    /// With a time to come again.
    NotYet(Code),
}

async fn outcome(client: &mut Client) -> Outcome {
    let frame = client.frame().await;
    match FromRelay::decode(&frame) {
        Ok(FromRelay::Welcome { .. }) => Outcome::In,
        Ok(FromRelay::Goaway { code, retry_after_ms: 0, .. }) => Outcome::Refused(code),
        Ok(FromRelay::Goaway { code, .. }) => Outcome::NotYet(code),
        other => panic!("{other:?}"),
    }
}

async fn enrolled(server: &Server, device: &Device) -> Client {
    let mut client = server.connect().await;
    let nonce = client.challenge().await;
    client.raw(&device.enrolled_login(&client.name.clone(), &nonce, &key())).await;
    assert_eq!(outcome(&mut client).await, Outcome::In);
    client.id = Some(device.id());
    client
}

async fn bare(server: &Server, device: &Device) -> (Client, Outcome) {
    let mut client = server.connect().await;
    let nonce = client.challenge().await;
    client.raw(&device.login(&client.name.clone(), &nonce, None)).await;
    let outcome = outcome(&mut client).await;
    (client, outcome)
}

/// What a device may show at the websocket, as it stands in docs/OPERATE.md.
const CREDENTIALS: [&str; 11] = [
    "nothing but its own key",
    "the same, and an enrolled machine names it, or did so when its connection ended less than 24 h ago",
    "an enrolment key of this relay",
    "another enrolment key",
    "the id of the right one and another's signature",
    "an enrolment's signature of another login (replayed)",
    "its own signature of another login (replayed)",
    "signed for another relay",
    "the ticket of an open invitation",
    "the ticket of one that has ended",
    "another ticket",
];

fn login(credential: &str, device: &Device, name: &str, nonce: &[u8; 32]) -> Vec<u8> {
    let wrong = || enrolment_key("another secret of somebody").unwrap();
    let shown = |signature| Credential::Enrolment { key: key().public().id(), signature };
    let signed_by = |key: &EnrolmentKey, nonce: &[u8; 32]| {
        key.sign(&login_message(name, nonce, &device.id(), device.epoch, &[9; 16], &shown([0; 64])))
    };
    match CREDENTIALS.iter().position(|known| *known == credential).unwrap() {
        0 | 1 => device.login(name, nonce, None),
        2 => device.enrolled_login(name, nonce, &key()),
        3 => device.enrolled_login(name, nonce, &wrong()),
        4 => device.login_with(name, nonce, shown(signed_by(&wrong(), nonce))),
        5 => device.login_with(name, nonce, shown(signed_by(&key(), &[1; 32]))),
        6 => device.login(name, &[1; 32], None),
        7 => device.enrolled_login("elsewhere.example", nonce, &key()),
        8 => device.login(name, nonce, Some([5; 32])),
        9 => device.login(name, nonce, Some([6; 32])),
        _ => device.login(name, nonce, Some([3; 32])),
    }
}

#[tokio::test]
async fn logins_end_for_each_credential_under_each_policy_as_the_operators_page_says() {
    let mut servers = Vec::new();
    for policy in [Policy::Open, Policy::Enrolled, Policy::Vouched] {
        let server = Server::with(config(policy)).await;
        let mut machine = enrolled(&server, &Device::new(7)).await;
        machine.name(&[Device::new(101).id()]).await;
        for ticket in [[5; 32], [6; 32]] {
            let open = ToRelay::OpenRendezvous { ticket_hash: hash(ticket), seconds: 60 };
            machine.tell(open).await;
            machine.expect(FromRelay::Rendezvous { ticket_hash: hash(ticket), state: RendezvousState::Open }).await;
        }
        machine.tell(ToRelay::CloseRendezvous { ticket_hash: hash([6; 32]) }).await;
        machine.expect(FromRelay::Rendezvous { ticket_hash: hash([6; 32]), state: RendezvousState::Ended }).await;
        servers.push((server, machine));
    }
    let mut table = String::from("| login | `open` | `enrolled` | `vouched` |\n|---|---|---|---|\n");
    for (n, credential) in CREDENTIALS.iter().enumerate() {
        table.push_str(&format!("| {credential} |"));
        for (server, machine) in &servers {
            let device = Device::new(100 + n as u64);
            let mut client = server.connect().await;
            let (nonce, name) = (client.challenge().await, client.name.clone());
            client.raw(&login(credential, &device, &name, &nonce)).await;
            let frame = client.frame().await;
            let cell = match FromRelay::decode(&frame) {
                Ok(FromRelay::Welcome { host: None, .. }) => "admitted".to_owned(),
                Ok(FromRelay::Welcome { host, .. }) if host == machine.id => "admitted to its host only".to_owned(),
                Ok(FromRelay::Goaway { code, retry_after_ms: 0, .. }) => code.0.to_string(),
                Ok(FromRelay::Goaway { code, retry_after_ms, .. }) => {
                    format!("{}, come again in {} s", code.0, retry_after_ms / 1_000)
                }
                other => panic!("{credential}: {other:?}"),
            };
            table.push_str(&format!(" {cell} |"));
        }
        table.push('\n');
    }
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/OPERATE.md")).unwrap();
    assert!(page.contains(&table), "docs/OPERATE.md does not say:\n{table}");
}

#[tokio::test]
async fn a_signature_of_the_device_covers_what_it_shows() {
    let server = Server::with(config(Policy::Enrolled)).await;
    // A login without a credential, to which somebody adds an enrolment of their own.
    let device = Device::new(1);
    let mut client = server.connect().await;
    let (nonce, name) = (client.challenge().await, client.name.clone());
    let bare = device.login(&name, &nonce, None);
    let shown = Credential::Enrolment { key: key().public().id(), signature: [0; 64] };
    let message = login_message(&name, &nonce, &device.id(), 1, &[9; 16], &shown);
    let signature: [u8; 64] = bare[bare.len() - 64..].try_into().unwrap();
    let credential = Credential::Enrolment { key: key().public().id(), signature: key().sign(&message) };
    let grafted =
        encode(&ToRelay::Login { device: device.id(), epoch: 1, client_nonce: [9; 16], credential, signature });
    client.raw(&grafted).await;
    assert_eq!(outcome(&mut client).await, Outcome::Refused(Code::LOGIN_REFUSED));
}

#[tokio::test]
async fn a_machine_speaks_for_its_phones_while_it_names_them() {
    let server = Server::with(Config {
        timings: Timings { vouch: Duration::from_millis(50), ..Timings::default() },
        ..config(Policy::Vouched)
    })
    .await;
    let (machine, phone, stranger) = (Device::new(1), Device::new(2), Device::new(3));
    assert_eq!(bare(&server, &phone).await.1, Outcome::NotYet(Code::NOT_PERMITTED), "its machine has not come yet");

    let mut at_machine = enrolled(&server, &machine).await;
    at_machine.name(&[phone.id()]).await;
    let (mut at_phone, outcome) = bare(&server, &phone).await;
    assert_eq!(outcome, Outcome::In);
    assert_eq!(bare(&server, &stranger).await.1, Outcome::NotYet(Code::NOT_PERMITTED));

    // Who was let in by vouching speaks for nobody.
    at_phone.name(&[stranger.id()]).await;
    assert_eq!(bare(&server, &stranger).await.1, Outcome::NotYet(Code::NOT_PERMITTED));

    // The machine goes: the phone stays, and may come again.
    drop(at_machine);
    at_phone.barrier().await;
    drop(at_phone);
    let (mut at_phone, outcome) = bare(&server, &phone).await;
    assert_eq!(outcome, Outcome::In);

    // It comes back and does not name it any more: the phone is out.
    let mut later = Device::new(1);
    later.epoch = 2;
    let mut at_machine = enrolled(&server, &later).await;
    at_machine.name(&[phone.id()]).await;
    at_machine.name(&[]).await;
    let (code, retry_after_ms) = at_phone.goaway().await;
    assert_eq!(code, Code::NOT_PERMITTED);
    assert!(retry_after_ms > 0);
    assert_eq!(bare(&server, &phone).await.1, Outcome::NotYet(Code::NOT_PERMITTED));
    assert_eq!(server.metric("unvouched_total"), 1);
    server.balances().await;
}

#[tokio::test]
async fn a_guest_is_admitted_to_its_host_whatever_the_policy() {
    let server = Server::with(config(Policy::Vouched)).await;
    let mut host = enrolled(&server, &Device::new(1)).await;
    let ticket = [5; 32];
    let ticket_hash = hash(ticket);
    host.tell(ToRelay::OpenRendezvous { ticket_hash, seconds: 60 }).await;
    host.expect(FromRelay::Rendezvous { ticket_hash, state: RendezvousState::Open }).await;
    let mut guest = server.connect().await;
    assert_eq!(guest.log_in(&Device::new(2), Some(ticket)).await, Some(Device::new(1).id()));
}
