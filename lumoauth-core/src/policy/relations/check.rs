//! Whether a subject stands in a relation to an object.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::{Entity, Relations, Rewrite, Subject, Tuple, index::Subjects};
use crate::id::Label;

/// How many tuples in a row a check follows.
pub const MAX_HOPS: u32 = 25;

/// How many objects a check looks at before it gives up: some milliseconds of work.
pub(super) const MAX_STEPS: u32 = 20_000;

/// The most tuples that are named as the reason.
const MAX_PROOF: usize = 100;

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
        self.check_within(object, relation, subject, None, &mut { MAX_STEPS })
    }

    /// The same, with at most the work that is left. Everything that tuples lead to from the subject is `within`, so what is
    /// not need not be looked at.
    pub(super) fn check_within(
        &self,
        object: &Entity,
        relation: &Label,
        subject: &Subject,
        within: Option<&HashSet<Entity>>,
        work: &mut u32,
    ) -> Check {
        let mut search = Search {
            relations: self,
            subject,
            within,
            most: MAX_STEPS.min(*work),
            steps: 0,
            waiting: Vec::new(),
            negations: 0,
            dependent: false,
            known: HashMap::new(),
        };
        let found =
            search.any_of(Place { object: self.site(object), goal: Goal::Relation(relation), hops: 0 });
        *work = work.saturating_sub(search.steps);
        found
    }

    fn site<'a>(&'a self, entity: &'a Entity) -> Object<'a> {
        Object { entity, tuples: self.tuples_of(entity) }
    }
}

/// A search for one subject. It borrows everything that it meets; tuples are only made of what is found.
struct Search<'a> {
    relations: &'a Relations,
    subject: &'a Subject,
    /// If it is known: where the subject can be found at all.
    within: Option<&'a HashSet<Entity>>,
    /// After how many steps it gives up.
    most: u32,
    steps: u32,
    /// The rules that combine others and are being looked at, and how many exclusions were above each.
    waiting: Vec<(Site<'a>, u32)>,
    /// How many exclusions are above the present place.
    negations: u32,
    /// Whether what was found since this was last reset depends on where the search came from.
    dependent: bool,
    /// What was found for rules that combine others.
    known: HashMap<Site<'a>, Known>,
}

/// An object with its tuples, which are looked up once for all rules that are about it.
#[derive(Clone, Copy)]
struct Object<'a> {
    entity: &'a Entity,
    tuples: Option<&'a BTreeMap<Label, Subjects>>,
}

impl<'a> Object<'a> {
    fn subjects(&self, relation: &Label) -> Option<&'a Subjects> {
        self.tuples?.get(relation)
    }
}

/// A rule at an object. Rules have names by where they are: they do not move while a search borrows them.
type Site<'a> = (&'a Entity, *const Rewrite);

enum Known {
    Held { hops: u32, because: Vec<Tuple> },
    NotHeld,
}

/// Something to look at.
#[derive(Clone, Copy)]
struct Place<'a> {
    object: Object<'a>,
    goal: Goal<'a>,
    hops: u32,
}

#[derive(Clone, Copy)]
enum Goal<'a> {
    Relation(&'a Label),
    /// A rule, of this relation.
    Rule(&'a Rewrite, &'a Label),
}

/// A tuple: object, relation, and the entity and the relation of its subject.
#[derive(Clone, Copy)]
struct Hop<'a>(&'a Entity, &'a Label, &'a Entity, Option<&'a Label>);

impl Hop<'_> {
    fn tuple(self) -> Tuple {
        let Self(object, relation, entity, set) = self;
        let subject = Subject { entity: entity.clone(), relation: set.cloned() };
        Tuple { object: object.clone(), relation: relation.clone(), subject }
    }
}

/// A place, and how the search came there.
struct Step<'a> {
    place: Place<'a>,
    from: Option<usize>,
    by: Option<Hop<'a>>,
}

/// What most searches have room in.
const FEW: usize = 16;

/// What is left to look at, in the order of hops.
struct Frontier<'a> {
    steps: Vec<Step<'a>>,
    queue: VecDeque<usize>,
    /// Where the search is.
    at: usize,
}

impl<'a> Frontier<'a> {
    fn new(start: Place<'a>) -> Self {
        let (mut steps, mut queue) = (Vec::with_capacity(FEW), VecDeque::with_capacity(FEW));
        steps.push(Step { place: start, from: None, by: None });
        queue.push_back(0);
        Self { steps, queue, at: 0 }
    }

    fn next(&mut self) -> Option<Place<'a>> {
        self.at = self.queue.pop_front()?;
        self.steps.get(self.at).map(|step| step.place)
    }

    /// Adds a place: with `by`, one that is a hop farther away. Whether there was room for it.
    fn add(&mut self, place: Place<'a>, by: Option<Hop<'a>>) -> bool {
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
            way.extend(step.by.map(Hop::tuple));
            place = step.from.and_then(|from| self.steps.get(from));
        }
        way.reverse();
        add_reasons(&mut way, because);
        Check::Held(way)
    }
}

/// What a search has looked at. The first few are compared one by one, which takes less than to hash them.
#[derive(Default)]
struct Seen<'a> {
    few: Vec<(&'a Entity, &'a Label)>,
    more: HashSet<(&'a Entity, &'a Label)>,
}

impl<'a> Seen<'a> {
    /// Whether it was new.
    fn insert(&mut self, entity: &'a Entity, relation: &'a Label) -> bool {
        if self.few.contains(&(entity, relation)) {
            return false;
        }
        if self.few.len() >= FEW {
            return self.more.insert((entity, relation));
        }
        if self.few.is_empty() {
            self.few.reserve_exact(FEW);
        }
        self.few.push((entity, relation));
        true
    }
}

impl<'a> Search<'a> {
    /// Looks at everything that is reached from `start` by rules of which any is enough, nearest first: what was seen once
    /// need not be seen again, since it was seen with as few hops as possible.
    fn any_of(&mut self, start: Place<'a>) -> Check {
        let mut seen = Seen::default();
        let mut frontier = Frontier::new(start);
        let mut unclear = false;
        while let Some(Place { object, goal, hops }) = frontier.next() {
            self.steps += 1;
            if self.steps > self.most {
                return self.cut_off();
            }
            let (rule, relation) = match goal {
                Goal::Rule(rule, relation) => (rule, relation),
                Goal::Relation(relation) => {
                    if !seen.insert(object.entity, relation) {
                        continue;
                    }
                    if self.subject.relation.as_ref() == Some(relation)
                        && self.subject.entity == *object.entity
                    {
                        return frontier.held(Vec::new());
                    }
                    let Some(rule) = self.relations.rule(object.entity, relation) else { continue };
                    (rule, relation)
                }
            };
            match self.look(object, rule, relation, hops, &mut frontier) {
                Check::Held(because) => return frontier.held(because),
                Check::NotHeld => {}
                Check::Unclear => unclear = true,
            }
        }
        if unclear { Check::Unclear } else { Check::NotHeld }
    }

    /// Counts work that is none of places.
    fn count(&mut self, steps: usize) {
        self.steps = self.steps.saturating_add(u32::try_from(steps).unwrap_or(u32::MAX));
    }

    /// Whether the subject can be found behind `entity` at all.
    fn may_lead_on(&self, entity: &Entity) -> bool {
        self.within.is_none_or(|within| within.contains(entity))
    }

    /// What lies behind this cannot be told.
    fn cut_off(&mut self) -> Check {
        self.dependent = true;
        Check::Unclear
    }

    /// Looks at one rule. What has to be looked at later is added to `frontier`.
    fn look(
        &mut self,
        object: Object<'a>,
        rule: &'a Rewrite,
        relation: &'a Label,
        hops: u32,
        frontier: &mut Frontier<'a>,
    ) -> Check {
        match rule {
            Rewrite::This => self.direct(object, relation, hops, frontier),
            Rewrite::ComputedUserset(other) => {
                let place = Place { object, goal: Goal::Relation(other), hops };
                if frontier.add(place, None) { Check::NotHeld } else { self.cut_off() }
            }
            Rewrite::TupleToUserset { tupleset, computed_userset } => {
                let Some(parents) = object.subjects(tupleset) else { return Check::NotHeld };
                self.count(parents.direct.len() / 8);
                for parent in parents.direct.iter().filter(|parent| self.may_lead_on(parent)) {
                    if hops >= MAX_HOPS {
                        return self.cut_off();
                    }
                    let goal = Goal::Relation(computed_userset);
                    let by = Hop(object.entity, tupleset, parent, None);
                    let place = Place { object: self.relations.site(parent), goal, hops: hops + 1 };
                    if !frontier.add(place, Some(by)) {
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
    fn direct(
        &mut self,
        object: Object<'a>,
        relation: &'a Label,
        hops: u32,
        frontier: &mut Frontier<'a>,
    ) -> Check {
        let Some(subjects) = object.subjects(relation) else { return Check::NotHeld };
        let named = match &self.subject.relation {
            None => subjects.direct.contains(&self.subject.entity),
            Some(set) => subjects.sets.contains(&(self.subject.entity.clone(), set.clone())),
        };
        if named {
            let Subject { entity, relation: set } = self.subject;
            return Check::Held(vec![Hop(object.entity, relation, entity, set.as_ref()).tuple()]);
        }
        self.count(subjects.sets.len() / 8);
        for (entity, set) in subjects.sets.iter().filter(|(entity, _)| self.may_lead_on(entity)) {
            if hops >= MAX_HOPS {
                return self.cut_off();
            }
            let by = Hop(object.entity, relation, entity, Some(set));
            let place =
                Place { object: self.relations.site(entity), goal: Goal::Relation(set), hops: hops + 1 };
            if !frontier.add(place, Some(by)) {
                return self.cut_off();
            }
        }
        Check::NotHeld
    }

    /// A rule of which not any part is enough. Its parts are searches of their own.
    fn combined(&mut self, object: Object<'a>, rule: &'a Rewrite, relation: &'a Label, hops: u32) -> Check {
        let site = (object.entity, std::ptr::from_ref(rule));
        match self.known.get(&site) {
            Some(Known::NotHeld) => return Check::NotHeld,
            Some(Known::Held { hops: then, because }) if hops <= *then => {
                let because = because.clone();
                self.count(because.len());
                return Check::Held(because);
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
        self.waiting.push((site, self.negations));
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

    fn part(&mut self, object: Object<'a>, rule: &'a Rewrite, relation: &'a Label, hops: u32) -> Check {
        self.any_of(Place { object, goal: Goal::Rule(rule, relation), hops })
    }

    fn exclusion(
        &mut self,
        object: Object<'a>,
        rules: &'a [Rewrite; 2],
        relation: &'a Label,
        hops: u32,
    ) -> Check {
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

    fn intersection(
        &mut self,
        object: Object<'a>,
        rules: &'a [Rewrite],
        relation: &'a Label,
        hops: u32,
    ) -> Check {
        let (mut because, mut unclear) = (Vec::new(), false);
        for rule in rules {
            match self.part(object, rule, relation, hops) {
                Check::Held(more) => {
                    self.count(more.len());
                    add_reasons(&mut because, more);
                }
                Check::NotHeld => return Check::NotHeld,
                Check::Unclear => unclear = true,
            }
        }
        if unclear { Check::Unclear } else { Check::Held(because) }
    }
}

/// Names more tuples as the reason, none twice and not too many: rules that combine others multiply them.
fn add_reasons(because: &mut Vec<Tuple>, more: Vec<Tuple>) {
    for tuple in more {
        if because.len() < MAX_PROOF && !because.contains(&tuple) {
            because.push(tuple);
        }
    }
}
