"""The laws of objectives, as tests that a plugin's tests inherit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from toolkit.autoencoder import Autoencoder
from toolkit.objective import Objective
from toolkit.quantizer import Quantizer
from toolkit.spec import DataSpec
from toolkit.testing.parts import point_autoencoder, random_data


class ObjectiveSuite(ABC):
    """Subclass it as ``class TestMyObjective(ObjectiveSuite)`` and say how to ``make`` one.

    It is given autoencoders of the smallest parts; one that needs a quantizer of its own kind says which.
    """

    data: ClassVar[DataSpec] = DataSpec(2, (6,), levels=5)

    @abstractmethod
    def make(self, data: DataSpec) -> Objective:
        """The objective over this data."""

    def quantizer(self) -> Quantizer | None:
        """A quantizer that the objective can work with; None: a plain codebook."""
        return None

    def autoencoder(self) -> Autoencoder:
        """One in eval mode, the same from call to call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            autoencoder: Autoencoder = point_autoencoder(self.data, quantizer=self.quantizer()).eval()
        return autoencoder

    def test_the_loss_is_finite_and_trains_every_parameter(self) -> None:
        autoencoder, objective = self.autoencoder().train(), self.make(self.data).train()
        made = objective(autoencoder, random_data(self.data, 64), {})
        assert made.loss.shape == ()
        assert made.loss.isfinite()
        made.loss.backward()
        for part in (autoencoder, objective):
            for name, parameter in part.named_parameters():
                assert parameter.grad is not None, f"{name} has no gradient"
                assert parameter.grad.isfinite().all(), f"{name} has a gradient that is not finite"

    def test_terms_are_figures(self) -> None:
        made = self.make(self.data)(self.autoencoder(), random_data(self.data, 4), {})
        assert made.terms
        assert all(term.shape == () and term.isfinite() for term in made.terms.values())
        assert made.likelihood.shape == self.data.shape
        assert made.quantized.codes.shape[0] == 4

    def test_the_bound_has_a_number_per_example(self) -> None:
        bound = self.make(self.data).eval().bound(self.autoencoder(), random_data(self.data, 4), {})
        for nats in (bound.data_nats, bound.code_nats):
            assert nats.shape == (4,)
            assert nats.isfinite().all()
        assert (bound.code_nats >= 0).all()

    def test_the_bound_changes_no_state(self) -> None:
        autoencoder, objective = self.autoencoder(), self.make(self.data).eval()
        before = {name: value.clone() for name, value in autoencoder.state_dict().items()}
        with torch.no_grad():
            objective.bound(autoencoder, random_data(self.data, 4), {})
        assert all(torch.equal(value, before[name]) for name, value in autoencoder.state_dict().items())

    def test_the_loss_is_precise_under_autocast(self) -> None:
        autoencoder, objective = self.autoencoder(), self.make(self.data)
        with torch.autocast("cpu", torch.bfloat16):
            made = objective(autoencoder, random_data(self.data, 4), {})
        assert made.loss.dtype == torch.float32
