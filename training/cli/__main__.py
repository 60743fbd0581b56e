"""`python -m training.cli`: the same as `allmrec-train`."""

from training.cli.main import app

app()
