"""Our options beside PTZJEPA's, and the monitor that they ask for."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from worker.monitor import add_network_arguments, monitor_from_arguments, process

#: Options that PTZJEPA's parser has; what they mean does not matter here.
FLAGS = ("-ki", "-tp", "-si", "-pubmsg", "-dist", "--debug")
VALUES = ("-cb", "-it", "-mv", "-un", "-pw", "-ip", "-rm", "-fn", "-dist_ip", "-dist_username",
          "-dist_host_directory")  # fmt: skip
LONG = {"-dist": "--distributed", "-dist_ip": "--distributed_ip"}


def ptzjepa_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("PTZ JEPA", exit_on_error=False)
    for name in FLAGS:
        parser.add_argument(name, *filter(None, [LONG.get(name)]), action="store_true")
    for name in VALUES:
        parser.add_argument(name, *filter(None, [LONG.get(name)]), default="")
    return parser


COMMAND = ["-rm", "lifelong", "-dist", "-dist_ip", "10.0.0.1", "-un", "nm", "-pw", "-nh", "-ki"]


def test_ptzjepas_options_mean_what_they_meant() -> None:
    command = [word for word in COMMAND if word != "-nh"]
    command.insert(command.index("-pw") + 1, "secret")
    before = vars(ptzjepa_parser().parse_args(command))
    after = vars(add_network_arguments(ptzjepa_parser()).parse_args(command))
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {
        "network_monitoring", "network_interval", "network_hosts", "network_redis",
    }  # fmt: skip


def parsed(*words: str) -> argparse.Namespace:
    return add_network_arguments(ptzjepa_parser()).parse_args(list(words))


def test_defaults_are_those_of_the_seed() -> None:
    args = parsed()
    assert (args.network_monitoring, args.network_interval) == (False, 300)
    assert args.network_hosts == ""


def test_short_and_long_forms() -> None:
    short = parsed("-nm", "-ni", "60", "-nh", "a, b,a")
    long = parsed("--network_monitoring", "--network_interval=60", "--network_hosts=a,b")
    assert vars(short) == vars(long)
    assert short.network_hosts == "a,b"


@pytest.mark.parametrize(
    "words",
    [("-ni", "0"), ("-ni", "-5"), ("-ni", "soon"), ("-nh", "a b"), ("-nh=-c,a",), ("-nh", "a,;rm")],
)
def test_bad_values_are_refused_at_the_start(words: tuple[str, ...]) -> None:
    with pytest.raises((argparse.ArgumentError, SystemExit)):
        parsed(*words)


def test_the_server_is_a_host_when_distributed() -> None:
    words = ("-nm", "-nh", "edge-2,10.0.0.1", "-dist_ip", "10.0.0.1")
    assert monitor_from_arguments(parsed(*words)).hosts == ("edge-2", "10.0.0.1")
    assert monitor_from_arguments(parsed(*words, "-dist")).hosts == ("10.0.0.1", "edge-2")


def test_the_interval_is_taken() -> None:
    assert monitor_from_arguments(parsed("-nm", "-ni", "77")).interval_s == 77


def test_without_nm_nothing_is_measured_and_all_calls_work() -> None:
    with monitor_from_arguments(parsed("-dist", "-dist_ip", "10.0.0.1")) as monitor:
        with monitor.activity("train"):
            monitor.cycle(1)
        assert monitor._thread is None


def test_a_namespace_without_our_options_is_no_reason_to_fail() -> None:
    with monitor_from_arguments(argparse.Namespace()) as monitor:
        monitor.cycle(1)


def redis_of(*words: str, config: Path | None = None) -> str | None:
    monitor_from_arguments(parsed("-nm", *words), config_path=config)
    return process.recorder().settings.redis_url


def test_redis_from_argument_over_environment_over_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "Config_file.yaml"
    config.write_text("redis:\n  host: from-file\n")
    assert redis_of(config=config) == "redis://from-file:6379/0"
    monkeypatch.setattr(process, "_process", process._Process())
    monkeypatch.setenv("PTZMESH_REDIS_URL", "redis://from-environment")
    assert redis_of(config=config) == "redis://from-environment"
    assert redis_of("--network_redis", "redis://from-argument", config=config) == (
        "redis://from-argument"
    )


def test_a_broken_file_is_a_log_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = tmp_path / "Config_file.yaml"
    config.write_text("redis:\n  host: [a]\n")
    assert redis_of(config=config) is None
    assert "not published" in caplog.text
