"""Judgements as tables: for the terminal, and as Markdown."""

from collections.abc import Iterator, Sequence

from rich.table import Column, Table

from src.judging.session import Answered, Answers
from src.metrics.bootstrap import Estimate
from src.metrics.judgement import Judgement
from src.metrics.verdict import spell
from src.records.markdown import markdown_table

UNKNOWN = "unknown"
SIDE_BY_SIDE = 3  # judgements of a table on the terminal
FIGURES = {  # titles of the figures that some judgement has
    "lead": "lead over best exit",
    "lead_over_chance": "lead over chance",
    "lead_over_hull": "lead over hull",
    "oracle_lead": "oracle's lead",
    "headroom": "headroom",
    "cross_lead": "cross oracle's lead",
    "efficacy": "efficacy",
    "auroc": "AUROC",
}


def caption(answers: Answers) -> str:
    """Return what the brackets are."""
    block = answers.question.block
    images = "images" if block == 1 else f"blocks of {block} images"
    return f"brackets: 95 % intervals over {images}; leads and headroom in utility, lead over the hull in quality"


def header(answers: Answers) -> list[str]:
    """Return the titles of the columns."""
    return ["gate", "beta", "images", "best exit", *(FIGURES[name] for name in shown(answers))]


def shown(answers: Answers) -> list[str]:
    """Return the figures that have a column; efficacy has one where it could be known, or could not be."""
    has_gates = any(one.file is not None for one in answers.answers)
    return [
        name
        for name in FIGURES
        if (has_gates if name == "efficacy" else any(name in one.judgement.figures for one in answers.answers))
    ]


def cells(one: Answered, names: Sequence[str]) -> list[str]:
    """Return the row of a judgement."""
    judged = one.judgement
    figures = [spell(judged.figures[name], form(name)) if name in judged.figures else UNKNOWN for name in names]
    return [one.name or "none", f"{judged.beta:g}", str(judged.num_images), str(judged.best_exit), *figures]


def form(name: str) -> str:
    return ".2f" if name in ("efficacy", "auroc") else ".4f"


def rich_tables(answers: Answers) -> Iterator[Table]:
    """Yield the figures of a few judgements at a time, one column each."""
    names, place = shown(answers), f"{answers.question.table}, {answers.table.info.split}"
    for start in range(0, len(answers.answers), SIDE_BY_SIDE):
        few = answers.answers[start : start + SIDE_BY_SIDE]
        rows = [header(answers), *(cells(one, names) for one in few)]
        first, *others = zip(*rows, strict=True)
        columns = (Column(name, justify="right", overflow="fold") for name in first[1:])
        table = Table(first[0], *columns, title=place, title_justify="left")
        for row in others:
            table.add_row(*row)
        yield table


def verdicts(answers: Answers) -> list[str]:
    """Return a sentence for each judgement."""
    return [f"{subject(one)}: {one.judgement.verdict.answer}: {one.judgement.verdict.why}" for one in answers.answers]


def subject(one: Answered) -> str:
    """Return what is judged, and at which beta."""
    beta = f"beta {one.judgement.beta:g}"
    return one.name if one.name.endswith(beta) else f"{one.name or 'table'} ({beta})"


def markdown(answers: Answers) -> str:
    """Return a page: verdicts, figures, and the results of all policies."""
    question = answers.question
    lines = [f"# Judgement of {question.table}", ""]
    lines += [
        f"- **{subject(one)}: {one.judgement.verdict.answer}.** {one.judgement.verdict.why}" for one in answers.answers
    ]
    lines += [f"- {remark}" for remark in answers.remarks]
    lines += ["", numbers(header(answers), [cells(one, shown(answers)) for one in answers.answers])]
    lines += [
        "",
        f"{caption(answers)}; {question.resamples} resamples, seed {question.seed}, worth {question.worth:g}.",
    ]
    if question.again is None:
        lines += ["", "The noise ceiling is unknown without a second measurement: the oracle's lead is an upper bound."]
    for one in answers.answers:
        lines += ["", f"## {subject(one)}", "", policies(one.judgement)]
    lines += ["", "![quality against GFLOPs](judge.png)", ""]
    return "\n".join(lines)


def policies(judged: Judgement) -> str:
    """Return the results of all policies as Markdown."""
    rows = [
        [name, spell(one["quality"]), spell(one["utility"]), spell(one["gflops"], ".5g"), share(judged, name)]
        for name, one in judged.policies.items()
    ]
    return numbers(["policy", "quality", "utility", "GFLOPs", "the gate's share"], rows)


def share(judged: Judgement, policy: str) -> str:
    """Return the share of images that the gate sends to a fixed exit."""
    depth = policy.removeprefix("exit")
    return f"{100 * judged.taken[int(depth)]:.1f} %" if policy.startswith("exit") and judged.taken else ""


def numbers(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; all columns but the first are numbers."""
    return markdown_table(names, rows, ["---", *["---:"] * (len(names) - 1)])


def interval(one: Estimate) -> tuple[float, float]:
    """Return the lengths of an error bar, below and above."""
    return max(one.value - one.low, 0.0), max(one.high - one.value, 0.0)
