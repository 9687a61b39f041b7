"""An experiment for a folder of recordings: a small codec, trained as audio_codec_small is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from toolkit import ToolkitError
from toolkit.proposal import Choice, Proposal, counted, passes, sampling, some, training, unread
from toolkit_audio.corpus import scan_headers
from toolkit_audio.reading import Header
from toolkit_audio.splits import Utterance

RATES = (24000, 16000, 8000)
"""Sample rates that may be proposed; below the last, that of most files."""
REACH = 0.9
"""Share of the files that have as high a rate as is proposed."""
STRIDES = {24000: [2, 4, 5, 8], 16000: [2, 4, 5, 8]}
SHORTER = [2, 4, 5, 4]
"""Strides at lower rates."""
CODES = {24000: 24, 16000: 16}
"""In an example; 16 at lower rates."""
UTTERANCE = 30.0
"""Seconds up to which a file, in the middle, is an utterance and not a piece."""
MINUTES = 15
"""Of sound, below which a model learns it by heart."""
DEPTH, ENTRIES = 8, 256


class Seen(NamedTuple):
    """A folder's recordings."""

    headers: dict[str, Header]
    failures: dict[str, str]
    speakers: Counter[str]
    """Files by first folder."""

    @property
    def seconds(self) -> list[float]:
        return [header.samples / header.rate for header in self.headers.values()]

    @property
    def utterances(self) -> bool:
        return median(self.seconds) <= UTTERANCE


def propose(root: Path, utterances: Sequence[Utterance]) -> Proposal | None:
    """As of ``Dataset.propose``, of these files."""
    headers, failures = scan_headers(root, [utterance.path for utterance in utterances])
    if not headers:
        raise ToolkitError(f"{root}: {unread(failures, root)}; no sound is left")
    speakers = Counter(utterance.speaker for utterance in utterances if utterance.path in headers)
    seen = Seen(headers, failures, speakers)
    rate = _rate(headers)
    return Proposal(_contents(seen), len(headers), _choices(root, seen, rate), _faults(root, seen, rate))


def _rate(headers: Mapping[str, Header]) -> int:
    rates = [header.rate for header in headers.values()]
    for rate in RATES:
        if sum(own >= rate for own in rates) >= REACH * len(rates):
            return rate
    return Counter(rates).most_common(1)[0][0]


def _choices(root: Path, seen: Seen, rate: int) -> tuple[Choice, ...]:
    strides = STRIDES.get(rate, SHORTER)
    hop = strides[0] * strides[1] * strides[2] * strides[3]
    seconds = CODES.get(rate, 16) * hop / rate
    steps = passes(int(sum(seen.seconds) / seconds) + 1, 8)
    bits = DEPTH * (ENTRIES - 1).bit_length() * rate / hop / 1000
    return (
        Choice("dataset", "audio_folder", f"{len(seen.headers):,} sounds"),
        Choice("encoder", "audio_seanet", "strided convolutions: the network of EnCodec, small"),
        Choice(
            "quantizer", "residual_ema", f"{DEPTH} codebooks, each of what those before it leave: fewer can be kept"
        ),
        Choice("decoder", "audio_seanet", "all samples at once; wavenet, for speech, is better and far slower"),
        Choice("likelihood", "normal", "of samples that are floats"),
        Choice("objective", "audio_adversarial", "a distance of spectrograms, and a critic of them"),
        Choice("prior", "pixelcnn", "learns fast; transformer sees further, on hours of sound"),
        Choice("metric", ["reconstruction", "codebook", "audio_quality"], "audio_quality: distances that one hears"),
        Choice("dim", 64, "channels of a latent"),
        *sampling("speaker", seen.speakers, "first folder"),
        Choice("dataset.root", str(root), ""),
        Choice("dataset.sample_rate", rate, _why_rate(seen, rate)),
        Choice(
            "dataset.seconds",
            seconds,
            f"an example is {round(seconds * rate / hop)} codes; longer ones cost more each step",
        ),
        Choice("dataset.form", "float", "which objectives of spectrograms take"),
        Choice("dataset.trim", 40 if seen.utterances else None, _why_trim(seen)),
        Choice("dataset.on_error", "skip", "what cannot be read is named and left out; stop ends the training there"),
        Choice("encoder.hidden", 8, "for a CPU; 32 is EnCodec's"),
        Choice("encoder.strides", strides, f"{hop} samples a code: {rate / hop:g} a second"),
        Choice("decoder.hidden", 8, "as the encoder"),
        Choice("decoder.strides", strides[::-1], "the encoder's, backwards"),
        Choice("quantizer.depth", DEPTH, f"{bits:g} kbit/s in all"),
        Choice("quantizer.inner.codebook_size", ENTRIES, ""),
        Choice("quantizer.inner.commitment", 5.0, "for a likelihood of this scale"),
        Choice("quantizer.inner.decay", 0.95, "an example has few codes: entries that none takes are soon moved"),
        Choice("quantizer.inner.init", "kmeans", "entries start where latents are"),
        Choice("likelihood.scale", 0.1, "about that of quiet speech; a smaller one weighs samples more"),
        Choice("objective.inner.windows", [128, 512, 2048], "samples, from clicks to tones"),
        Choice("objective.inner.mel_bands", 40, ""),
        Choice("objective.inner.balance", 0.9, "share of the spectrograms in the gradient"),
        Choice("objective.discriminator.windows", [1024, 256], "a critic for each"),
        Choice("objective.discriminator.hidden", 8, "for a CPU; 32 is EnCodec's"),
        Choice("objective.feature_share", 0.5, "0 here and below trains without a critic, in half the time"),
        Choice("objective.share", 0.2, ""),
        Choice("objective.start", steps // 4, "when the spectrograms have settled"),
        Choice("objective.ramp", steps // 8, ""),
        *training(
            "trainer",
            steps,
            8,
            1.0e-3,
            f"about {steps * 8 * seconds / sum(seen.seconds):.0f} passes over the sound",
            examples=64,
            pictures=5,
        ),
        Choice("trainer.optimizer", "adamw", "as EnCodec's"),
        Choice("trainer.betas", [0.8, 0.99], "as EnCodec's"),
        Choice("trainer.warmup", 100, ""),
        Choice("trainer.clip", 1.0, ""),
        Choice("trainer.ema", 0.99, "an average of the weights sounds cleaner"),
        Choice("trainer.critic_learning_rate", 3.0e-4, "slower than what it judges"),
        Choice("trainer.critic_start", steps // 8, "it learns alone first"),
        Choice("prior.hidden", 64, "for a CPU; 128 on a GPU"),
        Choice("prior.layers", 8, ""),
        *training(
            "prior_trainer",
            max(3000, steps // 4),
            16,
            1.0e-3,
            "it stops helping where val rises",
            examples=64,
            pictures=5,
        ),
    )


def _why_rate(seen: Seen, rate: int) -> str:
    rates = sorted({header.rate for header in seen.headers.values()})
    own = ", ".join(f"{rate:,}" for rate in rates[:4])
    more = "" if rates == [rate] else f"; keeps what is below {rate // 2:,} Hz"
    return f"the files have {own}{more}"


def _why_trim(seen: Seen) -> str:
    length = f"{median(seen.seconds):.1f} s in the middle"
    if seen.utterances:
        return f"short files, {length}: silence at their ends is cut at 40 dB below their loudest part"
    return f"long files, {length}: their ends hardly matter"


def _contents(seen: Seen) -> str:
    seconds = sorted(seen.seconds)
    folders = f", {counted(len(seen.speakers), 'folder')} as speakers" if len(seen.speakers) > 1 else ""
    minutes, (shortest, longest) = sum(seconds) / 60, (f"{seconds[place]:.1f}" for place in (0, -1))
    lengths = shortest if shortest == longest else f"{shortest} to {longest}"
    return f"{counted(len(seconds), 'sound')} of {lengths} s, {minutes:.1f} minutes{folders}"


def _faults(root: Path, seen: Seen, rate: int) -> tuple[str, ...]:
    faults = []
    if seen.failures:
        faults.append(unread(seen.failures, root))
    low = [path for path, header in seen.headers.items() if header.rate < rate]
    if low:
        faults.append(
            f"{counted(len(low), 'file')} with fewer than {rate:,} samples a second will sound dull: {some(low)}"
        )
    single = sorted(name for name, count in seen.speakers.items() if count == 1)
    if single and len(seen.speakers) > 1:
        faults.append(f"{counted(len(single), 'folder')} with one file, and nothing to validate on: {some(single)}")
    if sum(seen.seconds) < 60 * MINUTES:
        faults.append(f"less than {MINUTES} minutes of sound: a model learns them by heart; look at val, not at train")
    return tuple(faults)
