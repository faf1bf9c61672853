//! What is left of agents and roles that are gone. It gives nobody anything, but it counts as policy of the organization.

use std::collections::BTreeSet;

use serde_json::json;

use super::{ApiError, AuthorizationServer, Caller, Plan, Shows};
use crate::{
    audit::{Actor, EventKind, Origin, Target},
    authz::Kept,
    id::{AgentId, OrgId},
    policy::{Assignment, AttributeOwner, Entity, Entry, Grant, Holder, RecordId, RecordKind, Snapshot},
    store::{AgentKey, Expect, PolicyChange},
};

/// How many records one change removes: its event names them all.
const STEP: usize = 200;

/// How many are removed together with the agent or the role. The rest is for maintenance.
const AT_ONCE: usize = 10_000;

/// At how many records of an organization a round of maintenance looks.
const LOOKED_AT: usize = 1000;

impl AuthorizationServer {
    /// Removes what an agent leaves behind that was deleted.
    pub(in crate::server) async fn forget_agent(&self, org: &OrgId, agent: AgentId, caller: &Caller) {
        let is_dead = |_: &Snapshot, entry: &Entry| agents_in(entry).any(|id| id == agent);
        let target = Target::new("agent", agent.to_string());
        self.forget(
            org,
            target,
            caller,
            [RecordKind::Assignment, RecordKind::Tuple, RecordKind::Value],
            is_dead,
        )
        .await;
    }

    /// Removes what a role leaves behind that was deleted.
    pub(super) async fn forget_role(&self, org: &OrgId, target: Target, grant: &Grant, caller: &Caller) {
        let is_dead =
            |_: &Snapshot, entry: &Entry| matches!(entry, Entry::Assignment(it) if it.grant == *grant);
        self.forget(org, target, caller, [RecordKind::Assignment], is_dead).await;
    }

    async fn forget<const N: usize>(
        &self,
        org: &OrgId,
        target: Target,
        caller: &Caller,
        kinds: [RecordKind; N],
        is_dead: impl Fn(&Snapshot, &Entry) -> bool + Send + Sync,
    ) {
        let found = self.with_policy(org, |snapshot| {
            let entries = kinds.into_iter().flat_map(|kind| snapshot.all(kind));
            let dead = entries.filter(|entry| is_dead(snapshot, entry));
            dead.take(AT_ONCE).map(Entry::id).collect::<Vec<_>>()
        });
        let removed = match found.await {
            Ok(found) => self.remove_dead(org, &target, caller, &found, is_dead).await,
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, %org, "what somebody who is gone leaves behind stays for maintenance");
        }
    }

    /// Removes what is left of agents and roles that are gone, some of it in each round, of the organizations whose policy
    /// is in use here.
    pub(in crate::server) async fn sweep_policies(&self) {
        for (org, kept) in self.inner.policy.kept() {
            if let Err(error) = self.sweep(&org, &kept).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, %org, "cannot remove what is left of agents and roles that are gone");
            }
        }
    }

    async fn sweep(&self, org: &OrgId, kept: &Kept) -> Result<(), ApiError> {
        let after = kept.swept();
        let (suspects, agents, last) = kept.read(|snapshot| {
            let (mut suspects, mut agents, mut last) = (Vec::new(), BTreeSet::new(), None);
            for (count, (id, entry)) in snapshot.some_after(after.as_ref(), LOOKED_AT).enumerate() {
                if agents_in(entry).next().is_some() || has_no_role(snapshot, entry) {
                    agents.extend(agents_in(entry));
                    suspects.push(id.clone());
                }
                last = (count + 1 == LOOKED_AT).then(|| id.clone());
            }
            (suspects, agents, last)
        });
        let mut gone = BTreeSet::new();
        for agent in agents {
            let found = self.stores().uncached().agents.find(org, AgentKey::Id(agent)).await?;
            if found.is_none() {
                gone.insert(agent);
            }
        }
        let is_dead = |snapshot: &Snapshot, entry: &Entry| {
            has_no_role(snapshot, entry) || agents_in(entry).any(|agent| gone.contains(&agent))
        };
        let dead: Vec<_> = kept.read(|snapshot| {
            let found = |id: &RecordId| snapshot.find(id).is_some_and(|(_, entry)| is_dead(snapshot, entry));
            suspects.into_iter().filter(found).collect()
        });
        let caller = Caller::new(Actor::system(), Origin::default());
        self.remove_dead(org, &Target::new("organization", org.as_str()), &caller, &dead, is_dead).await?;
        kept.set_swept(last);
        Ok(())
    }

    async fn remove_dead(
        &self,
        org: &OrgId,
        target: &Target,
        caller: &Caller,
        dead: &[RecordId],
        is_dead: impl Fn(&Snapshot, &Entry) -> bool + Send + Sync,
    ) -> Result<(), ApiError> {
        for of_kind in dead.chunk_by(|one, other| one.kind() == other.kind()) {
            let kind = match of_kind.first().map(RecordId::kind) {
                Some(RecordKind::Tuple) => EventKind::RelationDeleted,
                Some(RecordKind::Value) => EventKind::AttributeSet,
                _ => EventKind::RoleUnassigned,
            };
            for step in of_kind.chunks(STEP) {
                let plan = |snapshot: &Snapshot| {
                    let found = step.iter().filter_map(|id| Some((id, snapshot.find(id)?)));
                    let found: Vec<_> = found.filter(|(_, (_, entry))| is_dead(snapshot, entry)).collect();
                    let message = "what somebody who is gone had is removed";
                    let records: Vec<_> = found.iter().map(|(id, _)| id.key()).collect();
                    let plan = Plan::new(kind, message, target.clone(), ())
                        .with_names("records", &records)
                        .gone(json!({ "records": records }));
                    let changes = found
                        .into_iter()
                        .map(|(id, (revision, _))| PolicyChange::remove(id.clone(), Expect::At(revision)));
                    Ok(plan.also(changes.collect()))
                };
                self.change_policy(org, caller, plan).await?;
            }
        }
        Ok(())
    }
}

/// The agents that a record is about.
fn agents_in(entry: &Entry) -> impl Iterator<Item = AgentId> + use<> {
    let named = |entity: &Entity| match entity.namespace() {
        "agent" => AgentId::parse(entity.id()).ok(),
        _ => None,
    };
    let found = match entry {
        Entry::Assignment(Assignment { holder: Holder::Agent(id), .. }) => [Some(*id), None],
        Entry::Value(value) => match value.owner {
            AttributeOwner::Agent(id) => [Some(id), None],
            AttributeOwner::Resource { .. } | AttributeOwner::User(_) => [None, None],
        },
        Entry::Tuple(tuple) => [named(&tuple.object), named(&tuple.subject.entity)],
        // A policy for an agent that is gone stays one for nobody.
        _ => [None, None],
    };
    found.into_iter().flatten()
}

fn has_no_role(snapshot: &Snapshot, entry: &Entry) -> bool {
    match entry {
        Entry::Assignment(Assignment { grant: Grant::Role(number), .. }) => !snapshot.has_role(*number),
        _ => false,
    }
}
