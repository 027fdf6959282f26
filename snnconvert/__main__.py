"""`python -m snnconvert` is the command line."""

from snnconvert.cli.main import main

if __name__ == "__main__":
    main()
