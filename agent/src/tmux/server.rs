//! What a tmux server is asked: its sessions, a new one, the end of one. Each by a control client of its own, which takes milliseconds.

use std::path::{Path, PathBuf};

use super::client::{self, Control, Env};
use super::control::{argument, literal};
use super::{DEADLINE, Life, Origin, SessionId, TmuxError, check_version, find_program, sockets};

/// Sessions of one server that are listed.
pub const MAX_LISTED: usize = 500;

/// A session as its server lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Which.
    pub origin: Origin,
    /// Its name.
    pub name: String,
    /// Unix seconds.
    pub created: u64,
    /// The size of a client that would show the current window whole.
    pub size: (u16, u16),
    /// How many clients show it.
    pub attached: u32,
}

/// A tmux server, and what is needed to reach it.
#[derive(Debug, Clone)]
pub struct Server {
    program: PathBuf,
    socket: PathBuf,
    env: Env,
}

/// Numbers first, the name last: it may have spaces, and tmux lets no control characters into it.
const LINE: &str = "#{pid} #{start_time} #{session_id} #{session_created} #{session_attached} #{window_width} #{window_height} #{status} #{session_name}";

impl Server {
    /// The one that listens, or would, at `socket`. The program is looked for in the environment's path.
    ///
    /// # Errors
    /// [`TmuxError::NotInstalled`] and [`TmuxError::TooOld`].
    pub async fn new(socket: PathBuf, env: Env) -> Result<Self, TmuxError> {
        let program = find_program(env.get("PATH").map(String::as_str))?;
        let version = tokio::process::Command::new(&program).arg("-V").kill_on_drop(true).output();
        let version = tokio::time::timeout(DEADLINE, version).await.map_err(|_| TmuxError::Late)??;
        check_version(&String::from_utf8_lossy(&version.stdout))?;
        Ok(Self { program, socket, env })
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A client that is told of everything and shown nothing: it waits for a channel that nobody signals, so that tmux counts it to no session.
    ///
    /// # Errors
    /// [`TmuxError`].
    pub async fn follow(&self) -> Result<Control, TmuxError> {
        sockets::check(&self.socket).await?;
        let channel = format!("happy-{}", uuid::Uuid::new_v4());
        Control::start(&self.program, &self.socket, &self.env, &["wait-for", &channel])
    }

    /// Its sessions.
    ///
    /// # Errors
    /// [`TmuxError`].
    pub async fn list(&self) -> Result<Vec<Listed>, TmuxError> {
        sockets::check(&self.socket).await?;
        let lines = self.run(&["list-sessions", "-F", LINE]).await?;
        if lines.len() > MAX_LISTED {
            tracing::warn!("the tmux server at {} has more than {MAX_LISTED} sessions", self.socket.display());
        }
        let listed = lines.iter().take(MAX_LISTED).map(|line| {
            let line = String::from_utf8_lossy(line);
            self.read(&line).ok_or_else(|| TmuxError::Protocol(line.chars().filter(|c| !c.is_control()).collect()))
        });
        listed.collect()
    }

    fn read(&self, line: &str) -> Option<Listed> {
        let mut words = line.splitn(9, ' ');
        let life = Life { pid: words.next()?.parse().ok()?, start: words.next()?.parse().ok()? };
        let session: SessionId = words.next()?.parse().ok()?;
        let (created, attached) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let window = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let size = client_size(window, words.next()?);
        let name = words.next()?.to_owned();
        let origin = Origin { program: self.program.clone(), socket: self.socket.clone(), life, session };
        Some(Listed { origin, name, created, size, attached })
    }

    /// Makes a session and gives its id. Starts the server if there is none: what that runs gets `env` as its environment, not those sessions
    /// of a server that runs already, which have that of their server.
    ///
    /// # Errors
    /// [`TmuxError`].
    pub async fn create(&self, new: &New<'_>) -> Result<SessionId, TmuxError> {
        let (cols, rows) = (new.size.0.to_string(), new.size.1.to_string());
        let cwd = literal(new.cwd);
        let mut words = vec!["new-session", "-d", "-P", "-F", "#{session_id}", "-x", &cols, "-y", &rows, "-c", &cwd];
        let name = new.name.map(literal);
        if let Some(name) = &name {
            words.extend(["-s", name]);
        }
        words.push("--");
        if let [program] = new.command {
            // tmux gives one word to a shell, and several words to the system: as one of several the program is not read by a shell.
            words.extend(["/bin/sh", "-c", "exec \"$0\"", program]);
        } else {
            words.extend(new.command.iter().map(String::as_str));
        }
        let words: Vec<String> = words.into_iter().map(argument).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let lines = client::run(&self.program, &self.socket, new.env, &words, true).await?;
        let id = lines.first().map(|line| String::from_utf8_lossy(line).into_owned()).unwrap_or_default();
        id.parse().map_err(|()| TmuxError::Protocol(id))
    }

    /// Ends a session of the life that `origin` names, and no other: the server itself compares.
    ///
    /// # Errors
    /// [`TmuxError`]; [`TmuxError::NoSession`] when it has ended already.
    pub async fn kill(&self, origin: &Origin) -> Result<(), TmuxError> {
        let (session, life) = (origin.session.to_string(), origin.life);
        let same = format!("#{{==:#{{pid}} #{{start_time}},{} {}}}", life.pid, life.start);
        let kill = format!("kill-session -t '{session}'");
        // What `if-shell` runs answers for itself, behind the answer that is read: so the session is looked for first.
        if !self.has(origin).await? {
            return Err(TmuxError::NoSession);
        }
        match self.run(&["if-shell", "-F", &same, &kill]).await {
            Ok(_) => Ok(()),
            Err(TmuxError::NoServer(_)) => Err(TmuxError::NoSession),
            Err(error) => Err(error),
        }
    }

    /// Whether the session of `origin` is there.
    ///
    /// # Errors
    /// [`TmuxError`] but [`TmuxError::NoSession`] and [`TmuxError::NoServer`], which are answers.
    pub async fn has(&self, origin: &Origin) -> Result<bool, TmuxError> {
        match self.list().await {
            Ok(listed) => Ok(listed.iter().any(|listed| listed.origin == *origin)),
            Err(TmuxError::NoServer(_) | TmuxError::NoSession) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn run(&self, words: &[&str]) -> Result<Vec<Vec<u8>>, TmuxError> {
        client::run(&self.program, &self.socket, &self.env, words, false).await
    }
}

/// What a new session is to be.
#[derive(Debug)]
pub struct New<'a> {
    /// Its name; tmux numbers it without one.
    pub name: Option<&'a str>,
    /// Program and arguments; the user's shell when empty.
    pub command: &'a [String],
    /// Where it starts.
    pub cwd: &'a str,
    /// The environment of the client that makes it.
    pub env: &'a Env,
    /// Its size until somebody looks.
    pub size: (u16, u16),
}

/// The size of a client that shows a window whole, by the window's and by what tmux says of the status line: `off`, `on` or a number of lines.
pub fn client_size((cols, rows): (u16, u16), status: &str) -> (u16, u16) {
    let lines = match status {
        "off" => 0,
        "on" => 1,
        lines => lines.parse().unwrap_or(1),
    };
    (cols, rows.saturating_add(lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_list_is_read_whatever_the_name() {
        let server = Server { program: "/usr/bin/tmux".into(), socket: "/tmp/s".into(), env: Env::new() };
        let listed = server.read("80 170 $3 171 2 100 30 2 a b; $(x) %end 1 2 3").unwrap();
        assert_eq!((listed.name.as_str(), listed.size, listed.attached), ("a b; $(x) %end 1 2 3", (100, 32), 2));
        assert_eq!((listed.origin.life, listed.origin.session), (Life { pid: 80, start: 170 }, SessionId(3)));
        for bad in ["", "80 170 3 171 2 100 30 on x", "80 170 $3 171 2 100 30", "x"] {
            assert_eq!(server.read(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_status_line_takes_rows_of_a_client() {
        for (status, rows) in [("off", 24), ("on", 25), ("2", 26), ("5", 29)] {
            assert_eq!(client_size((80, 24), status), (80, rows));
        }
    }
}
