"""Options that make an experiment a matter of seconds."""

TINY = [
    "trainer.steps=2",
    "trainer.batch_size=4",
    "trainer.workers=0",
    "trainer.validate_examples=4",
    "prior_trainer.steps=2",
    "prior_trainer.batch_size=4",
    "prior_trainer.validate_examples=4",
    "prior_trainer.workers=0",
    "prior_trainer.allow_collapsed=true",  # two steps teach no codebook anything
    "prior.hidden=8",
    "prior.layers=2",
]
WAVENET = [
    "dataset.seconds=0.128",
    "encoder.hidden=4",
    "decoder.hidden=4",
    "decoder.layers=3",
    "decoder.skip=8",
    "decoder.head=8",
]
