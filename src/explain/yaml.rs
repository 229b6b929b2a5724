//! Small manifests as text that a person can apply: only what a name or a value needs in quotes.

use serde_json::Value;

/// A YAML scalar: plain where that cannot be read as anything but this text, else in double quotes.
#[must_use]
pub fn scalar(text: &str) -> String {
    let plain = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'/')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'/'));
    let folded = text.to_ascii_lowercase();
    let word = matches!(
        folded.as_str(),
        "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | "null"
    );
    if plain && !word {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}

/// A flow sequence of scalars: `[a, b]`.
#[must_use]
pub fn sequence<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let items: Vec<String> = items.into_iter().map(scalar).collect();
    format!("[{}]", items.join(", "))
}

/// A text for a POSIX shell, in single quotes where it needs them.
#[must_use]
pub fn shell(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._/=:,@%+".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_yaml_would_read_as_something_else_is_quoted() {
        assert_eq!(scalar("payments"), "payments");
        assert_eq!(
            scalar("/subscriptions/a/resourceGroups/B_c"),
            "/subscriptions/a/resourceGroups/B_c"
        );
        for odd in [
            "true", "No", "123", "1e3", "a: b", "a #b", "", "-x", "null", "a\nb", "a\"b",
        ] {
            let read: String = serde_saphyr::from_str(&scalar(odd)).unwrap();
            assert_eq!(read, odd);
            assert!(scalar(odd).starts_with('"'), "{odd}");
        }
        assert_eq!(sequence(["a", "on"]), "[a, \"on\"]");
    }

    #[test]
    fn the_shell_reads_one_word() {
        assert_eq!(shell("a=b"), "a=b");
        assert_eq!(shell("it's $HOME"), r"'it'\''s $HOME'");
    }
}
