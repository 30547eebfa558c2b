"""Many episodes: a suite of scenarios, several planners and seeds, on worker processes, resumable.

    out/episodes/<scenario>/<planner>/<seed>.npz   one file per episode, written whole or not at all
    out/failures.json                              what could not be driven, and why
    out/scorecard.json                             the result
    out/logs/worker-<n>.log                        what workers and simulators print

Every worker has a server process of its own and keeps it. A worker that dies or hangs costs one attempt of one
episode; after `crew.ATTEMPTS` the episode counts as missing, which the scorecard shows and counts as zero.
"""

from drivesim.suite.files import Job, Suite, episodes_of, load_suite, suite_files
from drivesim.suite.running import Progress, SuiteConfig, run_suite
from drivesim.worlds.scenario_files import load_scenario, scenario_files

__all__ = [
    "Job", "Progress", "Suite", "SuiteConfig", "episodes_of", "load_scenario", "load_suite", "run_suite",
    "scenario_files", "suite_files",
]  # fmt: skip
