"""What holds for every test process."""

import os
import signal

# Read once, when torch loads: its workers sleep while they wait instead of spinning on cores that others need.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A script starts its background jobs with SIGINT ignored, and all that they start inherits that. Tests interrupt what
# they start, so `pytest &` has the handler of `pytest`, which no child inherits.
signal.signal(signal.SIGINT, signal.default_int_handler)
