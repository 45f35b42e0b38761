"""Runs each script of table.py with each library, against fake servers. README.md says how."""

import contextlib
import os
import shlex
import unittest

from table import CASES, Case

LANGUAGES = ("python", "go", "java", "rust", "node", "cpp")


def drivers():
    """Returns the command of the driver of each language, which is empty if there is none."""
    return {name: shlex.split(os.environ.get(f"DRIVER_{name.upper()}", "")) for name in LANGUAGES}


class Behaviour(unittest.TestCase):
    """Has a test for each language and script: test_LANGUAGE_SCRIPT."""


def run(script, command):
    with contextlib.ExitStack() as stack:
        case = Case(command, stack)
        script(case)
        case.check()


def add(language, command):
    if not command:

        def missing(self):
            self.skipTest(f"NO DRIVER FOR {language.upper()}: DRIVER_{language.upper()} is not set")

        setattr(Behaviour, f"test_{language}", missing)
        return
    for name, script in CASES.items():
        setattr(Behaviour, f"test_{language}_{name}", lambda _, script=script: run(script, command))


for _language, _command in drivers().items():
    add(_language, _command)

if __name__ == "__main__":
    unittest.main(verbosity=2)
