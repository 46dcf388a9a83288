"""``python -m dipkernels``: the command line."""

from dipkernels.cli import main

if __name__ == "__main__":
    main()
