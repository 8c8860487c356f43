"""Build the saved views of a W&B project: one for looking at a run, one for comparing the runs of a sweep.

Needs the extra `dashboard` (pip install '.[dashboard]') and a key of W&B; without a key it prints what it would build.
"""

import argparse
import sys
from typing import Any, NamedTuple

import wandb
from rich.console import Console
from rich.tree import Tree

from src.records.scores import QUALITIES


class Panel(NamedTuple):
    """Content of one panel: lines of all matching metrics, a point for each run, pictures, or a chart."""

    kind: str  # lines, points, pictures or chart
    title: str
    y: str  # metric, or a pattern of metrics for lines
    x: str = "trainer/global_step"


class Section(NamedTuple):
    name: str
    panels: list[Panel]
    is_open: bool = True


TRADE_OFF = Section(
    "Trade-off",
    [
        Panel("chart", "quality against GFLOPs, by policy", "trade_off_table"),
        Panel("points", "last exit: quality against GFLOPs", "val/quality", "config:gflops/total"),
        Panel("points", "evaluated gates: PQ against GFLOPs", "val/pq/gate", "val/image_gflops/gate"),
        Panel("points", "gates as trained: quality of an image against GFLOPs", "val/quality", "val/gflops"),
    ],
)
EXITS = Section("Quality by exit", [Panel("lines", name, f"^val/{name}/exit[0-9]+$") for name in QUALITIES])
TRAINING = Section(
    "Training",
    [
        Panel("lines", "loss", "^train/loss$"),
        Panel("lines", "class, mask and dice loss of the last layer", "^train/(class|mask|dice)$"),
        Panel("lines", "norm of the gradients", "^train/grad_norm$"),
        Panel("lines", "steps that were not finite", "^train/non_finite_steps$"),
        Panel("lines", "learning rate", "^lr-.*"),
    ],
)
LAYERS = Section(
    "Losses by decoder layer",
    [Panel("lines", f"{part} loss", f"^layers/{part}/.*") for part in ("class", "mask", "dice")],
    is_open=False,
)
GATES = Section(
    "Gates",
    [
        Panel("lines", "loss on the holdout", "^val/loss$"),
        Panel("lines", "quality less beta times depth", "^val/utility(/.*)?$"),
        Panel("lines", "mean depth", "^val/depth(/.*)?$"),
        Panel("lines", "accuracy and regret", "^val/(accuracy|regret)$"),
    ],
    is_open=False,
)
MASKS = Section("Masks", [Panel("pictures", "truth and every exit: layers to switch", "pictures")])
VIEWS = {
    "One run": [MASKS, EXITS, TRADE_OFF, TRAINING, GATES, LAYERS],
    "A sweep": [TRADE_OFF, EXITS, GATES, TRAINING],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", default="ecoscale", help="default: ecoscale")
    parser.add_argument("--entity", help="whose project; default: yours")
    parser.add_argument("--group", help="a sweep, the name of its folder: the view of sweeps shows its runs only")
    arguments = parser.parse_args()
    if not wandb.login(prompt=False, verify=False):
        for name, sections in VIEWS.items():
            Console().print(described(name, sections))
        print("no key of W&B (or WANDB_MODE=offline): nothing was saved; wandb login, then run this again")
        return
    try:
        entity = str(arguments.entity or wandb.Api().default_entity)
        for name, sections in VIEWS.items():
            group = arguments.group if name == "A sweep" else None
            print(f"{name}: {workspace(name, sections, entity, arguments.project, group).save_as_new_view().url}")
    except ImportError:
        sys.exit("error: the package wandb-workspaces is not installed: pip install '.[dashboard]'")
    except (wandb.Error, ValueError, OSError) as error:
        sys.exit(f"error: W&B: {' '.join(str(error).split())}")


def described(name: str, sections: list[Section]) -> Tree:
    """Return a view as a tree to print."""
    tree = Tree(name)
    for section in sections:
        branch = tree.add(section.name if section.is_open else f"{section.name} (folded)")
        for panel in section.panels:
            against = f" against {panel.x}" if panel.kind == "points" else ""
            branch.add(f"{panel.title}: {panel.kind} of {panel.y}{against}", highlight=False)
    return tree


def workspace(name: str, sections: list[Section], entity: str, project: str, group: str | None = None) -> Any:
    """Build a view with W&B's package. Raises ImportError without it."""
    import wandb_workspaces.workspaces as ws

    built = [ws.Section(one.name, [built_panel(panel) for panel in one.panels], one.is_open) for one in sections]
    runs = ws.RunsetSettings(
        filters=[ws.Metric("Group") == group] if group else [],
        groupby=[] if group or name == "One run" else [ws.Metric("Group")],
    )
    return ws.Workspace(entity, project, name, built, runset_settings=runs)


def built_panel(panel: Panel) -> Any:
    import wandb_workspaces.reports.v2 as wr

    if panel.kind == "lines":
        return wr.LinePlot(panel.title, panel.x, metric_regex=panel.y)
    if panel.kind == "points":
        kind, _, name = panel.x.rpartition(":")
        return wr.ScatterPlot(
            panel.title, wr.Config(name) if kind else wr.SummaryMetric(name), wr.SummaryMetric(panel.y)
        )
    if panel.kind == "pictures":
        return wr.MediaBrowser(panel.title, media_keys=[panel.y])
    return wr.CustomChart(
        query={"summaryTable": {"tableKey": panel.y}},
        chart_name="wandb/scatter/v0",
        chart_fields={"x": "gflops", "y": "quality"},
        chart_strings={"title": panel.title},
    )


if __name__ == "__main__":
    main()
