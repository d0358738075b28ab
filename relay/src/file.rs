//! The settings file: TOML, whose keys are the flags of `serve` with `_` for `-`.
//!
//! There is no second list of settings. A key is looked up among the flags, and its value goes through the flag's own parser, so a new
//! flag with a variable is a new key as well.

use std::any::TypeId;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The most a settings file may hold, bytes. One with every setting and 16 keys has a few thousand.
const MAX_FILE: u64 = 256 * 1024;

/// What stands in place of a value that may be secret.
pub(crate) const NOT_SHOWN: &str = "(not shown)";

/// Why a settings file cannot be used. It quotes no value of the file, which may be a password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("cannot read the settings file {}: {said}; name another (--config or HAPPY_RELAY_CONFIG), or let the relay's user read it", path.display())]
    Unreadable { path: PathBuf, said: std::io::Error },
    #[error("{} is larger than {MAX_FILE} bytes; is it the settings file?", .0.display())]
    TooLarge(PathBuf),
    #[error(
        "{place}: this is no TOML: {said}; a setting is written `key = value`, with texts in quotes, and what is open in a line above must be closed"
    )]
    NotToml { place: Place, said: String },
    #[error("{place}: `{key}` stands in this file twice; keep one of them")]
    Twice { place: Place, key: String },
    #[error("{place}: there is no setting `{key}`{hint}; `happy-relay serve --help` names them all")]
    Unknown { place: Place, key: String, hint: String },
    #[error("{place}: `{key}` must be {wanted}")]
    Kind { place: Place, key: String, wanted: String },
    #[error("{place}: `{key}` cannot be this: {said}")]
    Value { place: Place, key: String, said: String },
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    path: PathBuf,
    line: usize,
}

impl Place {
    pub(crate) fn new(path: &Path, line: usize) -> Self {
        Self { path: path.to_owned(), line }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, line {}", self.path.display(), self.line)
    }
}

/// A setting in a file, and the arguments that say the same.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The name of the flag's field.
    pub(crate) id: String,
    pub(crate) place: Place,
    pub(crate) arguments: Vec<OsString>,
}

/// Whether an argument of `serve` is a setting: those with a variable are, but for the one that names the file.
pub(crate) fn is_setting(argument: &Arg) -> bool {
    argument.get_env().is_some() && argument.get_id() != "config"
}

/// The key of a setting in the file.
pub(crate) fn key_of(argument: &Arg) -> Option<String> {
    argument.get_long().map(|long| long.replace('-', "_"))
}

/// Reads a file as arguments of `serve`.
///
/// # Errors
/// [`FileError`] names the line, and the key where there is one.
pub(crate) fn read(path: &Path, serve: &Command) -> Result<Vec<Entry>, FileError> {
    let unreadable = |said| FileError::Unreadable { path: path.to_owned(), said };
    let mut text = String::new();
    let read =
        File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text)).map_err(unreadable)?;
    if read as u64 > MAX_FILE {
        return Err(FileError::TooLarge(path.to_owned()));
    }
    parse(path, &text, serve)
}

fn parse(path: &Path, text: &str, serve: &Command) -> Result<Vec<Entry>, FileError> {
    let place = |at: usize| {
        let before = text.as_bytes().get(..at).unwrap_or_default();
        Place::new(path, 1 + before.iter().filter(|byte| **byte == b'\n').count())
    };
    let table = DeTable::parse(text).map_err(|error| {
        let place = place(error.span().map_or(0, |span| span.start));
        let line = text.lines().nth(place.line - 1).unwrap_or_default();
        not_toml(place, line, error.message(), serve)
    })?;
    let mut entries = Vec::new();
    for (key, value) in table.get_ref() {
        let (key, place) = (key.get_ref().to_string(), place(key.span().start));
        let Some(argument) = find(serve, &key) else {
            let alone = if matches!(value.get_ref(), DeValue::Table(_)) { ", nor any table" } else { "" };
            let near = nearest(serve, &key).map_or(String::new(), |near| format!(", but `{near}`"));
            return Err(FileError::Unknown { place, key, hint: format!("{alone}{near}") });
        };
        let wanted = || expected(argument, &key);
        let Some(arguments) = arguments(argument, value) else {
            return Err(FileError::Kind { place, wanted: wanted(), key });
        };
        if let Err(said) = try_alone(serve, &arguments) {
            return Err(match is_number(argument) {
                true => FileError::Kind { place, wanted: wanted(), key },
                false => FileError::Value { place, key, said },
            });
        }
        entries.push(Entry { id: argument.get_id().to_string(), place, arguments });
    }
    Ok(entries)
}

/// What is wrong with a line that the parser does not understand. Most often it is a text without quotes, which parsers call by other names.
fn not_toml(place: Place, line: &str, said: &str, serve: &Command) -> FileError {
    let key = line.split('=').next().unwrap_or_default().trim().to_owned();
    match find(serve, &key) {
        Some(_) if said == "duplicate key" => FileError::Twice { place, key },
        // With the lines above it may be wrong for their sake.
        Some(argument) if line.contains('=') && DeTable::parse(line).is_err() => {
            FileError::Kind { place, wanted: expected(argument, &key), key }
        }
        _ => FileError::NotToml { place, said: said.to_owned() },
    }
}

/// The setting that was meant, most likely.
fn nearest(serve: &Command, key: &str) -> Option<String> {
    /// At one, they are the same. Of two letters that changed places, one that lacks, and a beginning, the setting is found; of other words none is.
    const ALIKE: f64 = 0.85;
    let key = key.replace('-', "_").to_lowercase();
    let keys = serve.get_arguments().filter(|argument| is_setting(argument)).filter_map(key_of);
    let alike = keys.map(|known| (strsim::jaro_winkler(&known, &key), known)).filter(|(alike, _)| *alike >= ALIKE);
    alike.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, known)| known)
}

/// What a setting's value looks like.
fn expected(argument: &Arg, key: &str) -> String {
    let default = argument.get_default_values().first().map_or("…".into(), |value| value.to_string_lossy());
    match argument.get_action() {
        ArgAction::SetTrue => "true or false, without quotes".into(),
        ArgAction::Append => format!("a list of texts in quotes, as in {key} = [\"…\", \"…\"]"),
        _ if is_number(argument) => format!("a whole number from 0 on, as in {key} = {default}"),
        _ => format!("a text in quotes, as in {key} = \"{default}\""),
    }
}

fn is_number(argument: &Arg) -> bool {
    argument.get_value_parser().type_id() == TypeId::of::<u32>()
}

fn find<'a>(serve: &'a Command, key: &str) -> Option<&'a Arg> {
    serve
        .get_arguments()
        .filter(|argument| is_setting(argument))
        .find(|argument| key_of(argument).as_deref() == Some(key))
}

/// What would be typed for the same; none when the value is of another kind.
fn arguments(argument: &Arg, value: &Spanned<DeValue<'_>>) -> Option<Vec<OsString>> {
    let flag = argument.get_long().unwrap_or_default();
    let with = |value: &DeValue<'_>| scalar(value).map(|text| OsString::from(format!("--{flag}={text}")));
    match (argument.get_action(), value.get_ref()) {
        (ArgAction::SetTrue, DeValue::Boolean(true)) => Some(vec![format!("--{flag}").into()]),
        (ArgAction::SetTrue, DeValue::Boolean(false)) => Some(Vec::new()),
        (ArgAction::SetTrue, _) => None,
        (ArgAction::Append, DeValue::Array(items)) => items.iter().map(|item| with(item.get_ref())).collect(),
        (_, value) => Some(vec![with(value)?]),
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().replace('_', "")),
        _ => None,
    }
}

/// Gives the arguments of one key to the parser of all, so that what is wrong with it can be said with its line.
fn try_alone(serve: &Command, arguments: &[OsString]) -> Result<(), String> {
    let all = std::iter::once(OsString::from("serve")).chain(arguments.iter().cloned());
    match serve.clone().try_get_matches_from(all) {
        Ok(_) => Ok(()),
        // Whether it goes with the others is seen when all of them are there.
        Err(error) if matches!(error.kind(), ErrorKind::MissingRequiredArgument | ErrorKind::ArgumentConflict) => {
            Ok(())
        }
        // The parser's own words on a value stand behind the last colon of the first line; before it stands the value, which may be secret.
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            Err(source.unwrap_or_else(|| error.kind().to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    fn serve() -> Command {
        Cli::command().find_subcommand("serve").unwrap().clone()
    }

    fn said(text: &str) -> String {
        parse(Path::new("f.toml"), text, &serve()).unwrap_err().to_string()
    }

    #[test]
    fn keys_become_the_flags_of_the_same_name() {
        let text = "listen = \"[::]:443\"\nname = [\"a.example\", \"b.example\"]\nno_app = true\nno_metrics = false\nmax_connections = 20_000\n";
        let entries = parse(Path::new("f.toml"), text, &serve()).unwrap();
        let arguments = |id: &str| entries.iter().find(|entry| entry.id == id).unwrap().arguments.clone();
        assert_eq!(arguments("listen"), ["--listen=[::]:443"]);
        assert_eq!(arguments("name"), ["--name=a.example", "--name=b.example"]);
        assert_eq!(arguments("no_app"), ["--no-app"]);
        assert_eq!(arguments("no_metrics"), [""; 0]);
        assert_eq!(arguments("max_connections"), ["--max-connections=20000"]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_key_and_line() {
        for (text, wanted) in [
            ("\nlistne = \"x\"", "f.toml, line 2: there is no setting `listne`, but `listen`;"),
            ("max-connections = 5", "line 1: there is no setting `max-connections`, but `max_connections`"),
            ("max_conections = 5", "there is no setting `max_conections`, but `max_connections`"),
            ("enroll_key = []", "there is no setting `enroll_key`, but `enrol_key`"),
            ("config = \"x\"", "there is no setting `config`;"),
            ("json = true", "there is no setting `json`;"),
            ("colour = true", "there is no setting `colour`;"),
            ("[tls]\ncert = \"x\"", "line 1: there is no setting `tls`, nor any table, but `tls_"),
            ("no_app = \"yes\"", "line 1: `no_app` must be true or false"),
            ("acme = yes", "line 1: `acme` must be true or false"),
            ("\n\nlisten = 1.5", "line 3: `listen` must be a text in quotes, as in listen = \"127.0.0.1:8080\""),
            ("\nlisten = 0.0.0.0:443\n", "line 2: `listen` must be a text in quotes"),
            ("listen = [\"127.0.0.1:1\"]", "line 1: `listen` must be a text"),
            ("listen = \"127.0.0.1:1", "line 1: `listen` must be a text in quotes"),
            ("name = [[\"x\"]]", "`name` must be a list"),
            ("name = relay.example", "line 1: `name` must be a list of texts in quotes, as in name = ["),
            ("listen = \"here\"", "line 1: `listen` cannot be this: it is no address; give an IP address and a port"),
            ("listen = \"localhost:1\"", "cannot be this: it is a name; give an IP address and a port"),
            ("listen = \"0.0.0.0\"", "cannot be this: the port is missing; give an IP address and a port"),
            ("listen = 8080", "cannot be this: the address is missing; give an IP address and a port"),
            ("listen = \":8080\"", "cannot be this: the address is missing"),
            (
                "max_connections = -1",
                "line 1: `max_connections` must be a whole number from 0 on, as in max_connections",
            ),
            ("max_rate = \"much\"", "`max_rate` must be a whole number"),
            ("access = \"closed\"", "there are `open`, `enrolled` and `vouched`"),
            ("# one\nlisten = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"", "line 3: `listen` stands in this file twice"),
            ("listen", "line 1: this is no TOML"),
            // The second line is as it should be; what is wrong began above it.
            ("name = [\"a\"\nlisten = \"127.0.0.1:1\"", "this is no TOML"),
        ] {
            let said = said(text);
            assert!(said.contains(wanted), "{text}: {said}");
        }
    }

    #[test]
    fn no_error_quotes_a_password() {
        for text in [
            "listen = \"geheim\"",
            "redis = \"redis://:geheim@x\" x",
            "redis = [\"redis://:geheim@x\"]",
            "redis \"geheim\"",
            "redis.geheim = 1",
            "enrol_key = \"geheim-geheim\"",
            "enrol_key = [\"geheim-geheim\"]",
            "enrol_key = [\"home:geheim-geheim\"]",
            "enrol_key = [\"home:geheim-geheim, b:c\"]",
            "enrol_key = \"geheim",
            "enrol_key = [geheim]",
            "direct_secret_file = [\"geheim\"]",
            "redis_file = {geheim = 1}",
            "tls_key = geheim",
        ] {
            let said = said(text);
            assert!(!said.contains("geheim"), "{said}");
        }
    }
}
