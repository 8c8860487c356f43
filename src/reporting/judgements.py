"""Judgements of gates as a section of a page: verdicts, figures with intervals, and the picture."""

import json
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from src.records.scores import JUDGE_FILE
from src.reporting import markup
from src.reporting.gallery import embed
from src.reporting.runs import INSIDE, Skipped

FIGURES = {  # titles of the columns, with the format of their numbers
    "lead": ("lead over best exit", ".4f"),
    "lead_over_chance": ("lead over chance", ".4f"),
    "lead_over_hull": ("lead over hull", ".4f"),
    "oracle_lead": ("oracle's lead", ".4f"),
    "headroom": ("headroom", ".4f"),
    "efficacy": ("efficacy", ".2f"),
    "auroc": ("AUROC", ".2f"),
}
ABOUT = (
    "Does choosing an exit for each image pay? Brackets are 95 % intervals over images; leads and headroom are in "
    "utility, the lead over the hull of the fixed exits in quality. Without a second measurement the headroom is "
    "unknown, and the oracle's lead an upper bound."
)


class Judged(NamedTuple):
    """One judge.json."""

    folder: Path
    content: dict[str, Any]


def find_judged(places: Sequence[Path]) -> tuple[list[Judged], list[Skipped]]:
    """Return the judgements in some folders and below them, each once, and files that cannot be read."""
    found: dict[Path, Judged] = {}
    skipped = []
    for place in places:
        for folder, folders, files in os.walk(place):
            folders[:] = sorted(set(folders) - INSIDE)
            here = Path(folder)
            if JUDGE_FILE not in files or here.resolve() in found:
                continue
            try:
                judged = Judged(here, json.loads((here / JUDGE_FILE).read_text()))
                table(judged)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                skipped.append(Skipped(here / JUDGE_FILE, f"no judgement of this version ({type(error).__name__})"))
            else:
                found[here.resolve()] = judged
    return list(found.values()), skipped


def judgements(judged: Sequence[Judged]) -> str:
    """Return the section as HTML; empty if there are no judgements."""
    if not judged:
        return ""
    return f'<h2>Judged</h2><p class="soft">{ABOUT}</p>{"".join(map(section, judged))}'


def section(judged: Judged) -> str:
    """Return one judgement: the answers, the figures and the picture."""
    content = judged.content
    title = f"{judged.folder}: images of {content['split']}, {content['table']}"
    if (block := content.get("block", 1)) != 1:  # files of earlier versions have none
        title += f", resampled in blocks of {block}"
    remarks = "".join(f'<p class="soft">{escape(remark)}</p>' for remark in content["remarks"])
    file = judged.folder / "judge.png"
    data = embed(file) if file.is_file() else None
    picture = f'<figure><img src="{data}" alt="quality against GFLOPs" loading="lazy"></figure>' if data else ""
    return f"<h3>{escape(title)}</h3>{table(judged)}{remarks}{picture}"


def table(judged: Judged) -> str:
    """Return a row for each answer, and its reason below it. Raises KeyError or TypeError for another format."""
    answers = judged.content["answers"]
    names = [name for name in FIGURES if any(name in one["figures"] for one in answers)]
    header = ["gate", "beta", "images", "verdict", *(FIGURES[name][0] for name in names)]
    body = ""
    for one in answers:
        figures = [spell(one["figures"][name], FIGURES[name][1]) if name in one["figures"] else "" for name in names]
        verdict = one["verdict"]
        start = [escape(one["name"] or "none"), f"{one['beta']:g}", str(one["num_images"]), escape(verdict["answer"])]
        reason = f'<tr><td class="text soft" colspan="{len(header)}">{escape(verdict["why"])}</td></tr>'
        body += markup.row([*start, *figures]) + reason
    return markup.table(header, f"<tbody>{body}</tbody>")


def spell(figure: Sequence[float], form: str) -> str:
    """Format a figure with its interval; a zero has no sign."""
    value, low, high = figure
    return f"{value:z{form}} [{low:z{form}}, {high:z{form}}]"
