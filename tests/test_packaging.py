from __future__ import annotations

import ast
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "visual_transformers"


def test_the_wheel_carries_the_configuration_and_composes_it_anywhere(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    clean = tmp_path / "venv"
    venv.create(clean, with_pip=False)
    python = clean / "bin" / "python"
    wheel = next(tmp_path.glob("*.whl"))
    files = zipfile.ZipFile(wheel).namelist()
    assert {f"visual_transformers/{path}" for path in ("report/page/report.css", "experiments/published/paper.csv")} < {
        *files
    }
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    packages = next((clean / "lib").glob("python3.*")) / "site-packages"
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [str(clean / "bin" / "visual-transformers"), "+recipe=paper_vt_resnet18", "data.root=x", "--cfg", "job"]
    composed = subprocess.run(command, cwd=elsewhere, check=True, capture_output=True, text=True).stdout
    assert "_target_: visual_transformers.models.VTResNet" in composed
    where = [str(python), "-c", "import visual_transformers; print(visual_transformers.__file__)"]
    assert str(clean) in subprocess.run(where, cwd=elsewhere, capture_output=True, text=True, check=True).stdout


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("hydra", {"app.py", "config.py", "jobs.py", "targets.py", "typed_text.py"}),
        ("omegaconf", {"adoption.py", "app.py", "config.py", "config_checks.py", "jobs.py", "targets.py"}),
        ("torchmetrics", {"metrics.py"}),
        ("submitit", {"training/environment.py", "training/preemption.py"}),
        ("wandb", {"loggers/wandb_log.py", "loggers/wandb_media.py", "loggers/wandb_session.py"}),
        ("torch.utils.tensorboard", {"loggers/tensorboard.py"}),
        ("rich", {"loggers/console.py", "progress.py", "tables.py"}),
        ("matplotlib", {"drawing.py", "plots.py", "plots_look.py", "plots_report.py"}),
        ("jinja2", {"report/page.py"}),
    ],
)
def test_a_library_is_imported_only_where_it_belongs(library, allowed):
    users = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if any(f"{name}.".startswith(f"{library}.") for name in imported(path))
    }
    assert users == allowed


@pytest.mark.parametrize("package", ["models", "data"])
def test_models_and_data_know_nothing_of_the_rest(package):
    allowed = tuple(
        f"visual_transformers.{name}" for name in ("errors", "atomic", "json_text", "paths", "wordnet", package)
    )
    for path in (SOURCE / package).rglob("*.py"):
        ours = {name for name in imported(path) if name.startswith("visual_transformers.")}
        assert {name for name in ours if not name.startswith(allowed)} == set()


def test_importing_the_models_does_not_import_hydra():
    code = "import sys; from visual_transformers.models import vt_resnet18, vt_fpn; sys.exit('hydra' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_report_does_not_import_torch(tmp_path):
    code = "import sys; from visual_transformers.app import main\ntry: main()\nfinally: print(*sys.modules)"
    command = [sys.executable, "-c", code, "mode=report"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "there is no run" in ended.stderr
    assert {"visual_transformers.report.mode", "matplotlib"} <= set(ended.stdout.split())
    assert not {"torch", "torchvision", "torchmetrics", "wandb"} & set(ended.stdout.split())


def test_loggers_that_are_not_used_are_not_imported():
    code = "import sys; import visual_transformers.app; sys.exit({'wandb', 'tensorboard'} & set(sys.modules) != set())"
    subprocess.run([sys.executable, "-c", code], check=True)
