"""The page of an explanation: one HTML file that needs no network, whatever strangers wrote into docstrings and results."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"

PAGE_BYTES = 200_000
"""The most that a page may weigh."""

DETAILS = (60, 30, 15, 6, 2, 0)
"""Steps shown from either end of a run: the first of these with which the page is light enough."""

CALLS = 16
"""The most calls of one answer that are shown."""


class PageError(ValueError):
    """A page that cannot be made."""


def explanation_page(explanations: Sequence[Mapping[str, Any]]) -> str:
    """The HTML of one or more explanations, as ``model.explain`` gives them.

    Every text is escaped, characters that print nothing or turn the writing direction are written out, and a content
    security policy lets only the page's own script and style act. Without scripts the page shows the same steps as a table.
    What is too much for ``PAGE_BYTES`` is left out, and the page says so.

    Raises:
        PageError: there is nothing to explain, or so many answers that the page cannot be that small.
    """
    if not explanations:
        raise PageError("nothing to explain: pass at least one explanation")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    template = environment.get_template("explanation.html.jinja")
    style, script = ((TEMPLATES / f"explanation.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    readings = [[_stretches(call["reading"]) for call in each["calls"][:CALLS]] for each in explanations]
    for detail in DETAILS:
        page = template.render(
            answers=[_answer(each, found, detail) for each, found in zip(explanations, readings, strict=True)],
            style=Markup(style),
            script=Markup(script),
            style_hash=_hash(style),
            script_hash=_hash(script),
        )
        if len(page.encode()) <= PAGE_BYTES:
            return page
    raise PageError(f"{len(explanations)} answers do not fit on a page of {PAGE_BYTES:,} bytes: explain fewer at once")


def visible(text: str, most: int = 2_000) -> str:
    """A text of a stranger with what prints nothing written out (line breaks and tabs stay), its middle left out if long."""
    if len(text) > most:
        kept = most // 2
        text = f"{text[:kept]} … {len(text) - 2 * kept:,} characters … {text[-kept:]}"
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _percent(probability: float) -> str:
    percent = 100 * probability
    return f"{percent:.1f} %" if percent < 99.95 or probability == 1 else f"{percent:.2f} %"


def _answer(explanation: Mapping[str, Any], readings: Sequence[list[dict[str, Any]]], detail: int) -> dict[str, Any]:
    """An explanation as the template shows it."""
    most = 4_000 if detail else 300
    tokens = explanation["tokens"][:most]
    asked = [each["call_probability"] for each in explanation["tokens"] if each["call_probability"] is not None]
    return {
        "model": visible(Path(explanation["model"]).name, 200),
        "messages": [
            {"role": visible(str(each.get("role", "")), 40), "text": visible(str(each.get("content", "")), most)}
            for each in explanation["prompt"][-20:]
        ],
        "tokens": [
            {
                "text": visible(each["text"], 200),
                "special": each.get("special", False),
                "call": each["call"] if each["call"] is not None and each["call"] < CALLS else None,
                "heat": round(10 * (each["call_probability"] or 0.0)),
                "title": "" if not each["call_probability"] else f"call: {_percent(each['call_probability'])}",
            }
            for each in tokens
        ],
        "left_out": len(explanation["tokens"]) - len(tokens),
        "threshold": explanation["threshold"],
        "highest": _percent(max(asked, default=0.0)),
        "calls": [
            _call(each, stretches, detail) for each, stretches in zip(explanation["calls"], readings, strict=False)
        ],
        "more_calls": max(0, len(explanation["calls"]) - CALLS),
    }


def _call(call: Mapping[str, Any], stretches: Sequence[Mapping[str, Any]], detail: int) -> dict[str, Any]:
    most = 2_000 if detail else 200
    choices = [_choice("no call", "", call["no_call"], False)]
    choices += [
        _choice(visible(each["program"], 128), visible(each["library"], 128), each["probability"], number == 0)
        for number, each in enumerate(call["choices"])
    ]
    if call["others"]:
        choices.append(_choice(f"{call['others']} others", "", call["other_probability"], False))
    tokens = call["tokens"][: 1_000 if detail else 20]
    return {
        "program": visible(call["program"], 128),
        "docstring": visible(call["docstring"].strip().split("\n\n")[0], 400),
        "position": f"{call['position']:,}",
        "arguments": [
            {
                "name": visible(each["name"], 128),
                "type": visible(each["type"], 20),
                "text": visible(each["text"], most),
                "short": visible(each["text"], 60),
            }
            for each in call["arguments"]
        ],
        "result": None if call["result"] is None else visible(call["result"], min(most, 300)),
        "fault": visible(call["fault"].replace("_", " "), 400),
        "choices": choices,
        "spans": _spans(stretches, 400 if detail else 20),
        "run": _run(call["run"], detail) if call["run"] and detail else None,
        "total": f"{call['steps']:,}" if call["steps"] else "",
        "milliseconds": f"{1000 * call['seconds']:.1f}" if call["seconds"] else "",
        "tokens": [visible(each, 200) for each in tokens],
        "more_tokens": len(call["tokens"]) - len(tokens),
    }


def _choice(name: str, library: str, probability: float, chosen: bool) -> dict[str, Any]:
    return {
        "name": name,
        "library": library,
        "probability": _percent(probability),
        "percent": round(100 * probability, 1),
        "chosen": chosen,
    }


def _stretches(reading: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The text before a call, cut where role or strength change, or where a special token stands."""
    breaks = set(reading["breaks"])
    stretches: list[dict[str, Any]] = []
    before: tuple[int, int, bool] | None = None
    rows = zip(reading["text"], reading["weights"], reading["labels"], strict=True)
    for position, (character, weights, label) in enumerate(rows):
        role = label or max(range(1, len(weights)), key=weights.__getitem__, default=0)
        heat = round(10 * weights[role]) if role else 0
        kind = (role if heat or label else 0, heat, bool(label))
        if kind != before or position in breaks:
            title = f"{visible(reading['roles'][role], 128)}: {_percent(weights[role])}" if kind[0] else ""
            shape = {"role": kind[0], "heat": heat, "copied": kind[2], "title": title}
            stretches.append({"text": "", "left_out": "", "break": position in breaks and position > 0, **shape})
            before = kind
        stretches[-1]["text"] += character
    return stretches


def _spans(stretches: Sequence[Mapping[str, Any]], most: int) -> list[dict[str, Any]]:
    """At most about ``most`` stretches, those that were copied and their neighbours first; long ones lose their middle."""
    copied = [number for number, each in enumerate(stretches) if each["copied"]]
    seeds = copied[:most] or [len(stretches) - 1]
    chosen = set(seeds if stretches else ())
    for distance in range(1, len(stretches)):
        if len(chosen) >= most:
            break
        near = (seed + side * distance for seed in seeds for side in (1, -1))
        chosen.update(number for number in near if 0 <= number < len(stretches))
    spans: list[dict[str, Any]] = []
    gap = 0
    for number, stretch in enumerate(stretches):
        text, room = stretch["text"], most if stretch["role"] else most // 2
        if number not in chosen:
            gap += len(text)
            continue
        if gap:
            spans.append(_gap(gap))
            gap = 0
        half = room // 2
        if len(text) <= room:
            spans.append({**stretch, "text": visible(text)})
            continue
        spans.append({**stretch, "text": visible(text[:half])})
        spans.append(_gap(len(text) - 2 * half))
        spans.append({**stretch, "text": visible(text[-half:]), "break": False})
    return [*spans, _gap(gap)] if gap else spans


def _gap(characters: int) -> dict[str, Any]:
    return {"left_out": f"{characters:,}", "break": False}


def _run(run: Mapping[str, Any], detail: int) -> dict[str, Any]:
    """A run with at most ``detail`` steps from either end."""
    first, last = list(run["first"]), list(run["last"])
    registers, memory = list(run["registers_before_last"]), list(run["memory_before_last"])
    if not last and not run["left_out"] and len(first) > 2 * detail:
        # A short run is whole in ``first``: its end begins where the steps kept of its beginning have been made.
        first, last = first[:detail], first[detail:]
        registers, memory = list(run["registers"]), list(run["memory"])
        _make(first, registers, memory, run["cells"])
    if last or run["left_out"]:
        first = first[:detail]
    late = max(0, len(last) - detail)
    _make(last[:late], registers, memory, run["cells"])
    last = last[late:]
    steps = [*first, *last]
    left_out = run["steps"] - len(steps)
    lines: dict[int, set[int]] = {}
    for step in steps:
        lines.setdefault(step["function"], set()).add(step["line"])
    rows = [
        {
            "number": f"{step['step']:,}",
            "instruction": visible(" ".join(step["instruction"].split()), 300),
            "changes": _changes(step, len(run["registers"])),
            "left_out": f"{left_out:,}" if left_out and number == len(first) else "",
        }
        for number, step in enumerate(steps)
    ]
    return {
        "total": f"{run['steps']:,}",
        "functions": [
            _function(function, lines.get(number, set()), detail) for number, function in enumerate(run["functions"])
        ],
        "steps": rows,
        "left_out": f"{left_out:,}" if left_out and not last else "",
        "unshown": f"{run['unshown']:,}" if run["unshown"] else "",
        "data": {
            "total": run["steps"],
            "registers": run["registers"],
            "cells": run["cells"],
            "memory": run["memory"],
            "late": {"registers": registers, "memory": memory} if last else None,
            "gap": len(first),
            "result": run["result"] if last or not left_out else None,
            "steps": [
                [step[key] for key in ("step", "function", "line", "register", "memory", "read")] for step in steps
            ],
        },
    }


def _make(steps: Sequence[Mapping[str, Any]], registers: list[int], memory: list[int], cells: Sequence[int]) -> None:
    """Make the changes of some steps."""
    place = {address: number for number, address in enumerate(cells)}
    for step in steps:
        if step["register"]:
            registers[step["register"][0]] = step["register"][1]
        if step["memory"]:
            memory[place[step["memory"][0]]] = step["memory"][1]


def _changes(step: Mapping[str, Any], registers: int) -> str:
    if step["fault"]:
        return f"fault: {visible(step['fault'], 100)}"
    if step["memory"]:
        address, word = step["memory"]
        return f"memory[{address}] ← {word}{_glyph(word)}"
    if step["register"]:
        register, word = step["register"]
        name = {registers - 2: "hp", registers - 1: "sp"}.get(register, f"r{register}")
        return f"{name} ← {word}{_glyph(word) if step['read'] is not None else ''}"
    return ""


def _glyph(word: int) -> str:
    return f" {chr(word)!r}" if 32 < word < 0x110000 and chr(word).isprintable() else ""


def _function(function: Mapping[str, Any], used: set[int], detail: int) -> dict[str, Any]:
    """A function with its lines; of a long one those that ran here, and their neighbours."""
    source = function["source"].splitlines()
    near = {line + offset for line in used for offset in range(-2, 3)}
    whole = len(source) <= 2 * detail
    lines: list[dict[str, Any]] = []
    width = len(str(function["line"] + len(source)))
    for number, text in enumerate(source, function["line"] or 1):
        if whole or number in near or number == function["line"]:
            label = str(number).rjust(width)
            lines.append({"number": number, "label": label, "text": visible(text, 300), "left_out": False})
        elif not lines or not lines[-1]["left_out"]:
            lines.append({"left_out": True})
    # What the compiler made is in no file: "entry of add" is of "entry".
    file = "" if function["name"].startswith(function["file"]) else function["file"]
    return {"name": visible(function["name"], 128), "file": visible(file, 128), "lines": lines}
