//! The property list of launchd, for the user's own agents. Nobody has run it yet: no test of ours runs on macOS.

use std::fmt::Write;
use std::path::PathBuf;

use super::{STOP_SECONDS, Service};

/// The line by which a list of ours is known again.
pub const MARK: &str = "<!-- Written by `happy daemon install`; `happy daemon uninstall` takes it away. -->";

/// The job's label, which is also the name of its file.
pub fn label(service: &Service) -> String {
    format!("happy-remote.daemon{}", service.suffix)
}

/// Where the user's agents are; none without a home directory.
pub fn folder() -> Option<PathBuf> {
    std::env::home_dir().map(|home| home.join("Library/LaunchAgents"))
}

/// The list.
pub fn text(service: &Service) -> String {
    let mut command = String::new();
    for word in service.command() {
        let _ = writeln!(command, "    <string>{}</string>", escaped(word));
    }
    let environment = match service.environment() {
        Some((name, value)) => format!(
            "  <key>EnvironmentVariables</key>\n  <dict>\n    <key>{name}</key>\n    <string>{}</string>\n  </dict>\n",
            escaped(value)
        ),
        None => String::new(),
    };
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
{MARK}
<plist version="1.0">
<dict>
  <key>Label</key>
  <string>{label}</string>
  <key>ProgramArguments</key>
  <array>
{command}  </array>
{environment}  <!-- With the login, and again when it fails; a daemon that was stopped stays so. -->
  <key>RunAtLoad</key>
  <true/>
  <key>KeepAlive</key>
  <dict>
    <key>SuccessfulExit</key>
    <false/>
  </dict>
  <!-- Sessions outlive the daemon. -->
  <key>AbandonProcessGroup</key>
  <true/>
  <!-- People wait for what it does. -->
  <key>ProcessType</key>
  <string>Interactive</string>
  <key>ExitTimeOut</key>
  <integer>{STOP_SECONDS}</integer>
</dict>
</plist>
"#,
        label = escaped(&label(service)),
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use plist::Value;

    use super::super::odd;
    use super::*;
    use crate::store::Home;

    fn read(service: &Service) -> plist::Dictionary {
        Value::from_reader_xml(text(service).as_bytes()).unwrap().into_dictionary().unwrap()
    }

    #[test]
    fn the_list_is_a_property_list_and_says_what_launchd_knows() {
        let list = read(&odd());
        let words: Vec<_> =
            list["ProgramArguments"].as_array().unwrap().iter().map(|w| w.as_string().unwrap()).collect();
        assert_eq!(words, ["/opt/my tools/%n $x \\ \"happy\"", "daemon", "start-sync", "--api-port", "0"]);
        let environment = list["EnvironmentVariables"].as_dictionary().unwrap();
        assert_eq!(environment["HAPPY_HOME_DIR"].as_string(), Some("/srv/a \"home\" of 100% $HOME"));
        // Each key with the type that launchd.plist(5) gives it.
        assert!(list["Label"].as_string().is_some_and(|label| label.starts_with("happy-remote.daemon-")));
        assert_eq!(list["RunAtLoad"].as_boolean(), Some(true));
        assert_eq!(list["AbandonProcessGroup"].as_boolean(), Some(true));
        assert_eq!(list["KeepAlive"].as_dictionary().unwrap()["SuccessfulExit"].as_boolean(), Some(false));
        assert_eq!(list["ProcessType"].as_string(), Some("Interactive"));
        assert_eq!(list["ExitTimeOut"].as_unsigned_integer(), Some(STOP_SECONDS));
        assert_eq!(list.len(), 8, "a key that no line above knows");
    }

    #[test]
    fn a_path_with_markup_is_text_and_nothing_else() {
        let evil = "/a</string><key>x</key>&amp;<![CDATA[b]]>";
        let service = Service::new(evil.into(), &Home::at("/h&<".into()).unwrap(), Vec::new()).unwrap();
        let list = read(&service);
        assert_eq!(list["ProgramArguments"].as_array().unwrap()[0].as_string(), Some(evil));
        assert_eq!(list["EnvironmentVariables"].as_dictionary().unwrap()["HAPPY_HOME_DIR"].as_string(), Some("/h&<"));
    }
}
