"""Keeping the frameworks quiet: they write of their own internals, past every switch, where our user reads."""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr

from bigvit_edge.errors import UserError


@contextmanager
def silenced() -> Iterator[Callable[[], str]]:
    """Keep the terminal free of what frameworks write in the block.

    What is written to sys.stderr and, from C++ too, to file descriptor 2 stays off the terminal, and warnings and log
    records up to WARNING are dropped; yields a reader of what was written so far. It is never shown: of work that
    fails, it becomes the error's attribute `heard`, for whoever keeps its traceback; not of a UserError, which says all
    there is to say. Logging is left as it was found.

    Holds for the whole process, other threads included.
    """
    root, disabled = logging.root, logging.root.manager.disable
    handlers, level = root.handlers[:], root.level
    sys.stderr.flush()
    terminal = os.dup(2)
    # not the log itself as sys.stderr: a handler that keeps the stream would later write to a closed file
    stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    with tempfile.TemporaryFile() as log, redirect_stderr(stderr), warnings.catch_warnings():

        def read() -> str:
            stderr.flush()
            log.seek(0)
            return log.read().decode(errors="replace")  # and is at its end again

        warnings.simplefilter("ignore")
        logging.disable(max(disabled, logging.WARNING))
        os.dup2(log.fileno(), 2)
        try:
            yield read
        except UserError:
            raise
        except Exception as e:
            e.heard = f"{getattr(e, 'heard', '')}{read()}"  # type: ignore[attr-defined]
            raise
        finally:
            stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            logging.disable(disabled)
            root.handlers[:] = handlers
            root.setLevel(level)
