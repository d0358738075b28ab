//! How far a program says it is: `OSC 9 ; 4 ; state ; percent`, which ConEmu began.

/// What a program shows of its progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// How it goes.
    pub state: ProgressState,
    /// 0 to 100; none when the program does not say.
    pub percent: Option<u8>,
}

/// How it goes with what a program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgressState {
    /// Well.
    Normal,
    /// Something has failed.
    Error,
    /// It works, and does not know how much is left.
    Indeterminate,
    /// It stands still, or there is something to be warned of.
    Paused,
}

/// What some output has made of the progress. That of two pieces of output is that of both together, wherever they were cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgressChange {
    /// None: nothing is shown any more.
    state: Option<ProgressState>,
    percent: Percent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Percent {
    /// Errors and pauses come without a number, at the place that was reached.
    AsBefore,
    Now(Option<u8>),
}

impl ProgressChange {
    /// Nothing is shown any more.
    pub(crate) const CLEARED: Self = Self { state: None, percent: Percent::Now(None) };

    /// The text of `OSC 9`, if it is about progress and whole.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("4;")?;
        let (state, percent) = rest.split_once(';').unwrap_or((rest, ""));
        if !percent.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        // A number that is too long for us is too high.
        let given = (!percent.is_empty()).then(|| percent.parse::<u32>().map_or(100, |percent| percent.min(100) as u8));
        let kept = given.map_or(Percent::AsBefore, |given| Percent::Now(Some(given)));
        let (state, percent) = match state {
            "0" => return Some(Self::CLEARED),
            "1" => (ProgressState::Normal, Percent::Now(Some(given.unwrap_or(0)))),
            "2" => (ProgressState::Error, kept),
            "3" => (ProgressState::Indeterminate, Percent::Now(None)),
            "4" => (ProgressState::Paused, kept),
            _ => return None,
        };
        Some(Self { state: Some(state), percent })
    }

    /// This one after another.
    pub(crate) fn after(self, before: Option<Self>) -> Self {
        match (self.percent, before) {
            (Percent::AsBefore, Some(before)) => Self { percent: before.percent, ..self },
            _ => self,
        }
    }

    /// What is shown now, after what was shown before.
    pub fn apply(self, before: Option<Progress>) -> Option<Progress> {
        let percent = match self.percent {
            Percent::AsBefore => before.and_then(|before| before.percent),
            Percent::Now(percent) => percent,
        };
        self.state.map(|state| Progress { state, percent })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Screen;

    /// What is shown after a stream that is cut at a place.
    fn shown(stream: &str, cut: usize) -> Option<Progress> {
        let mut screen = Screen::new(20, 3, 0);
        let (head, tail) = stream.as_bytes().split_at(cut);
        [head, tail].iter().fold(None, |before, bytes| match screen.feed(bytes).progress {
            Some(change) => change.apply(before),
            None => before,
        })
    }

    fn osc(texts: &[&str]) -> String {
        texts.iter().map(|text| format!("\x1b]9;{text}\x1b\\")).collect()
    }

    #[test]
    fn what_programs_say_is_understood_wherever_it_is_cut() {
        use ProgressState::{Error, Indeterminate, Normal, Paused};
        for (texts, wanted) in [
            (&["4;1;50"][..], Some((Normal, Some(50)))),
            (&["4;1"], Some((Normal, Some(0)))),
            (&["4;1;"], Some((Normal, Some(0)))),
            (&["4;1;50", "4;2"], Some((Error, Some(50)))),
            (&["4;1;50", "4;4;"], Some((Paused, Some(50)))),
            (&["4;1;50", "4;2;70"], Some((Error, Some(70)))),
            (&["4;2"], Some((Error, None))),
            (&["4;1;50", "4;3", "4;2"], Some((Error, None))),
            (&["4;1;50", "4;0", "4;2"], Some((Error, None))),
            (&["4;3;50"], Some((Indeterminate, None))),
            (&["4;1;50", "4;0"], None),
            (&["4;1;50", "4;0;"], None),
            (&["4;1;101"], Some((Normal, Some(100)))),
            (&["4;1;99999999999999999999"], Some((Normal, Some(100)))),
        ] {
            let stream = osc(texts);
            let wanted = wanted.map(|(state, percent)| Progress { state, percent });
            for cut in 0..=stream.len() {
                assert_eq!(shown(&stream, cut), wanted, "{texts:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_not_understood_changes_nothing_and_is_no_notification() {
        for text in
            ["4", "4;", "4;5", "4;-1;3", "4;1;x", "4;1;-5", "4;1;5;6", "4;1; 5", "4;01;5", "4;1;½", "12", "9;1;5"]
        {
            let mut screen = Screen::new(20, 3, 0);
            let feed = screen.feed(osc(&[text]).as_bytes());
            assert_eq!((feed.progress, feed.notice), (None, None), "{text}");
        }
        let feed = Screen::new(20, 3, 0).feed(osc(&["done"]).as_bytes());
        assert_eq!((feed.progress, feed.notice.as_deref()), (None, Some("done")));
    }

    #[test]
    fn a_terminal_that_is_reset_shows_no_progress() {
        let stream = osc(&["4;1;50"]) + "\x1bc";
        for cut in 0..=stream.len() {
            assert_eq!(shown(&stream, cut), None, "{cut}");
        }
        let stream = osc(&["4;1;50"]) + "\x1b[!p\x1b[?1049h\x1b[2J";
        assert!(shown(&stream, 5).is_some(), "a soft reset and another screen leave it");
    }

    proptest! {
        #[test]
        fn a_cut_makes_no_difference(texts in prop::collection::vec("4;[0-5];?[0-9x]{0,4}", 1..6), at in 0.0..1.0) {
            let stream = osc(&texts.iter().map(String::as_str).collect::<Vec<_>>());
            let cut = (stream.len() as f64 * at) as usize;
            prop_assert_eq!(shown(&stream, cut), shown(&stream, 0));
        }
    }
}
