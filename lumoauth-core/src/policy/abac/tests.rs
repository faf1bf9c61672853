use std::{net::IpAddr, time::Duration};

use serde_json::{Map, Value, json};

use super::{Condition, Facts, Values, operator::Truth};
use crate::{
    agent::Agent,
    id::{Label, Slug},
    policy::{AttributeOwner, AttributeValue, Environment, Resource},
    user::User,
};

fn now() -> crate::clock::Timestamp {
    // A Wednesday.
    "2024-05-15T10:30:30Z".parse().unwrap()
}

/// What `condition` comes to for a user with an attribute, an agent, a document and a request.
fn outcome(condition: &Value) -> Result<Truth, super::InvalidCondition> {
    let condition = Condition::parse(condition)?;
    let mut user = User::new("ada@example.org", now());
    user.is_admin = true;
    let agent = Agent::new("Bot", Slug::parse("bot").unwrap(), now());
    let mut values = Values::default();
    let mut set = |owner: AttributeOwner, slug: &str, value: Value| {
        values.set(&AttributeValue::new(owner, Label::parse(slug).unwrap(), value));
    };
    set(AttributeOwner::User(user.id), "department", json!("finance"));
    set(AttributeOwner::User(user.id), "tags", json!(["a", "b"]));
    set(AttributeOwner::User(user.id), "level", json!(5));
    let document = AttributeOwner::resource("document", "1").unwrap();
    set(document.clone(), "owner", json!({ "id": "finance", "deep": { "er": 1 } }));
    set(document, "classification", json!("secret"));
    let claimed: Map<String, Value> =
        serde_json::from_str(r#"{"classification": "public", "size": 3}"#).unwrap();
    let given: Map<String, Value> =
        serde_json::from_str(r#"{"ip": "10.0.0.1", "hour": 3, "risk": 70.5, "at": "2024-05-15T12:00:00+02:00", "bad": null, "price": "$5", "prices": ["$user.department"], "text": "aaaaaaaaaaaaaaaaaaaaaaaaaaaa!"}"#).unwrap();
    let resource = Resource { kind: Some("document"), id: Some("1"), given: Some(&claimed) };
    let environment = Environment {
        given: &given,
        ip: Some("::ffff:203.0.113.7".parse::<IpAddr>().unwrap()),
        user_agent: Some("curl"),
        method: "POST",
        path: "/x",
        now: now().plus(Duration::ZERO),
    };
    let roles = || vec![Label::parse("analyst").unwrap()];
    let facts = Facts {
        values: &values,
        user: Some((&user, &roles)),
        agent: Some((&agent, &roles)),
        resource: &resource,
        environment: &environment,
    };
    Ok(condition.evaluate(&facts))
}

fn test(attribute: &str, operator: &str, value: Value) -> Value {
    json!({ "attribute": attribute, "operator": operator, "value": value })
}

#[test]
fn every_operator_compares() {
    use Truth::{False, True, Unclear};
    for (attribute, operator, value, expected) in [
        ("user.department", "equals", json!("finance"), True),
        ("subject.department", "equals", json!("finance"), True),
        ("user.department", "equals", json!("Finance"), False),
        ("user.department", "not_equals", json!("finance"), False),
        ("user.level", "equals", json!(5.0), True),
        ("user.level", "equals", json!("5"), False),
        ("user.department", "in", json!(["finance", "law"]), True),
        ("user.department", "not_in", json!(["finance"]), False),
        ("user.tags", "in", json!(["b", "c"]), True),
        ("user.tags", "contains", json!("a"), True),
        ("user.tags", "not_contains", json!("z"), True),
        ("user.department", "contains", json!("nan"), True),
        ("user.level", "contains", json!(5), Unclear),
        ("user.level", "gt", json!(4), True),
        ("user.level", "greater_than", json!(5), False),
        ("user.level", "gte", json!(5), True),
        ("user.level", "lt", json!(5.5), True),
        ("user.level", "less_than", json!(5), False),
        ("user.level", "lte", json!(5), True),
        ("user.department", "gt", json!(4), Unclear),
        ("environment.risk", "gt", json!(70), True),
        ("environment.at", "gte", json!("2024-05-15T10:00:00Z"), True),
        ("environment.time", "lt", json!("2024-05-15T10:30:31Z"), True),
        ("user.department", "matches", json!("^fin.*e$"), True),
        ("user.department", "matches", json!("^nan"), False),
        ("environment.price", "matches", json!(r"^\$5$"), True),
        ("environment.prices", "contains", json!("$user.department"), False),
        ("user.level", "matches", json!("5"), Unclear),
        ("user.department", "exists", Value::Null, True),
        ("user.none", "exists", Value::Null, False),
        ("user.none", "not_exists", Value::Null, True),
        ("environment.bad", "exists", Value::Null, False),
        ("environment.ip", "in_cidr", json!("203.0.113.0/24"), True),
        ("environment.ip", "in_cidr", json!(["10.0.0.0/8", "203.0.113.7"]), True),
        ("environment.ip", "in_cidr", json!("10.0.0.0/8"), False),
        ("environment.ip", "in_cidr", json!("0.0.0.0/0"), True),
        ("environment.ip", "in_cidr", json!("2001:db8::/32"), False),
        ("environment.ip", "not_in_cidr", json!("10.0.0.0/8"), True),
        ("environment.text", "in_cidr", json!("10.0.0.0/8"), Unclear),
        ("environment.hour", "equals", json!(10), True),
        ("environment.dayOfWeek", "equals", json!(3), True),
        ("environment.isWeekend", "equals", json!(false), True),
        ("environment.requestMethod", "equals", json!("POST"), True),
        ("resource.type", "equals", json!("document"), True),
        ("resource.owner.id", "equals", json!("$user.department"), True),
        ("resource.owner.deep.er", "equals", json!(1), True),
        ("resource.classification", "equals", json!("secret"), True),
        ("resource.size", "equals", json!(3), True),
        ("user.department", "equals", json!("$resource.owner.id"), True),
        ("user.department", "equals", json!("$resource.nothing"), False),
        ("user.department", "not_equals", json!("$resource.nothing"), Unclear),
        ("user.isAdmin", "equals", json!(true), True),
        ("user.roles", "contains", json!("analyst"), True),
        ("agent.slug", "equals", json!("bot"), True),
        ("agent.roles", "contains", json!("analyst"), True),
        // What is not there fails, and what must not be something is unclear.
        ("user.none", "equals", json!(1), False),
        ("user.none", "gt", json!(1), False),
        ("user.none", "not_equals", json!(1), Unclear),
        ("user.none", "not_in", json!([1]), Unclear),
        ("user.none", "not_contains", json!(1), Unclear),
        ("user.none", "not_in_cidr", json!("10.0.0.0/8"), Unclear),
    ] {
        let condition = test(attribute, operator, value);
        assert_eq!(outcome(&condition).unwrap(), expected, "{condition}");
    }
}

#[test]
fn groups_combine() {
    use Truth::{False, True, Unclear};
    let yes = test("user.level", "equals", json!(5));
    let no = test("user.level", "equals", json!(6));
    let odd = test("user.level", "matches", json!("5"));
    let gone = test("user.gone", "gt", json!(5));
    for (condition, expected) in [
        (json!(null), True),
        (json!({}), True),
        (json!({ "operator": "AND", "conditions": [yes, yes] }), True),
        (json!({ "operator": "AND", "conditions": [yes, no] }), False),
        (json!({ "conditions": [yes] }), True),
        (json!({ "operator": "OR", "conditions": [no, yes] }), True),
        (json!({ "operator": "OR", "conditions": [no, { "operator": "AND", "conditions": [yes] }] }), True),
        (json!({ "all": [yes], "none": [no] }), True),
        (json!({ "all": [yes], "none": [yes] }), False),
        (json!({ "any": [no, no] }), False),
        (json!([yes, no]), False),
        (json!([yes, odd]), Unclear),
        (json!([no, odd]), False),
        (json!({ "any": [yes, odd] }), True),
        (json!({ "any": [no, odd] }), Unclear),
        (json!({ "none": [odd] }), Unclear),
        // What is not there is not a no that a yes can be made of.
        (json!({ "none": [gone] }), Unclear),
        (json!({ "none": [no, gone] }), Unclear),
        (json!({ "none": [yes, gone] }), False),
        (json!({ "none": [{ "all": [gone, no] }] }), True),
        (json!({ "none": [{ "any": [gone, no] }] }), Unclear),
        (json!({ "none": [{ "none": [gone] }] }), Unclear),
        (json!({ "none": [test("user.level", "equals", json!("$resource.nothing"))] }), Unclear),
        (json!({ "none": [test("user.gone", "exists", Value::Null)] }), True),
        (json!({ "none": [test("user.gone", "not_exists", Value::Null)] }), False),
        (json!({ "any": [gone, no] }), False),
    ] {
        assert_eq!(outcome(&condition).unwrap(), expected, "{condition}");
    }
}

#[test]
fn what_cannot_be_read_is_refused() {
    let mut deep = test("user.a", "exists", Value::Null);
    for _ in 0..12 {
        deep = json!({ "all": [deep] });
    }
    let wide: Vec<Value> = (0..200).map(|_| test("user.a", "exists", Value::Null)).collect();
    for condition in [
        json!(true),
        json!({ "operator": "XOR", "conditions": [test("user.a", "exists", Value::Null)] }),
        json!({ "operator": "AND", "conditions": [] }),
        json!({ "all": [], "any": 7 }),
        json!({ "all": [test("user.a", "exists", Value::Null)], "attribute": "user.a" }),
        json!({ "operator": "equals", "value": 1 }),
        json!({ "attribute": "user.a", "value": 1 }),
        test("user.a", "resembles", json!(1)),
        test("user.a", "equals", Value::Null),
        test("department", "equals", json!(1)),
        test("server.secret", "equals", json!(1)),
        test("user.", "equals", json!(1)),
        test("user.a", "in", json!("a")),
        test("user.a", "matches", json!("(")),
        test("user.a", "matches", json!("(a{1000}){1000}")),
        test("user.a", "matches", json!("(?=a)")),
        test("user.a", "matches", json!("a".repeat(600))),
        test("user.a", "matches", json!("$user.b")),
        test("user.a", "exists", json!(false)),
        test("user.a", "gt", json!("tall")),
        test("user.a", "in", json!([])),
        test("user.a", "not_in", json!([])),
        test("environment.ip", "in_cidr", json!([])),
        test("user.a", "equals", json!("$5")),
        test("user.a", "equals", json!("$usr.id")),
        test("user.a", "equals", json!("$resource")),
        test("user.a", "in", json!(["$user.id", "b"])),
        test("user.a", "contains", json!("$5")),
        test("user.a", "in", json!([["$user.id"], "b"])),
        test("user.a", "equals", json!({ "owner": "$user.id" })),
        test("user.a", "contains", json!([{ "owner": ["$user.id"] }])),
        test("environment.ip", "in_cidr", json!("10.0.0.0/33")),
        test("environment.ip", "in_cidr", json!("10.0.0.0/+8")),
        test("environment.ip", "in_cidr", json!("everywhere")),
        deep,
        json!(wide),
    ] {
        assert!(outcome(&condition).is_err(), "{condition}");
    }
}

/// What takes a backtracking engine ages takes this one the time of a few passes: another would still be at the first one
/// tomorrow.
#[test]
fn patterns_take_linear_time() {
    let text = Value::String(format!("{}!", "a".repeat(16 * 1024 - 1)));
    let too_long = Value::String("a".repeat(16 * 1024 + 1));
    for (pattern, expected) in [
        ("^(a+)+$", Truth::False),
        ("^(a|a)*$", Truth::False),
        ("^(a|aa)+$", Truth::False),
        ("(.*a){20}b", Truth::False),
        ("^(([a-z])+.)+[A-Z]([a-z])+$", Truth::False),
        ("a!$", Truth::True),
    ] {
        let condition = test("environment.text", "matches", json!(pattern));
        assert!(outcome(&condition).is_ok(), "{pattern}");
        let operand = super::operator::Operator::Matches.operand(&json!(pattern)).unwrap();
        let compare = |text| super::operator::Operator::Matches.compare(Some(text), &operand);
        assert_eq!((compare(&text), compare(&too_long)), (expected, Truth::Unclear), "{pattern}");
    }
}
