"""Shortest paths, and a walk down a binary search tree. Restricted Python."""

from __future__ import annotations


def dijkstra(weights: list[int], nodes: int, source: int) -> list[int]:
    """The length of the shortest path from a node to each, -1 where there is none.

    ``weights[a * nodes + b]`` is the length of the edge from a to b, -1 for none.
    """
    distances = [-1] * nodes
    done = [0] * nodes
    distances[source] = 0
    for _ in range(nodes):
        nearest = -1
        for node in range(nodes):
            if done[node] == 0 and distances[node] >= 0 and (nearest < 0 or distances[node] < distances[nearest]):
                nearest = node
        if nearest < 0:
            return distances
        done[nearest] = 1
        for node in range(nodes):
            weight = weights[nearest * nodes + node]
            if weight >= 0:
                length = distances[nearest] + weight
                if distances[node] < 0 or length < distances[node]:
                    distances[node] = length
    return distances


def walk_search_tree(tree: list[int], turns: list[int]) -> int:
    """The value of the node that these turns lead to from the first; 0 is left, 1 is right.

    Each node is three numbers: its value, and the indices of the first numbers of its children, -1 for none.
    """
    at = 0
    for turn in turns:
        at = tree[at + 1 + turn]
    return tree[at]
