"""Where a run starts: at its beginning, or at the state that `resume` names."""

from __future__ import annotations

from visual_transformers import atomic
from visual_transformers.checkpoints import train_state, weights
from visual_transformers.config.schema import Config
from visual_transformers.distributed import collectives
from visual_transformers.errors import RunError
from visual_transformers.runs import status
from visual_transformers.runs.run_dir import RunDirectory
from visual_transformers.training.trainer import TrainRun


def started(cfg: Config, files: RunDirectory) -> TrainRun:
    """A run where `resume` says: at its start, or at the step that a checkpoint is of. Collective."""
    how = cfg.resume.checkpoint
    if how == "never" and status.restarts() and status.read(files.path).get("job") == status.slurm_job():
        how = "auto"  # a job that its scheduler starts again goes on with the run that it has begun
    found = train_state.to_go_on_from(how, files)
    with collectives.first_on_its_machine():  # for published weights are fetched
        file = weights.read(cfg.weights.file) if cfg.weights.file and not found else None
    run = TrainRun.build(cfg, files, file)
    if found:
        go_on(run, found)
    from_elsewhere = found is not None and not found.own
    best_weights = train_state.best_beside(found) if found and from_elsewhere else None
    if from_elsewhere:
        run.state.ranking = run.state.ranking[: 1 if best_weights else 0]
    collectives.wait_for_all()  # what is there was read by all before it is moved away
    if collectives.is_main():
        files.clear_torn(last_too=found is not None and found.own and found.path == files.previous)
        goes_on = how in ("auto", "must") or (found and found.own)
        if not goes_on and (aside := files.set_aside()):
            print(f"set the earlier run of this name aside in {aside}")
        if best_weights:
            atomic.write(files.best, lambda temporary: temporary.write_bytes(best_weights))
        files.write_config(cfg.everything)
    if from_elsewhere:
        run.save()  # from here on the state is this run's own
    return run


def go_on(run: TrainRun, found: train_state.Found) -> None:
    """Take up the state of a checkpoint."""
    run.state.restore(found, config=run.cfg.everything, data=run.data, allow=run.cfg.resume.allow)
    run.saved_step = run.state.step
    if run.state.step > run.total_steps:
        raise RunError(
            f"{found.path} is of step {run.state.step}, and this run is to have {run.total_steps}: let it have "
            "more with training.epochs or training.steps, or give it another name"
        )
