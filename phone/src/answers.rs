//! What machines answer, for TypeScript, which takes the shape of an answer for granted: another machine's program wrote it.

use happy_rpc::{
    Call, CallError, DeviceList, DeviceRevoke, ErrorCode, MachineInfo, PromptAnswer, PromptList, SessionCreate,
    SessionKill, SessionList,
};

/// Writes the body of an answer anew. What does not belong there is left out, and what is no answer becomes a refusal that says so.
pub type Check = fn(&[u8]) -> Vec<u8>;

fn of<C: Call>() -> (&'static str, Check) {
    (C::METHOD, |body| C::answer(&C::read_answer(body)))
}

/// The calls that the app makes. Each costs room in the app, so these are not all there are.
fn checks() -> [(&'static str, Check); 8] {
    [
        of::<DeviceList>(),
        of::<DeviceRevoke>(),
        of::<MachineInfo>(),
        of::<PromptAnswer>(),
        of::<PromptList>(),
        of::<SessionCreate>(),
        of::<SessionKill>(),
        of::<SessionList>(),
    ]
}

/// What checks the answers to calls of a method.
///
/// # Errors
/// When the app makes no such calls, with a sentence for whoever adds one.
pub fn check_of(method: &str) -> Result<Check, CallError> {
    let found = checks().into_iter().find(|(name, _)| *name == method);
    let unknown = || {
        CallError::new(
            ErrorCode::UnknownMethod,
            format!("answers to {method} are not checked; add it to phone/src/answers.rs"),
        )
    };
    found.map(|(_, check)| check).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(method: &str, body: &str) -> String {
        String::from_utf8(check_of(method).unwrap()(body.as_bytes())).unwrap()
    }

    #[test]
    fn an_answer_is_what_the_method_gives() {
        for (method, _) in checks() {
            for hostile in [
                "",
                "{}",
                "[]",
                "null",
                r#"{"ok":null}"#,
                r#"{"ok":[null]}"#,
                r#"{"ok":[{"id":7}]}"#,
                r#"{"ok":{"length":1e9}}"#,
            ] {
                let given = checked(method, hostile);
                let is_done = method == "device.revoke" || method == "session.kill";
                if !(is_done && given == r#"{"ok":{}}"#) {
                    assert!(given.starts_with(r#"{"error":{"code":"malformed""#), "{method} {hostile}: {given}");
                }
            }
        }
        assert_eq!(checked("session.kill", r#"{"ok":{"toString":1}}"#), r#"{"ok":{}}"#);
        assert_eq!(checked("session.list", r#"{"ok":[]}"#), r#"{"ok":[]}"#);
    }

    #[test]
    fn a_refusal_is_passed_on() {
        let refused = r#"{"error":{"code":"busy","message":"later"}}"#;
        assert_eq!(checked("session.list", refused), refused);
    }

    #[test]
    fn a_call_without_a_check_is_not_made() {
        assert!(check_of("file.list").unwrap_err().message.contains("file.list"));
    }
}
