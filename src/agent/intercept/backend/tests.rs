use super::*;

#[expect(clippy::unnecessary_wraps, reason = "beside those that cannot be used")]
fn shows(text: &str) -> Listing {
    Ok(Ruleset::parse(text))
}

fn decided(nft: &Listing, legacy: &Listing) -> Backend {
    decide(nft, legacy).unwrap().backend
}

#[test]
fn an_empty_node_gets_nft() {
    assert_eq!(decided(&shows(""), &shows("")), Backend::Nft);
}

#[test]
fn kubelets_hint_decides_against_any_number_of_rules() {
    let hint = shows("*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n");
    let many = shows("*nat\n-A A -j B\n-A A -j C\n-A A -j D\nCOMMIT\n");
    assert_eq!(decided(&many, &hint), Backend::Legacy);
    assert_eq!(decided(&hint, &many), Backend::Nft);
}

#[test]
fn else_the_rules_of_others_are_counted_and_ours_are_not() {
    let one = shows("*nat\n-A PREROUTING -j CNI-HOSTPORT\nCOMMIT\n");
    let ours = shows("*nat\n-A PREROUTING -j LANYARD-X\n-A LANYARD-X -j DNAT\n-A LANYARD-X -j A\n");
    assert_eq!(decided(&ours, &one), Backend::Legacy);
    assert_eq!(decided(&one, &ours), Backend::Nft);
}

#[test]
fn a_backend_that_cannot_be_used_is_not() {
    let broken = || Err("not installed".to_owned());
    let native = shows("# Table `nat' is incompatible, use 'nft' tool.\n");
    assert_eq!(decided(&broken(), &shows("")), Backend::Legacy);
    assert_eq!(decided(&shows(""), &broken()), Backend::Nft);
    assert_eq!(decided(&native, &shows("")), Backend::Legacy);
    assert!(
        decide(&broken(), &broken())
            .unwrap_err()
            .to_string()
            .contains("not installed")
    );
}

#[test]
fn the_flag_is_read_and_printed() {
    for word in ["auto", "nft", "legacy"] {
        assert_eq!(word.parse::<BackendChoice>().unwrap().to_string(), word);
    }
    assert!("iptables".parse::<BackendChoice>().is_err());
}
