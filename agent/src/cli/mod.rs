//! The command line: arguments, and one file per family of commands.

mod attach;
mod audit;
mod client;
mod completions;
mod daemon;
mod dashboard;
mod devices;
mod enrol;
mod events;
mod export;
mod hook;
mod invite;
mod join;
mod logs;
mod metrics;
mod output;
mod panel;
mod play;
mod prompts;
mod queue;
mod record;
mod service;
mod sessions;
mod stdin;
mod steer;
mod tty;
mod typed;
mod up;
mod view;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cli::output::Form;
use crate::daemon::Taken;
use crate::store::Home;
use crate::trouble::Trouble;

/// Your terminals and coding agents, from your phone, end to end encrypted.
#[derive(Debug, Parser)]
#[command(name = "happy", version = crate::VERSION, after_help = HINTS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
}

// Help texts are written for 80 columns; nothing breaks their lines.
const HINTS: &str = "\
Begin with `happy up`. `happy COMMAND --help` tells more about each.

With --json each command prints one document, and what goes on for a while
prints one per line. Keys, settings and logs are in ~/.happy, or in the folder
that HAPPY_HOME_DIR names.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Start everything, or use the running daemon, and show a QR code.
    Up(UpArgs),
    /// Let another phone, browser or machine in.
    Pair(PairArgs),
    /// Reach another machine, with a link from its `happy pair`.
    Join(JoinArgs),
    /// Run a command in a new session and attach to it.
    Run(RunArgs),
    /// List the sessions, those of your tmux among them.
    Ls(MachineArg),
    /// Attach to a session; Ctrl-] leaves it, and it goes on.
    Attach(AttachArgs),
    /// End a session's program, or take an ended session off the list.
    Kill(KillArgs),
    /// Give a session another name.
    Rename(RenameArgs),
    /// Stop a session's program until it is resumed.
    Pause(SessionArgs),
    /// Let a paused session go on.
    Resume(SessionArgs),
    /// What waits for you: questions of programs in sessions.
    Prompts(MachineArg),
    /// Answer one of them.
    Answer(AnswerArgs),
    /// Ask you on behalf of a program that calls this as its hook.
    Hook(HookArgs),
    /// Record what a session prints, from now on.
    Record(RecordArgs),
    /// Play a recording in this terminal.
    Play(PlayArgs),
    /// Write a session or a recording as text, HTML or asciicast.
    Export(ExportArgs),
    /// Type a text into a session and press Enter.
    Type(TypeArgs),
    /// Show what was given for other machines and what became of it.
    Queue(QueueArgs),
    /// Print what happens to sessions and devices, as it happens.
    Events(MachineArg),
    /// Show which calls changed something or were refused.
    Audit(AuditArgs),
    /// Show what the sessions do and use.
    Metrics(MachineArg),
    /// Show all sessions of this machine in a browser on it.
    Dashboard(DashboardArgs),
    /// List the paired devices, rename or remove one.
    Devices(DevicesArgs),
    /// Start, stop or look at the background service.
    #[command(subcommand)]
    Daemon(DaemonCommand),
    /// Show the relays in use, or enrol this machine at one.
    Relay(RelayArgs),
    /// Show the daemon's log.
    Logs(LogsArgs),
    /// Print what lets your shell complete commands of happy.
    #[command(after_help = COMPLETIONS_HINTS)]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, one for each command.
    Man {
        /// The folder, for instance ~/.local/share/man/man1.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
}

const COMPLETIONS_HINTS: &str = "\
bash  happy completions bash > ~/.local/share/bash-completion/completions/happy
zsh   happy completions zsh > a folder of your fpath, as _happy
fish  happy completions fish > ~/.config/fish/completions/happy.fish";

// Unlike the commands for people it keeps nothing.
const START_SYNC_RELAY: &str = "\
Relay to use in this run, as https://HOST, or
`inside` for the one inside the daemon; it is
not kept in settings.json";

const HOOK_HINTS: &str = "\
Not for people: Claude Code and Codex are told to call it, in the hooks of
~/.claude/settings.json or ~/.codex/hooks.json, as a hook for PermissionRequest:

  { \"hooks\": { \"PermissionRequest\": [{ \"matcher\": \"*\", \"hooks\": [
    { \"type\": \"command\", \"command\": \"happy hook\", \"timeout\": 60 }] }] } }

It reads what they tell from standard input, asks on all your devices, and
prints what somebody decided. Without a session of happy, a daemon or an answer
it prints nothing, and the program asks in its terminal as ever.";

const ANSWER_HINTS: &str = "\
`happy prompts` lists what waits, with ids, names and numbers. For instance:

  happy answer 1a2b 1        happy answer build yes";

/// What decides how a daemon that is started now does its work.
#[derive(Debug, Clone, Default, Args)]
struct DaemonArgs {
    /// Relay to use from now on, as https://HOST, or
    /// `inside` for the one inside the daemon; kept in
    /// settings.json (HAPPY_SERVER_URL is not kept)
    #[arg(long, value_name = "URL", verbatim_doc_comment)]
    relay: Option<String>,
    /// Port of the relay inside; 0 for any free one.
    #[arg(long, value_name = "PORT")]
    relay_port: Option<u16>,
    /// Port of the local API; 0 for any free one.
    #[arg(long, value_name = "PORT")]
    api_port: Option<u16>,
    /// No local API, and no dashboard.
    #[arg(long, conflicts_with = "api_port")]
    no_api: bool,
}

impl DaemonArgs {
    /// The relay to use, which unlike the flag may come from the environment.
    fn relay(&self) -> Option<String> {
        let relay = self.relay.clone().or_else(|| std::env::var("HAPPY_SERVER_URL").ok());
        relay.filter(|url| !url.is_empty())
    }

    fn options(&self, taken: Taken) -> crate::daemon::Options {
        crate::daemon::Options {
            relay: self.relay(),
            relay_port: self.relay_port,
            api_port: self.api_port,
            no_api: self.no_api,
            taken,
        }
    }

    fn to_arguments(&self) -> Vec<OsString> {
        let relay = self.relay().into_iter().flat_map(|relay| ["--relay".into(), relay.into()]);
        relay.chain(self.ports()).collect()
    }

    /// The part of them that is not the relay.
    fn ports(&self) -> Vec<OsString> {
        let mut out = Vec::new();
        let mut push = |flag: &str, value: String| out.extend([flag.into(), value.into()]);
        if let Some(port) = self.relay_port {
            push("--relay-port", port.to_string());
        }
        if let Some(port) = self.api_port {
            push("--api-port", port.to_string());
        }
        if self.no_api {
            out.push("--no-api".into());
        }
        out
    }
}

#[derive(Debug, Args)]
struct UpArgs {
    #[command(flatten)]
    daemon: DaemonArgs,
    #[command(flatten)]
    invitation: InvitationArgs,
}

#[derive(Debug, Args)]
#[command(after_help = DASHBOARD_HINTS)]
struct DashboardArgs {
    /// Open it in the browser as well.
    #[arg(long, conflicts_with = "set_password")]
    open: bool,
    /// Set the password with which a browser gets in without
    /// this command; it is asked for, or the first line of
    /// standard input
    #[arg(long, verbatim_doc_comment)]
    set_password: bool,
}

const DASHBOARD_HINTS: &str = "\
It prints an address that lets one browser in, once, within two minutes. The
daemon serves the dashboard itself, to this machine only unless `api_listen` in
settings.json says otherwise, which it does not do without a password.";

#[derive(Debug, Args)]
struct PairArgs {
    #[command(flatten)]
    invitation: InvitationArgs,
}

#[derive(Debug, Clone, Args)]
struct InvitationArgs {
    /// What the new device may do here:
    /// owner: everything, and remove devices [default]
    /// operator: start, steer and end sessions, change files
    /// viewer: look, not touch
    /// machine: sessions, for another machine of yours
    #[arg(
        long,
        value_enum,
        default_value = "owner",
        hide_default_value = true,
        hide_possible_values = true,
        verbatim_doc_comment
    )]
    role: RoleArg,
    /// The new device's name here; its own without one.
    #[arg(long)]
    name: Option<String>,
    /// Print links instead of the QR code.
    #[arg(long)]
    no_qr: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoleArg {
    /// Everything, and may remove other devices.
    Owner,
    /// Everything that concerns sessions, files and repositories.
    Operator,
    /// May look, not touch.
    Viewer,
    /// Another machine of yours.
    Machine,
}

impl From<RoleArg> for happy_rpc::Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Owner => happy_rpc::Role::Owner,
            RoleArg::Operator => happy_rpc::Role::Operator,
            RoleArg::Viewer => happy_rpc::Role::Viewer,
            RoleArg::Machine => happy_rpc::Role::Machine,
        }
    }
}

#[derive(Debug, Args)]
struct RelayArgs {
    #[command(subcommand)]
    command: Option<RelayCommand>,
}

#[derive(Debug, Subcommand)]
enum RelayCommand {
    /// Let a relay admit this machine, and the devices paired with
    /// it, by the secret that the relay's operator gave you
    #[command(verbatim_doc_comment, alias = "enrol")]
    Enroll {
        /// The relay, as https://HOST.
        url: String,
    },
}

#[derive(Debug, Args)]
struct JoinArgs {
    /// The link, as the other machine printed it, in quotes.
    link: String,
    /// What this machine is called there.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// A name for the session.
    #[arg(long)]
    name: Option<String>,
    /// Start it and leave it.
    #[arg(long, short)]
    detach: bool,
    /// The folder in which it starts.
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// How much output is kept for viewers that come back, as
    /// 500K, 10M or 1G, from 64K to 1G [default: 10M, or keep
    /// in settings.json]
    #[arg(long, value_name = "SIZE", verbatim_doc_comment)]
    keep: Option<crate::store::Keep>,
    /// Record what it prints, as `happy record` does; what is
    /// typed is not recorded
    #[arg(long, verbatim_doc_comment)]
    record: bool,
    /// Record it to this file, which must not be there yet.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["machine", "tmux"])]
    record_to: Option<PathBuf>,
    /// Make it a session of your tmux, which keeps its own
    /// history; --name names it there too
    #[arg(long, verbatim_doc_comment, conflicts_with_all = ["keep", "record"])]
    tmux: bool,
    #[command(flatten)]
    machine: MachineArg,
    #[command(flatten)]
    waiting: WaitingArgs,
    /// The program and its arguments; your shell without one.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<String>,
}

#[derive(Debug, Clone, Default, Args)]
struct MachineArg {
    /// Another machine: its name or the beginning of its id.
    // One id in 64 begins with a hyphen.
    #[arg(long, short, value_name = "NAME", allow_hyphen_values = true)]
    machine: Option<String>,
}

#[derive(Debug, Args)]
struct AttachArgs {
    /// The session: its id or the beginning of it, or its name.
    id: String,
    #[command(flatten)]
    machine: MachineArg,
    /// Write every byte of the output, exactly, also into a
    /// pipe; the program waits for this reader
    #[arg(long, verbatim_doc_comment)]
    lossless: bool,
    /// With --lossless: begin with the oldest byte that is
    /// still kept when the first is not
    #[arg(long, requires = "lossless", verbatim_doc_comment)]
    from_start: bool,
    /// Look, and type nothing; with --lossless the program
    /// does not wait for this reader
    #[arg(long, verbatim_doc_comment)]
    read_only: bool,
    /// Decide the size of the screen, whoever does now.
    #[arg(long, conflicts_with = "read_only")]
    take_control: bool,
    /// The key that leaves the session: ctrl- or ^ and a
    /// letter or one of [\]^_@, for instance ctrl-a
    /// [default: ctrl-], or detach_key in settings.json]
    #[arg(long, value_name = "KEY", verbatim_doc_comment)]
    detach_key: Option<String>,
}

#[derive(Debug, Args)]
struct KillArgs {
    /// The session: its id or the beginning of it, or its name.
    id: String,
    #[command(flatten)]
    machine: MachineArg,
    #[command(flatten)]
    waiting: WaitingArgs,
}

#[derive(Debug, Args)]
struct RenameArgs {
    /// The session: its id or the beginning of it, or its name.
    id: String,
    /// The name.
    name: String,
    #[command(flatten)]
    machine: MachineArg,
}

#[derive(Debug, Args)]
#[command(after_help = HOOK_HINTS)]
struct HookArgs {
    /// For how long somebody may answer, in seconds; then
    /// the program asks in its terminal
    #[arg(long, value_name = "SECONDS", default_value_t = 55, value_parser = clap::value_parser!(u64).range(1..=600), verbatim_doc_comment)]
    wait: u64,
}

#[derive(Debug, Args)]
#[command(after_help = ANSWER_HINTS)]
struct AnswerArgs {
    /// The prompt, by the beginning of its id; or its session, by
    /// that or by its name, when nothing else waits there
    #[arg(verbatim_doc_comment)]
    id: String,
    /// The choice: its number as `happy prompts` shows it, from 1,
    /// or its text or the beginning of that
    #[arg(verbatim_doc_comment)]
    choice: String,
    #[command(flatten)]
    machine: MachineArg,
}

#[derive(Debug, Args)]
struct SessionArgs {
    /// The session: its id or the beginning of it, or its name.
    id: String,
    #[command(flatten)]
    machine: MachineArg,
}

#[derive(Debug, Args)]
struct AuditArgs {
    /// How many lines, the newest.
    #[arg(long, short = 'n', default_value_t = 50)]
    lines: usize,
    /// Say whether a line was removed, changed or put in.
    #[arg(long)]
    verify: bool,
}

#[derive(Debug, Args)]
#[command(after_help = RECORD_HINTS)]
struct RecordArgs {
    /// The session: its id or the beginning of it, or its name.
    id: String,
    /// The file, which must not be there yet; one in
    /// ~/.happy/recordings without it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["stop", "machine"], verbatim_doc_comment)]
    to: Option<PathBuf>,
    /// How large it may become, as 100M, from 1M to 1024G
    /// [default: 1G]; then the recording ends
    #[arg(long, value_name = "SIZE", conflicts_with = "stop", value_parser = record::parse_limit, verbatim_doc_comment)]
    limit: Option<u64>,
    /// End the recording.
    #[arg(long)]
    stop: bool,
    #[command(flatten)]
    machine: MachineArg,
}

const RECORD_HINTS: &str = "\
A recording holds what the program prints, so all that is on its screen, and
never what is typed: a password that is not shown is not in it. It begins with
the screen as it is, goes on without a daemon, and ends with the program. It is
an asciicast (version 3), for `happy play`, asciinema and its players.";

#[derive(Debug, Args)]
#[command(after_help = PLAY_HINTS)]
struct PlayArgs {
    /// An asciicast of version 2 or 3; - is standard input.
    file: PathBuf,
    /// So many times as fast.
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = parse_speed)]
    speed: f64,
    /// Wait for no longer than so many seconds, whatever
    /// passed when it was recorded
    #[arg(long, value_name = "S", value_parser = parse_seconds, verbatim_doc_comment)]
    idle_limit: Option<f64>,
}

const PLAY_HINTS: &str = "\
Space stops it and lets it go on, . goes one step further when it stands still,
q or Ctrl-C leaves. In a pipe the output is written as it was recorded.";

fn parse_speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().ok().filter(|speed| (0.01..=1e6).contains(speed));
    speed.ok_or_else(|| "a speed is from 0.01 to 1000000; 2 is twice as fast".to_owned())
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=1e9).contains(seconds));
    seconds.ok_or_else(|| "a time is a number of seconds, for instance 0.5".to_owned())
}

#[derive(Debug, Args)]
#[command(after_help = EXPORT_HINTS)]
struct ExportArgs {
    /// A session, by its id, the beginning of it or its name;
    /// or a recording: a path with a / or one in .cast, or -
    #[arg(value_name = "SESSION|FILE", verbatim_doc_comment)]
    what: String,
    /// As what: text, html, cast (asciicast) or raw (the bytes
    /// of the output) [default: what --to ends in, or text]
    #[arg(long, value_name = "FORMAT", hide_possible_values = true, verbatim_doc_comment)]
    format: Option<ExportFormat>,
    /// With text or html: only the last screen, row by row,
    /// without what has scrolled off
    #[arg(long, verbatim_doc_comment)]
    screen: bool,
    /// Write to a file, which must not be there yet.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    #[command(flatten)]
    machine: MachineArg,
}

/// What something is exported as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum ExportFormat {
    /// Plain text: what has scrolled off and the screen.
    Text,
    /// The same with its colours, as a page.
    Html,
    /// An asciicast, version 3.
    Cast,
    /// The bytes of the output.
    Raw,
}

const EXPORT_HINTS: &str = "\
Of a session text and html are its history and screen, cast and raw what is
still kept of its output (10M unless it was started with --keep). When each byte
was printed is not known, so all of such an asciicast is shown at once; for one
with times, `happy record` it.";

/// What becomes of a command for another machine while there is no connection.
#[derive(Debug, Clone, Default, Args)]
struct WaitingArgs {
    /// How long it may wait for a connection, as 90s, 10m,
    /// 2h or 7d [default: 10m]; see `happy queue`
    #[arg(
        long,
        value_name = "TIME",
        requires = "machine",
        conflicts_with = "no_queue",
        value_parser = queue::parse_time,
        verbatim_doc_comment
    )]
    expires: Option<std::time::Duration>,
    /// Do it now or not at all.
    #[arg(long, requires = "machine")]
    no_queue: bool,
}

#[derive(Debug, Args)]
struct TypeArgs {
    /// The session: its id or the beginning of it, or its name.
    id: String,
    /// The text; several lines are one paste. One that begins
    /// with a hyphen goes behind `--`
    #[arg(verbatim_doc_comment)]
    text: String,
    /// Do not press Enter afterwards.
    #[arg(long)]
    no_enter: bool,
    #[command(flatten)]
    machine: MachineArg,
    #[command(flatten)]
    waiting: WaitingArgs,
}

#[derive(Debug, Args)]
struct QueueArgs {
    #[command(subcommand)]
    command: Option<QueueCommand>,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// Take a command back that was not sent yet.
    Cancel {
        /// Its number, as `happy queue` shows it.
        #[arg(value_parser = queue::parse_number)]
        number: u64,
    },
    /// Drop those that are over.
    Clear,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
struct DevicesArgs {
    #[command(flatten)]
    machine: MachineArg,
    #[command(subcommand)]
    command: Option<DevicesCommand>,
}

#[derive(Debug, Subcommand)]
enum DevicesCommand {
    /// Remove a device for good, or all of them.
    Revoke(RevokeArgs),
    /// Give a device another name.
    Rename {
        /// Its name or the beginning of its id.
        #[arg(allow_hyphen_values = true)]
        device: String,
        /// The name.
        name: String,
        #[command(flatten)]
        machine: MachineArg,
    },
}

#[derive(Debug, Args)]
struct RevokeArgs {
    /// Its name or the beginning of its id.
    #[arg(required_unless_present = "all", conflicts_with = "all", allow_hyphen_values = true)]
    device: Option<String>,
    /// Remove every device and every joined machine, and
    /// make new keys for this one, so that it is a new
    /// machine to all of them; sessions go on
    #[arg(long, verbatim_doc_comment, conflicts_with = "machine")]
    all: bool,
    /// With --all: do not ask.
    #[arg(long, requires = "all")]
    yes: bool,
    #[command(flatten)]
    machine: MachineArg,
}

#[derive(Debug, Subcommand)]
enum DaemonCommand {
    /// Start the daemon in the background.
    Start(DaemonArgs),
    /// Run it in the foreground, as a service manager wants it.
    #[command(mut_arg("relay", |relay| relay.help(START_SYNC_RELAY)))]
    StartSync {
        #[command(flatten)]
        daemon: DaemonArgs,
        /// Leave the terminal's session.
        #[arg(long, hide = true)]
        detached: bool,
        /// Somebody joins another machine, for which any ports will do.
        #[arg(long, hide = true)]
        joins: bool,
    },
    /// End the daemon; sessions go on.
    Stop,
    /// Say what the daemon is doing.
    Status,
    /// Show its log, as `happy logs` does.
    Logs(LogsArgs),
    /// Make it a service of systemd or launchd that starts
    /// with your login
    #[command(verbatim_doc_comment)]
    Install(InstallArgs),
    /// Take the service away; sessions go on.
    Uninstall {
        /// Of which service manager [default: this system's]
        #[arg(long, value_enum)]
        manager: Option<ManagerArg>,
    },
}

#[derive(Debug, Args)]
struct InstallArgs {
    /// Show what would be written, and do nothing.
    #[arg(long)]
    print: bool,
    /// For which service manager [default: this system's]
    #[arg(long, value_enum)]
    manager: Option<ManagerArg>,
    /// With systemd: start with the machine, and go on when
    /// you log out
    #[arg(long, verbatim_doc_comment)]
    linger: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ManagerArg {
    /// Of most Linux systems.
    Systemd,
    /// Of macOS.
    Launchd,
}

#[derive(Debug, Args)]
struct LogsArgs {
    /// How many lines.
    #[arg(long, short = 'n', default_value_t = 100)]
    lines: usize,
    /// Go on printing what is added.
    #[arg(long, short)]
    follow: bool,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "holder") {
        // The process of a session: no command for people, and it must come before any thread.
        return crate::holder::main(arguments);
    }
    if std::env::args_os().nth(1).is_some_and(|first| first == "print-environment") {
        // What a login shell is asked for by the daemon.
        let printed = crate::session::login::print_environment();
        return if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let cli = Cli::parse();
    let form = if cli.json { Form::Json } else { Form::Text };
    let outcome = run(cli, form).and_then(|code| output::is_whole().map(|()| code));
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(trouble) => {
            tty::restore();
            output::complain(form, &trouble);
            ExitCode::from(trouble.exit)
        }
    }
}

fn run(cli: Cli, form: Form) -> Result<u8, Trouble> {
    if let Command::Daemon(DaemonCommand::StartSync { detached: true, .. }) = cli.command {
        // Best effort: it fails only for the leader of a process group, which has no terminal to lose.
        let _ = rustix::process::setsid();
    }
    let home = Home::from_env()?;
    let serves = matches!(cli.command, Command::Daemon(DaemonCommand::StartSync { .. }));
    let runtime = runtime(serves).map_err(|error| {
        Trouble::new(
            format!("The process cannot start its threads: {}.", crate::trouble::reason(&error)),
            "Raise the limit on processes (`ulimit -u`) and try again.",
        )
    })?;
    let outcome = runtime.block_on(dispatch(cli.command, form, home));
    // A thread that waits for standard input would hold the process.
    runtime.shutdown_background();
    outcome
}

/// A thread for work that blocks waits so long for more of it. The daemon has a little every second, and the threads that wait take turns: with the ten
/// seconds that tokio gives them, as many as were once needed together would stay for ever.
const KEEP_ALIVE: Duration = Duration::from_millis(1_500);

/// A command has one thing to do at a time. The daemon has many, but it passes on what others make: holders, relays and programs need the
/// rest of the processors, and a thread that is woken for nothing costs a key more than one that has to wait.
fn runtime(serves: bool) -> std::io::Result<tokio::runtime::Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // Two at least: what holds one up, a disk that syncs say, holds up nobody else.
    let threads = if serves { (processors / 2).clamp(2, 4) } else { 1 };
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(threads)
        .thread_keep_alive(KEEP_ALIVE)
        .build()
}

async fn dispatch(command: Command, form: Form, home: Home) -> Result<u8, Trouble> {
    match command {
        Command::Up(args) => up::up(home, form, args).await,
        Command::Pair(args) => invite::pair(&home, form, args.invitation).await,
        Command::Join(args) => join::join(&home, form, args).await,
        Command::Run(args) => sessions::run(&home, form, args).await,
        Command::Ls(machine) => sessions::list(&home, form, machine).await,
        Command::Attach(args) => attach::attach(&home, form, args).await,
        Command::Kill(args) => sessions::kill(&home, form, args).await,
        Command::Rename(args) => steer::rename(&home, form, args).await,
        Command::Pause(args) => steer::pause(&home, form, args).await,
        Command::Resume(args) => steer::resume(&home, form, args).await,
        Command::Audit(args) => audit::audit(&home, form, &args),
        Command::Prompts(machine) => prompts::list(&home, form, machine).await,
        Command::Hook(args) => Ok(hook::hook(&home, args).await),
        Command::Answer(args) => prompts::answer(&home, form, args).await,
        Command::Record(args) => record::record(&home, form, args).await,
        Command::Play(args) => play::play(args).await,
        Command::Export(args) => export::export(&home, form, args).await,
        Command::Type(args) => queue::type_text(&home, form, args).await,
        Command::Queue(args) => match args.command {
            None => queue::list(&home, form).await,
            Some(QueueCommand::Cancel { number }) => queue::cancel(&home, form, number).await,
            Some(QueueCommand::Clear) => queue::clear(&home, form).await,
        },
        Command::Events(machine) => events::events(&home, form, machine).await,
        Command::Metrics(machine) => metrics::metrics(&home, form, machine).await,
        Command::Dashboard(args) => dashboard::dashboard(&home, form, &args).await,
        Command::Devices(args) => match args.command {
            None => devices::list(&home, form, args.machine).await,
            Some(DevicesCommand::Revoke(args)) => devices::revoke(&home, form, args).await,
            Some(DevicesCommand::Rename { device, name, machine }) => {
                devices::rename(&home, form, &device, name, machine).await
            }
        },
        Command::Daemon(command) => match command {
            DaemonCommand::Start(args) => daemon::start(&home, form, &args).await,
            DaemonCommand::StartSync { daemon, joins, .. } => daemon::start_sync(home, form, &daemon, joins).await,
            DaemonCommand::Stop => daemon::stop(&home, form).await,
            DaemonCommand::Status => daemon::status(&home, form).await,
            DaemonCommand::Logs(args) => logs::logs(&home, form, args).await,
            DaemonCommand::Install(args) => service::install(&home, form, args).await,
            DaemonCommand::Uninstall { manager } => service::uninstall(&home, form, manager).await,
        },
        Command::Relay(args) => match args.command {
            None => daemon::relay(&home, form).await,
            Some(RelayCommand::Enroll { url }) => enrol::enrol(&home, form, &url).await,
        },
        Command::Logs(args) => logs::logs(&home, form, args).await,
        Command::Completions { shell } => completions::completions(shell),
        Command::Man { to } => completions::man(form, &to),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_run_belongs_to_the_command() {
        let cli = Cli::try_parse_from(["happy", "run", "--name", "x", "ls", "-la", "--json"]).unwrap();
        let Command::Run(args) = cli.command else { panic!("not run") };
        assert_eq!(args.command, ["ls", "-la", "--json"]);
        assert!(!cli.json);
    }

    #[test]
    fn an_id_may_begin_with_a_hyphen() {
        let words = ["happy", "devices", "revoke", "-4mQx0aB", "--machine", "-hT8s_2k", "--json"];
        let cli = Cli::try_parse_from(words).unwrap();
        assert!(cli.json);
        let Command::Devices(DevicesArgs { command: Some(DevicesCommand::Revoke(args)), .. }) = cli.command else {
            panic!("not revoke")
        };
        assert_eq!((args.device.as_deref(), args.machine.machine.as_deref()), (Some("-4mQx0aB"), Some("-hT8s_2k")));
        assert!(Cli::try_parse_from(["happy", "devices", "revoke", "--help"]).is_err_and(|e| e.exit_code() == 0));
    }
}
