"""Who may import whom, and other shapes of the project that code review would otherwise have to watch."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("robolearn", "sim", "policies", "vlm_rewards", "real")
GROUND = {
    "robolearn",
    "robolearn.bundle",
    "robolearn.contract",
    "robolearn.episode_format",
    "robolearn.episode_stats",
    "robolearn.episode_swap",
    "robolearn.episode_video",
    "robolearn.episode_writer",
    "robolearn.episodes",
    "robolearn.errors",
    "robolearn.files",
    "robolearn.pipeline",
    "robolearn.runs",
    "robolearn.statistics",
    "robolearn.checkpoints",
    "robolearn.threads",
    "robolearn.versions",
    "robolearn.leapp_yaml",
}
"""The ground floor: what every room may import, and which imports no room itself."""

MAY_IMPORT = {
    "sim": {"sim"},
    "policies": {"policies"},
    "vlm_rewards": {"vlm_rewards"},
    "real": {"real", "sim.robots"},
}
"""Beside the ground floor."""

WIDER = {
    "real/twin/": {"sim"},  # the twin is a simulation
    "real/nodes/twin.py": {"sim"},
    "real/nodes/critic.py": {"vlm_rewards"},
    "real/arm": {"sim"},  # the arm as a world for a task's environment
}
"""Files that may import more than their room, by the beginning of their path."""

NO_TORCH = (
    "robolearn/contract.py",
    "robolearn/bundle.py",
    "robolearn/pipeline.py",
    "robolearn/leapp_yaml.py",
)
"""Loading a bundle on a robot needs numpy, onnxruntime and a YAML reader alone."""


def modules(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, only_at_import: bool = False) -> Iterator[tuple[int, str]]:
    """Line and name of every module a file imports; ``from a import b`` counts as ``a.b`` if that is a module."""
    tree = ast.parse(path.read_text(), str(path))
    inside = set()
    if only_at_import:
        for node in ast.walk(tree):
            deferred = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            if deferred or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
                inside |= {id(child) for child in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module_name(path).split(".")
            keep = len(package) - node.level + (path.name == "__init__.py")
            base = ".".join([*(package[:keep] if node.level else []), *([node.module] if node.module else [])])
            for alias in node.names:
                full = ROOT.joinpath(*base.split("."), alias.name)
                is_module = full.with_suffix(".py").exists() or full.is_dir()
                yield node.lineno, f"{base}.{alias.name}" if is_module else base


def allowed(name: str, permitted: set[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in permitted)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_meet_only_in_the_verbs(room):
    wrong = []
    for path in modules(room):
        wider = {one for start, more in WIDER.items() if str(path.relative_to(ROOT)).startswith(start) for one in more}
        for line, name in imports(path):
            if name.split(".")[0] in ROOMS and name not in GROUND and not allowed(name, MAY_IMPORT[room] | wider):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_the_ground_floor_imports_no_room():
    wrong = []
    for name in sorted(GROUND):
        path = ROOT.joinpath(*name.split(".")).with_suffix(".py")
        path = path if path.exists() else path.with_suffix("") / "__init__.py"
        if path.exists():
            wrong += [
                f"{path.relative_to(ROOT)}:{line} imports {imported}"
                for line, imported in imports(path, only_at_import=True)
                if imported.split(".")[0] in ROOMS and imported not in GROUND
            ]
    assert not wrong, "\n".join(wrong)


def test_a_bundle_loads_without_torch():
    wrong = [
        f"{name}:{line} imports {imported}"
        for name in NO_TORCH
        if (ROOT / name).exists()
        for line, imported in imports(ROOT / name, only_at_import=True)
        if imported.split(".")[0] in ("torch", "mujoco", "tensordict", "hydra", "leapp")
    ]
    assert not wrong, "\n".join(wrong)


def test_the_safety_process_is_free_of_torch_and_policies():
    safety = [path for path in modules("real") if "safety" in path.stem or path.parent.name == "core"]
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in safety
        for line, name in imports(path)
        if name.split(".")[0] in ("torch", "policies", "vlm_rewards")
    ]
    assert not wrong, "\n".join(wrong)


def test_launch_is_no_package():
    """ROS 2 owns the import name ``launch``; a package of ours would hide it."""
    assert not (ROOT / "launch" / "__init__.py").exists()


def test_rooms_are_packages_all_the_way_down():
    """Only packages with ``__init__.py`` are installed."""
    missing = {
        str(path.parent.relative_to(ROOT))
        for room in ROOMS
        for path in modules(room)
        if not (path.parent / "__init__.py").exists()
    }
    assert not missing


@pytest.mark.parametrize("room", ROOMS)
def test_no_module_hides_one_of_the_standard_library(room):
    assert room not in sys.stdlib_module_names


def test_no_bare_except_and_no_unsafe_loading():
    wrong = []
    for room in ROOMS:
        for path in modules(room):
            for node in ast.walk(ast.parse(path.read_text())):
                where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
                if isinstance(node, ast.ExceptHandler) and node.type is None:
                    wrong.append(f"{where} bare except")
                if not isinstance(node, ast.Call):
                    continue
                called = ast.unparse(node.func)
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                if called == "torch.load" and given.get("weights_only") != "True":
                    wrong.append(f"{where} torch.load without weights_only=True")
                if called in ("np.load", "numpy.load") and given.get("allow_pickle", "False") != "False":
                    wrong.append(f"{where} np.load with allow_pickle")
                if called in ("pickle.load", "pickle.loads", "yaml.load", "yaml.unsafe_load", "eval", "exec"):
                    wrong.append(f"{where} {called}")
    assert not wrong, "\n".join(wrong)
