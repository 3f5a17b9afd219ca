"""Recommendations for everybody, in bounded memory, resumable: `run(Job(...))`."""

from mecold.jobs.job import Job
from mecold.jobs.run import JobRefusedError, JobStoppedError, Summary, run

__all__ = ["Job", "JobRefusedError", "JobStoppedError", "Summary", "run"]
