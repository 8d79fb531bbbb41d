"""Labellings as a chain: sums, marginals and the best chain against the enumeration of all of them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from neurallib.modeling_neurallib.labelling import (
    ENTER,
    HOLD,
    LEAVE,
    MOVES,
    PAUSE,
    RESUME,
    STAY,
    Piece,
    decode,
    labelling_scores,
    log_partition,
    role_probabilities,
)

Chain = tuple[int, ...]


def drawn(seed: int, texts: int, count: int, arguments: int, scale: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(texts, count, arguments + len(MOVES), generator=generator, dtype=torch.float64)


def move(before: int, after: int, arguments: int) -> list[int] | None:
    """Moves from a state to the next; None where there is no way. 0 none, r a piece, arguments + r a gap."""
    piece = 0 < before <= arguments
    if after == 0:
        return [] if before == 0 else [LEAVE] if piece else None
    if after <= arguments:
        if before == 0:
            return [ENTER]
        if piece:
            return [STAY] if before == after else [LEAVE, ENTER]
        return [RESUME] if before == arguments + after else None
    return [PAUSE] if before == after - arguments else [HOLD] if before == after else None


def score(potentials: torch.Tensor, chain: Chain, arguments: int) -> float | None:
    """The definition, word by word; None for a chain that there is not."""
    total, before = 0.0, 0
    if chain[-1] > arguments:
        return None
    for place, state in enumerate(chain):
        moves = move(before, state, arguments)
        if moves is None or (place == 0 and state > arguments):
            return None
        total += sum(float(potentials[place, arguments + one]) for one in moves)
        if 0 < state <= arguments:
            total += float(potentials[place, state - 1])
        before = state
    return total


def chains(potentials: torch.Tensor, arguments: int) -> dict[Chain, float]:
    states = range(1 + 2 * arguments)
    scored = ((chain, score(potentials, chain, arguments)) for chain in product(states, repeat=len(potentials)))
    return {chain: value for chain, value in scored if value is not None}


def roles(chain: Chain, arguments: int) -> Chain:
    return tuple(state if state <= arguments else 0 for state in chain)


def is_of_a_labelling(chain: Chain, arguments: int) -> bool:
    """Whether a gap, and nothing else, parts pieces of one argument that follow each other."""
    last, apart = 0, False
    for state in chain:
        if 0 < state <= arguments:
            if state == last and apart:
                return False
            last, apart = state, False
        elif state == 0:
            apart = True
    return True


def times_entered(chain: Chain, role: int, arguments: int) -> int:
    """How often a chain comes into pieces of a role from elsewhere than that role's pieces and gaps."""
    own = (role, arguments + role)
    return sum(state == role and before not in own for before, state in zip((0, *chain), chain, strict=False))


def pieces_of(labelling: Chain, arguments: int) -> list[list[Piece]]:
    found: list[list[Piece]] = [[] for _ in range(arguments)]
    for place, role in enumerate(labelling):
        if role and found[role - 1] and found[role - 1][-1][1] == place:
            found[role - 1][-1] = (found[role - 1][-1][0], place + 1)
        elif role:
            found[role - 1].append((place, place + 1))
    return found


shapes = {"seed": st.integers(0, 2**31), "count": st.integers(1, 5), "arguments": st.integers(1, 2)}


@given(**shapes)
@settings(max_examples=40, deadline=None)
def test_sums_marginals_and_scores_are_those_of_all_chains(seed: int, count: int, arguments: int) -> None:
    potentials = drawn(seed, 1, count, arguments)
    found = chains(potentials[0], arguments)
    values = torch.tensor(list(found.values()), dtype=torch.float64)
    partition = log_partition(potentials, torch.tensor([count]), arguments)
    assert float(partition[0]) == pytest.approx(float(values.logsumexp(0)))

    marginals = torch.zeros(count, 1 + arguments, dtype=torch.float64)
    by_labelling: dict[Chain, float] = {}
    for (chain, value), weight in zip(found.items(), values.softmax(0), strict=True):
        if is_of_a_labelling(chain, arguments):
            assert roles(chain, arguments) not in by_labelling, "a labelling is one chain"
            by_labelling[roles(chain, arguments)] = value
        for place, role in enumerate(roles(chain, arguments)):
            marginals[place, role] += weight
    torch.testing.assert_close(role_probabilities(potentials[0], arguments), marginals)

    labellings = list(by_labelling)
    scored = labelling_scores(
        potentials, [count], arguments, [0] * len(labellings), [pieces_of(one, arguments) for one in labellings]
    )
    assert scored.tolist() == pytest.approx([by_labelling[one] for one in labellings])
    assert float((scored - partition).exp().sum()) <= 1.0 + 1e-9


@given(seed=st.integers(0, 2**31), count=st.integers(1, 4), arguments=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_decoding_finds_the_best_chain_that_enters_every_argument_once(seed: int, count: int, arguments: int) -> None:
    potentials = drawn(seed, 1, count, arguments)[0]
    least = 1 if count >= arguments else 0
    found = {
        chain: value
        for chain, value in chains(potentials, arguments).items()
        if all(least <= times_entered(chain, role, arguments) <= 1 for role in range(1, arguments + 1))
    }
    best = max(found, key=lambda chain: found[chain])
    assert tuple(decode(potentials.numpy(), arguments)) == roles(best, arguments)


def test_an_argument_that_is_said_twice_is_read_once_and_a_list_whole() -> None:
    text = "Ada 7, Ada 8"
    scores = np.zeros((len(text), 1 + len(MOVES)))
    scores[:, 0] = -9.0
    scores[:, 1 + PAUSE] = scores[:, 1 + HOLD] = scores[:, 1 + RESUME] = -9.0
    name, numbers = scores.copy(), scores.copy()
    name[[0, 1, 2, 7, 8, 9], 0] = 5.0
    assert pieces_of(tuple(decode(name, 1)), 1) == [[(0, 3)]]
    numbers[[4, 11], 0] = 5.0
    numbers[:, 1 + PAUSE] = numbers[:, 1 + HOLD] = numbers[:, 1 + RESUME] = 0.0
    assert pieces_of(tuple(decode(numbers, 1)), 1) == [[(4, 5), (11, 12)]]


@given(st.integers(0, 2**31), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_decoding_for_fewer_arguments_leaves_the_other_roles_out(seed: int, count: int) -> None:
    potentials = drawn(seed, 1, count, 2)[0].numpy()
    kept = np.delete(potentials, 1, axis=1)
    assert decode(potentials, 1).tolist() == decode(kept, 1).tolist()


@given(st.integers(0, 2**31), st.lists(st.integers(1, 40), min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_what_is_behind_a_text_does_not_count(seed: int, counts: list[int]) -> None:
    potentials = drawn(seed, len(counts), max(counts), 2)
    together = log_partition(potentials, torch.tensor(counts), 2)
    for row, count in enumerate(counts):
        alone = log_partition(potentials[row : row + 1, :count], torch.tensor([count]), 2)
        assert float(alone[0]) == pytest.approx(float(together[row]))


def test_the_gradient_of_the_sum_is_the_marginals() -> None:
    potentials = drawn(0, 1, 37, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(log_partition(potentials, torch.tensor([37]), 2).sum(), potentials)
    torch.testing.assert_close(gradient[0, :, :2], role_probabilities(potentials[0], 2)[:, 1:])


def test_a_text_without_characters() -> None:
    assert decode(np.zeros((0, 8)), 2).shape == (0,)
    assert role_probabilities(torch.zeros(0, 8), 2).shape == (0, 3)
