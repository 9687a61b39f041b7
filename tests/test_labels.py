"""Conditions as a person writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from messages import assert_names

from toolkit.errors import ToolkitError
from toolkit.labels import values
from toolkit.spec import Condition

MOVE = Condition("move", 3, ("left", "right", "stay [1], x"), per_step=True)
PHONE = Condition("phone", 3, ("a", "b", "c"), per_step=True, stride=2)
KIND = Condition("kind", 2, ("a", "한 글"))
FORCE = Condition("force", 2, per_step=True, real=True)


def test_one_label_holds_for_all_and_several_take_turns() -> None:
    assert values(KIND, "한 글", 2, 4).tolist() == [1, 1]
    assert values(MOVE, "stay [1], x", 2, 4).tolist() == [2, 2]
    assert values(MOVE, "left,right", 3, 4).tolist() == [0, 1, 0]
    assert values(MOVE, "right, 2", 2, 4).tolist() == [1, 2]


def test_a_list_has_a_label_for_each_step() -> None:
    assert values(MOVE, "[left,right,right,left]", 2, 4).tolist() == [[0, 1, 1, 0]] * 2
    assert values(PHONE, "[a, c]", 1, 4).tolist() == [[0, 2]]


def test_lists_and_labels_take_turns() -> None:
    made = values(MOVE, "left,[right,left,3,right],right", 4, 4)
    assert made.tolist() == [[0] * 4, [1, 0, 3, 1], [1] * 4, [0] * 4]


@pytest.mark.parametrize("heading", ["", "move\n"])
def test_a_file_has_a_label_on_each_line(tmp_path: Path, heading: str) -> None:
    path = tmp_path / "왼쪽, a [b]=c.txt"
    path.write_text(f"{heading}left\n right\n\n1\nstay [1], x\nleft\n", encoding="utf-8")
    assert values(MOVE, str(path), 1, 4).tolist() == [[0, 1, 1, 2]]
    (tmp_path / "b.csv").write_text("right\n" * 4)
    plain = path.rename(tmp_path / "a.txt")
    assert values(MOVE, f"{plain},{tmp_path / 'b.csv'}", 2, 4).tolist() == [[0, 1, 1, 2], [1] * 4]
    np.save(tmp_path / "a.npy", np.array([2, 1, 0, 0]))
    assert values(MOVE, str(tmp_path / "a.npy"), 1, 4).tolist() == [[2, 1, 0, 0]]


def test_a_label_comes_before_a_file_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "left").write_text("right\n" * 4)
    assert values(MOVE, "left", 1, 4).tolist() == [0]


def test_numbers_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n3; 4\n-5 6e1\n")
    expected = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [-5.0, 60.0]]] * 2)
    assert torch.equal(values(FORCE, str(tmp_path / "a.csv"), 2, 3), expected)
    np.save(tmp_path / "a.npy", expected[0].numpy())
    assert torch.equal(values(FORCE, str(tmp_path / "a.npy"), 2, 3), expected)
    whole = Condition("force", 2, real=True)
    assert values(whole, str(tmp_path / "a.csv"), 2, 3).tolist() == [[1, 2]] * 2


@pytest.mark.parametrize(
    ("condition", "text", "message"),
    [
        (MOVE, "[left,right]", "condition.move=[left,right]: … 2 labels … 4 steps"),
        (MOVE, "left,[right]", "condition.move=[right]: … 1 label … 4 steps"),
        (MOVE, "[]", "condition.move=[]: "),
        (MOVE, "[left,left,rigth,left]", "condition.move=rigth: … right?"),
        (MOVE, "nowhere.txt", "condition.move=nowhere.txt: … left, right, stay [1], x"),
        (MOVE, "4", "condition.move=4: "),
        (KIND, "[a,a]", "condition.kind=[a: … a?"),
        (FORCE, "left", "condition.force=left: … text file … 2 "),
        (MOVE, "SHORT", "condition.move=SHORT: … 3 lines … 4 steps"),
        (MOVE, "WRONG", "WRONG, line 2: condition.move=rigth: … right?"),
        (FORCE, "SHORT", "condition.force=SHORT: … 2 lines … 4 steps"),
        (FORCE, "NUMBERS", "NUMBERS, line 3: condition.force … 2 numbers … '5'"),
        (FORCE, "INFINITE", "INFINITE, line 2: condition.force … 2 numbers … 'inf 0'"),
        (MOVE, "BYTES", "condition.move=BYTES: … labels or numbers"),
    ],
)
def test_mistakes(
    condition: Condition, text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "SHORT").write_text("left\nleft\nright\n")
    (tmp_path / "WRONG").write_text("left\nrigth\nleft\nleft\n")
    (tmp_path / "NUMBERS").write_text("1 2\n3 4\n5\n6 7\n")
    (tmp_path / "INFINITE").write_text("1 2\ninf 0\n1 5\n6 7\n")
    (tmp_path / "BYTES").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ToolkitError) as error:
        values(condition, text, 2, 4)
    assert_names(str(error.value), message)


def npy(shape: str, content: bytes = b"") -> bytes:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"\x93NUMPY", npy("()", bytes(8)), npy("(1000000000000,)"), npy(f"({10**30},)"), npy("x")],
    ids=["empty", "a zip", "cut", "one number", "10**12 numbers", "10**30 numbers", "no shape"],
)
def test_an_array_that_is_none_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(ToolkitError) as caught:
        values(FORCE, str(path), 1, 3)
    assert_names(str(caught.value), f"condition.force={path}: not a file of labels or numbers")


CAPTION = Condition("caption", 16, text=True)


def texts(given: str, n: int = 2) -> list[str]:
    return [CAPTION.decoded(value) for value in values(CAPTION, given, n, 4)]


def test_a_text_is_one_caption_whatever_is_in_it() -> None:
    assert texts("red, blue; 3") == ["red, blue; 3"] * 2
    assert texts("grüne Fläche", 1) == ["grüne Fläche"]
    assert texts("") == ["", ""]


def test_texts_of_a_list_take_turns() -> None:
    assert texts("[a red star, 'red, blue', true, 3]", 5) == ["a red star", "red, blue", "true", "3", "a red star"]


def test_texts_of_a_file_take_turns(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("a red star\n\na blue ring\n")
    assert texts(f"@{tmp_path}/texts.txt", 4) == ["a red star", "", "a blue ring", "a red star"]


def test_a_text_is_no_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a red star", "star", "stars.txt"):
        (tmp_path / name).write_text("a blue ring\n")
    assert texts("a red star", 1) == ["a red star"]
    assert texts("star", 1) == ["star"]
    assert texts("[stars.txt]", 1) == ["stars.txt"]
    assert texts("['@star']", 1) == ["@star"]
    assert texts("@star", 1) == texts("@stars.txt", 1) == ["a blue ring"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("a caption that is too long", "condition.caption=a caption … 26 bytes … 16"),
        ("[a, [b]]", "condition.caption=['a', ['b']] … a list of texts"),
        ("[]", "condition.caption=[] … a list of texts"),
        ("captions.txt", "condition.caption=captions.txt … @captions.txt … [captions.txt]"),
        ("@captions.txt", "condition.caption=@captions.txt: not a file of texts … No such file"),
        ("@", "condition.caption=@: the name of a file is missing behind it"),
        ("['a]", "condition.caption=['a] … no list of texts"),
    ],
)
def test_what_is_no_text_is_refused(given: str, words: str) -> None:
    with pytest.raises(ToolkitError) as caught:
        texts(given)
    assert_names(str(caught.value), words)
