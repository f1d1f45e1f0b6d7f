"""`python -m unlearnkit`."""

import sys


def main() -> None:
    """Runs the command line and exits; 2 says that nothing could be verified, whatever failed."""
    try:
        from unlearnkit.cli import run
    except Exception as error:
        print(f"cannot be verified: {error!r}", file=sys.stderr)
        sys.exit(2)
    sys.exit(run())


if __name__ == "__main__":
    main()
