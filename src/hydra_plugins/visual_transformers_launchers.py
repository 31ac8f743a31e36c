"""Hydra's launchers, for sweeps that go on: on this machine, by submitit on this machine, and on SLURM clusters.

Hydra takes plugins from this namespace package alone; what they do with a sweep's folder is in
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

from visual_transformers.errors import ConfigError, Interrupted, RunError
from visual_transformers.runs.lock import RunLock
from visual_transformers.runs.sweep_dir import LAUNCHED, NEW, TRAIN, Job, SweepFolder, log_of

log = logging.getLogger(__name__)


class SweepThatGoesOn(ABC):
    """What all of them do: give each job its folder, start those that are left to do, say what became of all.

    One failing job ends no other. A job's status.json alone says how it ended.
    """

    config: Any
    hydra_context: Any

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Hydra's call, once for each batch of jobs; `initial_job_idx` is none of a job that has a number already."""
        folder = Path(str(self.config.hydra.sweep.dir))
        modes = [mode_of(overrides, str(self.config.mode)) for overrides in job_overrides]
        with RunLock(folder, "sweep", "sweep.name"):  # or another command could give the same numbers to other jobs
            numbered = SweepFolder(folder).numbered(job_overrides, modes)
            jobs = list(dict.fromkeys(numbered))  # a search may draw one twice
            # What a search draws may be no sound configuration: it learns that from the job's failure.
            self.check(jobs if self.is_grid else [job for job in jobs if self.stands(job)])
            due = [job for job in jobs if self.is_due(job) and not self.is_queued(job)]
            log.info(f"{len(due)} of {len(numbered)} jobs are left to do in {folder}")
            LAUNCHED.extend(job for job in jobs if job not in LAUNCHED)
            self.start(due)
        self.wait(jobs)
        return [self.returned(job) for job in numbered]

    def is_due(self, job: Job) -> bool:
        """Whether the job is to be started, as far as its folder tells."""
        return job.is_due(retry_failed=self.config.sweep.retry_failed)

    def stands(self, job: Job) -> bool:
        """Whether the job's place is taken by a training that has finished, and is not done again."""
        return job.mode == TRAIN and job.state == "finished" and not self.is_due(job)

    @property
    def is_grid(self) -> bool:
        """Whether the sweep's jobs are known beforehand, as Hydra's own sweeper lists them."""
        return str(self.config.hydra.sweeper._target_).startswith("hydra._internal.")

    def check(self, jobs: Collection[Job]) -> None:
        """See that every job's configuration is sound before any is started.

        Raises:
            ConfigError: with all their problems.
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
        """Compose and check the configuration that the job will have.

        Raises:
            ConfigError: if it is not sound, or another one than that of the finished run which stands for this job.
        """
        from visual_transformers.cli import jobs  # which imports torch, and Hydra imports this file for every program

        composed = self.hydra_context.config_loader.load_sweep_config(self.config, list(job.overrides))
        before = HydraConfig.instance().cfg
        try:
            HydraConfig.instance().set_config(composed)
            own = copy.deepcopy(composed)
            with open_dict(own):
                del own["hydra"]
            config = jobs.configured(own, HydraConfig.get(), job.folder)
        finally:
            HydraConfig.instance().cfg = before
        if self.stands(job):
            jobs.check_same_settings(config, job.folder)

    def is_queued(self, job: Job) -> bool:
        """Whether a scheduler has the job already."""
        return False

    @abstractmethod
    def start(self, jobs: list[Job]) -> None:
        """Start the jobs, and leave those as they were that could not be."""

    @abstractmethod
    def wait(self, jobs: list[Job]) -> None:
        """Return when the jobs have ended."""

    def returned(self, job: Job) -> JobReturn:
        """What Hydra's sweepers are told of a job.

        Hydra's own sweeper would end the sweep at the first failure: it is told that such a job returned nothing.
        """
        found, result = job.status, JobReturn(overrides=list(job.overrides), status=JobStatus.COMPLETED)
        state = found.get("state", NEW)
        if state == "finished":
            result.return_value = found.get("score")
        elif not self.is_grid:
            result.status = JobStatus.FAILED
            result.return_value = RunError(f"job {job.number} is {state}: {found.get('error') or log_of(job)}")
        return result


def mode_of(overrides: Collection[str], usual: str) -> str:
    """The mode of a job."""
    return next((text.removeprefix("mode=") for text in overrides if text.startswith("mode=")), usual)


def _of_jobs(numbers: list[int]) -> str:
    return f"job{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}: "


class LocalSweep(SweepThatGoesOn, BasicLauncher):
    """One job after the other, in this process."""

    def start(self, jobs: list[Job]) -> None:
        """Run the jobs."""
        for job in jobs:
            with job.queued():
                BasicLauncher.launch(self, [job.overrides], job.number)

    def wait(self, jobs: list[Job]) -> None:
        """Nothing: they have ended."""


class SubmittedSweep(SweepThatGoesOn, BaseSubmititLauncher):
    """All jobs given to submitit at once."""

    SECONDS_BETWEEN_LOOKS = 2.0
    params: dict[str, Any]

    def __init__(self, **params: Any) -> None:
        super().__init__(**params)
        self.sent: dict[int, Any] = {}
        """submitit's jobs, by our numbers."""

    def start(self, jobs: list[Job]) -> None:
        """Submit the jobs, as one array.

        Raises:
            ConfigError: if this machine, or the cluster, does not take them.
        """
        if not (self.config.sweep.wait or self.is_grid):
            raise ConfigError("sweep.wait=false: a search needs the scores of its jobs; leave it out")
        if not jobs:
            return
        arguments = [
            (list(job.overrides), "hydra.sweep.dir", job.number, f"job_id_for_{job.number}", Singleton.get_state())
            for job in jobs
        ]
        self.sent = {}  # or it would be sent along, with this launcher
        with ExitStack() as queued:
            for job in jobs:
                queued.enter_context(job.queued())
            sent = self.send(arguments)
        self.sent = dict(zip((job.number for job in jobs), sent, strict=True))
        for job in jobs:
            submission = self.sent[job.number]
            job.submitted({"to": self._EXECUTOR, "id": submission.job_id, "log": str(submission.paths.stdout)})
        log.info(f"submitted as {', '.join(dict.fromkeys(str(one.job_id).split('_')[0] for one in sent))}")

    def send(self, arguments: list[tuple[Any, ...]]) -> list[Any]:
        """Give submitit calls of this launcher, one for each job.

        Raises:
            ConfigError: if this machine, or the cluster, does not take them.
        """
        import submitit

        try:
            return list(self.executor().map_array(self, *zip(*arguments, strict=True)))
        except (submitit.core.utils.FailedJobError, RuntimeError, ValueError, OSError) as error:
            raise ConfigError(f"hydra.launcher: {self._EXECUTOR} does not take the jobs: {error}") from error

    def executor(self) -> Any:
        """Submitit's executor, with the settings of `hydra.launcher`."""
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
        """Whether the job's processes are gone."""

    def wait(self, jobs: list[Job]) -> None:
        """Watch the jobs until they have ended, and say when their states change."""
        if not self.config.sweep.wait:
            return
        running = [job for job in jobs if job.submission]
        said: dict[int, str] = {}
        try:
            while running:
                ended = [job for job in running if self.has_ended(job)]
                running = [job for job in running if job not in ended]
                for job in ended:
                    if job.state == "queued":  # it could not say anything
                        job.submitted(job.submission | {"ended": True})
                for job in jobs:
                    if (state := job.state) != said.get(job.number, "queued"):
                        log.info(f"job {job.number} is {state}")
                        said[job.number] = state
                if running:
                    time.sleep(self.SECONDS_BETWEEN_LOOKS)
        except KeyboardInterrupt as stop:
            raise Interrupted(self.left_alone(running)) from stop

    @abstractmethod
    def left_alone(self, jobs: list[Job]) -> str:
        """What becomes of jobs that are not waited for any longer, in a sentence."""


class SubmititLocalSweep(SubmittedSweep, LocalLauncher):
    """All jobs at once on this machine, each with processes of its own."""

    def has_ended(self, job: Job) -> bool:
        """Whether the process that controls its tasks is gone; of an earlier command's job, whether nobody works."""
        return bool(self.sent[job.number].done()) if job.number in self.sent else job.state != "running"

    def left_alone(self, jobs: list[Job]) -> str:
        """They are of the same process group, to which a terminal sends its Ctrl-C."""
        return "a terminal's Ctrl-C has reached the jobs too, which save themselves and stop; the same command goes on"


ELSEWHERE = "send the jobs from a login node of the cluster, or try them out with hardware=submitit_local"


class SlurmSweep(SubmittedSweep, SlurmLauncher):
    """An array of jobs in a SLURM queue.

    The queue is asked by squeue, as a cluster may have no accounting, and tells but whether a job is still in it:
    SLURM calls a job completed whose program failed.
    """

    SECONDS_BETWEEN_QUEUES = 10.0
    asked = -math.inf
    queued: Collection[str] | None = frozenset()

    def start(self, jobs: list[Job]) -> None:
        """Submit the jobs, and ask the queue anew from then on."""
        super().start(jobs)
        self.asked = -math.inf

    def send(self, arguments: list[tuple[Any, ...]]) -> list[Any]:
        """As above."""
        if shutil.which("sbatch") is None:
            raise ConfigError(f"hardware=slurm...: there is no sbatch here; {ELSEWHERE}")
        try:
            return super().send(arguments)
        except ConfigError as error:
            raise ConfigError(f"{error}\n(is this a login node of the cluster? if not, {ELSEWHERE})") from error

    def is_queued(self, job: Job) -> bool:
        """Whether the job waits or runs, given by an earlier command."""
        sent = job.submission
        return sent.get("to") == self._EXECUTOR and self._is_in_queue(sent["id"])

    def _is_in_queue(self, number: str) -> bool:
        queue = self.queue()
        return queue is None or number in queue

    def has_ended(self, job: Job) -> bool:
        """Whether the job's first task has left its result, or the queue has forgotten the job."""
        sent = job.submission
        result = Path(sent["log"]).with_name(f"{sent['id']}_0_result.pkl")
        return result.exists() or not self._is_in_queue(sent["id"])

    def left_alone(self, jobs: list[Job]) -> str:
        """They are on other machines."""
        ids = " ".join(dict.fromkeys(job.submission["id"] for job in jobs))
        return f"the jobs go on; the same command watches them again, and they are: {ids}"

    def queue(self) -> Collection[str] | None:
        """Ids of this user's jobs that wait or run, asked for every few seconds; None if SLURM does not answer."""
        if time.monotonic() - self.asked < self.SECONDS_BETWEEN_QUEUES:
            return self.queued
        command = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i"]
        try:
            answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
            self.queued = frozenset(answer.split())
        except (OSError, subprocess.SubprocessError) as error:
            if self.queued is not None:
                log.warning(f"SLURM does not answer ({error}); the jobs are taken to go on")
            self.queued = None
        self.asked = time.monotonic()
        return self.queued
