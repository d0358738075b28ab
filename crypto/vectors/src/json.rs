//! JSON whose fields stay in the order in which they were written down. Bytes are hexadecimal digits.

use std::fmt::{self, Write};

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// Nothing.
    Null,
    /// Text, without characters that would have to be escaped.
    Text(String),
    /// A number.
    Number(u64),
    /// A list.
    List(Vec<Json>),
    /// Fields in their order.
    Object(Vec<(&'static str, Json)>),
}

/// An object: `object! { "name": value }`.
#[macro_export]
macro_rules! object {
    ($($name:literal: $value:expr),* $(,)?) => {
        $crate::json::Json::Object(vec![$(($name, $crate::json::Json::from($value))),*])
    };
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

impl Json {
    /// An object with a field more.
    ///
    /// # Panics
    /// When it is no object.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Self>) -> Self {
        let Self::Object(fields) = &mut self else { unreachable!("{name} belongs to an object") };
        fields.push((name, value.into()));
        self
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Number(number) => {
                // JavaScript reads what is larger as another number.
                assert!(*number < 1 << 53, "{number} is too large");
                write!(f, "{number}")
            }
            Self::Text(text) => {
                assert!(
                    !text.contains(['"', '\\']) && !text.contains(char::is_control),
                    "this would need an escape: {text}"
                );
                write!(f, "\"{text}\"")
            }
            Self::List(items) => block(f, depth, ['[', ']'], items, |f, item| item.write(f, depth + 1)),
            Self::Object(fields) => block(f, depth, ['{', '}'], fields, |f, (name, value)| {
                write!(f, "\"{name}\": ")?;
                value.write(f, depth + 1)
            }),
        }
    }
}

fn block<T>(
    f: &mut fmt::Formatter<'_>,
    depth: usize,
    [open, close]: [char; 2],
    items: &[T],
    item: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    f.write_char(open)?;
    for (index, value) in items.iter().enumerate() {
        write!(f, "{}\n{:width$}", if index == 0 { "" } else { "," }, "", width = 2 * (depth + 1))?;
        item(f, value)?;
    }
    if !items.is_empty() {
        write!(f, "\n{:width$}", "", width = 2 * depth)?;
    }
    f.write_char(close)
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Json {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Json {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u16> for Json {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<u8> for Json {
    fn from(number: u8) -> Self {
        Self::Number(number.into())
    }
}

impl From<&[u8]> for Json {
    fn from(bytes: &[u8]) -> Self {
        Self::Text(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl From<Vec<u8>> for Json {
    fn from(bytes: Vec<u8>) -> Self {
        bytes[..].into()
    }
}

impl From<&Vec<u8>> for Json {
    fn from(bytes: &Vec<u8>) -> Self {
        bytes[..].into()
    }
}

impl<const N: usize> From<[u8; N]> for Json {
    fn from(bytes: [u8; N]) -> Self {
        bytes[..].into()
    }
}

impl<const N: usize> From<&[u8; N]> for Json {
    fn from(bytes: &[u8; N]) -> Self {
        bytes[..].into()
    }
}

impl From<Vec<Json>> for Json {
    fn from(items: Vec<Json>) -> Self {
        Self::List(items)
    }
}

impl<T: Into<Json>> From<Option<T>> for Json {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}
