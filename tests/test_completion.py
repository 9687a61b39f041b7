"""Tab completion: what may follow, of a line as it stands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_plugin import subprocess_out

from toolkit.cli.completion import BASH, candidates


@pytest.mark.long
@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("toolkit tr", ["train "]),
        ("toolkit plugins --j", ["--json "]),
        ("toolkit completion z", ["zsh "]),
        ("toolkit train exp", ["experiment="]),
        ("toolkit train experiment=d_", ["experiment=d_small "]),
        ("toolkit train encoder=d_", ["encoder=d_enc ", "encoder=d_wrong "]),
        ("toolkit train experiment=d_small encoder.h", ["encoder.hidden="]),
        ("toolkit train encoder=d_enc encoder.norm=", ["encoder.norm=group ", "encoder.norm=none "]),
        ("toolkit train encoder=d_enc encoder.bias=", ["encoder.bias=false ", "encoder.bias=true "]),
        ("toolkit train quantizer=product quantizer.inner.name=v", ["quantizer.inner.name=vq "]),
        ("toolkit train quantizer=product quantizer.inner.name=ema quantizer.inner.dec", ["quantizer.inner.decay="]),
        ("toolkit train encoder=nope seed=x tra", ["trainer."]),
        ("toolkit train trainer.optimizer=a", ["trainer.optimizer=adam ", "trainer.optimizer=adamw "]),
        ("toolkit train stage=p", ["stage=prior "]),
        ("toolkit adopt mine f.pt set", ["settings="]),
        ("toolkit train init=so", ["init=some/"]),
        ("toolkit train init=some/", ["init=some/run/"]),
        ("toolkit check experiment=d_", ["experiment=d_small "]),
        ("toolkit train 'unclosed experi", ["experiment="]),
        ("toolkit new-plugin comp", ["component="]),
        ("toolkit smaple run=x ", []),
        ("toolkit s(ample run=x ", []),
    ],
)
def test_completion(cli_plugin: Path, line: str, found: list[str]) -> None:
    (Path("some") / "run").mkdir(parents=True)
    assert candidates(line) == found


def test_completion_of_a_runs_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels and priors of the run that the line names, and names that a shell would split."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "my run"
    (run / "priors" / "pixelcnn").mkdir(parents=True)
    spec = {"data": {"conditions": [{"name": "kind", "labels": ["circle", "한 글"]}]}}
    (run / "spec.json").write_text(json.dumps(spec))
    assert candidates("toolkit sample run=my") == [r"run=my\ run/"]
    line = r"toolkit --debug sample run=my\ run "
    assert candidates(line + "cond") == ["condition.kind="]
    assert candidates(line + "condition.kind=") == ["condition.kind=circle ", r"condition.kind=한\ 글 "]
    assert candidates(line + "prior=") == ["prior=pixelcnn "]
    assert candidates("toolkit evaluate split=t") == ["split=test ", "split=train "]
    assert "--multirun " in candidates("toolkit train --")
    assert candidates("toolkit plugins quantizer pro") == ["product ", "projected "]


def test_other_commands_complete_their_options() -> None:
    assert "run=" in candidates("toolkit sample r")


@pytest.mark.parametrize("breaks", ["=", ""])
def test_bash_completes(tmp_path: Path, breaks: str) -> None:
    """With = among bash's word breaks, only what stands behind it is replaced."""
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    fake = tmp_path / "toolkit"
    fake.write_text("#!/bin/sh\nprintf 'encoder=one \\nencoder=two \\n'\n")
    fake.chmod(0o755)
    line = "toolkit train encoder="
    script = f"{BASH}\nCOMP_WORDBREAKS='{breaks}'\nCOMP_LINE='{line}' COMP_POINT={len(line)}\n_toolkit\n"
    out = subprocess_out("bash", "-c", script + 'printf "[%s]" "${COMPREPLY[@]}"', PATH=f"{tmp_path}:/usr/bin:/bin")
    start = "" if breaks else "encoder="
    assert out == f"[{start}one ][{start}two ]"
