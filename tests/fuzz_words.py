"""Command lines made at random: lines that work, changed in one to three places."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from toys import PIXELCNN, TILES, VQ

SHORT = [
    *("trainer.steps=1", "trainer.batch_size=4", "trainer.workers=0", "trainer.validate_examples=4"),
    *("prior_trainer.steps=1", "prior_trainer.batch_size=4", "prior_trainer.workers=0"),
    *("prior_trainer.validate_examples=4", "prior_trainer.allow_collapsed=true"),
]
"""Words that stand before those that are changed, so that a line without them is short work, too."""
MODEL = [*TILES, *VQ, *PIXELCNN]
FILES = ["dataset=toy_files", "dataset.root=data", *TILES[1:], *VQ, "stage=autoencoder"]

LINES: dict[str, list[list[str]]] = {
    "train": [
        ["train", *MODEL, "trainer.steps=2", "trainer.learning_rate=0.01", "seed=3", "hydra.run.dir=new"],
        ["train", *MODEL, "stage=autoencoder", "conditions.decoder=[kind]", "metric=[codebook]"],
        ["train", *FILES, "hydra.run.dir=new"],
        ["train", *MODEL, "conditions.prior=[kind]", "prior_trainer.learning_rate=0.1", "hydra.run.dir=new"],
        ["train", "-m", *MODEL, "stage=autoencoder", "dim=2,4", "hydra.sweep.dir=sweep"],
        ["train", *MODEL, "-m", "--cfg", "job", "seed=1,2"],
        ["train", *MODEL, "--cfg", "job", "-p", "trainer"],
        ["train", "--help"],
        ["train", *MODEL, "--info", "config"],
    ],
    "continue": [
        ["train", "run=run"],
        ["train", "run=run", "trainer.steps=7", "stage=autoencoder"],
        ["train", "run=run", "stage=prior", "prior=uniform"],
        ["train", "run=run", "-m", "prior=uniform,categorical"],
        ["train", "run=broken"],
    ],
    "check": [
        ["check", *MODEL, "encoder.stride=2", "quantizer.commitment=0.3", "trainer.clip=1", "trainer.ema=0.9"],
        ["check", *MODEL, "trainer.steps=5", "trainer.workers=2", "trainer.ranks=2", "prior.hidden=8"],
        ["check", *TILES, "quantizer=residual", "quantizer.depth=2", "quantizer.inner.name=fsq", "prior=maskgit"],
        ["check", *FILES],
        ["check", "run=run"],
        ["check", "run=broken", "trainer.steps=9"],
    ],
    "sample": [
        ["sample", "run=run", "n=2", "seed=3", "temperature=0.9", "top_k=3", "guidance=1", "out=out"],
        ["sample", "run=run", "n=2", "top_p=0.5", "prior=pixelcnn", "noise=true"],
        ["sample", "run=run", "n=1", "prefix.file=x.json", "prefix.frames=4"],
        ["sample", "run=run", "n=1", "frames=12", "overlap=4", "device=cpu"],
        ["sample", "run=broken", "n=2", "condition.kind=a"],
    ],
    "evaluate": [
        ["evaluate", "run=run", "split=val", "examples=4", "metrics=[codebook]", "batch_size=2", "device=cpu"],
        ["evaluate", "run=run", "dataset.size=8", "examples=4"],
        ["evaluate", "run=broken", "examples=4"],
    ],
    "reconstruct": [
        ["reconstruct", "run=run", "x.json", "y.json", "out=out"],
        ["reconstruct", "run=run", "examples=3", "condition.kind=b"],
        ["reconstruct", "run=broken", "x.json"],
    ],
    "encode": [
        ["encode", "run=run", "x.json", "data", "out=f.safetensors"],
        ["encode", "run=run", "split=test", "out=f.safetensors"],
        ["encode", "run=broken", "y.json", "out=f.safetensors"],
    ],
    "decode": [
        ["decode", "run=run", "codes.safetensors", "out=out", "device=cpu"],
        ["decode", "run=run", "odd.safetensors", "out=out", "condition.kind=a,b"],
        ["decode", "run=broken", "codes.safetensors", "out=out"],
    ],
    "adopt": [
        ["adopt", "toy_kin", "theirs", "out=new", "license=MIT"],
        ["adopt", "toy_kin", "theirs/model.safetensors", "settings=theirs/config.json", "out=new"],
        ["adopt", "toy_kin", "torn", "out=new"],
        ["adopt", "toy_kin", "run=theirs-run", "out=new"],
        ["adopt", "toy_kin", "run=broken", "out=new"],
        ["adopt", "--help"],
    ],
    "compare": [
        ["compare", "run", "out=out", "split=val", "examples=4", "batch_size=4"],
        ["compare", "run", "broken", "examples=4", "device=cpu"],
        ["compare", ".", "examples=4"],
    ],
    "plugins": [["plugins"], ["plugins", "quantizer"], ["plugins", "quantizer", "vq"], ["plugins", "prior", "--json"]],
    "new-plugin": [
        ["new-plugin", "my-plugin", "--component", "quantizer=my_own"],
        ["new-plugin", "here/parts", "--component", "metric=mine", "--component=dataset=mine_too"],
    ],
    "completion": [
        ["completion", "bash"],
        ["completion", "query", "toolkit train dataset=toy_"],
        ["completion", "query", "toolkit train dataset=toy_tiles quantizer.cod"],
        ["completion", "query", "toolkit sample run=run condition."],
        ["completion", "query", "toolkit encode run=run split="],
    ],
    "toolkit": [["--plugin", "data", "plugins"], ["--version"], ["--help"], [], ["--plugin=empty", "check", *MODEL]],
}
"""Lines that work, by what they do, in a folder as ``tests/test_fuzz_commands.py`` fills it."""

NUMBERS = ["-1", "0", "1", "2", "1.5", "-0.0", "nan", "inf", "-inf", "1e30", "1e-30", "1_000", "0x10", "+3", "1e400"]
NUMBERS += ["99999999999999999999", "9223372036854775807", "4294967296", "9" * 400, "\u0663", "1,5", "1/2"]
TEXTS = ["", "null", "None", "true", "False", "yes", "???", "a", "a,b", "1,2", ",", "a,,b", " ", "a b", "-", "--", "="]
TEXTS += ["[]", "[1,2]", "[a", "a]", "[[1]]", "{}", "{a:1}", "{a: {b: 2}}", "{a", "}", "(", "'", '"', "'x", "x'y", "''"]
TEXTS += ["\\", "\\'", "a\\", "#", "%", "*", "?", "|", "&", "!", "@", ":", ";", "$HOME", "`id`", "%s", "{0}", "<x>"]
TEXTS += [
    "${dim}",
    "${nope}",
    "${",
    "$",
    "${}",
    "${oc.env:NOPE}",
    "${oc.env:HOME}",
    "${hydra:runtime.cwd}",
    "${now:%Y}",
]
TEXTS += ["${oc.decode:1}", "${eval:1}", "${seed}${seed}", "\\${dim}", "${trainer}", "${oc.select:a,b}", "${a.b[0]}"]
TEXTS += ["range(2)", "range(0)", "range(a)", "choice(1,2)", "choice()", "glob(*)", "interval(0,1)", "shuffle(1,2)"]
TEXTS += ["tag(1)", "sort(2,1)", "int(3)", "json_str('{}')", "extend_list(1)", "choice(", "range(0,1,0)"]
ODD = ["\t", "\n", "a\nb", "\r", "\x1b[31mred", "\x07", "\x7f", "\x85", "\u202e", "\ufeff", "\u2028", "é", "e\u0301"]
ODD += ["한 글", "\U0001f600", "\udcff", "\udc80x", "a" * 300, "é" * 200, "a" * 5000, "a/" * 50, "x" * 255]
PATHS = ["run", "broken", "x.json", "nothing", "nothing/x", "x.json/y", "lost", "loop", "pipe", "empty", "data", "."]
PATHS += [
    "..",
    "~",
    "~/x",
    "~nouser/x",
    "odd.json",
    "deep.json",
    "long.json",
    "a\nb.json",
    "\udcff.json",
    "codes.safetensors",
]
PATHS += [
    "odd.safetensors",
    "run/autoencoder",
    "run/config.yaml",
    "data/train",
    "full",
    "here/x.safetensors",
    "sound.wav",
]
VALUES = (NUMBERS, TEXTS, ODD, PATHS)

KEYS = [
    "dim",
    "seed",
    "stage",
    "init",
    "experiment",
    "dataset",
    "encoder",
    "decoder",
    "quantizer",
    "objective",
    "prior",
]
KEYS += ["likelihood", "metric", "logger", "trainer", "prior_trainer", "conditions", "conditions.decoder", "hydra", ""]
KEYS += ["dataset.size", "dataset.root", "prior_dataset.size", "encoder.stride", "quantizer.codebook_size", "nope"]
KEYS += [
    "quantizer.decay",
    "quantizer.inner",
    "quantizer.inner.name",
    "quantizer/inner",
    "prior.hidden",
    "prior.layers",
]
KEYS += [
    "prior.name",
    "trainer.batch_size",
    "trainer.learning_rate",
    "trainer.precision",
    "trainer.device",
    "trainer.x",
]
KEYS += [
    "trainer.ema",
    "trainer.keep",
    "trainer.log_every",
    "trainer.seed",
    "trainer.checkpoint_every",
    "trainer.ranks",
]
KEYS += [
    "metric.codebook",
    "hydra.run.dir",
    "hydra.sweep.dir",
    "hydra.sweep.subdir",
    "hydra.job.name",
    "hydra/launcher",
]
KEYS += ["hydra/sweeper", "hydra.mode", "hydra.verbose", "hydra.job.chdir", "hydra.output_subdir", "hydra.searchpath"]
KEYS += [
    "hydra/job_logging",
    "hydra.callbacks",
    "hydra.job.env_set",
    "run",
    "out",
    "n",
    "split",
    "examples",
    "condition",
]
KEYS += [
    "condition.kind",
    "condition.nope",
    "prefix.file",
    "prefix.frames",
    "files",
    "runs",
    "device",
    "compile",
    "x/y",
]
KEYS += ["dataset@x", "@", "a.b.c.d", "dim.x", "trainer[0]", "defaults", "_target_", "__class__", "0", "한글", "\udcff"]

FLAGS = ["-m", "--cfg", "--help", "-h", "--info", "--config-dir", "-p", "--resolve", "--multirun", "-x", "--no", "-cd"]
FLAGS += [
    "--config-dir=data",
    "--cfg=hydra",
    "--cfg=all",
    "--package=trainer",
    "--plugin",
    "--json",
    "job",
    "--=",
    "---",
]
CHARS = "=,.'\"[]{}()$~+-/:@# \\\n\t\x1b\udcffé0a"

Change = Callable[[list[str], random.Random], None]


def drop(words: list[str], chance: random.Random) -> None:
    words.pop(_place(words, chance))


def double(words: list[str], chance: random.Random) -> None:
    words.insert(chance.randint(0, len(words)), words[_place(words, chance)])


def swap(words: list[str], chance: random.Random) -> None:
    i, j = _place(words, chance), _place(words, chance)
    words[i], words[j] = words[j], words[i]


def exchange(words: list[str], chance: random.Random) -> None:
    """The values of two words."""
    i, j = _place(words, chance), _place(words, chance)
    (a, between, b), (c, _, d) = words[i].partition("="), words[j].partition("=")
    words[i], words[j] = f"{a}{between}{d}", f"{c}={b}"


def value(words: list[str], chance: random.Random) -> None:
    i = _place(words, chance)
    key, between, before = words[i].partition("=")
    number = before.replace(".", "").isdecimal() and chance.random() < 0.7
    other = chance.choice(NUMBERS) if number else _value(chance)
    words[i] = f"{key}{between}{other}" if between else other


def key(words: list[str], chance: random.Random) -> None:
    i = _place(words, chance)
    words[i] = f"{chance.choice(KEYS)}={words[i].partition('=')[2]}"


def prefix(words: list[str], chance: random.Random) -> None:
    i = _place(words, chance)
    words[i] = chance.choice(["+", "++", "~", "~~", "+~", "-", "--", " "]) + words[i]


def cut(words: list[str], chance: random.Random) -> None:
    i = _place(words, chance)
    begin = chance.randint(0, len(words[i]))
    words[i] = words[i][:begin] + words[i][begin + chance.randint(1, 4) :]


def character(words: list[str], chance: random.Random) -> None:
    i = _place(words, chance)
    at = chance.randint(0, len(words[i]))
    words[i] = words[i][:at] + chance.choice(CHARS) + words[i][at:]


def add(words: list[str], chance: random.Random) -> None:
    words.insert(chance.randint(0, len(words)), f"{chance.choice(KEYS)}={_value(chance)}")


def flag(words: list[str], chance: random.Random) -> None:
    words.insert(chance.randint(0, len(words)), chance.choice([*FLAGS, _value(chance)]))


def split(words: list[str], chance: random.Random) -> None:
    i = _place(words, chance)
    left, _, right = words[i].partition("=")
    words[i : i + 1] = [left, right]


def letters(words: list[str], chance: random.Random) -> None:
    i = _place(words, chance)
    words[i] = words[i].upper()


CHANGES: tuple[Change, ...] = (
    *(value, value, value, value, value, value, value, value, add, key, cut, character, flag, prefix),
    *(drop, double, swap, exchange, split, letters),
)


def line(number: int) -> list[str]:
    """The words of a case."""
    chance = random.Random(number)
    while True:
        lines = LINES[chance.choice(list(LINES))]
        whole = chance.choice(lines)
        first, words = whole[:1], list(whole[1:])
        if not words or chance.random() < 0.05:
            first, words = [], list(whole)
        if chance.random() < 0.4:  # an option that another line of the command has
            words.append(f"{chance.choice(_keys(lines))}={_value(chance)}")
        for _ in range(chance.choice([0, 1, 1, 1, 1, 2, 3])):
            if words:
                chance.choice(CHANGES)(words, chance)
            else:
                add(words, chance)
        if first == ["train"] and any(word.startswith("dataset=toy") for word in whole):
            words = [*SHORT, *words]
        if not _elsewhere([*first, *words]) and not _long([*first, *words]):
            return [*first, *words]


def _keys(lines: list[list[str]]) -> list[str]:
    """The keys of words that have one; those of the configuration where none has."""
    keys = {word.partition("=")[0] for words in lines for word in words if "=" in word}
    return sorted(keys) or KEYS


def _place(words: list[str], chance: random.Random) -> int:
    return chance.randrange(len(words)) if words else 0


def _value(chance: random.Random) -> str:
    return chance.choice(chance.choice(VALUES))


def _elsewhere(words: list[str]) -> bool:
    """Whether a word may lead out of the folder: such a case is not tried."""
    return any(re.search(r"(^|[^\w.~)}\]])/|~(?!/|nouser)\w|\.\..*\.\.|/\.\.", word.lstrip("~")) for word in words)


def _long(words: list[str]) -> bool:
    """Whether a line asks for work that nobody calls wrong, only long: many steps, processes or examples."""
    sizes = r"[\w.]*(steps|ranks|workers|frames|n|examples|every|keep|codebook_size|dim|hidden|layers|head|depth)"
    many = [word for word in words if re.fullmatch(rf"[+]*{sizes}=['\"\[]*\+?0*[1-9][\d_]{{2,}}.*", word, re.DOTALL)]
    several = [word for word in words if re.search(r"(ranks|workers)=(?!['\"\[]*-?[01]\b)['\"\[]*\d", word)]
    return words[:1] != ["check"] and bool(several or [word for word in many if "run" not in word and _countable(word)])


def _countable(word: str) -> bool:
    """A count that a computer could reach: 4294967296 is long work, 99999999999999999999 a mistake."""
    digits = re.sub(r"\D", "", word.partition("=")[2])
    return len(digits) < 12
