//! The graph of a pipeline's steps: what depends on what, what is staged together, in which order. Pure.
//!
//! A step depends on the steps whose rows it reads (the tables of its query, `from`, the other side of a
//! `relationships` check) and on those it names under `after`. Views (extract, sql, generate) do nothing by
//! themselves: they are computed inside the actions that read them.

mod increments;
mod plan;
mod replay;
mod sight;
mod spread;
mod tables;

pub use plan::{RunPlan, StageGroup, Task, TaskKind};
pub use replay::Replay;
pub(crate) use replay::replay_left_behind;
pub(crate) use replay::{Later, later};
pub(crate) use spread::left_behind;
pub use spread::{Found, many, spread};

use gristmill_model::spec::{LoadSpec, PipelineSpec, SqlSpec, Step, StepBody};
use gristmill_model::yaml::{Diagnostic, Node as ConnectionNode};
use gristmill_model::{ConnectionName, Result, StepKind, StepName, one_of};
use sight::{Places, Writes};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tables::TableName;

/// The graph of a pipeline's steps.
#[derive(Debug, Clone)]
pub struct Dag {
    /// In the order of the file.
    nodes: Vec<Node>,
    /// Positions in `nodes`, each after those it depends on.
    order: Vec<usize>,
    /// Per node: everything that comes before it, at any distance.
    before: Vec<BTreeSet<usize>>,
    /// Per node: what of that must be done, loads committed, before its work may begin. The rest are loads that are only
    /// committed before it is.
    first: Vec<BTreeSet<usize>>,
}

#[derive(Debug, Clone)]
struct Node {
    name: StepName,
    kind: StepKind,
    cache: Option<bool>,
    reads: Vec<usize>,
    after: Vec<usize>,
    /// The connection that an extract reads.
    source: Option<ConnectionName>,
    /// What a load writes to.
    writes: Option<Writes>,
}

impl Node {
    fn needs(&self) -> impl Iterator<Item = usize> {
        self.reads.iter().chain(&self.after).copied()
    }
}

impl Dag {
    /// Reads the graph off a rendered pipeline (its SQL files read).
    ///
    /// # Errors
    /// Everything wrong, each with its place: SQL that does not parse, a table that is no step, a step without rows
    /// that is read, a cycle.
    pub fn new(spec: &PipelineSpec) -> Result<Self, Vec<Diagnostic>> {
        let (nodes, mut mistakes) = nodes(spec, &[]);
        mistakes.extend(increments::mistakes(spec, &nodes));
        mistakes.extend(spread::mistakes(spec));
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let edges: Vec<Vec<usize>> = nodes.iter().map(|node| node.needs().collect()).collect();
        let order = ordered(&edges);
        let mut before = vec![BTreeSet::new(); nodes.len()];
        for &position in &order {
            let mut all: BTreeSet<usize> = BTreeSet::new();
            for &need in &edges[position] {
                all.insert(need);
                all.extend(&before[need]);
            }
            before[position] = all;
        }
        let mut dag = Self { nodes, order, before, first: Vec::new() };
        dag.first = dag.what_is_done_first(&Places::default());
        Ok(dag)
    }

    /// The same graph, when it is known which connections may lead to one place by two names: a load that comes `after`
    /// another is staged only once that one is committed where it could read what that one wrote.
    #[must_use]
    pub fn knowing(mut self, connections: &BTreeMap<ConnectionName, ConnectionNode>) -> Self {
        self.first = self.what_is_done_first(&Places::of(connections));
        self
    }

    /// See [`Dag::first`]. A load that comes `after` another load, and cannot see its rows, is staged and audited beside it,
    /// and committed after it: a check that fails in either then keeps both from being published. All other work begins
    /// when everything before it is done.
    fn what_is_done_first(&self, places: &Places) -> Vec<BTreeSet<usize>> {
        let mut first: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); self.nodes.len()];
        for &position in &self.order {
            let node = &self.nodes[position];
            let mut all: BTreeSet<usize> = BTreeSet::new();
            for &view in &node.reads {
                all.insert(view);
                all.extend(&self.before[view]);
            }
            for &other in &node.after {
                let of_other = &first[other];
                all.extend(of_other);
                for &one in self.before[other].iter().chain([&other]).filter(|one| !of_other.contains(*one)) {
                    if !self.is_unseen(one, position, places) {
                        all.insert(one);
                        all.extend(&self.before[one]);
                    }
                }
            }
            first[position] = all;
        }
        first
    }

    /// Whether the load `reader` can be staged as long as the load `writer` is not committed. Tables of many are committed
    /// when they are ready themselves, so that nothing is held back for them.
    fn is_unseen(&self, writer: usize, reader: usize, places: &Places) -> bool {
        let is_alone = |position: usize| self.nodes[position].name.family().is_some();
        let (Some(writes), Some(other)) = (&self.nodes[writer].writes, &self.nodes[reader].writes) else {
            return false;
        };
        let views = self.views_of(&[reader]);
        let sources = views.iter().filter_map(|view| self.nodes[*view].source.as_ref());
        !is_alone(writer) && !is_alone(reader) && writes.is_unseen(other, sources, places)
    }

    /// What [`Dag::new`] would complain about in the steps of `spec`, when the steps `left_out` are in its file too but
    /// cannot be understood.
    #[must_use]
    pub fn mistakes(spec: &PipelineSpec, left_out: &[&str]) -> Vec<Diagnostic> {
        let (nodes, mut mistakes) = nodes(spec, left_out);
        mistakes.extend(increments::mistakes(spec, &nodes));
        mistakes.extend(spread::mistakes(spec));
        mistakes
    }

    /// Every step, each after those it depends on; otherwise in the order of the file.
    #[must_use]
    pub fn order(&self) -> Vec<&StepName> {
        self.order.iter().map(|&position| &self.nodes[position].name).collect()
    }

    /// What a step is.
    #[must_use]
    pub fn kind(&self, step: &str) -> Option<StepKind> {
        self.position(step).map(|position| self.nodes[position].kind)
    }

    /// The views whose rows a step reads itself: tables of its query, `from`, relationships.
    #[must_use]
    pub fn reads(&self, step: &str) -> Vec<&StepName> {
        self.position(step).map(|position| self.names(&self.nodes[position].reads)).unwrap_or_default()
    }

    /// The steps a step waits for itself by `after`.
    #[must_use]
    pub fn after(&self, step: &str) -> Vec<&StepName> {
        self.position(step).map(|position| self.names(&self.nodes[position].after)).unwrap_or_default()
    }

    /// Every step that must come before, at any distance.
    #[must_use]
    pub fn upstream(&self, step: &str) -> BTreeSet<StepName> {
        let before = self.position(step).map(|position| &self.before[position]);
        before.into_iter().flatten().map(|&position| self.nodes[position].name.clone()).collect()
    }

    /// Every step that comes after, at any distance.
    #[must_use]
    pub fn downstream(&self, step: &str) -> BTreeSet<StepName> {
        let Some(position) = self.position(step) else { return BTreeSet::new() };
        let after = self.nodes.iter().enumerate().filter(|(other, _)| self.before[*other].contains(&position));
        after.map(|(_, node)| node.name.clone()).collect()
    }

    /// The views an action reads, directly or through other views, in the order of the graph.
    #[must_use]
    pub fn views(&self, action: &str) -> Vec<StepName> {
        let Some(position) = self.position(action) else { return Vec::new() };
        let views = self.views_of(&[position]);
        views.into_iter().map(|view| self.nodes[view].name.clone()).collect()
    }

    fn position(&self, step: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name.as_str() == step)
    }

    fn names(&self, positions: &[usize]) -> Vec<&StepName> {
        positions.iter().map(|&position| &self.nodes[position].name).collect()
    }

    /// The views some actions read at any distance, in the order of the graph.
    fn views_of(&self, actions: &[usize]) -> Vec<usize> {
        let mut reached: BTreeSet<usize> = BTreeSet::new();
        let mut open: Vec<usize> = actions.to_vec();
        while let Some(position) = open.pop() {
            for &view in &self.nodes[position].reads {
                if reached.insert(view) {
                    open.push(view);
                }
            }
        }
        self.order.iter().copied().filter(|position| reached.contains(position)).collect()
    }
}

/// Where a load leads, as the pipeline names it: `connection:table` or `connection:path`.
#[must_use]
pub fn target(load: &LoadSpec) -> String {
    let place = load.table.as_deref().or(load.path.as_deref()).unwrap_or_default();
    format!("{}:{place}", load.to)
}

/// The steps as nodes, and everything that is wrong with their edges.
fn nodes(spec: &PipelineSpec, left_out: &[&str]) -> (Vec<Node>, Vec<Diagnostic>) {
    let positions: BTreeMap<&str, usize> =
        spec.steps.iter().enumerate().map(|(position, step)| (step.name.as_str(), position)).collect();
    let mut mistakes = Vec::new();
    let mut nodes = Vec::with_capacity(spec.steps.len());
    for step in &spec.steps {
        let mut reads: Vec<usize> = Vec::new();
        match &step.body {
            StepBody::Sql(sql) => reads.extend(tables_of(spec, step, sql, &positions, left_out, &mut mistakes)),
            StepBody::Load(load) => reads.extend(positions.get(load.from.as_str())),
            StepBody::Check(check) => reads.extend(positions.get(check.from.as_str())),
            StepBody::Extract(_) | StepBody::Generate(_) | StepBody::WaitFor(_) | StepBody::Command(_) => {}
        }
        for other in step.checks.iter().filter_map(|check| check.kind.reads()) {
            let Some(&position) = positions.get(other) else { continue };
            if spec.steps[position].body.kind().is_action() {
                mistakes.push(step.place.diagnostic(
                    format!("a check of `{}` reads `{other}`, which has no rows", step.name),
                    Some("name an extract, sql or generate step".to_owned()),
                ));
            } else {
                reads.push(position);
            }
        }
        let after = step.after.iter().filter_map(|name| positions.get(name.as_str()).copied());
        nodes.push(Node {
            name: step.name.clone(),
            kind: step.body.kind(),
            cache: step.cache,
            reads: unique(reads),
            after: unique(after.collect()),
            source: match &step.body {
                StepBody::Extract(extract) => Some(extract.from.clone()),
                _ => None,
            },
            writes: match &step.body {
                StepBody::Load(load) => Some(Writes::of(load)),
                _ => None,
            },
        });
    }
    let edges: Vec<Vec<usize>> = nodes.iter().map(|node| node.needs().collect()).collect();
    for circle in circles(&edges) {
        let names: Vec<&str> = circle.iter().map(|&position| nodes[position].name.as_str()).collect();
        mistakes.push(spec.steps[circle[0]].place.diagnostic(
            format!("steps need each other: {}", names.join(" → ")),
            Some("take one of these dependencies out".to_owned()),
        ));
    }
    (nodes, mistakes)
}

/// The steps a query reads; complains about tables that are none.
fn tables_of(
    spec: &PipelineSpec,
    step: &Step,
    sql: &SqlSpec,
    positions: &BTreeMap<&str, usize>,
    left_out: &[&str],
    mistakes: &mut Vec<Diagnostic>,
) -> Vec<usize> {
    let found = match tables::tables(&sql.text) {
        Ok(found) => found,
        Err(mistake) => {
            mistakes.push(sql_diagnostic(spec, step, sql, &mistake));
            return Vec::new();
        }
    };
    let views = || spec.steps.iter().filter(|step| !step.body.kind().is_action()).map(|step| step.name.as_str());
    let mut reads = Vec::new();
    for table in found {
        let name = match table {
            TableName::Simple(name) => name,
            TableName::Compound(name) => {
                mistakes.push(step.place.diagnostic(
                    format!("the query of `{}` reads `{name}`, and a query reads steps only", step.name),
                    Some("extract the table in a step of its own, and name that step".to_owned()),
                ));
                continue;
            }
        };
        match positions.get(name.as_str()) {
            Some(&position) if spec.steps[position].body.kind().is_action() => mistakes.push(step.place.diagnostic(
                format!(
                    "the query of `{}` reads `{name}`, a {} step, which has no rows",
                    step.name,
                    spec.steps[position].body.kind().as_str()
                ),
                Some("name an extract, sql or generate step".to_owned()),
            )),
            Some(&position) if many(spec).any(|extract| extract.name.as_str() == name) => {
                mistakes.push(step.place.diagnostic(
                    format!("the query of `{}` reads `{name}`, which stands for many tables", step.name),
                    Some("extract the table that it is about in a step of its own, and name that step".to_owned()),
                ));
                reads.push(position);
            }
            Some(&position) => reads.push(position),
            None if left_out.contains(&name.as_str()) => {}
            None => mistakes.push(step.place.diagnostic(
                format!("the query of `{}` reads the table `{name}`, which is no step", step.name),
                Some(one_of(&name, views().filter(|view| *view != step.name.as_str()))),
            )),
        }
    }
    reads
}

fn sql_diagnostic(spec: &PipelineSpec, step: &Step, sql: &SqlSpec, mistake: &tables::SqlMistake) -> Diagnostic {
    let message = |place: &str| format!("the query of `{}` cannot be read{place}: {}", step.name, mistake.message);
    match (&sql.file, mistake.place) {
        (Some(file), place) => {
            let shown = match spec.file.rsplit_once('/') {
                Some((folder, _)) => format!("{folder}/{file}"),
                None => file.clone(),
            };
            let (line, column) = place.unwrap_or((1, 1));
            Diagnostic { file: shown, line, column, message: message(""), hint: None }
        }
        (None, Some((line, column))) => {
            step.place.diagnostic(message(&format!(" (line {line}, column {column} of its text)")), None)
        }
        (None, None) => step.place.diagnostic(message(""), None),
    }
}

fn unique(mut positions: Vec<usize>) -> Vec<usize> {
    positions.sort_unstable();
    positions.dedup();
    positions
}

/// A topological order of an acyclic graph (`edges[n]` is what `n` needs) that keeps to the numbers where it may.
fn ordered(edges: &[Vec<usize>]) -> Vec<usize> {
    let mut done = vec![false; edges.len()];
    let mut order = Vec::with_capacity(edges.len());
    while let Some(next) =
        (0..edges.len()).find(|&position| !done[position] && edges[position].iter().all(|&need| done[need]))
    {
        done[next] = true;
        order.push(next);
    }
    order
}

/// Circles of a graph, each from a node back to itself by the shortest way; a node is in one of them at most.
pub(crate) fn circles(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut told: BTreeSet<usize> = BTreeSet::new();
    let mut found = Vec::new();
    for start in 0..edges.len() {
        if told.contains(&start) {
            continue;
        }
        let mut came_from: BTreeMap<usize, usize> = BTreeMap::new();
        let mut open = VecDeque::from([start]);
        'search: while let Some(position) = open.pop_front() {
            for &need in &edges[position] {
                if need == start {
                    let mut circle = vec![start];
                    let mut at = position;
                    while at != start {
                        circle.insert(0, at);
                        at = came_from.get(&at).copied().unwrap_or(start);
                    }
                    circle.insert(0, start);
                    told.extend(&circle);
                    found.push(circle);
                    break 'search;
                }
                if !told.contains(&need) && !came_from.contains_key(&need) {
                    came_from.insert(need, position);
                    open.push_back(need);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
