"""`python -m focaldet` is `focaldet`."""

import sys

from focaldet.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
