"""What the pages say is what the program does."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from api.app import create_app
from api.problems import STATUS_AND_TITLE
from api.schemas.jobs import JobRequest
from jobstore.settings import Settings
from pals_core.spec import METHOD_SPECS

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def page(name: str) -> str:
    return (ROOT / name).read_text()


def rows(text: str, first: str) -> list[list[str]]:
    """The cells of the table whose header begins with `first`."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    found = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def test_operating_lists_every_setting_with_its_default_and_meaning() -> None:
    expected = []
    for name, field in Settings.model_fields.items():
        default = "unset" if field.default in (None, ()) else f"`{field.default}`"
        default = "`~/.pals`" if name == "data_dir" else default
        expected.append([f"`PALS_{name.upper()}`", default, field.description])

    assert rows(page("docs/operating.md"), "variable") == expected


def test_the_method_page_lists_every_field_of_a_method_with_its_default() -> None:
    def told(default: object) -> str:
        if default is None:
            return "set by the epoch"
        if isinstance(default, bool):
            return str(default).lower()
        return f"{default:.3g}" if isinstance(default, float) else str(default)

    expected = []
    for spec in METHOD_SPECS:
        fields = {name: field.default for name, field in spec.model_fields.items()}
        name = fields.pop("name")
        if fields:
            expected.append([f"`{name}`", ", ".join(f"`{field}` {told(value)}" for field, value in fields.items())])

    assert rows(page("docs/method.md"), "method") == expected


def test_the_api_page_lists_every_call_and_no_other() -> None:
    paths = create_app(Settings()).openapi()["paths"]
    calls = {f"`{method.upper()} {path}`" for path, methods in paths.items() for method in methods}

    assert {row[0] for row in rows(page("docs/api.md"), "call")} == calls


def test_the_api_page_lists_every_problem_code_under_its_status() -> None:
    listed = {
        (int(status), code)
        for status, codes in rows(page("docs/api.md"), "status")
        for code in re.findall("`(.+?)`", codes)
    }

    assert listed == {(status, str(code)) for code, (status, _) in STATUS_AND_TITLE.items()}


def test_the_job_on_the_api_page_is_one() -> None:
    examples = re.findall(r"```json\n(.+?)```", page("docs/api.md"), re.DOTALL)
    job = JobRequest.model_validate(json.loads(examples[0]))

    assert job.spec.data.horizon == 24


def test_each_deviation_is_held_by_a_test_that_exists() -> None:
    held = rows(page("docs/deviations.md"), "published program")
    assert len(held) >= 10
    # None beyond a blank line, which would end the table for readers too.
    assert len(held) == sum(line.startswith("|") for line in page("docs/deviations.md").splitlines()) - 2
    for row in held:
        names = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[2])
        assert names, row[0]
        for file, test in names:
            tree = ast.parse(page(file))
            assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, (
                f"{file}::{test}"
            )


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_file_that_a_page_names_exists(path: Path) -> None:
    text = path.read_text()
    linked = [path.parent / target for target in re.findall(r"\]\((?!http)([^)#]+)\)", text)]
    named = [
        ROOT / name for name in re.findall(r"`((?:tests|docs|pals_core|jobstore|api|worker|cli)/[\w/]+\.\w+)", text)
    ]

    assert [target for target in (*linked, *named) if not target.exists()] == []


def test_every_make_target_is_in_the_readme_and_no_other() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", page("Makefile"), re.MULTILINE)) - {"help"}

    listed = {row[0].strip("`").split()[1] for row in rows(page("README.md"), "command")}
    assert listed == targets


def test_every_room_is_in_the_readme() -> None:
    rooms = {str(folder.parent.relative_to(ROOT)) for folder in ROOT.glob("*/__init__.py")} | {
        "benchmarks",
        "examples",
        "docs",
        "tests",
    }
    listed = set(re.findall(r"^    (\w+)/ ", page("README.md"), re.MULTILINE))

    assert listed == rooms
