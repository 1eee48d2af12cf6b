"""
Finds PTZJEPA's Redis in its YAML file, whose section `redis:` is flat.

Reads that one form (`key: value`, quotes, comments) and no YAML beside it: a parser would be one
more dependency of the host's.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from worker.model.errors import ConfigError
from worker.monitor.settings import url_of

SECTION = "redis"
PLACE = Path("configs", "Config_file.yaml")
MAX_BYTES = 1024 * 1024

_KEY = re.compile(r"(?P<indent>\s+)(?P<key>[A-Za-z_][\w-]*)\s*:(?:\s+(?P<value>.*))?$")
_PLAIN = re.compile(r"(?P<value>.*?)(?:\s+#.*)?$")
_QUOTED = re.compile(r"""(?P<quote>["'])(?P<value>.*)(?P=quote)\s*(?:#.*)?$""")


def find_config() -> Path | None:
    """Find PTZJEPA's file in the current folder, else beside its `main.py`; None if in neither."""
    beside_main = Path(sys.argv[0]).resolve().parent if sys.argv and sys.argv[0] else Path()
    paths = (folder / PLACE for folder in (Path(), beside_main))
    return next((path for path in paths if path.is_file()), None)


def redis_url_from(path: Path) -> str | None:
    """
    Read the URL of the Redis that a file names; None when it names none.

    Raises:
        ConfigError: The file cannot be read, or is of another form.
    """
    try:
        text = path.read_bytes()[:MAX_BYTES].decode()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"the file ({path}) cannot be read: {exc}") from exc
    values = read_section(text)
    host = values.get("host")
    if not host:
        return None
    port = values.get("port") or "6379"
    if not port.isdecimal():
        raise ConfigError(f"redis port ({port[:20]!r}) in {path} must be a number")
    return url_of(host, port, values.get("password"))


def read_section(text: str, section: str = SECTION) -> dict[str, str]:
    """
    Read the values of one flat section; a null is left out.

    Raises:
        ConfigError: A value is a list, a map, an anchor or a block.

    >>> read_section("redis:\\n  host: 10.0.0.1  # hub\\n  password: 'a # b'\\nother:\\n  host: x")
    {'host': '10.0.0.1', 'password': 'a # b'}
    """
    values: dict[str, str] = {}
    inside = False
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith(("#", "---")):
            continue
        if not line[0].isspace():
            inside = re.fullmatch(rf"{section}\s*:\s*(#.*)?", line) is not None
        elif inside and (pair := _KEY.match(line)):
            value = _scalar(pair["key"], pair["value"] or "")
            if value is not None:
                values[pair["key"]] = value
    return values


def _scalar(key: str, text: str) -> str | None:
    text = text.strip()
    if text[:1] in ("'", '"') and (quoted := _QUOTED.match(text)):
        value = quoted["value"]
        return value.replace("''", "'") if quoted["quote"] == "'" else _unescaped(key, value)
    if text.startswith(tuple("'\"[{&*!|>%@`")):
        raise ConfigError(f"the value of redis.{key} is of a YAML form that is not read here")
    plain = _PLAIN.match(text)
    value = plain["value"] if plain and not text.startswith("#") else ""
    return None if value in ("", "~", "null", "Null", "NULL") else value


def _unescaped(key: str, value: str) -> str:
    if re.search(r'\\[^\\"]', value):
        raise ConfigError(f"the value of redis.{key} has an escape that is not read here")
    return re.sub(r'\\([\\"])', r"\1", value)
