//! Starting a session: its files, its holder process, and the wait until that is ready.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use happy_rpc::SessionCreate;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use uuid::Uuid;

use super::{Config, CreateError, HOLDER_DEADLINE, record};
use crate::holder::spec::{Description, KEEP, RING_BYTES, SCROLLBACK_ROWS, SessionDir, Spec, Start, unix_ms};
use crate::store::project::Project;

/// The most bytes of a session's name: it is shown in lists.
const MAX_NAME: usize = 120;

/// The most bytes of the holder's ready line. Its errors quote a path or a command, the rest is a sentence.
const MAX_READY_LINE: u64 = 64 * 1024;

/// How long the settings of a project may take to be read.
const PROJECT_TIME: std::time::Duration = std::time::Duration::from_secs(1);

/// Writes the session's files, starts its holder and waits until the program runs.
pub(super) async fn start(
    config: &Config,
    id: Uuid,
    dir: &SessionDir,
    params: SessionCreate,
) -> Result<Description, CreateError> {
    let files = |source| CreateError::Files { path: dir.path().to_owned(), source };
    dir.create().map_err(files)?;
    let project = ask_project(config, &params).await;
    let spec = specify(config, id, dir.socket(id).map_err(files)?, params, project)?;
    hold(config, dir, spec).await
}

/// The same for a session of tmux.
pub(super) async fn start_guest(
    config: &Config,
    dir: &SessionDir,
    mut description: Description,
) -> Result<Description, CreateError> {
    let files = |source| CreateError::Files { path: dir.path().to_owned(), source };
    dir.create().map_err(files)?;
    description.socket = dir.socket(description.id).map_err(files)?;
    let mut env = config.env.clone();
    prepare(&mut env);
    // It is a client of tmux, and not in tmux.
    ["TMUX", "TMUX_PANE"].iter().for_each(|key| drop(env.remove(*key)));
    let ring_bytes = config.keep.unwrap_or(RING_BYTES as u64) as usize;
    let (cols, rows) = (80, 24);
    let (scrollback_rows, log, record) = (SCROLLBACK_ROWS, config.log, None);
    let spec = Spec { description, env, cols, rows, ring_bytes, scrollback_rows, log, record };
    hold(config, dir, spec).await
}

async fn hold(config: &Config, dir: &SessionDir, spec: Spec) -> Result<Description, CreateError> {
    let files = |source| CreateError::Files { path: dir.path().to_owned(), source };
    dir.write_description(&spec.description).map_err(files)?;
    dir.write_spec(&spec).map_err(files)?;
    let mut holder = spawn(config, dir).map_err(CreateError::Spawn)?;
    let started = match tokio::time::timeout(HOLDER_DEADLINE, ready(&mut holder)).await {
        Ok(Ok(Start::Ready { .. })) => Ok(spec.description),
        Ok(Ok(Start::Failed(error))) => Err(error.into()),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(CreateError::Late),
    };
    if started.is_err() {
        // It may be half way to a program that nobody would know of.
        let _ = holder.start_kill();
    }
    // Dropping the handle leaves the process alone; the runtime reaps it when it ends before this daemon does.
    started
}

/// What the folder in which a session is to start says about it. A disk that hangs holds up nobody.
async fn ask_project(config: &Config, params: &SessionCreate) -> Project {
    let env = params.env.as_ref().unwrap_or(&config.env);
    let user_home = env.get("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
    let (folder, home) = (resolve(&user_home, params.cwd.clone()), config.home.clone());
    let shown = folder.clone();
    let read = tokio::task::spawn_blocking(move || Project::read(&folder, &home));
    match tokio::time::timeout(PROJECT_TIME, read).await {
        Ok(Ok(Ok((project, left)))) => {
            if !left.is_empty() {
                let left = left.join(", ");
                tracing::warn!(folder = ?shown, left, "not for a project to decide, and so not heeded");
            }
            project
        }
        Ok(Ok(Err(error))) => {
            tracing::warn!(folder = ?shown, ?error, "the settings of a project cannot be read, and are not heeded");
            Project::default()
        }
        Ok(Err(_)) | Err(_) => {
            tracing::warn!(folder = ?shown, "the settings of a project are not read in time, and are not heeded");
            Project::default()
        }
    }
}

fn specify(
    config: &Config,
    id: Uuid,
    socket: PathBuf,
    params: SessionCreate,
    project: Project,
) -> Result<Spec, CreateError> {
    let SessionCreate { command, cwd, env, name, cols, rows, keep, record, tmux: _ } = params;
    let usual = config.keep.unwrap_or(RING_BYTES as u64);
    let keep = keep.unwrap_or_else(|| project.keep().filter(|_| config.projects).map_or(usual, |more| usual.max(more)));
    let name = name.filter(|name| !name.trim().is_empty()).or(project.name);
    if !KEEP.contains(&keep) {
        return Err(CreateError::Request("a session keeps 64K to 1G of its output (65,536 to 1,073,741,824 bytes)"));
    }
    if command.first().is_some_and(String::is_empty) {
        return Err(CreateError::Request("the command is empty"));
    }
    let mut env = env.unwrap_or_else(|| config.env.clone());
    let strings = command.iter().chain(env.keys()).chain(env.values());
    if strings.into_iter().any(|text| text.contains('\0')) {
        return Err(CreateError::Request("a command or environment must not contain a zero byte"));
    }
    let user_home = env.get("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
    prepare(&mut env);
    env.insert("HAPPY_SESSION".into(), id.to_string());
    let name = name.filter(|name| !name.trim().is_empty()).unwrap_or_else(|| match command.is_empty() {
        true => env.get("SHELL").and_then(|shell| shell.rsplit('/').next()).unwrap_or("shell").to_owned(),
        false => command.join(" "),
    });
    let description = Description {
        id,
        name: clean(&name),
        command,
        cwd: resolve(&user_home, cwd),
        created_at: unix_ms().max(1),
        socket,
        tmux: None,
    };
    let record = record.map(|record| record::order(&config.home, id, &description.name, record)).transpose();
    let record = record.map_err(|source| CreateError::Files { path: config.home.clone(), source })?;
    let (cols, rows) = (if cols == 0 { 80 } else { cols }, if rows == 0 { 24 } else { rows });
    Ok(Spec {
        description,
        env,
        cols,
        rows,
        ring_bytes: keep as usize,
        scrollback_rows: SCROLLBACK_ROWS,
        log: config.log,
        record,
    })
}

/// What the terminal is.
fn prepare(env: &mut BTreeMap<String, String>) {
    // A size from another terminal would outlive the first resize of this one.
    ["LINES", "COLUMNS", "TERMCAP"].iter().for_each(|key| drop(env.remove(*key)));
    env.insert("TERM".into(), "xterm-256color".into());
    env.insert("COLORTERM".into(), "truecolor".into());
}

/// A directory as people write it: missing and `~` mean home, relative is relative to home.
pub(super) fn resolve(home: &Path, cwd: Option<PathBuf>) -> PathBuf {
    match cwd {
        None => home.to_owned(),
        Some(path) => match path.strip_prefix("~") {
            Ok(below) => home.join(below),
            Err(_) => home.join(path),
        },
    }
}

/// A name that cannot steer the terminal it is listed on.
pub(super) fn clean(name: &str) -> String {
    let mut name: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    name.truncate(name.floor_char_boundary(MAX_NAME));
    name
}

fn spawn(config: &Config, dir: &SessionDir) -> std::io::Result<Child> {
    let (program, args) = config.holder.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
    // The holder needs nothing from our environment, and what it has cannot leak. No secret stands in its arguments.
    Command::new(program)
        .args(args)
        .arg("--dir")
        .arg(dir.path())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
}

async fn ready(holder: &mut Child) -> Result<Start, CreateError> {
    let stdout = holder.stdout.take().ok_or(CreateError::Died)?;
    let mut line = Vec::new();
    BufReader::new(stdout.take(MAX_READY_LINE)).read_until(b'\n', &mut line).await.map_err(CreateError::Spawn)?;
    serde_json::from_slice(&line).map_err(|_| CreateError::Died)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_read_as_people_write_them() {
        let home = Path::new("/home/me");
        for (cwd, wanted) in [
            (None, "/home/me"),
            (Some("~"), "/home/me"),
            (Some("~/x"), "/home/me/x"),
            (Some("x"), "/home/me/x"),
            (Some("/x"), "/x"),
        ] {
            assert_eq!(resolve(home, cwd.map(PathBuf::from)), Path::new(wanted));
        }
    }

    #[test]
    fn a_name_is_short_and_harmless() {
        assert_eq!(clean("a\x1b[2Jb"), "a [2Jb");
        assert_eq!(clean(&"ä".repeat(100)).len(), MAX_NAME);
    }
}
