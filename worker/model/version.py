"""The wire version: that of all that stands in Redis."""

from __future__ import annotations

#: Version of what is in these keys: node records, plans, jobs, measurements. It is raised whenever
#: a reader of the present one could misread what is written; nodes of two versions measure nothing
#: together, and say so. A new probe or option raises nothing: see `worker.model.probe`. A job's
#: arguments never change: what is new goes into the plan.
WIRE_VERSION = 2
#: What was written in these can be read: runs that ended, results, files.
READ_VERSIONS = (1, WIRE_VERSION)
