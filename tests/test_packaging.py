from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


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
    assert {
        f"visual_transformers/{path}" for path in ("modes/report/page/report.css", "experiments/published/paper.csv")
    } < {*files}
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    packages = next((clean / "lib").glob("python3.*")) / "site-packages"
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [str(clean / "bin" / "visual-transformers"), "recipe=paper_vt_resnet18", "data.root=x", "--cfg", "job"]
    composed = subprocess.run(command, cwd=elsewhere, check=True, capture_output=True, text=True).stdout
    assert "_target_: visual_transformers.models.VTResNet" in composed
    where = [str(python), "-c", "import visual_transformers; print(visual_transformers.__file__)"]
    assert str(clean) in subprocess.run(where, cwd=elsewhere, capture_output=True, text=True, check=True).stdout


def test_importing_the_models_does_not_import_hydra():
    code = "import sys; from visual_transformers.models import vt_resnet18, vt_fpn; sys.exit('hydra' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_report_does_not_import_torch(tmp_path):
    code = "import sys; from visual_transformers.cli.main import main\ntry: main()\nfinally: print(*sys.modules)"
    command = [sys.executable, "-c", code, "mode=report"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "there is no run" in ended.stderr
    assert {"visual_transformers.modes.report", "matplotlib"} <= set(ended.stdout.split())
    assert not {"torch", "torchvision", "torchmetrics", "wandb"} & set(ended.stdout.split())


def test_loggers_that_are_not_used_are_not_imported():
    code = "import sys, visual_transformers.cli.main; sys.exit(bool({'wandb', 'tensorboard'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
