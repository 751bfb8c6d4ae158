"""``python -m bench.cli`` and ``torchrun -m bench.cli``: the command line without its installed script."""

from bench.cli.main import main

if __name__ == "__main__":
    main()
