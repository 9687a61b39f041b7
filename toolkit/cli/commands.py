"""The commands, listed without importing any."""

from __future__ import annotations

COMMANDS = {
    "start": ("toolkit.cli.start:main", "look at a folder of files, and write an experiment for it"),
    "train": ("toolkit.cli.train:train", "train an autoencoder and a prior, or continue a run"),
    "sample": ("toolkit.cli.sample:main", "sample from a run's prior and decoder"),
    "evaluate": ("toolkit.cli.evaluate:main", "measure a run on a split"),
    "reconstruct": ("toolkit.cli.reconstruct:main", "originals beside their reconstructions"),
    "encode": ("toolkit.cli.encode:main", "files to codes"),
    "decode": ("toolkit.cli.decode:main", "codes to files"),
    "pack": ("toolkit.cli.pack:main", "a dataset, or a run's codes, to shards: tar files with an index"),
    "compress": ("toolkit.cli.compress:main", "files to few bytes, by a prior's probabilities"),
    "decompress": ("toolkit.cli.decompress:main", "compressed files to data again"),
    "export": ("toolkit.cli.export:main", "a run as ONNX or PyTorch graphs for other programs"),
    "adopt": ("toolkit.cli.adopt:main", "published weights as a run, and a run as published weights"),
    "push": ("toolkit.cli.push:main", "a run to the Hugging Face Hub, with a card"),
    "pull": ("toolkit.cli.pull:main", "a run of the Hub as one of yours, to train it further"),
    "compare": ("toolkit.cli.compare:main", "metrics of several runs side by side"),
    "report": ("toolkit.cli.page:main", "a run, or several, as one HTML page"),
    "watch": ("toolkit.cli.watch:main", "the same page of a run, live beside its training"),
    "check": ("toolkit.cli.train:check", "check that the parts fit, without training"),
    "plugins": ("toolkit.cli.plugins:main", "list what is installed, and what is broken"),
    "new-plugin": ("toolkit.cli.new_plugin:main", "write a package with parts or commands of your own"),
    "completion": ("toolkit.cli.completion:main", "print a shell's completion script"),
}
"""Every command: the function that runs it, and what it does."""
