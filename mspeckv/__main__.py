"""``python -m mspeckv`` is the ``mspeckv`` command."""

import sys

from mspeckv_study.cli import main

sys.exit(main())
