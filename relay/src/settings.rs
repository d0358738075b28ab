//! What the relay runs with: where each setting comes from, whether all of them can work, and how that is shown.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{ArgAction, CommandFactory as _};
use happy_relay::{Policy, Relay, acme, certificates};
use serde_json::{Map, json};

use crate::cli::{Cli, Serve};
use crate::parts::{self, Tls};
use crate::sources::Sources;
use crate::{descriptors, file};

/// A certificate that ends sooner than this is worth a word: whoever renews it should have done so by now, in days.
const SOON: i64 = 14;

/// What is wrong, and what is worth knowing.
#[derive(Default)]
struct Findings {
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Findings {
    /// Keeps what was found, or notes why it was not.
    fn take<T, E: Into<anyhow::Error>>(&mut self, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.problems.push(format!("{:#}", error.into()))).ok()
    }
}

/// `happy-relay check-config`. True when the relay could start.
///
/// # Errors
/// When the standard output cannot be written.
pub(crate) fn check(serve: &Serve, sources: &Sources) -> anyhow::Result<bool> {
    let findings = look(serve, sources);
    let rows = rows(serve, sources);
    let mut out = anstream::stdout();
    let text = if serve.json {
        let settings: Map<_, _> =
            rows.iter().map(|row| (row.key.clone(), json!({ "value": row.value, "from": row.source }))).collect();
        let Findings { problems, warnings } = &findings;
        json!({ "ok": problems.is_empty(), "problems": problems, "warnings": warnings, "settings": settings })
            .to_string()
    } else {
        table(&rows, &findings)
    };
    writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()).context("cannot write to the standard output")?;
    Ok(findings.problems.is_empty())
}

/// Everything that can be known without starting.
fn look(serve: &Serve, sources: &Sources) -> Findings {
    let mut findings = Findings { warnings: warnings(serve, sources), ..Findings::default() };
    findings.take(serve.check_app(sources));
    findings.take(serve.metrics(sources));
    findings.take(parts::log_filter(&serve.log, &sources.name("log")));
    findings.take(Relay::new(serve.config()));
    findings.take(serve.redis(sources));
    findings.take(serve.direct(sources));
    match findings.take(serve.tls(sources)) {
        Some(Tls::Files(files)) => {
            if let Some(found) = findings.take(files.read()) {
                look_at_certificate(serve, &found, &mut findings);
            }
        }
        Some(Tls::Acme(acme)) => {
            if let Some(note) = findings.take(acme.look()) {
                findings.warnings.extend(note);
            }
            if serve.listen.port() != 443 {
                findings.warnings.push(format!(
                    "an ACME authority asks at port 443 of each name; port {} must be what is reached there",
                    serve.listen.port()
                ));
            }
        }
        Some(Tls::None) if !serve.listen.ip().is_loopback() => findings.warnings.push(format!(
            "no TLS: devices connect by https, so there must be a proxy in front; or give {} and {}, or {}",
            sources.name("tls_cert"),
            sources.name("tls_key"),
            sources.name("acme")
        )),
        Some(Tls::None) | None => {}
    }
    if serve.name.is_empty() && !serve.listen.ip().is_loopback() {
        let name = sources.name("name");
        findings
            .warnings
            .push(format!("no {name}: the Host header is believed; name the relay if strangers can reach it"));
    }
    look_at_descriptors(serve, sources, &mut findings);
    findings
}

/// What is no reason not to start, and is said by `serve` as well.
pub(crate) fn warnings(serve: &Serve, sources: &Sources) -> Vec<String> {
    [exposed(serve, sources), without_effect(serve, sources)].concat()
}

/// Settings that change nothing as the others are. `acme_dir` is not among them: the unit for systemd always has it.
fn without_effect(serve: &Serve, sources: &Sources) -> Vec<String> {
    let of_acme = [
        ("acme_email", serve.acme_email.is_some()),
        ("acme_directory", serve.acme_directory != acme::PRODUCTION),
        ("acme_staging", serve.acme_staging),
        ("acme_root", serve.acme_root.is_some()),
    ];
    let idle = of_acme.into_iter().filter(|(_, given)| *given && !serve.acme);
    let mut warnings: Vec<_> =
        idle.map(|(id, _)| format!("{} has no effect without {}", sources.name(id), sources.name("acme"))).collect();
    if serve.access == Some(Policy::Open) && !serve.enrol_key.is_empty() {
        let (access, keys) = (sources.name("access"), sources.name("enrol_key"));
        warnings.push(format!("{access} is `open`, so everybody may use the relay, and {keys} keeps nobody out"));
    }
    warnings
}

/// Files with secrets that others on this machine can read. It is no reason not to start: the relay works, and worked so before.
fn exposed(serve: &Serve, sources: &Sources) -> Vec<String> {
    // The relay's own file has no reader but the relay.
    const NOBODY_ELSE: u32 = 0o077;
    // Keys are given to a group, and the right of a group is also what stands for the access list of a credential of systemd.
    const NOT_EVERYBODY: u32 = 0o007;
    let password = sources.is_from_file("redis")
        && serve.redis(sources).is_ok_and(|url| url.is_some_and(|url| url.has_password()));
    let files = [
        (serve.config.as_deref().filter(|_| password), NOBODY_ELSE, "the password of Redis"),
        (serve.redis_file.as_deref(), NOT_EVERYBODY, "the address of Redis"),
        (serve.direct_secret_file.as_deref(), NOT_EVERYBODY, "the secret of the nodes"),
        (serve.tls_key.as_deref(), NOT_EVERYBODY, "the key of the certificate"),
    ];
    let open = files.into_iter().filter_map(|(path, others, what)| Some((path?, others, what)));
    open.filter(|(path, others, _)| mode(path).is_some_and(|mode| mode & others != 0))
        .map(|(path, others, what)| {
            let who = if others == NOBODY_ELSE { "go" } else { "o" };
            let path = path.display();
            format!(
                "others on this machine can read {path}, which holds {what}; take that right away: chmod {who}= {path}"
            )
        })
        .collect()
}

#[cfg(unix)]
fn mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().ok().map(|metadata| metadata.permissions().mode())
}

#[cfg(not(unix))]
fn mode(_: &Path) -> Option<u32> {
    None
}

fn look_at_certificate(serve: &Serve, found: &certificates::Found, findings: &mut Findings) {
    for name in serve.name.iter().filter(|name| !found.is_for(name)) {
        findings.problems.push(format!("the certificate is not for `{name}`; devices that dial it would refuse it"));
    }
    match found.days_left() {
        left if left < 0 => findings.problems.push("the certificate has ended; devices refuse it: renew it".into()),
        left if left < SOON => findings.warnings.push(format!("the certificate ends in {left} days")),
        _ => {}
    }
}

fn look_at_descriptors(serve: &Serve, sources: &Sources, findings: &mut Findings) {
    let wanted = descriptors::wanted(serve);
    if let Some(limit) = descriptors::granted().filter(|limit| *limit < wanted) {
        findings.warnings.push(format!(
            "this shell lets a process have {limit} descriptors, and {wanted} are wanted; raise it (`ulimit -Hn {wanted}` as root, LimitNOFILE in the unit) or lower {}",
            sources.name("max_connections")
        ));
    }
}

struct Row {
    key: String,
    value: String,
    source: &'static str,
}

/// The settings in the order of `--help`, none of them secret.
fn rows(serve: &Serve, sources: &Sources) -> Vec<Row> {
    let command = Cli::command();
    let Some((name, given)) = sources.matches.subcommand() else { return Vec::new() };
    let arguments = command.find_subcommand(name).into_iter().flat_map(|command| command.get_arguments());
    arguments
        .filter(|argument| file::is_setting(argument))
        .filter_map(|argument| {
            let id = argument.get_id().as_str();
            let value = match argument.get_action() {
                ArgAction::SetTrue => given.get_flag(id).to_string(),
                // An enrolment key that could be read is public; what could not be read is not shown by the parser.
                _ if id == "redis" => shown_address(serve, sources, given.contains_id(id)),
                // Where there is no such file, it may be the secret itself.
                _ if ["redis_file", "direct_secret_file", "tls_key"].contains(&id)
                    && given.get_one::<PathBuf>(id).is_some_and(|file| !file.exists()) =>
                {
                    file::NOT_SHOWN.into()
                }
                _ => {
                    let values = given.get_raw(id).into_iter().flatten();
                    values.map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(", ")
                }
            };
            Some(Row { key: file::key_of(argument)?, value, source: sources.label(id) })
        })
        .collect()
}

/// The address of Redis shows itself without user and password.
fn shown_address(serve: &Serve, sources: &Sources, given: bool) -> String {
    match serve.redis(sources) {
        _ if !given => String::new(),
        Ok(Some(url)) => url.to_string(),
        _ => file::NOT_SHOWN.into(),
    }
}

fn table(rows: &[Row], findings: &Findings) -> String {
    let (bold, dim) = (anstyle::Style::new().bold(), anstyle::Style::new().dimmed());
    let width = |column: fn(&Row) -> usize| rows.iter().map(column).max().unwrap_or(0);
    let (keys, values) = (width(|row| row.key.len()), width(|row| row.value.chars().count()).min(48));
    let mut text = String::new();
    for Row { key, value, source } in rows {
        let value = if value.is_empty() { "-" } else { value };
        let style = if *source == "default" { dim } else { bold };
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{key:keys$}  {style}{value:values$}{style:#}  {dim}{source}{dim:#}");
    }
    let kinds = [
        ("problem", anstyle::AnsiColor::Red, &findings.problems),
        ("warning", anstyle::AnsiColor::Yellow, &findings.warnings),
    ];
    for (kind, colour, lines) in kinds {
        let style = colour.on_default().bold();
        for line in lines {
            let _ = write!(text, "\n{style}{kind}{style:#}  {line}");
        }
    }
    if findings.problems.is_empty() {
        let style = anstyle::AnsiColor::Green.on_default().bold();
        let _ = write!(text, "\n{style}ok{style:#}  the relay can start with this");
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::{Arg, Command};

    use super::*;

    fn serve() -> Command {
        Cli::command().find_subcommand("serve").unwrap().clone()
    }

    fn settings(serve: &Command) -> Vec<&Arg> {
        serve.get_arguments().filter(|argument| file::is_setting(argument)).collect()
    }

    fn default_of(argument: &Arg) -> Option<String> {
        argument.get_default_values().first().map(|value| value.to_string_lossy().into_owned())
    }

    fn in_repository(path: &str) -> (PathBuf, String) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
        let text = std::fs::read_to_string(&path).unwrap();
        (path, text)
    }

    /// Each line `#key = value`, as key and value.
    fn shown(text: &str) -> Vec<(&str, &str)> {
        let lines = text.lines().filter(|line| line.starts_with('#') && !line.starts_with("# "));
        lines.map(|line| line[1..].split_once(" = ").unwrap_or_else(|| panic!("{line}"))).collect()
    }

    #[test]
    fn the_example_file_shows_every_setting_with_its_default() {
        let (path, text) = in_repository("deploy/happy-relay.toml");
        let serve = serve();
        let shown = shown(&text);
        for argument in settings(&serve) {
            let key = file::key_of(argument).unwrap();
            let values: Vec<_> = shown.iter().filter(|(shown, _)| *shown == key).map(|(_, value)| *value).collect();
            let [value] = values.as_slice() else {
                panic!("deploy/happy-relay.toml shows `{key}` {} times", values.len())
            };
            let flag = matches!(argument.get_action(), ArgAction::SetTrue).then(|| "false".to_owned());
            if let Some(default) = flag.or(default_of(argument)) {
                assert_eq!(value.trim_matches('"'), default, "the default of {key} in deploy/happy-relay.toml");
            }
        }
        assert_eq!(shown.len(), settings(&serve).len(), "it shows nothing else");
        assert!(file::read(&path, &serve).unwrap().is_empty(), "as it stands it changes nothing");
        let uncommented: String = shown.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f.toml"), uncommented).unwrap();
        assert_eq!(
            file::read(&folder.path().join("f.toml"), &serve).unwrap().len(),
            shown.len(),
            "each line can be used"
        );
    }

    /// The table of docs/OPERATE.md.
    fn table_of(serve: &Command) -> String {
        let mut text = String::from("| setting | variable | without it | |\n|---|---|---|---|\n");
        for argument in settings(serve) {
            let key = file::key_of(argument).unwrap();
            let variable = argument.get_env().unwrap().to_string_lossy();
            let default = default_of(argument).filter(|_| argument.get_action().takes_values());
            let default = default.map_or(String::new(), |default| format!("`{default}`"));
            let help = argument.get_help().unwrap().to_string();
            let more =
                argument.get_long_help().map_or(help, ToString::to_string).replace('\n', " ").replace('|', "\\|");
            let _ = writeln!(text, "| `{key}` | `{variable}` | {default} | {more} |");
        }
        text
    }

    #[test]
    fn the_operators_page_lists_every_setting() {
        let (_, page) = in_repository("docs/OPERATE.md");
        let table = table_of(&serve());
        assert!(page.contains(&table), "the table under \"Settings\" in docs/OPERATE.md must be:\n\n{table}");
    }

    /// The time that a shutdown may take stands in four places.
    #[test]
    fn whoever_stops_the_relay_waits_until_it_has_stopped() {
        let number = |path: &str, key: &str| -> u64 {
            let (_, text) = in_repository(path);
            let line = text.lines().map(str::trim).find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim().trim_end_matches('s').parse().unwrap()
        };
        let needed = crate::GRACE.as_secs() + 2;
        assert!(number("deploy/happy-relay.service", "TimeoutStopSec=") >= needed);
        assert!(number("deploy/docker-compose.yml", "stop_grace_period:") >= needed);
        let pause = number("deploy/kubernetes/relay.yaml", "seconds:");
        assert!(number("deploy/kubernetes/relay.yaml", "terminationGracePeriodSeconds:") >= pause + needed);
    }
}
