"""Rules worth having: arrows between packages, a launcher without torch, sizes, configurations that plan."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pretrain", "launch", "eval")
MAX_LINES = 400
MAX_FUNCTION_LINES = 60
SMALL_FILE_LINES = 60
MAX_SMALL_FILES = 15
MAX_PRODUCT_LINES = 27_500  # the budget of all rooms together; a feature has to be worth its lines
MAX_REPORT_LINES = 4_450  # the budget of the report's room
# Direct rooms (files and folders) of the folders that once had grown too wide for a stranger.
MAX_ROOMS = {"launch": 12, "eval/report": 16, "pretrain/data": 16}

# Within pretrain an import may point only to an earlier row, or stay in its row.
PRETRAIN_ROWS: list[set[str]] = [
    {"errors", "batch", "choices", "configio", "schema", "format", "health", "preemption", "lock", "ranks"},
    {"collectives", "kernels", "randomness"},
    {"objectives.settings", "objectives.config", "models.config", "optim.config"},
    {"config", "dist", "gradients"},
    {"rundir"},
    {"plan", "losses", "models", "optim", "data", "checkpoint"},
    {"metrics", "wandb_copy", "objectives", "online_probe", "divergence"},
    {"measure", "numerics"},
    {"state", "forward_backward"},
    {"train", "certify"},
    {"replay"},
    {"__main__"},
]
# What the launcher may know of the other packages: their torch-free modules.
LAUNCH_MAY_IMPORT = {
    "pretrain.config",
    "pretrain.configio",
    "pretrain.errors",
    "pretrain.models.config",
    "pretrain.objectives.config",
    "pretrain.objectives.settings",
    "pretrain.format",
    "pretrain.lock",
    "pretrain.plan",
    "pretrain.schema",
    "pretrain.rundir",
    "pretrain.preemption",
    "pretrain.data.catalog",
    "eval.config",
    "eval.schema",
    "eval.study_manifest",
}


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Modules of this project that ``path`` imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names = [node.module]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in (*PACKAGES, "tests"))


def row_of(module: str) -> int:
    parts = module.split(".")[1:]
    names = (".".join(parts[:2]), parts[0])  # a module in a folder may stand on a row of its own
    rows = [index for name in names for index, row in enumerate(PRETRAIN_ROWS) if name in row]
    assert rows, f"{module} has no row in PRETRAIN_ROWS"
    return rows[0]


def test_arrows_between_packages() -> None:
    wrong = []
    for path in sources():
        package = path.relative_to(ROOT).parts[0]
        for target in imports(path):
            other = target.split(".")[0]
            allowed = {"pretrain": {"pretrain"}, "eval": {"eval", "pretrain"}, "launch": {"launch", "eval", "pretrain"}}
            if other not in allowed[package]:
                wrong.append(f"{path.relative_to(ROOT)} imports {target}")
            if package == "launch" and other != "launch" and target not in LAUNCH_MAY_IMPORT:
                wrong.append(f"{path.relative_to(ROOT)} imports {target}, which is not known to be torch-free")
            if package == "eval" and target.startswith(("pretrain.objectives", "pretrain.train", "pretrain.state")):
                wrong.append(f"{path.relative_to(ROOT)} imports {target}")
    assert not wrong, "\n".join(wrong)


def test_arrows_inside_pretrain() -> None:
    wrong = []
    for path in sorted((ROOT / "pretrain").rglob("*.py")):
        module = module_name(path)
        if module == "pretrain":
            continue
        for target in imports(path):
            is_command = path.name == "__main__.py" or '__name__ == "__main__"' in path.read_text()
            if row_of(target) > row_of(module) and not is_command:
                wrong.append(f"{module} imports {target}, which stands above it")
    assert not wrong, "\n".join(wrong)


def rooms_of(folder: Path) -> list[Path]:
    """Files and folders of code directly in ``folder``."""
    children = (path for path in folder.iterdir() if path.name not in ("__init__.py", "__pycache__"))
    return sorted(path for path in children if path.suffix == ".py" or (path.is_dir() and any(path.rglob("*.py"))))


def arrows_of(folder: Path) -> dict[str, set[str]]:
    """Room of ``folder`` to the rooms of it that it imports from."""
    rooms = rooms_of(folder)
    prefix = module_name(folder) + "."
    arrows: dict[str, set[str]] = {room.stem: set() for room in rooms}
    for room in rooms:
        for path in [room] if room.is_file() else sorted(room.rglob("*.py")):
            for target in imports(path):
                other = target.removeprefix(prefix).split(".")[0]
                if target.startswith(prefix) and other in arrows and other != room.stem:
                    arrows[room.stem].add(other)
    return arrows


FOLDERS = sorted({path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_no_circle_of_rooms(folder: Path) -> None:
    """The rooms of a folder can be stacked so that every import points down."""
    arrows = arrows_of(folder)
    while free := [room for room, targets in arrows.items() if not targets & arrows.keys()]:
        arrows = {room: targets for room, targets in arrows.items() if room not in free}
    assert not arrows, f"these import each other in a circle: {arrows}"


@pytest.mark.parametrize("folder", MAX_ROOMS)
def test_a_folder_is_not_too_wide(folder: str) -> None:
    assert len(rooms_of(ROOT / folder)) <= MAX_ROOMS[folder]


def test_the_house_stays_small() -> None:
    lines = {path: path.read_text().count("\n") for path in sources()}
    assert sum(lines.values()) <= MAX_PRODUCT_LINES
    assert sum(n for path, n in lines.items() if path.is_relative_to(ROOT / "eval/report")) <= MAX_REPORT_LINES
    small = [str(path.relative_to(ROOT)) for path, n in lines.items() if 0 < n < SMALL_FILE_LINES]
    small = [path for path in small if not path.endswith("__init__.py")]
    assert len(small) <= MAX_SMALL_FILES, f"does each of these deserve a room of its own? {small}"


def test_nobody_shadows_the_builtin_eval() -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for path in [*sources(), *(ROOT / "tests").rglob("*.py")]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import) and any(a.name.split(".")[0] == "eval" and not a.asname for a in node.names)
    ]
    assert not wrong, f"`import eval` hides the builtin in {wrong}; write `from eval.x import y`"


def test_files_and_functions_stay_small() -> None:
    wrong = []
    for path in [*sources(), *(ROOT / "tests").rglob("*.py")]:
        text = path.read_text()
        lines = text.count("\n")
        if lines > MAX_LINES:
            wrong.append(f"{path.relative_to(ROOT)}: {lines} lines, at most {MAX_LINES}")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length} lines")
    assert not wrong, "\n".join(wrong)


def test_loop_fits_one_screen_and_hides_nothing() -> None:
    text = (ROOT / "pretrain/train.py").read_text()
    loop = next(n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef) and n.name == "run_steps")
    body = ast.get_source_segment(text, loop) or ""
    assert len(body.splitlines()) <= 40
    for hidden in ("rank ==", "is_first", "objective.name", "device.type"):
        assert hidden not in body, f"the loop decides on {hidden}"


@pytest.mark.parametrize(
    "module",
    ["launch.__main__", "launch.run", "eval.config", "eval.study_manifest", "pretrain.plan"],
)
def test_no_torch_on_the_login_node(module: str) -> None:
    code = (
        "import sys, importlib\n"
        "for name in ('torch', 'numpy', 'torchvision'): sys.modules[name] = None\n"
        f"importlib.import_module({module!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_run_does_not_import_what_it_does_not_use() -> None:
    """torch's compiler and torchvision's models would double the start of every process."""
    code = (
        "import sys, torch, pretrain.train, eval.evaluate\n"
        "from pretrain.optim.lars import LARS\n"
        "optimizer = LARS([torch.nn.Parameter(torch.ones(2))], 0.1)\n"
        "optimizer.zero_grad(); optimizer.load_state_dict(optimizer.state_dict()); optimizer.step()\n"
        "print([name for name in ('torch._dynamo', 'torchvision', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
