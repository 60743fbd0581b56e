"""Where tests run what can run anywhere."""

from __future__ import annotations

import os

DEVICE = os.environ.get("ALLMREC_TEST_DEVICE", "cpu")
"""`make gpu` sets it to "cuda"."""
