//! All attribute policies of an organization, by what they are about.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use super::{Condition, Effect, Facts, InvalidCondition, Policy, operator::Truth};
use crate::id::{AgentId, Number};

/// The active policies of one organization. Adding or removing one touches nothing but its own entries.
#[derive(Clone, Debug, Default)]
pub(in crate::policy) struct Policies {
    /// type → action → policies.
    targets: HashMap<Box<str>, HashMap<Box<str>, Bucket>>,
}

/// The policies about one action on one type.
#[derive(Clone, Debug, Default)]
struct Bucket {
    for_all: Sorted,
    for_agents: HashMap<AgentId, Sorted>,
}

/// Policies by effect, each sort with the highest priority first.
#[derive(Clone, Debug, Default)]
struct Sorted {
    allow: Vec<Arc<Compiled>>,
    deny: Vec<Arc<Compiled>>,
}

#[derive(Debug)]
struct Compiled {
    policy: Arc<Policy>,
    condition: Condition,
}

impl Policies {
    pub(in crate::policy) fn insert(&mut self, policy: &Arc<Policy>) -> Result<(), InvalidCondition> {
        if !policy.active {
            return Ok(());
        }
        let condition = Condition::stored(&policy.conditions)?;
        let compiled = Arc::new(Compiled { policy: policy.clone(), condition });
        for kind in &policy.resource_types {
            let actions = self.targets.entry(kind.as_str().into()).or_default();
            for action in &policy.actions {
                let bucket = actions.entry(action.as_str().into()).or_default();
                if policy.agent_ids.is_empty() {
                    bucket.for_all.insert(&compiled);
                }
                for agent in &policy.agent_ids {
                    bucket.for_agents.entry(*agent).or_default().insert(&compiled);
                }
            }
        }
        Ok(())
    }

    pub(in crate::policy) fn remove(&mut self, policy: &Policy) {
        for kind in &policy.resource_types {
            let Some(actions) = self.targets.get_mut(kind.as_str()) else { continue };
            for action in &policy.actions {
                let Some(bucket) = actions.get_mut(action.as_str()) else { continue };
                bucket.for_all.remove(policy.number);
                for agent in &policy.agent_ids {
                    if let Some(sorted) = bucket.for_agents.get_mut(agent) {
                        sorted.remove(policy.number);
                        if sorted.is_empty() {
                            bucket.for_agents.remove(agent);
                        }
                    }
                }
                if bucket.for_all.is_empty() && bucket.for_agents.is_empty() {
                    actions.remove(action.as_str());
                }
            }
            if actions.is_empty() {
                self.targets.remove(kind.as_str());
            }
        }
    }

    /// A policy with this effect about any of `names` (type and action) that applies, if there is one; of several one with
    /// the highest priority.
    pub(in crate::policy) fn first(
        &self,
        effect: Effect,
        names: &[(&str, &str)],
        facts: &Facts<'_>,
    ) -> Option<Arc<Policy>> {
        let lists = self.candidates(effect, names, facts);
        lists
            .filter_map(|list| list.iter().find(|compiled| compiled.applies(facts)))
            .max_by_key(|compiled| (compiled.policy.priority, Reverse(compiled.policy.number)))
            .map(|compiled| compiled.policy.clone())
    }

    /// Every policy with this effect about any of `names` that applies, in no order; some perhaps more than once.
    pub(in crate::policy) fn all(
        &self,
        effect: Effect,
        names: &[(&str, &str)],
        facts: &Facts<'_>,
    ) -> Vec<Arc<Policy>> {
        let candidates = self.candidates(effect, names, facts).flatten();
        let applying = candidates.filter(|compiled| compiled.applies(facts));
        applying.map(|compiled| compiled.policy.clone()).collect()
    }

    fn candidates<'a>(
        &'a self,
        effect: Effect,
        names: &[(&str, &str)],
        facts: &Facts<'_>,
    ) -> impl Iterator<Item = &'a Vec<Arc<Compiled>>> {
        let agent = facts.agent.map(|(agent, _)| agent.id);
        let buckets = names.iter().filter_map(|(kind, action)| self.targets.get(*kind)?.get(*action));
        buckets
            .flat_map(move |bucket| {
                let own = agent.and_then(|agent| bucket.for_agents.get(&agent));
                [Some(&bucket.for_all), own].into_iter().flatten()
            })
            .map(move |sorted| match effect {
                Effect::Allow => &sorted.allow,
                Effect::Deny => &sorted.deny,
            })
    }
}

impl Compiled {
    fn applies(&self, facts: &Facts<'_>) -> bool {
        match (self.policy.effect, self.condition.evaluate(facts)) {
            (_, Truth::True) | (Effect::Deny, Truth::Unclear) => true,
            (_, Truth::False) | (Effect::Allow, Truth::Unclear) => false,
        }
    }
}

impl Sorted {
    fn of(&mut self, effect: Effect) -> &mut Vec<Arc<Compiled>> {
        match effect {
            Effect::Allow => &mut self.allow,
            Effect::Deny => &mut self.deny,
        }
    }

    fn insert(&mut self, compiled: &Arc<Compiled>) {
        let policies = self.of(compiled.policy.effect);
        let place = |it: &Arc<Compiled>| (Reverse(it.policy.priority), it.policy.number);
        let at = policies.partition_point(|it| place(it) < place(compiled));
        // A policy may name a type, an action or an agent twice.
        if policies.get(at).is_none_or(|it| it.policy.number != compiled.policy.number) {
            policies.insert(at, compiled.clone());
        }
    }

    fn remove(&mut self, number: Number) {
        self.allow.retain(|it| it.policy.number != number);
        self.deny.retain(|it| it.policy.number != number);
    }

    fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }
}
