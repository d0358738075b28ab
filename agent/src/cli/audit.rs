//! `happy audit`: read from the home, so that it works without the daemon.

use crate::cli::AuditArgs;
use crate::cli::output::{BAD, FAINT, Form, GOOD, STRONG, WARN, ago, paint, say, table_with_notes, tame};
use crate::store::Home;
use crate::store::audit::{self, Line, Verdict};
use crate::trouble::Trouble;

/// Columns of the beginning of an id.
const SHORT: usize = 8;

/// `happy audit`. Ends with 1 when the log is not whole.
pub fn audit(home: &Home, form: Form, args: &AuditArgs) -> Result<u8, Trouble> {
    let path = home.audit();
    if args.verify {
        let verdict = audit::verify(&path)?;
        form.result(&verdict, judge);
        return Ok(u8::from(!verdict.findings.is_empty()));
    }
    form.result(&audit::last(&path, args.lines)?, |lines| match args.lines {
        0 => say("No line was asked for; `-n 1` shows the newest."),
        _ => show(lines),
    });
    Ok(0)
}

fn judge(verdict: &Verdict) {
    match (verdict.findings.is_empty(), verdict.first, verdict.last) {
        (true, Some(first), Some(last)) => {
            say(&paint(GOOD, &format!("The audit log is whole: lines {first} to {last}, each as it was written.")));
        }
        (true, ..) => say("There is nothing in the audit log yet."),
        (false, ..) => {
            say(&paint(BAD, "The audit log is not as it was written:"));
            verdict.findings.iter().for_each(|finding| say(&format!("  {}", tame(finding, 400))));
        }
    }
}

fn show(lines: &[Line]) {
    if lines.is_empty() {
        say("There is nothing in the audit log yet.");
        return;
    }
    let plain = anstyle::Style::new();
    let row = |line: &Line| {
        let event = &line.event;
        let who = match event.who.strip_prefix("inside ") {
            Some(session) => format!("in {}", session.chars().take(SHORT).collect::<String>()),
            None => event.who.chars().take(SHORT).collect(),
        };
        let style = if event.outcome == "ok" { GOOD } else { WARN };
        vec![
            (FAINT, line.n.to_string()),
            (FAINT, ago(event.at)),
            (STRONG, tame(&who, 16)),
            (plain, tame(event.role.as_deref().unwrap_or("none"), 12)),
            (plain, tame(&event.method, 32)),
            (style, tame(&event.outcome, 20)),
            (plain, tame(&event.what, 100)),
        ]
    };
    let note = |line: &Line| match line.event.missed {
        0 => String::new(),
        1 => "    1 line before this one was left out, or could not be written".to_owned(),
        missed => format!("    {missed} lines before this one were left out, or could not be written"),
    };
    let rows: Vec<_> = lines.iter().map(|line| (row(line), note(line))).collect();
    table_with_notes(&["NO", "WHEN", "WHO", "ROLE", "CALL", "OUTCOME", "WHAT"], &rows);
}
