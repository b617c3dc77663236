"""``python -m lambda_esm``: the command without its script."""

from lambda_esm.cli import app

app()
