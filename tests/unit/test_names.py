"""One name, one thing: no two classes of ours share a public name."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ROOTS = ("src", "local", "chaos", "cli", "lambda_esm")
_TWO_DISTRIBUTIONS = "the library's and lambda_esm's: nobody who reads one has the other before them"
SHARED = {
    "Batch": _TWO_DISTRIBUTIONS,
    "Delivery": _TWO_DISTRIBUTIONS,
    "Exchange": "the library's: what is done with a request, and awscrt's side of one. Neither is public",
    "Outcome": _TWO_DISTRIBUTIONS,
}
"""Names that several classes have, and why that is better than another name."""


def test_no_two_classes_share_a_name() -> None:
    places = defaultdict(list)
    for root in ROOTS:
        for path in sorted((REPOSITORY / root).rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                name = node.name if isinstance(node, ast.ClassDef | ast.TypeAlias) else None
                if isinstance(name, ast.Name):
                    name = name.id
                if name and not name.startswith("_"):
                    places[name].append(str(path.relative_to(REPOSITORY)))
    assert len(places) > 100
    assert {name: where for name, where in places.items() if len(where) > 1 and name not in SHARED} == {}
