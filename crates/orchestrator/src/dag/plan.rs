//! From the graph to the tasks of a run.

use super::Dag;
use gristmill_model::{Error, ErrorKind, Result, StepKind, StepName, one_of};
use std::collections::BTreeSet;

/// Actions (loads and checks) that are staged together in one job, because they read a shared view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageGroup {
    /// The loads and checks, in the order of the graph.
    pub actions: Vec<StepName>,
    /// The views they read, directly or through other views, in the order of the graph.
    pub views: Vec<StepName>,
    /// Those of the views that are computed once, because several of the actions (or of the shared views) read them.
    pub shared: Vec<StepName>,
}

/// What a task of a run does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskKind {
    /// Stage a group, then, for its loads, commit.
    Stage(StageGroup),
    /// Run a command.
    Command(StepName),
    /// Wait for another pipeline.
    WaitFor(StepName),
}

/// One task of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// What it does.
    pub kind: TaskKind,
    /// Tasks that must be done (loads: committed) before it may begin, as positions in [`RunPlan::tasks`].
    pub needs: Vec<usize>,
    /// Tasks whose loads must be committed before its own are, though it may be staged beside them: it cannot see their
    /// rows. Positions as in `needs`.
    pub commits_after: Vec<usize>,
    /// How many tasks with loads are on the longest way to it by `needs`. Loads of a wave are committed when every task of
    /// the wave, and of those before it, has been staged and audited.
    pub wave: usize,
    /// Whether it has loads, so that something is to be committed.
    pub loads: bool,
    /// Whether it is about one table of many (`tables:`): it is committed as soon as it is staged and audited itself, and
    /// what goes wrong with it is no other table's fault.
    pub alone: bool,
}

/// What a run does, task by task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPlan {
    /// The tasks; each comes after those it needs.
    pub tasks: Vec<Task>,
}

impl Task {
    /// The actions of the task.
    #[must_use]
    pub fn actions(&self) -> &[StepName] {
        match &self.kind {
            TaskKind::Stage(group) => &group.actions,
            TaskKind::Command(step) | TaskKind::WaitFor(step) => std::slice::from_ref(step),
        }
    }

    /// The views the task computes.
    #[must_use]
    pub fn views(&self) -> &[StepName] {
        match &self.kind {
            TaskKind::Stage(group) => &group.views,
            TaskKind::Command(_) | TaskKind::WaitFor(_) => &[],
        }
    }
}

impl Dag {
    /// Plans a run of all actions, or of one and what it needs.
    ///
    /// Loads and checks that read a shared view are staged together, as long as none of them has to be done before
    /// another begins and no two groups would wait for each other.
    ///
    /// # Errors
    /// A selected step that does not exist or is a view; a pipeline without actions.
    pub fn plan(&self, selection: Option<&StepName>) -> Result<RunPlan> {
        let actions = self.selected(selection)?;
        let groups = self.groups(&actions);
        let needs_of = |group: &[usize]| -> BTreeSet<usize> {
            let before: BTreeSet<usize> = group.iter().flat_map(|action| &self.before[*action]).copied().collect();
            let needed = groups.iter().enumerate().filter(|(_, other)| *other != group);
            needed.filter(|(_, other)| other.iter().any(|action| before.contains(action))).map(|(at, _)| at).collect()
        };
        let edges: Vec<Vec<usize>> = groups.iter().map(|group| needs_of(group).into_iter().collect()).collect();
        let order = super::ordered(&edges);
        let mut place = vec![0; groups.len()];
        let mut tasks: Vec<Task> = Vec::with_capacity(groups.len());
        for &at in &order {
            place[at] = tasks.len();
            let mut needs: Vec<usize> = edges[at].iter().map(|&need| place[need]).collect();
            needs.sort_unstable();
            let group = &groups[at];
            let first = |need: &usize| {
                let actions = tasks[*need].actions();
                let before = group.iter().flat_map(|action| &self.first[*action]);
                before.map(|before| &self.nodes[*before].name).any(|name| actions.contains(name))
            };
            let (needs, commits_after): (Vec<usize>, Vec<usize>) = needs.into_iter().partition(first);
            // A task that is staged beside those it is committed after must not be published with an earlier wave than theirs.
            let of_needs = needs.iter().map(|&need| tasks[need].wave + usize::from(tasks[need].loads));
            let wave = of_needs.chain(commits_after.iter().map(|&other| tasks[other].wave)).max().unwrap_or(0);
            let first = &self.nodes[group[0]];
            let kind = match first.kind {
                StepKind::Command => TaskKind::Command(first.name.clone()),
                StepKind::WaitFor => TaskKind::WaitFor(first.name.clone()),
                _ => TaskKind::Stage(self.group_at(group)),
            };
            let loads = group.iter().any(|&action| self.nodes[action].kind == StepKind::Load);
            let alone = group.iter().all(|&action| self.nodes[action].name.family().is_some());
            tasks.push(Task { kind, needs, commits_after, wave, loads, alone });
        }
        Ok(RunPlan { tasks })
    }

    /// The stage group of these loads and checks: the views they need, and which of them are shared.
    #[must_use]
    pub fn group(&self, actions: &[StepName]) -> StageGroup {
        let positions: Vec<usize> = actions.iter().filter_map(|action| self.position(action.as_str())).collect();
        self.group_at(&positions)
    }

    fn group_at(&self, actions: &[usize]) -> StageGroup {
        let names = |positions: Vec<usize>| self.names(&positions).into_iter().cloned().collect();
        let in_order = self.order.iter().copied().filter(|position| actions.contains(position)).collect();
        StageGroup {
            actions: names(in_order),
            views: names(self.views_of(actions)),
            shared: names(self.shared(actions)),
        }
    }

    fn selected(&self, selection: Option<&StepName>) -> Result<Vec<usize>> {
        let all = || self.order.iter().copied().filter(|&position| self.nodes[position].kind.is_action());
        let Some(step) = selection else {
            let actions: Vec<usize> = all().collect();
            if actions.is_empty() {
                return Err(Error::new(
                    ErrorKind::Config,
                    "the pipeline has nothing to run: all of its steps are views",
                )
                .hint("add a step that does something: `load`, `check` or `command`"));
            }
            return Ok(actions);
        };
        let names = || all().map(|position| self.nodes[position].name.written()).collect::<BTreeSet<&str>>();
        // A step that was written for many tables is all of its tables' steps.
        let of_tables = || {
            let written = |node: &&super::Node| node.name.family().is_some_and(|(written, _)| written == step.as_str());
            self.nodes.iter().filter(written).filter_map(|node| self.position(node.name.as_str()))
        };
        let chosen: Vec<usize> = self.position(step.as_str()).into_iter().chain(of_tables()).collect();
        let Some(&first) = chosen.first() else {
            return Err(Error::new(ErrorKind::Usage, format!("the step `{step}` does not exist"))
                .hint(one_of(step.as_str(), names())));
        };
        if !self.nodes[first].kind.is_action() {
            let below = all().filter(|&position| self.before[position].contains(&first));
            let below: Vec<String> = below.map(|position| format!("`{}`", self.nodes[position].name)).collect();
            let error =
                Error::new(ErrorKind::Usage, format!("the step `{step}` is a view, which nothing runs by itself"));
            return Err(if below.is_empty() {
                error.hint(one_of("", names()))
            } else {
                error.hint(format!("choose a step that needs it: {}", below.join(", ")))
            });
        }
        let is_needed = |position: usize| chosen.iter().any(|chosen| self.before[*chosen].contains(&position));
        Ok(all().filter(|&position| chosen.contains(&position) || is_needed(position)).collect())
    }

    /// Views with more than one distinct consumer (with any, where `cache: true` says so), where consumers are the given actions and shared views; a view that
    /// is not shared is a part of whoever reads it.
    fn shared(&self, actions: &[usize]) -> Vec<usize> {
        let mut consumers: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); self.nodes.len()];
        let mut shared = Vec::new();
        for &position in self.order.iter().rev() {
            let node = &self.nodes[position];
            let readers = consumers[position].len();
            let is_shared = !node.kind.is_action()
                && match node.cache {
                    Some(true) => readers > 0,
                    Some(false) => false,
                    None => readers > 1,
                };
            if is_shared {
                shared.push(position);
            }
            let passed_on = if actions.contains(&position) || is_shared {
                BTreeSet::from([position])
            } else if node.kind.is_action() {
                continue;
            } else {
                consumers[position].clone()
            };
            for &view in &node.reads {
                consumers[view].extend(&passed_on);
            }
        }
        shared.reverse();
        shared
    }

    /// Which actions go together. Each answer is in the order of the graph.
    fn groups(&self, actions: &[usize]) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = actions.iter().map(|&action| vec![action]).collect();
        let staged: Vec<usize> = actions
            .iter()
            .copied()
            .filter(|&action| matches!(self.nodes[action].kind, StepKind::Load | StepKind::Check))
            .collect();
        for view in self.shared(&staged) {
            let readers: Vec<usize> =
                staged.iter().copied().filter(|&action| self.views_of(&[action]).contains(&view)).collect();
            for (at, &one) in readers.iter().enumerate() {
                for &other in &readers[at + 1..] {
                    self.merge(&mut groups, one, other);
                }
            }
        }
        groups
    }

    fn merge(&self, groups: &mut Vec<Vec<usize>>, one: usize, other: usize) {
        let group_of = |action: usize| groups.iter().position(|group| group.contains(&action));
        let (Some(first), Some(second)) = (group_of(one), group_of(other)) else { return };
        if first == second {
            return;
        }
        let mut merged = groups.clone();
        let taken = merged.remove(first.max(second));
        merged[first.min(second)].extend(taken);
        merged[first.min(second)].sort_by_key(|action| self.order.iter().position(|position| position == action));
        let together = &merged[first.min(second)];
        let ordered_inside =
            together.iter().any(|action| together.iter().any(|other| self.first[*action].contains(other)));
        if ordered_inside {
            return;
        }
        let edges: Vec<Vec<usize>> = merged
            .iter()
            .map(|group| {
                let needs = |other: &Vec<usize>| {
                    other != group
                        && group.iter().any(|action| other.iter().any(|need| self.before[*action].contains(need)))
                };
                merged.iter().enumerate().filter(|(_, other)| needs(other)).map(|(at, _)| at).collect()
            })
            .collect();
        if super::circles(&edges).is_empty() {
            *groups = merged;
        }
    }
}
