"""What `import bestofn` offers, and that imports never climb."""

import ast
from pathlib import Path

import pytest

import bestofn

PACKAGE = Path(bestofn.__file__).parent
# From the ground up; rooms on one floor do not import each other.
FLOORS = [
    {"types", "errors", "thinking", "identity", "redaction", "tiny"},
    {"prompts", "loop", "arguments", "progress", "section"},
    {"pool", "estimators", "engines", "verifiers", "journal", "sources", "stopping"},
    {"rewards", "generators"},
    {"config"},
    {"sampler", "recipe", "resuming", "models"},
    {"batch", "experiments", "integrations", "doctor"},
    {"cli"},
]


def room(module: str) -> str:
    return module.removeprefix("bestofn.").split(".")[0]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("bestofn."):
            found.add(room(node.module))
    return found


def test_everything_public_is_there() -> None:
    for name in bestofn.__all__:
        assert getattr(bestofn, name) is not None
    assert set(bestofn.__all__) <= set(dir(bestofn))
    with pytest.raises(AttributeError, match="nonesuch"):
        bestofn.nonesuch  # noqa: B018


def test_imports_never_climb() -> None:
    height = {name: floor for floor, names in enumerate(FLOORS) for name in names}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        here = parts[0]
        if here in ("__init__", "__main__"):
            continue
        for other in imports(path) - {here}:
            # errors, types and thinking are the ground that the tiny world stands on.
            ground = height[other] == 0 and other != "tiny"
            assert height[other] < height[here] or ground, f"{here} imports {other}"


def test_rewards_know_no_engine() -> None:
    for path in (PACKAGE / "rewards").rglob("*.py"):
        assert "engines.transformers" not in path.read_text()
