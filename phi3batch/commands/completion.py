"""`phi3batch completion`: what completes commands in a shell."""

from argparse import Namespace

import shtab

from phi3batch.arguments import parser


def run(given: Namespace) -> int:
    """Print the script; the exit status is 0."""
    print(shtab.complete(parser(), shell=given.shell))
    return 0
