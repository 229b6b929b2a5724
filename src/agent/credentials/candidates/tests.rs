use secrecy::ExposeSecret;

use super::super::material::Material;
use super::super::testkit::{certificate, secret, year};
use super::*;

const S: fn(u64) -> Duration = Duration::from_secs;

fn held(secrets: &[&str]) -> Vec<Credential> {
    secrets.iter().map(|text| secret(text)).collect()
}

fn order(candidates: &Candidates, now: Duration) -> Vec<String> {
    let name = |credential: &Arc<Credential>| match credential.material() {
        Material::Secret(text) => text.expose_secret().to_owned(),
        Material::Certificate(certificate) => certificate.not_before().as_secs().to_string(),
    };
    candidates.in_order(now).iter().map(name).collect()
}

#[test]
fn the_old_one_stays_until_the_new_one_has_proved_itself() {
    let mut candidates = Candidates::default();
    assert!(candidates.replace(held(&["old"])));
    candidates.proved(&secret("old"));
    assert!(candidates.replace(held(&["new"])));
    assert_eq!(order(&candidates, S(0)), ["new", "old"]);
    candidates.refused(&secret("new"), S(0));
    assert_eq!(order(&candidates, S(1)), ["old", "new"]);
    candidates.proved(&secret("old"));
    assert_eq!(order(&candidates, S(1)), ["old", "new"]);
    candidates.proved(&secret("new"));
    assert_eq!(order(&candidates, S(1)), ["new"]);
}

#[test]
fn a_refused_one_has_another_chance_ever_later() {
    let mut candidates = Candidates::default();
    candidates.replace(held(&["new", "other"]));
    let mut now = S(1000);
    for pause in [30, 60, 120, 240, 480, 600, 600] {
        candidates.refused(&secret("new"), now);
        assert_eq!(order(&candidates, now + S(pause - 1)), ["other", "new"]);
        now += S(pause);
        assert_eq!(order(&candidates, now), ["new", "other"], "{pause}");
    }
    candidates.proved(&secret("new"));
    candidates.refused(&secret("new"), now);
    assert_eq!(order(&candidates, now + S(30)), ["new", "other"]);
}

#[test]
fn a_replaced_one_that_is_refused_goes_and_the_last_of_the_secret_stays() {
    let mut candidates = Candidates::default();
    candidates.replace(held(&["old"]));
    candidates.replace(held(&["new"]));
    candidates.refused(&secret("old"), S(0));
    candidates.refused(&secret("new"), S(0));
    assert_eq!(order(&candidates, S(1)), ["new"]);
    assert!(!candidates.is_promising(S(1)));
    candidates.refused(&secret("unheard of"), S(0));
    assert_eq!(order(&candidates, S(1)), ["new"]);
}

#[test]
fn what_was_taken_back_is_new_again_and_what_did_not_change_is_not() {
    let mut candidates = Candidates::default();
    candidates.replace(held(&["one"]));
    assert!(!candidates.replace(held(&["one"])));
    assert!(candidates.replace(held(&["two"])));
    assert!(candidates.replace(held(&["one"])));
    assert_eq!(order(&candidates, S(0)), ["one", "two"]);
    assert!(!candidates.replace(held(&["one", "one"])), "listed twice");
    assert_eq!(order(&candidates, S(0)), ["one", "two"]);
}

#[test]
fn a_refusal_outlives_a_secret_that_is_written_again() {
    let mut candidates = Candidates::default();
    candidates.replace(held(&["a", "b"]));
    candidates.refused(&secret("a"), S(0));
    candidates.replace(held(&["a", "b"]));
    assert_eq!(order(&candidates, S(1)), ["b", "a"]);
}

#[test]
fn a_secret_that_is_written_often_keeps_few_and_those_that_worked() {
    let mut candidates = Candidates::default();
    candidates.replace(held(&["worked"]));
    candidates.proved(&secret("worked"));
    for n in 0..100 {
        candidates.replace(held(&[&n.to_string()]));
    }
    let order = order(&candidates, S(0));
    assert_eq!(order.len(), 1 + MAX_REPLACED);
    assert_eq!((&*order[0], &*order[1]), ("99", "worked"));
}

#[test]
fn certificates_that_are_not_valid_come_last_and_are_no_reason_to_give_up() {
    let begins = |first_year| year(first_year).as_secs().to_string();
    let mut candidates = Candidates::default();
    candidates.replace(vec![
        certificate(0, 2030),
        certificate(1, 2025),
        certificate(0, 2020),
    ]);
    assert_eq!(
        order(&candidates, year(2026)),
        [begins(2025), begins(2030), begins(2020)]
    );
    assert_eq!(candidates.expired_since(year(2026)), None);
    assert_eq!(
        candidates.expired_since(year(2032)),
        None,
        "a clock may be off"
    );
    assert_eq!(
        candidates.expired_since(year(2032) + SKEW),
        Some(year(2032))
    );
    assert!(!candidates.is_promising(year(2028)), "between the two");
    candidates.replace(held(&["secret"]));
    assert_eq!(candidates.expired_since(year(2040)), None);
    assert_eq!(Candidates::default().expired_since(year(2040)), None);
}
