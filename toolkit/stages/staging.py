"""What both stages of a run share: their shares of a split, their loop, and the codes between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from toolkit import interrupts, registry
from toolkit.autoencoder import Autoencoder
from toolkit.batches import Batch, TrainBatches, split_batches, stoppable
from toolkit.coded_batches import CodedBatches
from toolkit.config import RunConfig
from toolkit.dataset import Examples
from toolkit.device import choose_device, deterministic, matmuls
from toolkit.distributed import all_gather_object, rank, ranks
from toolkit.errors import Interrupted
from toolkit.fit import device_of
from toolkit.lengths.known import by_length, cut_at, is_of_one_length, lengths_of
from toolkit.logged import Logged
from toolkit.model import Model
from toolkit.on_device import table_on
from toolkit.optimization import Optimization
from toolkit.options import TrainerOptions
from toolkit.runs.checkpoint import found
from toolkit.runs.code_cache import CodeCache
from toolkit.runs.folder import Run
from toolkit.spec import CodeSpec, DataSpec
from toolkit.stages.recorder import Recorder
from toolkit.stream_batches import KEY, StreamBatches
from toolkit.stream_dataset import StreamDataset, numbered
from toolkit.training import PriorStage, Stage, train_steps


@dataclass(frozen=True)
class Staging:
    """A run that is being trained."""

    run: Run
    config: RunConfig
    report: Logged

    def share(self, examples: Examples, split: str, options: TrainerOptions, shared: bool = True) -> Iterator[Batch]:
        """This rank's stretch of what a validation reads, or all of it."""
        return stoppable(_stretch(examples, split, options, shared))

    def in_step(self, examples: Examples, split: str, options: TrainerOptions) -> Iterator[tuple[Batch, bool]]:
        """The same for a model whose passes every rank takes part in: as many batches on each, with whether they count.

        A rank that has one fewer sees its last one twice; of fewer batches than ranks each sees all. A signal is waited
        for until the last one.
        """
        lengths = lengths_of(examples, split) if is_of_one_length(examples) else None
        count = len(cut_at(_places(examples, split, options), options.batch_size, lengths))
        shared = count >= ranks()
        batches = _stretch(examples, split, options, shared)
        last = next(batches)
        yield last, True
        for _ in range((-(-count // ranks()) if shared else count) - 1):
            batch = next(batches, last)
            yield batch, batch is not last
            last = batch
        if stop := max(all_gather_object(interrupts.asked())):
            raise Interrupted(stop)

    def pictured(
        self, stage: str, optimization: Optimization, plot: Callable[[Path], tuple[dict[str, Tensor], DataSpec]]
    ) -> Callable[[Path], None]:
        """The function that plots a picture, which the loggers then get, too, with what it shows."""

        def plotted(path: Path) -> None:
            examples, data = plot(path)
            self.report.picture(stage, optimization.step, path)
            self.report.examples(stage, optimization.step, examples, data)

        return plotted

    def loop(
        self,
        recorder: Recorder,
        stage: Stage | PriorStage,
        examples: Examples,
        seed: int,
        encoded_by: Autoencoder | None = None,
    ) -> None:
        """Runs the training loop from where the checkpoint stopped, and records it.

        ``encoded_by``: what is trained on are its codes of the examples, encoded as they come.
        """
        optimization, options = recorder.optimization, recorder.optimization.options
        if not options.steps and not found(recorder.folder):
            recorder.finish()
            return
        if optimization.done or recorder.choice.ended:
            recorder.make_up()
        if optimization.done or recorder.choice.ended:  # what was made up for may be no better than before
            done = f"{recorder.stage}: all {options.steps} steps are done" if optimization.done else ""
            self._tell(done, recorder.choice.outcome())
            return
        device, passes = device_of(stage), (options.steps - optimization.step) * options.accumulate
        reads = passes * options.batch_size * ranks()
        batches: TrainBatches | StreamBatches | CodedBatches
        if isinstance(examples, StreamDataset):
            batches = StreamBatches(
                examples,
                device,
                batch_size=options.batch_size,
                seed=seed,
                workers=options.workers,
                rank=rank(),
                ranks=ranks(),
                saved=recorder.saved_facts.get(KEY),
                note=self.report.note,
            )
        else:
            batches = TrainBatches(
                examples,
                device,
                batch_size=options.batch_size,
                seed=seed,
                start=optimization.step * options.accumulate,
                workers=options.workers,
                rank=rank(),
                ranks=ranks(),
                table=table_on(device, examples, "train", options.data_on_device, reads=reads, note=self.report.note),
            )
        if encoded_by is not None:
            batches = CodedBatches(batches, encoded_by)
        with matmuls(batches.device, products=not options.compile), deterministic(options.deterministic):
            recorder.follow(train_steps(stage, batches, optimization), batches)
        self._tell(recorder.choice.outcome())

    def _tell(self, *texts: str) -> None:
        for text in filter(None, texts):
            self.report.note(text)

    def cache(self, run: Run, config: RunConfig, model: Model, code_spec: CodeSpec, files: str | None) -> CodeCache:
        """The cache of a run's codes of its data; ``files`` is a hash of what is known of the data's files."""
        version = registry.find("dataset", config.dataset.name).version
        dataset = {**config.dataset.values(), **config.prior_dataset}
        parts = [config.encoder.values(), config.quantizer.values()]  # options change codes, too, such as beams
        return CodeCache(
            run.codes,
            model.autoencoder,
            code_spec,
            (model.checkpoint.weights_hash, dataset, version, parts, *([] if files is None else [files])),
            model.device,
            config.prior_trainer.batch_size,
            config.prior_trainer.workers,
            self.report,
        )


def _stretch(examples: Examples, split: str, options: TrainerOptions, shared: bool) -> Iterator[Batch]:
    return split_batches(
        examples,
        split,
        choose_device(options.device),
        batch_size=options.batch_size,
        places=_places(examples, split, options),
        workers=0,
        rank=rank() if shared else 0,
        ranks=ranks() if shared else 1,
    )


def _places(examples: Examples, split: str, options: TrainerOptions) -> Sequence[int]:
    """The examples that a validation reads, those of about one length beside one another."""
    lengths, limit = lengths_of(examples, split), options.validate_examples
    return range(min(numbered(examples, split), limit)) if lengths is None else by_length(lengths, limit)
