//! What becomes of a task when something is asked in it, answered, or when it is closed: pure, for every store alike.
//!
//! A store reads what it has of the agent, the task and the request, takes the step, and writes everything that changed with
//! its event, all in one atomic step. Where the outcome says that nothing changed, it writes nothing.

use serde::{Deserialize, Serialize};

use super::{Closing, History, JitRequest, JitRequestId, RequestStatus, Ruling, Task};
use crate::{clock::Timestamp, id::TaskId};

/// What of an agent waits for people: a record of the agent, so that no number of requests at once gets past its bound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load(Vec<Waiting>);

/// A request that waits for somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "stores keep lists by these")]
pub struct Waiting {
    /// Which.
    pub request: JitRequestId,
    /// In which task, which is the last, and what that is part of.
    pub within: Vec<TaskId>,
    /// Until when.
    pub until: Timestamp,
}

impl Load {
    /// How many requests of one agent may wait at a time.
    pub const MAX_PER_AGENT: usize = 100;
    /// How many requests of one task may wait at a time.
    pub const MAX_PER_TASK: usize = 20;

    /// From when on nothing is in it.
    pub fn keep_until(&self) -> Option<Timestamp> {
        self.0.iter().map(|waiting| waiting.until).max()
    }

    fn has_room(&self, task: &TaskId) -> bool {
        let of_task = self.0.iter().filter(|waiting| waiting.within.last() == Some(task)).count();
        self.0.len() < Self::MAX_PER_AGENT && of_task < Self::MAX_PER_TASK
    }

    /// Takes out what waits in `task` and in what is part of it: tasks are nested in tasks of the same agent only.
    fn drop_task(&mut self, task: &TaskId) -> Vec<Waiting> {
        let (dropped, kept) =
            std::mem::take(&mut self.0).into_iter().partition(|it| it.within.contains(task));
        self.0 = kept;
        dropped
    }
}

/// What became of a new request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a new outcome must break every caller")]
pub enum NewRequest {
    /// It is there now, with its event.
    Inserted,
    /// It is there now, denied, and its task is suspended for that, with the other event.
    Suspended,
    /// The task did other things since its history was looked at; nothing changed. Assess the risk again.
    Stale,
    /// Too many requests of the agent or the task wait; nothing changed.
    TooMany,
    /// The task is closed or over; nothing changed.
    TaskClosed,
    /// There is no such task of this agent, or there is such a request; nothing changed.
    Missing,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a new outcome must break every caller")]
pub enum Rule {
    /// It is answered now, with its event.
    Ruled,
    /// It is denied now, and its task is suspended for that, with the other event.
    Suspended,
    /// It was answered before; nothing changed.
    AlreadyRuled,
    /// Nobody answered, and its time is over; nothing changed.
    Expired,
    /// Its task is closed or over; nothing changed.
    TaskClosed,
    /// There is no such request; nothing changed.
    Missing,
}

/// What became of closing a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a new outcome must break every caller")]
pub enum CloseTask {
    /// It is closed now, with its event.
    Closed,
    /// It was closed before; nothing changed.
    AlreadyClosed,
    /// There is no such task; nothing changed.
    Missing,
}

/// What a step comes to: everything as it is to be written.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "stores take it apart")]
pub struct Step<T> {
    /// What became of it.
    pub outcome: T,
    /// The task.
    pub task: Task,
    /// What waits of its agent.
    pub load: Load,
    /// What does not wait any more and was not answered.
    pub dropped: Vec<Waiting>,
}

impl Step<NewRequest> {
    /// `request` is made in `task`, after its risk was assessed by `assessed`. Where the outcome says that it is there, it is
    /// to be written as it is.
    pub fn insert(task: &Task, load: &Load, request: &JitRequest, assessed: History, now: Timestamp) -> Self {
        let mut step = Self::of(NewRequest::Missing, task, load);
        if task.agent != request.agent || task.id != request.task {
            return step;
        }
        step.outcome = if !task.is_open(now) {
            NewRequest::TaskClosed
        } else if task.history(now) != assessed {
            NewRequest::Stale
        } else {
            step.admit(request, now)
        };
        step
    }

    fn admit(&mut self, request: &JitRequest, now: Timestamp) -> NewRequest {
        self.load.0.retain(|waiting| waiting.until > now);
        if request.status(now) == RequestStatus::Pending {
            if !self.load.has_room(&request.task) {
                return NewRequest::TooMany;
            }
            self.load.0.push(Waiting {
                request: request.id.clone(),
                within: self.task.lineage(),
                until: request.expires_at,
            });
        }
        self.task.asked(now);
        let denied = request.ruling.as_ref().is_some_and(|ruling| !ruling.approved);
        if denied && self.task.denied(now) {
            self.dropped = self.load.drop_task(&request.task);
            return NewRequest::Suspended;
        }
        NewRequest::Inserted
    }
}

impl Step<Rule> {
    /// `request` of `task` is answered. Where the outcome says so, the request is to be written
    /// [with it](JitRequest::with_ruling).
    pub fn rule(task: &Task, load: &Load, request: &JitRequest, ruling: &Ruling, now: Timestamp) -> Self {
        let mut step = Self::of(Rule::Missing, task, load);
        step.outcome = match request.status(now) {
            RequestStatus::Approved | RequestStatus::Denied => Rule::AlreadyRuled,
            _ if !task.is_open(now) => Rule::TaskClosed,
            RequestStatus::Expired => Rule::Expired,
            RequestStatus::Pending => {
                step.load.0.retain(|waiting| waiting.request != request.id && waiting.until > now);
                if !ruling.approved && step.task.denied(now) {
                    step.dropped = step.load.drop_task(&request.task);
                    Rule::Suspended
                } else {
                    Rule::Ruled
                }
            }
        };
        step
    }
}

impl Step<CloseTask> {
    /// `task` is closed. What waits in it, or in what is part of it, waits no more.
    pub fn close(task: &Task, load: &Load, closing: &Closing) -> Self {
        let mut step = Self::of(CloseTask::AlreadyClosed, task, load);
        if task.closed.is_none() {
            step.outcome = CloseTask::Closed;
            step.task.closed = Some(closing.clone());
            step.dropped = step.load.drop_task(&task.id);
        }
        step
    }
}

impl<T> Step<T> {
    fn of(outcome: T, task: &Task, load: &Load) -> Self {
        Self { outcome, task: task.clone(), load: load.clone(), dropped: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        id::{AgentId, ClientId},
        jit::{AuthorizationDetail, TaskOutcome},
    };

    const AT: fn(u64) -> Timestamp = Timestamp::from_unix_seconds;

    fn task() -> Task {
        Task::new(AgentId::generate(), ClientId::generate_for_agent(), AT(1000))
    }

    fn request(task: &Task, now: Timestamp) -> JitRequest {
        let detail = AuthorizationDetail::new(json!({ "type": "file", "actions": ["delete"] })).unwrap();
        JitRequest::new(task, detail, now, now.plus(std::time::Duration::from_secs(300)))
    }

    fn ruling(approved: bool, at: Timestamp) -> Ruling {
        Ruling { approved, by: None, number: None, at, ttl: 300, notes: None, agent_message: None }
    }

    fn inserted(task: &Task, load: &Load, request: &JitRequest) -> Step<NewRequest> {
        let at = request.created_at;
        Step::insert(task, load, request, task.history(at), at)
    }

    #[test]
    fn waiting_requests_are_bounded_by_task_and_by_agent() {
        let (mut load, now) = (Load::default(), AT(1000));
        let mut waiting = 0;
        let agent = task();
        for n in 0..7 {
            let mut task = Task { id: crate::id::TaskId::generate(), ..agent.clone() };
            let mut of_task = 0;
            loop {
                let step = inserted(&task, &load, &request(&task, now));
                match step.outcome {
                    NewRequest::Inserted => (task, load, of_task) = (step.task, step.load, of_task + 1),
                    NewRequest::TooMany => break,
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(of_task, if n < 5 { Load::MAX_PER_TASK } else { 0 });
            waiting += of_task;
        }
        assert_eq!(waiting, Load::MAX_PER_AGENT);
        // Granted at once, it waits for nobody; and what has expired waits no more.
        let mut granted = request(&agent, now);
        granted.ruling = Some(ruling(true, now));
        assert_eq!(inserted(&agent, &load, &granted).outcome, NewRequest::Inserted);
        assert_eq!(inserted(&agent, &load, &request(&agent, AT(1300))).outcome, NewRequest::Inserted);
    }

    #[test]
    fn three_denials_suspend_a_task_and_what_waits_in_it() {
        let (mut task, mut load, now) = (task(), Load::default(), AT(1001));
        let requests: Vec<_> = (0..4).map(|_| request(&task, now)).collect();
        for one in &requests {
            let step = inserted(&task, &load, one);
            assert_eq!(step.outcome, NewRequest::Inserted);
            (task, load) = (step.task, step.load);
        }
        for (n, one) in requests.iter().take(3).enumerate() {
            let step = Step::rule(&task, &load, one, &ruling(false, now), now);
            assert_eq!(step.outcome, if n < 2 { Rule::Ruled } else { Rule::Suspended });
            (task, load) = (step.task, step.load);
            if n == 2 {
                let dropped: Vec<_> = step.dropped.iter().map(|it| &it.request).collect();
                assert_eq!(dropped, [&requests[3].id]);
            }
        }
        assert_eq!((task.status(now), load), ("suspended", Load::default()));
        let late = Step::rule(&task, &Load::default(), &requests[3], &ruling(true, now), now);
        assert_eq!(late.outcome, Rule::TaskClosed);
        assert_eq!(inserted(&task, &Load::default(), &request(&task, now)).outcome, NewRequest::TaskClosed);
    }

    #[test]
    fn what_ends_takes_what_waits_below_it_along() {
        let (root, now) = (task(), AT(1001));
        let below = |parent: &Task| {
            let ancestors = parent.lineage();
            Task { id: crate::id::TaskId::generate(), ancestors, ..root.clone() }
        };
        let child = below(&root);
        let (grandchild, beside) = (below(&child), below(&root));
        let mut load = Load::default();
        let asked: Vec<_> = [&root, &child, &grandchild, &beside]
            .map(|task| {
                let one = request(task, now);
                load = inserted(task, &load, &one).load;
                one.id
            })
            .into();
        let closing = Closing { outcome: TaskOutcome::Cancelled, at: now, notes: None };
        let step = Step::close(&child, &load, &closing);
        let dropped = step.dropped.into_iter().map(|it| it.request);
        assert_eq!(dropped.collect::<Vec<_>>(), asked[1..3]);
        let rest = Step::close(&root, &step.load, &closing);
        assert_eq!((rest.dropped.len(), rest.load), (2, Load::default()));
    }

    #[test]
    fn an_answer_is_given_once_in_time_and_while_the_task_is_open() {
        let (task, now) = (task(), AT(1001));
        let one = request(&task, now);
        let rule = |task: &Task, one: &JitRequest, at| {
            Step::rule(task, &Load::default(), one, &ruling(true, at), at).outcome
        };
        assert_eq!(rule(&task, &one, AT(1300)), Rule::Ruled);
        assert_eq!(rule(&task, &one, AT(1301)), Rule::Expired);
        let ruled = one.with_ruling(ruling(false, now));
        assert_eq!(rule(&task, &ruled, AT(9999)), Rule::AlreadyRuled);
        let closing = Closing { outcome: TaskOutcome::Completed, at: now, notes: None };
        let closed = Step::close(&task, &Load::default(), &closing);
        assert_eq!((closed.outcome, rule(&closed.task, &one, now)), (CloseTask::Closed, Rule::TaskClosed));
        assert_eq!(Step::close(&closed.task, &closed.load, &closing).outcome, CloseTask::AlreadyClosed);
        assert_eq!(rule(&Task { expires_at: now, ..task }, &one, now), Rule::TaskClosed);
    }

    #[test]
    fn risk_that_was_assessed_on_an_older_history_is_assessed_again() {
        let task = task();
        let one = request(&task, AT(1001));
        let seen = task.history(AT(1001));
        let again = |task: &Task, at| {
            Step::insert(task, &Load::default(), &request(task, AT(at)), seen, AT(at)).outcome
        };
        // The sixth within a minute is in a hurry, and the first five are alike.
        let mut after = task.clone();
        for n in 0..6 {
            let expected = if n < 5 { NewRequest::Inserted } else { NewRequest::Stale };
            assert_eq!(again(&after, 1002), expected, "{n}");
            after = inserted(&after, &Load::default(), &request(&task, AT(1002))).task;
        }
        assert_eq!((again(&after, 1061), again(&after, 1062)), (NewRequest::Stale, NewRequest::Inserted));
        assert_eq!(again(&Task { denials: 1, ..task.clone() }, 1002), NewRequest::Stale);
        let stranger = Task { agent: AgentId::generate(), ..task };
        assert_eq!(inserted(&stranger, &Load::default(), &one).outcome, NewRequest::Missing);
    }

    #[test]
    fn nothing_of_a_request_can_change_without_another_hash() {
        let task = task();
        let one = request(&task, AT(1001));
        assert_eq!(one.hash(), one.action_hash);
        let with = |change: fn(&mut JitRequest)| {
            let mut other = one.clone();
            change(&mut other);
            other.hash()
        };
        let detail = |value| AuthorizationDetail::new(value).unwrap();
        for other in [
            with(|it| it.agent = AgentId::generate()),
            with(|it| it.task = crate::id::TaskId::generate()),
            with(|it| it.on_behalf_of = Some(crate::id::UserId::generate())),
            JitRequest {
                detail: detail(json!({ "type": "file", "actions": ["delete", "read"] })),
                ..one.clone()
            }
            .hash(),
            JitRequest {
                detail: detail(json!({ "type": "file", "actions": ["delete"], "identifier": "e\u{301}" })),
                ..one.clone()
            }
            .hash(),
        ] {
            assert_ne!(other, one.action_hash);
        }
    }
}
