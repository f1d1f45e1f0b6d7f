"""`python -m unlearnkit`, and the command `unlearnkit`."""

import sys


def main() -> None:
    """Runs the command line and exits; 2 says that nothing could be done, whatever failed."""
    try:
        from unlearnkit.cli import run

        code = run()
    except KeyboardInterrupt:  # before there was anything to go on with
        print("interrupted; run the same command again", file=sys.stderr)
        code = 130
    except Exception as error:
        print(f"error: {error!r}", file=sys.stderr)
        code = 2
    sys.exit(code)


if __name__ == "__main__":
    main()
