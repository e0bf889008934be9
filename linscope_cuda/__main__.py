"""`python -m linscope_cuda` is `linscope`."""

import sys

from .cli import main

sys.exit(main())
