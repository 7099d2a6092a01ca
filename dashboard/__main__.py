"""``python -m dashboard --port 5006``: serve the dashboard on 127.0.0.1."""

from __future__ import annotations

import argparse

from dashboard.app import serve


def main() -> None:
    """Read the command line and serve until stopped."""
    parser = argparse.ArgumentParser(prog="dashboard", description=__doc__)
    parser.add_argument("--port", type=int, default=5006, help="port on 127.0.0.1 (default 5006)")
    serve(parser.parse_args().port)


if __name__ == "__main__":
    main()
