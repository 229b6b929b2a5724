use super::*;

fn parse(text: &str) -> Result<Fault, String> {
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

#[test]
fn what_a_person_writes_survives_the_way_through_json() {
    for text in [
        "{target: imds, status: 429, retryAfter: 3, count: 2, match: {clientID: abc}}",
        "{target: imds, latency: 1s 500ms}",
        "{target: vault, silence: true, after: 3}",
        "{target: imds, lifetime: 2m, match: {vm: a, path: /metadata}}",
        "{target: imds, missing: expires_in}",
        "{target: entra, huge: 1024, latency: 5ms}",
    ] {
        let fault = parse(text).unwrap();
        let json = serde_json::to_string(&fault).unwrap();
        assert_eq!(
            serde_json::from_str::<Fault>(&json).unwrap(),
            fault,
            "{json}"
        );
    }
}

#[test]
fn a_fault_without_or_with_two_effects_is_refused_by_name() {
    assert!(parse("{target: imds}").unwrap_err().contains("no effect"));
    let two = parse("{target: imds, silence: true, reset: true}").unwrap_err();
    assert!(two.contains("silence and reset"), "{two}");
    assert!(
        parse("{target: imds, silence: true, body: x}")
            .unwrap_err()
            .contains("status")
    );
    assert!(
        parse("{target: imds, status: 99}")
            .unwrap_err()
            .contains("99")
    );
}

#[test]
fn count_and_after_bound_what_is_hit() {
    let faults = Faults::new([Fault::status(Target::Imds, 500).after(1).times(2)]);
    let facts = Facts::default();
    let hits: Vec<bool> = (0..5)
        .map(|_| faults.strike(Target::Imds, &facts).effect.is_some())
        .collect();
    assert_eq!(hits, [false, true, true, false, false]);
    assert!(faults.list().is_empty(), "a used-up fault goes away");
}

#[test]
fn conditions_are_anded_and_token_effects_wait_for_a_token() {
    let faults = Faults::new([Fault::new(Target::Imds, Effect::Expired)
        .for_client("ABC")
        .times(1)]);
    let other = Facts {
        client_id: Some("def"),
        token: true,
        ..Facts::default()
    };
    let probe = Facts {
        client_id: Some("abc"),
        ..Facts::default()
    };
    let token = Facts {
        client_id: Some("abc"),
        token: true,
        ..Facts::default()
    };
    assert_eq!(faults.strike(Target::Imds, &other), Strike::default());
    assert_eq!(faults.strike(Target::Imds, &probe), Strike::default());
    assert_eq!(faults.strike(Target::Vault, &token), Strike::default());
    assert_eq!(
        faults.strike(Target::Imds, &token).effect,
        Some(Effect::Expired)
    );
}
