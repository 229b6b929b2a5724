//! Values of DER (X.690), one after the other, as keys and their containers are written.
//!
//! In: bytes. Out: tags and contents, borrowed: no copy of a key is made here. Pure. Only what these
//! structures have is understood: tags of one byte, lengths that are stated.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
/// `[0]`, holding another value.
pub(super) const CONTEXT_0: u8 = 0xa0;
/// `[0]` in place of an octet string's own tag.
pub(super) const IMPLICIT_0: u8 = 0x80;

/// What is still to be read. Reading gives None at the end and where the bytes are no DER.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next value: its tag and its content.
    pub fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let [tag, first, rest @ ..] = self.0 else {
            return None;
        };
        let (length, rest) = match first {
            0..=0x7f => (usize::from(*first), rest),
            0x81..=0x84 => {
                let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let grown = length
                    .iter()
                    .fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
                (grown, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, content))
    }

    /// The content of the next value if it has this tag.
    pub fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let before = self.0;
        let (found, content) = self.next()?;
        if found != tag {
            self.0 = before;
            return None;
        }
        Some(content)
    }

    /// The same, for values inside it.
    pub fn enter(&mut self, tag: u8) -> Option<Reader<'a>> {
        self.take(tag).map(Reader)
    }

    /// A small number.
    pub fn number(&mut self) -> Option<u32> {
        let bytes = self.take(INTEGER)?;
        let sum = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        let negative = bytes.first()? & 0x80 != 0;
        let short = bytes.len() <= 5 && !negative;
        u32::try_from(short.then(|| bytes.iter().fold(0, sum))?).ok()
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// `AlgorithmIdentifier`: its object identifier's bytes, and its parameters.
pub(super) fn algorithm<'a>(from: &mut Reader<'a>) -> Option<(&'a [u8], Reader<'a>)> {
    let mut inside = from.enter(SEQUENCE)?;
    Some((inside.take(OID)?, inside))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_in_order_and_what_is_cut_is_not() {
        let long = [&[OCTET_STRING, 0x82, 0x01, 0x00][..], &[7; 256]].concat();
        let bytes = [&[INTEGER, 1, 5, SEQUENCE, 3, INTEGER, 1, 0x7f][..], &long].concat();
        let mut reader = Reader(&bytes);
        assert_eq!(reader.take(OID), None);
        assert_eq!(reader.number(), Some(5));
        let mut inner = reader.enter(SEQUENCE).unwrap();
        assert_eq!((inner.number(), inner.is_empty()), (Some(0x7f), true));
        assert_eq!(reader.take(OCTET_STRING).map(<[u8]>::len), Some(256));
        assert!(reader.is_empty() && reader.next().is_none());
        for length in 0..long.len() {
            assert!(Reader(&long[..length]).next().is_none(), "{length}");
        }
        // An indefinite length, one of five bytes, one beyond the end.
        for odd in [
            &[0x30, 0x80, 0, 0][..],
            &[4, 0x85, 0, 0, 0, 0, 0],
            &[4, 0x84, 255, 255, 255, 255],
        ] {
            assert!(Reader(odd).next().is_none());
        }
    }

    #[test]
    fn numbers_are_small_and_not_negative() {
        let read = |bytes: &[u8]| Reader(bytes).number();
        assert_eq!(read(&[2, 2, 8, 0]), Some(2048));
        assert_eq!(read(&[2, 5, 0, 255, 255, 255, 255]), Some(u32::MAX));
        for odd in [
            &[2, 0][..],
            &[2, 1, 0x80],
            &[2, 5, 1, 0, 0, 0, 0],
            &[2, 6, 0, 0, 0, 0, 0, 1],
        ] {
            assert_eq!(read(odd), None, "{odd:?}");
        }
    }
}
