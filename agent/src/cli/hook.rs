//! `happy hook`: asks people on behalf of a program that can call a command when it wants a permission (`docs/PROMPTS.md`).
//!
//! Whatever goes wrong here, the program must be able to ask in its own terminal. So without a session, a daemon or an answer nothing is
//! printed, and the exit code is 0.

use std::io::Read;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::cli::HookArgs;
use crate::cli::client::Client;
use crate::cli::output::{say, tame};
use crate::daemon::local::{HookAnswer, HookAsk, HookCall};
use crate::store::Home;

/// The variable that names the session in which a program runs.
const SESSION: &str = "HAPPY_SESSION";

/// What a program may tell, bytes: a tool's input can be a whole file.
const MAX_INPUT: u64 = 1024 * 1024;

/// Characters of what a program wants to do that are shown of one value, and bytes of all of it. Nobody is asked to allow what cannot be shown
/// whole: what matters might stand behind the end.
const SHOWN: usize = 300;
const SHOWN_IN_ALL: usize = 800;

/// Tools of Claude Code that are themselves questions: it asks in its terminal whatever a hook allows, and does not tell the plan.
const QUESTIONS: [&str; 2] = ["AskUserQuestion", "ExitPlanMode"];

/// What Claude Code, and Codex after it, tell a hook. What else is in it is not needed.
#[derive(Debug, Deserialize)]
struct Told {
    hook_event_name: String,
    #[serde(default)]
    tool_name: String,
    #[serde(default)]
    tool_input: Value,
    #[serde(default)]
    message: String,
}

/// `happy hook`.
pub async fn hook(home: &Home, args: HookArgs) -> u8 {
    if let Some(decision) = decide(home, Duration::from_secs(args.wait)).await {
        say(&decision.to_string());
    }
    0
}

async fn decide(home: &Home, wait: Duration) -> Option<Value> {
    let session: Uuid = std::env::var(SESSION).ok()?.parse().ok()?;
    let mut input = Vec::new();
    std::io::stdin().lock().take(MAX_INPUT).read_to_end(&mut input).ok()?;
    let told: Told = serde_json::from_slice(&input).ok()?;
    let client = Client::connect(&home.socket(), None).await.ok()??;
    match told.hook_event_name.as_str() {
        "PermissionRequest" => {
            let choices = CHOICES.map(str::to_owned).into();
            let ask = HookAsk { session, question: question(&told)?, choices, wait_ms: wait.as_millis() as u64 };
            decision(&client.local(ask).await.ok()??)
        }
        "Notification" => {
            client.local(HookCall { session, text: told.message }).await.ok()?;
            None
        }
        _ => None,
    }
}

/// What people can say to a permission.
const CHOICES: [&str; 2] = ["Allow", "Deny"];

/// In the words of the program.
fn decision(answer: &HookAnswer) -> Option<Value> {
    let decision = match answer.choice {
        0 => json!({ "behavior": "allow" }),
        1 => json!({ "behavior": "deny", "message": format!("{} has denied it.", tame(&answer.by, 64)) }),
        _ => return None,
    };
    Some(json!({ "hookSpecificOutput": { "hookEventName": "PermissionRequest", "decision": decision } }))
}

/// What is to be allowed, a line for each of its values; nothing when it cannot be shown as it is.
fn question(told: &Told) -> Option<String> {
    if QUESTIONS.contains(&told.tool_name.as_str()) {
        return None;
    }
    let is_shown = |name: &str, most| name.chars().count() <= most && !name.chars().any(is_unseen);
    let values = match &told.tool_input {
        Value::Object(values) => values.clone(),
        Value::Null => serde_json::Map::new(),
        _ => return None,
    };
    if !is_shown(&told.tool_name, 64) || !values.keys().all(|name| is_shown(name, 40)) {
        return None;
    }
    let mut lines = vec![format!("Allow {}?", tame(&told.tool_name, 64))];
    for (name, value) in &values {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if value.chars().count() > SHOWN || value.chars().any(is_unseen) {
            return None;
        }
        // Lines of a value cannot be taken for another value.
        let value: Vec<String> = value.lines().map(|line| tame(line, SHOWN)).collect();
        lines.push(format!("{}: {}", tame(name, 40), value.join("\n│ ")));
    }
    Some(lines.join("\n")).filter(|question| question.len() <= SHOWN_IN_ALL)
}

/// Characters that are not shown, or that show others in another order.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_is_asked_for_and_told_as_the_program_wants_it() {
        let told: Told = serde_json::from_value(json!({
            "session_id": "x", "hook_event_name": "PermissionRequest", "tool_name": "Bash",
            "tool_input": { "command": "rm -rf build\u{1b}[2J", "timeout": 5 }
        }))
        .unwrap();
        let asked = question(&told).unwrap();
        assert!(asked.starts_with("Allow Bash?\ncommand: rm -rf build") && !asked.contains('\u{1b}'), "{asked}");
        let of = |choice| decision(&HookAnswer { choice, by: "phone".into() });
        assert_eq!(of(0).unwrap()["hookSpecificOutput"]["decision"], json!({ "behavior": "allow" }));
        assert_eq!(of(1).unwrap()["hookSpecificOutput"]["decision"]["behavior"], "deny");
        assert_eq!(of(2), None);
    }

    #[test]
    fn a_value_of_several_lines_is_not_taken_for_several_values() {
        let told = json!({ "hook_event_name": "PermissionRequest", "tool_name": "Write",
            "tool_input": { "content": "one\nfile_path: b.txt\r\n", "file_path": "a.txt" } });
        let asked = question(&serde_json::from_value(told).unwrap()).unwrap();
        assert_eq!(asked, "Allow Write?\ncontent: one\n│ file_path: b.txt\nfile_path: a.txt");
    }

    #[test]
    fn nobody_is_asked_to_allow_what_is_not_seen() {
        let asks = |command: &str| {
            let told = json!({ "hook_event_name": "PermissionRequest", "tool_name": "Bash", "tool_input": { "command": command } });
            question(&serde_json::from_value(told).unwrap())
        };
        assert!(asks("git status").is_some());
        assert_eq!(asks(&format!("git status{}; rm -rf ~", " ".repeat(300))), None);
        assert_eq!(asks("echo \u{202e}a"), None);
        let many: serde_json::Map<_, _> = (0..9).map(|n| (n.to_string(), json!("x".repeat(200)))).collect();
        let told = json!({ "hook_event_name": "PermissionRequest", "tool_name": "Edit", "tool_input": many });
        assert_eq!(question(&serde_json::from_value(told).unwrap()), None);
    }

    /// What Claude Code 2.1.330 and Codex 0.169.0 sent.
    #[test]
    fn what_real_programs_tell_is_understood() {
        let told = |text: &str| serde_json::from_str::<Told>(text).unwrap();
        let asked = |text: &str| {
            assert_eq!(told(text).hook_event_name, "PermissionRequest");
            question(&told(text))
        };
        let bash = "Allow Bash?\ncommand: touch made-by-bash && echo made\ndescription: Makes a file";
        assert_eq!(asked(include_str!("../../tests/hooks/claude-bash.json")).as_deref(), Some(bash));
        let codex = "Allow Bash?\ncommand: touch made-by-codex && echo made\ndescription: Make a file?";
        assert_eq!(asked(include_str!("../../tests/hooks/codex-bash.json")).as_deref(), Some(codex));
        assert_eq!(asked(include_str!("../../tests/hooks/claude-long.json")), None, "it cannot be shown whole");
        // Whatever is said to these, it asks in its terminal.
        assert_eq!(asked(include_str!("../../tests/hooks/claude-question.json")), None);
        assert_eq!(asked(include_str!("../../tests/hooks/claude-plan.json")), None);
        for (text, message) in [
            (include_str!("../../tests/hooks/claude-notification.json"), "Claude needs your permission"),
            (include_str!("../../tests/hooks/claude-idle.json"), "Claude is waiting for your input"),
        ] {
            let told = told(text);
            assert_eq!((told.hook_event_name.as_str(), told.message.as_str()), ("Notification", message));
        }
    }
}
