"""Scores on the console, and in a file that says what made them."""

from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from rich.console import Console
from rich.table import Table

from src.records.provenance import made_by, revision
from src.system.atomic import write_json


class ScoreFile(Callback):
    """Base of callbacks that print scores and save the newest in a JSON file."""

    def __init__(self, file: str):
        self.file = Path(file)
        self.console = Console() if Console().is_terminal else Console(width=120)
        revision()  # before anyone edits the code

    def publish(self, trainer: Trainer, table: Table, content: dict[str, Any]) -> None:
        """Print a table, and save the content with its provenance under "made_by"."""
        self.console.print(table)
        maker = made_by(trainer.strategy.root_device, trainer.world_size)
        write_json({**content, "made_by": maker}, self.file)
