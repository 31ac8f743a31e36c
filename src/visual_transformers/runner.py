"""The single runner: `train`, `test`, and the loop. It reads from top to bottom."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import torch

from visual_transformers import __version__
from visual_transformers.errors import Interrupted, RunError
from visual_transformers.evaluation import score
from visual_transformers.loggers import Loggers
from visual_transformers.models import weights
from visual_transformers.parts import Parts, parameters
from visual_transformers.results import Results
from visual_transformers.settings import Config, Node
from visual_transformers.starting import started
from visual_transformers.train_run import TrainRun
from visual_transformers.trained import say_other_settings, trained_weights
from visual_transformers.training import distributed
from visual_transformers.training.distributed import Agreement
from visual_transformers.training.interruption import Interruption
from visual_transformers.training.lock import RunLock
from visual_transformers.training.rundir import RunDirectory

NOTHING, SAVE, STOP = range(3)
"""What a process may wish between two steps, each including the one before."""


def train(cfg: Config, directory: Path) -> float:
    """Train anew, from `weights`, or from where this run stopped; then score the best weights.

    Returns:
        The best validation score of `task.metric`.

    Raises:
        UserError: for anything in the input that cannot work, before the first step.
        RunError: if the loss is no longer finite, or another process works on the run.
        Interrupted: on Ctrl-C, SIGTERM or SIGUSR2, after the state was saved.
    """
    files = RunDirectory(directory)
    with RunLock(directory) if distributed.is_main() else nullcontext():
        run = started(cfg, files)
        with Loggers(run.loggers(), run.info()) as log, Interruption() as interruption:
            fit(run, log, interruption)
        distributed.wait_for_all()  # nobody ends before the loggers have, or reads before the weights are written
        if run.state.evaluated_step < run.total_steps:
            how = " (without resume=never)" if cfg.resume.checkpoint == "never" else ""
            where = f"step {run.state.step} of {run.total_steps}, saved in {files.last}"
            raise Interrupted(f"stopped at {where}; the same command goes on{how}")

        if not run.state.ranking:
            raise RunError(
                f"{cfg.resume.checkpoint} is of a run that had ended, and its best weights are not beside it; score "
                "them with mode=test, or let the run have more epochs (training.epochs, resume.allow)"
            )
        parts, winner = run.parts, run.state.ranking[0]
        weights.load(parts.model, weights.read(files.best), backbone_only=False, classes=parts.data.classes)
        results = score(cfg, parts)
        if distributed.is_main():
            results.write(directory, summary(cfg, parts) | {"best": winner, "train_seconds": run.state.seconds})
            title = f"{cfg.name}: the best weights, from epoch {winner['epoch']:g}, {scored_on(parts, results)}"
            results.print(title, directory)
    return winner[cfg.task["metric"]]


def test(cfg: Config, directory: Path) -> float:
    """Score the weights of `weights`, or the best ones of this run, and leave the scores in `test/`.

    Returns:
        The score of `task.metric`.

    Raises:
        UserError: if there are no weights, they do not fit, or the data set is not as expected.
    """
    file = trained_weights(cfg, directory)
    parts = Parts.build(cfg, file, "test")
    say_other_settings(cfg, file)
    results = score(cfg, parts)
    if distributed.is_main():
        results.write(directory / "test", summary(cfg, parts) | {"weights": str(file.path)})
        results.print(f"{cfg.name}: {file.path}, {scored_on(parts, results)}", directory / "test")
    return results.scores[cfg.task["metric"]]


def fit(run: TrainRun, log: Loggers, interruption: Interruption) -> None:
    """The loop: close an epoch when it is over, take a step, keep a record; save when it is time or asked to stop."""
    state, batches, agreed = run.state, run.batches(), Agreement()

    def stops() -> bool:
        return agreed(STOP if interruption.requested else NOTHING) == STOP

    while True:
        if run.epoch_is_over:
            run.save()  # so that an evaluation, however it ends, costs no step
            record = run.close_epoch(stops)
            if record is None:
                return
            log.record(record)
            run.save()
        if state.step == run.total_steps:
            return
        wish = agreed(STOP if interruption.requested else SAVE if run.asks_to_save() else NOTHING)
        if wish >= SAVE or run.is_step_to_save:
            run.save()
        if wish == STOP:
            return
        run.step(next(batches))
        log.advance()
        if state.step % run.cfg.training.log_every == 0:
            log.record(run.moment("step") | run.meter.read())


def scored_on(parts: Parts, results: Results) -> str:
    """The end of a title: what was scored."""
    split = "test" if parts.data.has_test_split else "validation"
    skipped = f", of which {results.skipped} were skipped" if results.skipped else ""
    return f"on the {len(parts.sets['test'])} samples of the {split} split{skipped}"


def summary(cfg: Config, parts: Parts) -> Node:
    """What a results file says of how it came about."""
    return {
        "name": cfg.name,
        "seed": cfg.seed,
        "model": cfg.model["_target_"],
        "data": cfg.data["_target_"],
        "parameters": parameters(parts.model),
        "device": str(parts.hardware.torch_device),
        "precision": parts.hardware.precision,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "visual_transformers": __version__,
    }
