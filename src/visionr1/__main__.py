"""`python -m visionr1`: the command line, as launchers of several processes start it."""

import sys

from visionr1.cli import main

if __name__ == "__main__":
    sys.exit(main())
