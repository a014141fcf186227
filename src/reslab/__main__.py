"""`python -m reslab` is the command `reslab`."""

from reslab.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
