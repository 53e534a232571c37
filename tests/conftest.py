"""Settings for the whole suite."""

from __future__ import annotations

import os

import hypothesis

# Before torch is imported, here or in a process that a test starts: threads that spin at barriers make every forward
# ten times slower when other processes want the same two cores, and tests start many processes.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

# A deadline would measure what else the machine does.
hypothesis.settings.register_profile("unmask", deadline=None)
hypothesis.settings.load_profile("unmask")
