"""The single runner: `train`, `test` and the training loop, which read from top to bottom."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from visual_transformers.checkpoints import weights
from visual_transformers.checkpoints.loading import load_weights
from visual_transformers.config.schema import Config, Node
from visual_transformers.distributed import collectives
from visual_transformers.distributed.signals import Interruption, LoopSignal, StopCoordinator
from visual_transformers.errors import RunError
from visual_transformers.inference.predictor import print_changed_settings, read_weights
from visual_transformers.loggers import Loggers
from visual_transformers.runs import status
from visual_transformers.runs.lock import RunLock
from visual_transformers.runs.results import Results
from visual_transformers.runs.run_dir import RunDirectory
from visual_transformers.training.components import Components
from visual_transformers.training.evaluate import draw_attention, score_test_split
from visual_transformers.training.metadata import run_metadata, training_metadata
from visual_transformers.training.trainer import Trainer, start_or_resume


def train(cfg: Config, directory: Path) -> float:
    """Train from the start, from `weights`, or from the last checkpoint; then score the best weights.

    Returns:
        The best validation score of `task.metric`.

    Raises:
        UserError: for any error in the input, before the first step.
        RunError: if the loss is not finite, or another process works on the run.
        Interrupted: on Ctrl-C, SIGTERM or SIGUSR2, after a checkpoint was saved.
    """
    files = RunDirectory(directory)
    main = collectives.is_main()
    with RunLock(directory) if main else nullcontext():
        trainer = start_or_resume(cfg, files)
        info = trainer.run_info()
        with (
            status.track(directory, main=main, about=info.metadata) as outcome,
            Interruption.catch() as interruption,
            Loggers(trainer.build_loggers(), info) as log,
        ):
            coordinator = StopCoordinator(interruption, collectives.DelayedMax())
            fit(trainer, log, coordinator)
            collectives.barrier()  # the best weights are complete before any rank reads them
            step, total_steps = trainer.state.step, trainer.total_steps
            if trainer.state.evaluated_step < total_steps:
                raise coordinator.interrupted(f"stopped at step {step} of {total_steps}, {_how_to_resume(cfg, files)}")
            best, results = score_best_weights(trainer, coordinator)
            if main:
                results.write(directory, info.metadata | {"best": best, "train_seconds": trainer.state.seconds})
                draw_attention(trainer.components, results.pictures[: log.attention], directory / "attention")
                log.record_results(results)
            outcome.score = best[cfg.task["metric"]]
        collectives.barrier()  # no rank ends before the loggers of rank 0 are closed
        if main:
            samples = _describe_samples(trainer.components, results)
            results.print(f"{cfg.name}: the best weights, from epoch {best['epoch']:g}, {samples}", directory)
    return best[cfg.task["metric"]]


def fit(trainer: Trainer, log: Loggers, coordinator: StopCoordinator) -> None:
    """Run the training loop: close finished epochs, take steps, write records; save or stop on request."""
    state, batches = trainer.state, trainer.batches()
    while True:
        if trainer.evaluation_due:
            trainer.save()  # so that an interrupted or failed evaluation loses no step
            record = trainer.close_epoch(coordinator.should_stop)
            if record is None:
                return
            log.record(record)
            trainer.save()
        if state.step == trainer.total_steps:
            return
        signal = coordinator.agree(wants_save=trainer.wants_timed_save())
        if signal >= LoopSignal.SAVE or trainer.step_save_due:
            trainer.save()
        if signal >= LoopSignal.STOP:
            return
        trainer.step(next(batches))
        log.advance()
        if state.step % trainer.cfg.training.log_every == 0:
            log.record(trainer.step_record())


def score_best_weights(trainer: Trainer, coordinator: StopCoordinator) -> tuple[Node, Results]:
    """Load the best weights and score them; returns their entry in the ranking, and their results.

    Raises:
        RunError: if there are none.
        Interrupted: if the run was asked to stop.
    """
    cfg, components = trainer.cfg, trainer.components
    if not trainer.state.ranking:
        if cfg.resume.checkpoint in ("auto", "must", "never"):  # the epochs are the run's own
            raise RunError(
                f"{cfg.task['metric']} is NaN in every epoch: the validation split has no valid targets. Check that "
                "not all of them are ignored."
            )
        raise RunError(
            f"{cfg.resume.checkpoint} comes from a finished run, but best.safetensors is missing next to it. Score the "
            "weights with mode=test, or train longer (training.epochs, resume.allow)."
        )
    file = weights.read(trainer.files.best)
    load_weights(components.model, file, backbone_only=False, classes=components.data.classes)
    results = score_test_split(cfg, components, coordinator.should_stop)
    if results is None:
        message = f"stopped while the best weights were scored, {_how_to_resume(cfg, trainer.files)}"
        raise coordinator.interrupted(message)
    return trainer.state.ranking[0], results


def test(cfg: Config, directory: Path) -> float:
    """Score the weights of `weights`, or the best weights of this run, and write the results to `test/`.

    Returns:
        The score of `task.metric`.

    Raises:
        UserError: if there are no weights, they do not fit, or the data set is not as expected.
    """
    file = read_weights(cfg, directory)
    components = Components.build(cfg, file, "test")
    print_changed_settings(cfg, file)
    results = score_test_split(cfg, components)
    assert results is not None  # it is not asked to stop
    if collectives.is_main():
        folder, metadata = directory / "test", run_metadata(cfg, components) | training_metadata(file)
        results.write(folder, metadata | {"weights": str(file.path)})
        results.print(f"{cfg.name}: {file.path}, {_describe_samples(components, results)}", folder)
    return results.scores[cfg.task["metric"]]


def _how_to_resume(cfg: Config, files: RunDirectory) -> str:
    """Return the end of a message about an interrupted run."""
    condition = " (without resume=never)" if cfg.resume.checkpoint == "never" else ""
    return f"saved in {files.last}; the same command resumes it{condition}"


def _describe_samples(components: Components, results: Results) -> str:
    """Return the end of a title: the number and split of the scored samples."""
    split = "test" if components.data.has_test_split else "validation"
    skipped = f", of which {results.skipped} were skipped" if results.skipped else ""
    return f"on the {len(components.sets['test'])} samples of the {split} split{skipped}"
