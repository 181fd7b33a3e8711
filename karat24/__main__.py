"""``python -m karat24``: the command line, where no script was installed on the path."""

from karat24.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
