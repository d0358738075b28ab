//! The local API (`docs/LOCAL.md`): what the person at this machine can do, over HTTP, for programs and for the dashboard.
//!
//! | module | what it is |
//! |---|---|
//! | [`connection`] | sockets, and how many of whom |
//! | [`guard`] | what is checked of every request: names, origins, the token |
//! | [`keys`], [`login`] | what opens it |
//! | [`routes`], [`refusal`] | the operations, and the document that describes them |
//! | [`term`], [`events`] | a terminal on a websocket; what happens, as it happens |
//! | [`figures`] | for Prometheus |

pub mod connection;
pub mod events;
pub mod figures;
pub mod guard;
pub mod keys;
pub mod login;
pub mod refusal;
pub mod routes;
pub mod term;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use happy_relay::EmbeddedApp;
use happy_rpc::{CallError, ErrorCode};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};

use crate::api::connection::{Door, Places};
use crate::api::figures::Figures;
use crate::api::keys::{INVITATION_LIFE, Keys};
use crate::daemon::local::DashboardAddress;
use crate::daemon::{Daemon, relay};
use crate::service::{Caller, Line, Who};
use crate::store::{Home, Password};
use crate::trouble::{Trouble, reason};

/// What all requests share.
pub struct Api {
    daemon: Arc<Daemon>,
    /// The person at this machine, as whom everybody with the token calls.
    caller: Arc<Caller>,
    keys: Arc<Keys>,
    /// What a `Host` may be.
    names: Vec<String>,
    app: EmbeddedApp,
    places: Places,
    figures: Figures,
    /// Whose turn it is to have a password checked.
    guessing: Arc<Semaphore>,
}

/// Where it is to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// This machine only, unless a person has chosen another address.
    pub listen: IpAddr,
    /// 0 for any free one.
    pub port: u16,
    /// More names under which it may be reached.
    pub names: Vec<String>,
}

/// What sets the password.
pub const SET_PASSWORD: &str = "happy dashboard --set-password";

/// A listener that nobody is served at yet.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    names: Vec<String>,
    door: Door,
    keys: Arc<Keys>,
}

/// What the daemon knows of its API.
#[derive(Clone)]
pub struct Doorbell {
    /// The port that it has.
    pub port: u16,
    listen: IpAddr,
    keys: Arc<Keys>,
}

impl Bound {
    /// Takes the port, and reads or makes the token.
    ///
    /// # Errors
    /// When another program has the port, when the token cannot be used, or when it is to be reached from elsewhere without a password.
    pub async fn open(home: &Home, wanted: &Wanted) -> Result<Bound, Trouble> {
        let is_local = wanted.listen.is_loopback();
        if !is_local && Password::open(&home.dashboard_password())?.is_none() {
            return Err(Trouble::new(
                format!("The local API does not listen at {} without a password.", wanted.listen),
                format!("Set one with `{SET_PASSWORD}`, or take `api_listen` out of settings.json."),
            ));
        }
        let tls = match is_local {
            true => None,
            false => Some(relay::tls(home)?),
        };
        let listener = bind(wanted).await?;
        // Not before the port is ours.
        let keys = Arc::new(Keys::new(&home.api_token())?);
        let address = listener.local_addr().map_err(|error| cannot_listen(wanted, &error))?;
        let names = names(wanted, address.port());
        Ok(Bound { listener, address, names, door: Door { tls }, keys })
    }

    /// For whoever wants to be let in.
    pub fn doorbell(&self) -> Doorbell {
        Doorbell { port: self.address.port(), listen: self.address.ip(), keys: self.keys.clone() }
    }

    /// Serves until the task is dropped.
    pub async fn serve(self, daemon: Arc<Daemon>) {
        // Answers are waited for where they are asked for; nothing comes over this line.
        let line = Line::Local(mpsc::channel(1).0);
        let api = Arc::new(Api {
            caller: Caller::new(daemon.clone(), Who::Local, line),
            daemon,
            keys: self.keys,
            names: self.names,
            app: EmbeddedApp::new(),
            places: Places::default(),
            figures: Figures::default(),
            guessing: Arc::new(Semaphore::new(1)),
        });
        connection::serve(self.listener, self.door, api.places.clone(), routes::router(api)).await;
    }
}

impl Doorbell {
    /// The address that it listens at, when other machines reach it there.
    pub fn beyond(&self) -> Option<IpAddr> {
        (!self.listen.is_loopback()).then_some(self.listen)
    }

    /// An address that lets one browser in, once.
    pub fn dashboard(&self) -> DashboardAddress {
        let secret = self.keys.invite(Instant::now());
        // Behind the `#` a browser keeps it to itself.
        let link = format!("http://127.0.0.1:{}{}#login={}", self.port, routes::DASHBOARD, *secret);
        DashboardAddress { link, seconds_left: INVITATION_LIFE.as_secs() }
    }
}

/// What `happy dashboard` is told when there is no API.
pub fn is_off(trouble: Option<&str>) -> CallError {
    let why = trouble.unwrap_or("It is switched off, by `--no-api` or by `\"api\": false` in settings.json.");
    CallError::new(ErrorCode::Conflict, format!("the local API does not run. {why}"))
}

async fn bind(wanted: &Wanted) -> Result<TcpListener, Trouble> {
    let address = SocketAddr::new(wanted.listen, wanted.port);
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Trouble::new(
            format!("The port {} of the local API is used by another program.", wanted.port),
            "Choose another with `--api-port PORT` of `happy up` or `happy daemon start` (0 for any free one), or `api_port` in settings.json.",
        ),
        _ => cannot_listen(wanted, &error),
    })
}

fn cannot_listen(wanted: &Wanted, error: &std::io::Error) -> Trouble {
    Trouble::new(
        format!("The local API cannot listen at {}:{}: {}.", wanted.listen, wanted.port, reason(error)),
        "Choose another port with `--api-port PORT` (0 for any free one).",
    )
}

/// What a `Host` may be, each to the letter.
fn names(wanted: &Wanted, port: u16) -> Vec<String> {
    let mut hosts: Vec<String> = ["127.0.0.1", "localhost", "[::1]"].map(str::to_owned).into();
    match wanted.listen {
        address if address.is_loopback() => {}
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => hosts.extend(relay::addresses().iter().map(ToString::to_string)),
        IpAddr::V4(address) => hosts.push(address.to_string()),
        IpAddr::V6(address) => hosts.push(format!("[{address}]")),
    }
    let with_port = |host: String| format!("{host}:{port}");
    let chosen = wanted.names.iter().map(|name| match name.rsplit_once(':') {
        Some((_, given)) if given.parse::<u16>().is_ok() => name.clone(),
        _ => with_port(name.clone()),
    });
    hosts.into_iter().map(with_port).chain(chosen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_to_its_own_names_with_its_port() {
        let wanted = |listen: &str, names: &[&str]| Wanted {
            listen: listen.parse().unwrap(),
            port: 0,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let here = ["127.0.0.1:7", "localhost:7", "[::1]:7"];
        assert_eq!(names(&wanted("127.0.0.1", &[]), 7), here);
        let named = names(&wanted("192.0.2.5", &["box", "box.example:443"]), 7);
        assert_eq!(named[3..], ["192.0.2.5:7", "box:7", "box.example:443"]);
        assert_eq!(names(&wanted("2001:db8::1", &[]), 7)[3..], ["[2001:db8::1]:7"]);
    }

    #[tokio::test]
    async fn nobody_listens_beyond_this_machine_without_a_password() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().to_owned()).unwrap();
        home.prepare().unwrap();
        let wanted = Wanted { listen: Ipv4Addr::UNSPECIFIED.into(), port: 0, names: Vec::new() };
        let trouble = Bound::open(&home, &wanted).await.err().unwrap();
        assert!(trouble.what.contains("password") && trouble.todo.contains("--set-password"), "{trouble}");
        Password::set(&home.dashboard_password(), "correct horse").unwrap();
        let bound = Bound::open(&home, &wanted).await.unwrap();
        assert!(bound.door.tls.is_some() && bound.names.len() >= 3);
    }
}
