"""`phi3batch completion`: what completes commands in a shell."""

from argparse import Namespace

import shtab

from phi3batch.arguments import parser


def run(given: Namespace) -> int:
    """0: the script is on standard output."""
    print(shtab.complete(parser(), shell=given.shell))
    return 0
