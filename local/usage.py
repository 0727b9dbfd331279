"""Arguments of a command: wrong ones end it with status 2 and one clear line."""

import argparse
import socket
import sys
import tempfile
from pathlib import Path
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """argparse without the usage text before an error."""

    def error(self, message: str) -> NoReturn:
        """One line, and exit status 2."""
        print(f"error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)

    def writable(self, folder: Path) -> Path:
        """The folder, made if needed: told now where that fails, not once a job has run."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError as error:
            self.error(f"cannot write into {folder}: {error.strerror}")


def port(text: str) -> int:
    """A port that is free; 0 leaves the choice to the system. Defaults are looked at as well."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError("must be 0 to 65535")
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", int(text)))
        except OSError as error:
            raise argparse.ArgumentTypeError(
                f"port {text}: {error.strerror}: stop what uses it, or name another (0: a free one)"
            ) from error
    return int(text)
