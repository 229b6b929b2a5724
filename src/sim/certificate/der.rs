//! Just enough DER (ITU-T X.690) to look into an X.509 certificate.
//!
//! In: bytes. Out: elements as (tag, contents), one after the other, or nothing where the bytes are not
//! definite-length DER. Never reads beyond its input, allocates nothing. Pure.

/// Universal tags that occur in a certificate.
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OBJECT_ID: u8 = 0x06;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
/// `[0]` of a certificate's body: its version.
pub(super) const VERSION: u8 = 0xa0;

/// A position in DER bytes.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next element's tag, without taking it.
    pub fn tag(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next element.
    pub fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            // A certificate needs no more than four octets of length.
            let octets = usize::from(first & 0x7f);
            if octets == 0 || octets > 4 {
                return None;
            }
            let (octets, rest) = rest.split_at_checked(octets)?;
            let add = |sum: usize, octet: &u8| (sum << 8) | usize::from(*octet);
            (octets.iter().fold(0, add), rest)
        };
        let (contents, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, contents))
    }

    /// The contents of the next element, which must have this tag.
    pub fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next()
            .filter(|(found, _)| *found == tag)
            .map(|(_, contents)| contents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_come_one_after_the_other_and_a_short_one_is_none() {
        let mut reader = Reader::new(&[0x06, 1, 7, 0x30, 0x81, 2, 8, 9, 0x17, 5, 1]);
        assert_eq!(reader.tag(), Some(OBJECT_ID));
        assert_eq!(reader.next(), Some((OBJECT_ID, &[7][..])));
        assert_eq!(reader.expect(SEQUENCE), Some(&[8, 9][..]));
        assert_eq!(reader.next(), None, "five bytes are promised, one is there");
        assert_eq!(Reader::new(&[0x30, 0x80, 0, 0]).next(), None, "indefinite");
        assert_eq!(Reader::new(&[0x30, 0x84, 255, 255, 255, 255]).next(), None);
    }
}
