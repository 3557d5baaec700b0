"""The command, also as `python -m exporter`."""

import sys

from exporter.signals import Signals


def main() -> int:
    """Run the command; its exit status."""
    with Signals() as signals:
        from exporter import cli  # signals are received before what takes longer is imported

        return cli.main(signals=signals)


if __name__ == "__main__":
    sys.exit(main())
