"""`python -m rollout.simulator`: run the simulated upstream."""

import sys

from rollout.simulator.server import main

if __name__ == "__main__":
    sys.exit(main())
