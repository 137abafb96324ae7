"""`python -m reinception VERB`, and so `torchrun ... -m reinception VERB`."""

from __future__ import annotations

import sys

from reinception.cli import main

if __name__ == "__main__":
    sys.exit(main())
