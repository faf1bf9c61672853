//! Whether a subject stands in a relation to an object.

use std::collections::{HashMap, HashSet, VecDeque};

use super::{Entity, Relations, Rewrite, Subject, Tuple};
use crate::id::Label;

/// How many tuples in a row a check follows.
pub const MAX_HOPS: u32 = 25;

/// How many objects a check looks at before it gives up: some milliseconds of work.
const MAX_STEPS: u32 = 20_000;

/// How many rules that combine others may wait for each other.
const MAX_NESTED: usize = 32;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a new outcome must break every caller that decides on it")]
pub enum Check {
    /// It does, because of these tuples.
    Held(Vec<Tuple>),
    /// It does not.
    NotHeld,
    /// That cannot be told: it is too far away, too much work, or depends on itself. Nobody may take it for a yes, or for
    /// a no where a no allows something.
    Unclear,
}

impl Check {
    /// Whether it does.
    pub fn is_held(&self) -> bool {
        matches!(self, Self::Held(_))
    }
}

impl Relations {
    /// Whether `subject` stands in `relation` to `object`.
    pub(in crate::policy) fn check(&self, object: &Entity, relation: &Label, subject: &Subject) -> Check {
        let mut search = Search {
            relations: self,
            subject,
            steps: 0,
            waiting: Vec::new(),
            negations: 0,
            dependent: false,
            known: HashMap::new(),
        };
        search.any_of(Place { object: object.clone(), goal: Goal::Relation(relation.clone()), hops: 0 })
    }
}

/// A search for one subject.
struct Search<'a> {
    relations: &'a Relations,
    subject: &'a Subject,
    steps: u32,
    /// The rules that combine others and are being looked at, and how many exclusions were above each.
    waiting: Vec<(Site, u32)>,
    /// How many exclusions are above the present place.
    negations: u32,
    /// Whether what was found since this was last reset depends on where the search came from.
    dependent: bool,
    /// What was found for rules that combine others.
    known: HashMap<Site, Known>,
}

/// A rule at an object. Rules have names by where they are: they do not move while a search borrows them.
type Site = (Entity, *const Rewrite);

enum Known {
    Held { hops: u32, because: Vec<Tuple> },
    NotHeld,
}

/// Something to look at.
#[derive(Clone)]
struct Place<'a> {
    object: Entity,
    goal: Goal<'a>,
    hops: u32,
}

#[derive(Clone)]
enum Goal<'a> {
    Relation(Label),
    /// A rule, of this relation.
    Rule(&'a Rewrite, Label),
}

/// A place, and how the search came there.
struct Step<'a> {
    place: Place<'a>,
    from: Option<usize>,
    by: Option<Tuple>,
}

/// What is left to look at, in the order of hops.
struct Frontier<'a> {
    steps: Vec<Step<'a>>,
    queue: VecDeque<usize>,
    /// Where the search is.
    at: usize,
}

impl<'a> Frontier<'a> {
    fn new(start: Place<'a>) -> Self {
        Self { steps: vec![Step { place: start, from: None, by: None }], queue: VecDeque::from([0]), at: 0 }
    }

    fn next(&mut self) -> Option<Place<'a>> {
        self.at = self.queue.pop_front()?;
        self.steps.get(self.at).map(|step| step.place.clone())
    }

    /// Adds a place: with `by`, one that is a hop farther away. Whether there was room for it.
    fn add(&mut self, place: Place<'a>, by: Option<Tuple>) -> bool {
        if self.steps.len() >= MAX_STEPS as usize {
            return false;
        }
        let index = self.steps.len();
        if by.is_some() {
            self.queue.push_back(index)
        } else {
            self.queue.push_front(index)
        }
        self.steps.push(Step { place, from: Some(self.at), by });
        true
    }

    /// The tuples that led here, and from here on `because`.
    fn held(&self, because: Vec<Tuple>) -> Check {
        let mut way = Vec::new();
        let mut place = self.steps.get(self.at);
        while let Some(step) = place {
            way.extend(step.by.clone());
            place = step.from.and_then(|from| self.steps.get(from));
        }
        way.reverse();
        way.extend(because);
        Check::Held(way)
    }
}

impl<'a> Search<'a> {
    /// Looks at everything that is reached from `start` by rules of which any is enough, nearest first: what was seen once
    /// need not be seen again, since it was seen with as few hops as possible.
    fn any_of(&mut self, start: Place<'a>) -> Check {
        let mut seen: HashSet<(Entity, Label)> = HashSet::new();
        let mut frontier = Frontier::new(start);
        let mut unclear = false;
        while let Some(Place { object, goal, hops }) = frontier.next() {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return self.cut_off();
            }
            let (rule, relation) = match goal {
                Goal::Rule(rule, relation) => (rule, relation),
                Goal::Relation(relation) => {
                    if !seen.insert((object.clone(), relation.clone())) {
                        continue;
                    }
                    if self.subject.relation.as_ref() == Some(&relation) && self.subject.entity == object {
                        return frontier.held(Vec::new());
                    }
                    let Some(rule) = self.relations.rule(&object, &relation) else { continue };
                    (rule, relation)
                }
            };
            match self.look(&object, rule, &relation, hops, &mut frontier) {
                Check::Held(because) => return frontier.held(because),
                Check::NotHeld => {}
                Check::Unclear => unclear = true,
            }
        }
        if unclear { Check::Unclear } else { Check::NotHeld }
    }

    /// What lies behind this cannot be told.
    fn cut_off(&mut self) -> Check {
        self.dependent = true;
        Check::Unclear
    }

    /// Looks at one rule. What has to be looked at later is added to `frontier`.
    fn look(
        &mut self,
        object: &Entity,
        rule: &'a Rewrite,
        relation: &Label,
        hops: u32,
        frontier: &mut Frontier<'a>,
    ) -> Check {
        match rule {
            Rewrite::This => self.direct(object, relation, hops, frontier),
            Rewrite::ComputedUserset(other) => {
                let place = Place { object: object.clone(), goal: Goal::Relation(other.clone()), hops };
                if frontier.add(place, None) { Check::NotHeld } else { self.cut_off() }
            }
            Rewrite::TupleToUserset { tupleset, computed_userset } => {
                let Some(parents) = self.relations.subjects(object, tupleset) else { return Check::NotHeld };
                if hops >= MAX_HOPS && !parents.direct.is_empty() {
                    return self.cut_off();
                }
                for parent in &parents.direct {
                    let goal = Goal::Relation(computed_userset.clone());
                    let by = tuple(object, tupleset, parent.clone().into());
                    if !frontier.add(Place { object: parent.clone(), goal, hops: hops + 1 }, Some(by)) {
                        return self.cut_off();
                    }
                }
                Check::NotHeld
            }
            Rewrite::Union(rules) => {
                let mut unclear = false;
                for rule in rules {
                    match self.look(object, rule, relation, hops, frontier) {
                        Check::Held(because) => return Check::Held(because),
                        Check::NotHeld => {}
                        Check::Unclear => unclear = true,
                    }
                }
                if unclear { Check::Unclear } else { Check::NotHeld }
            }
            Rewrite::Intersection(_) | Rewrite::Exclusion(_) => self.combined(object, rule, relation, hops),
        }
    }

    /// Those that tuples name: the subject itself, or sets that it may be in.
    fn direct(&mut self, object: &Entity, relation: &Label, hops: u32, frontier: &mut Frontier<'a>) -> Check {
        let Some(subjects) = self.relations.subjects(object, relation) else { return Check::NotHeld };
        let named = match &self.subject.relation {
            None => subjects.direct.contains(&self.subject.entity),
            Some(set) => subjects.sets.contains(&(self.subject.entity.clone(), set.clone())),
        };
        if named {
            return Check::Held(vec![tuple(object, relation, self.subject.clone())]);
        }
        if hops >= MAX_HOPS && !subjects.sets.is_empty() {
            return self.cut_off();
        }
        for (entity, set) in &subjects.sets {
            let by = Subject { entity: entity.clone(), relation: Some(set.clone()) };
            let place = Place { object: entity.clone(), goal: Goal::Relation(set.clone()), hops: hops + 1 };
            if !frontier.add(place, Some(tuple(object, relation, by))) {
                return self.cut_off();
            }
        }
        Check::NotHeld
    }

    /// A rule of which not any part is enough. Its parts are searches of their own.
    fn combined(&mut self, object: &Entity, rule: &'a Rewrite, relation: &Label, hops: u32) -> Check {
        let site = (object.clone(), std::ptr::from_ref(rule));
        match self.known.get(&site) {
            Some(Known::NotHeld) => return Check::NotHeld,
            Some(Known::Held { hops: then, because }) if hops <= *then => {
                return Check::Held(because.clone());
            }
            Some(Known::Held { .. }) | None => {}
        }
        if let Some((_, above)) = self.waiting.iter().find(|(waiting, _)| *waiting == site) {
            // A proof that needs itself is no proof. But where an exclusion lies in between, its failure would be one.
            let outcome = if *above == self.negations { Check::NotHeld } else { Check::Unclear };
            self.dependent = true;
            return outcome;
        }
        if self.waiting.len() >= MAX_NESTED {
            return self.cut_off();
        }
        let before = std::mem::replace(&mut self.dependent, false);
        self.waiting.push((site.clone(), self.negations));
        let found = match rule {
            Rewrite::Exclusion(rules) => self.exclusion(object, rules, relation, hops),
            Rewrite::Intersection(rules) => self.intersection(object, rules, relation, hops),
            Rewrite::This
            | Rewrite::ComputedUserset(_)
            | Rewrite::TupleToUserset { .. }
            | Rewrite::Union(_) => self.part(object, rule, relation, hops),
        };
        self.waiting.pop();
        if !self.dependent {
            match &found {
                Check::Held(because) => {
                    self.known.insert(site, Known::Held { hops, because: because.clone() });
                }
                Check::NotHeld => {
                    self.known.insert(site, Known::NotHeld);
                }
                Check::Unclear => {}
            }
        }
        self.dependent |= before;
        found
    }

    fn part(&mut self, object: &Entity, rule: &'a Rewrite, relation: &Label, hops: u32) -> Check {
        self.any_of(Place { object: object.clone(), goal: Goal::Rule(rule, relation.clone()), hops })
    }

    fn exclusion(&mut self, object: &Entity, rules: &'a [Rewrite; 2], relation: &Label, hops: u32) -> Check {
        let [who, but_not] = rules;
        let because = match self.part(object, who, relation, hops) {
            Check::Held(because) => because,
            other @ (Check::NotHeld | Check::Unclear) => return other,
        };
        self.negations += 1;
        let excluded = self.part(object, but_not, relation, hops);
        self.negations -= 1;
        match excluded {
            Check::Held(_) => Check::NotHeld,
            Check::NotHeld => Check::Held(because),
            Check::Unclear => Check::Unclear,
        }
    }

    fn intersection(&mut self, object: &Entity, rules: &'a [Rewrite], relation: &Label, hops: u32) -> Check {
        let (mut because, mut unclear) = (Vec::new(), false);
        for rule in rules {
            match self.part(object, rule, relation, hops) {
                Check::Held(more) => because.extend(more),
                Check::NotHeld => return Check::NotHeld,
                Check::Unclear => unclear = true,
            }
        }
        if unclear { Check::Unclear } else { Check::Held(because) }
    }
}

fn tuple(object: &Entity, relation: &Label, subject: Subject) -> Tuple {
    Tuple { object: object.clone(), relation: relation.clone(), subject }
}
