//! Files that OpenSSL wrote (`testdata/make.sh`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::azure::credential::certificates_from_pem;

const PASSWORD: &str = "gehört mir";
const LEAF: &str = include_str!("../testdata/leaf.pem");
const KEY: &str = include_str!("../testdata/pkcs1.pem");

macro_rules! file {
    ($name:literal) => {
        decoded(include_str!(concat!("../testdata/", $name, ".p12.b64")))
    };
}

fn decoded(text: &str) -> Vec<u8> {
    STANDARD
        .decode(text.split_whitespace().collect::<String>())
        .unwrap()
}

fn error(file: &[u8], password: &str) -> CredentialError {
    certificates_from_pkcs12(file, password).unwrap_err()
}

#[test]
fn what_new_and_old_programs_write_is_read() {
    let expected = certificates_from_pem(LEAF, KEY).unwrap().remove(0);
    for (number, file) in [
        file!("modern"),
        file!("legacy"),
        file!("triple-des"),
        file!("rc2-128"),
        file!("pbes2-des3"),
        file!("aes128-sha512"),
        file!("aes192-sha384"),
        file!("without-mac"),
        file!("plain"),
    ]
    .iter()
    .enumerate()
    {
        let found = certificates_from_pkcs12(file, PASSWORD);
        let found = found.unwrap_or_else(|error| panic!("{number}: {error}"));
        let [one] = &found[..] else {
            panic!("{number}: {found:?}");
        };
        assert_eq!(one.thumbprint(), expected.thumbprint(), "{number}");
        assert_eq!(one.key.public, expected.key.public, "{number}");
        assert_eq!(one.chain.len(), 1, "the root stays where it is");
    }
    let found = certificates_from_pkcs12(&file!("empty-password"), "").unwrap();
    assert_eq!(found[0].thumbprint(), expected.thumbprint());
}

#[test]
fn a_wrong_password_is_told_from_a_damaged_file() {
    for file in [
        file!("modern"),
        file!("legacy"),
        file!("plain"),
        file!("aes128-sha512"),
    ] {
        for password in ["", "gehort mir", "gehört mir\n"] {
            assert_eq!(
                error(&file, password),
                CredentialError::Password,
                "{password:?}"
            );
        }
        for length in [0, 1, 4, 30, file.len() / 2, file.len() - 1] {
            let cut = error(&file[..length], PASSWORD);
            assert!(
                matches!(cut, CredentialError::Pkcs12(_)),
                "{length}: {cut:?}"
            );
        }
    }
    let no_file = error(LEAF.as_bytes(), PASSWORD);
    assert!(no_file.to_string().contains("no PKCS#12"), "{no_file}");
    // Without a checksum only nonsense inside tells.
    assert_eq!(
        error(&file!("without-mac"), "other"),
        CredentialError::Password
    );
    assert_eq!(
        error(&file!("empty-password"), "x"),
        CredentialError::Password
    );
}

/// No changed byte makes a panic, or another certificate than the one that is there.
#[test]
fn any_damage_is_an_error_or_does_not_matter() {
    let expected = certificates_from_pem(LEAF, KEY).unwrap().remove(0);
    for file in [file!("plain"), file!("without-mac")] {
        for at in (0..file.len()).step_by(7) {
            let mut odd = file.clone();
            odd[at] ^= 0x11;
            if let Ok(found) = certificates_from_pkcs12(&odd, PASSWORD) {
                assert_eq!(found[0].key.public, expected.key.public, "{at}");
            }
        }
    }
}

#[test]
fn too_much_work_is_refused_before_it_is_done() {
    let costly = error(&file!("costly"), PASSWORD);
    assert!(costly.to_string().contains("rounds"), "{costly}");
}

#[test]
fn keys_of_another_kind_are_refused_as_in_pem() {
    assert_eq!(
        error(&file!("ec"), "x"),
        CredentialError::NotRsa("an EC key")
    );
    let missing = error(&file!("certificate-only"), PASSWORD);
    assert!(missing.to_string().contains("no private key"), "{missing}");
}

#[test]
fn rounds_count_as_often_as_they_are_made() {
    // PBE with 3DES: an empty salt, 2 000 000 rounds, of which two keys' blocks and a vector are made.
    let parameters = [0x30, 0x07, OCTET_STRING, 0, 0x02, 3, 0x1e, 0x84, 0x80];
    let name = [
        OID, 10, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01, 3,
    ];
    let inside = [&name[..], &parameters].concat();
    let length = u8::try_from(inside.len()).unwrap();
    let bytes = [&[SEQUENCE, length][..], &inside, &[OCTET_STRING, 0]].concat();
    let opened = Opener::new("x").open(&mut Reader(&bytes), OCTET_STRING);
    let error = opened.unwrap_err().to_string();
    assert!(error.contains("too many rounds"), "{error}");
}
