"""Judge gates on an exit table, from their files to answers that can be written down."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from src.exit_table.table import ExitTable, read_table
from src.judging.gates import Candidate, check_match, read_candidates, route, unseen
from src.metrics.bootstrap import likeness_of_neighbours
from src.metrics.judgement import FEWEST, Judgement, Rows, Trial, judge, plain

BETAS = (0.0, 0.001, 0.003, 0.01)  # of a table without gates
FEWEST_BLOCKS = 5
ALIKE = 4  # standard deviations of the correlation of neighbours that are independent


class Question(NamedTuple):
    """What is asked of a table."""

    table: Path
    gates: Sequence[Path] = ()  # checkpoints or run folders; none: what could a gate earn?
    betas: Sequence[float] = ()  # empty: the gates' own, or a few
    again: Path | None = None  # table of a second measurement of the same images
    worth: float = 0.002
    resamples: int = 2000
    seed: int = 0
    block: int = 1  # neighbouring images that a resample draws together


class Answered(NamedTuple):
    """A judgement of one gate, or of the table, at one beta."""

    name: str  # of the gate; "" for the table
    file: Path | None
    judgement: Judgement


class Answers(NamedTuple):
    """All judgements of a question, and remarks that a reader should know."""

    question: Question
    table: ExitTable
    answers: list[Answered]
    remarks: list[str]


def answer(question: Question) -> Answers:
    """Judge all gates. Raises FileNotFoundError or ValueError for what cannot be judged, in one line."""
    folder = question.table
    table = read_table(folder)
    if len(table.info.exits) < 2:
        raise ValueError(f"table {folder}: the single exit {table.info.exits[0]} leaves nothing to choose")
    again = None if question.again is None else second_measurement(question.again, table, folder)
    gates = read_candidates(question.gates)
    quality = table.info.quality
    if gates and question.betas and not any(gate.any_beta or gate.saved.about.quality != quality for gate in gates):
        raise ValueError(
            f"--beta {question.betas[0]:g}: fixed by the training of these gates; expected none, or a gate that was "
            "trained with task.target=quality or gain"
        )
    if not gates:
        rows = rows_of(table, table.labelled, again, question)
        judged = [judge(rows, trial(question, beta)) for beta in question.betas or BETAS]
        return Answers(question, table, [Answered("", None, one) for one in judged], alike(rows, question.block))
    answers, remarks = [], []
    for gate in gates:
        check_match(gate, table, folder, question.betas)
        new, remark = unseen(gate, table, folder)
        kept = table.labelled & new
        rows = rows_of(table, kept, again, question)
        remarks += [*([remark] if remark else []), *alike(rows, question.block)]
        answers += judge_gate(gate, table.rows(kept), rows, question)
    return Answers(question, table, answers, list(dict.fromkeys(remarks)))


def judge_gate(gate: Candidate, table: ExitTable, rows: Rows, question: Question) -> list[Answered]:
    """Judge a gate at each of its betas, on the rows of a table."""
    betas, about = gate.betas(question.betas, table.info.quality), gate.saved.about
    same = about.quality == table.info.quality
    names = {beta: gate.name if len(betas) == 1 else f"{gate.name}, beta {beta:g}" for beta in betas}
    routes = {beta: route(gate, table, beta if same else about.beta) for beta in betas}
    return [
        Answered(names[beta], gate.file, judge(rows, trial(question, beta), taken)) for beta, taken in routes.items()
    ]


def trial(question: Question, beta: float) -> Trial:
    return Trial(beta, question.worth, question.resamples, question.seed, question.block)


def alike(rows: Rows, block: int) -> list[str]:
    """Return a remark if images are resampled one by one though neighbours are alike, as frames of a video are."""
    likeness = likeness_of_neighbours(rows.quality)
    if block > 1 or likeness < ALIKE / math.sqrt(len(rows.quality)):
        return []
    return [
        f"neighbouring images profit from the same exits (correlation {likeness:.2f}); if they are frames of videos, "
        "these intervals are too narrow: expected --block N, the number of frames that a scene lasts"
    ]


def rows_of(table: ExitTable, kept: Tensor, again: Tensor | None, question: Question) -> Rows:
    """Select rows (N,) bool to judge on. Raises ValueError if they are too few."""
    if (count := int(kept.sum())) < FEWEST:
        raise ValueError(
            f"table {question.table}: {count} images with a quality to judge on, expected {FEWEST} or more"
        )
    if question.block > count // FEWEST_BLOCKS:
        raise ValueError(
            f"--block {question.block}: {count} images to judge on are fewer than {FEWEST_BLOCKS} such blocks, "
            f"expected {count // FEWEST_BLOCKS} or less"
        )
    return Rows(table.quality[kept], table.cost[kept], table.info.exits, None if again is None else again[kept])


def second_measurement(place: Path, table: ExitTable, folder: Path) -> Tensor:
    """Return the qualities (N, E) in a second table, in the order of the first.

    Raises FileNotFoundError or ValueError unless it measures the same images at the same exits once more.
    """
    other = read_table(place)
    if other.info.exits != table.info.exits:
        raise ValueError(f"--again {place}: it has the exits {other.info.exits}, and {folder} {table.info.exits}")
    if other.info.segmentation != table.info.segmentation:
        raise ValueError(
            f"--again {place}: it is of segmentation={other.info.segmentation}, and {folder} of "
            f"{table.info.segmentation}"
        )
    if other.info.quality != table.info.quality:
        raise ValueError(
            f"--again {place}: its quality is the {other.info.quality} of an image, and {folder} has the "
            f"{table.info.quality}; expected the same"
        )
    ids, order = other.image_ids.sort()
    ours, places = table.image_ids.sort()
    if len(ids) != len(ours) or not torch.equal(ids, ours):
        common = int(torch.isin(ours, ids).sum())
        raise ValueError(
            f"--again {place}: it has {common} of the {len(ours)} image ids of {folder} and {len(ids) - common} "
            "others; expected the same images"
        )
    quality = torch.empty_like(other.quality)
    quality[places] = other.quality[order]
    labelled = ~quality.isnan().any(1)
    if not torch.equal(labelled, table.labelled):
        differ = int((labelled ^ table.labelled).sum())
        raise ValueError(f"--again {place}: {differ} images have a quality in one table only, expected in both")
    if torch.equal(quality[labelled], table.quality[labelled]):
        raise ValueError(
            f"--again {place}: its qualities are those of {folder}; expected a second measurement, of a parent trained "
            "with another seed or of mirrored images"
        )
    return quality


def content(answers: Answers) -> dict[str, Any]:
    """Return everything as plain values, for JSON."""
    question, info = answers.question, answers.table.info
    return {
        "table": str(question.table),
        "again": None if question.again is None else str(question.again),
        "parent": info.parent,
        "segmentation": info.segmentation,
        "split": info.split,
        "exits": info.exits,
        "worth": question.worth,
        "resamples": question.resamples,
        "seed": question.seed,
        "block": question.block,
        "remarks": answers.remarks,
        "answers": [
            {"name": one.name, "gate": None if one.file is None else str(one.file), **plain(one.judgement)}
            for one in answers.answers
        ],
    }
