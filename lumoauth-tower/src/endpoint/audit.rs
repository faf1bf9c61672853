//! Reading the audit log.

use std::{fmt::Write, time::Duration};

use lumoauth_core::{
    audit::{EventKind, EventOutcome},
    clock::Timestamp,
    server::ApiError,
    store::{AuditFilter, Listing, LogEntry, Page},
    wire::{WireError, view},
};
use serde_json::{Value, json};

use super::{Call, Query, refuse};
use crate::reply::{self, Reply};

/// The most entries that one export carries.
const MAX_EXPORT: u64 = 10_000;

/// An export ends after the entry that passes this size: memory is bounded whatever the entries hold.
const MAX_EXPORT_BYTES: usize = 64 * 1024 * 1024;

/// Entries that are read at once.
const EXPORT_STEP: u32 = 500;

/// GET `admin/audit-logs`.
pub(crate) async fn list(call: Call) -> Result<Reply, WireError> {
    let query = call.query();
    let paging = query.page()?;
    let page = entries(&call, &query, &filter(&query)?, paging.store_page()).await?;
    let items = page.items.iter().map(view::audit_entry_detailed).collect();
    Ok(reply::ok(&paging.render("audit_logs", items, page.total)))
}

/// GET `admin/audit-logs/{}`.
pub(crate) async fn read(call: Call) -> Result<Reply, WireError> {
    let entry = call.server.audit_entry(call.org(), call.name()).await.map_err(refuse)?;
    Ok(reply::ok(&json!({ "data": view::audit_entry_detailed(&entry) })))
}

/// GET `admin/audit-logs/actions`.
pub(crate) async fn actions(_call: Call) -> Result<Reply, WireError> {
    let names: Vec<_> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
    Ok(reply::ok(&json!({ "data": names })))
}

/// GET `admin/audit-logs/stats`: the last 30 days unless the query says otherwise.
pub(crate) async fn stats(call: Call) -> Result<Reply, WireError> {
    let mut filter = filter(&call.query())?;
    let until = *filter.until.get_or_insert_with(|| call.server.now().plus(Duration::from_secs(1)));
    let from = *filter.from.get_or_insert_with(|| until.minus(Duration::from_secs(30 * 86_400)));
    let stats = call.server.audit_stats(call.org(), &filter).await.map_err(refuse)?;
    Ok(reply::ok(&json!({
        "data": {
            "total": stats.total,
            "period": { "from": from.to_string(), "to": until.to_string() },
            "byEventType": stats.by_kind,
            "byAction": stats.by_kind,
            "bySeverity": stats.by_severity,
        },
    })))
}

/// GET, POST `admin/audit-logs/export`: CSV, or JSON with `format=json`; at most 10000 entries and 64 MiB, newest first. A
/// body says the same as a query.
pub(crate) async fn export(call: Call) -> Result<Reply, WireError> {
    let query = call.posted_query()?;
    let as_json = match query.get(&["format"]) {
        None | Some("csv") => false,
        Some("json") => true,
        Some(_) => return Err(WireError::invalid_request("format must be csv or json.")),
    };
    let mut filter = filter(&query)?;
    // What happens during the export is not part of it; what happened just now is.
    filter.until.get_or_insert_with(|| call.server.now().plus(Duration::from_millis(1)));
    let mut text = String::from(if as_json { "{\"data\":[" } else { "" });
    if !as_json {
        text.push_str(&COLUMNS.join(","));
        text.push_str("\r\n");
    }
    let (mut written, mut read, mut total, mut last) = (0, 0, None, u64::MAX);
    while written < total.unwrap_or(MAX_EXPORT).min(MAX_EXPORT) && text.len() < MAX_EXPORT_BYTES {
        let step = entries(&call, &query, &filter, Page { offset: read, limit: EXPORT_STEP }).await?;
        total.get_or_insert(step.total);
        if step.items.is_empty() {
            break;
        }
        read += step.items.len() as u64;
        // What is numbered meanwhile comes first, and moves what was read already to this page.
        let before = last;
        for entry in step.items.iter().skip_while(|entry| entry.seq >= before) {
            last = entry.seq;
            if as_json {
                let separator = if written == 0 { "" } else { "," };
                write!(text, "{separator}{}", view::audit_entry_detailed(entry)).expect(INTO_STRING);
            } else {
                csv_row(&mut text, entry);
            }
            written += 1;
        }
    }
    let total = total.unwrap_or_default();
    if as_json {
        write!(text, "],\"total\":{total},\"exported\":{written}}}").expect(INTO_STRING);
        let name = "attachment; filename=\"audit-logs.json\"";
        return Ok(reply::download("application/json; charset=utf-8", name, text));
    }
    Ok(reply::download("text/csv; charset=utf-8", "attachment; filename=\"audit-logs.csv\"", text))
}

/// The entries that `filter` admits: of all, or of the one that the query names by its `auditId`.
async fn entries(
    call: &Call,
    query: &Query,
    filter: &AuditFilter,
    page: Page,
) -> Result<Listing<LogEntry>, WireError> {
    let Some(id) = query.get(&["auditId", "audit_id"]) else {
        return call.server.audit_log(call.org(), filter, page).await.map_err(refuse);
    };
    let found = match call.server.audit_entry(call.org(), id).await {
        Ok(entry) => Some(entry).filter(|entry| filter.matches(&entry.event)),
        Err(ApiError::NotFound(_)) => None,
        Err(error) => return Err(refuse(error)),
    };
    let total = found.iter().count() as u64;
    Ok(Listing { items: found.into_iter().filter(|_| page.offset == 0).collect(), total })
}

/// Why writing cannot fail.
const INTO_STRING: &str = "writing to a string cannot fail";

fn filter(query: &Query) -> Result<AuditFilter, WireError> {
    let text = |names: &[&str]| query.get(names).map(ToOwned::to_owned);
    let time = |names: &[&str]| {
        query
            .get(names)
            .map(str::parse::<Timestamp>)
            .transpose()
            .map_err(|error| WireError::invalid_request(format!("{}: {error}.", names[0])))
    };
    let mut filter = AuditFilter::default();
    filter.kind = text(&["action", "eventType", "action", "event_type"]);
    filter.actor = text(&["actorId", "userId", "actor"]);
    filter.target = text(&["targetId"]);
    filter.category = text(&["category"]);
    filter.search = text(&["search"]);
    filter.from = time(&["from", "startDate"])?;
    filter.until = time(&["to", "endDate"])?;
    filter.outcome = match query.get(&["status", "outcome"]) {
        None => None,
        Some("success") => Some(EventOutcome::Success),
        Some("failure") => Some(EventOutcome::Failure),
        Some(_) => return Err(WireError::invalid_request("status must be success or failure.")),
    };
    Ok(filter)
}

const COLUMNS: [&str; 15] = [
    "id",
    "createdAt",
    "eventType",
    "action",
    "severity",
    "status",
    "actorType",
    "actorId",
    "actorName",
    "targetType",
    "targetId",
    "targetName",
    "ipAddress",
    "authMethod",
    "message",
];

fn csv_row(text: &mut String, entry: &LogEntry) {
    let view = view::audit_entry(entry);
    for (n, column) in COLUMNS.iter().enumerate() {
        let cell = match &view[*column] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let separator = if n == 0 { "" } else { "," };
        write!(text, "{separator}{}", csv_cell(&cell)).expect(INTO_STRING);
    }
    text.push_str("\r\n");
}

/// Quoted if needed; a leading character that a spreadsheet would run as a formula is disarmed.
fn csv_cell(cell: &str) -> String {
    let disarmed = match cell.chars().next() {
        Some('=' | '+' | '-' | '@' | '\t' | '\r') => format!("'{cell}"),
        _ => cell.to_owned(),
    };
    if disarmed.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", disarmed.replace('"', "\"\""))
    } else {
        disarmed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_cannot_break_out_or_become_formulas() {
        assert_eq!(csv_cell("plain"), "plain");
        assert_eq!(csv_cell("a,\"b\"\r\n"), "\"a,\"\"b\"\"\r\n\"");
        assert_eq!(csv_cell("=cmd()"), "'=cmd()");
    }
}
