//! What is behind an error.

use std::error::Error;

/// An error with what is behind it, which is what tells a wrong name from a certificate that is not trusted. What an error says itself already is said once.
pub(crate) fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Said(&'static str, #[source] Option<Box<Said>>);

    #[test]
    fn every_cause_is_told_once() {
        let last = Said("connection refused", None);
        let middle = Said("the sentinel is away: connection refused", Some(last.into()));
        let error = Said("no way to Redis", Some(middle.into()));
        assert_eq!(whole(&error), "no way to Redis: the sentinel is away: connection refused");
    }
}
