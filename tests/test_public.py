"""What `import bestofn` offers, and that imports never climb."""

import ast
from pathlib import Path

import pytest

import bestofn

PACKAGE = Path(bestofn.__file__).parent
# From the ground up; rooms on one floor do not import each other.
FLOORS = [
    {"types", "errors", "thinking", "identity", "redaction", "tiny"},
    {"prompts", "concurrency", "registry", "progress", "section"},
    {"schemas"},
    {"tools"},
    {"store", "estimators", "engines", "verifiers", "dataset.sources"},
    {"stopping", "scoring"},
    {"rewards", "generators"},
    {"config", "selectors", "rejection"},
    {"sampler", "recipe", "resuming", "models"},
    {"dataset", "integrations"},
    {"analysis"},
    {"evals", "serve"},
    {"cli"},
]


def room(module: str) -> str:
    """The room of a module; some rooms are parts of a package."""
    parts = module.removeprefix("bestofn.").split(".")
    two = ".".join(parts[:2])
    return two if any(two in floor for floor in FLOORS) else parts[0]


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
        here = room(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
        if here in ("__init__", "__main__"):
            continue
        for other in imports(path) - {here}:
            # errors, types and thinking are the ground that the tiny world stands on.
            ground = height[other] == 0 and other != "tiny"
            assert height[other] < height[here] or ground, f"{here} imports {other}"


def test_rewards_know_no_engine() -> None:
    for path in (PACKAGE / "rewards").rglob("*.py"):
        assert "engines.hf" not in path.read_text()
