//! Paths and queries as the instance metadata service understands them: leniently.
//!
//! In: a request target as sent. Out: one canonical lower-case path, and decoded parameters. The
//! leniency (`\`, `%5c`, `%2f`, `//`, `..`, letter case, twice-encoded forms) is on purpose: CVE-2022-23551
//! was an agent that forwarded what it did not recognise and IMDS did. Pure.

/// Prefix of everything about identities.
pub(super) const IDENTITY: &str = "/metadata/identity/";
/// The token path.
pub(super) const TOKEN: &str = "/metadata/identity/oauth2/token";

/// The path after decoding, with `/` only, without empty, `.` and `..` segments, in lower case.
pub(super) fn canonical(path: &str) -> String {
    let mut decoded = path.to_owned();
    for _ in 0..3 {
        let next = decode(&decoded, false);
        if next == decoded {
            break;
        }
        decoded = next;
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split(['/', '\\']) {
        // `;parameters` of a segment are no part of its name.
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    format!("/{}", segments.join("/")).to_ascii_lowercase()
}

/// The parameters of a query, decoded, in order; names in lower case.
pub(super) fn query(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name, true).to_ascii_lowercase(), decode(value, true))
        })
        .collect()
}

/// Percent-decoding; what is not valid stays as it is. `plus` turns `+` into a space, as in forms.
pub(in crate::sim) fn decode(text: &str, plus: bool) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                if let (Some(high), Some(low)) = (nibble(*high), nibble(*low)) {
                    out.push(high << 4 | low);
                    rest = after;
                } else {
                    out.push(b'%');
                }
            }
            (b'+', _) if plus => out.push(b' '),
            (byte, _) => out.push(*byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_disguise_of_the_token_path_is_the_token_path() {
        for disguise in [
            "/metadata/identity/oauth2/token",
            "/Metadata/IDENTITY/oauth2/token/",
            "//metadata//identity/oauth2/token",
            "/metadata\\identity\\oauth2\\token",
            "/metadata%5cidentity%5Coauth2/token",
            "/metadata%2fidentity/oauth2%2Ftoken",
            "/metadata/instance/../identity/oauth2/token",
            "/metadata/instance/%2e%2e/identity/oauth2/token",
            "/metadata/%2569dentity/oauth2/token",
            "/metadata;a=b/identity;x/oauth2/token;y",
            "/../metadata/./identity/oauth2/token",
        ] {
            assert_eq!(canonical(disguise), TOKEN, "{disguise}");
        }
        assert_ne!(canonical("/metadata/identity/oauth2/tokens"), TOKEN);
    }

    #[test]
    fn parameters_are_decoded_and_a_resource_may_be_bare() {
        let query =
            query("API-version=2018-02-01&resource=https://vault.azure.net&x=%zz&y=%C3%A9&&z");
        let want = [
            ("api-version", "2018-02-01"),
            ("resource", "https://vault.azure.net"),
            ("x", "%zz"),
            ("y", "é"),
            ("z", ""),
        ];
        assert!(
            query
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .eq(want)
        );
    }
}
