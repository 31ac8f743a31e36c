"""Launchers of resumable sweeps: on this machine, by submitit on this machine, and on SLURM clusters.

Hydra finds plugins only in this namespace package; the folder of a sweep is managed by
`visual_transformers.runs.sweep_dir`.
"""

from __future__ import annotations

import copy
import getpass
import logging
import math
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import (
    BaseSubmititLauncher,
    LocalLauncher,
    SlurmLauncher,
)
from omegaconf import OmegaConf, open_dict

from visual_transformers.config.schema import CONFIGS
from visual_transformers.errors import ConfigError, Interrupted, RunError
from visual_transformers.runs.lock import RunLock
from visual_transformers.runs.sweep_dir import LAUNCHED_JOBS, NEW, TRAIN, Job, SweepFolder, describe_log

log = logging.getLogger(__name__)


class ResumableLauncher(ABC):
    """Base of the launchers: gives each job its folder, starts the jobs that are due, and returns their results.

    A failing job ends no other. Only a job's status.json decides how it ended.
    """

    config: Any
    hydra_context: Any

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs for Hydra; `initial_job_idx` is ignored, because jobs keep their numbers."""
        folder = Path(str(self.config.hydra.sweep.dir))
        modes = [self.mode_of(overrides) for overrides in job_overrides]
        with RunLock(folder, "sweep", "sweep.name"):  # another command could give the same numbers to other jobs
            numbered = SweepFolder(folder).assign_numbers(job_overrides, modes)
            jobs = list(dict.fromkeys(numbered))  # a search may draw one twice
            # A search may draw an invalid configuration, and learns that from the job's failure.
            self.check(jobs if self.is_grid else [job for job in jobs if self.is_final(job)])
            due = [job for job in jobs if self.is_due(job) and not self.is_queued(job)]
            log.info(f"{len(due)} of {len(numbered)} jobs are due in {folder}")
            LAUNCHED_JOBS.extend(job for job in jobs if job not in LAUNCHED_JOBS)
            self.start(due)
        self.wait(jobs)
        return [self.result_of(job) for job in numbered]

    def mode_of(self, overrides: Sequence[str]) -> str:
        """Return the mode of a job. An option of the group `mode` that the user has written may have another name."""
        options = (text.removeprefix("mode=") for text in overrides if text.startswith("mode="))
        option = next(options, str(self.config.mode))
        if option in CONFIGS:
            return option
        return str(self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides)).mode)

    def is_due(self, job: Job) -> bool:
        """Return True if the job should start, according to its folder."""
        return job.is_due(retry_failed=self.config.sweep.retry_failed)

    def is_final(self, job: Job) -> bool:
        """Return True if the job is a finished training that is not repeated."""
        return job.mode == TRAIN and job.state == "finished" and not self.is_due(job)

    @property
    def is_grid(self) -> bool:
        """True if Hydra's own sweeper lists the jobs, so that all are known beforehand."""
        return str(self.config.hydra.sweeper._target_).startswith("hydra._internal.")

    def check(self, jobs: Collection[Job]) -> None:
        """Check the configuration of every job before any starts.

        Raises:
            ConfigError: with the problems of all jobs.
        """
        problems: dict[str, list[int]] = {}
        for job in jobs:
            try:
                self.configure(job)
            except ConfigError as error:
                problems.setdefault(str(error), []).append(job.number)
        if problems:
            several = len(jobs) > 1
            raise ConfigError(
                "\n".join(f"{_of_jobs(numbers) if several else ''}{text}" for text, numbers in problems.items())
            )

    def configure(self, job: Job) -> None:
        """Compose and check the configuration of a job.

        Raises:
            ConfigError: if it is invalid, or differs from that of the finished run in the job's folder.
        """
        from visual_transformers.cli import jobs  # imports torch, and Hydra imports this file for every program

        composed = self.hydra_context.config_loader.load_sweep_config(self.config, list(job.overrides))
        before = HydraConfig.instance().cfg
        try:
            HydraConfig.instance().set_config(composed)
            own = copy.deepcopy(composed)
            with open_dict(own):
                del own["hydra"]
            config = jobs.validate_job(own, HydraConfig.get(), job.folder)
        finally:
            HydraConfig.instance().cfg = before
        if self.is_final(job):
            jobs.check_same_settings(config, job.folder)

    def is_queued(self, job: Job) -> bool:
        """Return True if a scheduler already has the job."""
        return False

    @abstractmethod
    def start(self, jobs: list[Job]) -> None:
        """Start the jobs; jobs that cannot be started keep their files."""

    @abstractmethod
    def wait(self, jobs: list[Job]) -> None:
        """Return when the jobs have ended."""

    def result_of(self, job: Job) -> JobReturn:
        """Return the result of a job for Hydra's sweeper.

        Hydra's own sweeper would end the sweep at the first failure, so for it a failed job has returned nothing.
        """
        status, result = job.status, JobReturn(overrides=list(job.overrides), status=JobStatus.COMPLETED)
        state = status.get("state", NEW)
        if state == "finished":
            result.return_value = status.get("score")
        elif not self.is_grid:
            result.status = JobStatus.FAILED
            result.return_value = RunError(f"job {job.number} is {state}: {status.get('error') or describe_log(job)}")
        return result


def _of_jobs(numbers: list[int]) -> str:
    return f"job{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}: "


class LocalSweep(ResumableLauncher, BasicLauncher):
    """Launcher that runs one job after the other in this process."""

    def start(self, jobs: list[Job]) -> None:
        """Run the jobs."""
        for job in jobs:
            with job.queue_or_restore():
                BasicLauncher.launch(self, [job.overrides], job.number)

    def wait(self, jobs: list[Job]) -> None:
        """Do nothing: the jobs have ended."""


class SubmittedSweep(ResumableLauncher, BaseSubmititLauncher):
    """Launcher that submits all jobs at once through submitit."""

    SECONDS_BETWEEN_LOOKS = 2.0
    params: dict[str, Any]

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.sent: dict[int, Any] = {}
        """submitit's jobs by number."""

    def start(self, jobs: list[Job]) -> None:
        """Submit the jobs as one array.

        Raises:
            ConfigError: if the scheduler refuses them.
        """
        if not (self.config.sweep.wait or self.is_grid):
            raise ConfigError("sweep.wait=false: a search needs the scores of its jobs. Leave it out.")
        if not jobs:
            return
        arguments = [
            (list(job.overrides), "hydra.sweep.dir", job.number, f"job_id_for_{job.number}", Singleton.get_state())
            for job in jobs
        ]
        self.sent = {}  # submitit pickles this launcher, and must not pickle its jobs
        with ExitStack() as queued:
            for job in jobs:
                queued.enter_context(job.queue_or_restore())
            sent = self.send(arguments)
        self.sent = dict(zip((job.number for job in jobs), sent, strict=True))
        for job in jobs:
            submission = self.sent[job.number]
            job.write_submission({"to": self._EXECUTOR, "id": submission.job_id, "log": str(submission.paths.stdout)})
        log.info(f"submitted as {', '.join(dict.fromkeys(str(one.job_id).split('_')[0] for one in sent))}")

    def send(self, arguments: list[tuple[Any, ...]]) -> list[Any]:
        """Give submitit one call of this launcher per job.

        Raises:
            ConfigError: if the scheduler refuses them.
        """
        import submitit

        try:
            return list(self.executor().map_array(self, *zip(*arguments, strict=True)))
        except (submitit.core.utils.FailedJobError, RuntimeError, ValueError, OSError) as error:
            raise ConfigError(f"hydra.launcher: {self._EXECUTOR} refuses the jobs: {error}") from error

    def executor(self) -> Any:
        """Return submitit's executor with the settings of `hydra.launcher`."""
        import submitit
        from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

        shared = set(OmegaConf.structured(BaseQueueConf))
        settings = {key if key in shared else f"{self._EXECUTOR}_{key}": value for key, value in self.params.items()}
        folder = settings.pop("submitit_folder")
        first = {key: settings.pop(key) for key in [f"{self._EXECUTOR}_max_num_timeout"] if key in settings}
        executor = submitit.AutoExecutor(folder, cluster=self._EXECUTOR, **first)
        executor.update_parameters(**settings)
        return executor

    @abstractmethod
    def has_ended(self, job: Job) -> bool:
        """Return True if the job's processes have ended."""

    def wait(self, jobs: list[Job]) -> None:
        """Watch the jobs until they have ended, and log changes of their states."""
        if not self.config.sweep.wait:
            return
        running = [job for job in jobs if job.submission]
        logged: dict[int, str] = {}
        try:
            while running:
                ended = [job for job in running if self.has_ended(job)]
                running = [job for job in running if job not in ended]
                for job in ended:
                    if job.state == "queued":  # it ended before it could write its status
                        job.write_submission(job.submission | {"ended": True})
                for job in jobs:
                    if (state := job.state) != logged.get(job.number, "queued"):
                        log.info(f"job {job.number} is {state}")
                        logged[job.number] = state
                if running:
                    time.sleep(self.SECONDS_BETWEEN_LOOKS)
        except KeyboardInterrupt as stop:
            raise Interrupted(self.describe_unwatched(running)) from stop

    @abstractmethod
    def describe_unwatched(self, jobs: list[Job]) -> str:
        """Return a sentence on what happens to jobs that this command no longer waits for."""


class SubmititLocalSweep(SubmittedSweep, LocalLauncher):
    """Launcher that runs all jobs at once on this machine, each in processes of its own."""

    def has_ended(self, job: Job) -> bool:
        """Return True if the job's controlling process has ended; for a job of an earlier command, if none runs it."""
        return bool(self.sent[job.number].done()) if job.number in self.sent else job.state != "running"

    def describe_unwatched(self, jobs: list[Job]) -> str:
        """Return the message after Ctrl-C, which a terminal sends to the jobs too."""
        return "Ctrl-C in a terminal reaches the jobs too: they save and stop. The same command resumes them."


ELSEWHERE = "Submit from a login node of the cluster, or try the jobs with hardware=submitit_local."


class SlurmSweep(SubmittedSweep, SlurmLauncher):
    """Launcher that submits an array of jobs to SLURM.

    squeue is asked, because a cluster may have no accounting. It reports only whether a job is still queued or running;
    SLURM calls a job completed even if its program failed.
    """

    SECONDS_BETWEEN_QUEUES = 10.0
    asked = -math.inf
    queued: Collection[str] | None = frozenset()

    def start(self, jobs: list[Job]) -> None:
        """Submit the jobs, and discard the cached queue."""
        super().start(jobs)
        self.asked = -math.inf

    def send(self, arguments: list[tuple[Any, ...]]) -> list[Any]:
        """Submit calls of this launcher through sbatch.

        Raises:
            ConfigError: if there is no sbatch, or it refuses them.
        """
        if shutil.which("sbatch") is None:
            raise ConfigError(f"hardware=slurm: sbatch is not installed on this machine. {ELSEWHERE}")
        try:
            return super().send(arguments)
        except ConfigError as error:
            raise ConfigError(f"{error}\nIf this is no login node: {ELSEWHERE}") from error

    def is_queued(self, job: Job) -> bool:
        """Return True if the job, submitted by an earlier command, waits or runs."""
        sent = job.submission
        return sent.get("to") == self._EXECUTOR and self._is_in_queue(sent["id"])

    def _is_in_queue(self, number: str) -> bool:
        queue = self.queue()
        return queue is None or number in queue

    def has_ended(self, job: Job) -> bool:
        """Return True if the job's first task wrote its result, or the job is no longer in the queue."""
        sent = job.submission
        result = Path(sent["log"]).with_name(f"{sent['id']}_0_result.pkl")
        return result.exists() or not self._is_in_queue(sent["id"])

    def describe_unwatched(self, jobs: list[Job]) -> str:
        """Return the message after Ctrl-C, which does not reach jobs on other machines."""
        ids = " ".join(dict.fromkeys(job.submission["id"] for job in jobs))
        return f"Jobs {ids} continue. The same command watches them again."

    def queue(self) -> Collection[str] | None:
        """Return the ids of this user's waiting and running jobs; None if SLURM does not answer."""
        if time.monotonic() - self.asked < self.SECONDS_BETWEEN_QUEUES:
            return self.queued
        command = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i"]
        try:
            answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
            self.queued = frozenset(answer.split())
        except (OSError, subprocess.SubprocessError) as error:
            if self.queued is not None:
                log.warning(f"SLURM does not answer ({error}); assuming that the jobs continue")
            self.queued = None
        self.asked = time.monotonic()
        return self.queued
