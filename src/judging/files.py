"""Write judgements: judge.json with all figures, judge.md and judge.png."""

from pathlib import Path

from src.judging.picture import write_picture
from src.judging.session import Answers, content
from src.judging.tables import markdown
from src.records.scores import JUDGE_FILE
from src.system.atomic import write_json, write_text


def write_answers(answers: Answers, folder: Path) -> None:
    """Write all three files. Raises OSError."""
    write_picture(answers, folder / "judge.png")
    write_text(markdown(answers), folder / "judge.md")
    write_json(content(answers), folder / JUDGE_FILE)
