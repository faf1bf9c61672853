//! Relations.

use http::StatusCode;
use lumoauth_core::{
    policy::{Check, Namespace, Tuple},
    server::{NamespaceRequest, RelationRequest, TupleRequest},
    wire::WireError,
};
use serde_json::{Value, json};

use super::{Call, refuse};
use crate::reply::{self, Reply};

/// POST `authz/zanzibar/check`, `zanzibar/check`.
pub(crate) async fn check(call: Call) -> Result<Reply, WireError> {
    let request: RelationRequest = call.json()?;
    let found = call
        .server
        .relation_check(&call.organization, call.principal()?, &request, call.facts(), &call.caller()?)
        .await
        .map_err(refuse)?;
    let subject = request.subject.clone().or_else(|| request.user.clone()).or_else(|| {
        let set = request.user_relation.as_ref().map(|set| format!("#{set}")).unwrap_or_default();
        Some(format!("{}:{}{set}", request.user_type.as_ref()?, request.user_id.as_ref()?))
    });
    let split = || Some(format!("{}:{}", request.object_type.as_ref()?, request.object_id.as_ref()?));
    let mut body = json!({
        "allowed": found.answer.is_held(),
        "object": request.object.clone().or_else(split),
        "relation": request.relation,
        "subject": subject,
        "user": subject,
        "consistency_token": found.token,
    });
    match &found.answer {
        Check::Held(tuples) => body["path"] = tuples.iter().map(ToString::to_string).collect(),
        Check::NotHeld => {}
        Check::Unclear => body["reason"] = "It is too far away, or too much, to tell.".into(),
    }
    Ok(reply::budgeted(&body, &found.remaining))
}

/// POST `authz/zanzibar/expand`, `zanzibar/expand`.
pub(crate) async fn expand(call: Call) -> Result<Reply, WireError> {
    let request: RelationRequest = call.json()?;
    let found = call
        .server
        .relation_expand(&call.organization, call.principal()?, &request, call.facts(), &call.caller()?)
        .await
        .map_err(refuse)?;
    let body = json!({ "tree": found.answer, "consistency_token": found.token });
    Ok(reply::budgeted(&body, &found.remaining))
}

/// POST `authz/zanzibar/objects`, `zanzibar/objects`.
pub(crate) async fn objects(call: Call) -> Result<Reply, WireError> {
    let request: RelationRequest = call.json()?;
    let found = call
        .server
        .relation_objects(&call.organization, call.principal()?, &request, call.facts(), &call.caller()?)
        .await
        .map_err(refuse)?;
    let body = json!({
        "objects": found.answer.objects,
        "truncated": found.answer.truncated,
        "consistency_token": found.token,
    });
    Ok(reply::budgeted(&body, &found.remaining))
}

/// GET `zanzibar/tuples`.
pub(crate) async fn tuples(call: Call) -> Result<Reply, WireError> {
    let query = call.query();
    let paging = query.page()?;
    let filter = filter(&call);
    let found = call.server.tuples(call.org(), &filter, paging.store_page()).await.map_err(refuse)?;
    let items = found.items.iter().map(view).collect();
    Ok(reply::ok(&paging.render("relation_tuples", items, found.total)))
}

/// What the query names.
fn filter(call: &Call) -> RelationRequest {
    let query = call.query();
    let text = |names: &[&str]| query.whole(names).map(str::to_owned);
    let mut filter = RelationRequest::default();
    filter.object = text(&["object"]);
    filter.relation = text(&["relation"]);
    filter.subject = text(&["subject"]);
    filter.user = text(&["user"]);
    filter.object_type = text(&["object_type", "objectType", "namespace"]);
    filter.object_id = text(&["object_id", "objectId"]);
    filter.user_type = text(&["user_type", "userType", "subject_type", "subjectType"]);
    filter.user_id = text(&["user_id", "userId", "subject_id", "subjectId"]);
    filter.user_relation = text(&["user_relation", "userRelation", "subject_relation", "subjectRelation"]);
    filter
}

/// POST `zanzibar/tuples`.
pub(crate) async fn write(call: Call) -> Result<Reply, WireError> {
    let request: TupleRequest = call.json()?;
    let (all, new, token) =
        call.server.write_tuples(call.org(), &request, &call.caller()?).await.map_err(refuse)?;
    let data = data(&all, request.tuples.is_some());
    let status = if new.is_empty() { StatusCode::OK } else { StatusCode::CREATED };
    let body = json!({
        "data": data, "message": "Relations written.", "written": new.len(), "consistency_token": token,
    });
    Ok(reply::json(status, &body))
}

/// DELETE `zanzibar/tuples`: those that the body names, or else the one that the query names.
pub(crate) async fn remove(call: Call) -> Result<Reply, WireError> {
    let request: TupleRequest = if call.body.is_empty() {
        let mut request = TupleRequest::default();
        request.tuple = call.query().whole(&["tuple"]).map(str::to_owned);
        request.one = filter(&call);
        request
    } else {
        call.json()?
    };
    let (there, token) =
        call.server.remove_tuples(call.org(), &request, &call.caller()?).await.map_err(refuse)?;
    let data = data(&there, request.tuples.is_some());
    let body = json!({
        "data": data, "message": "Relations removed.", "removed": there.len(), "consistency_token": token,
    });
    Ok(reply::ok(&body))
}

fn data(tuples: &[Tuple], several: bool) -> Value {
    match tuples {
        [one] if !several => view(one),
        several => several.iter().map(view).collect(),
    }
}

fn view(tuple: &Tuple) -> Value {
    json!({
        "tuple": tuple.to_string(),
        "object": tuple.object,
        "relation": tuple.relation,
        "subject": tuple.subject.to_string(),
        "user": tuple.subject.to_string(),
        "object_type": tuple.object.namespace(),
        "object_id": tuple.object.id(),
        "user_type": tuple.subject.entity.namespace(),
        "user_id": tuple.subject.entity.id(),
        "user_relation": tuple.subject.relation,
    })
}

/// GET `zanzibar/namespaces`.
pub(crate) async fn namespaces(call: Call) -> Result<Reply, WireError> {
    let query = call.query();
    let paging = query.page()?;
    let search = query.get(&["search"]).unwrap_or_default().to_lowercase();
    let mut all = call.server.namespaces(call.org()).await.map_err(refuse)?;
    all.retain(|namespace| namespace.name.as_str().to_lowercase().contains(&search));
    let total = all.len() as u64;
    let items = paging.slice(all).map(|it| namespace_view(&it)).collect();
    Ok(reply::ok(&paging.render("relation_namespaces", items, total)))
}

/// PUT `zanzibar/namespaces/{}`.
pub(crate) async fn define(call: Call) -> Result<Reply, WireError> {
    let request: NamespaceRequest = call.json()?;
    let caller = call.caller()?;
    let namespace =
        call.server.define_namespace(call.org(), call.name(), &request, &caller).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "data": namespace_view(&namespace), "message": "Namespace defined." })))
}

/// DELETE `zanzibar/namespaces/{}`.
pub(crate) async fn undefine(call: Call) -> Result<Reply, WireError> {
    call.server.remove_namespace(call.org(), call.name(), &call.caller()?).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "message": "Namespace removed: the usual rules hold." })))
}

fn namespace_view(namespace: &Namespace) -> Value {
    json!({ "name": namespace.name, "relations": namespace.relations })
}
