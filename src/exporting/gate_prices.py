"""What a manifest says of a gate: its inputs, its price, and what other prices of a layer come to on held-out images.

Letters: N held-out images, E exits.
"""

from collections.abc import Sequence
from typing import Any

import torch

from src.metrics.exit_choice import best_exit, crossings, histogram
from src.models.mask2former import Mask2Former
from src.tasks.gate_targets import TARGETS, Rows, Target
from src.tasks.gated_evaluation import OWN, read_gate

STEPS = 64  # prices in the table, beside those of betas
# Betas whose prices are listed, beside the trained one.
BETAS = (0.0, 1e-4, 2e-4, 5e-4, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)


def gate_entry(source: str | None, model: Mask2Former, beta: float | None) -> dict[str, Any]:
    """The manifest's entry for the gate of a model, whose checkpoint `source` names; `own`: it came with the weights.

    `beta` is the one asked for; None: the trained one.
    """
    gate = model.gate
    assert gate is not None
    entry = {"exits": gate.exits, "after": gate.after, "inputs": gate.inputs}
    if source in (None, OWN):
        return entry | {"target": OWN, "beta": None, "price": gate.beta, "prices": None}
    saved = read_gate(str(source))
    target, about = TARGETS[saved.about.target], saved.about
    used = about.beta if beta is None else beta
    prices = None
    if target.beta_when_run and len(saved.rows.scores):
        prices = price_table(saved.rows, gate.exits, target, sorted({*BETAS, about.beta, used}))
    return entry | {"target": about.target, "beta": used, "price": gate.beta, "prices": prices}


def price_table(rows: Rows, exits: Sequence[int], target: Target, betas: Sequence[float]) -> list[dict[str, Any]]:
    """The share of the images (N, E) that leaves at each exit, for rising prices of a layer.

    The first price sends all to the deepest exit, the last all to the shallowest; between them are the prices of some
    betas, and some that part the images evenly.
    """
    found: dict[float, float | None] = dict.fromkeys(between(rows.scores, exits))
    found |= {target.price(rows, exits, beta, None).of_score: beta for beta in betas}
    table = []
    for price, beta in sorted(found.items()):
        counts = histogram(best_exit(rows.scores, exits, price), len(exits))
        table.append({"beta": beta, "price": price, "shares": [number / len(rows.scores) for number in counts]})
    return table


def between(scores: torch.Tensor, exits: Sequence[int]) -> list[float]:
    """At most `STEPS` prices at which images (N, E) change their exit, between two such prices; and both ends."""
    edges = crossings(scores, exits).flatten().unique()
    ends = [float(edges[0]) - 1.0, float(edges[-1]) + 1.0]
    middles = (edges[1:] + edges[:-1]) / 2
    if len(middles) > STEPS:
        middles = middles[torch.linspace(0, len(middles) - 1, STEPS).round().long()]
    return [ends[0], *middles.tolist(), ends[1]]
