"""What holds for every test."""

import os

# Models here are small: a second thread gains nothing, and on a busy machine two that wait for each other
# take many times as long. Before torch is imported, and for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
