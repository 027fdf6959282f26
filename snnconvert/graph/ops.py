"""Every kind by its name, for doors that write `ops.Conv(...)`."""

from snnconvert.graph.kinds import *  # noqa: F403
