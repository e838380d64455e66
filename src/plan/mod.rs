// SPDX-License-Identifier: MIT OR Apache-2.0
//! The order of work: registered modules by name, dependencies (BUILD_DEPENDS) first. Pure.

use std::collections::BTreeMap;

use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::Dfs;

/// A module and the names that it depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub depends: Vec<String>,
}

/// Positions of nodes in the order of work, and why some cannot be worked on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Order {
    /// Every node once, dependencies before dependents, otherwise as given.
    pub order: Vec<usize>,
    /// For each node on a cycle, the names of the cycle it is on.
    pub cycles: BTreeMap<usize, Vec<String>>,
}

/// Orders a node and what it depends on, directly or not; it comes last unless it is on a cycle.
pub fn needed(nodes: &[Node], start: usize) -> Order {
    let graph = graph(nodes);
    let mut reachable = vec![false; nodes.len()];
    let mut walk = Dfs::new(&graph, NodeIndex::new(start));
    while let Some(index) = walk.next(&graph) {
        reachable[graph[index]] = true;
    }
    let mut all = order(nodes);
    all.order.retain(|at| reachable[*at]);
    all.cycles.retain(|at, _| reachable[*at]);
    all
}

/// Orders nodes; names that are no node's are passed over.
pub fn order(nodes: &[Node]) -> Order {
    let graph = graph(nodes);
    let mut result = Order::default();
    // Components come in reverse topological order: what is depended on comes first.
    for component in tarjan_scc(&graph) {
        let mut members: Vec<usize> = component.iter().map(|index| graph[*index]).collect();
        members.sort_unstable();
        let to_itself = component.first().is_some_and(|index| graph.contains_edge(*index, *index));
        if members.len() > 1 || to_itself {
            let names: Vec<String> = members.iter().map(|at| nodes[*at].name.clone()).collect();
            result.cycles.extend(members.iter().map(|at| (*at, names.clone())));
        }
        result.order.extend(members);
    }
    result
}

fn graph(nodes: &[Node]) -> DiGraph<usize, ()> {
    let mut graph = DiGraph::<usize, ()>::new();
    let indexes: Vec<NodeIndex> = (0..nodes.len()).map(|at| graph.add_node(at)).collect();
    let by_name: BTreeMap<&str, NodeIndex> =
        nodes.iter().zip(&indexes).map(|(node, index)| (node.name.as_str(), *index)).collect();
    for (node, index) in nodes.iter().zip(&indexes) {
        // petgraph follows the edge that was added last first.
        for dependency in node.depends.iter().rev().filter_map(|name| by_name.get(name.as_str())) {
            graph.add_edge(*index, *dependency, ());
        }
    }
    graph
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn nodes(text: &str) -> Vec<Node> {
        text.split(';')
            .map(|node| {
                let (name, depends) = node.trim().split_once(':').unwrap_or((node.trim(), ""));
                Node {
                    name: name.to_owned(),
                    depends: depends.split_whitespace().map(str::to_owned).collect(),
                }
            })
            .collect()
    }

    #[rstest]
    #[case::independent("a;b;c", "a b c")]
    #[case::chain("a: b;b: c;c", "c b a")]
    #[case::unknown("a: gone;b", "a b")]
    #[case::two("a: c b;b;c", "c b a")]
    #[case::late("a;b: d;c;d", "a d b c")]
    fn dependencies_come_first_and_the_rest_keeps_its_order(#[case] input: &str, #[case] want: &str) {
        let nodes = nodes(input);
        let order = order(&nodes);
        let names: Vec<&str> = order.order.iter().map(|at| nodes[*at].name.as_str()).collect();
        assert_eq!(names.join(" "), want);
        assert!(order.cycles.is_empty());
    }

    #[rstest]
    #[case::chain("a: c;b;c: d;d", "d c a")]
    #[case::shared("a: c d;b: a;c: d;d", "d c a")]
    fn only_what_is_needed_is_ordered(#[case] input: &str, #[case] want: &str) {
        let nodes = nodes(input);
        let names: Vec<&str> = needed(&nodes, 0).order.iter().map(|at| nodes[*at].name.as_str()).collect();
        assert_eq!(names.join(" "), want);
    }

    #[rstest]
    #[case::pair("a: b;b: a;c: a", &[0, 1])]
    #[case::itself("a: a;b", &[0])]
    fn cycles_are_named(#[case] input: &str, #[case] on_cycle: &[usize]) {
        let order = order(&nodes(input));
        assert_eq!(order.cycles.keys().copied().collect::<Vec<_>>(), on_cycle);
        assert_eq!(order.order.len(), nodes(input).len());
    }
}
