//! PEM blocks of a text (RFC 7468), leniently: what stands between blocks is skipped, lines may end in
//! any way.
//!
//! In: a text. Out: its blocks' labels and bytes, or the one that cannot be read. Pure. The bytes may be
//! a private key: they are zeroized when dropped, and so is every copy made on the way.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::CredentialError;

/// One block.
pub(super) struct Block {
    /// What stands after `BEGIN`, as `PRIVATE KEY`.
    pub label: String,
    /// Whether its own head says that a password is needed (RFC 1421, as OpenSSL once wrote keys).
    pub encrypted: bool,
    /// What it holds.
    pub bytes: Zeroizing<Vec<u8>>,
}

/// All blocks of `text`, in order.
pub(super) fn blocks(text: &str) -> Result<Vec<Block>, CredentialError> {
    let mut found = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(label) = between(line, "-----BEGIN ") else {
            continue;
        };
        let wrong = |why| CredentialError::Pem {
            block: label.chars().take(64).collect(),
            why,
        };
        // All at once, so that nothing is left behind; for this block only, so that many cost no more.
        let inside = lines.clone().take_while(|line| !line.starts_with("-----"));
        let room = inside.map(str::len).sum();
        let mut base64 = Zeroizing::new(String::with_capacity(room));
        let mut encrypted = false;
        loop {
            let line = lines.next().ok_or_else(|| wrong("it has no end"))?;
            if let Some(end) = between(line, "-----END ") {
                if end != label {
                    return Err(wrong("another block's end follows"));
                }
                break;
            }
            if line.starts_with("-----") {
                return Err(wrong("it has no end"));
            }
            // No character of base64 is a colon.
            if line.contains(':') {
                encrypted |= line.starts_with("Proc-Type:") && line.ends_with("ENCRYPTED");
            } else {
                base64.push_str(line);
            }
        }
        // The head's second line (`DEK-Info`) is in the way of nothing; the body is a cipher's.
        let mut bytes = Zeroizing::new(vec![0; base64.len()]);
        let length = STANDARD
            .decode_slice(base64.as_bytes(), &mut bytes)
            .map_err(|_| wrong("it is no base64"))?;
        bytes.truncate(length);
        found.push(Block {
            label: label.to_owned(),
            encrypted,
            bytes,
        });
    }
    Ok(found)
}

/// The label of a line of this kind.
fn between<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.strip_prefix(start)?.strip_suffix("-----")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_between_other_text() {
        let text = "Bag Attributes\r\n  key: x\r\n-----BEGIN A B-----\r\nAAEC\r\nAw==\r\n-----END A B-----\r\nmore\n  -----BEGIN C-----\n-----END C-----";
        let found = blocks(text).unwrap();
        let seen: Vec<_> = found.iter().map(|b| (&*b.label, &**b.bytes)).collect();
        assert_eq!(seen, [("A B", &[0u8, 1, 2, 3][..]), ("C", &[][..])]);
        assert!(found.iter().all(|block| !block.encrypted));
        assert!(blocks("nothing\n").unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_read_names_the_block() {
        for (text, why) in [
            ("-----BEGIN A-----\nAAEC\n", "no end"),
            (
                "-----BEGIN A-----\nAAEC\n-----BEGIN B-----\nAAEC\n-----END B-----",
                "no end",
            ),
            ("-----BEGIN A-----\nAAEC\n-----END B-----\n", "another"),
            ("-----BEGIN A-----\nAA*C\n-----END A-----\n", "base64"),
            ("-----BEGIN A-----\nAAE\n-----END A-----\n", "base64"),
        ] {
            let error = blocks(text).err().unwrap().to_string();
            assert!(error.contains("block A") && error.contains(why), "{error}");
        }
    }

    #[test]
    fn room_is_made_for_each_block_and_not_for_the_whole_text() {
        // As many as a Secret holds. Room for all of the text in each would be 30 GiB to wipe.
        let text = "-----BEGIN A-----\n-----END A-----\n".repeat(30_000);
        let begun = std::time::Instant::now();
        assert_eq!(blocks(&text).unwrap().len(), 30_000);
        assert!(begun.elapsed().as_secs() < 2, "{:?}", begun.elapsed());
    }

    #[test]
    fn the_older_encryption_is_seen() {
        let text = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAEC\n-----END RSA PRIVATE KEY-----";
        assert!(blocks(text).unwrap()[0].encrypted);
    }
}
