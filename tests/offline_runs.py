"""Offline runs of W&B, read back from their files."""

import json
import struct
import time
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import ArtifactRecord, Record, RunRecord

BLOCK, HEADER, WHOLE, LAST = 32768, 7, 1, 4
PATIENCE = 30  # seconds until a file is written that another process of W&B writes


class OfflineRun:
    """One run as its file has it, once it has come to its end."""

    def __init__(self, file: Path):
        deadline = time.monotonic() + PATIENCE
        self.records = records(file)
        while not self.exits and time.monotonic() < deadline:
            time.sleep(0.1)
            self.records = records(file)

    @property
    def exits(self) -> list[int]:
        """Exit codes, one if it was finished."""
        return [record.exit.exit_code for record in self.records if record.HasField("exit")]

    @property
    def run(self) -> RunRecord:
        return next(record.run for record in self.records if record.HasField("run"))

    @property
    def config(self) -> dict[str, Any]:
        """The settings by name."""
        updates = [
            item for record in self.records for part in (record.run.config, record.config) for item in part.update
        ]
        return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in updates}

    @property
    def logged(self) -> list[dict[str, Any]]:
        """Everything that was logged, entry by entry."""
        return [
            {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for record in self.records
            if record.HasField("history")
        ]

    @property
    def names(self) -> set[str]:
        """Names of all that was logged."""
        return {name for entry in self.logged for name in entry}

    def artifacts(self, kind: str) -> list[ArtifactRecord]:
        """Those of a type, made or used."""
        found = [record.artifact for record in self.records if record.HasField("artifact")]
        found += [
            record.request.log_artifact.artifact
            for record in self.records
            if record.HasField("request") and record.request.HasField("log_artifact")
        ]
        return [artifact for artifact in found if artifact.type == kind]


def offline_runs(folder: Path) -> list[OfflineRun]:
    """All runs in a folder, the oldest first."""
    return [OfflineRun(file) for file in sorted(folder.rglob("*.wandb"), key=lambda file: file.parent.name)]


def records(file: Path) -> list[Record]:
    """The records of a log of LevelDB's form, after seven bytes of its own."""
    content, place, parts, found = file.read_bytes(), 7, b"", []
    while place < len(content):
        if BLOCK - place % BLOCK < HEADER:  # no room for a header: the rest of the block is empty
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + HEADER])
        parts += content[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (WHOLE, LAST):
            found.append(record := Record())
            record.ParseFromString(parts)
            parts = b""
    return found
