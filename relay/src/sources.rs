//! Where each setting comes from, and what whoever gave it calls it.

use std::collections::HashMap;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use crate::file::{self, Place};

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Default,
    Flag,
    Variable,
    File(Place),
}

/// A setting's three names, and the place of its value.
struct Setting {
    key: String,
    flag: String,
    variable: String,
    source: Source,
}

/// All settings, by the names of their fields.
#[derive(Default)]
pub(crate) struct Sources {
    settings: HashMap<String, Setting>,
    has_file: bool,
    pub(crate) matches: ArgMatches,
}

impl Sources {
    /// As flags and variables have it.
    pub(crate) fn of(given: &ArgMatches, command: &Command) -> Self {
        let setting = |argument: &Arg| {
            let id = argument.get_id().to_string();
            let source = match given.value_source(&id) {
                Some(ValueSource::CommandLine) => Source::Flag,
                Some(ValueSource::EnvVariable) => Source::Variable,
                _ => Source::Default,
            };
            let key = file::key_of(argument)?;
            let flag = format!("--{}", argument.get_long()?);
            let variable = argument.get_env()?.to_string_lossy().into_owned();
            Some((id, Setting { key, flag, variable, source }))
        };
        let settings = command.get_arguments().filter(|argument| file::is_setting(argument)).filter_map(setting);
        let has_file = given.value_source("config").is_some();
        Self { settings: settings.collect(), has_file, matches: ArgMatches::default() }
    }

    /// Whether a setting of the file counts: no flag and no variable says otherwise.
    pub(crate) fn take(&mut self, id: &str, place: &Place) -> bool {
        self.settings.get_mut(id).is_some_and(|Setting { source, .. }| {
            let counts = *source == Source::Default;
            if counts {
                *source = Source::File(place.clone());
            }
            counts
        })
    }

    /// `flag`, `variable`, `file` or `default`.
    pub(crate) fn label(&self, id: &str) -> &'static str {
        match self.settings.get(id).map(|setting| &setting.source) {
            Some(Source::Flag) => "flag",
            Some(Source::Variable) => "variable",
            Some(Source::File(_)) => "file",
            Some(Source::Default) | None => "default",
        }
    }

    pub(crate) fn is_from_file(&self, id: &str) -> bool {
        self.label(id) == "file"
    }

    /// A setting as whoever gave it wrote it, with its line in a file. One that nobody gave is called as the others are given.
    pub(crate) fn name(&self, id: &str) -> String {
        let Some(Setting { key, flag, variable, source }) = self.settings.get(id) else { return format!("`{id}`") };
        match source {
            Source::Flag => flag.clone(),
            Source::Variable => variable.clone(),
            Source::File(place) => format!("`{key}` ({place})"),
            Source::Default if self.has_file => format!("`{key}`"),
            Source::Default if self.settings.values().any(|setting| setting.source == Source::Variable) => {
                variable.clone()
            }
            Source::Default => flag.clone(),
        }
    }

    pub(crate) fn with(self, matches: ArgMatches) -> Self {
        Self { matches, ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    fn of(typed: &[&str]) -> Sources {
        let serve = Cli::command().find_subcommand("serve").unwrap().clone();
        Sources::of(&serve.clone().get_matches_from([&["serve"][..], typed].concat()), &serve)
    }

    #[test]
    fn a_flag_goes_before_a_variable_and_that_before_the_file() {
        let mut sources = of(&["--listen", "127.0.0.1:1"]);
        let place = Place::new(Path::new("f.toml"), 7);
        let mut take = |id| sources.take(id, &place);
        assert!(!take("listen") && take("log") && !take("config"));
        assert_eq!((sources.label("listen"), sources.label("log"), sources.label("name")), ("flag", "file", "default"));
    }

    #[test]
    fn a_setting_is_called_as_it_was_given() {
        let mut sources = of(&["--listen", "127.0.0.1:1"]);
        assert_eq!((sources.name("listen"), sources.name("name")), ("--listen".into(), "--name".into()));
        sources = of(&["--config", "f.toml", "--listen", "127.0.0.1:1"]);
        sources.take("direct_as", &Place::new(Path::new("f.toml"), 7));
        assert_eq!(sources.name("direct_as"), "`direct_as` (f.toml, line 7)");
        assert_eq!((sources.name("listen"), sources.name("direct")), ("--listen".into(), "`direct`".into()));
    }
}
