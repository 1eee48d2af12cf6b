"""
Every fault that ptzmesh raises on purpose.

    PtzmeshError            1  our bug, or a fault without a better class
    ├── ConfigError         2  usage or settings are wrong
    ├── RedisUnavailable    3  no answer, refused, too old or full
    ├── RunIncomplete       4  a run ended with pairs missing or failed
    ├── WireError           1  something read from Redis is not what it should be
    │   ├── OtherWire       2  it is of another wire version: something must be upgraded
    │   └── ForeignWork     1  no program of ours asks so, of whatever version and however late
    └── ToolError           1  an external tool or a kernel right is missing

The number is the exit code of the command line. What a measurement *found* (no reply, refused,
busy) is never raised: it is the `outcome` of a Measurement.
"""

from worker.model.text import printable


class PtzmeshError(Exception):
    """Root of the tree; `exit_code` is what the command line exits with."""

    exit_code = 1


class ConfigError(PtzmeshError):
    """Usage or settings are wrong; the message says what, the rule and the next step."""

    exit_code = 2


class RedisUnavailable(PtzmeshError):  # noqa: N818 - it reads as the state it is
    """Redis cannot be used: no answer, wrong password, too old, or full; `passes` by itself?"""

    exit_code = 3

    def __init__(self, message: str, *, passes: bool = False) -> None:
        """Say what is wrong, and whether waiting may fix it."""
        self.passes = passes
        super().__init__(message)


class RunIncomplete(PtzmeshError):  # noqa: N818 - as above
    """A run ended, and some of its pairs are missing or failed."""

    exit_code = 4


class WireError(PtzmeshError):
    """Bytes read from Redis do not hold what the key promises."""


class OtherWire(WireError):  # noqa: N818 - as above
    """What was read is of another wire version, `version`; it says which end must be upgraded."""

    exit_code = 2

    def __init__(self, thing: str, version: object, ours: int) -> None:
        """Say what has which version, and which is ours."""
        version = version if isinstance(version, int) else printable(str(version)[:20])
        self.version = version
        newer = isinstance(version, int) and version > ours
        advice = "upgrade ptzmesh here" if newer else "upgrade what wrote it"
        super().__init__(f"{thing} is of wire version {version}, this ptzmesh has {ours}; {advice}")


class ForeignWork(WireError):  # noqa: N818 - as above
    """
    Work that no program of ours asks for: of no version, and however late or often it comes.

    What an outage of Redis or of a link can leave behind is a plain `WireError`.
    """


class ToolError(PtzmeshError):
    """A tool or a kernel right that a probe needs is not there."""
