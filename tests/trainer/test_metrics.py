"""The metrics: definitions against cases worked out by hand, and the modules of ``evaluate`` without a network."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from neurallib.trainer.metrics import METRICS, MetricError, load_metric, metric_path, scoring


def call(program: str, *arguments: str) -> dict[str, Any]:
    return {"program": program, "arguments": list(arguments)}


@pytest.mark.parametrize(
    ("reply", "answers", "exact", "stated"),
    [
        ("42", ["42"], True, True),
        (" 42.\n", ["42"], True, True),
        ("4, 7, 52", ["4 7 52"], True, True),
        ("12 plus 30 is 42.", ["42"], False, True),
        ("12 plus 30 is 42. No, it is 43.", ["42"], False, False),
        ("421", ["42"], False, False),
        ("42.5", ["42"], False, False),
        ("-42", ["42"], False, False),
        ("10-42", ["42"], False, True),
        ("42/5", ["42"], False, False),
        ("It is 5,535.", ["5535"], False, True),
        ("x42", ["42"], False, False),
        ("Sorted: 4, 7 and 52", ["4 7 52"], False, True),
        ("Sorted: 4,700,52", ["4 700 52"], False, True),
        ("Sorted: 4, 7, 8, 52", ["4 7 52"], False, False),
        ("4 before 7 before 52", ["4 7 52"], False, False),
        ("Reversed it is olleh!", ["olleh"], False, True),
        ("Reversed it is ollehs", ["olleh"], False, False),
        ('It is "olleh" and not "hello".', ["olleh"], False, False),
        ("less than", ["less"], False, True),
        ("The sum is 42 and the word olleh.", ["42", "olleh"], True, True),
        ("The word is olleh and the sum 42.", ["42", "olleh"], False, False),
        ("42, 42", ["42", "42"], True, True),
        ("42", ["42", "42"], False, False),
        ("42 and 7 and 8", ["42", "7"], False, False),
        ("", ["42"], False, False),
        ("ba.", ["ba."], True, True),
        ("b a", ["b,a"], False, False),
        ("-1 , -2", ["-1 -2"], True, True),
        ("It is -5.", ["−5"], False, True),
    ],
)
def test_replies_against_answers(reply: str, answers: list[str], exact: bool, stated: bool) -> None:
    assert (scoring.is_exact(reply, answers), scoring.is_stated(reply, answers)) == (exact, stated)


@given(st.integers(-(10**30), 10**30), st.integers(-(10**30), 10**30))
def test_a_number_is_stated_however_it_is_grouped(number: int, other: int) -> None:
    for spelled in (f"{number}", f"{number:,}"):
        assert scoring.is_stated(f"The result is {spelled}.", [str(number)])
        assert scoring.is_stated(f"The result is {spelled}; {other}", [str(number)]) == (number == other)


def test_calls_are_paired_in_order_and_as_well_as_can_be() -> None:
    add, double = call("add", "1", "2"), call("double", "3")
    assert scoring.pairs([double, add], [add]) == [(add, add)]
    assert scoring.pairs([call("dates.add", "1", "2")], [add]) == [(call("dates.add", "1", "2"), add)]
    assert scoring.pairs([add], [double]) == [(add, double)]
    assert scoring.pairs([call("add", "9", "9"), add], [add]) == [(add, add)]
    assert len(scoring.pairs([double, add], [add, double])) == 2
    assert scoring.pairs([], [add]) == []
    assert scoring.same_arguments(call("mean", "1,2 , 3"), call("mean", "1 2 3"))
    assert not scoring.same_arguments(call("reverse", "hello, you"), call("reverse", "hello you"))


def test_precision_recall_selection_and_reading() -> None:
    made = [[call("add", "1", "2")], [], [call("add", "1", "3"), call("reverse", "3")], [call("add", "1", "1")], []]
    wanted = [[call("add", "1", "2")], [call("add", "1", "2")], [call("add", "1", "2"), call("double", "3")], [], []]
    found = scoring.call_precision_recall(made, wanted)
    assert (found["made_calls"], found["wanted_calls"], found["matched_calls"]) == (4, 4, 3)
    assert (found["precision"], found["recall"], found["quiet"], found["quiet_replies"]) == (3 / 4, 3 / 4, 1 / 2, 2)
    assert scoring.selections(made, wanted) == [True, True, False]
    assert scoring.readings(made, wanted) == [True, False]


def test_wilson_intervals() -> None:
    # Worked out from the equation that defines them: (p − x)² = z² x (1 − x) / n.
    for hits, count in ((0, 10), (3, 10), (10, 10), (250, 500)):
        for x in scoring.wilson(hits, count):
            inside = (hits / count - x) ** 2 - scoring.Z95**2 * x * (1 - x) / count
            assert math.isclose(inside, 0, abs_tol=1e-12)
    assert scoring.share([])["share"] is None
    change = scoring.difference(scoring.share([True] * 56 + [False] * 14), scoring.share([True] * 48 + [False] * 32))
    # Newcombe (1998), table II, case (a), method 10.
    assert change is not None and [round(x, 4) for x in change] == [0.2, 0.0524, 0.3339]


def test_the_length_curve() -> None:
    assert scoring.buckets([1, 4, 5, 8, 9, 16, 17, 40, 64]) == [(1, 4), (5, 8), (9, 16), (17, 32), (33, 64)]
    curve = scoring.length_curve([True, True, False, False], [2, 3, 4, 40])
    assert [(p["least"], p["most"], p["share"], p["count"]) for p in curve] == [(1, 4, 2 / 3, 3), (33, 64, 0.0, 1)]
    (whole,) = scoring.length_curve([True, False], [1, 40], [(1, 40)])
    assert (whole["share"], whole["low"], whole["high"]) == (0.5, *scoring.wilson(1, 2))


def test_agreement_ends_with_the_first_difference() -> None:
    assert scoring.agreement([1, 2, 3, 4], [1, 2, 9, 4]) == 0.5
    assert scoring.agreement([1, 2], [1, 2, 3, 4]) == 0.5
    assert scoring.agreement([], []) == 1.0
    assert scoring.agreement([], [1]) == 0.0


INPUTS: dict[str, dict[str, Any]] = {
    "exact_match": {"predictions": ["42.", "It is 7."], "references": ["42", "7"]},
    "call_precision_recall": {
        "predictions": [[call("add", "1", "2")], []],
        "references": [[], [call("add", "1", "2")]],
    },
    "selection_accuracy": {"predictions": [[call("add", "1", "2")]], "references": [[call("double", "1")]]},
    "reading_accuracy": {"predictions": [[call("mean", "1,2")]], "references": [[call("mean", "1, 2")]]},
    "length_generalisation": {"predictions": ["1", "2"], "references": ["1", "3"], "lengths": [4, 40]},
    "retention": {"predictions": [[1, 2], [3]], "references": [[1, 2], [4]]},
}


def test_every_module_loads_and_computes_without_a_network(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    script = (
        "import json, sys, evaluate\n"
        "from neurallib.trainer.metrics import metric_path\n"
        "inputs = json.load(sys.stdin)\n"
        "print(json.dumps({n: evaluate.load(metric_path(n)).compute(**given) for n, given in inputs.items()}))"
    )
    kept = {name: value for name, value in os.environ.items() if not name.lower().startswith(("hf_", "no_proxy"))}
    proxies = {name: nowhere for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(INPUTS),
        env=kept | proxies | {"HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == set(METRICS)
    assert (found["exact_match"]["exact_match"], found["exact_match"]["stated"]) == (0.5, 1.0)
    assert (found["call_precision_recall"]["precision"], found["call_precision_recall"]["quiet"]) == (0.0, 0.0)
    assert (found["selection_accuracy"]["selection_accuracy"], found["selection_accuracy"]["count"]) == (0.0, 1)
    assert found["reading_accuracy"]["reading_accuracy"] == 1.0
    assert [point["share"] for point in found["length_generalisation"]["curve"]] == [1.0, 0.0]
    assert (found["retention"]["identical"], found["retention"]["agreement"]) == (0.5, 0.5)


def test_batches_and_several_answers(tmp_path: Path) -> None:
    metric = load_metric("exact_match", cache_dir=str(tmp_path))
    metric.add_batch(predictions=["It is 42 and olleh."], references=[["42", "olleh"]])
    metric.add_batch(predictions=["It is olleh and 42."], references=[["42", "olleh"]])
    assert metric.compute()["exact_match"] == 0.5


def test_an_unknown_metric_is_named() -> None:
    with pytest.raises(MetricError, match="no metric 'bleu'; there are exact_match"):
        metric_path("bleu")
