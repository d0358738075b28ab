//! The calls that are not about terminals, over real daemons: files, repositories, names, pauses, the log of calls, and who may what.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is how a test speaks, in its helpers too")]

mod audit;
mod files;
mod git;
#[path = "../harness/mod.rs"]
mod harness;
mod roles;
mod steer;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use happy::daemon::socket::{CALLS, put_frame};
use happy_rpc::{Call, CallError, ErrorCode};
use happy_wire::call::CallMessage;
use harness::{Home, PATIENCE};

/// A connection to a daemon, as the command line has one.
pub struct Desk {
    socket: UnixStream,
    asked: u64,
}

impl Desk {
    /// To the machine itself.
    pub fn of(home: &Home) -> Desk {
        Self::to(home, None).unwrap()
    }

    /// To another machine that it is paired with.
    pub fn to(home: &Home, target: Option<&str>) -> Result<Desk, String> {
        let mut socket = UnixStream::connect(home.file("daemon.sock")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let hello = serde_json::json!({ "happy": 1, "target": target });
        let mut frame = Vec::new();
        put_frame(&mut frame, CALLS, &serde_json::to_vec(&hello).unwrap());
        socket.write_all(&frame).unwrap();
        let mut desk = Desk { socket, asked: 0 };
        let (_, greeting) = desk.frame();
        let greeting = String::from_utf8(greeting).unwrap();
        if greeting.starts_with("{\"ok\"") { Ok(desk) } else { Err(greeting) }
    }

    fn frame(&mut self) -> (u32, Vec<u8>) {
        let mut head = [0; 8];
        self.socket.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize - 4;
        let mut message = vec![0; length];
        self.socket.read_exact(&mut message).unwrap();
        (u32::from_be_bytes(head[4..].try_into().unwrap()), message)
    }

    /// The body of the response to a request.
    pub fn exchange(&mut self, body: &[u8]) -> Vec<u8> {
        self.asked += 1;
        let mut frame = Vec::new();
        put_frame(&mut frame, CALLS, &CallMessage::Request { id: self.asked, body }.to_vec());
        self.socket.write_all(&frame).unwrap();
        loop {
            let (channel, message) = self.frame();
            if channel != CALLS {
                continue;
            }
            match CallMessage::decode(&message) {
                Ok(CallMessage::Response { id, body }) if id == self.asked => return body.to_vec(),
                _ => {}
            }
        }
    }

    /// Makes a call.
    pub fn call<C: Call>(&mut self, call: C) -> Result<C::Output, CallError> {
        C::read_answer(&self.exchange(&call.to_body()))
    }

    /// Makes a call that is refused with this code, and gives what was said.
    #[track_caller]
    pub fn refused<C: Call>(&mut self, call: C, code: ErrorCode, words: &[&str]) -> String
    where
        C::Output: std::fmt::Debug,
    {
        let error = self.call(call).unwrap_err();
        assert_eq!(error.code, code, "{}", error.message);
        for word in words {
            assert!(error.message.contains(word), "`{word}` is missing in: {}", error.message);
        }
        error.message
    }
}

/// Content as calls carry it.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// And back.
pub fn unbase64(text: &str) -> Vec<u8> {
    STANDARD.decode(text).unwrap()
}

/// A home whose daemon opens one folder to calls; the folder, without symbolic links.
pub fn with_root() -> (Home, tempfile::TempDir, std::path::PathBuf) {
    let (home, folder) = (Home::new(), tempfile::tempdir().unwrap());
    let root = folder.path().canonicalize().unwrap().join("root");
    std::fs::create_dir(&root).unwrap();
    std::fs::create_dir_all(home.path()).unwrap();
    let settings = serde_json::json!({ "roots": [root] });
    std::fs::write(home.file("settings.json"), settings.to_string()).unwrap();
    home.start();
    (home, folder, root)
}
