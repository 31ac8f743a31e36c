"""The single runner: `train`, `test`, and the loop. It reads from top to bottom."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from visual_transformers.checkpoints import weights
from visual_transformers.config.schema import Config, Node
from visual_transformers.distributed import collectives
from visual_transformers.distributed.collectives import Agreement
from visual_transformers.distributed.signals import Interruption
from visual_transformers.errors import Interrupted, RunError
from visual_transformers.inference.predictor import say_other_settings, trained_weights
from visual_transformers.loggers import Loggers
from visual_transformers.runs import status
from visual_transformers.runs.lock import RunLock
from visual_transformers.runs.results import Results
from visual_transformers.runs.run_dir import RunDirectory
from visual_transformers.training import metadata
from visual_transformers.training.components import Parts
from visual_transformers.training.evaluate import draw_attention, score
from visual_transformers.training.start import started
from visual_transformers.training.trainer import TrainRun

NOTHING, SAVE, STOP, YIELD = range(4)
"""What a process may wish between two steps, each including the one before; to yield is to be started again later."""


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
    main = collectives.is_main()
    with RunLock(directory) if main else nullcontext():
        run = started(cfg, files)
        info = run.info()
        with (
            status.kept(directory, main=main, about=info.about) as outcome,
            Interruption() as interruption,
            Loggers(run.loggers(), info) as log,
        ):
            wishes = Wishes(interruption)
            fit(run, log, wishes)
            collectives.wait_for_all()  # nobody reads before the weights are written
            if run.state.evaluated_step < run.total_steps:
                raise wishes.interrupted(
                    f"stopped at step {run.state.step} of {run.total_steps}, {goes_on(cfg, files)}"
                )
            winner, results = score_the_best(run, wishes)
            if main:
                results.write(directory, info.about | {"best": winner, "train_seconds": run.state.seconds})
                draw_attention(run.parts, results.pictures[: log.attention], directory / "attention")
                log.results(results)
            outcome.score = winner[cfg.task["metric"]]
        collectives.wait_for_all()  # nobody ends before the loggers have
        if main:
            title = f"{cfg.name}: the best weights, from epoch {winner['epoch']:g}, {scored_on(run.parts, results)}"
            results.print(title, directory)
    return winner[cfg.task["metric"]]


def score_the_best(run: TrainRun, wishes: Wishes) -> tuple[Node, Results]:
    """What the ranking says of the best weights, and their scores.

    Raises:
        RunError: if they are not there.
        Interrupted: if it was asked to stop.
    """
    cfg, parts = run.cfg, run.parts
    if not run.state.ranking:
        if cfg.resume.checkpoint in ("auto", "must", "never"):  # the run's own epochs
            raise RunError(
                f"{cfg.task['metric']} is NaN in every epoch: no target of the validation split counts. Check that not "
                "all are ignored."
            )
        raise RunError(
            f"{cfg.resume.checkpoint} is of a run that had ended, and its best weights are not beside it; score "
            "them with mode=test, or let the run have more epochs (training.epochs, resume.allow)"
        )
    weights.load(parts.model, weights.read(run.files.best), backbone_only=False, classes=parts.data.classes)
    results = score(cfg, parts, wishes.stops)
    if results is None:
        raise wishes.interrupted(f"stopped while the best weights were scored, {goes_on(cfg, run.files)}")
    return run.state.ranking[0], results


def goes_on(cfg: Config, files: RunDirectory) -> str:
    """How to go on with a run that was stopped, as the end of a sentence."""
    how = " (without resume=never)" if cfg.resume.checkpoint == "never" else ""
    return f"saved in {files.last}; the same command goes on{how}"


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
    assert results is not None  # nobody asks it to stop
    if collectives.is_main():
        results.write(
            directory / "test", metadata.about(cfg, parts) | metadata.of_training(file) | {"weights": str(file.path)}
        )
        results.print(f"{cfg.name}: {file.path}, {scored_on(parts, results)}", directory / "test")
    return results.scores[cfg.task["metric"]]


class Wishes:
    """What the processes of a run want to do between two steps, agreed among them."""

    def __init__(self, interruption: Interruption) -> None:
        self._interruption, self._agreement = interruption, Agreement()
        self.agreed = NOTHING

    def agree(self, *, saves: bool = False) -> int:
        """What all do now. Collective."""
        asked = self._interruption
        own = YIELD if asked.by_scheduler else STOP if asked.requested else SAVE if saves else NOTHING
        self.agreed = self._agreement(own)
        return self.agreed

    def stops(self) -> bool:
        """Whether all stop now. Collective."""
        return self.agree() >= STOP

    def interrupted(self, message: str) -> Interrupted:
        """The end of a run that stopped as agreed."""
        return Interrupted(message, by_scheduler=self.agreed == YIELD)


def fit(run: TrainRun, log: Loggers, wishes: Wishes) -> None:
    """The loop: close an epoch when it is over, take a step, keep a record; save when it is time or asked to stop."""
    state, batches = run.state, run.batches()
    while True:
        if run.epoch_is_over:
            run.save()  # so that an evaluation, however it ends, costs no step
            record = run.close_epoch(wishes.stops)
            if record is None:
                return
            log.record(record)
            run.save()
        if state.step == run.total_steps:
            return
        wish = wishes.agree(saves=run.asks_to_save())
        if wish >= SAVE or run.is_step_to_save:
            run.save()
        if wish >= STOP:
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
