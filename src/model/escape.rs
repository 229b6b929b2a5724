//! Texts inside a query.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything but RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// `text` as a value of a query: all but RFC 3986's unreserved characters as `%XX`.
#[must_use]
pub fn escaped(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unreserved_characters_stay() {
        assert_eq!(escaped("aZ0-._~"), "aZ0-._~");
        assert_eq!(
            escaped("https://a b&c=é"),
            "https%3A%2F%2Fa%20b%26c%3D%C3%A9"
        );
    }
}
