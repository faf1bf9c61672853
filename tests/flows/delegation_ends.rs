//! What is exchanged no more when somebody of the chain is gone.

use lumoauth_tests::{Server, on_each_backend, text};
use serde_json::json;

on_each_backend!(blocked_person_is_nobody_to_act_for, agent_that_is_gone_acts_for_nobody);

fn blocked_person_is_nobody_to_act_for(server: &Server) {
    let org = server.acme();
    let (alice, first, second) = (org.person(), org.delegate(&["read:a"]), org.delegate(&["read:a"]));
    let mcp = org.mcp_server(json!({}));
    let user = alice.allow(&first, "read:a");
    let delegated = first.acting_for(&user.access);
    second.act_for(&delegated, &second.token(), &[]).ok();
    let change = |verb: &str| org.admin("POST", &format!("/users/{}/{verb}", alice.id)).send().ok();
    change("block");
    let refused = || {
        first.act_for(&user.access, &first.token(), &[]).refused(400, "invalid_grant");
        second.act_for(&delegated, &second.token(), &[]).refused(400, "invalid_grant");
        first.exchange(&delegated, &[("scope", "read:a")]).refused(400, "invalid_grant");
        let target = [("resource", text(&mcp["resource_uri"]))];
        first.exchange(&delegated, &target).refused(400, "invalid_grant");
        first.refresh(&user.refresh, &[]).refused(400, "invalid_grant");
    };
    refused();
    // Nor is anything of that revived.
    change("unblock");
    refused();
}

fn agent_that_is_gone_acts_for_nobody(server: &Server) {
    let org = server.acme();
    let (alice, first, second) = (org.person(), org.delegate(&["read:a"]), org.delegate(&["read:a"]));
    let user = alice.allow(&first, "read:a");
    let (delegated, actor) = (first.acting_for(&user.access), second.token());
    let nested = second.act_for(&delegated, &actor, &[]).ok();
    let nested = text(&nested["access_token"]);
    second.admin("POST", "/deactivate").send().ok();
    // As the actor, and as one of the chain.
    second.act_for(&delegated, &actor, &[]).refused(400, "invalid_grant");
    let third = org.delegate(&["read:a"]);
    third.act_for(nested, &third.token(), &[]).refused(400, "invalid_grant");
    // The first one goes on.
    first.act_for(&user.access, &first.token(), &[]).ok();
    third.act_for(&delegated, &third.token(), &[]).ok();
}
