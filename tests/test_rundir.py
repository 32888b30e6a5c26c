import json
import os
from pathlib import Path

import pytest

from pretrain.rundir import environment, read_json, read_json_lines, whole_file, write_json


def test_a_failing_writer_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "value.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})
    with pytest.raises(TypeError), whole_file(path) as file:
        file.write("a text where bytes are expected")
    assert read_json(path) == {"a": 1}
    assert os.listdir(path.parent) == ["value.json"]


def test_a_written_file_is_readable_by_others_as_the_umask_says(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        write_json(tmp_path / "a.json", 1)
    finally:
        os.umask(old)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o644


def test_a_row_cut_short_is_left_out_but_a_damaged_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_json_lines(path) == []
    rows = [{"step": 1}, {"step": 2}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 3, "lo')
    assert read_json_lines(path) == rows
    path.write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
        read_json_lines(path)


def test_damaged_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.json is damaged"):
        read_json(tmp_path / "a.json")


def test_environment_names_versions_and_revision() -> None:
    found = environment()
    assert found["packages"]["torch"].startswith("2.")
    json.dumps(found)
