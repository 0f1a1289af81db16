"""What holds for every test process."""

import os

# Read once, when torch loads: its workers sleep while they wait instead of spinning on cores that others need.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
