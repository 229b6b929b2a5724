use super::*;

const SMALL: &str = "
tenant: {id: 11111111-1111-1111-1111-111111111111}
identities:
  - {name: a, clientID: 22222222-2222-2222-2222-222222222222,
 principalID: 33333333-3333-3333-3333-333333333333, resourceID: /subscriptions/s/a}
vms: [{name: node-1, identities: [a]}]
";

#[test]
fn a_small_world_gets_azures_defaults() {
    let world = World::from_yaml(SMALL).unwrap();
    assert_eq!(world.tokens.lifetime, Duration::from_hours(24));
    assert!(world.imds.throttle && world.tokens.cache);
    assert_eq!(world.vms[0].location, "westeurope");
}

#[test]
fn durations_are_written_as_people_do() {
    let text =
        format!("{SMALL}\ntokens: {{lifetime: 90s, renewBefore: 1m}}\nimds: {{latency: 30ms}}\n");
    let world = World::from_yaml(&text).unwrap();
    assert_eq!(world.tokens.lifetime, Duration::from_secs(90));
    assert_eq!(world.tokens.renew_before, Some(Duration::from_mins(1)));
    assert_eq!(world.imds.latency, Duration::from_millis(30));
}

#[test]
fn an_unknown_field_is_named_with_its_line() {
    let text = SMALL.replace("vms: [{name: node-1,", "vms: [{name: node-1, colour: red,");
    let message = World::from_yaml(&text).unwrap_err().to_string();
    assert!(
        message.contains("colour") && message.contains('6'),
        "{message}"
    );
}

#[test]
fn a_vault_that_allows_nobody_known_is_refused() {
    let text = format!("{SMALL}\nvaults: [{{name: v, allow: {{get: [a, typo]}}}}]\n");
    let message = World::from_yaml(&text).unwrap_err().to_string();
    assert!(
        message.contains("vaults[0].allow.get") && message.contains("`typo`"),
        "{message}"
    );
}

#[test]
fn the_documented_world_is_a_valid_one() {
    let world = World::from_yaml(include_str!("../../../docs/simulate-world.yaml")).unwrap();
    assert_eq!(world.vaults[0].name, "demo");
}

#[test]
fn a_dangling_identity_and_a_bad_guid_are_refused() {
    let dangling = SMALL.replace("identities: [a]", "identities: [b]");
    let message = World::from_yaml(&dangling).unwrap_err().to_string();
    assert!(
        message.contains("vms[0].identities") && message.contains("`b`"),
        "{message}"
    );
    let bad = SMALL.replace("22222222-2222", "22222222_2222");
    assert!(
        World::from_yaml(&bad)
            .unwrap_err()
            .to_string()
            .contains("clientID")
    );
}

#[test]
fn a_scale_set_will_do_without_a_machine() {
    let text = SMALL.replace("vms: [{name: node-1,", "scaleSets: [{name: pool,");
    let world = World::from_yaml(&text).unwrap();
    assert_eq!(world.scale_sets[0].location, "westeurope");
    let id = world.scale_sets[0].arm_id();
    assert!(id.ends_with("/virtualMachineScaleSets/pool"), "{id}");
    let twice = format!("{text}\nvms: [{{name: pool}}]\n");
    assert!(
        World::from_yaml(&twice).is_err(),
        "names are unique over both"
    );
}

#[test]
fn a_role_assignment_says_one_thing_about_somebody_known() {
    let refused = |entry: &str| {
        let text = format!("{SMALL}\nroleAssignments: [{{{entry}}}]\n");
        World::from_yaml(&text).unwrap_err().to_string()
    };
    let nobody = refused("principal: typo, role: Reader, scope: /subscriptions/s");
    assert!(nobody.contains("roleAssignments[0]"), "{nobody}");
    assert!(refused("principal: a, scope: /subscriptions/s").contains("`actions`"));
    assert!(refused("principal: a, role: Boss, scope: /").contains("Boss"));
    let open = World::from_yaml(SMALL).unwrap();
    assert!(open.role_assignments.is_none());
    let arm = format!("{SMALL}\narm: {{operationDuration: 2s, idCase: upperGroups}}\n");
    let arm = World::from_yaml(&arm).unwrap().arm;
    assert_eq!(arm.operation_duration, Duration::from_secs(2));
    assert_eq!(arm.id_case, IdCase::UpperGroups);
}
