"""The stages of dvc.yaml, one module each, run as `python -m gpro_empathy.stages.<name>`."""

import os
import sys

# Libraries draw a bar for every model that is loaded, which fills a log; there a line every ten
# seconds is enough. tqdm reads this when it is imported, so that it must be set before any stage
# imports anything.
if not sys.stderr.isatty():
    os.environ.setdefault("TQDM_MININTERVAL", "10")
