"""The one error that the local stack raises for what a person can mend."""


class StackError(Exception):
    """What was wrong, with which input, what to do now: a message to print as it is, without a traceback."""
