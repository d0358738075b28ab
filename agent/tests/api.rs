//! The local API, attacked: by web pages, by other users of the machine, by what never ends.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is how a test speaks, in its helpers too")]

mod harness;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::http::{Http, pause, read_answer};
use harness::{Home, PATIENCE};
use serde_json::json;

fn started() -> (Home, Http) {
    let home = Home::new();
    home.start();
    let http = Http::of(&home);
    (home, http)
}

/// Everything that needs the token.
const GUARDED: &[(&str, &str)] = &[
    ("GET", "/sessions"),
    ("POST", "/sessions"),
    ("GET", "/sessions/00000000-0000-4000-8000-000000000000"),
    ("DELETE", "/sessions/00000000-0000-4000-8000-000000000000"),
    ("GET", "/sessions/00000000-0000-4000-8000-000000000000/term"),
    ("GET", "/machine"),
    ("GET", "/devices"),
    ("GET", "/events"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("DELETE", "/login"),
];

#[test]
fn sessions_are_begun_seen_and_ended() {
    let (home, http) = started();
    let made = http.post("/sessions", &json!({ "command": ["sleep", "600"], "name": "nap" }));
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(http.get(&format!("/sessions/{id}")).json()["name"], "nap");
    assert_eq!(http.get("/sessions").json()[0]["id"], id.as_str());
    assert_eq!(http.get("/machine").json()["role"], "owner");
    assert_eq!(http.get("/devices").json(), json!([]));
    let figures = http.get("/metrics").text();
    assert!(figures.contains("\nhappy_sessions{status=\"initializing\"} 1\n"), "{figures}");
    assert!(figures.contains("happy_api_answers_total{status=\"2xx\"}"), "{figures}");

    assert_eq!(http.delete(&format!("/sessions/{id}")).json(), json!({}));
    home.until(&["ls"], |list| list[0]["state"] == "killed");
    assert_eq!(http.delete(&format!("/sessions/{id}")).status, 200, "it is taken off the list");
    assert_eq!(http.delete(&format!("/sessions/{id}")).refusal(), (404, "not_found".to_owned()));
    assert_eq!(http.get(&format!("/sessions/{id}")).refusal(), (404, "not_found".to_owned()));
    assert_eq!(http.get("/sessions/nap").refusal(), (404, "not_found".to_owned()));
    // What cannot be done is told as a terminal would be told.
    let missing = http.post("/sessions", &json!({ "command": ["nosuchprogram"] }));
    assert_eq!(missing.refusal(), (404, "not_found".to_owned()));
    assert!(missing.text().contains("nosuchprogram"), "{missing:?}");
    assert_eq!(http.post("/sessions", &json!({ "command": "sh" })).refusal(), (400, "malformed".to_owned()));
    assert_eq!(http.send("PUT", "/sessions", &[("Content-Type", "application/json")], "{}").refusal().0, 405);
}

#[test]
fn how_far_a_program_says_it_is_stands_on_every_list() {
    let (home, http) = started();
    let script = "printf '\\033]9;4;2;42\\007'; exec sleep 600";
    let made = http.post("/sessions", &json!({ "command": ["sh", "-c", script] }));
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let wanted = json!({ "state": "error", "percent": 42 });
    home.until(&["ls"], |list| list[0]["progress"] == wanted);
    assert_eq!(http.get(&format!("/sessions/{id}")).json()["progress"], wanted);
    let list = home.run(&["ls"]).ok();
    assert!(list.contains("running, an error at 42 %"), "{list}");
    assert_eq!(home.json(&["metrics"])["sessions"][0]["progress"], wanted);
    let document = http.get("/openapi.json").json();
    let progress = &document["components"]["schemas"]["Progress"];
    assert_eq!(progress["required"], json!(["state"]), "{progress}");
    assert_eq!(progress["properties"]["percent"]["maximum"], 100, "{progress}");
}

#[test]
fn more_sessions_than_one_answer_holds_are_all_listed() {
    let (home, http) = started();
    for n in 0..40 {
        home.run(&["run", "-d", "--name", &format!("s{n}"), "true"]).ok();
    }
    let listed = http.get("/sessions").json();
    assert_eq!(listed.as_array().unwrap().len(), 40);
}

#[test]
fn nobody_without_the_token_does_or_learns_anything() {
    let (home, http) = started();
    assert_eq!(std::fs::metadata(home.file("api.token")).unwrap().permissions().mode() & 0o777, 0o600);
    let almost = format!("Bearer {}", &http.token[1..]);
    let basic = format!("Basic {}", http.token);
    for (method, path) in GUARDED {
        for authorization in [None, Some(""), Some("Bearer"), Some("Bearer "), Some(&*almost), Some(&*basic)] {
            let mut lines = vec![("Content-Type", "application/json"), ("Cookie", &http.token)];
            lines.extend(authorization.map(|text| ("Authorization", text)));
            let path_with_it = format!("{path}?token={}", http.token);
            let answer = http.send(method, &path_with_it, &lines, "{}");
            assert_eq!(answer.refusal(), (401, "unauthorized".to_owned()), "{method} {path} {authorization:?}");
        }
    }
    // What everybody may know.
    let health = http.send("GET", "/health", &[], "");
    assert_eq!((health.status, &health.json()["status"]), (200, &json!("ok")));
    assert!(!health.text().contains(home.path().to_str().unwrap()));
    assert_eq!(http.send("GET", "/dashboard", &[], "").status, 200);
    // A browser that types the bare address gets there; the phone app itself is not served here.
    assert_eq!(http.send("GET", "/", &[], "").header("location"), Some("/dashboard"));
    assert_eq!(http.send("GET", "/index.html", &[], "").status, 404);
    assert_eq!(home.json(&["ls"]), json!([]));
    assert!(!home.log().contains(&http.token));
}

#[test]
fn another_name_for_this_address_is_refused() {
    let (_home, http) = started();
    let port = http.port;
    let bearer = http.bearer();
    // A page whose name is made to lead here has the browser send its own name (DNS rebinding), with its Origin equal to it.
    let foreign = [
        "evil.example",
        &format!("evil.example:{port}"),
        &format!("127.0.0.1.evil.example:{port}"),
        "127.0.0.1",
        "",
        "localhost",
        &format!("127.0.0.1:{port}1"),
        &format!("127.0.0.2:{port}"),
        &format!("user@127.0.0.1:{port}"),
        &format!("0.0.0.0:{port}"),
    ]
    .map(str::to_owned);
    for host in &foreign {
        for (method, path) in GUARDED.iter().chain(&[("GET", "/health"), ("GET", "/dashboard"), ("POST", "/login")]) {
            let origin = format!("http://{host}");
            let lines = [
                ("Host", &**host),
                ("Origin", &origin),
                ("Authorization", &bearer),
                ("Content-Type", "application/json"),
            ];
            let answer = http.send(method, path, &lines, "{}");
            assert_eq!(answer.refusal(), (403, "host".to_owned()), "{host} {method} {path}");
        }
    }
    for host in
        [format!("127.0.0.1:{port}"), format!("localhost:{port}"), format!("LOCALHOST:{port}"), format!("[::1]:{port}")]
    {
        assert_eq!(
            http.send("GET", "/machine", &[("Host", &host), ("Authorization", &bearer)], "").status,
            200,
            "{host}"
        );
    }
    // Two, of which a proxy may have believed the other; none; and one in the first line.
    let request = |first: &str, hosts: &str| {
        let bytes = format!("GET {first} HTTP/1.1\r\n{hosts}Authorization: {bearer}\r\nConnection: close\r\n\r\n");
        http.raw(bytes.as_bytes()).unwrap().status
    };
    let own = format!("Host: 127.0.0.1:{port}\r\n");
    assert_eq!(request("/machine", &own), 200);
    assert_eq!(request("/machine", &format!("{own}Host: evil.example\r\n")), 403);
    assert_eq!(request("/machine", &format!("{own}{own}")), 403);
    assert_eq!(request("/machine", ""), 403);
    assert_eq!(request("http://evil.example/machine", &own), 403);
}

#[test]
fn pages_of_other_origins_are_refused_and_told_nothing() {
    let (home, http) = started();
    let bearer = http.bearer();
    let own = format!("http://{}", http.host());
    let near = [
        "null".to_owned(),
        "http://evil.example".to_owned(),
        format!("http://evil.example:{}", http.port),
        "http://127.0.0.1".to_owned(),
        format!("http://127.0.0.1:{}", http.port - 1),
        format!("ftp://{}", http.host()),
        // Another name of ours is another origin to a browser.
        format!("http://localhost:{}", http.port),
        format!("{own}.evil.example"),
        String::new(),
    ];
    for origin in &near {
        for (method, path) in GUARDED {
            let lines = [("Origin", &**origin), ("Authorization", &*bearer), ("Content-Type", "application/json")];
            let answer = http.send(method, path, &lines, "{}");
            assert_eq!(answer.refusal(), (403, "origin".to_owned()), "{origin} {method} {path}");
            assert!(!answer.head.to_ascii_lowercase().contains("access-control"), "{}", answer.head);
        }
    }
    assert_eq!(http.send("GET", "/machine", &[("Origin", &own), ("Authorization", &bearer)], "").status, 200);
    // What has no Origin, such as an image, says otherwise where it comes from.
    for site in ["cross-site", "same-site", "nonsense"] {
        let lines = [("Sec-Fetch-Site", site), ("Authorization", &*bearer)];
        assert_eq!(http.send("GET", "/machine", &lines, "").refusal(), (403, "origin".to_owned()), "{site}");
    }
    for site in ["same-origin", "none"] {
        assert_eq!(
            http.send("GET", "/machine", &[("Sec-Fetch-Site", site), ("Authorization", &bearer)], "").status,
            200
        );
    }
    // A browser that asks before it sends is not told that it may, be the page ours or not.
    for origin in ["http://evil.example", &*own] {
        let lines = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Private-Network", "true"),
        ];
        let answer = http.send("OPTIONS", "/sessions", &lines, "");
        assert!(answer.status >= 400 && !answer.head.to_ascii_lowercase().contains("access-control"), "{answer:?}");
    }
    assert_eq!(home.json(&["ls"]), json!([]));
}

#[test]
fn what_a_page_may_post_without_asking_is_refused() {
    let (home, http) = started();
    let (bearer, body) = (http.bearer(), json!({ "command": ["sleep", "600"] }).to_string());
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
        "text/plain; application/json",
    ] {
        let answer = http.send("POST", "/sessions", &[("Content-Type", kind), ("Authorization", &bearer)], &body);
        assert_eq!(answer.refusal(), (415, "media_type".to_owned()), "{kind}");
    }
    let answer = http.send("POST", "/sessions", &[("Authorization", &bearer)], &body);
    assert_eq!(answer.refusal(), (415, "media_type".to_owned()));
    assert_eq!(home.json(&["ls"]), json!([]));
}

/// Another user of this machine, if this one may become another.
fn as_nobody(script: &str) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let mut command = Command::new("bash");
    // The number of `nobody` on every system that has one.
    command.args(["-c", script]).uid(65_534).gid(65_534).current_dir("/").stdin(Stdio::null());
    let output = command.output().unwrap();
    Some(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn another_user_of_this_machine_gets_no_further_than_health() {
    let (home, http) = started();
    let token = home.file("api.token");
    let script = |request: &str| {
        let (port, host) = (http.port, http.host());
        format!(
            "exec 3<>/dev/tcp/127.0.0.1/{port}; printf '{request}\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n' >&3; cat <&3"
        )
    };
    let Some(health) = as_nobody(&format!("id -u; {}", script("GET /health HTTP/1.1"))) else {
        eprintln!("left out: this needs root, to be somebody else");
        return;
    };
    assert!(health.starts_with("65534\n") && health.contains("200 OK"), "{health}");
    for (method, path) in GUARDED {
        let answer =
            as_nobody(&script(&format!("{method} {path} HTTP/1.1\\r\\nContent-Type: application/json"))).unwrap();
        assert!(answer.starts_with("HTTP/1.1 401"), "{method} {path}: {answer}");
    }
    let read = as_nobody(&format!("cat {}; ls {}", token.display(), home.path().display())).unwrap();
    assert!(read.contains("Permission denied") && !read.contains(&http.token), "{read}");
}

#[test]
fn a_terminal_opens_for_the_token_only() {
    let (home, http) = started();
    let id = http.post("/sessions", &json!({ "command": ["cat"] })).json()["id"].as_str().unwrap().to_owned();
    let upgrade = |id: &str, more: &[(&str, &str)]| {
        let mut lines = vec![
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        lines.extend(more);
        let mut head = format!("GET /sessions/{id}/term HTTP/1.1\r\n");
        if !more.iter().any(|(name, _)| *name == "Host") {
            head.push_str(&format!("Host: {}\r\n", http.host()));
        }
        lines.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        http.raw(format!("{head}\r\n").as_bytes()).unwrap()
    };
    let (own, offered) = (format!("http://{}", http.host()), format!("happy-terminal.v1, happy-token.{}", http.token));
    let wrong = format!("happy-terminal.v1, happy-token.{}", "A".repeat(43));
    assert_eq!(upgrade(&id, &[]).refusal().0, 401);
    assert_eq!(upgrade(&id, &[("Sec-WebSocket-Protocol", "happy-terminal.v1")]).refusal().0, 401);
    assert_eq!(upgrade(&id, &[("Sec-WebSocket-Protocol", &wrong), ("Origin", &own)]).refusal().0, 401);
    let foreign = [("Sec-WebSocket-Protocol", &*offered), ("Origin", "http://evil.example")];
    assert_eq!(upgrade(&id, &foreign).refusal(), (403, "origin".to_owned()));
    let rebound = [("Sec-WebSocket-Protocol", &*offered), ("Host", "evil.example"), ("Origin", "http://evil.example")];
    assert_eq!(upgrade(&id, &rebound).refusal(), (403, "host".to_owned()));
    let nowhere = upgrade("00000000-0000-4000-8000-000000000000", &[("Sec-WebSocket-Protocol", &offered)]);
    assert_eq!(nowhere.refusal(), (404, "not_found".to_owned()));
    assert_eq!(http.get(&format!("/sessions/{id}/term")).refusal(), (426, "not_websocket".to_owned()));
    assert_eq!(http.get(&format!("/sessions/{id}/term?cols=x")).refusal(), (400, "malformed".to_owned()));

    let opened = upgrade(&id, &[("Sec-WebSocket-Protocol", &offered), ("Origin", &own)]);
    assert_eq!(opened.status, 101, "{opened:?}");
    // The token is not said back.
    assert_eq!(opened.header("sec-websocket-protocol"), Some("happy-terminal.v1"));
    assert!(!home.log().contains(&http.token));
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

/// A session of a shell, by its id.
async fn begun(http: &Http, script: &str) -> String {
    let (http, command) = (http.clone(), json!({ "command": ["sh", "-c", script] }));
    let made = tokio::task::spawn_blocking(move || http.post("/sessions", &command).json()).await.unwrap();
    made["id"].as_str().unwrap().to_owned()
}

/// The websocket of a session, and its first message.
async fn attached(http: &Http, id: &str, query: &str) -> (Socket, serde_json::Value) {
    use futures_util::StreamExt;
    use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
    let url = format!("ws://{}/sessions/{id}/term?{query}", http.host());
    let mut request = url.into_client_request().unwrap();
    let offered = format!("happy-terminal.v1, happy-token.{}", http.token);
    request.headers_mut().insert("sec-websocket-protocol", offered.parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    match socket.next().await.unwrap().unwrap() {
        Message::Text(text) => (socket, serde_json::from_str(&text).unwrap()),
        other => panic!("{other:?} before what was attached to"),
    }
}

#[tokio::test]
async fn what_is_typed_and_printed_goes_over_the_websocket() {
    use futures_util::{SinkExt, StreamExt};
    use happy_wire::terminal::TerminalMessage;
    use tokio_tungstenite::tungstenite::Message;

    let (_home, http) = tokio::task::spawn_blocking(started).await.unwrap();
    let api = http.clone();
    let id = begun(&http, "stty -echo; cat; exit 3").await;
    let (mut socket, attached) = attached(&http, &id, "name=test&cols=90&rows=20&take_control=true").await;
    assert_eq!((&attached["you_control"], &attached["session"]["cols"]), (&json!(true), &json!(90)));

    let attachment = attached["attachment"].as_str().unwrap();
    let call = |id: u64, method: &str, attachment: &str| {
        let params = json!({ "attachment": attachment, "cols": 70, "rows": 15 });
        Message::text(json!({ "id": id, "method": method, "params": params }).to_string())
    };
    socket.send(call(1, "terminal.resize", attachment)).await.unwrap();
    socket.send(call(2, "terminal.resize", "00000000-0000-4000-8000-000000000000")).await.unwrap();
    socket.send(Message::text(r#"{"id": 3, "method": "session.list", "params": {}}"#)).await.unwrap();
    socket.send(Message::text("nonsense")).await.unwrap();
    // What cannot be read of a call with a number is said with the number.
    socket.send(Message::text(r#"{"id": 5, "method": "nosuch", "params": {}}"#)).await.unwrap();
    socket.send(Message::text(r#"{"id": 6, "method": "terminal.resize", "params": {"cols": "x"}}"#)).await.unwrap();
    let input = TerminalMessage::Input { offset: 0, bytes: b"hello there\n\x04" }.to_vec();
    socket.send(Message::binary(input)).await.unwrap();

    let (mut answers, mut printed, mut resized, mut exit) = (Vec::new(), Vec::new(), false, None);
    // What has ended still shows its last screen, so the websocket stays.
    while exit.is_none() || answers.len() < 6 {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap();
        match message.unwrap() {
            Message::Text(text) => answers.push(serde_json::from_str::<serde_json::Value>(&text).unwrap()),
            Message::Binary(bytes) => match TerminalMessage::decode(&bytes).unwrap() {
                TerminalMessage::Output { bytes, .. } => printed.extend_from_slice(bytes),
                TerminalMessage::Resized { cols: 70, rows: 15, .. } => resized = true,
                TerminalMessage::Exited { .. } => exit = Some(()),
                _ => {}
            },
            Message::Close(frame) => panic!("{frame:?} after {answers:?}"),
            _ => {}
        }
    }
    assert!(String::from_utf8_lossy(&printed).contains("hello there") && resized && exit.is_some());
    let outcomes: Vec<_> = answers.iter().map(|answer| (&answer["id"], &answer["error"]["code"])).collect();
    let null = &serde_json::Value::Null;
    let expected = [
        (&json!(1), null),
        (&json!(2), &json!("not_found")),
        (&json!(3), &json!("not_permitted")),
        (null, &json!("malformed")),
        (&json!(5), &json!("malformed")),
        (&json!(6), &json!("malformed")),
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(answers[0]["ok"], json!({}));
    drop(socket);
    tokio::task::spawn_blocking(move || {
        let deadline = Instant::now() + PATIENCE;
        while api.get(&format!("/sessions/{id}")).json()["viewers"] != 0 {
            assert!(Instant::now() < deadline, "the attachment stays");
            pause();
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_client_that_closes_its_websocket_is_answered() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};

    let (_home, http) = tokio::task::spawn_blocking(started).await.unwrap();
    // One that is silent, and one that never stops printing.
    for script in ["exec sleep 600", "exec yes"] {
        let id = begun(&http, script).await;
        let (mut socket, _) = attached(&http, &id, "name=test").await;
        let bye = CloseFrame { code: CloseCode::Normal, reason: "bye".into() };
        socket.send(Message::Close(Some(bye))).await.unwrap();
        let mut closed = None;
        // Without an answer the end of the connection would be an error.
        while let Some(message) = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap() {
            if let Message::Close(frame) = message.unwrap() {
                closed = Some(frame);
            }
        }
        let code = closed.expect("an answer").map(|frame| frame.code);
        assert_eq!(code, Some(CloseCode::Normal), "{script}");
    }
}

#[test]
fn what_happens_is_told_and_what_was_missed_too() {
    let (home, http) = started();
    let mut events = http.events(None);
    home.run(&["run", "-d", "--name", "first", "sleep", "600"]).ok();
    let told = events.until("\"name\":\"first\"");
    let place = told.lines().rev().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    events.until("\n\n");
    drop(events);
    home.run(&["run", "-d", "--name", "second", "sleep", "600"]).ok();
    let mut again = http.events(Some(&place));
    assert!(!again.until("\"name\":\"second\"").contains("list_again"));
    // The last lines come without a list of them being asked for, and only when they change.
    home.run(&["run", "-d", "sh", "-c", "echo one; read x; echo two $x; sleep 600"]).ok();
    again.until("\"line\":\"one\"");
    let id = home.json(&["ls"])[2]["id"].as_str().unwrap().to_owned();
    home.run(&["type", &id, "more"]).ok();
    again.until("\"line\":\"two more\"");
    // The place of another life, and nonsense.
    http.events(Some("00000000-0000-4000-8000-000000000000:7")).until("session.list_again");
    http.events(Some("nonsense"));
}

#[test]
fn a_browser_is_let_in_once_by_an_address_and_leaves() {
    let (home, http) = started();
    let address = home.json(&["dashboard"])["link"].as_str().unwrap().to_owned();
    let (page, secret) = address.split_once("#login=").unwrap();
    assert_eq!(page, format!("http://127.0.0.1:{}/dashboard", http.port));
    let login = |body: serde_json::Value| {
        http.send("POST", "/login", &[("Content-Type", "application/json")], &body.to_string())
    };
    assert_eq!(login(json!({ "secret": "A".repeat(43) })).refusal(), (401, "unauthorized".to_owned()));
    let let_in = login(json!({ "secret": secret }));
    assert_eq!(let_in.status, 200, "{let_in:?}");
    assert_eq!(let_in.header("set-cookie"), None);
    assert_eq!(login(json!({ "secret": secret })).refusal(), (401, "unauthorized".to_owned()), "it is spent");
    let browser = Http { token: let_in.json()["token"].as_str().unwrap().to_owned(), ..http.clone() };
    assert_ne!(browser.token, http.token);
    assert_eq!(browser.get("/sessions").status, 200);
    assert_eq!(browser.delete("/login").status, 200);
    assert_eq!(browser.get("/sessions").status, 401);
    assert_eq!(http.delete("/login").status, 200);
    assert_eq!(http.get("/sessions").status, 200, "the token in the home stays good");
    let log = home.log();
    assert!(!log.contains(secret) && !log.contains(&browser.token), "{log}");
    // Another life of the daemon knows nobody of before.
    let second =
        login(json!({ "secret": home.json(&["dashboard"])["link"].as_str().unwrap().rsplit_once('=').unwrap().1 }));
    home.run(&["daemon", "stop"]).ok();
    home.start();
    let after = Http { token: second.json()["token"].as_str().unwrap().to_owned(), ..Http::of(&home) };
    assert_eq!(after.get("/sessions").status, 401);
}

#[test]
fn a_password_is_asked_for_beyond_this_machine_and_guessed_slowly() {
    let home = Home::new();
    std::fs::create_dir(home.path()).unwrap();
    std::fs::write(home.file("settings.json"), r#"{"api_listen": "0.0.0.0", "api_names": ["box.example"]}"#).unwrap();
    let warned = home.run(&["daemon", "start", "--api-port", "0", "--relay-port", "0"]);
    assert_eq!(warned.code, 0, "{warned:?}");
    assert!(warned.err.contains("without a password") && warned.err.contains("--set-password"), "{warned:?}");
    home.run(&["dashboard"]).fails_with(&["does not run", "--set-password"]);
    let set = |password: &str| {
        let mut setting = home.spawn(&["dashboard", "--set-password"]);
        setting.type_line(password);
        drop(setting.stdin.take());
        setting.finish()
    };
    set("short").fails_with(&["12 to"]);
    let told = set("correct horse battery").ok();
    assert!(told.contains("Start it anew: `happy daemon stop`"), "{told}");
    home.run(&["daemon", "stop"]).ok();
    let told = set("correct horse battery").ok();
    assert!(told.contains("nothing needs to be started anew"), "{told}");
    home.start();
    let told = set("correct horse battery").ok();
    assert!(told.contains("nothing needs to be started anew"), "{told}");
    let http = Http::of(&home);
    let status = home.run(&["daemon", "status"]).ok();
    assert!(status.contains(&format!("It listens at 0.0.0.0:{} over https", http.port)), "{status}");
    assert_eq!(home.json(&["daemon", "status"])["api_listen"], "0.0.0.0");
    let login = |password: &str| {
        http.send(
            "POST",
            "/login",
            &[("Content-Type", "application/json")],
            &json!({ "password": password }).to_string(),
        )
    };
    let named = [("Host", &*format!("box.example:{}", http.port)), ("Authorization", &http.bearer())];
    assert_eq!(http.send("GET", "/machine", &named, "").status, 200);
    assert_eq!(login("correct horse batterz").refusal(), (401, "unauthorized".to_owned()));
    // Nobody may try again at once.
    let began = Instant::now();
    let mut refused = 0;
    let right = loop {
        let answer = login("correct horse battery");
        if answer.status == 200 {
            break answer;
        }
        assert_eq!(answer.refusal(), (429, "busy".to_owned()));
        assert!(began.elapsed() < PATIENCE);
        refused += 1;
        pause();
    };
    assert!(refused > 0);
    let browser = Http { token: right.json()["token"].as_str().unwrap().to_owned(), ..http.clone() };
    assert_eq!(browser.get("/machine").status, 200);
    assert!(!home.log().contains("correct horse"));
}

#[test]
fn the_daemon_goes_on_without_its_api() {
    let home = Home::new();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let warned = home.run(&["daemon", "start", "--api-port", &port, "--relay-port", "0"]);
    assert_eq!(warned.code, 0, "{warned:?}");
    assert!(
        warned.err.contains(&port) && warned.err.contains("--api-port") && warned.err.contains("goes on"),
        "{warned:?}"
    );
    let status = home.json(&["daemon", "status"]);
    assert!(status["api_port"].is_null() && status["api_trouble"].as_str().unwrap().contains(&port), "{status}");
    assert!(home.run(&["run", "echo", "hello"]).ok().contains("hello"));
    home.run(&["dashboard"]).fails_with(&[&port, "--api-port"]);
    home.run(&["daemon", "stop"]).ok();

    home.run(&["daemon", "start", "--no-api", "--relay-port", "0"]).ok();
    let status = home.json(&["daemon", "status"]);
    assert!(status["api_port"].is_null() && status["api_trouble"].is_null(), "{status}");
    home.run(&["dashboard"]).fails_with(&["switched off", "--no-api", "start the daemon anew: `happy daemon stop`"]);
    assert!(status["api_listen"].is_null(), "{status}");
    home.run(&["daemon", "stop"]).ok();

    // Each start has a token of its own.
    home.start();
    let before = Http::of(&home);
    assert_eq!(before.get("/sessions").status, 200);
    home.run(&["daemon", "stop"]).ok();
    std::fs::set_permissions(home.file("api.token"), std::fs::Permissions::from_mode(0o644)).unwrap();
    home.start();
    let now = Http::of(&home);
    assert_eq!(
        (Http { token: before.token, ..now.clone() }.get("/sessions").status, now.get("/sessions").status),
        (401, 200)
    );
    assert_eq!(std::fs::metadata(home.file("api.token")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_is_too_large_or_never_ends_is_cut_and_disturbs_nobody() {
    let (home, http) = started();
    let mut events = http.events(None);
    let (host, bearer) = (http.host(), http.bearer());
    let head = |more: &str| {
        format!(
            "POST /sessions HTTP/1.1\r\nHost: {host}\r\nAuthorization: {bearer}\r\nContent-Type: application/json\r\nConnection: close\r\n{more}\r\n"
        )
    };
    // Refused by what it says, before it is sent.
    let declared = http.raw(head("Content-Length: 10000000000\r\n").as_bytes()).unwrap();
    assert_eq!(declared.refusal(), (413, "too_large".to_owned()));
    // One that does not say how long it is.
    let mut endless = http.connect();
    endless.write_all(head("Transfer-Encoding: chunked\r\n").as_bytes()).unwrap();
    let mut sent = 0_u64;
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    while sent < (1 << 30) && endless.write_all(chunk.as_bytes()).is_ok() {
        sent += 0x10000;
    }
    assert!(sent < (64 << 20), "{sent} bytes were taken");
    // Heads: one long line, and a thousand short ones.
    for more in [format!("X: {}\r\n", "x".repeat(200_000)), "X: y\r\n".repeat(1_000)] {
        let answer = http.raw(head(&more).as_bytes());
        assert!(answer.as_ref().is_none_or(|answer| answer.status == 431), "{answer:?}");
    }
    let long = http.raw(format!("GET /{} HTTP/1.1\r\nHost: {host}\r\n\r\n", "x".repeat(200_000)).as_bytes());
    assert!(long.as_ref().is_none_or(|answer| matches!(answer.status, 414 | 431)), "{long:?}");
    for nonsense in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"\0\0\0\0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ] {
        let answer = http.raw(nonsense);
        assert!(answer.as_ref().is_none_or(|answer| answer.status >= 400), "{answer:?}");
    }
    // Whoever was there is told what happens, as before.
    home.run(&["run", "-d", "--name", "still here", "sleep", "600"]).ok();
    events.until("still here");
}

#[test]
fn whoever_is_slow_is_not_waited_for() {
    let (_home, http) = started();
    let (host, bearer) = (http.host(), http.bearer());
    std::thread::scope(|scope| {
        // A head that never ends.
        scope.spawn(|| {
            let mut slow = http.connect();
            slow.write_all(b"GET /health HTTP/1.1\r\nHost: ").unwrap();
            let mut rest = Vec::new();
            let _ = slow.read_to_end(&mut rest);
            assert!(!String::from_utf8_lossy(&rest).contains("200"), "{rest:?}");
        });
        // A connection on which nothing is said, and one that is kept for later.
        scope.spawn(|| assert_eq!(http.connect().read(&mut [0]).unwrap_or(0), 0));
        scope.spawn(|| {
            let mut idle = http.connect();
            write!(idle, "GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
            let mut all = String::new();
            idle.read_to_string(&mut all).unwrap();
            assert!(all.starts_with("HTTP/1.1 200"), "{all}");
        });
        // A body that never ends, of somebody who has the token.
        scope.spawn(|| {
            let mut slow = http.connect();
            let head = format!("POST /sessions HTTP/1.1\r\nHost: {host}\r\nAuthorization: {bearer}\r\nContent-Type: application/json\r\n");
            write!(slow, "{head}Content-Length: 100\r\n\r\n{{").unwrap();
            slow.set_read_timeout(Some(2 * PATIENCE)).unwrap();
            assert_eq!(read_answer(&mut slow).unwrap().refusal(), (408, "late".to_owned()));
        });
    });
}

#[test]
fn strangers_cannot_take_what_belongs_to_those_with_the_token() {
    let (home, http) = started();
    let mut events = http.events(None);
    // Far more than there are places.
    let crowd: Vec<_> = (0..300).map(|_| http.connect()).collect();
    // Those who were there go on.
    home.run(&["run", "-d", "--name", "in the crowd", "sleep", "600"]).ok();
    events.until("in the crowd");
    // Of the crowd most are sent away at once, and the others when they have said nothing for a while; then there is room again.
    let deadline = Instant::now() + PATIENCE;
    let mut tries = 0;
    loop {
        let mut stream = http.connect();
        let _ = write!(
            stream,
            "GET /machine HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\nConnection: close\r\n\r\n",
            http.host(),
            http.bearer()
        );
        if read_answer(&mut stream).is_some_and(|answer| answer.status == 200) {
            break;
        }
        tries += 1;
        assert!(Instant::now() < deadline, "there is no room");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(tries > 0, "the crowd never filled the places");
    drop(crowd);
    assert!(home.run(&["run", "echo", "hello"]).ok().contains("hello"));
}
