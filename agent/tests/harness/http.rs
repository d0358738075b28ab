//! HTTP as bytes, so that a test can send what no client would.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use super::{Home, PATIENCE};

/// What was answered.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The code of a refusal, after its status.
    #[track_caller]
    pub fn refusal(&self) -> (u16, String) {
        (self.status, self.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (given, value) = line.split_once(':')?;
            given.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// The local API of a home's daemon.
#[derive(Debug, Clone)]
pub struct Http {
    pub port: u16,
    pub token: String,
}

impl Http {
    #[track_caller]
    pub fn of(home: &Home) -> Http {
        let port = home.json(&["daemon", "status"])["api_port"].as_u64().unwrap() as u16;
        let token = super::read(&home.file("api.token")).trim_end().to_owned();
        Http { port, token }
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends bytes as they are, and gives what comes until the other side ends it; none when it does so without a word.
    pub fn raw(&self, bytes: &[u8]) -> Option<Answer> {
        let mut stream = self.connect();
        // It may answer and hang up before it has read everything.
        let _ = stream.write_all(bytes);
        read_answer(&mut stream)
    }

    /// A request with these lines in its head, besides those that every request has.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, lines: &[(&str, &str)], body: &str) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !lines.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("Host: {}\r\n", self.host()));
        }
        for (name, value) in lines {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        let bytes = format!("{head}\r\n{body}");
        self.raw(bytes.as_bytes()).unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    /// With the token.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[("Authorization", &self.bearer())], "")
    }

    /// With the token.
    #[track_caller]
    pub fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[("Authorization", &self.bearer())], "")
    }

    /// With the token, as JSON.
    #[track_caller]
    pub fn post(&self, path: &str, body: &serde_json::Value) -> Answer {
        let lines = [("Authorization", &*self.bearer()), ("Content-Type", "application/json")];
        self.send("POST", path, &lines, &body.to_string())
    }

    /// A stream of events from now on.
    #[track_caller]
    pub fn events(&self, last: Option<&str>) -> Events {
        let mut stream = self.connect();
        let last = last.map(|last| format!("Last-Event-ID: {last}\r\n")).unwrap_or_default();
        write!(
            stream,
            "GET /events HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\n{last}\r\n",
            self.host(),
            self.bearer()
        )
        .unwrap();
        let mut events = Events { stream, seen: String::new() };
        assert!(events.until("\n\n").starts_with("HTTP/1.1 200"), "{}", events.seen);
        events
    }
}

/// A stream of events, as it comes.
pub struct Events {
    stream: TcpStream,
    seen: String,
}

impl Events {
    /// Waits until there is something, and gives everything until then.
    #[track_caller]
    pub fn until(&mut self, what: &str) -> String {
        let mut chunk = [0; 4096];
        loop {
            if let Some(at) = self.seen.find(what) {
                let rest = self.seen.split_off(at + what.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let n =
                self.stream.read(&mut chunk).unwrap_or_else(|error| panic!("{error}, {what} is not in {}", self.seen));
            assert_ne!(n, 0, "the stream has ended, {what} is not in {}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&chunk[..n]));
        }
    }
}

/// Reads an answer; only its head when it is one that goes on.
pub fn read_answer(stream: &mut TcpStream) -> Option<Answer> {
    let (mut seen, mut chunk) = (Vec::new(), [0; 16 * 1024]);
    let mut head_end = None;
    loop {
        let n = stream.read(&mut chunk).unwrap_or(0);
        seen.extend_from_slice(&chunk[..n]);
        head_end = head_end.or_else(|| seen.windows(4).position(|four| four == b"\r\n\r\n"));
        let is_endless = head_end.is_some_and(|end| {
            let head = String::from_utf8_lossy(&seen[..end]).to_ascii_lowercase();
            head.starts_with("http/1.1 101") || head.contains("text/event-stream")
        });
        let is_whole = head_end.is_some_and(|end| {
            let head = String::from_utf8_lossy(&seen[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            length.is_some_and(|length: usize| seen.len() >= end + 4 + length)
        });
        if n == 0 || is_endless || is_whole {
            break;
        }
    }
    let end = head_end?;
    let head = String::from_utf8_lossy(&seen[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head, body: seen[end + 4..].to_vec() })
}

/// A moment between two looks at something.
pub fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}
