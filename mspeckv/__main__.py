"""``python -m mspeckv`` is the ``mspeckv`` command."""

import sys

from mspeckv.cli import main

sys.exit(main())
