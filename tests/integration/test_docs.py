"""The pages agree with the code: columns, outcomes, keys, links, Python and the worked example."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from samples import docs_script

from integration.docs_pages import PAGES, ROOT, blocks
from integration.nodes import cli as run_cli
from worker.probes.icmp.engine import icmp_capability


@pytest.fixture(scope="module")
def measured(mesh_folder: tuple[str, Path]) -> Path:
    """The CSV of a run that used most of what there is."""
    url, folder = mesh_folder
    probes = ["--probe", "ping", "--probe", "redis", "--probe", "throughput", "--duration", "1"]
    csv = str(folder / "measured.csv")
    assert run_cli(url, "run", "--count", "2", *probes, "--csv", csv).returncode == 0
    return Path(csv)


@pytest.mark.redis
@pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_that_is_shown_works(page: Path, mesh_folder: tuple[str, Path]) -> None:
    url, _ = mesh_folder
    for block in blocks(page, "python"):
        code = re.sub(r'Mesh\("[^"]*"\)', f"Mesh({url!r})", block)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


def test_page_of_the_command_line_is_what_the_commands_say() -> None:
    module = docs_script("make_cli")
    assert module.PAGE.read_text() == module.page(), "run: python docs/make_cli.py"


def test_every_column_of_the_csv_is_documented() -> None:
    from worker.model.csv_columns import CSV_COLUMNS

    page = (ROOT / "docs" / "csv.md").read_text()
    assert [name for name in CSV_COLUMNS if f"`{name}`" not in page] == []


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_site_is_built_without_a_broken_link_or_a_page_that_nothing_leads_to(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index.html").exists()


def test_example_says_of_its_file_what_the_page_shows(tmp_path: Path) -> None:
    made = docs_script("make_output")
    said = made.printed(made.FOLDER / "mesh.csv", tmp_path / "mesh.svg", "hub")
    assert made.page(said) == made.PAGE.read_text(), "run: python docs/make_output.py"
    assert (tmp_path / "mesh.svg").read_text().count("<path") > 20


def test_example_takes_a_name_for_a_name(tmp_path: Path) -> None:
    made = docs_script("make_output")
    odd = {"yard-1": "NA", "yard-2": "7", "roof-1": "nan", "roof-2": "1e3", "hub": "null"}
    text = (made.FOLDER / "mesh.csv").read_text()
    for name, other in odd.items():
        text = text.replace(f",{name},", f",{other},")
    (tmp_path / "mesh.csv").write_text(text)
    said = made.printed(tmp_path / "mesh.csv", tmp_path / "named.svg", "null")
    usual = made.printed(made.FOLDER / "mesh.csv", tmp_path / "usual.svg", "hub")
    numbers = [sorted(re.findall(r"\d+\.\d+", text)) for text in (usual, said)]
    assert numbers[0] == numbers[1]
    assert all(re.search(rf"(?m)^{re.escape(name)} ", said) for name in odd.values())


@pytest.mark.redis
@pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping")
def test_example_reads_a_file_that_was_just_measured(measured: Path, tmp_path: Path) -> None:
    picture = tmp_path / "now.png"
    said = docs_script("make_output").printed(measured, picture, "hub")
    assert "cam-east" in said
    assert "Throughput, Mbit/s:" in said
    assert picture.read_bytes().startswith(b"\x89PNG")


#: Of docs/keys.md: key → type, and whether it expires.
KEY_ROW = re.compile(r"^\| `((?:ptzmesh|rq):[^`]*)` \| (\w*) \| ([^|]+) \|", re.MULTILINE)


def documented_keys() -> list[tuple[re.Pattern[str], str, bool]]:
    page = (ROOT / "docs" / "keys.md").read_text()
    rows = [
        (re.compile(re.sub(r"<\w+>", "[^:]*", key).replace("…", ".*")), kind, "without" not in life)
        for key, kind, life in KEY_ROW.findall(page)
    ]
    assert len(rows) > 20
    return rows


@pytest.mark.redis
@pytest.mark.skipif(icmp_capability() == "none", reason="this user may not ping")
def test_every_key_that_a_mesh_leaves_is_documented_and_expires_as_said(
    mesh_folder: tuple[str, Path], measured: Path
) -> None:
    url, _ = mesh_folder
    assert measured.exists()
    connection, rows = redis.Redis.from_url(url), documented_keys()
    found = sorted(key.decode() for key in connection.scan_iter())  # our own server
    assert any(key.startswith("ptzmesh:budget:") for key in found)
    for key in found:
        matching = [(kind, ends) for pattern, kind, ends in rows if pattern.fullmatch(key)]
        assert matching, f"{key} is not in docs/keys.md"
        kind, ends = matching[0]
        pipeline = connection.pipeline()  # one moment: it may end at any
        there, left_s = pipeline.type(key).ttl(key).execute()
        if kind != "several" and there != b"none":
            assert there.decode() == kind, key
            assert (left_s >= 0) is ends, key


def test_every_key_in_the_code_is_documented() -> None:
    source = "".join(path.read_text() for path in (ROOT / "worker").rglob("keyspace.py"))
    page = (ROOT / "docs" / "keys.md").read_text()
    keys = re.findall(r'"(ptzmesh:[a-z:]+)[{"]', source)
    assert len(keys) > 15
    assert [key for key in keys if f"`{key}" not in page] == []
