"""Every failure that a user can cause: one line that names the thing, the value and the remedy.

Raised where the cause is known, shown in `cli.py` only.
"""


class DiffharnessError(Exception):
    """Base of all failures shown as one line; `exit_code` is what the command returns."""

    exit_code = 4


class UsageError(DiffharnessError):
    """Wrong usage or configuration, found before any long work starts."""

    exit_code = 2


class RunError(DiffharnessError):
    """The run itself failed: data missing, records short, a model that can not be loaded."""

    exit_code = 4
