//! What machines tell, in order and once (PROTOCOL 10.3). The events themselves are JSON for TypeScript, which takes their shape for granted.

use happy_rpc::{Event, EventPlace, Followed, Follower, Step};
use serde::Deserialize;
use serde_json::value::RawValue;

/// What JavaScript is told when only the lists say how things stand.
pub const LIST_AGAIN: &str = r#"{"event":"session.list_again","data":{}}"#;

/// What to do with an event.
pub fn step(follower: &mut Follower, body: &[u8]) -> Step {
    #[derive(Deserialize)]
    struct Head<'a> {
        event: &'a str,
        at: Option<EventPlace>,
    }
    match serde_json::from_slice::<Head<'_>>(body) {
        Ok(Head { event: "session.list_again", at: None }) => follower.lost(),
        Ok(Head { at, .. }) => follower.told(at),
        // Nobody could read it.
        Err(_) => Step::Leave,
    }
}

/// An event as TypeScript may have it. Another machine's program wrote it: none for what is no event, or one of which this version knows nothing.
pub fn checked(body: &[u8]) -> Option<Event> {
    serde_json::from_slice(body).ok()
}

/// What was missed; none when it was not told.
pub fn read(body: &[u8]) -> Option<Followed<Box<RawValue>>> {
    #[derive(Deserialize)]
    struct Outcome {
        ok: Followed<Box<RawValue>>,
    }
    serde_json::from_slice::<Outcome>(body).ok().map(|outcome| outcome.ok)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const AT: EventPlace = EventPlace { log: Uuid::from_u128(1), number: 7 };

    /// One that has taken all up to `AT`.
    fn follower() -> Follower {
        let mut follower = Follower::default();
        let (question, _) = follower.ask();
        let answer = Followed::<()> { log: AT.log, number: AT.number, missed: Vec::new(), complete: true, more: false };
        assert!(follower.answered(question, &answer).unwrap().lists);
        follower
    }

    fn event(number: u64) -> Vec<u8> {
        format!(
            r#"{{"event":"session.removed","data":{{"session":"x"}},"at":{{"log":"{}","number":{number}}}}}"#,
            AT.log
        )
        .into_bytes()
    }

    #[test]
    fn what_is_no_event_is_not_passed_on() {
        let checked = |body: &[u8]| checked(body).map(|event| serde_json::to_string(&event).unwrap());
        assert_eq!(checked(LIST_AGAIN.as_bytes()).as_deref(), Some(LIST_AGAIN));
        let removed = format!(r#"{{"event":"session.removed","data":{{"session":"{}"}}}}"#, Uuid::from_u128(5));
        assert_eq!(checked(removed.replace("}}", r#","more":[]},"at":null}"#).as_bytes()), Some(removed));
        for hostile in [
            "",
            "null",
            r#"{"event":"session.changed","data":null}"#,
            r#"{"event":"session.changed","data":{"id":{}}}"#,
            r#"{"event":"device.changed","data":[null]}"#,
            r#"{"event":"machine.changed","data":{}}"#,
            r#"{"event":"of.another.version","data":{}}"#,
        ] {
            assert_eq!(checked(hostile.as_bytes()), None, "{hostile}");
        }
    }

    #[test]
    fn events_are_told_apart_by_their_places() {
        let mut follower = follower();
        let expected = [(7, Step::Leave), (8, Step::Take), (8, Step::Leave), (9, Step::Take), (11, Step::Ask)];
        for (number, expected) in expected {
            assert_eq!(step(&mut follower, &event(number)), expected, "{number}");
        }
        assert_eq!(step(&mut follower, b"nonsense"), Step::Leave);
    }

    #[test]
    fn a_loss_without_a_place_is_asked_for_and_one_with_a_place_is_an_event() {
        assert_eq!(step(&mut follower(), LIST_AGAIN.as_bytes()), Step::Ask);
        let placed = format!(r#"{{"event":"session.list_again","data":{{}},"at":{{"log":"{}","number":8}}}}"#, AT.log);
        assert_eq!(step(&mut follower(), placed.as_bytes()), Step::Take);
        // Without having followed it is taken as it is.
        assert_eq!(step(&mut Follower::default(), LIST_AGAIN.as_bytes()), Step::Take);
    }

    #[test]
    fn what_was_missed_is_handed_on_as_it_came() {
        let missed = String::from_utf8(event(8)).unwrap();
        let body =
            format!(r#"{{"ok":{{"log":"{}","number":8,"missed":[{missed}],"complete":true,"more":false}}}}"#, AT.log);
        let followed = read(body.as_bytes()).unwrap();
        assert_eq!(followed.missed.iter().map(|one| one.get()).collect::<Vec<_>>(), [missed]);
        assert_eq!((followed.log, followed.number, followed.complete), (AT.log, 8, true));
        assert!(read(br#"{"error":{"code":"unknown_method","message":""}}"#).is_none());
    }
}
