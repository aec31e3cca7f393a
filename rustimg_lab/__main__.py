"""`python -m rustimg_lab`, which the launcher `./lab` calls."""

import sys

from rustimg_lab.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
