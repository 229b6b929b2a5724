//! What a PKCS#12 file's password does: checks the file and opens its parts.
//!
//! In: algorithm identifiers with their parameters, ciphertexts. Out: plaintexts, zeroized when dropped.
//! Pure. Schemes: PBES2 with AES-CBC or 3DES-CBC (RFC 8018), and what older programs write: 3DES and RC2
//! with keys derived as RFC 7292, appendix B, says. How often keys are derived is bounded for the whole
//! file: whoever may write a Secret must not be able to keep a node busy.

use std::num::NonZeroU32;

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{digest, hmac, pbkdf2};
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, KeyIvInit};
use des::TdesEde3;
use rc2::Rc2;
use zeroize::Zeroizing;

use crate::azure::credential::CredentialError;
use crate::azure::credential::der::{OCTET_STRING, Reader, SEQUENCE, algorithm};

/// Rounds of key derivation for a whole file, each counted as often as it is made; the most careful
/// programs use some 600 000 for a key, in two blocks at most, for two keys and a checksum.
const ROUNDS: u32 = 4_000_000;

type Secret = Zeroizing<Vec<u8>>;

/// `1.2.840.113549.1.12.1.N`: the last number, 3 to 6, is the cipher's.
const PKCS12_PBE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01];
const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
const PBKDF2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c];
/// `1.2.840.113549.2.N`: HMAC with SHA-1 (7), SHA-256 (9), SHA-384 (10), SHA-512 (11).
const HMAC: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02];
/// `2.16.840.1.101.3.4.1.N`: AES-CBC of 128 (2), 192 (22), 256 bits (42).
const AES: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01];
const DES_EDE3_CBC: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x03, 0x07];
const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
/// `2.16.840.1.101.3.4.2.N`: SHA-256 (1), SHA-384 (2), SHA-512 (3).
const SHA2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];

/// What a derived key is for (RFC 7292, B.3).
#[derive(Clone, Copy)]
enum Purpose {
    Key = 1,
    Iv = 2,
    Mac = 3,
}

/// One file's password.
pub(super) struct Opener {
    utf8: Secret,
    /// UTF-16 with the largest byte first and two zeros at the end.
    wide: Secret,
    rounds_left: u32,
    checked: bool,
}

impl Opener {
    pub fn new(password: &str) -> Self {
        let mut wide = Zeroizing::new(Vec::with_capacity(2 * password.len() + 2));
        wide.extend(password.encode_utf16().flat_map(u16::to_be_bytes));
        wide.extend([0, 0]);
        Self {
            utf8: Zeroizing::new(password.as_bytes().to_vec()),
            wide,
            rounds_left: ROUNDS,
            checked: false,
        }
    }

    /// Checks the file by its `MacData`.
    pub fn check(&mut self, mut checksum: Reader<'_>, over: &[u8]) -> Result<(), CredentialError> {
        let mut read = || {
            let mut info = checksum.enter(SEQUENCE)?;
            let (name, _) = algorithm(&mut info)?;
            let expected = info.take(OCTET_STRING)?;
            let salt = checksum.take(OCTET_STRING)?;
            let rounds = if checksum.is_empty() {
                1
            } else {
                checksum.number()?
            };
            Some((name, expected, salt, rounds))
        };
        let (name, expected, salt, rounds) = read().ok_or_else(damaged)?;
        let (hash, mac) = match name.strip_prefix(SHA2) {
            None if name == SHA1 => (
                &digest::SHA1_FOR_LEGACY_USE_ONLY,
                hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            ),
            Some([1]) => (&digest::SHA256, hmac::HMAC_SHA256),
            Some([2]) => (&digest::SHA384, hmac::HMAC_SHA384),
            Some([3]) => (&digest::SHA512, hmac::HMAC_SHA512),
            _ => return Err(unsupported("checksum")),
        };
        let tries = if self.utf8.is_empty() { 2 } else { 1 };
        self.spend(rounds, tries)?;
        let fits = |wide: &[u8]| {
            let key = derived(hash, wide, salt, Purpose::Mac, rounds, hash.output_len());
            hmac::verify(&hmac::Key::new(mac, &key), over, expected).is_ok()
        };
        // Some programs write the empty password as nothing at all.
        if !fits(&self.wide) {
            if !self.utf8.is_empty() || !fits(&[]) {
                return Err(CredentialError::Password);
            }
            self.wide.clear();
        }
        self.checked = true;
        Ok(())
    }

    /// Reads an `AlgorithmIdentifier` and the ciphertext after it (with this tag), and decrypts it.
    pub fn open(&mut self, from: &mut Reader<'_>, tag: u8) -> Result<Secret, CredentialError> {
        let (name, parameters) = algorithm(from).ok_or_else(damaged)?;
        let ciphertext = from.take(tag).ok_or_else(damaged)?;
        if name == PBES2 {
            return self.open_pbes2(parameters, ciphertext);
        }
        let Some([cipher @ 3..=6]) = name.strip_prefix(PKCS12_PBE) else {
            return Err(unsupported("encryption"));
        };
        let read = |mut parameters: Reader<'_>| {
            let mut inside = parameters.enter(SEQUENCE)?;
            Some((inside.take(OCTET_STRING)?.to_vec(), inside.number()?))
        };
        let (salt, rounds) = read(parameters).ok_or_else(damaged)?;
        // SHA-1 gives 20 bytes at a time: two for a key, one for the vector.
        self.spend(rounds, 3)?;
        let hash = &digest::SHA1_FOR_LEGACY_USE_ONLY;
        let make = |purpose, size| derived(hash, &self.wide, &salt, purpose, rounds, size);
        let iv = make(Purpose::Iv, 8);
        match cipher {
            3 => cbc::<TdesEde3>(&make(Purpose::Key, 24), &iv, ciphertext),
            4 => {
                let mut key = make(Purpose::Key, 16);
                key.reserve_exact(8);
                key.extend_from_within(..8);
                cbc::<TdesEde3>(&key, &iv, ciphertext)
            }
            5 => cbc::<Rc2>(&make(Purpose::Key, 16), &iv, ciphertext),
            _ => cbc::<Rc2>(&make(Purpose::Key, 5), &iv, ciphertext),
        }
    }

    fn open_pbes2(
        &mut self,
        mut parameters: Reader<'_>,
        ciphertext: &[u8],
    ) -> Result<Secret, CredentialError> {
        let mut parameters = parameters.enter(SEQUENCE).ok_or_else(damaged)?;
        let (kdf, mut how) = algorithm(&mut parameters).ok_or_else(damaged)?;
        let (cipher, mut iv) = algorithm(&mut parameters).ok_or_else(damaged)?;
        let iv = iv.take(OCTET_STRING).ok_or_else(damaged)?;
        if kdf != PBKDF2 {
            return Err(unsupported("key derivation"));
        }
        let mut how = how.enter(SEQUENCE).ok_or_else(damaged)?;
        let salt = how.take(OCTET_STRING).ok_or_else(damaged)?;
        let rounds = how.number().ok_or_else(damaged)?;
        // The key's length is the cipher's.
        let _ = how.number();
        let prf = match algorithm(&mut how) {
            None => pbkdf2::PBKDF2_HMAC_SHA1,
            Some((name, _)) => match name.strip_prefix(HMAC) {
                Some([7]) => pbkdf2::PBKDF2_HMAC_SHA1,
                Some([9]) => pbkdf2::PBKDF2_HMAC_SHA256,
                Some([10]) => pbkdf2::PBKDF2_HMAC_SHA384,
                Some([11]) => pbkdf2::PBKDF2_HMAC_SHA512,
                _ => return Err(unsupported("key derivation")),
            },
        };
        // 20 bytes at a time from SHA-1; from the others a key at once.
        self.spend(
            rounds,
            if prf == pbkdf2::PBKDF2_HMAC_SHA1 {
                2
            } else {
                1
            },
        )?;
        let rounds = NonZeroU32::new(rounds).ok_or_else(damaged)?;
        let make = |size| {
            let mut key = Zeroizing::new(vec![0; size]);
            pbkdf2::derive(prf, rounds, salt, &self.utf8, &mut key);
            key
        };
        let aes = match cipher.strip_prefix(AES) {
            None if cipher == DES_EDE3_CBC => {
                return cbc::<TdesEde3>(&make(24), iv, ciphertext);
            }
            Some([2]) => (&AES_128, 16),
            Some([22]) => (&AES_192, 24),
            Some([42]) => (&AES_256, 32),
            _ => return Err(unsupported("encryption")),
        };
        let iv: [u8; 16] = iv.try_into().map_err(|_| damaged())?;
        let context = DecryptionContext::Iv128(FixedLength::from(iv));
        let mut text = Zeroizing::new(ciphertext.to_vec());
        let key = UnboundCipherKey::new(aes.0, &make(aes.1))
            .and_then(PaddedBlockDecryptingKey::cbc_pkcs7)
            .map_err(|_| damaged())?;
        let opened = key.decrypt(&mut text, context);
        let length = opened.map_err(|_| CredentialError::Password)?.len();
        text.truncate(length);
        Ok(text)
    }

    /// What it means that a decrypted part cannot be read: without a checksum most likely that the
    /// password is wrong.
    pub fn doubt(&self, error: CredentialError) -> CredentialError {
        match error {
            CredentialError::Pkcs12(_) | CredentialError::Key(_) if !self.checked => {
                CredentialError::Password
            }
            other => other,
        }
    }

    /// Counts `rounds` that are made so many times.
    fn spend(&mut self, rounds: u32, times: u32) -> Result<(), CredentialError> {
        let left = self.rounds_left.checked_sub(rounds.saturating_mul(times));
        self.rounds_left = left.ok_or_else(|| {
            let words = "its keys are derived in too many rounds (openssl pkcs12 -export -iter)";
            CredentialError::Pkcs12(words.to_owned())
        })?;
        Ok(())
    }
}

fn damaged() -> CredentialError {
    CredentialError::Pkcs12("it is damaged".to_owned())
}

fn unsupported(what: &str) -> CredentialError {
    CredentialError::Pkcs12(format!(
        "its {what} is of a kind that is not supported; write it anew with openssl pkcs12 -export"
    ))
}

/// Decrypts in place: the plaintext is in one place only.
fn cbc<C>(key: &[u8], iv: &[u8], ciphertext: &[u8]) -> Result<Secret, CredentialError>
where
    cbc::Decryptor<C>: KeyIvInit + BlockModeDecrypt,
    C: cbc::cipher::BlockCipherDecrypt,
{
    let cipher = cbc::Decryptor::<C>::new_from_slices(key, iv).map_err(|_| damaged())?;
    let mut text = Zeroizing::new(ciphertext.to_vec());
    let opened = cipher.decrypt_padded::<Pkcs7>(&mut text);
    let length = opened.map_err(|_| CredentialError::Password)?.len();
    text.truncate(length);
    Ok(text)
}

/// RFC 7292, appendix B.2: `size` bytes from a password, a salt and a number of rounds.
fn derived(
    hash: &'static digest::Algorithm,
    password: &[u8],
    salt: &[u8],
    purpose: Purpose,
    rounds: u32,
    size: usize,
) -> Secret {
    let block = hash.block_len();
    let mut input = Zeroizing::new(Vec::new());
    let filled = |text: &[u8]| text.len().div_ceil(block) * block;
    input.reserve_exact(filled(salt) + filled(password));
    input.extend(salt.iter().cycle().take(filled(salt)));
    input.extend(password.iter().cycle().take(filled(password)));
    let mut made = Zeroizing::new(Vec::with_capacity(size + hash.output_len()));
    while made.len() < size {
        let mut first = digest::Context::new(hash);
        first.update(&vec![purpose as u8; block]);
        first.update(&input);
        let mut sum = first.finish();
        for _ in 1..rounds {
            sum = digest::digest(hash, sum.as_ref());
        }
        made.extend_from_slice(sum.as_ref());
        let step: Secret =
            Zeroizing::new(sum.as_ref().iter().copied().cycle().take(block).collect());
        for chunk in input.chunks_exact_mut(block) {
            // chunk + step + 1, as numbers of `block` bytes.
            let mut carry = 1u16;
            for (byte, add) in chunk.iter_mut().zip(step.iter()).rev() {
                let total = u16::from(*byte) + u16::from(*add) + carry;
                *byte = (total & 0xff) as u8;
                carry = total >> 8;
            }
        }
    }
    made.truncate(size);
    made
}
